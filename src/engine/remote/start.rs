//! Which job of a remote starts next, and when.
//! Does not run it.

use std::collections::HashSet;

use super::{Flight, Origin, RemoteState};
use crate::change::Scope;
use crate::engine::deferred::Condition;
use crate::engine::full_sync::shards_per_job;
use crate::engine::locks::{LockKind, Owner};
use crate::engine::mark::only_confirm;
use crate::engine::parents::Parents;
use crate::engine::pending::{Item, Mark, Want};
use crate::engine::permission::Deletions;
use crate::engine::retry::Outage;
use crate::engine::room::Room;
use crate::engine::{FullSyncFilter, Job, JobId, JobKind, Now};
use crate::failure::Retry;
use crate::path::RelPath;

/// Batches in flight at once. In a stream the pace keeps it at one. After a rest, a second change need not wait for the first run to
/// end, about 50 ms after its delivery.
const BATCHES: usize = 4;
/// Tree jobs in flight at once: more are not faster, with two cores and a long round trip (docs/BENCHMARKS.md).
const TREE_JOBS: usize = 4;
/// Paths in a trial of a remote that was down. Trials are frequent and mostly fail, so they are small.
const TRIAL_PATHS: usize = 64;
/// Large files in flight at once.
const LARGE_JOBS: usize = 2;

/// A job that is ready to start.
#[derive(Debug)]
pub struct NextJob {
    kind: JobKind,
    origin: Origin,
    items: Vec<Item>,
}

impl NextJob {
    fn new(kind: JobKind, origin: Origin, items: Vec<Item>) -> Option<Self> {
        (!items.is_empty()).then_some(Self { kind, origin, items })
    }
}

impl RemoteState {
    /// When the next thing falls due, among those for which there is room.
    pub fn next_deadline(&self, now: Now, room: Room) -> Option<Now> {
        let sessions = self.contact.sessions_until().filter(|_| self.flights.is_empty());
        let start = if room == Room::None || !self.may_start() {
            None
        } else if let Some(outage) = self.contact.outage() {
            (!self.is_in_doubt_and_tried()).then_some(outage.next)
        } else {
            // Everything that could start has started. The rest waits for a job to end, or for the pace.
            let waits =
                self.backlog.pending.small() > 0 && self.flights.count(Flight::is_short) < BATCHES;
            waits.then(|| self.pace.ready_at()).filter(|at| *at > now)
        };
        let reminder = self.contact.outage().and_then(Outage::reminder_due);
        let deferred = self.deferred.next_due(self.outlook());
        [sessions, start, reminder, deferred].into_iter().flatten().min()
    }

    /// The job that should start now, if any.
    pub fn next_job(&mut self, now: Now, room: Room) -> Option<NextJob> {
        if room == Room::None || !self.may_start() {
            return None;
        }
        if self.is_doubtful() {
            return self.next_trial(now, room);
        }
        let may_batch = self.flights.count(Flight::is_short) < BATCHES && self.pace.is_ready(now);
        if may_batch
            && !self.flights.short_was_last()
            && let Some(job) = self.next_batch(None, self.setup.limits.batch_paths)
        {
            return Some(job);
        }
        let (long, waits) = self.next_long_job(room);
        if long.is_some() || !may_batch {
            return long;
        }
        // A batch takes nothing from a path that a full sync waits for, unless the full sync waits for a long job.
        let reserved = waits.filter(|(_, kind)| *kind == LockKind::Short);
        self.next_batch(reserved.map(|(path, _)| path), self.setup.limits.batch_paths)
    }

    fn may_start(&self) -> bool {
        self.permission.may_start()
    }

    fn next_batch(&mut self, reserved: Option<RelPath>, paths: usize) -> Option<NextJob> {
        let items = self.take_beside(reserved.as_ref(), |remote| {
            remote.backlog.take_batch(&remote.locks, &remote.deferred, paths)
        });
        NextJob::new(JobKind::Batch, Origin::Pending, items)
    }

    /// A job of a large file or of trees, and the path that a full sync waits for, if any.
    fn next_long_job(&mut self, room: Room) -> (Option<NextJob>, Option<(RelPath, LockKind)>) {
        let mut waits = None;
        if room != Room::Any {
            return (None, None);
        }
        let trees = self.flights.count(Flight::sends_trees);
        if trees < TREE_JOBS && self.permission.deletions != Deletions::Undecided {
            if let Some(full_sync) = &mut self.full_sync {
                let (items, sync_waits) = full_sync.take(&self.locks, TREE_JOBS);
                let job = NextJob::new(JobKind::Trees(full_sync.filter), Origin::FullSync, items);
                if job.is_some() {
                    return (job, None);
                }
                waits = sync_waits;
            }
            if self.backlog.pending.shards() > 0 {
                let want = Want::Trees(shards_per_job(self.backlog.pending.shards(), 0, TREE_JOBS));
                let items = self.take_beside(waits.as_ref().map(|(path, _)| path), |remote| {
                    remote.backlog.pending.take(&remote.locks, want)
                });
                let kind = JobKind::Trees(FullSyncFilter::Off);
                let job = NextJob::new(kind, Origin::Pending, items);
                if job.is_some() {
                    return (job, waits);
                }
            }
        }
        if self.backlog.pending.large() > 0
            && self.flights.count(|flight| flight.kind == JobKind::Large) < LARGE_JOBS
        {
            let items = self.take_beside(waits.as_ref().map(|(path, _)| path), |remote| {
                remote.backlog.pending.take(&remote.locks, Want::Large)
            });
            return (NextJob::new(JobKind::Large, Origin::Pending, items), waits);
        }
        (None, waits)
    }

