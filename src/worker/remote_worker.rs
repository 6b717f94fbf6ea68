//! The jobs of one remote: looks at the disk, and has rsync do what is to be done.
//! Does not decide which jobs, nor when.

mod appeared;
mod resting;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::echoes::Echoes;
use super::fresh::coarse_now;
use super::job_run::JobRun;
use super::load_gate::LoadGate;
use super::look::{Look, LookOptions, look_at};
use super::moves::{Hints, Move};
use super::remote::{Remote, Stop};
use super::rules::Rules;
use super::sessions::SessionDemand;
use super::shards::Sharding;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{FullSyncFilter, Job, JobKind, JobReport, Verdict};
use crate::path::RelPath;
use crate::record::{self, Eyes};
use crate::rsync::excludes::Excludes;
use crate::rsync::{Abilities, Endpoint, Knock, NoAnswer, Presence, Way};
use crate::source::{Source, Unhealthy};
use crate::watch::Exclude;
use resting::Sending;

/// Who is told which directories of a job need not keep back what is below them.
type Opened<'a> = &'a dyn Fn(Vec<RelPath>);

/// Does the jobs of one remote.
#[derive(Debug)]
pub struct RemoteWorker {
    remote: Remote,
    /// The rules' patterns and those of `<crontabfilter>`.
    crontab_excludes: Excludes,
    sharding: Sharding,
    recorder: Option<Recorder>,
    /// Set when a full sync was begun without asking what the remote can do.
    was_trusted: AtomicBool,
    echoes: Mutex<Echoes>,
    /// Set while the remote is not known to answer.
    doubt: AtomicBool,
}

/// What a link is made of.
#[derive(Debug)]
pub struct RemoteWorkerSetup {
    /// How the remote is reached.
    pub endpoint: Endpoint,
    /// The watch root.
    pub source: Arc<Source>,
    /// What is neither sent nor deleted.
    pub rules: Rules,
    /// Whether trees may be divided.
    pub sharding: Sharding,
    /// Notes what is there before a job, where a record is kept.
    pub recorder: Option<Recorder>,
    /// What all remotes have in common.
    pub load_gate: Arc<LoadGate>,
}

/// Looks at the disk for the record of the tree.
#[derive(Clone)]
pub struct Recorder {
    /// The eyes of the root's record.
    pub eyes: Eyes,
    /// What is not mirrored.
    pub exclude: Exclude,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// What the record will say when the job has succeeded. A full sync's shards need none: a walk records them.
    fn look(&self, job: &Job) -> Option<record::Look> {
        if matches!(job.kind, JobKind::Trees(_)) || job.kind.is_question() {
            return None;
        }
        let items: Vec<_> =
            job.items.iter().map(|item| (item.path.clone(), item.mark.scope)).collect();
        Some(self.eyes.look_at(&items, &|path, is_dir| !(self.exclude)(path, is_dir)))
    }
}

impl RemoteWorker {
    /// A link to a remote of which nothing is known yet.
    pub fn new(setup: RemoteWorkerSetup) -> Self {
        let RemoteWorkerSetup { endpoint, source, rules, sharding, recorder, load_gate } = setup;
        let crontab_excludes = rules.patterns.with(rules.crontab.iter().cloned());
        Self {
            remote: Remote::new(endpoint, source, rules, load_gate),
            crontab_excludes,
            sharding,
            recorder,
            was_trusted: AtomicBool::default(),
            echoes: Mutex::new(Echoes::new(coarse_now())),
            doubt: AtomicBool::new(true),
        }
    }

    /// Ends the warm sessions.
    pub fn close_sessions(&self) {
        self.remote.sessions().rest();
    }

    /// How badly warm sessions are needed.
    pub fn demand(&self) -> SessionDemand {
        self.remote.sessions().demand()
    }

    /// From now on warm sessions are kept ready, if the remote has answered.
    pub fn keep_sessions_ready(&self) {
        if let Some(abilities) = self.remote.abilities() {
            self.remote.sessions().keep_ready(abilities);
        }
    }

    /// Starts a warm session, if one is missing.
    pub fn start_session(&self) {
        self.remote.sessions().start_one();
    }

    /// Kills what is running for jobs of now; others may follow.
    pub fn abort(&self) {
        self.remote.sessions().abort();
    }

    /// Kills what is running.
    pub fn kill(&self) {
        self.remote.sessions().kill();
    }

