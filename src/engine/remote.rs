//! One remote as the engine sees it: what it owes, what is in flight, whether it answers.
//! Does not know how many workers or other remotes there are. What a job's end means stands in `settle.rs`, what starts
//! next in `start.rs`.

mod confirm;
mod flush;
mod observe;
mod open;
mod origins;
mod recheck;
mod retire;
mod settle;
mod start;

use std::collections::HashMap;
use std::time::Duration;

pub use self::observe::{FullSyncView, RemoteView, Standing};
use super::deferred::{Condition, Deferred, Outlook};
use super::flush::FlushMark;
use super::full_sync::FullSync;
use super::locks::{LockKind, Owner, PathLocks};
use super::moves::MoveHints;
use super::parents::Parents;
use super::pending::{Item, Mark, Marked, Pending};
use super::permission::{Deletions, Permission};
use super::refusals::Refusals;
use super::retry::{FailingPaths, Outage, REMINDER};
use super::schedule::Pace;
use super::{
    Action, Extraneous, FailLogEntry, FullSyncCause, FullSyncFilter, JobId, JobKind, Notice, Now,
};
use crate::change::{Cause, Change, RemoteId, RootId, Scope};
use crate::failure::FailureKind;
use crate::path::RelPath;

/// Paths in one batch: many, so that a storm needs few runs; not too many, so that a batch ends soon.
const BATCH_PATHS: usize = 4_000;
/// Warm sessions are closed after so long without a run: they keep the mounts on both sides busy.
const SESSION_REST: Duration = Duration::from_secs(5);
/// Failing paths that are remembered one by one; above it the whole tree is compared.
const FAILING_MAX: usize = 10_000;

/// Deferred paths that are remembered one by one.
const DEFERRED_MAX: usize = 100_000;
/// It is quiet when no job has ended for so long.
const QUIET: Duration = Duration::from_millis(250);

/// How many paths are kept one by one.
#[derive(Debug, Clone, Copy)]
pub struct RemoteLimits {
    /// Paths in one batch.
    pub batch_paths: usize,
    /// Failing paths remembered.
    pub failing_paths: usize,
    /// Deferred paths remembered.
    pub deferred_paths: usize,
}

/// A job in flight.
#[derive(Debug)]
struct Flight {
    kind: JobKind,
    origin: Origin,
    began: Now,
    /// Since when the oldest of its paths was pending; `None` when they come from a full sync.
    pending_since: Option<Now>,
    /// A trial: it started while the remote was not known to answer, and its end decides.
    is_trial: bool,
    /// It waits for the remote, and needs no worker.
    is_waiting: bool,
    items: Vec<Item>,
    /// It deletes extraneous entries of its directories.
    deletes_below: bool,
    parents: Parents,
}

/// Which set the items of a job came from, and go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pending,
    FullSync,
}

/// What the workers have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Any job.
    Any,
    /// Only short jobs: the last free worker is reserved for them.
    Short,
    /// Nothing: every worker is busy or kept for another remote.
    None,
}

/// Everything that is known of one remote: what it owes (`pending`, `full_sync`, `deferred`, `flights`), what must not start
/// (`locks`), whether it answers (`outage`, `recovering`, `up_since`), and when its next job may start (`pace` and what follows).
#[derive(Debug)]
pub struct RemoteState {
    id: RemoteId,
    pub root: RootId,
    pub limits: RemoteLimits,
    unrecorded: Extraneous,
    pending: Pending,
    /// Nothing in `pending` is older. It may be too early: a path that is taken out does not make it later.
    pending_since: Option<Now>,
    full_sync: Option<FullSync>,
    /// Start another full sync after this one: the kernel dropped events meanwhile.
    full_sync_again: bool,
    permission: Permission,
    /// What was moved and is not delivered yet.
    moves: MoveHints,
    locks: PathLocks,
    flights: HashMap<JobId, Flight>,
    /// The last job was a batch: long jobs and batches take turns when both could start.
    batch_was_last: bool,
    /// Every pending small path is locked: searching again is useless before a job ends.
    stuck: bool,
    deferred: Deferred,
    /// What is known of paths that rsync could not deliver. Their next tries are deferred.
    failing: FailingPaths,
    refusals: Refusals,
    outage: Option<Outage>,
    /// An outage that seems to be over: the remote has answered, and nothing has been delivered yet.
    recovering: Option<Outage>,
    /// When the last outage ended. Failures of jobs that began before that are ignored.
    up_since: Now,
    pace: Pace,
    /// When the last job ended.
    last_end: Now,
    /// When the warm sessions are to be closed; `None`: there are none.
    sessions_until: Option<Now>,
    /// What flushes wait for.
    flushes: Vec<FlushMark>,
    /// It is not mirrored any more, and only its jobs in flight are left.
    is_retired: bool,
}

