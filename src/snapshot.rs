//! The state of a running mirror at one moment. The status command, page, metrics, status file and alerts read it.
//! Knows neither the engine nor the clock; the main loop fills it in (`daemon/statistics.rs`).
//!
//! As JSON it is a public format. Fields are added without notice; [`VERSION`] is raised when a field is removed or
//! changes its meaning. Times are milliseconds since 1970 by the wall clock and end in `_ms`; durations end in `_us`
//! (microseconds). File names are text; control characters and bytes that are not UTF-8 are escaped (`\u{1b}`, `\xff`).

pub mod full_sync;
pub mod health;
pub mod reader;

use serde::{Deserialize, Serialize};

pub use full_sync::FullSyncStatus;
pub use reader::{SnapshotReader, SnapshotRequest};

/// The version of the format.
pub const VERSION: u32 = 1;

/// The maximum number of failing paths that are listed for each remote; the rest is only counted.
pub const FAILING_PATHS: usize = 20;
/// The maximum number of errors that are kept.
pub const ERRORS: usize = 50;
/// The maximum number of deliveries that are kept.
pub const DELIVERIES: usize = 500;
/// The number of minutes that are kept.
pub const MINUTES: usize = 60;

/// The state of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// When the snapshot was taken.
    pub taken_ms: u64,
    /// The process.
    pub instance: Instance,
    /// The watch roots, in the order of the file.
    pub roots: Vec<RootStatus>,
    /// The remotes, in the order of the file.
    pub remotes: Vec<RemoteStatus>,
    /// Recent errors, oldest first; at most [`ERRORS`].
    pub errors: Vec<RecentError>,
    /// Recent deliveries, oldest first; at most [`DELIVERIES`].
    pub deliveries: Vec<Delivery>,
    /// The last hour, oldest minute first, including minutes without a delivery; at most [`MINUTES`].
    pub history: Vec<Minute>,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The program's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The configuration file, as an absolute path.
    pub config: String,
    /// When it started.
    pub started_ms: u64,
    /// The watch backend: `inotify` or `fanotify`.
    pub backend: String,
    /// The number of watched directories; 0 with fanotify, which does not count them.
    pub directories: u64,
    /// The number of directories that could not be watched and are rescanned instead.
    pub unwatched: u64,
    /// How often the kernel dropped events.
    pub overflows: u64,
    /// The directory of the journal and the record; `None` when no state can be kept.
    pub state_dir: Option<String>,
    /// True while changes cannot be written to the journal, as on a full disk: the next start compares everything.
    #[serde(default)]
    pub journal_incomplete: bool,
    /// The log file; `None`: standard error.
    pub log_file: Option<String>,
    /// How many rsync runs may run at the same time.
    pub workers: u64,
    /// The path of the fail log.
    pub fail_log: String,
    /// True after it was told to stop.
    pub stopping: bool,
}

/// One `<localpath>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootStatus {
    /// The watch path.
    pub path: String,
    /// Whether it can be read.
    pub state: RootState,
    /// Whether deletions are made on the remotes.
    pub deletions: DeletionState,
    /// The problems that an operator must solve.
    pub alarms: Vec<Alarm>,
}

/// Whether a watch root can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// It is watched.
    #[default]
    Watched,
    /// It is gone, replaced or unreadable; nothing is sent or deleted until it is back.
    Lost,
}

/// Whether deletions of a root are made on the remotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionState {
    /// They are.
    #[default]
    Allowed,
    /// Not decided yet: the walk of the tree has not ended.
    Undecided,
    /// The guard holds them back until an operator confirms them.
    Withheld,
}

/// A problem that an operator must solve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Since when.
    pub since_ms: u64,
    /// What happened, what it means and what to do, as one sentence.
    pub text: String,
}

/// One `<remote>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteStatus {
    /// Its index among all remotes of the file, from 0.
    pub id: u64,
    /// As the operator writes it: `192.0.2.20::www`.
    pub name: String,
    /// The destination, without secrets: `rsync://192.0.2.20:874/www`, `host:/path`.
    pub destination: String,
    /// The index of its root in [`Snapshot::roots`].
    pub root: u64,
    /// Whether it is up to date, and if not, why.
    pub state: SyncState,
    /// Why nothing can be sent; only while its state is `down`.
    pub down: Option<Down>,
    /// Until when it is paused; `None` when it is not paused, or is paused until an operator resumes it.
    pub paused_until_ms: Option<u64>,
    /// The number of paths that may differ from their copy, including those in flight.
    pub pending: u64,
    /// The age limit of the backlog: every pending path became pending at or after this time.
    pub oldest_pending_ms: Option<u64>,
    /// The number of jobs in flight, whatever they are for.
    pub in_flight: u64,
    /// The number of ready sessions.
    pub sessions: u64,
    /// When the last delivery ended.
    pub last_delivery_ms: Option<u64>,
    /// Time from a change to its delivery, in the last five minutes; `None` without a delivery.
    pub latency: Option<Latency>,
    /// Delivered paths per second, over the last minute.
    pub paths_per_second: f64,
    /// Sent bytes per second, over the last minute.
    pub bytes_per_second: f64,
    /// The running full sync.
    pub full_sync: Option<FullSyncStatus>,
    /// When the last full sync ended; `None` if there was none since the start.
    pub last_full_sync_ms: Option<u64>,
    /// The number of paths that rsync could not deliver.
    pub failing: u64,
    /// The first [`FAILING_PATHS`] of them.
    pub failing_paths: Vec<FailingPath>,
    /// True while it refuses deletions: what is deleted here stays there.
    #[serde(default)]
    pub refuses_deletions: bool,
    /// Sums since the start.
    pub total: Totals,
    /// Times from a change to its delivery, since the start.
    pub latency_histogram: Histogram,
}

