//! The core: every event that can wake the program goes in, every action it takes comes out.
//! Pure: no I/O, no clock, no threads; the daemon, the golden scripts and the simulator drive the same code.

mod backlog;
#[cfg(test)]
mod comeback;
mod contact;
pub mod deferred;
mod flights;
mod flush;
mod full_sync;
#[cfg(test)]
mod golden;
mod job;
pub mod locks;
mod mark;
mod moves;
mod notice;
mod parents;
pub mod pending;
mod permission;
mod refusals;
mod remote;
pub mod retry;
mod room;
mod schedule;
#[cfg(test)]
mod simulator;
mod taking;
mod together;
pub mod trie;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::change::{Change, RemoteId, RootId, WatchEvent};
use crate::failure::{FailureKind, Subject};
use crate::path::RelPath;
pub use flush::FlushId;
pub use full_sync::Extraneous;
pub use job::{
    FullSyncFilter, Job, JobId, JobKind, JobReport, PathFailure, RemoteDeletions, Settled, Verdict,
};
pub use moves::UndoneMove;
pub use notice::{FailLogEntry, Notice};
use pending::Item;
pub use permission::Deletions;
pub use refusals::Refusal;
use remote::RemoteState;
pub use remote::{FullSyncView, RemoteView, Standing};
use retry::Failing;
use room::Usage;

/// Paths that the pending set of a remote may hold when memory is short.
const PENDING_FEW: usize = 1_000;
/// How long items that a worker left for later are deferred.
pub const DEFERRED_FOR: Duration = Duration::from_secs(2);
/// A shortage of memory is logged at most this often.
const SHORT_AGAIN: Duration = Duration::from_secs(60);

/// Time since the program started, by a clock that never goes back.
pub type Now = Duration;

/// What never changes while the engine runs.
#[derive(Debug, Clone)]
pub struct EngineSetup {
    /// For each remote, the root that it mirrors.
    pub remotes: Vec<RootId>,
    /// How many jobs may be at work (`-n`); those that wait for their remotes do not count.
    pub workers: usize,
    /// How many paths the pending sets of all remotes may hold before they collapse upward.
    pub pending_max: usize,
    /// Whether a comparison deletes extraneous entries after changes were lost without a record of what was there.
    pub unrecorded: Extraneous,
}

/// Everything that can wake the engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// The watch thread saw something.
    Watch(WatchEvent),
    /// Compare every root: `-r`, or the crontab thread.
    FullSync(FullSyncCause),
    /// Compare one root, for this reason.
    CompareRoot(RootId, FullSyncCause),
    /// Whether comparisons below one root may delete. A path whose own deletion was reported is always deleted.
    Deletions(RootId, Deletions),
    /// The retry thread, SIGHUP or a command: retry every failing path now.
    RetryFailLog,
    /// The log file was reopened: report lasting outages again.
    Remind,
    /// The configuration has a new remote, which lacks everything. Its number is the next one, or a free one.
    RemoteAdded(RemoteId, RootId, Deletions),
    /// The remote is no longer in the configuration: everything but its jobs in flight is forgotten.
    RemoteRemoved(RemoteId),
    /// An operator: retry the failing paths of one remote now.
    Retry(RemoteId),
    /// An operator: compare this path and everything below it with one remote.
    Compare(RemoteId, RelPath),
    /// Start no more jobs for this remote; changes stay pending.
    Pause(RemoteId),
    /// Start jobs for this remote again.
    Resume(RemoteId),
    /// Answer with [`Action::Flushed`] once these remotes have everything that is pending now. Paths limit this to what is at or
    /// below them.
    Flush(FlushId, Vec<(RemoteId, Vec<RelPath>)>),
    /// Nobody waits for this flush any longer.
    FlushForgotten(FlushId),
    /// What the journal says the last run did not deliver.
    Restored(RemoteId, Vec<Item>),
    /// What the journal holds of paths that are absent now although no event reported their deletion. Their file system may not be
    /// mounted, so they wait for the decision about deletions.
    RestoredAbsent(RemoteId, Vec<Item>),
    /// A worker has looked at its job: these paths are directories and are sent without their content. Paths below them need
    /// not wait for the job's end.
    JobOpened(JobId, Vec<RelPath>),
    /// A job waits for its remote: another one may use its worker meanwhile.
    JobWaits(JobId),
    /// The job continues, and needs its worker again.
    JobWorks(JobId),
    /// A job has ended.
    JobDone(JobId, JobReport),
    /// Memory is short: keep less.
    MemoryShort,
    /// `next_deadline()` has come.
    DeadlineReached,
    /// SIGTERM: finish the jobs in flight, start no new ones.
    Stop,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give the job to a worker. There is always one free.
    Run(Job),
    /// End the remote's ready sessions: it is down, or nothing may be sent to it.
    CloseSessions(RemoteId),
    /// The remote is idle: end its ready sessions, except those that the configuration keeps for the next change.
    ReduceSessions(RemoteId),
    /// Abort everything that is in flight for this remote.
    Abort(RemoteId),
    /// A job has ended: its items are delivered, deferred, or divided into smaller ones.
    Settled(Settled),
    /// What the fail log holds has changed.
    FailLogChanged,
    /// Everything that was pending at the time of the flush is delivered.
    Flushed(FlushId),
    /// Something an operator should know.
    Notify(Notice),
    /// No job is in flight any longer, after [`Event::Stop`].
    Finished,
}

