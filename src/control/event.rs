//! An event below a watch path and its result, as sent to each client that follows `events`.
//! Data only; docs/CONTROL.md describes it for other programs.

use serde::{Deserialize, Serialize};

/// One event, mostly of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEvent {
    /// When the line was made.
    pub at_ms: u64,
    /// The stage that the path has reached.
    pub what: Stage,
    /// The watch path, written by [`write_path`](super::protocol::write_path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
    /// The absolute path, written in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The kernel's event by its inotify name, such as `CLOSE_WRITE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// True if the kernel said that it is a directory.
    #[serde(default)]
    pub directory: bool,
    /// The scope: `entry`, `listing` or `tree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The old path of a move, if the kernel reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// The remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The number of remotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remotes: Option<u64>,
    /// The number of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// Milliseconds from the oldest change of the job to the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The reason, or what happened; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many events were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// A stage of a path, from the event to the delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Another event than a change of a path; `why` says what happened.
    #[default]
    News,
    /// The change is not mirrored; `why` says why.
    Ignored,
    /// It waits for a job.
    Pending,
    /// It was pending already, at every remote.
    Merged,
    /// A job is delivering it.
    InJob,
    /// The remote has it.
    Delivered,
    /// rsync could not deliver it; `why` says why.
    Failed,
    /// The job returned it; another job will deliver it.
    Returned,
    /// The client read too slowly; `dropped` says how many events it missed.
    Dropped,
}