impl RemoteState {
    pub fn new(id: RemoteId, root: RootId, unrecorded: Extraneous) -> Self {
        Self {
            id,
            root,
            unrecorded,
            limits: RemoteLimits {
                batch_paths: BATCH_PATHS,
                failing_paths: FAILING_MAX,
                deferred_paths: DEFERRED_MAX,
            },
            pending: Pending::default(),
            pending_since: None,
            full_sync: None,
            full_sync_again: false,
            permission: Permission::default(),
            moves: MoveHints::default(),
            locks: PathLocks::default(),
            flights: HashMap::new(),
            batch_was_last: false,
            stuck: false,
            deferred: Deferred::default(),
            failing: FailingPaths::default(),
            refusals: Refusals::default(),
            outage: Some(Outage::unknown()),
            recovering: None,
            up_since: Now::ZERO,
            pace: Pace::default(),
            last_end: Now::ZERO,
            sessions_until: None,
            flushes: Vec::new(),
            is_retired: false,
        }
    }

    /// Adds a hint.
    pub fn mark(&mut self, path: &RelPath, mark: Mark) -> Marked {
        self.stuck = self.stuck && self.locks.keeps_back(path);
        self.pending.mark(path, mark)
    }

    /// Takes in what the last run of the program left. Nobody saw what vanished since then, so whole directories wait for a
    /// decision about deletions.
    pub fn restore(&mut self, now: Now, item: &Item) {
        self.recheck(now, item);
        if self.permission.deletions == Deletions::Undecided && item.mark.scope != Scope::Entry {
            self.deferred.defer(Condition::Deletions, item);
        } else {
            self.mark(&item.path, item.mark);
        }
    }

    pub fn decide_deletions(&mut self, verdict: Deletions) {
        self.permission.deletions = verdict;
    }

    /// Its root cannot be read: nothing starts.
    pub fn lose_root(&mut self) {
        self.permission.root_is_lost = true;
    }

    /// Its root is back.
    pub fn find_root(&mut self, now: Now) {
        self.permission.root_is_lost = false;
        self.break_silence(now);
    }

    pub fn root_is_lost(&self) -> bool {
        self.permission.root_is_lost
    }

    /// Jobs may start again. Nothing was sent meanwhile, so nobody noticed an outage.
    fn break_silence(&mut self, now: Now) {
        self.put_off_rechecks(now, self.last_end);
    }

    /// Takes in what the watch thread saw.
    pub fn change(&mut self, now: Now, change: &Change) {
        if change.cause == Cause::Attrib && !self.failing.is_empty() {
            // Another mode or owner may be what failing paths below it wait for.
            for path in self.failing.within(&change.path) {
                self.deferred.bring_forward(now, &path);
            }
        }
        // A running tree job may have sent a directory before it was watched. Nobody saw what vanished from it meanwhile, so
        // list it.
        let unseen = change.is_dir && change.cause == Cause::Create && self.sends_trees();
        let scope = if unseen { change.scope.max(Scope::Listing) } else { change.scope };
        // Another tree was here a moment ago: files of its copy may have the same size and time.
        let compare_content =
            change.cause == Cause::MovedTo && scope == Scope::Tree && self.owes(&change.path);
        let additive =
            scope == Scope::Entry && !matches!(change.cause, Cause::Delete | Cause::MovedFrom);
        let mark = Mark { compare_content, additive, ..Mark::new(scope) };
        let marked = self.mark(&change.path, mark);
        let Some(old) = &change.moved_from else {
            return;
        };
        // Moved a -> b -> c before a run: the remote still has it as a. With b in flight, it will have it as b.
        let known = self.moves.take(old).filter(|_| !self.is_in_flight(old));
        if marked == Marked::Itself {
            let origin = known.unwrap_or_else(|| old.clone());
            // A job that gave a move back has left both names alone: they leave together with the third one.
            self.deferred.bring_forward(now, old);
            self.deferred.bring_forward(now, &origin);
            self.wait_for(&origin, &change.path);
            self.moves.note(change.path.clone(), origin);
        }
    }

    /// True when the path, or anything above or below it, is pending or in flight.
    fn owes(&self, path: &RelPath) -> bool {
        self.pending.touches(path) || self.locks.touches(path)
    }

