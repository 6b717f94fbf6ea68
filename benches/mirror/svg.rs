//! Bar charts as SVG text: one group of bars per row. The scale is logarithmic, because the numbers differ by factors of thousands.
//! Writes no files.

use std::fmt::Write;

use super::row::{Row, number};
use super::tool::Tool;

/// File, title, and the figures whose rows it shows.
pub const PLOTS: [(&str, &str, &[&str]); 4] = [
    (
        "latency.svg",
        "One change, close to visible",
        &["latency", "round-trip", "ssh", "rest", "large"],
    ),
    (
        "bulk.svg",
        "Many changes at once, until everything is equal",
        &["storm", "copy", "delete", "moves"],
    ),
    ("stream.svg", "Sustained streams: lag and processor time", &["stream", "rewrite"]),
    ("full-sync.svg", "Full sync of 100,000 files", &["full-sync"]),
];

const TEXT: f64 = 380.0;
const WIDTH: f64 = 960.0;
const BAR: f64 = 14.0;
const GAP: f64 = 12.0;
const TOP: f64 = 56.0;

const COLOURS: [(Tool, &str); 4] = [
    (Tool::Sersync, "#1b7837"),
    (Tool::Rsync, "#878787"),
    (Tool::Lsyncd, "#c2621b"),
    (Tool::Loop, "#5e4fa2"),
];

/// The chart of rows of one unit.
pub fn bars(title: &str, rows: &[&Row]) -> String {
    let known = rows.iter().flat_map(|row| row.values.values().flatten()).copied();
    let (low, high) = known.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value.max(0.001)), high.max(value.max(0.001)))
    });
    // Begin a power of ten lower, so that the shortest bar is visible.
    let (low, high) = (low.log10().floor(), high.log10().max(low.log10().floor() + 1.0));
    let room = WIDTH - TEXT - 110.0;
    let length = |value: f64| (value.max(0.001).log10() - low) / (high - low) * room;
    let mut body = String::new();
    let mut y = TOP;
    for row in rows {
        let middle = y + row.values.len() as f64 * BAR / 2.0 + 4.0;
        let label = escape(&format!("{}: {}", row.figure, row.what));
        _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>",
            TEXT - 10.0
        );
        for (tool, colour) in COLOURS {
            let Some(value) = row.values.get(&tool) else { continue };
            let (long, words) = match value {
                Some(value) => (length(*value).max(1.0), number(*value, row.unit)),
                None => (room, "never".into()),
            };
            let height = BAR - 2.0;
            _ = writeln!(
                body,
                "<rect x=\"{TEXT}\" y=\"{y}\" width=\"{long:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
            );
            _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{}\">{words}</text>",
                TEXT + long + 6.0,
                y + 10.0
            );
            y += BAR;
        }
        y += GAP;
    }
    frame(title, &body, y + GAP)
}

fn frame(title: &str, body: &str, height: f64) -> String {
    let mut legend = String::new();
    for (index, (tool, colour)) in COLOURS.iter().enumerate() {
        let x = TEXT + index as f64 * 120.0;
        _ = write!(
            legend,
            "<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        );
        _ = writeln!(legend, "<text x=\"{}\" y=\"40\">{}</text>", x + 18.0, tool.name());
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{} (logarithmic scale)</text>\n{legend}{body}</svg>\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