    /// Takes from the backlog, but nothing that touches `reserved`.
    fn take_beside(
        &mut self,
        reserved: Option<&RelPath>,
        take: impl FnOnce(&mut Self) -> Vec<Item>,
    ) -> Vec<Item> {
        if let Some(path) = reserved {
            self.locks.lock(Owner::Reservation, path, LockKind::Short);
        }
        let items = take(self);
        self.locks.drop_owner(&Owner::Reservation);
        items
    }

    /// A remote that is down or not yet known gets one job at a time, when its next try is due.
    fn next_trial(&mut self, now: Now, room: Room) -> Option<NextJob> {
        let outage = self.contact.outage().cloned()?;
        if self.is_in_doubt_and_tried() || outage.next > now {
            return None;
        }
        // The first run of a full sync shows the remote's abilities, so it need not wait for a probe.
        let is_first = outage.tries == 0 && self.full_sync.is_some();
        let kind = if is_first { JobKind::Knock } else { JobKind::Probe };
        let question = NextJob { kind, origin: Origin::Pending, items: Vec::new() };
        if !self.flights.is_empty() {
            // Jobs that hang keep their paths locked. A knock or probe needs no path.
            return Some(question);
        }
        let paths = if outage.tries == 0 { self.setup.limits.batch_paths } else { TRIAL_PATHS };
        let job = self.next_batch(None, paths);
        // If a knock or probe may be repeated often, prefer it to a long job: beside a long job no other trial could start.
        let asks = outage.kind().is_none_or(|kind| kind.policy().retry == Retry::Often);
        let job = job.or_else(|| if asks { None } else { self.next_long_job(room).0 });
        job.or(Some(question))
    }

    /// Notes that the job is in flight.
    pub fn start_job(&mut self, now: Now, id: JobId, next: NextJob) -> Job {
        let NextJob { kind, origin, items } = next;
        let lock = match kind {
            JobKind::Batch | JobKind::Knock | JobKind::Probe => LockKind::Short,
            JobKind::Large | JobKind::Trees(_) => LockKind::Long,
        };
        self.locks.lock_all(Owner::Job(id), items.iter().map(|item| &item.path), lock);
        if kind == JobKind::Batch {
            self.pace.spend(now, items.len());
        }
        let moves = self.backlog.moves_of(&items);
        let deletes_below =
            self.permission.deletions.are_allowed() && !items.iter().any(Item::only_adds);
        let (remote, root) = (self.setup.id, self.setup.root);
        let job = Job { id, remote, root, kind, items, moves, deletes_below };
        let items = job.items.clone();
        // Lock the old names: no other job may delete them before this one has used them.
        self.locks.lock_all(Owner::Job(id), &origins_elsewhere(&job), LockKind::Short);
        let parents = Parents::of(&items);
        for other in self.flights.values() {
            for directory in parents.disputed(&other.parents) {
                let item = Item { path: directory.clone(), mark: Mark::additive(Scope::Entry) };
                self.deferred.defer(Condition::Quiet, &item);
            }
        }
        let (began, is_trial) = (now, self.is_doubtful());
        let is_waiting = false;
        let pending_since = self.backlog.since().filter(|_| origin == Origin::Pending);
        self.note_age(now);
        let flight = Flight {
            kind,
            origin,
            began,
            pending_since,
            is_trial,
            is_waiting,
            items,
            deletes_below,
            parents,
        };
        if !only_confirm(&flight.items) {
            self.contact.keep_sessions(now);
        }
        self.flights.begin(id, flight);
        job
    }
}

/// The old names of moved items, except those that are items of the job themselves.
fn origins_elsewhere(job: &Job) -> Vec<RelPath> {
    if job.moves.is_empty() {
        return Vec::new();
    }
    let own: HashSet<&RelPath> = job.items.iter().map(|item| &item.path).collect();
    let origins = job.moves.iter().map(|(_, origin)| origin);
    origins.filter(|origin| !own.contains(origin)).cloned().collect()
}
