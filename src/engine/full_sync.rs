//! A full sync of one remote: the tree as one mark first, then the shards into which workers divide it.
//! Does not say when its jobs start.

use super::locks::{LockKind, PathLocks};
use super::pending::{Item, Mark, Pending, Want};
use super::{FullSyncCause, FullSyncFilter, JobReport, Now};
use crate::change::Scope;
use crate::path::RelPath;

/// How many runs a full sync has, for each job that may be in flight at once.
const RUNS: usize = 2;

/// What happens to extraneous entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extraneous {
    /// They are deleted.
    Deleted,
    /// They are deleted once an operator has confirmed that.
    Withheld,
    /// They stay until the remote allows deletions.
    Refused,
    /// They stay: no deletion was reported there, and no operator asked for a full sync.
    Kept,
}

/// A full sync under way.
#[derive(Debug)]
pub struct FullSync {
    /// The parts of the tree that are not compared yet.
    pub left: Pending,
    /// Whether the patterns of `crontabfilter` apply.
    pub filter: FullSyncFilter,
    pub since: Now,
    /// What has happened to extraneous entries so far.
    pub extraneous: Extraneous,
    /// Start over at the end, because the kernel dropped events meanwhile.
    pub again: bool,
    /// Shards in jobs.
    pub in_flight: usize,
    /// Shards seen so far, for the progress line.
    pub shards: usize,
    /// Files in the parts that were compared.
    pub files: u64,
    /// Bytes that its jobs have sent, those in flight not included.
    pub bytes: u64,
}

impl FullSync {
    pub fn new(now: Now) -> Self {
        Self {
            left: Pending::default(),
            filter: FullSyncFilter::Off,
            since: now,
            extraneous: Extraneous::Deleted,
            again: false,
            in_flight: 0,
            shards: 0,
            files: 0,
            bytes: 0,
        }
    }

    /// Starts at the root, also when under way: what was compared may have changed since without an event.
    pub fn restart(&mut self, cause: FullSyncCause, extraneous: Extraneous) {
        self.filter = match cause {
            FullSyncCause::Schedule => FullSyncFilter::Crontab,
            _ => FullSyncFilter::Off,
        };
        self.extraneous = extraneous;
        let additive = extraneous == Extraneous::Kept;
        self.left.mark(&RelPath::root(), Mark { additive, ..Mark::new(Scope::Tree) });
        self.shards += 1;
    }

    /// Takes the items of the next tree job, or returns a path that has to wait, and for which kind of lock.
    pub fn take(
        &mut self,
        locks: &PathLocks,
        jobs: usize,
    ) -> (Vec<Item>, Option<(RelPath, LockKind)>) {
        let (mut items, mut waits) = self.left.take_or_wait(locks, Want::Batch(1));
        if items.is_empty() && self.left.shards() > 0 {
            let want = Want::Trees(shards_per_job(self.left.shards(), self.shards, jobs));
            let (shards, shard_waits) = self.left.take_or_wait(locks, want);
            items = shards;
            waits = waits.or(shard_waits);
        }
        self.in_flight += items.len();
        (items, waits)
    }

    /// Adds up what one of its jobs has done, also if the job failed.
    pub fn count(&mut self, report: &JobReport) {
        self.files += report.compared;
        self.bytes += report.bytes;
    }

    pub fn is_done(&self) -> bool {
        self.left.is_empty() && self.in_flight == 0
    }
}

/// Fewer shards per run towards the end, so that all runs end at about the same time. But starting a run costs as much as
/// comparing some hundred files, and several round trips, so a full sync has at most about [`RUNS`] runs for each job.
pub fn shards_per_job(left: usize, all: usize, jobs: usize) -> usize {
    left.div_ceil(2 * jobs).max(all.div_ceil(RUNS * jobs))
}
