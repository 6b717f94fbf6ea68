//! Jobs, which the engine gives to the workers, and the reports that come back.
//! Data only: `remote/start.rs` makes jobs, `remote/settle.rs` handles reports.

use super::Now;
use super::mark::{self, Item};
use super::moves::UndoneMove;
use crate::change::{RemoteId, RootId};
use crate::failure::{self, Failure, FailureKind};
use crate::path::RelPath;

/// Identifies a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A unit of work for a worker: usually one rsync run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The report carries the same number.
    pub id: JobId,
    /// For which remote.
    pub remote: RemoteId,
    /// Below which root.
    pub root: RootId,
    /// Which kind of job.
    pub kind: JobKind,
    /// What to make equal; empty for a knock or a probe.
    pub items: Vec<Item>,
    /// Which of the items were moved: (new, old).
    pub moves: Vec<(RelPath, RelPath)>,
    /// True: listings and trees delete extraneous entries. See [`Deletions`](super::Deletions).
    pub deletes_below: bool,
}

impl Job {
    /// True when it only confirms deliveries: it uses no ready session, and leaves none.
    pub fn only_confirms(&self) -> bool {
        mark::only_confirm(&self.items)
    }
}

/// The kinds of jobs.
///
/// Only a batch may delete its own items. If a large file or a tree is absent when the worker looks, the worker returns it as a
/// plain [`Scope::Tree`](crate::change::Scope) for a batch: next to a long job's items, batches may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Find out whether the remote answers. Its abilities show in the first run.
    Knock,
    /// Find out the remote's abilities.
    Probe,
    /// Many small paths.
    Batch,
    /// One large file.
    Large,
    /// Shards of a tree.
    Trees(FullSyncFilter),
}

impl JobKind {
    /// True for jobs without items, which only test the remote.
    pub fn is_question(self) -> bool {
        matches!(self, Self::Knock | Self::Probe)
    }
}

/// Whether the patterns of `crontabfilter` apply in a tree job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullSyncFilter {
    /// They do not apply.
    Off,
    /// They apply.
    Crontab,
}

/// A worker's report of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    /// How it ended.
    pub verdict: Verdict,
    /// Paths that rsync could not deliver.
    pub failed: Vec<PathFailure>,
    /// What the job left undone, perhaps divided into smaller items: it becomes pending again.
    pub returned: Vec<Item>,
    /// Paths that one job has to send together. At least one of each group is among the returned items.
    pub together: Vec<Vec<RelPath>>,
    /// Items that the worker left for later: they are deferred for [`DEFERRED_FOR`](super::DEFERRED_FOR).
    pub deferred: Vec<Item>,
    /// Moves that it did not carry out: it touched neither name.
    pub undone: Vec<UndoneMove>,
    /// One of its runs was aborted, and another run did that work.
    pub aborted: bool,
    /// Items that are gone from the watch root: for them, delivered means deleted.
    pub deleted: Vec<RelPath>,
    /// Bytes that its runs sent, including failed ones.
    pub bytes: u64,
    /// Files in the trees that it compared.
    pub compared: u64,
    /// What it has shown about deletions on the remote.
    pub remote_deletions: RemoteDeletions,
    /// What it delivered in a session that had connected before the job began, and so has to be confirmed.
    pub unconfirmed: Vec<RelPath>,
}

impl JobReport {
    /// Nothing failed, nothing is left.
    pub fn done() -> Self {
        Self {
            verdict: Verdict::Done,
            failed: Vec::new(),
            returned: Vec::new(),
            together: Vec::new(),
            deferred: Vec::new(),
            undone: Vec::new(),
            aborted: false,
            deleted: Vec::new(),
            bytes: 0,
            compared: 0,
            remote_deletions: RemoteDeletions::Unknown,
            unconfirmed: Vec::new(),
        }
    }

    /// A job that failed or was stopped.
    pub fn nothing(verdict: Verdict) -> Self {
        Self { verdict, ..Self::done() }
    }
}

/// Whether a remote deletes what sersync asks it to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteDeletions {
    /// The job did not show it.
    Unknown,
    /// It deletes.
    Made,
    /// It refuses deletions.
    Refused,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is delivered except what the report lists as failed, returned or deferred.
    Done,
    /// Nothing is known to be delivered.
    Failed(Failure),
    /// It was aborted by [`Action::Abort`](super::Action::Abort), or because the program ends. Nothing is known to be delivered,
    /// and this says nothing about the remote.
    Stopped,
}

/// A path that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFailure {
    /// Which path.
    pub path: RelPath,
    /// Why.
    pub failure: Failure,
}

impl PathFailure {
    /// A failure of one path, in rsync's words.
    pub fn new(path: RelPath, words: impl Into<String>) -> Self {
        Self { path, failure: Failure::new(FailureKind::Path, failure::code::PARTIAL, words) }
    }
}

/// The result of a job for the journal and the plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which job.
    pub job: JobId,
    /// For which remote.
    pub remote: RemoteId,
    /// Since when the oldest of its paths was pending; `None` for a full sync.
    pub pending_since: Option<Now>,
    /// Delivered: the copies are equal now.
    pub delivered: Vec<Item>,
    /// Sent without deletions; the deletions are still owed.
    pub withheld: Vec<Item>,
    /// Rechecks and confirmations that are done. Plugins are not told of them.
    pub rechecked: Vec<Item>,
    /// Still owed: not delivered, parts of divided items, or to be rechecked or confirmed. The parts into which a full sync is divided
    /// are missing: it is owed as a whole until it is done. Those that failed, or were sent without their deletions, are here.
    pub returned: Vec<Item>,
    /// Trees of which only the parts in `returned` are still owed.
    pub divided: Vec<Item>,
}