    /// Does a job; blocks until it is done or has failed. The look is what was there before it. Calls `opened` with what need not
    /// wait for its end.
    pub fn run(&self, job: &Job, opened: Opened<'_>) -> (JobReport, Option<record::Look>) {
        // Nothing else is done, not even a look at the disk, for a remote that may be down and does not answer.
        if self.doubt.load(Ordering::Relaxed) || job.kind == JobKind::Knock {
            match self.remote.endpoint().knock() {
                Err(NoAnswer { code, reason }) => {
                    return (JobReport::nothing(Verdict::RemoteDown { code, reason }), None);
                }
                Ok(Knock::Greeted) if job.kind == JobKind::Knock => {
                    return (JobReport::done(), None);
                }
                Ok(_) => {}
            }
        }
        let look = self.recorder.as_ref().and_then(|recorder| recorder.look(job));
        let report = self.run_job(job, opened);
        let is_down = matches!(report.verdict, Verdict::RemoteDown { .. });
        self.doubt.store(is_down, Ordering::Relaxed);
        (report, look)
    }

    fn run_job(&self, job: &Job, opened: Opened<'_>) -> JobReport {
        // Each round knows one inability more, and there are two; trust may be in vain as well.
        for _ in 0..5 {
            let known = self.remote.abilities();
            let is_trusted = known.is_none() && self.may_trust(job);
            match self.try_run(job, known.or(is_trusted.then_some(Abilities::ALL)), opened) {
                Ok(report) => {
                    // A full sync needs the processors; what changes meanwhile makes them wanted.
                    let is_full_sync = matches!(job.kind, JobKind::Trees(_));
                    if !is_full_sync || self.remote.sessions().are_wanted() {
                        self.keep_sessions_ready();
                    }
                    return report;
                }
                // A probe tells whether it is down or only cannot do all that it was trusted with.
                Err(Stop::Verdict(_)) if is_trusted && self.remote.abilities().is_none() => {}
                Err(Stop::Again) => {}
                Err(Stop::Verdict(verdict)) => {
                    self.remote.delivered().clear();
                    return JobReport::nothing(verdict);
                }
                Err(Stop::Stopped) => return JobReport::nothing(Verdict::Stopped),
            }
        }
        let reason = "the remote refuses every way of sending a batch".into();
        JobReport::nothing(Verdict::Misconfigured { code: 1, reason })
    }

    /// True once, for whole trees: their first run shows all that a probe shows, but how missing names are deleted, and
    /// a batch that is refused for that is sent again at once.
    fn may_trust(&self, job: &Job) -> bool {
        matches!(job.kind, JobKind::Trees(_)) && !self.was_trusted.swap(true, Ordering::Relaxed)
    }

    fn try_run(
        &self,
        job: &Job,
        abilities: Option<Abilities>,
        opened: Opened<'_>,
    ) -> Result<JobReport, Stop> {
        if job.kind.is_question() {
            // What it can do may have changed while it was away.
            self.remote.forget_abilities();
        }
        let abilities = abilities.map_or_else(|| self.remote.contact(), Ok)?;
        if job.kind.is_question() {
            return Ok(JobReport::done());
        }
        let root = self.remote.source().open_healthy().map_err(|error| unhealthy(&error))?;
        let (excludes, sharding) = match job.kind {
            JobKind::Trees(FullSyncFilter::Crontab) if !self.remote.rules().crontab.is_empty() => {
                (&self.crontab_excludes, self.sharding.min(Sharding::Top))
            }
            _ => (&self.remote.rules().patterns, self.sharding),
        };
        let exclude = &self.remote.rules().exclude;
        let options = LookOptions { sharding, hints: self.hints(abilities), exclude };
        let mut look =
            self.settled(job, look_at(&root, job, options), || look_at(&root, job, options));
        let mut later = look.put_off_old_names();
        later.extend(self.doubtful_after(&look.moves, &root, job));
        let doubtful = self.doubtful_below(&look.trees, &root, job);
        let mut run = JobRun::new(&self.remote, abilities, job);
        let postponed = self.rest_echoes(&mut look, &root, job, &run)?;
        drop(root);
        let looks = [&look, &later, &doubtful];
        let sends = looks.iter().any(|look| look.is_something());
        let _sending = sends.then(|| Sending::begin(&self.echoes, &looks));
        let forced = job.items.iter().filter(|item| item.mark.compare_content);
        run.by_content = forced.map(|item| item.path.clone()).collect();
        let directories = self.plain_directories(&look, job, abilities);
        if !directories.is_empty() {
            opened(directories);
        }
        run.batch(&look)?;
        run.moves(&look.moves)?;
        // At once: until then both names share their inodes on the remote.
        run.batch(&later)?;
        run.directories(&look, excludes)?;
        run.batch(&doubtful)?;
        self.note_what_was_aborted(job);
        run.clean_up();
        let JobRun { failed, sent, returned, has_run, aborted, .. } = run;
        if has_run {
            self.remote.note_abilities(abilities);
        }
        if failed.is_empty() && ![&look, &later, &doubtful].iter().any(|look| look.reaches_below())
        {
            let mut delivered = self.remote.delivered();
            look.absent.iter().chain(&later.absent).for_each(|path| delivered.forget(path));
            sent.into_iter().for_each(|(path, version)| delivered.note(path, version));
        } else {
            self.remote.delivered().clear();
        }
        look.returned.extend(returned);
        let appeared = self.appeared([&look, &later, &doubtful], job)?;
        look.returned.extend(later.returned);
        look.returned.extend(doubtful.returned);
        look.returned.extend(appeared);
        let (verdict, returned) = (Verdict::Done, look.returned);
        Ok(JobReport { verdict, failed, returned, postponed, aborted })
    }

