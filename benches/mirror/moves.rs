//! Moves: time until both trees are equal, and bytes on the wire.
//! Only sizes are checked here; the tests check contents.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::bulk::{Work, copy_include, repeated, work};
use super::report::{Line, Target, Unit};
use super::rig::Reach;
use super::tool::Tool;
use super::{Bench, median};

fn line(what: &'static str, unit: Unit, target: Target) -> Line {
    Line { figure: "moves", what, unit, target }
}

/// Directories, large files, logs.
pub fn moves(bench: &mut Bench) -> io::Result<()> {
    let times = [
        line(
            "directory with 8,800 entries renamed, until equal",
            Unit::Seconds,
            Target::AtMost(0.5),
        ),
        line("1 GB file renamed in its directory, until equal", Unit::Seconds, Target::None),
        line("1 GB file moved to another directory, until equal", Unit::Seconds, Target::None),
        line("app.log of 20 MB rotated, until equal", Unit::Seconds, Target::None),
    ];
    let wires = [
        line("... bytes on the wire (directory)", Unit::Megabytes, Target::AtMost(1.5)),
        line("... bytes on the wire (renamed)", Unit::Megabytes, Target::AtMost(1.0)),
        line("... bytes on the wire (moved)", Unit::Megabytes, Target::AtMost(0.1)),
        line("... bytes on the wire (rotated)", Unit::Megabytes, Target::AtMost(0.1)),
    ];
    for tool in bench.all() {
        for (index, (time, wire)) in times.into_iter().zip(wires).enumerate() {
            // A gigabyte takes long, so do it less often.
            let works = match index {
                1 | 2 => vec![once(bench, tool, index)?],
                _ => repeated(bench, tool, |tool| once(bench, tool, index))?,
            };
            let totals: Vec<Option<Duration>> = works.iter().map(|work| work.total).collect();
            bench.report.add_time(time, tool, median(&totals));
            let bytes = works.iter().map(|work| work.wire).min().unwrap_or(0);
            bench.report.add(wire, tool, Some(bytes as f64 / 1e6));
        }
    }
    Ok(())
}

fn once(bench: &Bench, tool: Tool, index: usize) -> io::Result<Work> {
    let large = bench.size(1000, 5);
    let log = bench.size(20, 1);
    let rename =
        |source: &Path, from: &str, to: &str| fs::rename(source.join(from), source.join(to));
    match index {
        0 => work(tool, Reach::Counted, &|source| copy_include(bench, source), &|source| {
            rename(source, "include", "renamed")
        }),
        1 => work(tool, Reach::Counted, &|source| noise(&source.join("a.img"), large), &|source| {
            rename(source, "a.img", "b.img")
        }),
        2 => {
            let before = |source: &Path| {
                fs::create_dir(source.join("elsewhere"))?;
                noise(&source.join("a.img"), large)
            };
            let act = |source: &Path| rename(source, "a.img", "elsewhere/a.img");
            work(tool, Reach::Counted, &before, &act)
        }
        _ => work(tool, Reach::Counted, &|source| noise(&source.join("app.log"), log), &|source| {
            rename(source, "app.log", "app.log.1")?;
            fs::write(source.join("app.log"), "the first line of a new day\n")
        }),
    }
}

/// Writes a file of so many megabytes without equal blocks.
fn noise(path: &Path, megabytes: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..megabytes {
        block.clear();
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}
