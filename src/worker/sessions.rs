//! The sessions of one remote, and the runs that use them. A session is an rsync that is connected before it is needed.
//! Does not know what a run delivers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::load_gate::LoadGate;
use super::places::{Place, Places};
use super::running_job::RunningJob;
use super::tally::Tally;
use super::upkeep::{RENEW_AFTER, Upkeep};
use crate::failure::{Failure, FailureKind, code};
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::rsync::exit::{Outcome, lacking, places_allowed, root_changed};
use crate::rsync::run::{Killer, Limits, Need, RunReport, Session, StartError};
use crate::rsync::{Abilities, Endpoint, PreviewAnswer, RunKind, RunSpec, deleted_names};
use crate::source::Source;

/// A remote with this few sessions left comes first, because changes often come in quick succession.
const SCARCE: usize = 1;

/// An older session is not used: its receiver may have entered a directory that has been replaced since. Idle sessions are some seconds old
/// when their remote becomes idle.
const AGE_MAX: Duration = RENEW_AFTER.saturating_add(Duration::from_secs(15));

/// The pauses before a run asks a busy remote again: a job of several runs must finish even if the remote has one place.
const BUSY_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A run with small files is aborted after this time without progress.
const STALL_SMALL: Duration = Duration::from_secs(15);

/// The limit instead of [`STALL_SMALL`] while it is unknown whether the remote answers.
const STALL_CONTACT: Duration = Duration::from_secs(5);

/// The longest output of a preview, in bytes. If it is longer, nothing is deleted.
const PREVIEW_MAX: usize = 64 << 20;

/// The key of a probe among the running processes; other keys count up from 0.
const PROBE: u64 = u64::MAX;

/// The sessions of one remote, and what is running for it.
#[derive(Debug)]
pub struct Sessions {
    endpoint: Endpoint,
    source: Arc<Source>,
    load_gate: Arc<LoadGate>,
    pool: Mutex<Pool>,
    running: Mutex<HashMap<u64, Killer>>,
    /// Signalled when nothing is started any more.
    ended: Condvar,
    /// The places of the remote's daemon, shared by all remotes of that daemon.
    places: Arc<Places>,
    next: AtomicU64,
    stopped: AtomicBool,
    /// The program stops: runs that make no progress end soon.
    hurried: AtomicBool,
}

/// Sessions that are ready or being started. The lock is not held while a process starts.
#[derive(Debug, Default)]
struct Pool {
    ready: Vec<Ready>,
    starting: usize,
    /// How many are kept.
    upkeep: Upkeep,
    /// When a run last took a session that was ready.
    used: Option<Instant>,
    /// How often sessions were ended that were not used. A session whose start began before the last time is not wanted.
    ended: u64,
}

/// How many sessions are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionDemand {
    /// No session is missing, or none is wanted.
    Nothing,
    /// Enough are left for the next changes.
    Some,
    /// The change after the next one may find no session.
    Urgent,
}

/// A session that waits for a run, and its place at the daemon.
#[derive(Debug)]
pub struct Ready {
    session: Session,
    /// The session connected after this moment.
    since: Instant,
    place: Place,
}

/// A run that is to be done.
struct Request<'a> {
    kind: &'a RunKind,
    abilities: Abilities,
    spec: RunSpec,
    input: &'a [u8],
    limits: Limits,
}

/// When the session of a run connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    /// Perhaps before the job's changes.
    Before,
    /// After the job's changes.
    Afterwards,
}

/// A run that is over.
#[derive(Debug)]
pub struct FinishedRun {
    /// What it has done.
    pub outcome: Outcome,
    /// When its session connected.
    pub connected: Connected,
}

impl Sessions {
    /// No session yet.
    pub fn new(
        endpoint: Endpoint,
        source: Arc<Source>,
        load_gate: Arc<LoadGate>,
        places: Arc<Places>,
    ) -> Self {
        Self {
            endpoint,
            source,
            load_gate,
            pool: Mutex::default(),
            running: Mutex::default(),
            ended: Condvar::new(),
            places,
            next: AtomicU64::default(),
            stopped: AtomicBool::default(),
            hurried: AtomicBool::default(),
        }
    }

