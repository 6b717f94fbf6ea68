//! What the engine hands to the workers and what they hand back.
//! Holds no behaviour: `remote.rs` makes jobs and reads reports.

use super::Now;
use super::mark::{self, Item};
use super::moves::UndoneMove;
use crate::change::{RemoteId, RootId};
use crate::failure::{self, Failure, FailureKind};
use crate::path::RelPath;

/// Identifies a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One piece of work for a worker: as a rule one rsync run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Comes back with the report.
    pub id: JobId,
    /// For which remote.
    pub remote: RemoteId,
    /// Below which root.
    pub root: RootId,
    /// Which kind of job.
    pub kind: JobKind,
    /// What is to be made equal; empty for a probe.
    pub items: Vec<Item>,
    /// Of these items, what was moved: (new, old).
    pub moves: Vec<(RelPath, RelPath)>,
    /// False: of listings and trees nothing is deleted ([`Deletions`](super::Deletions)).
    pub deletes_below: bool,
}

impl Job {
    /// True when it only confirms what was delivered: it needs no session to be ready, and none after it.
    pub fn only_confirms(&self) -> bool {
        mark::only_confirm(&self.items)
    }
}

/// The kinds of jobs.
///
/// Only a batch may delete its items. A large file or a tree that is absent when the worker looks is returned as a plain
/// [`Scope::Tree`](crate::change::Scope), for a batch: beside these long jobs, batches may be under way next to their items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Find out whether the remote answers. The jobs that follow show what it can do.
    Knock,
    /// Find out what the remote can do.
    Probe,
    /// Many small things.
    Batch,
    /// One large file.
    Large,
    /// Shards of a tree.
    Trees(FullSyncFilter),
}

impl JobKind {
    /// True for jobs without items, which only want an answer.
    pub fn is_question(self) -> bool {
        matches!(self, Self::Knock | Self::Probe)
    }
}

/// Whether the patterns of `crontabfilter` hold in a tree job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullSyncFilter {
    /// They do not.
    Off,
    /// They do.
    Crontab,
}

/// What a worker says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    /// How it ended.
    pub verdict: Verdict,
    /// Paths that rsync could not deliver.
    pub failed: Vec<PathFailure>,
    /// Work that this job did not do, perhaps divided: it becomes pending again.
    pub returned: Vec<Item>,
    /// Items that the worker left alone; they are deferred for a moment.
    pub postponed: Vec<Item>,
    /// Moves of which it did nothing: the items at both names are left alone.
    pub undone: Vec<UndoneMove>,
    /// One of its runs was aborted, and another run did the work.
    pub aborted: bool,
    /// The job's items that were gone from the watch root: what was delivered of them was deleted.
    pub deleted: Vec<RelPath>,
    /// Bytes that its runs sent, whatever came of them.
    pub bytes: u64,
    /// Files in the parts of a tree that it compared.
    pub compared: u64,
    /// What it delivered in a session that had connected before the job began.
    pub unconfirmed: Vec<RelPath>,
}

impl JobReport {
    /// Nothing failed, nothing is left.
    pub fn done() -> Self {
        Self {
            verdict: Verdict::Done,
            failed: Vec::new(),
            returned: Vec::new(),
            postponed: Vec::new(),
            undone: Vec::new(),
            aborted: false,
            deleted: Vec::new(),
            bytes: 0,
            compared: 0,
            unconfirmed: Vec::new(),
        }
    }

    /// The job came to nothing.
    pub fn nothing(verdict: Verdict) -> Self {
        Self { verdict, ..Self::done() }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is delivered but what is listed as failed or returned.
    Done,
    /// Nothing is known to be delivered.
    Failed(Failure),
    /// It was aborted by [`Action::Abort`](super::Action::Abort), or because the program ends: nothing is known to be
    /// delivered, and nothing is the remote's fault.
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
    /// rsync named the path, with these words.
    pub fn new(path: RelPath, words: impl Into<String>) -> Self {
        Self { path, failure: Failure::new(FailureKind::Path, failure::code::PARTIAL, words) }
    }
}

/// The end of a job, as the journal and the plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which job.
    pub job: JobId,
    /// For which remote.
    pub remote: RemoteId,
    /// Since when the oldest of its paths was pending; `None` when no event reported it.
    pub pending_since: Option<Now>,
    /// Equal now.
    pub delivered: Vec<Item>,
    /// Sent without deletions: still owed.
    pub withheld: Vec<Item>,
    /// Rechecks: equal now. Plugins need not be told.
    pub rechecked: Vec<Item>,
    /// Not delivered yet, perhaps in other pieces than before; or to be rechecked.
    pub returned: Vec<Item>,
}
