//! The state of one remote: what it owes, what is in flight, whether it answers. `start.rs` starts its jobs, `settle.rs` handles
//! their reports.
//! Does not know how many workers or other remotes there are.

mod confirm;
mod flush;
mod observe;
mod open;
mod origins;
mod recheck;
mod retire;
mod settle;
mod start;

use std::time::Duration;

pub use self::observe::{FullSyncView, RemoteView, Standing};
use super::backlog::Backlog;
use super::contact::Contact;
use super::deferred::{Condition, Deferred, Outlook};
use super::flights::{Flight, Flights, Origin};
use super::flush::FlushMark;
use super::full_sync::FullSync;
use super::locks::{LockKind, Owner, PathLocks};
use super::pending::{Item, Mark, Marked};
use super::permission::{Deletions, Permission};
use super::retry::{FailingPaths, Outage, REMINDER};
use super::schedule::Pace;
use super::{Action, Extraneous, FailLogEntry, FullSyncCause, FullSyncFilter, JobId, Notice, Now};
use crate::change::{Cause, Change, RemoteId, RootId, Scope};
use crate::failure::FailureKind;
use crate::path::RelPath;

/// Paths in one batch: enough that a storm needs few runs, few enough that a batch ends soon.
const BATCH_PATHS: usize = 4_000;
/// Above this number of failing paths, the whole tree is retried instead.
const FAILING_MAX: usize = 10_000;

/// Above this number, deferred paths collapse into trees.
const DEFERRED_MAX: usize = 100_000;
/// A remote is quiet when nothing is pending and no job has ended for this long.
const QUIET: Duration = Duration::from_millis(250);

/// How many single paths are kept.
#[derive(Debug, Clone, Copy)]
pub struct RemoteLimits {
    /// Paths in one batch.
    pub batch_paths: usize,
    /// Failing paths remembered.
    pub failing_paths: usize,
    /// Deferred paths remembered.
    pub deferred_paths: usize,
}

/// What never changes for a remote.
#[derive(Debug, Clone, Copy)]
struct RemoteSetup {
    id: RemoteId,
    root: RootId,
    limits: RemoteLimits,
    /// See [`EngineSetup::unrecorded`](super::EngineSetup).
    unrecorded: Extraneous,
}

/// Everything about one remote: what it lacks (`backlog`, `full_sync`, `deferred`, `failing`), what is in flight (`flights`,
/// `locks`), and what may start (`permission`, `contact`, `pace`).
#[derive(Debug)]
pub struct RemoteState {
    setup: RemoteSetup,
    permission: Permission,
    contact: Contact,
    backlog: Backlog,
    full_sync: Option<FullSync>,
    deferred: Deferred,
    /// Paths that rsync could not deliver. Their next retries are in `deferred`.
    failing: FailingPaths,
    flights: Flights,
    locks: PathLocks,
    pace: Pace,
    /// What flushes wait for.
    flushes: Vec<FlushMark>,
}

impl RemoteState {
    pub fn new(id: RemoteId, root: RootId, unrecorded: Extraneous) -> Self {
        let limits = RemoteLimits {
            batch_paths: BATCH_PATHS,
            failing_paths: FAILING_MAX,
            deferred_paths: DEFERRED_MAX,
        };
        Self::with(RemoteSetup { id, root, limits, unrecorded })
    }

    /// A remote of which nothing is known yet.
    fn with(setup: RemoteSetup) -> Self {
        Self {
            setup,
            permission: Permission::default(),
            contact: Contact::unknown(),
            backlog: Backlog::default(),
            full_sync: None,
            deferred: Deferred::default(),
            failing: FailingPaths::default(),
            flights: Flights::default(),
            locks: PathLocks::default(),
            pace: Pace::default(),
            flushes: Vec::new(),
        }
    }

    /// The root that it mirrors.
    pub fn root(&self) -> RootId {
        self.setup.root
    }

    /// Adds a hint.
    pub fn mark(&mut self, path: &RelPath, mark: Mark) -> Marked {
        self.backlog.mark(path, mark, &self.locks)
    }

    /// Adds an item that the last run of the program did not deliver. No event reported what was deleted since then, so listings
    /// and trees wait for the decision about deletions.
    pub fn restore(&mut self, now: Now, item: &Item) {
        if item.adds_everything() {
            // A pending tree would absorb the deletions below it, and then delete what only the remote has. A full sync does not.
            let full_sync = self.full_sync.get_or_insert_with(|| FullSync::new(now));
            return full_sync.restart(FullSyncCause::Unrecorded, Extraneous::Kept);
        }
        self.recheck(now, item);
        if self.permission.deletions == Deletions::Undecided && item.mark.scope != Scope::Entry {
            self.deferred.defer(Condition::Decided, item);
        } else {
            self.mark(&item.path, item.mark);
        }
    }