/// The state of a remote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It answers; changes are delivered at once.
    Up,
    /// It answers; a full sync or the backlog of an outage is being delivered.
    CatchingUp,
    /// Nothing can be sent; `down` says why.
    Down,
    /// An operator has paused it.
    Paused,
    /// It was not contacted yet.
    #[default]
    Unknown,
}

/// Why nothing can be sent to a remote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Down {
    /// Since when.
    pub since_ms: u64,
    /// The kind of failure: `away`, `busy`, `denied`, `options`, `fault`, `shortage`, `source`.
    pub kind: String,
    /// rsync's exit code; 0 when not rsync failed.
    pub code: i32,
    /// What is wrong, as a clause.
    pub reason: String,
    /// What to do, as a sentence.
    pub what_to_do: String,
    /// Failed tries so far.
    pub tries: u64,
    /// When it is retried; `None` while a try is running.
    pub next_try_ms: Option<u64>,
}

/// The latency of deliveries, each from its oldest change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The number of paths.
    pub count: u64,
}

/// A path that rsync could not deliver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FailingPath {
    /// The path below the watch path.
    pub path: String,
    /// rsync's exit code.
    pub code: i32,
    /// rsync's message.
    pub reason: String,
    /// What to do.
    #[serde(default)]
    pub what_to_do: String,
    /// Failed tries so far.
    pub tries: u64,
    /// When it is retried; `None`: it is being tried.
    pub next_try_ms: Option<u64>,
    /// True when it is in the fail log.
    pub logged: bool,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Paths delivered, deletions included.
    pub deliveries: u64,
    /// Paths that were deleted.
    pub deletions: u64,
    /// Paths that were created from the copy at their old name.
    pub moves: u64,
    /// Failed tries to deliver a path.
    pub failures: u64,
    /// Bytes that rsync sent.
    pub bytes: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Full syncs done.
    pub full_syncs: u64,
    /// Outages.
    pub outages: u64,
}

/// Upper bounds of the buckets of [`Histogram`], in microseconds; one more bucket holds all longer durations.
pub const BOUNDS_US: [u64; 18] = [
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    86_400_000_000,
];

/// A histogram of durations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// One count for each of [`BOUNDS_US`] (not cumulative), and a last one for longer durations.
    pub counts: Vec<u64>,
    /// The sum of all durations.
    pub sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BOUNDS_US.len() + 1], sum_us: 0 }
    }
}

impl Histogram {
    /// Adds `count` durations of this length.
    pub fn add(&mut self, duration_us: u64, count: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        if let Some(bucket) = self.counts.get_mut(bucket) {
            *bucket += count;
        }
        self.sum_us = self.sum_us.saturating_add(duration_us.saturating_mul(count));
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// An error or warning of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentError {
    /// When it was logged.
    pub at_ms: u64,
    /// `error` or `warning`.
    pub level: String,
    /// What happened, what it means and what to do: the sentence of the log.
    pub text: String,
    /// The id of the remote; `None` if it is not about one remote.
    pub remote: Option<u64>,
    /// When the problem ended; `None` if it lasts, or if that is not known.
    pub over_ms: Option<u64>,
}

/// A path that was delivered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// When.
    pub at_ms: u64,
    /// The id of the remote.
    pub remote: u64,
    /// The path below the watch path.
    pub path: String,
    /// What was done.
    pub kind: DeliveryKind,
    /// Time from the change to the delivery; `None` if no change was seen (a full sync, a retry).
    pub took_us: Option<u64>,
}

/// What was done to a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryKind {
    /// It was sent.
    #[default]
    Sent,
    /// It was deleted.
    Deleted,
    /// It was created from the copy at its old name.
    Moved,
    /// A whole tree was compared.
    Compared,
}

/// One minute of the last hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// When it began.
    pub start_ms: u64,
    /// Delivered paths, of all remotes together.
    pub paths: u64,
    /// Sent bytes.
    pub bytes: u64,
    /// The longest lag: of paths that were delivered in this minute, and of paths still pending at its end.
    /// `None` if nothing was pending.
    pub lag_us: Option<u64>,
}

impl Snapshot {
    /// A name for each remote, in their order, that no other one has: remotes that differ in port or user alone are written alike, and
    /// the later ones get their number.
    pub fn remote_names(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let name = |remote: &RemoteStatus| {
            let is_new = seen.insert(remote.name.clone());
            if is_new { remote.name.clone() } else { format!("{} ({})", remote.name, remote.id) }
        };
        self.remotes.iter().map(name).collect()
    }
}

impl RootStatus {
    /// The alarms that something is gone: the path itself, or a file system below it.
    pub fn missing(&self) -> &[Alarm] {
        // The alarm of deletions that are held back is the last one.
        let held = usize::from(self.deletions == DeletionState::Withheld);
        &self.alarms[..self.alarms.len().saturating_sub(held)]
    }
}

impl RemoteStatus {
    /// How long the oldest pending path has waited at `now_ms`, in milliseconds.
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        self.oldest_pending_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        histogram.add(2_000, 1);
        histogram.add(2_001, 2);
        histogram.add(u64::MAX / 2, 1);
        assert_eq!(histogram.counts[..2], [1, 2]);
        assert_eq!((histogram.counts.last(), histogram.count()), (Some(&1), 4));
    }

    #[test]
    fn what_a_newer_program_adds_does_not_disturb_a_reader() {
        let mut json = serde_json::to_value(Snapshot::default()).unwrap();
        json["something_new"] = 7.into();
        assert_eq!(serde_json::from_value::<Snapshot>(json).unwrap(), Snapshot::default());
    }
}