/// Why a full sync starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullSyncCause {
    /// `-r`.
    Start,
    /// `<crontab>`; `crontabfilter` holds for it.
    Schedule,
    /// An operator.
    Requested,
    /// The kernel's queue overflowed.
    Overflow,
    /// A root came back.
    RootBack,
    /// The record of the tree is missing or damaged.
    Unrecorded,
}

impl FullSyncCause {
    /// True when changes were lost, and nobody asked for a comparison.
    fn lost_changes(self) -> bool {
        matches!(self, Self::Overflow | Self::Unrecorded)
    }

    fn extraneous(self, unrecorded: Extraneous) -> Extraneous {
        if self.lost_changes() { unrecorded } else { Extraneous::Deleted }
    }
}

/// All state of the mirror.
#[derive(Debug)]
pub struct Engine {
    setup: EngineSetup,
    remotes: Vec<RemoteState>,
    /// Jobs in flight that use a worker. One that waits for its remote does not.
    busy: usize,
    next_job: u64,
    /// Which remote is next when workers are scarce.
    turn: usize,
    /// When the last event came.
    last_event: Now,
    life: Life,
    /// When a shortage of memory was last reported.
    said_short: Option<Now>,
    /// Flushes that are not done.
    flushes: Vec<FlushId>,
}

/// Whether jobs may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Working,
    /// After [`Event::Stop`].
    Stopping,
    /// [`Action::Finished`] was returned.
    Finished,
}

impl Engine {
    /// An engine that knows nothing yet; the first deadline, at once, makes first contact with every remote.
    pub fn new(setup: EngineSetup) -> Self {
        let ids = (0..).map(RemoteId).zip(&setup.remotes);
        let remotes = ids.map(|(id, root)| RemoteState::new(id, *root, setup.unrecorded)).collect();
        Self {
            setup,
            remotes,
            busy: 0,
            next_job: 0,
            turn: 0,
            last_event: Now::ZERO,
            life: Life::Working,
            said_short: None,
            flushes: Vec::new(),
        }
    }

