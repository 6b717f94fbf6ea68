//! Counts since the start: deliveries, latencies, rates, errors. The main loop owns and updates them.
//! Does not know what is pending: a snapshot gets that from the engine.

use std::collections::VecDeque;
use std::time::Duration;

use super::deliveries::Kinds;
use crate::change::RemoteId;
use crate::engine::{JobReport, Now, Settled};
use crate::ground::numbered::put;
use crate::snapshot::{
    self, Delivery, DeliveryKind, Histogram, Latency, Minute, RecentError, Totals,
};

/// The number of minutes over which latencies are reported.
const WINDOW_MINUTES: u64 = 5;

/// Buckets for each doubling of a latency, so that a bucket is at most 12.5 per cent wide.
const STEPS: u64 = 8;

/// The number of buckets of [`Latencies`]: 2^40 microseconds are twelve days.
const BUCKETS: usize = 40 * STEPS as usize;

/// A moment, by the engine's clock and by the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The engine's time.
    pub now: Now,
    /// The same moment, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Clock {
    /// The wall-clock time of the engine's time `then`.
    pub fn wall_of(&self, then: Now) -> u64 {
        if then >= self.now {
            return self.wall_ms.saturating_add(milliseconds(then - self.now));
        }
        self.wall_ms.saturating_sub(milliseconds(self.now - then))
    }

    fn minute(&self) -> u64 {
        self.now.as_secs() / 60
    }
}

/// All counters.
#[derive(Debug)]
pub struct Statistics {
    remotes: Vec<OfRemote>,
    deliveries: VecDeque<Delivery>,
    errors: VecDeque<RecentError>,
    history: VecDeque<(u64, Minute)>,
}

/// The counters of one remote.
#[derive(Debug, Default)]
struct OfRemote {
    total: Totals,
    histogram: Histogram,
    /// The last minutes, the latest last.
    minutes: VecDeque<(u64, MinuteOfRemote)>,
    last_delivery: Option<Now>,
    last_full_sync: Option<Now>,
    /// Its outage was reported, and not its end yet.
    is_down: bool,
}

#[derive(Debug, Default)]
struct MinuteOfRemote {
    paths: u64,
    bytes: u64,
    latencies: Latencies,
}

/// A histogram of latencies, exact to about a tenth.
#[derive(Debug, Default)]
struct Latencies {
    /// Empty before the first latency.
    buckets: Vec<u32>,
}

impl Latencies {
    fn add(&mut self, duration_us: u64, count: u64) {
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, 0);
        }
        let bucket = bucket_of(duration_us).min(BUCKETS - 1);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(count);
    }
}

/// The bucket of a duration. Each doubling is divided into equal steps.
fn bucket_of(duration_us: u64) -> usize {
    let value = duration_us.max(STEPS);
    let doublings = u64::from(value.ilog2() - STEPS.ilog2());
    (doublings * STEPS + (value >> doublings) - STEPS) as usize
}

