//! The state of a running mirror at one moment: what the status command, the page, the metrics, the status file and the alarms read.
//! Decides nothing, and knows neither the engine nor the clock; the main loop fills it in (`daemon/statistics.rs`).
//!
//! As JSON it is a public format. Fields are added without notice; [`VERSION`] rises when one goes or changes its meaning.
//! Times are milliseconds since 1970 by the wall clock and end in `_ms`; durations end in `_us` (microseconds).
//! Names of files are text: bytes that are no UTF-8, and control characters, stand as octal escapes (`\012`).

pub mod full_sync;
pub mod health;
pub mod reader;

use serde::{Deserialize, Serialize};

pub use full_sync::FullSync;
pub use reader::{Request, SnapshotReader};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Failing paths that are named for each remote; the rest is only counted.
pub const FAILING_PATHS: usize = 20;
/// Errors that are remembered.
pub const ERRORS: usize = 50;
/// Deliveries that are remembered.
pub const DELIVERIES: usize = 500;
/// Minutes that are remembered.
pub const MINUTES: usize = 60;

/// The state of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// When this was so.
    pub taken_ms: u64,
    /// The process.
    pub instance: Instance,
    /// The watch roots, in the order of the file.
    pub roots: Vec<Root>,
    /// The remotes, in the order of the file.
    pub remotes: Vec<Remote>,
    /// What went wrong lately, oldest first; at most [`ERRORS`].
    pub errors: Vec<RecentError>,
    /// What was delivered lately, oldest first; at most [`DELIVERIES`].
    pub deliveries: Vec<Delivery>,
    /// The last hour, oldest minute first; at most [`MINUTES`], minutes without a delivery included.
    pub history: Vec<Minute>,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Of the program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The configuration file, as an absolute path.
    pub config: String,
    /// When it started.
    pub started_ms: u64,
    /// How it watches: `inotify` or `fanotify`.
    pub backend: String,
    /// Directories that are watched; 0 with fanotify, which need not count them.
    pub directories: u64,
    /// Directories that could not be watched and are rescanned instead.
    pub unwatched: u64,
    /// How often the kernel dropped events.
    pub overflows: u64,
    /// Where the journal and the record are; `None` when no state can be kept.
    pub state_dir: Option<String>,
    /// True while changes cannot be written to the journal, as on a full disk: the next start compares everything.
    #[serde(default)]
    pub journal_incomplete: bool,
    /// The log file; `None`: standard error.
    pub log_file: Option<String>,
    /// How many rsync runs may be under way.
    pub workers: u64,
    /// The script that lists what failed.
    pub fail_log: String,
    /// True once it has been told to stop.
    pub stopping: bool,
}

/// One `<localpath>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// The watch path.
    pub path: String,
    /// Whether it can be read.
    pub state: RootState,
    /// Whether copies may lose what is gone here.
    pub deletions: DeletionState,
    /// What an operator has to see to; empty: nothing.
    pub alarms: Vec<Alarm>,
}

/// Whether a watch root can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// It is watched.
    #[default]
    Watched,
    /// It is gone, replaced or unreadable: nothing is sent or deleted until it is back.
    Lost,
}

/// Whether copies may lose what their root lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionState {
    /// They may.
    #[default]
    Allowed,
    /// That is being found out.
    Undecided,
    /// Held back by the guard until an operator confirms them.
    Withheld,
}

/// A state that an operator has to see to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Since when.
    pub since_ms: u64,
    /// What happened, what it means and what to do, as one sentence.
    pub text: String,
}

