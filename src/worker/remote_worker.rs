//! The jobs of one remote: looks at the disk, and has rsync do what is to be done.
//! Does not decide which jobs, nor when.

mod appeared;
mod resting;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::delivered::Version;
use super::echoes::Echoes;
use super::executor::Executor;
use super::fresh::coarse_now;
use super::known::Known;
use super::load_gate::LoadGate;
use super::look::{Look, LookOptions, Looks, look_at};
use super::moves::{Hints, Move};
use super::plan::{Facts, Plan, plan};
use super::remote::{Remote, Stop};
use super::rules::Rules;
use super::runs::Runs;
use super::sessions::SessionDemand;
use super::shards::Sharding;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{FullSyncFilter, Job, JobKind, JobReport, PathFailure, Verdict};
use crate::path::RelPath;
use crate::record::{self, Eyes};
use crate::rsync::{Abilities, Endpoint, Knock, NoAnswer, Presence};
use crate::source::{Source, Unhealthy};
use crate::watch::Exclude;
use resting::Sending;

/// Who is told which directories of a job need not keep back what is below them.
type Opened<'a> = &'a dyn Fn(Vec<RelPath>);

/// Does the jobs of one remote.
#[derive(Debug)]
pub struct RemoteWorker {
    remote: Remote,
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
        Self {
            remote: Remote::new(endpoint, source, rules, load_gate),
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
                    self.remote.known().doubt();
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
        let mut runs = Runs::new(&self.remote, abilities);
        let (mut looks, postponed) = self.look(job, abilities, &runs)?;
        let _sending = looks.is_something().then(|| Sending::begin(&self.echoes, &looks.all()));
        let plan = self.plan(job, &looks, abilities);
        if !plan.open.is_empty() {
            opened(plan.open);
        }
        let mut executor = Executor {
            rules: self.remote.rules(),
            absent_way: self.remote.endpoint().way(Presence::Absent, abilities),
            effects: &mut runs,
            failed: plan.failed,
        };
        executor.execute(plan.steps)?;
        let failed = executor.failed;
        self.clean_up(job, &runs);
        if runs.has_run {
            self.remote.note_abilities(abilities);
        }
        self.note_delivered(&looks, plan.versions, &failed);
        let mut returned = std::mem::take(&mut looks.first.returned);
        returned.extend(plan.returned);
        returned.extend(self.appeared(&looks, job)?);
        returned.extend(looks.after_moves.returned);
        returned.extend(looks.below_trees.returned);
        let (verdict, aborted) = (Verdict::Done, runs.aborted);
        Ok(JobReport { verdict, failed, returned, postponed, aborted })
    }

    /// Looks at the disk; returns besides what is left alone for a while.
    fn look(
        &self,
        job: &Job,
        abilities: Abilities,
        runs: &Runs<'_>,
    ) -> Result<(Looks, Vec<Item>), Stop> {
        let root = self.remote.source().open_healthy().map_err(|error| unhealthy(&error))?;
        let is_scheduled = job.kind == JobKind::Trees(FullSyncFilter::Crontab)
            && !self.remote.rules().crontab.is_empty();
        let sharding = if is_scheduled { self.sharding.min(Sharding::Top) } else { self.sharding };
        let exclude = &self.remote.rules().exclude;
        let hints = self.facts(&self.remote.known(), abilities).hints();
        let options = LookOptions { sharding, hints, exclude };
        let mut first =
            self.settled(job, look_at(&root, job, options), || look_at(&root, job, options));
        let mut after_moves = first.put_off_old_names();
        after_moves.extend(self.doubtful_after(&first.moves, &root, job));
        let below_trees = self.doubtful_below(&first.trees, &root, job);
        let postponed = self.rest_echoes(&mut first, &root, job, abilities, runs)?;
        Ok((Looks { first, after_moves, below_trees }, postponed))
    }

    /// Decides what is to be done, and remembers the stamps of what is about to be sent.
    fn plan(&self, job: &Job, looks: &Looks, abilities: Abilities) -> Plan {
        let mut known = self.remote.known();
        let facts = self.facts(&known, abilities);
        let (now, granularity) = (facts.now, facts.granularity());
        let plan = plan(job, looks, facts);
        for (path, stamp) in &plan.stamps {
            known.remember(path, *stamp, now, granularity);
        }
        plan
    }

    /// What a plan depends on besides the job and the look.
    fn facts<'a>(&'a self, known: &'a Known, abilities: Abilities) -> Facts<'a> {
        let (endpoint, rules) = (self.remote.endpoint(), self.remote.rules());
        Facts { endpoint, rules, abilities, known, now: coarse_now() }
    }

    /// Removes what aborted runs have left on the remote, also those of an earlier program.
    fn clean_up(&self, job: &Job, runs: &Runs<'_>) {
        let rechecked = job.items.iter().filter(|item| item.mark.recheck != Recheck::No);
        let rechecked = rechecked.filter(|item| item.mark.scope == Scope::Entry);
        self.remote.known().note_leftovers(rechecked.map(|item| &item.path));
        runs.clean_up();
    }

    fn note_delivered(
        &self,
        looks: &Looks,
        versions: Vec<(RelPath, Version)>,
        failed: &[PathFailure],
    ) {
        let mut known = self.remote.known();
        if failed.is_empty() {
            known.delivered(looks, versions);
        } else {
            known.doubt();
        }
    }

    /// What below moved directories may have been rewritten with the same stamp: its old copy must not be trusted.
    fn doubtful_after(&self, moves: &[Move], root: &OwnedFd, job: &Job) -> Look {
        let known = self.remote.known();
        let below = |moved: &Move| known.fresh_below(&moved.old, &moved.new);
        let paths = moves.iter().flat_map(below).collect();
        drop(known);
        self.look_again(paths, Mark { compare_content: true, ..Mark::new(Scope::Entry) }, root, job)
    }

    /// What below trees was sent lately: rsync's comparison of size and time may not see that it is another file now.
    fn doubtful_below(&self, trees: &[RelPath], root: &OwnedFd, job: &Job) -> Look {
        let known = self.remote.known();
        let paths = trees.iter().flat_map(|tree| known.fresh_below(tree, tree)).collect();
        drop(known);
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