    /// Adds an item of the last run whose path is absent now although no event reported its deletion. It waits until a walk has found what
    /// is gone.
    pub fn restore_absent(&mut self, now: Now, item: &Item) {
        if self.permission.deletions.are_allowed() {
            self.restore(now, item);
        } else {
            self.deferred.defer(Condition::Deletions, item);
        }
    }

    pub fn decide_deletions(&mut self, verdict: Deletions) {
        self.permission.deletions = verdict;
    }

    /// Its root cannot be read: nothing starts.
    pub fn lose_root(&mut self, now: Now) {
        self.permission.root_is_lost = true;
        self.contact.end_sessions(now);
    }

    /// Its root is back.
    pub fn find_root(&mut self, now: Now) {
        self.permission.root_is_lost = false;
        self.put_off_rechecks_after_standstill(now);
    }

    pub fn root_is_lost(&self) -> bool {
        self.permission.root_is_lost
    }

    /// Jobs may start again. While none ran, an outage of the remote went unnoticed, so rechecks wait as after one.
    fn put_off_rechecks_after_standstill(&mut self, now: Now) {
        self.put_off_rechecks(now, self.flights.last_end());
    }

    /// Adds a change that the watch thread reported.
    pub fn change(&mut self, now: Now, change: &Change) {
        if change.cause == Cause::Attrib && !self.failing.is_empty() {
            // A new mode or owner may have cured what fails below this path: retry it.
            for path in self.failing.within(&change.path) {
                self.deferred.bring_forward(now, &path);
            }
        }
        // A tree job may have sent a new directory before it was watched. No event reports what was deleted there meanwhile, so
        // compare its listing.
        let unseen = change.is_dir && change.cause == Cause::Create && self.sends_trees();
        let scope = if unseen { change.scope.max(Scope::Listing) } else { change.scope };
        // The copy may still hold another tree of this name, with files of the same size and time.
        let compare_content =
            change.cause == Cause::MovedTo && scope == Scope::Tree && self.owes(&change.path);
        let additive = scope == change.scope && change.extent().additive;
        let mark = Mark { compare_content, additive, ..Mark::new(scope) };
        let marked = self.mark(&change.path, mark);
        if matches!(change.cause, Cause::Delete | Cause::MovedFrom) {
            self.end_undone_move(now, &change.path);
        }
        if matches!(change.cause, Cause::Delete | Cause::MovedFrom | Cause::MovedTo) {
            self.backlog.pending.forget_size(&change.path);
        }
        let Some(old) = &change.moved_from else {
            return;
        };
        // After a -> b -> c without a run, the copy is still at a. If b is in flight, the copy will be at b.
        let known = self.backlog.moves.take(old).filter(|_| !self.is_in_flight(old));
        if marked == Marked::Itself {
            let origin = known.unwrap_or_else(|| old.clone());
            // If a job has returned a move as undone, its two names were deferred. Send them together with the third.
            self.deferred.bring_forward(now, old);
            self.deferred.bring_forward(now, &origin);
            self.wait_for(&origin, &change.path);
            self.backlog.moves.note(change.path.clone(), origin);
        }
    }

    /// True when the path, or anything above or below it, is pending or in flight.
    fn owes(&self, path: &RelPath) -> bool {
        self.backlog.pending.touches(path) || self.locks.touches(path)
    }

    /// Keeps at most `max` pending and `max` deferred paths.
    pub fn limit(&mut self, max: usize, actions: &mut Vec<Action>) {
        self.deferred.limit(max);
        if let Some((from, to)) = self.backlog.limit(max) {
            let remote = self.setup.id;
            actions.push(Action::Notify(Notice::Collapsed { remote, from, to }));
        }
    }

    pub fn start_full_sync(&mut self, now: Now, cause: FullSyncCause, actions: &mut Vec<Action>) {
        if cause == FullSyncCause::Schedule && self.full_sync.is_some() {
            actions.push(Action::Notify(Notice::FullSyncSkipped { remote: self.setup.id }));
            return;
        }
        if cause.lost_changes() {
            self.backlog.moves.clear();
        }
        if cause == FullSyncCause::RootBack {
            self.contact.try_by(now);
        }
        let under_way = self.full_sync.as_mut();
        let mut unfiltered = under_way.filter(|it| it.filter == FullSyncFilter::Off);
        if cause.lost_changes()
            && let Some(full_sync) = &mut unfiltered
        {
            // Do not restart: if the kernel drops events faster than a tree is compared, no full sync would ever end.
            full_sync.again = true;
            return;
        }
        let full_sync = self.full_sync.get_or_insert_with(|| FullSync::new(now));
        full_sync.restart(cause, cause.extraneous(self.setup.unrecorded));
    }

