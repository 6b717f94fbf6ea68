//! The warm sessions of one remote, and the runs that use them: started before they are needed, recycled when they get old.
//! Does not know what a run delivers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::path::RelPath;
use crate::rsync::exit::Outcome;
use crate::rsync::run::{Killer, Limits, Report, Session, StartError};
use crate::rsync::{Abilities, Endpoint, RunKind, RunSpec, deleted_names};
use crate::source::{Source, is_shortage};

/// Sessions kept ready: a second change need not wait until the first run's process has gone, nor a third.
const READY: usize = 3;

/// So few sessions are not enough when changes come one after the other.
const SCARCE: usize = 1;

/// A session older than this is not used: the receiver has changed into its directory long ago, and a swapped
/// directory or link there would be missed.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A run of small things that stands still for so long is given up.
const STALL_SMALL: Duration = Duration::from_secs(15);

/// The same while the remote is not known to answer: a silent one must not be waited for.
const STALL_CONTACT: Duration = Duration::from_secs(5);

/// What a preview may say at most; a list of deletions longer than that is not acted on.
const PREVIEW_MAX: usize = 64 << 20;

/// The key of a probe among the running; others count up from 0.
const PROBE: u64 = u64::MAX;

/// The warm sessions of one remote, and what is running for it.
#[derive(Debug)]
pub struct Sessions {
    endpoint: Endpoint,
    source: Arc<Source>,
    pool: Mutex<Pool>,
    running: Mutex<HashMap<u64, Killer>>,
    next: AtomicU64,
    stopped: AtomicBool,
}

/// Sessions that wait, and how many are being started; nobody holds the lock while a process starts.
#[derive(Debug, Default)]
struct Pool {
    ready: Vec<Warm>,
    starting: usize,
    /// Counts how often all were ended: what was begun before that is not wanted any more.
    ended: u64,
}

#[derive(Debug)]
struct Warm {
    session: Session,
    since: Instant,
}

impl Sessions {
    /// None yet.
    pub fn new(endpoint: Endpoint, source: Arc<Source>) -> Self {
        Self {
            endpoint,
            source,
            pool: Mutex::default(),
            running: Mutex::default(),
            next: AtomicU64::default(),
            stopped: AtomicBool::default(),
        }
    }