    /// Handles an event at time `now`; returns what the shell has to do.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.last_event = now;
        match event {
            Event::Watch(event) => self.watch(now, event, &mut actions),
            Event::FullSync(cause) => {
                actions.push(Action::Notify(Notice::FullSyncStarted { cause }));
                for remote in self.active() {
                    remote.start_full_sync(now, cause, &mut actions);
                }
            }
            Event::CompareRoot(root, why) => self.compare_root(now, root, why, &mut actions),
            Event::Deletions(root, verdict) => {
                self.of_root(root).for_each(|remote| remote.decide_deletions(verdict));
            }
            Event::RemoteAdded(remote, root, deletions) => {
                self.add_remote(now, (remote, root), deletions, &mut actions);
            }
            Event::RemoteRemoved(remote) => {
                self.of(remote).for_each(|remote| remote.retire(now, &mut actions));
            }
            Event::Retry(remote) => {
                self.of(remote).for_each(|remote| remote.retry_failing(now));
            }
            Event::Compare(remote, path) => {
                self.of(remote).for_each(|remote| remote.compare(now, &path, &mut actions));
            }
            Event::Pause(remote) => self.of(remote).for_each(|remote| remote.pause(now)),
            Event::Resume(remote) => self.of(remote).for_each(|remote| remote.resume(now)),
            Event::Flush(id, places) => self.flush(now, id, places),
            Event::FlushForgotten(id) => self.forget_flush(id),
            Event::RetryFailLog => {
                self.active().for_each(|remote| remote.retry_failing(now));
            }
            Event::Remind => self.active().for_each(|remote| remote.remind_now(now)),
            Event::Restored(remote, items) => {
                let restore = |remote: &mut RemoteState, item: &Item| remote.restore(now, item);
                self.restore(remote, &items, restore, &mut actions);
            }
            Event::RestoredAbsent(remote, items) => {
                let restore =
                    |remote: &mut RemoteState, item: &Item| remote.restore_absent(now, item);
                self.restore(remote, &items, restore, &mut actions);
            }
            Event::JobOpened(job, directories) => {
                let mut remotes = self.remotes.iter_mut();
                let remote = remotes.find(|remote| remote.holds(job));
                remote.into_iter().for_each(|remote| remote.open(job, &directories));
            }
            Event::JobWaits(job) => {
                let mut remotes = self.remotes.iter_mut();
                self.busy -= usize::from(remotes.any(|remote| remote.wait(job)));
            }
            Event::JobWorks(job) => {
                let mut remotes = self.remotes.iter_mut();
                self.busy += usize::from(remotes.any(|remote| remote.work(job)));
            }
            Event::JobDone(job, report) => self.job_done(now, job, report, &mut actions),
            Event::MemoryShort => self.save_memory(now, &mut actions),
            Event::DeadlineReached => {}
            Event::Stop if self.life == Life::Working => self.life = Life::Stopping,
            Event::Stop => {}
        }
        for remote in &mut self.remotes {
            remote.note_age(now);
            if remote.note_logged_outage() && !actions.contains(&Action::FailLogChanged) {
                actions.push(Action::FailLogChanged);
            }
        }
        self.finish_flushes(&mut actions);
        self.dispatch(now, &mut actions);
        actions
    }

    /// When the engine wants [`Event::DeadlineReached`]; `None`: only another event can give it work.
    pub fn next_deadline(&self) -> Option<Now> {
        if self.life != Life::Working {
            return None;
        }
        // Use the time of the last event: everything due by then has started. With the present time, what fell due since then
        // would count as started too, and nothing would wake it.
        let then = self.last_event;
        let usage = self.usage();
        self.remotes.iter().filter_map(|it| it.next_deadline(then, usage.room(it))).min()
    }

    /// A view of one remote.
    pub fn observe(&self, remote: RemoteId) -> Option<RemoteView> {
        let remote = self.remotes.get(remote.0).filter(|remote| remote.is_active());
        remote.map(RemoteState::observe)
    }

    /// False once the remote was removed from the configuration.
    pub fn is_mirrored(&self, remote: RemoteId) -> bool {
        self.remotes.get(remote.0).is_some_and(RemoteState::is_active)
    }

    /// True when this very path waits for a job.
    pub fn is_pending(&self, remote: RemoteId, path: &RelPath) -> bool {
        self.remotes.get(remote.0).is_some_and(|remote| remote.is_pending(path))
    }

    /// Whether a path is delivered to one remote.
    pub fn standing(&self, remote: RemoteId, path: &RelPath) -> Option<Standing> {
        self.remotes.get(remote.0).map(|remote| remote.standing(path))
    }

    /// Every path that rsync could not deliver to one remote, with when it is retried; `None` while it is pending or in flight.
    pub fn failing(
        &self,
        remote: RemoteId,
    ) -> impl Iterator<Item = (&RelPath, &Failing, Option<Now>)> {
        self.remotes.get(remote.0).into_iter().flat_map(RemoteState::failing)
    }

    /// How many paths a flush still waits for at one remote, and the first of them; `None` if it waits for nothing there.
    pub fn missing(
        &self,
        remote: RemoteId,
        flush: FlushId,
        first: usize,
    ) -> Option<(usize, Vec<RelPath>)> {
        self.remotes.get(remote.0)?.missing(flush, first)
    }

    /// True while nothing leaves this root, because it cannot be read.
    pub fn is_lost(&self, root: RootId) -> bool {
        let mut remotes = self.remotes.iter().filter(|remote| remote.is_active());
        remotes.any(|remote| remote.root() == root && remote.root_is_lost())
    }

    /// The lines of the fail log.
    pub fn fail_log(&self) -> Vec<FailLogEntry> {
        self.remotes.iter().flat_map(RemoteState::fail_log).collect()
    }

    /// How many changes `remote` lacks, those in flight included. Rechecks of what was delivered do not count.
    pub fn pending(&self, remote: RemoteId) -> usize {
        self.remotes.get(remote.0).map_or(0, RemoteState::waiting)
    }

    /// How many items [`Engine::undelivered`] has.
    pub fn owed(&self, remote: RemoteId) -> usize {
        self.remotes.get(remote.0).map_or(0, RemoteState::owed)
    }

    /// True when a full sync for this reason deletes extraneous entries.
    pub fn deletes(&self, cause: FullSyncCause) -> bool {
        cause.extraneous(self.setup.unrecorded) != Extraneous::Kept
    }

    /// True while a full sync is under way.
    pub fn has_full_sync(&self) -> bool {
        self.remotes.iter().any(RemoteState::has_full_sync)
    }

    /// The full sync of a remote that is under way.
    pub fn full_sync(&self, remote: RemoteId) -> Option<FullSyncView> {
        let remote = self.remotes.get(remote.0).filter(|remote| remote.is_active())?;
        remote.observe_full_sync()
    }

    /// What the jobs in flight for the remotes of a root deliver, except full syncs and comparisons that delete nothing.
    pub fn in_flight(&self, root: RootId) -> BTreeSet<Item> {
        let remotes = self.remotes.iter().filter(|remote| remote.root() == root);
        let items = remotes.flat_map(RemoteState::undelivered_by);
        let flying = items.filter_map(|(job, item)| job.map(|_| item));
        flying.filter(|item| !item.only_adds()).collect()
    }

    /// Everything that a remote still lacks.
    pub fn undelivered(&self, remote: RemoteId) -> impl Iterator<Item = Item> {
        self.remotes.get(remote.0).into_iter().flat_map(RemoteState::undelivered)
    }

    /// The same without the full sync, with the job that delivers it, for a journal that is written anew.
    pub fn undelivered_by(&self, remote: RemoteId) -> impl Iterator<Item = (Option<JobId>, Item)> {
        self.remotes.get(remote.0).into_iter().flat_map(RemoteState::undelivered_by)
    }

    fn watch(&mut self, now: Now, event: WatchEvent, actions: &mut Vec<Action>) {
        match event {
            WatchEvent::Ready { .. } | WatchEvent::BarrierReached => {}
            WatchEvent::SubtreeLost { root, path, reason } => {
                self.of_root(root).for_each(|remote| remote.lose(&path, actions));
                actions.push(Action::Notify(Notice::SubtreeLost { root, path, reason }));
            }
            WatchEvent::SubtreeBack { root, path } => {
                self.of_root(root).for_each(|remote| remote.find_again(&path));
                actions.push(Action::Notify(Notice::SubtreeBack { root, path }));
            }
            WatchEvent::Changed { root, changes, .. } => {
                let share = self.share();
                for remote in self.of_root(root) {
                    changes.iter().for_each(|change: &Change| remote.change(now, change));
                    remote.limit(share, actions);
                }
            }
            WatchEvent::Overflow { root } => {
                actions.push(Action::Notify(Notice::Overflow { root }));
                self.compare_root(now, root, FullSyncCause::Overflow, actions);
            }
            WatchEvent::RootLost { root, loss } => {
                self.of_root(root).for_each(|remote| remote.lose_root(now));
                actions.push(Action::Notify(Notice::RootLost { root, loss }));
            }
            WatchEvent::RootBack { root, replaced } => {
                self.of_root(root).for_each(|remote| remote.find_root(now));
                actions.push(Action::Notify(Notice::RootBack { root, replaced }));
                self.compare_root(now, root, FullSyncCause::RootBack, actions);
            }
        }
    }

    /// Collapses the pending sets into a few directories, to save memory.
    fn save_memory(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.said_short.is_none_or(|at| now - at >= SHORT_AGAIN) {
            self.said_short = Some(now);
            actions.push(Action::Notify(Notice::MemoryShort));
        }
        // Drop the `Collapsed` notices: `MemoryShort` says the same once.
        let few = self.share().min(PENDING_FEW);
        self.remotes.iter_mut().for_each(|remote| remote.limit(few, &mut Vec::new()));
    }

    fn compare_root(
        &mut self,
        now: Now,
        root: RootId,
        why: FullSyncCause,
        actions: &mut Vec<Action>,
    ) {
        self.of_root(root).for_each(|remote| remote.start_full_sync(now, why, actions));
    }

    fn of(&mut self, remote: RemoteId) -> impl Iterator<Item = &mut RemoteState> {
        self.remotes.get_mut(remote.0).filter(|remote| remote.is_active()).into_iter()
    }

    fn active(&mut self) -> impl Iterator<Item = &mut RemoteState> {
        self.remotes.iter_mut().filter(|remote| remote.is_active())
    }

    /// True when the remote's number may be given to another one.
    pub fn is_free(&self, remote: RemoteId) -> bool {
        self.remotes.get(remote.0).is_none_or(|remote| !remote.is_active() && remote.is_idle())
    }

    fn add_remote(
        &mut self,
        now: Now,
        (id, root): (RemoteId, RootId),
        deletions: Deletions,
        actions: &mut Vec<Action>,
    ) {
        let sibling = self.remotes.iter().find(|it| it.is_active() && it.root() == root);
        let mut remote = RemoteState::new(id, root, self.setup.unrecorded);
        remote.join(now, sibling, deletions, actions);
        match self.remotes.get_mut(id.0) {
            Some(free) => *free = remote,
            None => self.remotes.push(remote),
        }
    }

    fn flush(&mut self, now: Now, id: FlushId, places: Vec<(RemoteId, Vec<RelPath>)>) {
        self.flushes.push(id);
        for (remote, within) in places {
            self.of(remote).for_each(|remote| remote.flush(now, id, within.clone()));
        }
    }

    fn forget_flush(&mut self, id: FlushId) {
        self.flushes.retain(|flush| *flush != id);
        self.remotes.iter_mut().for_each(|remote| remote.forget_flush(id));
    }

    fn finish_flushes(&mut self, actions: &mut Vec<Action>) {
        for id in self.flushes.clone() {
            if self.remotes.iter().all(|remote| remote.is_flushed(id)) {
                self.forget_flush(id);
                actions.push(Action::Flushed(id));
            }
        }
    }

    fn of_root(&mut self, root: RootId) -> impl Iterator<Item = &mut RemoteState> {
        self.active().filter(move |remote| remote.root() == root)
    }

    fn job_done(&mut self, now: Now, job: JobId, report: JobReport, actions: &mut Vec<Action>) {
        let Some(index) = self.remotes.iter().position(|remote| remote.holds(job)) else {
            return;
        };
        // A job that waits for its remote is not counted.
        self.busy -= usize::from(self.remotes[index].wait(job));
        let before = actions.len();
        self.remotes[index].job_done(now, job, report, actions);
        // Report a failure of this machine or of a root once, not for each remote.
        for at in (before..actions.len()).rev() {
            let kind = match &actions[at] {
                Action::Notify(Notice::Failed { failure, .. }) => failure.kind,
                Action::Notify(Notice::Over { kind, .. }) => *kind,
                _ => continue,
            };
            if self.others_have(kind, index) {
                actions.remove(at);
            }
        }
    }

    /// True when the failure concerns several remotes, and another one than `but` already has it.
    fn others_have(&self, kind: FailureKind, but: usize) -> bool {
        let root = self.remotes[but].root();
        let others = self.remotes.iter().enumerate().filter(|(index, _)| *index != but);
        let mut suffer = others.filter(|(_, remote)| remote.failure_kind() == Some(kind));
        match kind.policy().subject {
            Subject::Remote | Subject::Program => false,
            Subject::Machine => suffer.next().is_some(),
            Subject::Root => suffer.any(|(_, remote)| remote.root() == root),
        }
    }

    fn dispatch(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.life != Life::Working {
            let is_idle = self.remotes.iter().all(RemoteState::is_idle);
            if is_idle && self.life == Life::Stopping {
                self.life = Life::Finished;
                actions.push(Action::Finished);
            }
            return;
        }
        for remote in &mut self.remotes {
            remote.deadlines(now, actions);
        }
        say_shared_reminders_once(actions);
        let count = self.remotes.len();
        // Start one job per remote and round, so that each remote gets its share of scarce workers.
        let mut idle_rounds = 0;
        let mut usage = self.usage();
        while self.busy < self.setup.workers && idle_rounds < count {
            let index = self.turn % count;
            self.turn = (self.turn + 1) % count;
            let remote = &mut self.remotes[index];
            let Some(job) = remote.next_job(now, usage.room(remote)) else {
                idle_rounds += 1;
                continue;
            };
            idle_rounds = 0;
            let id = JobId(self.next_job);
            self.next_job += 1;
            self.busy += 1;
            actions.push(Action::Run(remote.start_job(now, id, job)));
            usage = self.usage();
        }
    }

    /// How the workers are used now.
    fn usage(&self) -> Usage {
        Usage::count(&self.remotes, self.setup.workers, self.busy)
    }

    /// Adds each item to the remote by `restore`.
    fn restore(
        &mut self,
        remote: RemoteId,
        items: &[Item],
        restore: impl Fn(&mut RemoteState, &Item),
        actions: &mut Vec<Action>,
    ) {
        let share = self.share();
        if let Some(remote) = self.remotes.get_mut(remote.0) {
            items.iter().for_each(|item| restore(remote, item));
            remote.limit(share, actions);
        }
    }

    /// How many paths one remote may hold.
    fn share(&self) -> usize {
        let active = self.remotes.iter().filter(|remote| remote.is_active()).count();
        self.setup.pending_max / active.max(1)
    }
}

/// Keeps one reminder for a failure of this machine or of a root, not one for each remote.
fn say_shared_reminders_once(actions: &mut Vec<Action>) {
    let mut said = Vec::new();
    actions.retain(|action| {
        let Action::Notify(Notice::StillDown { failure, root, .. }) = action else { return true };
        let about = match failure.kind.policy().subject {
            Subject::Remote | Subject::Program => return true,
            Subject::Machine => (failure.kind, None),
            Subject::Root => (failure.kind, Some(*root)),
        };
        let is_new = !said.contains(&about);
        said.push(about);
        is_new
    });
}