/// One `<remote>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Remote {
    /// Its place among all remotes of the file, from 0.
    pub id: u64,
    /// As the operator writes it: `192.0.2.20::www`.
    pub name: String,
    /// Where rsync sends to, without secrets: `rsync://192.0.2.20:874/www`, `host:/path`.
    pub destination: String,
    /// Its root's place in [`Snapshot::roots`].
    pub root: u64,
    /// Whether it has everything, and if not, why.
    pub state: RemoteState,
    /// Why nothing can be sent; only in the state `down`.
    pub down: Option<Down>,
    /// Until when it is paused: `None` when it is not, or until somebody resumes it.
    pub paused_until_ms: Option<u64>,
    /// Paths that may differ from their copy, those in flight included.
    pub pending: u64,
    /// No path is pending for longer than since then; it may be a little less.
    pub oldest_pending_ms: Option<u64>,
    /// rsync runs under way.
    pub in_flight: u64,
    /// rsync sessions that stand connected and wait for work.
    pub sessions: u64,
    /// When something was delivered last.
    pub last_delivery_ms: Option<u64>,
    /// From a change to its delivery, in the last five minutes; `None`: nothing was delivered.
    pub latency: Option<Latency>,
    /// Paths delivered a second, over the last minute.
    pub paths_per_second: f64,
    /// Bytes sent a second, over the last minute.
    pub bytes_per_second: f64,
    /// The full sync under way.
    pub full_sync: Option<FullSync>,
    /// When the last full sync was done; `None`: there was none since the start.
    pub last_full_sync_ms: Option<u64>,
    /// Paths that rsync could not deliver.
    pub failing: u64,
    /// The first [`FAILING_PATHS`] of them.
    pub failing_paths: Vec<FailingPath>,
    /// Sums since the start.
    pub total: Totals,
    /// From a change to its delivery, since the start.
    pub latency_histogram: Histogram,
}

/// Whether a remote has everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteState {
    /// It answers; what changes is delivered at once.
    Up,
    /// It answers; a full sync or the backlog of an outage is on its way.
    CatchingUp,
    /// Nothing can be sent; `down` says why.
    Down,
    /// Somebody has paused it.
    Paused,
    /// Nobody has asked it yet.
    #[default]
    Unknown,
}

/// Why nothing can be sent to a remote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Down {
    /// Since when.
    pub since_ms: u64,
    /// What kind of failure: `away`, `busy`, `denied`, `options`, `fault`, `shortage`, `source`.
    pub kind: String,
    /// rsync's exit code; 0 when it is not rsync that failed.
    pub code: i32,
    /// What is wrong, as a clause.
    pub reason: String,
    /// What to do, as a sentence.
    pub what_to_do: String,
    /// Failed tries so far.
    pub tries: u64,
    /// When it is tried again; `None`: a try is under way.
    pub next_try_ms: Option<u64>,
}

/// How long deliveries took, from the oldest change of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the paths took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// How many paths that were.
    pub count: u64,
}

/// A path that rsync could not deliver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FailingPath {
    /// Below the watch path.
    pub path: String,
    /// rsync's exit code.
    pub code: i32,
    /// rsync's words.
    pub reason: String,
    /// What to do.
    #[serde(default)]
    pub what_to_do: String,
    /// Failed tries so far.
    pub tries: u64,
    /// When it is tried again; `None`: with the next run of the fail log.
    pub next_try_ms: Option<u64>,
    /// True once it stands in the fail log.
    pub logged: bool,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Paths delivered, deletions included.
    pub deliveries: u64,
    /// Paths that were deleted.
    pub deletions: u64,
    /// Paths delivered from their old name.
    pub moves: u64,
    /// Paths that rsync could not deliver, each try.
    pub failures: u64,
    /// Bytes that rsync sent.
    pub bytes: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Full syncs done.
    pub full_syncs: u64,
    /// How often it went down.
    pub outages: u64,
}

/// Upper bounds of the buckets of [`Histogram`], in microseconds; one more bucket holds what is above all of them.
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

/// How many durations fell between which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// One for each of [`BOUNDS_US`] (not cumulative), and the last one for what is above.
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

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Something that went wrong.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentError {
    /// When it was said.
    pub at_ms: u64,
    /// `error` or `warning`.
    pub level: String,
    /// What happened, what it means and what to do: the sentence of the log.
    pub text: String,
    /// Which remote, by its id; `None`: not one of them.
    pub remote: Option<u64>,
    /// When it was over; `None`: it is not, or nobody can tell.
    pub over_ms: Option<u64>,
}

/// A path that was delivered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// When.
    pub at_ms: u64,
    /// To which remote, by its id.
    pub remote: u64,
    /// Below the watch path.
    pub path: String,
    /// What was done.
    pub kind: DeliveryKind,
    /// From the change to the delivery; `None` where no change was seen (a full sync, a retry).
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
    /// It was made of its old name's copy.
    Moved,
    /// A whole tree was compared.
    Compared,
}

/// One minute of the last hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// When it began.
    pub start_ms: u64,
    /// Paths delivered, all remotes together.
    pub paths: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// The longest that anything delivered in it took, or had waited in vain at its end; `None`: nothing was to do.
    pub lag_us: Option<u64>,
}

impl Remote {
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