/// The longest duration of a bucket.
fn bound_of(bucket: usize) -> u64 {
    let (doublings, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    ((STEPS + step + 1) << doublings) - 1
}

impl Statistics {
    /// Starts with zero counts for this many remotes.
    pub fn new(remotes: usize) -> Self {
        Self {
            remotes: std::iter::repeat_with(OfRemote::default).take(remotes).collect(),
            deliveries: VecDeque::new(),
            errors: VecDeque::new(),
            history: VecDeque::new(),
        }
    }

    /// Resets a number that another remote uses from now on.
    pub fn forget(&mut self, remote: RemoteId) {
        put(&mut self.remotes, remote.0, OfRemote::default());
        let id = remote.0 as u64;
        self.deliveries.retain(|delivery| delivery.remote != id);
        self.errors
            .iter_mut()
            .filter(|error| error.remote == Some(id))
            .for_each(|error| error.remote = None);
    }

    /// Counts the report of a worker.
    pub fn reported(&mut self, clock: Clock, remote: RemoteId, report: &JobReport) {
        let Some(remote) = self.remotes.get_mut(remote.0) else { return };
        remote.total.failures += report.failed.len() as u64;
        if report.bytes > 0 {
            remote.total.bytes += report.bytes;
            minute_of(&mut remote.minutes, clock.minute()).bytes += report.bytes;
            self.history_of(clock).bytes += report.bytes;
        }
    }

    /// Counts the deliveries of a job.
    pub fn settled(&mut self, clock: Clock, settled: &Settled, kinds: &Kinds) {
        let Some(remote) = self.remotes.get_mut(settled.remote.0) else { return };
        let items = || settled.delivered.iter().chain(&settled.withheld);
        let paths = items().count() as u64;
        remote.total.jobs += 1;
        if paths == 0 {
            return;
        }
        let took = settled.pending_since.map(|since| microseconds(clock.now - since));
        remote.total.deliveries += paths;
        remote.last_delivery = Some(clock.now);
        let minute = minute_of(&mut remote.minutes, clock.minute());
        minute.paths += paths;
        if let Some(took) = took {
            minute.latencies.add(took, paths);
            remote.histogram.add(took, paths);
        }
        for item in items() {
            match kinds.of(item) {
                DeliveryKind::Moved => remote.total.moves += 1,
                DeliveryKind::Deleted => remote.total.deletions += 1,
                DeliveryKind::Sent | DeliveryKind::Compared => {}
            }
        }
        let skipped = (paths as usize).saturating_sub(snapshot::DELIVERIES);
        let at_ms = clock.wall_ms;
        for item in items().skip(skipped) {
            push_bounded(&mut self.deliveries, snapshot::DELIVERIES, || Delivery {
                at_ms,
                remote: settled.remote.0 as u64,
                path: item.path.to_string(),
                kind: kinds.of(item),
                took_us: took,
            });
        }
        let history = self.history_of(clock);
        history.paths += paths;
        history.lag_us = history.lag_us.max(took);
    }

    /// True when the minute of the last entry is over.
    pub fn is_new_minute(&self, clock: Clock) -> bool {
        self.history.back().is_none_or(|(minute, _)| *minute != clock.minute())
    }

    /// Updates the history to the current time; `oldest`: since when the oldest change waits.
    pub fn tick(&mut self, clock: Clock, oldest: Option<Now>) {
        let lag = oldest.map(|since| microseconds(clock.now.saturating_sub(since)));
        if let Some((_, minute)) = self.history.back_mut() {
            minute.lag_us = minute.lag_us.max(lag);
        }
        let minute = self.history_of(clock);
        minute.lag_us = minute.lag_us.max(lag);
    }

    /// Counts an error or a warning that was logged.
    pub fn error(&mut self, clock: Clock, level: log::Level, text: &str, remote: Option<RemoteId>) {
        let level = match level {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            _ => return,
        };
        push_bounded(&mut self.errors, snapshot::ERRORS, || RecentError {
            at_ms: clock.wall_ms,
            level: level.into(),
            text: text.into(),
            remote: remote.map(|id| id.0 as u64),
            over_ms: None,
        });
    }

    /// Counts an outage.
    pub fn went_down(&mut self, remote: RemoteId) {
        if let Some(remote) = self.remotes.get_mut(remote.0) {
            remote.total.outages += u64::from(!remote.is_down);
            remote.is_down = true;
        }
    }

    /// Ends the outage of a remote, and marks its errors as over.
    pub fn came_up(&mut self, clock: Clock, remote: RemoteId) {
        if let Some(remote) = self.remotes.get_mut(remote.0) {
            remote.is_down = false;
        }
        let id = Some(remote.0 as u64);
        for error in self.errors.iter_mut().filter(|error| error.remote == id) {
            error.over_ms = error.over_ms.or(Some(clock.wall_ms));
        }
    }

    /// Counts a full sync that is done.
    pub fn full_sync_done(&mut self, now: Now, remote: RemoteId) {
        if let Some(remote) = self.remotes.get_mut(remote.0) {
            remote.total.full_syncs += 1;
            remote.last_full_sync = Some(now);
        }
    }

    /// Fills in the counts of one remote.
    pub fn describe(&self, clock: Clock, remote: RemoteId, into: &mut snapshot::RemoteStatus) {
        let Some(remote) = self.remotes.get(remote.0) else { return };
        into.total = remote.total;
        into.latency_histogram = remote.histogram.clone();
        into.last_delivery_ms = remote.last_delivery.map(|at| clock.wall_of(at));
        into.last_full_sync_ms = remote.last_full_sync.map(|at| clock.wall_of(at));
        into.latency = remote.latency(clock.minute());
        (into.paths_per_second, into.bytes_per_second) = remote.rates(clock.now);
    }

    /// Recent deliveries, recent errors, and the history of the last hour.
    pub fn recent(
        &mut self,
        clock: Clock,
        oldest: Option<Now>,
    ) -> (Vec<Delivery>, Vec<RecentError>, Vec<Minute>) {
        self.tick(clock, oldest);
        let history = self.history.iter().map(|(_, minute)| *minute).collect();
        let deliveries = self.deliveries.iter().cloned().collect();
        (deliveries, self.errors.iter().cloned().collect(), history)
    }

    /// The entry of the current minute. Adds entries for minutes without an event.
    fn history_of(&mut self, clock: Clock) -> &mut Minute {
        let minute = clock.minute();
        let oldest = (minute + 1).saturating_sub(snapshot::MINUTES as u64);
        let next = self.history.back().map_or(minute, |(last, _)| last + 1).max(oldest);
        for missing in next..=minute {
            let start_ms = clock.wall_of(Duration::from_secs(missing * 60));
            let entry = (missing, Minute { start_ms, ..Minute::default() });
            push_bounded(&mut self.history, snapshot::MINUTES, || entry);
        }
        let last = self.history.len() - 1;
        &mut self.history[last].1
    }
}

impl OfRemote {
    fn latency(&self, minute: u64) -> Option<Latency> {
        let recent = self.minutes.iter().filter(|(at, _)| at + WINDOW_MINUTES > minute);
        let mut sums = vec![0u64; BUCKETS];
        for (_, minute) in recent {
            for (sum, count) in sums.iter_mut().zip(&minute.latencies.buckets) {
                *sum += u64::from(*count);
            }
        }
        let count: u64 = sums.iter().sum();
        let percentile = |percent: u64| {
            let wanted = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = sums.iter().position(|sum| {
                seen += sum;
                seen >= wanted
            });
            bucket.map_or(0, bound_of)
        };
        (count > 0).then(|| Latency { p50_us: percentile(50), p99_us: percentile(99), count })
    }

    /// Paths and bytes per second over the last minute: this minute so far, and the matching share of the previous one.
    fn rates(&self, now: Now) -> (f64, f64) {
        let minute = now.as_secs() / 60;
        let of = |at: u64| {
            let found = self.minutes.iter().find(|(minute, _)| *minute == at);
            found.map_or((0.0, 0.0), |(_, it)| (it.paths as f64, it.bytes as f64))
        };
        let (this, before) = (of(minute), minute.checked_sub(1).map_or((0.0, 0.0), of));
        let missing = 1.0 - (now.as_secs_f64() % 60.0) / 60.0;
        ((this.0 + before.0 * missing) / 60.0, (this.1 + before.1 * missing) / 60.0)
    }
}

fn minute_of(minutes: &mut VecDeque<(u64, MinuteOfRemote)>, minute: u64) -> &mut MinuteOfRemote {
    if minutes.back().is_none_or(|(at, _)| *at != minute) {
        push_bounded(minutes, WINDOW_MINUTES as usize + 1, || (minute, MinuteOfRemote::default()));
    }
    let last = minutes.len() - 1;
    &mut minutes[last].1
}

fn push_bounded<T>(queue: &mut VecDeque<T>, max: usize, new: impl FnOnce() -> T) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(new());
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Scope;
    use crate::daemon::deliveries::tests::deleting;
    use crate::engine::JobId;
    use crate::engine::pending::{Item, Mark};
    use crate::path::RelPath;

    const REMOTE: RemoteId = RemoteId(0);

    fn clock(seconds: u64) -> Clock {
        Clock { now: Duration::from_secs(seconds), wall_ms: 1_000_000 + seconds * 1_000 }
    }

    fn settled(paths: usize, since: Option<u64>) -> Settled {
        let item = |n: usize| Item {
            path: RelPath::new(format!("f{n}").as_bytes()).unwrap(),
            mark: Mark::new(Scope::Entry),
        };
        Settled {
            job: JobId(0),
            remote: REMOTE,
            pending_since: since.map(Duration::from_secs),
            delivered: (0..paths).map(item).collect(),
            withheld: Vec::new(),
            rechecked: Vec::new(),
            returned: Vec::new(),
            divided: Vec::new(),
        }
    }

    fn described(statistics: &Statistics, seconds: u64) -> snapshot::RemoteStatus {
        let mut remote = snapshot::RemoteStatus::default();
        statistics.describe(clock(seconds), REMOTE, &mut remote);
        remote
    }

    #[test]
    fn a_bucket_holds_what_it_says() {
        for duration in [0, 8, 9, 100, 1_800, 65_536, 1_000_000, 3_600_000_000] {
            let bound = bound_of(bucket_of(duration));
            assert!(
                bound >= duration && bound <= duration.max(8) * 9 / 8 + 1,
                "{duration}: {bound}"
            );
        }
    }

    #[test]
    fn median_and_p99_are_of_the_last_five_minutes() {
        let mut statistics = Statistics::new(1);
        statistics.settled(clock(100), &settled(98, Some(99)), &Kinds::default());
        statistics.settled(clock(100), &settled(2, Some(40)), &Kinds::default());
        let latency = described(&statistics, 100).latency.unwrap();
        assert_eq!(latency.count, 100);
        assert!((1_000_000..1_200_000).contains(&latency.p50_us), "{latency:?}");
        assert!((60_000_000..68_000_000).contains(&latency.p99_us), "{latency:?}");
        assert_eq!(described(&statistics, 1_000).latency, None);
        assert_eq!(described(&statistics, 1_000).latency_histogram.count(), 100);
    }

    #[test]
    fn a_rate_fades_within_a_minute() {
        let mut statistics = Statistics::new(1);
        statistics.settled(clock(59), &settled(60, None), &Kinds::default());
        assert!((described(&statistics, 59).paths_per_second - 1.0).abs() < 0.1);
        assert!((described(&statistics, 90).paths_per_second - 0.5).abs() < 0.1);
        assert!(described(&statistics, 200).paths_per_second.abs() < 0.1);
    }

    #[test]
    fn the_last_hour_has_no_gaps_and_no_more_than_sixty_minutes() {
        let mut statistics = Statistics::new(1);
        statistics.settled(clock(30), &settled(3, Some(29)), &Kinds::default());
        let (_, _, history) = statistics.recent(clock(30 + 120), Some(Duration::from_secs(140)));
        let paths: Vec<u64> = history.iter().map(|minute| minute.paths).collect();
        assert_eq!(paths, [3, 0, 0]);
        assert_eq!(history[2].lag_us, Some(10_000_000));
        let starts: Vec<u64> = history.iter().map(|minute| minute.start_ms).collect();
        assert_eq!(starts, [1_000_000, 1_060_000, 1_120_000]);
        let (_, _, history) = statistics.recent(clock(100_000), None);
        assert_eq!(history.len(), snapshot::MINUTES);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut statistics = Statistics::new(1);
        statistics.settled(clock(1), &settled(snapshot::DELIVERIES + 7, None), &Kinds::default());
        for _ in 0..snapshot::ERRORS + 7 {
            statistics.error(clock(1), log::Level::Error, "it is down", Some(REMOTE));
        }
        statistics.came_up(clock(2), REMOTE);
        let (deliveries, errors, _) = statistics.recent(clock(3), None);
        assert_eq!(deliveries.len(), snapshot::DELIVERIES);
        assert_eq!(deliveries.last().map(|it| it.path.as_str()), Some("f506"));
        assert_eq!(errors.len(), snapshot::ERRORS);
        assert!(errors.iter().all(|error| error.over_ms == Some(1_002_000)));
    }

    #[test]
    fn bytes_and_deletions_are_summed_up() {
        let mut statistics = Statistics::new(1);
        let report = JobReport { bytes: 6_000, ..JobReport::done() };
        statistics.reported(clock(30), REMOTE, &report);
        statistics.settled(clock(30), &settled(3, None), &deleting(&["f1", "elsewhere"]));
        let total = described(&statistics, 30).total;
        assert_eq!((total.deliveries, total.deletions, total.bytes), (3, 1, 6_000));
        assert!((described(&statistics, 59).bytes_per_second - 100.0).abs() < 5.0);
        let (deliveries, _, history) = statistics.recent(clock(30), None);
        assert_eq!(deliveries[1].kind, DeliveryKind::Deleted);
        assert_eq!(history[0].bytes, 6_000);
    }
}
