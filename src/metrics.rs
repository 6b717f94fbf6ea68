//! A snapshot as metrics for Prometheus, in its classic text format and in OpenMetrics.
//! Counts nothing itself; the names follow Prometheus' conventions and are a public format (docs/OPERATING.md).

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::snapshot::{BOUNDS_US, DeletionState, RemoteStatus, RootState, Snapshot, SyncState};

/// The maximum number of remotes with their own series; further remotes are only in the sums.
pub const REMOTES_MAX: usize = 1_000;

/// How the metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus' own text format, which every tool reads.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of a snapshot.
pub fn encode(snapshot: &Arc<Snapshot>, format: MetricsFormat) -> String {
    let mut registry = Registry::with_prefix("sersync");
    registry.register_collector(Box::new(OfSnapshot(Arc::clone(snapshot))));
    let mut text = String::new();
    let written = match format {
        MetricsFormat::Classic => prometheus_text::encode(&mut text, &registry),
        MetricsFormat::OpenMetrics => text::encode(&mut text, &registry),
    };
    // Writing to a string cannot fail.
    debug_assert!(written.is_ok());
    text
}

#[derive(Debug)]
struct OfSnapshot(Arc<Snapshot>);

/// Labels of one series.
type Labels = Vec<(&'static str, String)>;

/// Writes one metric after the other.
struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn gauge<'s>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl Iterator<Item = (&'s Labels, f64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            match labels.is_empty() {
                true => metric.encode_gauge(&value)?,
                false => metric.encode_family(labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn counter<'s>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl Iterator<Item = (&'s Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            match labels.is_empty() {
                true => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                false => metric
                    .encode_family(labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        Ok(())
    }
}

impl Collector for OfSnapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer { encoder };
        instance(&self.0, &mut writer)?;
        roots(&self.0, &mut writer)?;
        let labels = labels_of_remotes(&self.0);
        let remotes: Vec<(&Labels, &RemoteStatus)> = labels.iter().zip(&self.0.remotes).collect();
        states(&remotes, &self.0, &mut writer)?;
        sums(&remotes, &mut writer)?;
        latencies(&remotes, &mut writer)
    }
}

fn instance(snapshot: &Snapshot, writer: &mut Writer<'_>) -> fmt::Result {
    let of = &snapshot.instance;
    let build = vec![("version", of.version.clone()), ("backend", of.backend.clone())];
    let one = [(&build, 1.0)];
    writer.gauge(
        "build_info",
        "The program's version and how it watches",
        None,
        one.into_iter(),
    )?;
    let none = Labels::new();
    let mut single = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
        writer.gauge(name, help, unit, std::iter::once((&none, value)))
    };
    let started = of.started_ms as f64 / 1e3;
    single("start_time", "When the program started, since 1970", Some(&Unit::Seconds), started)?;
    single("workers", "rsync runs that may run at the same time", None, of.workers as f64)?;
    single("watched_directories", "Directories that are watched", None, of.directories as f64)?;
    let help = "Directories that could not be watched and are rescanned instead";
    single("unwatched_directories", help, None, of.unwatched as f64)?;
    let help = "How often the kernel dropped events and a comparison followed";
    writer.counter("overflows", help, None, std::iter::once((&none, of.overflows)))
}

fn roots(snapshot: &Snapshot, writer: &mut Writer<'_>) -> fmt::Result {
    let labels: Vec<Labels> =
        snapshot.roots.iter().map(|root| vec![("root", root.path.clone())]).collect();
    let all = || labels.iter().zip(&snapshot.roots);
    let lost = all().map(|(labels, root)| (labels, truth(root.state == RootState::Lost)));
    writer.gauge("root_lost", "1 while the watch path cannot be read", None, lost)?;
    let withheld = |state| truth(state == DeletionState::Withheld);
    let withheld = all().map(|(labels, root)| (labels, withheld(root.deletions)));
    let help = "1 while deletions wait for an operator's confirmation";
    writer.gauge("root_deletions_withheld", help, None, withheld)
}

fn states(
    remotes: &[(&Labels, &RemoteStatus)],
    snapshot: &Snapshot,
    writer: &mut Writer<'_>,
) -> fmt::Result {
    let mut each = |name: &str,
                    help: &str,
                    unit: Option<&Unit>,
                    value: &dyn Fn(&RemoteStatus) -> Option<f64>| {
        let series = remotes.iter().filter_map(|(labels, of)| Some((*labels, value(of)?)));
        writer.gauge(name, help, unit, series)
    };
    let now = snapshot.taken_ms;
    let is = |state| move |of: &RemoteStatus| Some(truth(of.state == state));
    each("remote_down", "1 while nothing can be sent", None, &is(SyncState::Down))?;
    each("remote_paused", "1 while an operator has paused it", None, &is(SyncState::Paused))?;
    let help = "Paths that may differ from their copy";
    each("remote_pending_paths", help, None, &|of| Some(of.pending as f64))?;
    let help = "How long the oldest pending path has waited";
    let lag = |of: &RemoteStatus| Some(of.lag_ms(now) as f64 / 1e3);
    each("remote_lag", help, Some(&Unit::Seconds), &lag)?;
    let help = "Paths that rsync could not deliver";
    each("remote_failing_paths", help, None, &|of| Some(of.failing as f64))?;
    let help = "Jobs in flight, whatever they are for";
    each("remote_running_jobs", help, None, &|of| Some(of.in_flight as f64))?;
    let help = "rsync sessions that are connected and wait for work";
    each("remote_sessions", help, None, &|of| Some(of.sessions as f64))?;
    let help = "When the last delivery ended, since 1970";
    let last = |of: &RemoteStatus| of.last_delivery_ms.map(|at| at as f64 / 1e3);
    each("remote_last_delivery_timestamp", help, Some(&Unit::Seconds), &last)?;
    let help = "1 while a full sync is running";
    each("remote_full_sync_running", help, None, &|of| Some(truth(of.full_sync.is_some())))?;
    let help = "Share of the running full sync that is done";
    let done = |of: &RemoteStatus| {
        let full_sync = of.full_sync.as_ref().filter(|it| it.parts > 0)?;
        Some(full_sync.parts_done as f64 / full_sync.parts as f64)
    };
    each("remote_full_sync_done", help, Some(&Unit::Other("ratio".into())), &done)?;
    let help = "Files in the parts that the running full sync has compared";
    let files = |of: &RemoteStatus| of.full_sync.as_ref().map(|it| it.files as f64);
    each("remote_full_sync_files", help, None, &files)?;
    let help = "What rsync has sent in the running full sync";
    let bytes = |of: &RemoteStatus| of.full_sync.as_ref().map(|it| it.bytes as f64);
    each("remote_full_sync_sent", help, Some(&Unit::Bytes), &bytes)
}