    /// Retries every failing path now. Asks a remote that refused deletions again, by comparing no more than the names in one directory
    /// in which deletions are owed.
    pub fn retry_failing(&mut self, now: Now) {
        let refused =
            self.permission.deletions.are_allowed() && self.permission.deletions_are_refused;
        if let Some(path) = self.deferred.owes_deletions().filter(|_| refused) {
            self.backlog.pending.mark(path, Mark::new(Scope::Listing));
        }
        for path in self.failing.paths() {
            self.deferred.bring_forward(now, path);
        }
        self.contact.try_soon();
    }

    pub fn holds(&self, job: JobId) -> bool {
        self.flights.get(job).is_some()
    }

    /// How many items [`RemoteState::undelivered`] has.
    pub fn owed(&self) -> usize {
        let flying: usize = self.owing_flights().map(|(_, flight)| flight.items.len()).sum();
        let whole = self.owed_full_sync().iter().count();
        self.backlog.pending.len() + flying + whole + self.deferred.count()
    }

    /// Everything that this remote owes.
    pub fn undelivered(&self) -> impl Iterator<Item = Item> {
        self.undelivered_by().map(|(_, item)| item).chain(self.owed_full_sync())
    }

    /// The same without the full sync, with the job that delivers it.
    pub fn undelivered_by(&self) -> impl Iterator<Item = (Option<JobId>, Item)> {
        let waiting = self.backlog.pending.iter().chain(self.deferred.items());
        let flying = self.owing_flights().flat_map(|(job, flight)| {
            flight.items.iter().map(move |item| (Some(job), item.clone()))
        });
        waiting.map(|item| (None, item)).chain(flying)
    }

    /// How many changes the remote lacks, as an operator counts them: without rechecks and confirmations.
    pub fn waiting(&self) -> usize {
        let full_sync = self.full_sync.as_ref().map_or(0, |full_sync| full_sync.left.len());
        self.backlog.pending.len() + self.flights.items() + full_sync + self.deferred.changes()
    }

    /// The jobs whose items are owed. A full sync's are not: it is owed as a whole.
    fn owing_flights(&self) -> impl Iterator<Item = (JobId, &Flight)> {
        let owes = |(_, flight): &(JobId, &Flight)| flight.origin != Origin::FullSync;
        self.flights.iter().filter(owes).filter(|_| self.is_active())
    }

    /// A scheduled sync is not owed: nothing changed there, and the next one comes by itself.
    fn owed_full_sync(&self) -> Option<Item> {
        let full_sync = self.full_sync.as_ref()?;
        let additive = full_sync.extraneous == Extraneous::Kept;
        let mark = Mark { additive, ..Mark::new(Scope::Tree) };
        let whole = Item { path: RelPath::root(), mark };
        (full_sync.filter != FullSyncFilter::Crontab).then_some(whole)
    }

    pub fn has_full_sync(&self) -> bool {
        self.full_sync.is_some()
    }

    pub fn fail_log(&self) -> Vec<FailLogEntry> {
        let entry = |code, path| FailLogEntry { remote: self.setup.id, code, path };
        let down = self.logged_outage().map(|outage| entry(outage.code(), None));
        let logged = self.failing.logged();
        let paths = logged.map(|(path, f)| entry(f.failure.code, Some(path.clone())));
        down.into_iter().chain(paths).collect()
    }

    /// The outage, if it belongs in the fail log: the remote lacks changes.
    fn logged_outage(&self) -> Option<&Outage> {
        self.contact.outage().filter(|outage| outage.is_logged() && self.waiting() > 0)
    }

    /// Call it after each event; true when the outage has to be added to the fail log, or removed.
    pub fn note_logged_outage(&mut self) -> bool {
        let is_logged = self.logged_outage().is_some();
        self.contact.note_listed(is_logged)
    }

    /// The file system mounted at `path` is gone: nothing at or below it is sent until it is back. A job in flight would take the empty
    /// directory for the truth, so it is aborted.
    pub fn lose(&mut self, path: &RelPath, actions: &mut Vec<Action>) {
        let mount = Owner::LostMount(path.clone());
        self.locks.drop_owner(&mount);
        if !self.flights.is_empty() && self.locks.touches(path) {
            actions.push(Action::Abort(self.setup.id));
        }
        self.locks.lock(mount, path, LockKind::Long);
    }

