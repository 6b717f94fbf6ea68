//! What the engine hands to the workers and what they hand back.
//! Holds no behaviour: `remote.rs` makes jobs and reads reports.

use super::mark::Item;
use crate::change::{RemoteId, RootId};
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
    /// What sort of work.
    pub kind: JobKind,
    /// What is to be made equal; empty for a probe.
    pub items: Vec<Item>,
    /// Of these items, what was moved: (new, old).
    pub moves: Vec<(RelPath, RelPath)>,
    /// False: of listings and trees nothing is deleted ([`Deletions`](super::Deletions)).
    pub deletes_below: bool,
}

/// The sorts of work.
///
/// Only a batch may delete its items. A large file or a tree that is absent when the worker looks is returned as a plain
/// [`Scope::Tree`](crate::change::Scope), for a batch: beside these long jobs, batches may be under way next to their items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Learn whether anybody answers there; what the remote can do is learned from the jobs that follow.
    Knock,
    /// Learn what the remote can do.
    Probe,
    /// Many small things.
    Batch,
    /// One large file.
    Large,
    /// Shards of a tree.
    Trees(FullSyncFilter),
}

impl JobKind {
    /// True for what carries nothing and only wants an answer.
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
    /// Work that was not done in this job, perhaps divided: it goes back to what is pending.
    pub returned: Vec<Item>,
    /// Items that were left alone because it is better to look at them again a little later.
    pub postponed: Vec<Item>,
    /// A run of it was broken off, before another one did what is said here.
    pub aborted: bool,
}

impl JobReport {
    /// Nothing failed, nothing is left.
    pub fn done() -> Self {
        Self {
            verdict: Verdict::Done,
            failed: Vec::new(),
            returned: Vec::new(),
            postponed: Vec::new(),
            aborted: false,
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
    /// The remote does not answer or refuses: nothing is known to be delivered. The code is rsync's.
    RemoteDown {
        /// rsync's exit code.
        code: i32,
        /// What is wrong, as a clause for the operator.
        reason: String,
    },
    /// The remote answers, and takes nothing until somebody mends something there. The code is rsync's.
    Denied {
        /// rsync's exit code.
        code: i32,
        /// What it refuses and what to do, as a clause whose subject is the remote.
        reason: String,
    },
    /// The remote answers, and serves as many others as it may. The fields are those of a denial.
    #[expect(missing_docs, reason = "see above")]
    Busy { code: i32, reason: String },
    /// This machine lacks something that a run needs; what, and what to do.
    Shortage(String),
    /// rsync rejects its options: kept, and tried again slowly.
    Misconfigured {
        /// rsync's exit code.
        code: i32,
        /// What is wrong, as a clause for the operator.
        reason: String,
    },
    /// A fault of this program: the worker panicked, with these words. It is tried again slowly.
    Fault(String),
    /// The source tree is not what it was at start: nothing was sent or deleted.
    SourceUnhealthy(String),
    /// It was broken off by [`Action::Abort`](super::Action::Abort), or because the program ends: nothing is known to be
    /// delivered, and nothing is the remote's fault.
    Stopped,
}

/// A path that rsync could not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFailure {
    /// Which path.
    pub path: RelPath,
    /// rsync's exit code.
    pub code: i32,
    /// rsync's words.
    pub message: String,
}

/// The end of a job, as the journal and the plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which job.
    pub job: JobId,
    /// For which remote.
    pub remote: RemoteId,
    /// Equal now.
    pub delivered: Vec<Item>,
    /// Sent, but what is extraneous there was not deleted: still owed.
    pub withheld: Vec<Item>,
    /// Looked at once more, and equal: nobody need be told.
    pub rechecked: Vec<Item>,
    /// Not yet, and perhaps in other pieces than before; or to be looked at once more.
    pub returned: Vec<Item>,
}
