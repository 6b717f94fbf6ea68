//! Makes snapshots of the mirror: on request, and for followers after a change.
//! Counts nothing itself, and never delays a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};

use super::main_event::MainEvent;
use super::mirror::Mirror;
use super::rate::Rate;
use super::statistics::{Clock, Statistics};
use crate::change::{RemoteId, RootId, RootLoss};
use crate::engine::retry::{Failing, Outage};
use crate::engine::{Deletions, FullSyncView, Notice, Now, RemoteView};
use crate::failure::{FailureKind, Subject};
use crate::ground::time::wall_ms;
use crate::path::RelPath;
use crate::snapshot::reader::NoSnapshot;
use crate::snapshot::{
    self, Alarm, DeletionState, Down, FailingPath, FullSyncStatus, Instance, RemoteStatus,
    RootState, RootStatus, Snapshot, SnapshotReader, SnapshotRequest, SyncState,
};
use crate::watch::WatchStatus;

/// The minimum time between two snapshots for a follower.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// How long the main loop may take to accept a request.
const PATIENCE: Duration = Duration::from_secs(2);

/// The followers, and the constant parts of snapshots.
#[derive(Debug)]
pub struct Observer {
    /// The constant facts about the process.
    pub instance: Instance,
    /// The destination of each remote.
    pub destinations: Vec<String>,
    /// The state of the watch thread.
    pub watch: Arc<WatchStatus>,
    /// The counters since the start.
    pub statistics: Statistics,
    /// The alarms of roots, each with its start time and its sentence.
    alarms: BTreeMap<(RootId, RelPath), (Now, String)>,
    /// The speed of the running full syncs.
    rates: BTreeMap<RemoteId, Rate>,
    followers: Vec<Follower>,
    /// Something has changed since the followers got their last snapshot.
    has_news: bool,
}

#[derive(Debug)]
struct Follower {
    request: SnapshotRequest,
    /// When it may get the next snapshot; `None` before the first one.
    next: Option<Now>,
}

impl Observer {
    /// Has no followers yet.
    pub fn new(instance: Instance, destinations: Vec<String>, watch: Arc<WatchStatus>) -> Self {
        let statistics = Statistics::new(destinations.len());
        Self {
            instance,
            destinations,
            watch,
            statistics,
            alarms: BTreeMap::new(),
            rates: BTreeMap::new(),
            followers: Vec::new(),
            has_news: false,
        }
    }

    /// Adds a follower; [`Mirror::tell_followers`] sends the first snapshot.
    pub fn add(&mut self, request: SnapshotRequest) {
        self.followers.push(Follower { request, next: None });
    }

    /// Notes that something has changed.
    pub fn note_news(&mut self) {
        self.has_news = true;
    }

    /// When a follower must get its next snapshot.
    pub fn next_deadline(&self) -> Option<Now> {
        let next = self.followers.iter().filter(|_| self.has_news);
        next.map(|follower| follower.next.unwrap_or_default()).min()
    }

    fn is_due(&self, now: Now) -> bool {
        let is_due = |follower: &Follower| match follower.next {
            None => true,
            Some(next) => self.has_news && next <= now,
        };
        self.followers.iter().any(is_due)
    }

    fn tell(&mut self, now: Now, snapshot: &Arc<Snapshot>) {
        let has_news = std::mem::take(&mut self.has_news);
        self.followers.retain_mut(|follower| {
            let is_due = follower.next.is_none_or(|next| has_news && next <= now);
            if !is_due {
                // Keep the flag, so that this follower gets a snapshot when its pause is over.
                self.has_news |= has_news;
                return true;
            }
            follower.next = Some(now + follower.request.pause.max(PAUSE_MIN));
            (follower.request.receive)(snapshot)
        });
    }
}

/// Makes the reader by which other threads ask the main loop for snapshots.
pub fn reader(events: Sender<MainEvent>) -> SnapshotReader {
    SnapshotReader::new(move |request| {
        let sent = events.send_timeout(MainEvent::Snapshot(request), PATIENCE);
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => NoSnapshot::Silent,
            SendTimeoutError::Disconnected(_) => NoSnapshot::Ended,
        })
    })
}

impl Mirror {
    /// The current time, by both clocks.
    pub fn clock(&self) -> Clock {
        Clock { now: self.now(), wall_ms: wall_ms() }
    }

    /// Sends a snapshot to each follower that is due.
    pub fn tell_followers(&mut self) {
        let now = self.now();
        if self.observer.is_due(now) {
            let snapshot = Arc::new(self.snapshot());
            self.observer.tell(now, &snapshot);
            // A running full sync sends data between two events, so its figures change without one.
            let is_sending =
                |remote: &RemoteStatus| remote.full_sync.is_some() && remote.in_flight > 0;
            if snapshot.remotes.iter().any(is_sending) {
                self.observer.note_news();
            }
        }
    }

