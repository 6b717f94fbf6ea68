//! Many changes at once: files written, a tree copied, files deleted; until both trees are equal.
//! Does not look at single changes; see latency.rs.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries, fill};
use super::tool::{LIMIT, Running, SETTLE_MS, Tool};
use super::{Bench, median, rest, until};

/// The result of a piece of work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// From its beginning until the trees were equal; `None`: they never were.
    pub total: Option<Duration>,
    /// From the end of the writes until the trees were equal.
    pub behind: Option<Duration>,
    /// Processor time of the mirror and all its children.
    pub cpu: Duration,
    /// Bytes on the wire, if they are counted.
    pub wire: u64,
}

type Act<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// Does one piece of work. `before` makes the source, which is equal on both sides at the start.
pub fn work(tool: Tool, reach: Reach, before: Act, act: Act) -> io::Result<Work> {
    let rig = Rig::new(reach)?;
    before(&rig.source)?;
    rig.equalise()?;
    if tool == Tool::Rsync {
        act(&rig.source)?;
        let (total, cpu) = rig.by_hand(&["--delete"])?;
        return Ok(Work { total: Some(total), behind: Some(total), cpu, wire: rig.wire_bytes() });
    }
    let running = Running::start(tool, &rig)?;
    let (cpu, wire) = (running.cpu(), rig.wire_bytes());
    let start = Instant::now();
    act(&rig.source)?;
    let written = start.elapsed();
    let wanted = entries(&rig.source);
    let step = Duration::from_millis(5);
    let total = until(start, LIMIT, step, || entries(rig.remote()) == wanted && rig.is_equal());
    rest(SETTLE_MS);
    Ok(Work {
        total,
        behind: total.map(|total| total.saturating_sub(written)),
        cpu: running.cpu() - cpu,
        wire: rig.wire_bytes() - wire,
    })
}

/// Does a piece of work several times.
pub fn repeated(
    bench: &Bench,
    tool: Tool,
    once: impl Fn(Tool) -> io::Result<Work>,
) -> io::Result<Vec<Work>> {
    let times = if tool == Tool::Sersync { bench.size(3, 1) } else { bench.size(2, 1) };
    (0..times).map(|_| once(tool)).collect()
}

fn median_of(works: &[Work], part: fn(&Work) -> Option<Duration>) -> Option<Duration> {
    median(&works.iter().map(part).collect::<Vec<_>>())
}

fn nothing(_: &Path) -> io::Result<()> {
    Ok(())
}

/// 3,000 files of 4 KB in 30 directories.
pub fn storm(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "storm", what, unit, target };
    let total = line("3,000 files at once, until equal", Unit::Seconds, Target::AtMost(0.6));
    let cpu = line("3,000 files at once, processor time", Unit::Seconds, Target::None);
    let share = line("... over one rsync of the finished tree", Unit::Times, Target::AtMost(2.0));
    let files = bench.size(3000, 150);
    let mut by_hand = None;
    for tool in bench.all() {
        let once =
            |tool| work(tool, Reach::Loopback, &nothing, &|source| fill(source, 30, files, 4096));
        let works = repeated(bench, tool, once)?;
        let time = median_of(&works, |work| work.total);
        bench.report.add_time(total, tool, time);
        bench.report.add_time(cpu, tool, median_of(&works, |work| Some(work.cpu)));
        if tool == Tool::Rsync {
            by_hand = time;
        } else if let (Some(time), Some(by_hand)) = (time, by_hand) {
            bench.report.add(share, tool, Some(time.as_secs_f64() / by_hand.as_secs_f64()));
        }
    }
    Ok(())
}

/// `cp -a /usr/include`.
pub fn copy(bench: &mut Bench) -> io::Result<()> {
    let line = |what, target| Line { figure: "copy", what, unit: Unit::Seconds, target };
    let behind = line("cp -a /usr/include, behind the writer", Target::AtMost(0.3));
    let total = line("cp -a /usr/include, from its begin", Target::None);
    for tool in bench.all() {
        let once =
            |tool| work(tool, Reach::Loopback, &nothing, &|source| copy_include(bench, source));
        let works = repeated(bench, tool, once)?;
        bench.report.add_time(behind, tool, median_of(&works, |work| work.behind));
        bench.report.add_time(total, tool, median_of(&works, |work| work.total));
    }
    Ok(())
}

/// Copies the headers of this machine, or in a short run something small.
pub fn copy_include(bench: &Bench, to: &Path) -> io::Result<()> {
    if bench.options.short || !Path::new("/usr/include").is_dir() {
        return fill(&to.join("include"), 10, 100, 1000);
    }
    let status = Command::new("cp").args(["-a", "/usr/include"]).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("cp -a failed")) }
}

/// 3,000 deletions.
pub fn delete(bench: &mut Bench) -> io::Result<()> {
    let what = "3,000 files in 30 directories deleted, until equal";
    let line = Line { figure: "delete", what, unit: Unit::Seconds, target: Target::AtMost(0.2) };
    let single = Line { what: "3,000 files of 30 directories deleted one by one", ..line };
    let files = bench.size(3000, 150);
    let before = |source: &Path| fill(&source.join("tree"), 30, files, 4096);
    for tool in bench.all() {
        let whole = |tool| {
            work(tool, Reach::Loopback, &before, &|source| fs::remove_dir_all(source.join("tree")))
        };
        let works = repeated(bench, tool, whole)?;
        bench.report.add_time(line, tool, median_of(&works, |work| work.total));
        let one_by_one = |tool| {
            work(tool, Reach::Loopback, &before, &|source| delete_files(&source.join("tree")))
        };
        let works = repeated(bench, tool, one_by_one)?;
        bench.report.add_time(single, tool, median_of(&works, |work| work.total));
    }
    Ok(())
}

/// Deletes the files and keeps the directories.
fn delete_files(tree: &Path) -> io::Result<()> {
    for dir in fs::read_dir(tree)? {
        for file in fs::read_dir(dir?.path())? {
            fs::remove_file(file?.path())?;
        }
    }
    Ok(())
}
