//! The short form of the benchmarks runs and prints a table. The figures are not checked: a test asserts no times.

#[path = "../../benches/mirror/bench.rs"]
mod mirror;
#[path = "../../benches/pure/figures.rs"]
mod pure;

use std::time::Duration;

use mirror::{BenchOptions, figure_names};

/// One figure of each kind; more would only take longer.
const FIGURES: [&str; 11] = [
    "latency",
    "storm",
    "stream",
    "full-sync",
    "standing",
    "watchers",
    "core",
    "remotes",
    "snapshot",
    "confine",
    "confirm",
];

#[test]
fn the_pure_parts_can_be_measured() {
    let out = tempfile::TempDir::new().unwrap();
    let (warm_up, sample) = (Duration::from_micros(1), Duration::from_millis(1));
    let criterion = criterion::Criterion::default().without_plots().output_directory(out.path());
    let mut criterion = criterion.warm_up_time(warm_up).measurement_time(sample).sample_size(10);
    pure::run(&mut criterion, pure::Size::Short);
    for figure in ["pending", "take", "handle", "filter", "configuration"] {
        assert!(out.path().join(figure).is_dir(), "{figure} was not measured");
    }
}

#[test]
fn the_short_benchmark_gives_a_table() {
    assert!(FIGURES.iter().all(|figure| figure_names().contains(figure)));
    let only = FIGURES.map(str::to_owned).into();
    let mut table = Vec::new();
    let report = mirror::run(&BenchOptions { only, ..BenchOptions::short() }, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    eprintln!("{table}");
    for figure in FIGURES {
        assert!(report.rows.iter().any(|row| row.figure == figure), "{figure}:\n{table}");
        assert!(table.lines().any(|line| line.starts_with(figure)), "{figure}:\n{table}");
    }
    let lost: Vec<_> =
        report.rows.iter().filter(|row| row.values.values().any(Option::is_none)).collect();
    assert!(lost.is_empty(), "never converged: {lost:?}\n{table}");
    assert!(report.json().unwrap().contains("\"rows\""));
}
