//! What the engine reports to an operator, and the lines of the fail log.
//! Facts only: the wording is in `daemon/notice.rs` and `daemon/fail_log.rs`.

use std::time::Duration;

use super::refusals::Refusal;
use super::{Extraneous, FullSyncCause};
use crate::change::{RemoteId, RootId, RootLoss};
use crate::failure::{Failure, FailureKind};
use crate::path::RelPath;

/// What an operator should know; the daemon puts names to the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is one sentence of the log, written in daemon/notice.rs")]
pub enum Notice {
    /// Nothing can be sent to a remote. A failure that concerns several remotes is reported for the first of them alone.
    Failed {
        remote: RemoteId,
        root: RootId,
        failure: Failure,
        pending: usize,
    },
    /// The failure is over.
    Over {
        remote: RemoteId,
        root: RootId,
        kind: FailureKind,
        after: Duration,
        pending: usize,
    },
    MemoryShort,
    /// The failure lasts: a reminder.
    StillDown {
        remote: RemoteId,
        root: RootId,
        failure: Failure,
        lasts: Duration,
        next_try: Duration,
        pending: usize,
    },
    /// Paths of one directory could not be delivered, all for the same cause.
    PathsFailed {
        remote: RemoteId,
        refusal: Refusal,
        next_try: Duration,
    },
    /// More paths failed, in directories that get no line of their own.
    MorePathsFailed {
        remote: RemoteId,
        paths: usize,
        directories: usize,
    },
    RootLost {
        root: RootId,
        loss: RootLoss,
    },
    RootBack {
        root: RootId,
        /// It is another directory than before.
        replaced: bool,
    },
    SubtreeLost {
        root: RootId,
        path: RelPath,
        reason: String,
    },
    SubtreeBack {
        root: RootId,
        path: RelPath,
    },
    Overflow {
        root: RootId,
    },
    FullSyncStarted {
        cause: FullSyncCause,
    },
    FullSyncDone {
        remote: RemoteId,
        took: Duration,
        extraneous: Extraneous,
    },
    FullSyncSkipped {
        remote: RemoteId,
    },
    Collapsed {
        remote: RemoteId,
        from: usize,
        to: usize,
    },
}

/// One line of the fail log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailLogEntry {
    /// Which remote.
    pub remote: RemoteId,
    /// rsync's exit code.
    pub code: i32,
    /// The path; `None`: the whole tree, because the remote is down.
    pub path: Option<RelPath>,
}