    /// Keeps what waits within `max` paths, of each sort.
    pub fn limit(&mut self, max: usize, actions: &mut Vec<Action>) {
        self.moves.limit(max);
        self.deferred.limit(max);
        let from = self.pending.len();
        if from > max.max(1) {
            self.pending.collapse(max / 2);
            self.moves.clear();
            self.stuck = false;
            let to = self.pending.len();
            actions.push(Action::Notify(Notice::Collapsed { remote: self.id, from, to }));
        }
    }

    pub fn start_full_sync(&mut self, now: Now, cause: FullSyncCause, actions: &mut Vec<Action>) {
        if cause == FullSyncCause::Schedule && self.full_sync.is_some() {
            actions.push(Action::Notify(Notice::FullSyncSkipped { remote: self.id }));
            return;
        }
        if let (FullSyncCause::RootBack, Some(outage)) = (cause, &mut self.outage) {
            outage.next = outage.next.min(now);
        }
        let lost_notices = matches!(cause, FullSyncCause::Overflow | FullSyncCause::Unrecorded);
        let under_way = |full_sync: &FullSync| full_sync.filter == FullSyncFilter::Off;
        if lost_notices && self.full_sync.as_ref().is_some_and(under_way) {
            // Don't restart: if the kernel drops events faster than a tree is compared, no full sync would ever end.
            self.full_sync_again = true;
            return;
        }
        let full_sync = self.full_sync.get_or_insert_with(|| FullSync::new(now));
        full_sync.restart(cause, if lost_notices { self.unrecorded } else { Extraneous::Deleted });
    }

    /// Tries every failing path again now.
    pub fn retry_failing(&mut self, now: Now) {
        for path in self.failing.paths() {
            self.deferred.bring_forward(now, path);
        }
        if let Some(outage) = &mut self.outage {
            outage.next = outage.next.min(outage.since);
        }
    }

    pub fn holds(&self, job: JobId) -> bool {
        self.flights.contains_key(&job)
    }

    /// How many items [`RemoteState::undelivered`] has.
    pub fn owed(&self) -> usize {
        let flying: usize = self.owing_flights().map(|flight| flight.items.len()).sum();
        let whole = self.owed_full_sync().iter().count();
        self.pending.len() + flying + whole + self.deferred.count()
    }

    /// Everything that this remote owes.
    pub fn undelivered(&self) -> impl Iterator<Item = Item> {
        let flying = self.owing_flights().flat_map(|flight| flight.items.iter().cloned());
        let whole = self.owed_full_sync().into_iter();
        self.pending.iter().chain(flying).chain(whole).chain(self.deferred.items())
    }

    /// How many changes wait, as an operator counts them: without rechecks of what was delivered.
    pub fn waiting(&self) -> usize {
        let full_sync = self.full_sync.as_ref().map_or(0, |full_sync| full_sync.left.len());
        let flying: usize = self.flights.values().map(|flight| flight.items.len()).sum();
        self.pending.len() + flying + full_sync + self.deferred.changes()
    }

    /// The jobs whose items are owed. Those of a scheduled sync are not: nothing changed, and the next one comes by itself.
    fn owing_flights(&self) -> impl Iterator<Item = &Flight> {
        let owes = |flight: &&Flight| flight.kind != JobKind::Trees(FullSyncFilter::Crontab);
        self.flights.values().filter(owes).filter(|_| self.is_active())
    }

    fn owed_full_sync(&self) -> Option<Item> {
        let full_sync = self.full_sync.as_ref()?;
        let whole = Item { path: RelPath::root(), mark: Mark::new(Scope::Tree) };
        (full_sync.filter != FullSyncFilter::Crontab).then_some(whole)
    }

    pub fn has_full_sync(&self) -> bool {
        self.full_sync.is_some()
    }

    pub fn fail_log(&self) -> Vec<FailLogEntry> {
        let entry = |code, path| FailLogEntry { remote: self.id, code, path };
        let down = self.outage.as_ref().filter(|outage| outage.is_logged() && self.waiting() > 0);
        let down = down.map(|outage| entry(outage.code(), None));
        let logged = self.failing.logged();
        let paths = logged.map(|(path, f)| entry(f.failure.code, Some(path.clone())));
        down.into_iter().chain(paths).collect()
    }

    /// A file system below `path` is gone: nothing at or below it leaves until it is back.
    pub fn lose(&mut self, path: &RelPath) {
        let mount = Owner::LostMount(path.clone());
        self.locks.drop_owner(&mount);
        self.locks.lock(mount, path, LockKind::Long);
    }

    /// It is back: everything below it may differ.
    pub fn find_again(&mut self, path: &RelPath) {
        if self.locks.drop_owner(&Owner::LostMount(path.clone())) {
            self.stuck = false;
            self.mark(path, Mark::new(Scope::Tree));
        }
    }