    /// Runs rsync, in a ready session if one fits. A session that fails may have been dead for a long time. So a fresh run
    /// decides, and the job counts as aborted: the dead session may have changed something.
    pub fn run(
        &self,
        kind: &RunKind,
        abilities: Abilities,
        input: &[u8],
        job: &RunningJob<'_>,
    ) -> FinishedRun {
        let spec = self.endpoint.plan(kind, abilities);
        let limits = Limits { stall: self.stall(kind), output_max: 0 };
        let request = Request { kind, abilities, spec, input, limits };
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("{}", String::from_utf8_lossy(&request.spec.shell_line_fed(input)));
        }
        if let Some((ready, connected)) = self.take(&request) {
            let _place = ready.place.for_a_run();
            match self.feed(ready.session, &request, job) {
                outcome if is_busy(&outcome) => self.close(),
                Outcome::Failed(Failure {
                    kind: FailureKind::Away | FailureKind::Shortage,
                    reason,
                    ..
                }) => {
                    log::debug!(
                        "{}: a ready session was dead: {reason}",
                        self.endpoint.destination()
                    );
                    job.aborted.set(true);
                    self.endpoint.end_shared_connection();
                    self.close();
                }
                outcome => return FinishedRun { outcome, connected },
            }
        }
        let outcome = self.run_when_there_is_room(&request, job);
        FinishedRun { outcome, connected: Connected::Afterwards }
    }

    /// Runs rsync in a session of its own.
    fn run_when_there_is_room(&self, request: &Request<'_>, job: &RunningJob<'_>) -> Outcome {
        // Our own sessions may hold the places, and so does the daemon's child of the previous run for some 50 ms.
        for pause in BUSY_PAUSES {
            let outcome = self.run_afresh(request, job);
            if !is_busy(&outcome) {
                return outcome;
            }
            self.close();
            job.waits();
            self.pause(pause);
        }
        self.run_afresh(request, job)
    }

    /// Waits for a time, or until nothing more is started.
    fn pause(&self, length: Duration) {
        let running = lock(&self.running);
        let go_on = |_: &mut HashMap<u64, Killer>| !self.stopped.load(Ordering::Relaxed);
        drop(self.ended.wait_timeout_while(running, length, go_on));
    }

    fn run_afresh(&self, request: &Request<'_>, job: &RunningJob<'_>) -> Outcome {
        let _place = self.enter(job);
        if self.stopped.load(Ordering::Relaxed) {
            return Outcome::Stopped;
        }
        // A refusal may have changed how the remote is reached.
        let spec = self.endpoint.plan(request.kind, request.abilities);
        match Session::start(&spec, Some(self.source.identity())) {
            Ok(session) => self.feed(session, request, job),
            Err(error) => self.not_started(&error),
        }
    }

    /// Nothing could be started. After a shortage the session starter ends the ready sessions, which may hold what this machine lacks.
    fn not_started(&self, error: &StartError) -> Outcome {
        let outcome = failure(error);
        if matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Shortage) {
            self.load_gate.note_shortage();
        }
        outcome
    }

    /// Takes a place at the daemon; waits while the daemon is known to have none to spare.
    fn enter(&self, job: &RunningJob<'_>) -> Place {
        self.places.enter(&|| !self.are_stopped(), &|| job.waits())
    }

    /// What a run would delete.
    ///
    /// # Errors
    /// The outcome of the run, if its answer is incomplete.
    pub fn preview(
        &self,
        kind: &RunKind,
        abilities: Abilities,
        input: &[u8],
        job: &RunningJob<'_>,
    ) -> Result<Vec<(RelPath, bool)>, Outcome> {
        if !abilities.dry_run {
            return Err(no_dry_run());
        }
        let spec = self.endpoint.plan_preview(kind, abilities);
        let output = match self.listen(&spec, kind, input, job)? {
            (Outcome::Delivered, output) => output,
            // A directory that rules keep in the place of something else stays in the run, too.
            (Outcome::Partial { failed, blocked, .. }, output) if failed.len() == blocked.len() => {
                output
            }
            (outcome, _) => return Err(outcome),
        };
        Ok(deleted_names(&output))
    }

    /// What a run would do.
    ///
    /// # Errors
    /// The outcome of the run, if its answer is incomplete.
    pub fn ask(
        &self,
        kind: &RunKind,
        abilities: Abilities,
        input: &[u8],
        job: &RunningJob<'_>,
    ) -> Result<PreviewAnswer, Outcome> {
        if !abilities.dry_run || !abilities.relative {
            return Err(no_dry_run());
        }
        let spec = self.endpoint.plan_question(kind, abilities);
        match self.listen(&spec, kind, input, job)? {
            (Outcome::Delivered, output) => Ok(PreviewAnswer::read(&output)),
            (outcome, _) => Err(outcome),
        }
    }

    /// Runs rsync and reads its standard output. If that is too long, the outcome says so.
    fn listen(
        &self,
        spec: &RunSpec,
        kind: &RunKind,
        input: &[u8],
        job: &RunningJob<'_>,
    ) -> Result<(Outcome, Vec<u8>), Outcome> {
        let limits = Limits { stall: self.stall(kind), output_max: PREVIEW_MAX };
        let _place = self.enter(job);
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Outcome::Stopped);
        }
        let session = Session::start(spec, Some(self.source.identity()));
        let session = session.map_err(|error| self.not_started(&error))?;
        let report = self.watched(session, input, limits, job);
        match (self.judge(&report), report.output) {
            (outcome, Some(output)) => Ok((outcome, output)),
            (Outcome::Delivered | Outcome::Partial { .. }, None) => {
                let reason =
                    "too much would be deleted to check it against a filter that has no rsync pattern"
                        .into();
                Err(Outcome::Kept { reason })
            }
            (outcome, None) => Err(outcome),
        }
    }

    /// From now on sessions are kept ready, until they are closed.
    pub fn keep_ready(&self, abilities: Abilities) {
        {
            let mut pool = lock(&self.pool);
            self.note_wanted(&pool);
            pool.upkeep.keep(abilities, self.endpoint.ready());
        }
        self.load_gate.notify();
    }

    /// True while sessions are kept ready because changes come.
    pub fn are_wanted(&self) -> bool {
        let pool = lock(&self.pool);
        pool.upkeep.is_on() && !pool.upkeep.is_idle()
    }

    /// How badly sessions are needed.
    pub fn demand(&self) -> SessionDemand {
        let mut pool = lock(&self.pool);
        self.drop_dead(&mut pool);
        let own = pool.ready.len() + pool.starting;
        if !pool.upkeep.is_short(own) || self.are_stopped() || !self.places.can_keep_ready(own) {
            return SessionDemand::Nothing;
        }
        if own <= SCARCE { SessionDemand::Urgent } else { SessionDemand::Some }
    }

    /// Starts one session, if one is still missing; does not wait until it is connected.
    pub fn start_one(&self) {
        let (abilities, ended, place) = {
            let mut pool = lock(&self.pool);
            let Some(abilities) = pool.upkeep.wanted() else { return };
            let own = pool.ready.len() + pool.starting;
            if !pool.upkeep.is_short(own) || self.are_stopped() {
                return;
            }
            let Some(place) = self.places.keep_ready(own) else { return };
            pool.upkeep.note_start();
            pool.starting += 1;
            (abilities, pool.ended, place)
        };
        let spec = self.endpoint.plan(&RunKind::Batch { ignore_times: false }, abilities);
        let since = now();
        let started = Session::start(&spec, Some(self.source.identity()));
        let mut pool = lock(&self.pool);
        pool.starting -= 1;
        match started {
            Ok(session) if pool.ended == ended && !self.stopped.load(Ordering::Relaxed) => {
                pool.ready.push(Ready { session, since, place });
            }
            Ok(session) => {
                drop(pool);
                Session::close_all(vec![session]);
                drop(place);
            }
            Err(error) => {
                // Start no more before the next success: otherwise a shortage would return again and again.
                self.want_none(&mut pool);
                log::debug!("{}: no session is ready: {error}", self.endpoint.destination());
                drop(pool);
                self.not_started(&error);
            }
        }
    }

    /// How many sessions wait for work.
    pub fn count(&self) -> usize {
        lock(&self.pool).ready.len()
    }

    /// Ends the sessions that wait.
    pub fn close(&self) {
        close_all(self.take_all());
    }

    /// The remote is idle: ends the sessions that wait, except the youngest ones that stay while it is idle.
    pub fn reduce(&self, abilities: Option<Abilities>) {
        let count = self.endpoint.idle();
        let Some(abilities) = abilities.filter(|_| count > 0) else { return self.close() };
        let surplus = {
            let mut pool = lock(&self.pool);
            self.note_wanted(&pool);
            pool.upkeep.keep_idle(abilities, count, now());
            pool.ended += 1;
            let surplus = pool.ready.len().saturating_sub(count);
            pool.ready.drain(..surplus).collect()
        };
        close_all(surplus);
        self.load_gate.notify();
    }

    /// Removes the sessions of an idle remote when they are due to be replaced.
    pub fn take_outdated(&self) -> Vec<Ready> {
        let mut pool = lock(&self.pool);
        if !pool.upkeep.renew(now()) {
            return Vec::new();
        }
        pool.ended += 1;
        std::mem::take(&mut pool.ready)
    }

    /// When the sessions of an idle remote are due to be replaced.
    pub fn next_renewal(&self) -> Option<Instant> {
        lock(&self.pool).upkeep.next_renewal()
    }

    /// Ends ready sessions if the daemon has fewer places than assumed.
    pub fn make_room(&self) {
        while self.places.are_too_many_ready() {
            let ready = lock(&self.pool).ready.pop();
            let Some(ready) = ready else { return };
            close_all(vec![ready]);
        }
    }

    /// When a session may be started for which there is no place now.
    pub fn next_place(&self) -> Option<Instant> {
        let is_short = {
            let pool = lock(&self.pool);
            pool.upkeep.is_short(pool.ready.len() + pool.starting)
        };
        self.places.next_free().filter(|_| is_short)
    }

    /// The places of the remote's daemon, shared by all remotes of that daemon.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Ends the sessions of all these remotes: signals all of them before waiting for one.
    pub fn close_all<'a>(remotes: impl Iterator<Item = &'a Self>) {
        close_all(remotes.flat_map(Self::take_all).collect());
    }

    /// Removes the sessions that wait; none is started until the next success.
    fn take_all(&self) -> Vec<Ready> {
        let mut pool = lock(&self.pool);
        pool.ended += 1;
        self.want_none(&mut pool);
        std::mem::take(&mut pool.ready)
    }

    /// Notes that sessions are kept from now on; call it before the upkeep begins.
    fn note_wanted(&self, pool: &Pool) {
        if !pool.upkeep.is_on() {
            self.places.note_wanting();
        }
    }

    fn want_none(&self, pool: &mut Pool) {
        if pool.upkeep.is_on() {
            self.places.note_resting();
        }
        pool.upkeep.end();
    }

    /// True after [`Sessions::kill`].
    pub fn are_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends what is running; nothing is started from now on.
    pub fn kill(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.ended.notify_all();
        self.places.notify();
        self.abort();
    }

    /// The program stops: what is running, and what still starts, may only go on while it makes progress.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
        lock(&self.running).values().for_each(Killer::hurry);
    }

    /// Kills what is running; later runs may start, but not those of a job whose [`Tally`] is aborted.
    pub fn abort(&self) {
        lock(&self.running).values().for_each(Killer::kill);
    }

    /// Notes a probe, so that it can be killed.
    pub fn note_probe(&self, killer: Killer) {
        // At most one probe runs at a time, so the previous one is over.
        self.note_run(PROBE, killer, None);
    }

    /// Drops the sessions that have ended unused. If the daemon refused one, its last message names the limit.
    fn drop_dead(&self, pool: &mut Pool) {
        let limits = Limits { stall: STALL_CONTACT, output_max: 0 };
        for dead in pool.ready.extract_if(.., |ready| ready.session.has_ended()) {
            let report = dead.session.feed(&[], limits);
            places_allowed(&report.stderr).inspect(|allowed| self.learn_places(*allowed));
        }
    }

    /// Notes how many clients the daemon serves.
    fn learn_places(&self, allowed: usize) {
        log::debug!(
            "{}: the daemon serves {allowed} clients at a time: one place is left to others",
            self.endpoint.destination()
        );
        self.places.learn(allowed);
        self.load_gate.notify();
    }

    /// A ready session that fits, and when it connected.
    fn take(&self, request: &Request<'_>) -> Option<(Ready, Connected)> {
        // Declared before the lock, so that these are ended after it.
        let _outdated: Vec<Ready>;
        let mut pool = lock(&self.pool);
        self.drop_dead(&mut pool);
        let is_outdated = |ready: &mut Ready| {
            ready.since.elapsed() >= AGE_MAX || ready.session.has_lost_accounts()
        };
        _outdated = pool.ready.extract_if(.., is_outdated).collect();
        let fits = |ready: &Ready| *ready.session.spec() == request.spec;
        let (at, connected) = match request.kind {
            RunKind::Confirmation => {
                let used = pool.used;
                let is_new = |ready: &Ready| used.is_none_or(|used| used < ready.since);
                // Take the youngest: other runs, which take the oldest, are least likely to need it.
                let at = pool.ready.iter().rposition(|ready| is_new(ready) && fits(ready))?;
                // Often nothing follows a confirmation, so the next delivery asks for the session that is missing then.
                pool.upkeep.start_none();
                (at, Connected::Afterwards)
            }
            _ => {
                // Take the oldest, which has had the longest time to connect.
                let (at, now) = (pool.ready.iter().position(fits), now());
                if matches!(request.kind, RunKind::Batch { ignore_times: false }) {
                    pool.upkeep.note_run(now);
                }
                let at = at?;
                pool.used = Some(now);
                (at, Connected::Before)
            }
        };
        Some((pool.ready.remove(at), connected))
    }

    fn feed(&self, session: Session, request: &Request<'_>, job: &RunningJob<'_>) -> Outcome {
        let report = self.watched(session, request.input, request.limits, job);
        self.judge(&report)
    }

    /// What a run has done. A daemon that refuses a run tells how many clients it serves, which is noted.
    fn judge(&self, report: &RunReport) -> Outcome {
        let outcome = report.judge(&self.endpoint);
        let failed =
            matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Away);
        if failed && self.endpoint.give_up_refused_sessions(&report.stderr) {
            return Outcome::Failed(Failure::new(
                FailureKind::Busy,
                code::STARTING,
                "allows no more sessions",
            ));
        }
        if let Some(allowed) = places_allowed(&report.stderr).filter(|_| is_busy(&outcome)) {
            self.learn_places(allowed);
        }
        outcome
    }

    /// Notes a run of a job, so that it can be ended.
    fn note_run(&self, id: u64, killer: Killer, job: Option<&Tally>) {
        let mut running = lock(&self.running);
        if self.hurried.load(Ordering::Relaxed) {
            killer.hurry();
        }
        if self.stopped.load(Ordering::Relaxed) || job.is_some_and(Tally::is_aborted) {
            // `kill` or `abort` has not found it among the running ones.
            killer.kill();
        }
        running.insert(id, killer);
    }

    /// Feeds a run, and reports what it needs while it runs; other threads can kill it.
    fn watched(
        &self,
        session: Session,
        input: &[u8],
        limits: Limits,
        job: &RunningJob<'_>,
    ) -> RunReport {
        job.works();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.note_run(id, session.killer(), Some(job.tally));
        job.tally.run_begins(session.killer());
        let mut delivering = Some(self.load_gate.delivering());
        let report = session.feed_and(input, limits, &mut |need| match need {
            Need::Processor => job.works(),
            Need::Remote => {
                job.waits();
                // The next session is made ready while this run waits.
                if delivering.take().is_some() {
                    self.load_gate.notify();
                }
            }
        });
        lock(&self.running).remove(&id);
        job.tally.run_ended(report.sent);
        report
    }

    fn stall(&self, kind: &RunKind) -> Duration {
        match kind {
            RunKind::Batch { ignore_times: false }
            | RunKind::Confirmation
            | RunKind::LongBatch { ignore_times: false, .. }
            | RunKind::Fallback { ignore_times: false }
            | RunKind::Listing { .. } => STALL_SMALL,
            RunKind::Probe | RunKind::CleanTemp => STALL_CONTACT,
            _ => Duration::from_secs(u64::from(self.endpoint.timeout_s()) + 15),
        }
    }
}

