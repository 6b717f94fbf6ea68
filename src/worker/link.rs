//! One remote as the workers see it: how it is reached, what it can do, its warm sessions, what was sent to it lately.
//! Runs jobs against it; does not decide which, nor when.

mod contact;
mod resting;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::calm::Calm;
use super::delivered::Delivered;
use super::echoes::Echoes;
use super::exact::Rules;
use super::fresh::FreshStamps;
use super::job_run::JobRun;
use super::look::{Look, LookOptions, look_at};
use super::moves::{Hints, Move};
use super::sessions::Sessions;
use super::shards::Sharding;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::engine::{FullSyncFilter, Job, JobKind, JobReport, Verdict};
use crate::path::RelPath;
use crate::record::{self, Eyes};
use crate::rsync::excludes::Excludes;
use crate::rsync::exit::Outcome;
use crate::rsync::{Abilities, Endpoint, NoAnswer};
use crate::source::{Source, Unhealthy};
use crate::watch::Exclude;

/// rsync's exit code for "partial transfer due to error".
const PARTIAL: i32 = 23;

/// Beside so many paths leftovers are looked for.
const LEFTOVERS_MAX: usize = 10_000;

/// Everything the workers share about one remote.
#[derive(Debug)]
pub struct Link {
    endpoint: Endpoint,
    source: Arc<Source>,
    rules: Rules,
    /// The rules' patterns and those of `<crontabfilter>`.
    crontab_excludes: Excludes,
    sharding: Sharding,
    recorder: Option<Recorder>,
    abilities: Mutex<Option<Abilities>>,
    /// Set when a full sync was begun without asking what the remote can do.
    was_trusted: AtomicBool,
    fresh: Mutex<FreshStamps>,
    delivered: Mutex<Delivered>,
    /// What runs that broke off were sending.
    leftovers: Mutex<BTreeSet<RelPath>>,
    echoes: Mutex<Echoes>,
    /// Set while the remote is not known to answer.
    doubt: AtomicBool,
    sessions: Sessions,
}

/// What a link is made of.
#[derive(Debug)]
pub struct LinkSetup {
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
    pub calm: Arc<Calm>,
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
        if matches!(job.kind, JobKind::Trees(_) | JobKind::Probe) {
            return None;
        }
        let items: Vec<_> =
            job.items.iter().map(|item| (item.path.clone(), item.mark.scope)).collect();
        Some(self.eyes.look_at(&items, &|path, is_dir| !(self.exclude)(path, is_dir)))
    }
}

/// What a step of a job came to when it was not delivered as a whole.
#[derive(Debug)]
pub enum Stop {
    /// The job ends here, with this.
    Verdict(Verdict),
    /// The remote cannot do something: the job begins again without it.
    Again,
    /// The program ends: everything goes back.
    Stopped,
}

impl Link {
    /// A link to a remote of which nothing is known yet.
    pub fn new(setup: LinkSetup) -> Self {
        let LinkSetup { endpoint, source, rules, sharding, recorder, calm } = setup;
        let crontab_excludes = rules.patterns.with(rules.crontab.iter().cloned());
        Self {
            sessions: Sessions::new(endpoint.clone(), Arc::clone(&source), calm),
            endpoint,
            source,
            rules,
            crontab_excludes,
            sharding,
            recorder,
            abilities: Mutex::default(),
            was_trusted: AtomicBool::default(),
            fresh: Mutex::default(),
            delivered: Mutex::default(),
            leftovers: Mutex::default(),
            echoes: Mutex::default(),
            doubt: AtomicBool::new(true),
        }
    }

    /// Ends the warm sessions.
    pub fn close_sessions(&self) {
        self.sessions.rest();
    }

    /// Starts a warm session, if one is missing.
    pub fn start_session(&self) {
        self.sessions.start_one();
    }

    /// Kills what is running for jobs of now; others may follow.
    pub fn abort(&self) {
        self.sessions.abort();
    }

    /// Kills what is running.
    pub fn kill(&self) {
        self.sessions.kill();
    }