    /// A run that was broken off may have left its temporary files, also one of an earlier program.
    fn note_what_was_aborted(&self, job: &Job) {
        let rechecked = job.items.iter().filter(|item| item.mark.recheck != Recheck::No);
        let rechecked = rechecked.filter(|item| item.mark.scope == Scope::Entry);
        let names: Vec<&RelPath> = rechecked.map(|item| &item.path).collect();
        self.remote.note_leftovers(&names);
    }

    /// Items that are directories and go by name, as what they are: no run of the job reads or deletes anything below them.
    fn plain_directories(&self, look: &Look, job: &Job, abilities: Abilities) -> Vec<RelPath> {
        let by_name = self.remote.endpoint().way(Presence::Directory, abilities) == Way::Batch;
        if !by_name || !look.moves.is_empty() || job.kind != JobKind::Batch {
            return Vec::new();
        }
        let present = look.present.iter().filter(|entry| entry.presence == Presence::Directory);
        present.map(|entry| entry.path.clone()).collect()
    }

    /// Whether moves can be made on the remote.
    fn hints(&self, abilities: Abilities) -> Hints {
        let trusted = self.remote.endpoint().compares_nanoseconds(abilities);
        match self.remote.endpoint().can_move() && trusted {
            true if self.remote.rules().hold_anywhere() => Hints::Use,
            true => Hints::FilesOnly,
            false => Hints::Ignore,
        }
    }

    /// What below moved directories may have been rewritten without a change of its stamp: its old copy must not be trusted.
    fn doubtful_after(&self, moves: &[Move], root: &OwnedFd, job: &Job) -> Look {
        let fresh = self.remote.fresh();
        let below = |moved: &Move| fresh.moved_along(&moved.old, &moved.new);
        let paths = moves.iter().flat_map(below).collect();
        drop(fresh);
        self.look_again(paths, Mark { compare_content: true, ..Mark::new(Scope::Entry) }, root, job)
    }

    /// What below trees was sent lately: rsync's look at size and time may not see that it is another file now.
    fn doubtful_below(&self, trees: &[RelPath], root: &OwnedFd, job: &Job) -> Look {
        let fresh = self.remote.fresh();
        let paths = trees.iter().flat_map(|tree| fresh.moved_along(tree, tree)).collect();
        drop(fresh);
        self.look_again(paths, Mark::new(Scope::Entry), root, job)
    }

    fn look_again(&self, paths: Vec<RelPath>, mark: Mark, root: &OwnedFd, job: &Job) -> Look {
        let items = paths.into_iter().map(|path| Item { path, mark }).collect();
        let again = Job { items, moves: Vec::new(), ..job.clone() };
        let exclude = &self.remote.rules().exclude;
        let options = LookOptions { sharding: self.sharding, hints: Hints::Ignore, exclude };
        look_at(root, &again, options)
    }
}

fn unhealthy(error: &Unhealthy) -> Stop {
    let reason = error.to_string();
    Stop::Verdict(match error.lacking() {
        Some(lacking) => Verdict::Shortage(format!("cannot start rsync: {lacking}")),
        None => Verdict::SourceUnhealthy(reason),
    })
}