    /// The current state.
    pub fn snapshot(&mut self) -> Snapshot {
        let clock = self.clock();
        let oldest = self.oldest_pending();
        let (deliveries, errors, history) = self.observer.statistics.recent(clock, oldest);
        Snapshot {
            version: snapshot::VERSION,
            taken_ms: clock.wall_ms,
            instance: self.instance(),
            roots: (0..self.teller.names.roots.len())
                .map(|root| self.root(clock, RootId(root)))
                .collect(),
            remotes: (0..self.ledger.roots_of_remotes().len())
                .filter_map(|id| self.remote(clock, RemoteId(id)))
                .collect(),
            errors,
            deliveries,
            history,
        }
    }

    /// Since when the oldest change of all remotes waits.
    pub fn oldest_pending(&self) -> Option<Now> {
        let remotes = (0..self.ledger.roots_of_remotes().len()).map(RemoteId);
        remotes.filter_map(|id| self.engine.observe(id)?.oldest).min()
    }

    fn instance(&self) -> Instance {
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        let watch = &self.observer.watch;
        Instance {
            directories: count(&watch.directories) as u64,
            unwatched: count(&watch.unwatched) as u64,
            overflows: count(&watch.overflows) as u64,
            journal_incomplete: self.ledger.lacks_changes(),
            stopping: self.stopping.is_ordered(),
            ..self.observer.instance.clone()
        }
    }

    fn root(&self, clock: Clock, root: RootId) -> RootStatus {
        let deletions = match self.trust.deletions(root) {
            Deletions::Allowed => DeletionState::Allowed,
            Deletions::Undecided => DeletionState::Undecided,
            Deletions::Withheld => DeletionState::Withheld,
        };
        let state = if self.engine.is_lost(root) { RootState::Lost } else { RootState::Watched };
        let alarms = self.observer.alarms.iter().filter(|((of, _), _)| *of == root);
        let alarms = alarms.map(|(_, (since, text))| Alarm {
            since_ms: clock.wall_of(*since),
            text: text.clone(),
        });
        RootStatus {
            path: self.teller.names.root(root),
            state,
            deletions,
            alarms: alarms.chain(self.trust.alarm(root).cloned()).collect(),
        }
    }

    fn remote(&mut self, clock: Clock, id: RemoteId) -> Option<RemoteStatus> {
        let view = self.engine.observe(id)?;
        let full_sync = view.full_sync.as_ref().map(|view| self.full_sync(clock, id, view));
        let down = view.outage.as_ref().and_then(|outage| down(clock, &view, outage));
        let paused_until = self.controls.paused_until(id).flatten();
        // An alert looks at what is in the fail log, so this comes first.
        let of = |is: bool| self.engine.failing(id).filter(move |(_, it, _)| it.logged == is);
        let failing = of(true).chain(of(false)).take(snapshot::FAILING_PATHS);
        let mut remote = RemoteStatus {
            id: id.0 as u64,
            name: self.teller.names.remotes.get(id.0).cloned().unwrap_or_default(),
            destination: self.observer.destinations.get(id.0).cloned().unwrap_or_default(),
            root: view.root.0 as u64,
            state: match (&view.outage, &down) {
                _ if view.is_paused => SyncState::Paused,
                (_, Some(_)) => SyncState::Down,
                (Some(_), None) => SyncState::Unknown,
                (None, None) if view.is_catching_up => SyncState::CatchingUp,
                (None, None) => SyncState::Up,
            },
            down,
            paused_until_ms: paused_until.map(|until| clock.wall_of(until)),
            pending: view.pending as u64,
            oldest_pending_ms: view.oldest.map(|since| clock.wall_of(since)),
            in_flight: view.in_flight as u64,
            sessions: self.workers.sessions(id) as u64,
            full_sync,
            failing: view.failing as u64,
            failing_paths: failing.map(|it| failing_path(clock, it)).collect(),
            refuses_deletions: view.refuses_deletions,
            ..RemoteStatus::default()
        };
        self.observer.statistics.describe(clock, id, &mut remote);
        Some(remote)
    }

    /// The progress of a full sync, including its running runs.
    pub(super) fn full_sync(
        &mut self,
        clock: Clock,
        id: RemoteId,
        view: &FullSyncView,
    ) -> FullSyncStatus {
        let bytes = view.bytes + self.workers.sent(&view.jobs);
        let since = (view.since, 0);
        let rate = self.observer.rates.entry(id).or_insert_with(|| Rate::new(since));
        if rate.since != view.since {
            *rate = Rate::new(since);
        }
        let bytes_per_second = rate.at(clock.now, bytes);
        FullSyncStatus { bytes, bytes_per_second, ..full_sync_of(clock, view) }
    }

