//! What the engine has to say to an operator, and what the fail log is to hold.
//! Facts only; the words stand in `daemon/notice.rs` and `daemon/fail_log.rs`.

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
    /// Nothing can be sent to a remote. Of a failure that concerns more than one remote, this is the first one that noticed it.
    Failed {
        remote: RemoteId,
        root: RootId,
        failure: Failure,
        pending: usize,
    },
    /// That is over.
    Over {
        remote: RemoteId,
        root: RootId,
        kind: FailureKind,
        after: Duration,
        pending: usize,
    },
    MemoryShort,
    /// It still lasts.
    StillDown {
        remote: RemoteId,
        root: RootId,
        failure: Failure,
        lasts: Duration,
        next_try: Duration,
        pending: usize,
    },
    /// Paths of one directory could not be delivered, for one cause.
    PathsFailed {
        remote: RemoteId,
        refusal: Refusal,
        next_try: Duration,
    },
    /// There are more directories of that kind than lines.
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