/// Ends sessions, and then releases their places.
pub fn close_all(sessions: Vec<Ready>) {
    let (sessions, places): (Vec<_>, Vec<_>) =
        sessions.into_iter().map(|ready| (ready.session, ready.place)).unzip();
    Session::close_all(sessions);
    drop(places);
}

fn is_busy(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(Failure { kind: FailureKind::Busy, .. }))
}

/// The outcome of a dry run for a remote that refuses dry runs.
fn no_dry_run() -> Outcome {
    Outcome::Kept {
        reason: "the remote refuses a dry run, and without one nobody knows what the filter would delete: take \"dry-run\" out of \"refuse options\" in its rsyncd.conf".into(),
    }
}

/// Why nothing could be started, as an outcome.
pub fn failure(error: &StartError) -> Outcome {
    Outcome::Failed(match error {
        StartError::Root { source, .. } | StartError::Spawn(source)
            if let Some(lacking) = lacking(source) =>
        {
            lacking.failure("cannot start rsync")
        }
        StartError::RootChanged { .. } | StartError::Root { .. } => root_changed(),
        StartError::NoDestination(reason) => {
            Failure::new(FailureKind::Away, code::UNKNOWN, reason.clone())
        }
        StartError::NoRsync | StartError::Spawn(_) => Failure::shortage(error.to_string()),
    })
}

#[expect(clippy::disallowed_methods, reason = "sessions age by the wall, not by the engine's time")]
pub fn now() -> Instant {
    Instant::now()
}