    /// Does a job; blocks until it is done or has failed. The look is what was there before it.
    pub fn run(&self, job: &Job) -> (JobReport, Option<record::Look>) {
        // Nothing else is done, not even a look at the disk, for a remote that may be down and does not answer.
        if self.doubt.load(Ordering::Relaxed)
            && let Err(NoAnswer { code, reason }) = self.endpoint.knock()
        {
            return (JobReport::nothing(Verdict::RemoteDown { code, reason }), None);
        }
        let look = self.recorder.as_ref().and_then(|recorder| recorder.look(job));
        let report = self.run_job(job);
        let is_down = matches!(report.verdict, Verdict::RemoteDown { .. });
        self.doubt.store(is_down, Ordering::Relaxed);
        (report, look)
    }

    fn run_job(&self, job: &Job) -> JobReport {
        // Each round knows one inability more, and there are two; trust may be in vain as well.
        for _ in 0..5 {
            let known = self.abilities();
            let is_trusted = known.is_none() && self.may_trust(job);
            match self.try_run(job, known.or(is_trusted.then_some(Abilities::ALL))) {
                Ok(report) => {
                    if let Some(abilities) = self.abilities() {
                        self.sessions.keep_ready(abilities);
                    }
                    return report;
                }
                // A probe tells whether it is down or only cannot do all that it was trusted with.
                Err(Stop::Verdict(_)) if is_trusted && self.abilities().is_none() => {}
                Err(Stop::Again) => {}
                Err(Stop::Verdict(verdict)) => {
                    self.delivered().clear();
                    return JobReport::nothing(verdict);
                }
                Err(Stop::Stopped) => return JobReport::nothing(Verdict::Stopped),
            }
        }
        let reason = "the remote refuses every way of sending a batch".into();
        JobReport::nothing(Verdict::Misconfigured { code: 1, reason })
    }

    fn try_run(&self, job: &Job, abilities: Option<Abilities>) -> Result<JobReport, Stop> {
        if job.kind == JobKind::Probe {
            // What it can do may have changed while it was away.
            *lock(&self.abilities) = None;
        }
        let abilities = abilities.map_or_else(|| self.contact(), Ok)?;
        if job.kind == JobKind::Probe {
            return Ok(JobReport::done());
        }
        let root = self.source.open_healthy().map_err(|error| unhealthy(&error))?;
        let (excludes, sharding) = match job.kind {
            JobKind::Trees(FullSyncFilter::Crontab) if !self.rules.crontab.is_empty() => {
                (&self.crontab_excludes, self.sharding.min(Sharding::Top))
            }
            _ => (&self.rules.patterns, self.sharding),
        };
        let exclude = &self.rules.exclude;
        let mut look =
            look_at(&root, job, LookOptions { sharding, hints: self.hints(abilities), exclude });
        let mut later = look.put_off_old_names();
        later.extend(self.doubtful_after(&look.moves, &root, job));
        let doubtful = self.doubtful_below(&look.trees, &root, job);
        let mut run = JobRun::new(self, abilities);
        let postponed = self.rest_echoes(&mut look, &root, job, &run)?;
        drop(root);
        let forced = job.items.iter().filter(|item| item.mark.force);
        run.by_content = forced.map(|item| item.path.clone()).collect();
        run.batch(&look)?;
        run.moves(&look.moves)?;
        // At once: until then both names share their inodes on the remote.
        run.batch(&later)?;
        run.directories(&look, excludes)?;
        run.batch(&doubtful)?;
        run.clean_up();
        let JobRun { failed, sent, has_run, .. } = run;
        if has_run {
            lock(&self.abilities).get_or_insert(abilities);
        }
        if failed.is_empty() && ![&look, &later, &doubtful].iter().any(|look| look.reaches_below())
        {
            let mut delivered = self.delivered();
            look.absent.iter().chain(&later.absent).for_each(|path| delivered.forget(path));
            sent.into_iter().for_each(|(path, version)| delivered.note(path, version));
        } else {
            self.delivered().clear();
        }
        look.returned.extend(later.returned);
        look.returned.extend(doubtful.returned);
        Ok(JobReport { verdict: Verdict::Done, failed, returned: look.returned, postponed })
    }

