//! The benchmark in its short form: it runs, and gives a table. Its figures are not looked at: a test measures no time.

#[path = "../../benches/mirror/bench.rs"]
mod mirror;

use mirror::{Options, figure_names};

/// One of each kind; the others would only take longer.
const FIGURES: [&str; 6] = ["latency", "storm", "stream", "full-sync", "standing", "core"];

#[test]
fn the_short_benchmark_gives_a_table() {
    assert!(FIGURES.iter().all(|figure| figure_names().contains(figure)));
    let only = FIGURES.map(str::to_owned).into();
    let mut table = Vec::new();
    let report = mirror::run(&Options { only, ..Options::short() }, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    for figure in FIGURES {
        assert!(report.rows.iter().any(|row| row.figure == figure), "{figure}:\n{table}");
        assert!(table.lines().any(|line| line.starts_with(figure)), "{figure}:\n{table}");
    }
    let lost: Vec<_> =
        report.rows.iter().filter(|row| row.values.values().any(Option::is_none)).collect();
    assert!(lost.is_empty(), "never converged: {lost:?}\n{table}");
    assert!(report.json().unwrap().contains("\"rows\""));
}