fn sums(remotes: &[(&Labels, &RemoteStatus)], writer: &mut Writer<'_>) -> fmt::Result {
    let mut each =
        |name: &str, help: &str, unit: Option<&Unit>, value: fn(&RemoteStatus) -> u64| {
            let series = remotes.iter().map(|(labels, of)| (*labels, value(of)));
            writer.counter(name, help, unit, series)
        };
    let help = "Paths delivered, deletions included";
    each("remote_deliveries", help, None, |of| of.total.deliveries)?;
    each("remote_deletions", "Paths deleted on the remote", None, |of| of.total.deletions)?;
    each("remote_moves", "Paths created from the copy at the old name", None, |of| of.total.moves)?;
    each("remote_failures", "Failed tries to deliver a path", None, |of| of.total.failures)?;
    each("remote_sent", "What rsync sent", Some(&Unit::Bytes), |of| of.total.bytes)?;
    each("remote_jobs", "Jobs done", None, |of| of.total.jobs)?;
    each("remote_full_syncs", "Full syncs done", None, |of| of.total.full_syncs)?;
    each("remote_outages", "How often it went down", None, |of| of.total.outages)
}

fn latencies(remotes: &[(&Labels, &RemoteStatus)], writer: &mut Writer<'_>) -> fmt::Result {
    let mut metric = writer.encoder.encode_descriptor(
        "remote_delivery_latency",
        "From a change to its delivery",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (labels, remote) in remotes {
        let histogram = &remote.latency_histogram;
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
        let bounds = bounds.chain(std::iter::once(f64::INFINITY));
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
        let sum = histogram.sum_us as f64 / 1e6;
        let mut family = metric.encode_family(*labels)?;
        family.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
    }
    Ok(())
}

/// The labels of each remote. Remotes of one root with the same name also get their index.
fn labels_of_remotes(snapshot: &Snapshot) -> Vec<Labels> {
    let labels = |(remote, name): (&RemoteStatus, String)| {
        let root = usize::try_from(remote.root).ok().and_then(|root| snapshot.roots.get(root));
        let root = root.map_or(String::new(), |root| root.path.clone());
        vec![("root", root), ("remote", name)]
    };
    snapshot.remotes.iter().zip(snapshot.remote_names()).take(REMOTES_MAX).map(labels).collect()
}

fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::snapshot::{Histogram, RootStatus};

    fn snapshot(remotes: usize) -> Arc<Snapshot> {
        let mut latency_histogram = Histogram::default();
        latency_histogram.add(3_000, 2);
        let remote = |id: usize| RemoteStatus {
            id: id as u64,
            name: "h::\"m\"\n\\".into(),
            pending: 7,
            latency_histogram: latency_histogram.clone(),
            ..RemoteStatus::default()
        };
        let root = RootStatus { path: "/data/www".into(), ..RootStatus::default() };
        let remotes = (0..remotes).map(remote).collect();
        Arc::new(Snapshot { roots: vec![root], remotes, ..Snapshot::default() })
    }

    #[test]
    fn names_follow_the_conventions_and_labels_are_escaped() {
        let text = encode(&snapshot(1), MetricsFormat::Classic);
        let labels = r#"{root="/data/www",remote="h::\"m\"\n\\"}"#;
        for line in [
            format!("sersync_remote_pending_paths{labels} 7"),
            format!("sersync_remote_deliveries_total{labels} 0"),
            format!("sersync_remote_sent_bytes_total{labels} 0"),
            format!("sersync_remote_lag_seconds{labels} 0"),
            format!("sersync_remote_delivery_latency_seconds_count{labels} 2"),
        ] {
            assert!(text.lines().any(|l| l.starts_with(&line)), "{line}\nnot in\n{text}");
        }
        assert!(text.contains("# TYPE sersync_remote_deliveries_total counter"), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
        assert!(encode(&snapshot(1), MetricsFormat::OpenMetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn series_are_distinct_and_bounded() {
        let text = encode(&snapshot(REMOTES_MAX + 5), MetricsFormat::Classic);
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("sersync_remote_pending_paths{")).collect();
        let distinct: HashSet<&&str> = series.iter().collect();
        assert_eq!((series.len(), distinct.len()), (REMOTES_MAX, REMOTES_MAX));
    }
}
