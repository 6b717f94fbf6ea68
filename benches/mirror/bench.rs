//! The list of figures, and the run through them.
//! Each figure is measured in its own file; `report.rs` and `svg.rs` make the table, the JSON and the plots.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark starts programs and looks at the clock"
)]

mod bulk;
mod core_alone;
mod cost;
mod fan_out;
mod full_sync;
mod latency;
mod machines;
mod moves;
mod nothing;
mod proc;
mod remotes;
mod report;
mod rig;
mod row;
mod standing;
mod stream;
mod svg;
mod tool;
mod watchers;
mod wire;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use report::Report;
use tool::Tool;

/// What is measured, and at what size.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Small numbers everywhere.
    pub short: bool,
    /// Other mirrors too, where they are installed.
    pub others: bool,
    /// Only these figures; empty: all.
    pub only: Vec<String>,
    /// The idle time before a change that the figure `rest` measures.
    pub rest_s: u64,
    /// The file that gets the figures as JSON.
    pub json: Option<PathBuf>,
    /// The directory whose BENCHMARKS.md and plots are rewritten.
    pub docs: Option<PathBuf>,
}

impl BenchOptions {
    /// The full form, as in docs/BENCHMARKS.md.
    pub fn full() -> Self {
        Self { short: false, others: true, only: Vec::new(), rest_s: 65, json: None, docs: None }
    }

    /// The short form, which takes some seconds.
    pub fn short() -> Self {
        Self { short: true, others: false, rest_s: 1, ..Self::full() }
    }
}

/// The options, tools and results that the measurement of a figure uses.
pub struct Bench {
    /// What was asked for.
    pub options: BenchOptions,
    /// The mirrors that are installed.
    pub mirrors: Vec<Tool>,
    /// The results so far.
    pub report: Report,
}

impl Bench {
    /// A number for a long run, and one for a short one.
    pub fn size<T>(&self, full: T, short: T) -> T {
        if self.options.short { short } else { full }
    }

    /// rsync by hand, followed by the mirrors.
    pub fn all(&self) -> Vec<Tool> {
        [Tool::Rsync].into_iter().chain(self.mirrors.iter().copied()).collect()
    }
}

type Figure = (&'static str, fn(&mut Bench) -> io::Result<()>);

const FIGURES: [Figure; 21] = [
    ("latency", latency::loopback),
    ("round-trip", latency::round_trip),
    ("ssh", latency::ssh),
    ("rest", latency::rest_of_a_minute),
    ("large", latency::beside_a_large_file),
    ("storm", bulk::storm),
    ("copy", bulk::copy),
    ("delete", bulk::delete),
    ("moves", moves::moves),
    ("nothing", nothing::nothing),
    ("stream", stream::stream),
    ("rewrite", stream::rewrite),
    ("full-sync", full_sync::full_sync),
    ("standing", standing::standing),
    ("fan-out", fan_out::fan_out),
    ("remotes", remotes::remotes),
    ("snapshot", cost::snapshot),
    ("confine", cost::confinement),
    ("confirm", cost::confirmation),
    ("watchers", watchers::watchers),
    ("core", core_alone::core_alone),
];

/// The names of the figures.
pub fn figure_names() -> Vec<&'static str> {
    FIGURES.iter().map(|(name, _)| *name).collect()
}

/// Measures, and writes the table to `out` figure by figure.
pub fn run(options: &BenchOptions, out: &mut dyn Write) -> io::Result<Report> {
    IN_HASTE.store(options.short, Ordering::Relaxed);
    let mirrors = Tool::mirrors(options.others);
    let report = Report::begin(out, options.short)?;
    let mut bench = Bench { options: options.clone(), mirrors, report };
    for (name, measure) in FIGURES {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            let before = bench.report.rows.len();
            let start = Instant::now();
            measure(&mut bench)?;
            bench.report.print_from(before, out)?;
            writeln!(out, "    ({name}: {:.0} s)", start.elapsed().as_secs_f64())?;
            out.flush()?;
            // Write after each figure, so that an interrupted run is not lost.
            write_files(&bench)?;
        }
    }
    Ok(bench.report)
}

fn write_files(bench: &Bench) -> io::Result<()> {
    if let Some(file) = &bench.options.json {
        std::fs::write(file, bench.report.json()?)?;
    }
    bench.options.docs.as_ref().map_or(Ok(()), |docs| bench.report.renew_docs(docs))
}

/// Waits until `holds` is true, checking every `step`; returns the time it took, or `None` after `limit`.
pub fn until(
    start: Instant,
    limit: Duration,
    step: Duration,
    mut holds: impl FnMut() -> bool,
) -> Option<Duration> {
    loop {
        let looked = start.elapsed();
        if holds() {
            return Some(looked);
        }
        if looked > limit {
            return None;
        }
        std::thread::sleep(step);
    }
}

/// The median; `None` when a value of the lower half is missing.
pub fn median(values: &[Option<Duration>]) -> Option<Duration> {
    percentile(values, 50)
}

/// The smallest value that `percent` of the values do not exceed.
pub fn percentile(values: &[Option<Duration>], percent: usize) -> Option<Duration> {
    let mut sorted: Vec<Duration> =
        values.iter().map(|value| value.unwrap_or(Duration::MAX)).collect();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().filter(|value| *value != Duration::MAX)
}

/// True in a short run, whose figures need not be accurate.
static IN_HASTE: AtomicBool = AtomicBool::new(false);

/// A pause in which everything in flight ends.
pub fn rest(duration_ms: u64) {
    let part = if IN_HASTE.load(Ordering::Relaxed) { 10 } else { 1 };
    std::thread::sleep(Duration::from_millis(duration_ms / part));
}
