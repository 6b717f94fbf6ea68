//! What the engine has to say to an operator, and what the fail log is to hold.
//! Facts only; the words stand in `daemon/notice.rs` and `daemon/fail_log.rs`.

use std::time::Duration;

use super::{FullSyncCause, PathFailure};
use crate::change::{RemoteId, RootId};
use crate::path::RelPath;

/// What an operator should know; the daemon puts names to the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is one sentence of the log, written in daemon/notice.rs")]
pub enum Notice {
    RemoteDown { remote: RemoteId, reason: String, pending: usize },
    RemoteUp { remote: RemoteId, after: Duration, pending: usize },
    RemoteDenies { remote: RemoteId, reason: String, pending: usize },
    Misconfigured { remote: RemoteId, reason: String },
    Fault { remote: RemoteId, reason: String, pending: usize },
    FaultOver { remote: RemoteId },
    Shortage { reason: String },
    ShortageOver,
    MemoryShort,
    PathFailed { remote: RemoteId, failure: PathFailure },
    RootLost { root: RootId, reason: String },
    RootBack { root: RootId },
    SubtreeLost { root: RootId, path: RelPath, reason: String },
    SubtreeBack { root: RootId, path: RelPath },
    SourceUnhealthy { root: RootId, reason: String },
    SourceHealthy { root: RootId },
    Overflow { root: RootId },
    FullSyncStarted { cause: FullSyncCause },
    FullSyncDone { remote: RemoteId, took: Duration, deletes: bool },
    FullSyncSkipped { remote: RemoteId },
    Collapsed { remote: RemoteId, from: usize, to: usize },
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