    /// Runs rsync, in a warm session where one fits. One that fails unused is no fault of the remote: a fresh one decides.
    pub fn run(&self, kind: &RunKind, abilities: Abilities, input: &[u8]) -> Outcome {
        let spec = self.endpoint.plan(kind, abilities);
        let limits = Limits { stall: self.stall(kind), output_max: 0 };
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("{}", String::from_utf8_lossy(&spec.shell_line_fed(input)));
        }
        if let Some(session) = self.take(&spec) {
            // Others are made ready while this one takes its leave.
            match self.feed(session, input, limits, || self.warm_up_early(abilities)) {
                Outcome::RemoteDown { reason, .. } => {
                    log::debug!("{}: a warm session was dead: {reason}", self.endpoint.label());
                    self.close();
                }
                outcome => return outcome,
            }
        }
        if self.stopped.load(Ordering::Relaxed) {
            return Outcome::Stopped;
        }
        match Session::start(&spec, Some(self.source.identity())) {
            Ok(session) => self.feed(session, input, limits, || {}),
            Err(error) => failure(&error),
        }
    }

    /// What a run would delete.
    ///
    /// # Errors
    /// The outcome of the run, when it does not say all.
    pub fn preview(
        &self,
        kind: &RunKind,
        abilities: Abilities,
        input: &[u8],
    ) -> Result<Vec<(RelPath, bool)>, Outcome> {
        let spec = self.endpoint.plan_preview(kind, abilities);
        let limits = Limits { stall: self.stall(kind), output_max: PREVIEW_MAX };
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Outcome::Stopped);
        }
        let session = Session::start(&spec, Some(self.source.identity()));
        let report = self.watched(session.map_err(|error| failure(&error))?, input, limits, || {});
        match (report.judge(&self.endpoint), report.output) {
            (Outcome::Delivered, Some(output)) => Ok(deleted_names(&output)),
            (Outcome::Delivered, None) => {
                let reason =
                    "there is too much to delete for a filter that rsync's patterns cannot say"
                        .into();
                Err(Outcome::Kept { reason })
            }
            (outcome, _) => Err(outcome),
        }
    }

    /// Starts sessions until enough are ready or under way; returns without waiting for them.
    pub fn warm_up(&self, abilities: Abilities) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let spec = self.endpoint.plan(&RunKind::Batch { ignore_times: false }, abilities);
        while let Some(ended) = self.reserve() {
            let started = Session::start(&spec, Some(self.source.identity()));
            let mut pool = lock(&self.pool);
            pool.starting -= 1;
            let is_wanted = pool.ended == ended && !self.stopped.load(Ordering::Relaxed);
            match started {
                Ok(session) if is_wanted => pool.ready.push(Warm { session, since: now() }),
                Ok(session) => {
                    drop(pool);
                    session.close();
                    return;
                }
                Err(error) => {
                    log::debug!("{}: no warm session: {error}", self.endpoint.label());
                    return;
                }
            }
        }
    }

    /// The same while a run is under way, when sessions are getting scarce: starting one takes processor time, of which
    /// the runs for other remotes may have need at this moment.
    fn warm_up_early(&self, abilities: Abilities) {
        let left = lock(&self.pool).ready.len();
        if left <= SCARCE {
            self.warm_up(abilities);
        }
    }

    /// Takes the place of a session that is to be started; `None` when there are enough.
    fn reserve(&self) -> Option<u64> {
        let mut pool = lock(&self.pool);
        pool.ready.retain(|warm| warm.session.is_alive());
        if pool.ready.len() + pool.starting >= READY {
            return None;
        }
        pool.starting += 1;
        Some(pool.ended)
    }

    /// Ends the sessions that wait.
    pub fn close(&self) {
        let ready = {
            let mut pool = lock(&self.pool);
            pool.ended += 1;
            std::mem::take(&mut pool.ready)
        };
        ready.into_iter().for_each(|warm| warm.session.close());
    }

    /// Ends what is running; nothing is started from now on.
    pub fn kill(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.running).values().for_each(Killer::kill);
    }

    /// A run that somebody else started for this remote.
    pub fn note_probe(&self, killer: Killer) {
        if self.stopped.load(Ordering::Relaxed) {
            killer.kill();
        }
        let mut running = lock(&self.running);
        // At most one probe is under way at a time, so the one before is over.
        running.insert(PROBE, killer);
    }

    fn take(&self, spec: &RunSpec) -> Option<Session> {
        let ready = &mut lock(&self.pool).ready;
        // The oldest first: it has had the most time to connect.
        while !ready.is_empty() && *ready[0].session.spec() == *spec {
            let Warm { session, since } = ready.remove(0);
            if since.elapsed() < AGE_MAX && session.is_alive() {
                return Some(session);
            }
        }
        None
    }

    fn feed(
        &self,
        session: Session,
        input: &[u8],
        limits: Limits,
        meanwhile: impl FnOnce(),
    ) -> Outcome {
        self.watched(session, input, limits, meanwhile).judge(&self.endpoint)
    }

    /// A run that can be killed meanwhile.
    fn watched(
        &self,
        session: Session,
        input: &[u8],
        limits: Limits,
        meanwhile: impl FnOnce(),
    ) -> Report {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.running).insert(id, session.killer());
        let report = session.feed_and(input, limits, meanwhile);
        lock(&self.running).remove(&id);
        report
    }

    fn stall(&self, kind: &RunKind) -> Duration {
        match kind {
            RunKind::Batch { ignore_times: false }
            | RunKind::Fallback { ignore_times: false }
            | RunKind::Listing { .. } => STALL_SMALL,
            RunKind::Probe | RunKind::CleanTemp => STALL_CONTACT,
            _ => Duration::from_secs(u64::from(self.endpoint.timeout_s()) + 15),
        }
    }
}

/// Why nothing could be started, as an outcome.
pub fn failure(error: &StartError) -> Outcome {
    match error {
        StartError::Root { source, .. } if is_shortage(source) => {
            let reason = format!("cannot start rsync: {source}; raise the limit");
            Outcome::RemoteDown { code: None, reason }
        }
        StartError::RootChanged { .. } | StartError::Root { .. } => Outcome::RootChanged,
        StartError::NoRsync | StartError::Spawn(_) => {
            Outcome::RemoteDown { code: None, reason: error.to_string() }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "sessions age by the wall, not by the engine's time")]
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
