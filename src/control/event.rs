//! What happened below a watch path and what became of it: one line for each client that follows `events`.
//! Holds no behaviour; docs/CONTROL.md describes it for other programs.

use serde::{Deserialize, Serialize};

/// One event, mostly of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEvent {
    /// When the line was made.
    pub at_ms: u64,
    /// How far the path has come.
    pub what: Stage,
    /// The watch path, written by [`write_path`](super::protocol::write_path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
    /// The absolute path, written likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The kernel's event, as inotify names it: `CLOSE_WRITE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// True for a directory, as far as the kernel said.
    #[serde(default)]
    pub directory: bool,
    /// How much below the path is meant: `entry`, `listing`, `tree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Where it was moved from, when the kernel said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// For which remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// For how many remotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remotes: Option<u64>,
    /// The number of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// From the oldest change of the job to the delivery, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Why, or what happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many events were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// How far a path has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something happened that is no change of a path; `why` says what.
    #[default]
    News,
    /// It does not count; `why` says why.
    Ignored,
    /// It waits for a job.
    Pending,
    /// It was pending already, at every remote.
    Merged,
    /// A job carries it.
    InJob,
    /// The remote has it.
    Delivered,
    /// rsync could not deliver it; `why` says why.
    Failed,
    /// The job gave it back: another one carries it.
    Returned,
    /// The listener read too slowly: so many events were left out.
    Dropped,
}