    /// The file system at `path` is back. A change reports that everything below it may differ.
    pub fn find_again(&mut self, path: &RelPath) {
        if self.locks.drop_owner(&Owner::LostMount(path.clone())) {
            self.backlog.search_again();
        }
    }

    /// Handles everything that is due by time.
    pub fn deadlines(&mut self, now: Now, actions: &mut Vec<Action>) {
        for item in self.deferred.take_due(now, self.outlook()) {
            if !self.holds_confirmation(now, &item) {
                self.mark(&item.path, item.mark);
            }
        }
        self.deferred.limit(self.setup.limits.deferred_paths);
        self.remind(now, actions);
        let sessions_until = self.contact.sessions_until();
        if sessions_until.is_some_and(|until| until <= now && self.flights.is_empty()) {
            self.contact.forget_sessions();
            let remote = self.setup.id;
            actions.push(match self.permission.may_start() && self.contact.is_up() {
                true => Action::ReduceSessions(remote),
                false => Action::CloseSessions(remote),
            });
        }
    }

    /// Reminds the operator of a lasting outage now and then.
    fn remind(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(outage) = self.contact.outage() else { return };
        if let Some(failure) = outage.failure.clone()
            && outage.reminder_due().is_some_and(|due| due <= now)
        {
            let (remote, root, pending) = (self.setup.id, self.setup.root, self.waiting());
            let (lasts, next_try) = (now - outage.since, outage.next.saturating_sub(now));
            self.contact.remind_at(now + REMINDER);
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

    /// Makes the reminder of an outage due now.
    pub fn remind_now(&mut self, now: Now) {
        self.contact.remind_at(now);
    }

    /// When the conditions of deferred paths are met.
    fn outlook(&self) -> Outlook {
        let answers = self.contact.is_up() && self.permission.may_start();
        // A disputed directory is sent when no batch runs: beside another one it could be disputed again.
        let is_quiet = self.backlog.pending.is_empty() && self.flights.count(Flight::is_short) == 0;
        Outlook {
            answers: answers.then_some(Now::ZERO),
            quiet: is_quiet.then_some(self.flights.last_end() + QUIET),
            deletions: self.permission.may_delete().then_some(Now::ZERO),
            decided: (self.permission.deletions != Deletions::Undecided).then_some(Now::ZERO),
        }
    }

    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.backlog.pending.len(), self.backlog.moves.len())
    }

    #[cfg(test)]
    pub fn has_small_work(&self) -> bool {
        self.backlog.pending.small() > 0
    }

    #[cfg(test)]
    pub fn limits(&self) -> RemoteLimits {
        self.setup.limits
    }

    #[cfg(test)]
    pub fn limits_mut(&mut self) -> &mut RemoteLimits {
        &mut self.setup.limits
    }

    /// True while whole trees are being sent.
    fn sends_trees(&self) -> bool {
        self.full_sync.is_some() || self.flights.count(Flight::sends_trees) > 0
    }

    /// Why nothing can be sent, as far as that is known.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.contact.failure_kind()
    }

    /// True while the remote is not known to answer.
    pub fn is_doubtful(&self) -> bool {
        !self.contact.is_up()
    }

    /// True while a trial is in flight.
    pub fn is_in_doubt_and_tried(&self) -> bool {
        self.is_doubtful() && self.flights.count(|flight| flight.is_trial) > 0
    }

    /// True while a trial uses a worker, and does not only wait for an answer.
    pub fn is_on_trial(&self) -> bool {
        let is_trial = |flight: &Flight| flight.is_trial && !flight.is_waiting;
        self.is_doubtful() && self.flights.count(is_trial) > 0
    }

    /// A job waits for the remote; true if it did not wait before.
    pub fn wait(&mut self, job: JobId) -> bool {
        self.flights.wait(job)
    }

    /// The job continues; true if it waited before.
    pub fn work(&mut self, job: JobId) -> bool {
        self.flights.work(job)
    }

    /// Large files and trees in flight.
    pub fn long_jobs(&self) -> usize {
        self.flights.count(Flight::is_long)
    }

    /// True when no job is in flight.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// True when a batch or a question is in flight and uses a worker.
    pub fn has_working_batch(&self) -> bool {
        self.flights.count(|flight| flight.is_short() && !flight.is_waiting) > 0
    }
}

#[cfg(test)]
mod tests;