    /// Takes in what falls due by time alone.
    pub fn deadlines(&mut self, now: Now, actions: &mut Vec<Action>) {
        for item in self.deferred.take_due(now, self.outlook()) {
            if !self.needs_no_confirmation(&item) {
                self.mark(&item.path, item.mark);
            }
        }
        self.deferred.limit(self.limits.deferred_paths);
        self.remind(now, actions);
        if self.sessions_until.is_some_and(|until| until <= now && self.flights.is_empty()) {
            self.sessions_until = None;
            actions.push(Action::CloseSessions(self.id));
        }
    }

    /// Says of an outage now and then that it lasts.
    fn remind(&mut self, now: Now, actions: &mut Vec<Action>) {
        let (remote, root, pending) = (self.id, self.root, self.waiting());
        let Some(outage) = &mut self.outage else { return };
        if let Some(failure) = outage.failure.clone()
            && outage.reminder_due().is_some_and(|due| due <= now)
        {
            outage.remind_at(now + REMINDER);
            let (lasts, next_try) = (now - outage.since, outage.next.saturating_sub(now));
            actions.push(Action::Notify(Notice::StillDown {
                remote,
                root,
                failure,
                lasts,
                next_try,
                pending,
            }));
        }
    }

    /// Lets the operator be reminded of an outage at once.
    pub fn remind_now(&mut self, now: Now) {
        if let Some(outage) = &mut self.outage {
            outage.remind_at(now);
        }
    }

    /// When the conditions of deferred paths are met.
    fn outlook(&self) -> Outlook {
        // Sent beside another job, a disputed directory could be disputed again.
        let answers = self.outage.is_none() && self.permission.may_start();
        let is_quiet = self.pending.is_empty() && self.batches_in_flight() == 0;
        Outlook {
            answers: answers.then_some(Now::ZERO),
            quiet: is_quiet.then_some(self.last_end + QUIET),
            deletions: self.permission.deletions.are_allowed().then_some(Now::ZERO),
        }
    }

    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.pending.len(), self.moves.len())
    }

    #[cfg(test)]
    pub fn has_small_work(&self) -> bool {
        self.pending.small() > 0
    }

    /// True while whole trees are being sent.
    fn sends_trees(&self) -> bool {
        self.full_sync.is_some() || self.count_flights(|kind| matches!(kind, JobKind::Trees(_))) > 0
    }

    /// Why nothing can be sent, as far as that is known.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.outage.as_ref().and_then(Outage::kind)
    }

    /// True while the remote is not known to answer.
    pub fn is_doubtful(&self) -> bool {
        self.outage.is_some()
    }

    /// True while a trial is in flight.
    pub fn is_in_doubt_and_tried(&self) -> bool {
        self.outage.is_some() && self.flights.values().any(|flight| flight.is_trial)
    }

    /// True while such a job is at work, and does not just wait for an answer.
    pub fn is_on_trial(&self) -> bool {
        let is_trial = |flight: &Flight| flight.is_trial && !flight.is_waiting;
        self.outage.is_some() && self.flights.values().any(is_trial)
    }

    /// A job waits for the remote; true when that is news.
    pub fn wait(&mut self, job: JobId) -> bool {
        let flight = self.flights.get_mut(&job).filter(|flight| !flight.is_waiting);
        flight.map(|flight| flight.is_waiting = true).is_some()
    }

    /// It goes on; true when that is news.
    pub fn work(&mut self, job: JobId) -> bool {
        let flight = self.flights.get_mut(&job).filter(|flight| flight.is_waiting);
        flight.map(|flight| flight.is_waiting = false).is_some()
    }

    /// Large files and trees in flight.
    pub fn long_jobs(&self) -> usize {
        self.count_flights(|kind| matches!(kind, JobKind::Large | JobKind::Trees(_)))
    }

    /// True when no job is in flight.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// True when a batch is in flight and does not wait for the remote.
    pub fn has_working_batch(&self) -> bool {
        let mut working = self.flights.values().filter(|flight| !flight.is_waiting);
        working.any(|flight| is_short(flight.kind))
    }

    fn batches_in_flight(&self) -> usize {
        self.count_flights(is_short)
    }

    fn count_flights(&self, which: impl Fn(JobKind) -> bool) -> usize {
        self.flights.values().filter(|flight| which(flight.kind)).count()
    }
}

fn is_short(kind: JobKind) -> bool {
    kind == JobKind::Batch || kind.is_question()
}

#[cfg(test)]
mod tests;