    /// Whether moves can be made on the remote.
    fn hints(&self, abilities: Abilities) -> Hints {
        let trusted = self.endpoint.compares_nanoseconds(abilities);
        match self.endpoint.can_move() && trusted {
            true if self.rules.hold_anywhere() => Hints::Use,
            true => Hints::FilesOnly,
            false => Hints::Ignore,
        }
    }

    /// What below moved directories may have been rewritten without a change of its stamp: its old copy must not be trusted.
    fn doubtful_after(&self, moves: &[Move], root: &OwnedFd, job: &Job) -> Look {
        let fresh = self.fresh();
        let below = |moved: &Move| fresh.moved_along(&moved.old, &moved.new);
        let paths = moves.iter().flat_map(below).collect();
        drop(fresh);
        self.look_again(paths, Mark { force: true, ..Mark::new(Scope::Entry) }, root, job)
    }

    /// What below trees was sent lately: rsync's look at size and time may not see that it is another file now.
    fn doubtful_below(&self, trees: &[RelPath], root: &OwnedFd, job: &Job) -> Look {
        let fresh = self.fresh();
        let paths = trees.iter().flat_map(|tree| fresh.moved_along(tree, tree)).collect();
        drop(fresh);
        self.look_again(paths, Mark::new(Scope::Entry), root, job)
    }

    fn look_again(&self, paths: Vec<RelPath>, mark: Mark, root: &OwnedFd, job: &Job) -> Look {
        let items = paths.into_iter().map(|path| Item { path, mark }).collect();
        let again = Job { items, moves: Vec::new(), ..job.clone() };
        let exclude = &self.rules.exclude;
        let options = LookOptions { sharding: self.sharding, hints: Hints::Ignore, exclude };
        look_at(root, &again, options)
    }

    /// How the remote is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The watch root.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is neither sent nor deleted.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What was sent lately.
    pub fn fresh(&self) -> MutexGuard<'_, FreshStamps> {
        lock(&self.fresh)
    }

    /// Remembers what a run was sending when it broke off.
    pub fn note_leftovers(&self, names: &[&RelPath]) {
        let mut leftovers = lock(&self.leftovers);
        let room = LEFTOVERS_MAX.saturating_sub(leftovers.len());
        leftovers.extend(names.iter().take(room).map(|name| (*name).clone()));
    }

    /// What runs that broke off were sending; forgotten here by that.
    pub fn take_leftovers(&self) -> BTreeSet<RelPath> {
        std::mem::take(&mut *lock(&self.leftovers))
    }

    /// What the remote has got lately.
    pub fn delivered(&self) -> MutexGuard<'_, Delivered> {
        lock(&self.delivered)
    }

    /// What an outcome that ends a job means for the engine.
    pub fn stop(&self, outcome: Outcome) -> Stop {
        let verdict = match outcome {
            Outcome::Refused(ability) => {
                self.forget(ability);
                return Stop::Again;
            }
            Outcome::Stopped => return Stop::Stopped,
            Outcome::RemoteDown { code, reason } => {
                Verdict::RemoteDown { code: code.unwrap_or(-1), reason }
            }
            Outcome::MaxConnections => {
                let reason = "serves as many clients as its `max connections` allows: raise it, 0 means no limit";
                Verdict::Busy { code: 5, reason: reason.into() }
            }
            Outcome::Denied { code, reason } => Verdict::Denied { code, reason },
            Outcome::Shortage { reason } => Verdict::Shortage(reason),
            Outcome::BadOptions { reason } => Verdict::Misconfigured { code: 1, reason },
            Outcome::RootChanged => {
                let reason =
                    "is not the directory it was: it was replaced, mounted over or unmounted";
                Verdict::SourceUnhealthy(reason.into())
            }
            Outcome::Delivered | Outcome::Partial { .. } | Outcome::Kept { .. } => {
                Verdict::RemoteDown {
                    code: PARTIAL,
                    reason: "rsync's answer is not understood".into(),
                }
            }
        };
        Stop::Verdict(verdict)
    }
}

fn unhealthy(error: &Unhealthy) -> Stop {
    let reason = error.to_string();
    Stop::Verdict(match error.lacking() {
        Some(lacking) => Verdict::Shortage(format!("cannot start rsync: {lacking}")),
        None => Verdict::SourceUnhealthy(reason),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
