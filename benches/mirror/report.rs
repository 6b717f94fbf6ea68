//! The results: as a table, as JSON, and as the page and the plots in docs.
//! Does not measure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::row::TOOLS;
pub use super::row::{Line, Row, Target, Unit};
use super::svg;
use super::tool::Tool;

/// All rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Where and how it was measured.
    pub machine: String,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

impl Report {
    /// An empty report; prints the head of the table.
    pub fn begin(out: &mut dyn Write, short: bool) -> io::Result<Self> {
        let machine = machine();
        writeln!(out, "{machine}")?;
        if short {
            writeln!(out, "a short run: that it works is shown, the figures mean little")?;
        }
        writeln!(out, "{}", head())?;
        out.flush()?;
        Ok(Self { machine, rows: Vec::new() })
    }

    /// Notes a number.
    pub fn add(&mut self, line: Line, tool: Tool, value: Option<f64>) {
        let known =
            self.rows.iter_mut().find(|row| (row.figure, &*row.what) == (line.figure, line.what));
        if let Some(row) = known {
            row.values.insert(tool, value);
            return;
        }
        let values = BTreeMap::from([(tool, value)]);
        let Line { figure, what, unit, target } = line;
        self.rows.push(Row { figure, what: what.to_owned(), unit, target, values });
    }

    /// Notes a time, in the line's unit.
    pub fn add_time(&mut self, line: Line, tool: Tool, time: Option<Duration>) {
        let factor = if line.unit == Unit::Ms { 1e3 } else { 1.0 };
        self.add(line, tool, time.map(|time| time.as_secs_f64() * factor));
    }

    /// Prints the rows from this one on.
    pub fn print_from(&self, first: usize, out: &mut dyn Write) -> io::Result<()> {
        for row in self.rows.iter().skip(first) {
            writeln!(out, "{}", row.line())?;
        }
        Ok(())
    }

    /// The whole report as JSON.
    pub fn json(&self) -> io::Result<String> {
        serde_json::to_string_pretty(self).map_err(io::Error::other)
    }

    /// Writes the plots and the JSON into `docs`, and the table into its BENCHMARKS.md.
    pub fn renew_docs(&self, docs: &Path) -> io::Result<()> {
        let page = docs.join("BENCHMARKS.md");
        let text = std::fs::read_to_string(&page)?;
        let (Some((before, _)), Some((_, after))) =
            (text.split_once(TABLE_BEGIN), text.split_once(TABLE_END))
        else {
            return Err(io::Error::other(format!("{}: no marks for the table", page.display())));
        };
        let table = format!("{before}{TABLE_BEGIN}\n{}\n{TABLE_END}{after}", self.markdown());
        std::fs::write(&page, table)?;
        std::fs::create_dir_all(docs.join("benchmarks"))?;
        std::fs::write(docs.join("benchmarks/figures.json"), self.json()?)?;
        for (file, title, figures) in svg::PLOTS {
            let rows: Vec<&Row> =
                self.rows.iter().filter(|row| figures.contains(&row.figure)).collect();
            for unit in [Unit::Ms, Unit::Seconds] {
                let rows: Vec<&Row> = rows.iter().copied().filter(|r| r.unit == unit).collect();
                if !rows.is_empty() {
                    std::fs::write(docs.join("benchmarks").join(file), svg::bars(title, &rows))?;
                }
            }
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n{}\n\n| figure | | target |", self.machine);
        TOOLS.iter().for_each(|tool| _ = write!(text, " {} |", tool.name()));
        text.push_str("\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n");
        for row in &self.rows {
            _ = write!(text, "| {} | {} | {} |", row.figure, row.what, row.target_words());
            TOOLS.iter().for_each(|tool| _ = write!(text, " {} |", row.cell(*tool)));
            text.push('\n');
        }
        text
    }
}

const TABLE_BEGIN: &str = "<!-- table: renewed by make bench -->";
const TABLE_END: &str = "<!-- end of table -->";

fn head() -> String {
    let mut head = format!("{:<11}{:<58}{:>16} ", "figure", "", "target");
    TOOLS.iter().for_each(|tool| _ = write!(head, "{:>13}", tool.name()));
    head.push_str("  met");
    head
}

fn machine() -> String {
    let first = |file: &str| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = first("/proc/sys/kernel/osrelease");
    let version = std::process::Command::new("rsync").arg("--version").output();
    let version = version.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let version = version.unwrap_or_default();
    let rsync = version.split_whitespace().nth(2).unwrap_or("?");
    let kind = if cfg!(debug_assertions) { ", debug build" } else { "" };
    format!("{cores} cores, Linux {kernel}, rsync {rsync}, files in {}{kind}", file_system())
}

/// The type of the file system that holds the trees.
fn file_system() -> &'static str {
    const TMPFS: u64 = 0x0102_1994;
    let stat = rustix::fs::statfs(std::env::temp_dir());
    let magic = stat.map_or(0, |stat| stat.f_type.cast_unsigned());
    if magic == TMPFS { "tmpfs" } else { "a file system on disk" }
}