    /// Updates the history when a minute has ended.
    pub fn count_time(&mut self) {
        let clock = self.clock();
        if self.observer.statistics.is_new_minute(clock) {
            let oldest = self.oldest_pending();
            self.observer.statistics.tick(clock, oldest);
        }
    }

    /// Counts a notice that is logged.
    pub fn count_notice(&mut self, notice: &Notice, level: log::Level, sentence: &str) {
        let clock = self.clock();
        let statistics = &mut self.observer.statistics;
        let mut of = None;
        match notice {
            Notice::Failed { remote, .. } => {
                statistics.went_down(*remote);
                of = Some(*remote);
            }
            Notice::Over { remote, root, kind, .. } => {
                // A failure that several remotes share is said once, and so is its end.
                let of = self.ledger.roots_of_remotes().iter().enumerate();
                let shares = |(id, of): &(usize, &RootId)| match kind.policy().subject {
                    Subject::Remote | Subject::Program => RemoteId(*id) == *remote,
                    Subject::Machine => true,
                    Subject::Root => *of == root,
                };
                let of: Vec<_> = of.filter(shares).map(|(id, _)| RemoteId(id)).collect();
                // One of them may be down for another reason.
                let is_down = |id: &RemoteId| {
                    let view = self.engine.observe(*id);
                    view.and_then(|view| view.outage).is_some_and(|outage| outage.failure.is_some())
                };
                let of = of.into_iter().filter(|id| id == remote || !is_down(id));
                of.for_each(|remote| statistics.came_up(clock, remote));
            }
            Notice::PathsFailed { remote, .. }
            | Notice::MorePathsFailed { remote, .. }
            | Notice::StillDown { remote, .. }
            | Notice::Collapsed { remote, .. } => {
                of = Some(*remote);
            }
            Notice::FullSyncDone { remote, .. } => statistics.full_sync_done(clock.now, *remote),
            _ => {}
        }
        statistics.error(clock, level, sentence, of);
        self.note_alarm(clock.now, notice, sentence);
    }

    /// Starts or ends the alarm of a notice.
    fn note_alarm(&mut self, now: Now, notice: &Notice, sentence: &str) {
        let whole = RelPath::root;
        let (key, begins) = match notice {
            Notice::RootLost { root, loss: RootLoss::Gone(_) } => ((*root, whole()), true),
            Notice::Failed { root, failure, .. } if failure.kind == FailureKind::Source => {
                ((*root, whole()), true)
            }
            Notice::Over { root, kind: FailureKind::Source, .. }
            | Notice::RootBack { root, .. } => ((*root, whole()), false),
            Notice::SubtreeLost { root, path, .. } => ((*root, path.clone()), true),
            Notice::SubtreeBack { root, path } => ((*root, path.clone()), false),
            _ => return,
        };
        if begins {
            let text = sentence.strip_prefix("ALARM: ").unwrap_or(sentence);
            self.observer.alarms.insert(key, (now, text.into()));
        } else {
            self.observer.alarms.remove(&key);
        }
    }
}

fn full_sync_of(clock: Clock, view: &FullSyncView) -> FullSyncStatus {
    let done = view.shards.saturating_sub(view.left);
    let took = clock.now.saturating_sub(view.since);
    let left = (view.shards > 1 && done > 0)
        .then(|| took.mul_f64(view.left as f64 / done as f64))
        .map(|left| clock.wall_of(clock.now + left));
    FullSyncStatus {
        since_ms: clock.wall_of(view.since),
        parts_done: done as u64,
        parts: view.shards as u64,
        files: view.files,
        done_at_ms: left,
        ..FullSyncStatus::default()
    }
}

fn failing_path(
    clock: Clock,
    (path, failing, due): (&RelPath, &Failing, Option<Now>),
) -> FailingPath {
    FailingPath {
        path: path.to_string(),
        code: failing.failure.code,
        reason: failing.failure.reason.clone(),
        what_to_do: failing.failure.what_to_do().into(),
        tries: u64::from(failing.tries),
        next_try_ms: due.map(|due| clock.wall_of(due)),
        logged: failing.logged,
    }
}

fn down(clock: Clock, view: &RemoteView, outage: &Outage) -> Option<Down> {
    let failure = outage.failure.as_ref()?;
    Some(Down {
        since_ms: clock.wall_of(outage.since),
        kind: failure.kind.policy().word.into(),
        code: failure.code,
        reason: failure.reason.clone(),
        what_to_do: failure.what_to_do().into(),
        tries: u64::from(outage.tries),
        next_try_ms: (!view.is_tried).then(|| clock.wall_of(outage.next)),
    })
}
