//! Sustained streams: how far the remote lags behind at the end, and what processor time the mirror needs.
//! The script with inotifywait is left out: it compares the whole tree for each event.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries};
use super::tool::{LIMIT, Running, SETTLE_MS, Tool};
use super::{Bench, rest, until};

/// 1,000 files of 4 KB a second into 50 directories.
pub fn stream(bench: &mut Bench) -> io::Result<()> {
    let line = |what, target| Line { figure: "stream", what, unit: Unit::Seconds, target };
    let lag = line("1,000 new files a second for 5 s, lag at the end", Target::AtMost(0.15));
    let cpu = line("... processor time", Target::ShareOf(Tool::Lsyncd, 0.3));
    let files = bench.size(5000, 500);
    let content = [b'x'; 4096];
    for tool in sustained(bench) {
        let rig = Rig::new(Reach::Loopback)?;
        for dir in 0..50 {
            fs::create_dir(rig.source.join(format!("d{dir}")))?;
        }
        rig.equalise()?;
        let running = Running::start(tool, &rig)?;
        let before = running.cpu();
        let begin = Instant::now();
        for n in 0..files {
            pace(begin, Duration::from_millis(1) * n);
            fs::write(rig.source.join(format!("d{}/f{n}", n % 50)), content)?;
        }
        let end = Instant::now();
        let wanted = entries(&rig.source);
        let step = Duration::from_millis(5);
        let time = until(end, LIMIT, step, || entries(rig.remote()) == wanted && rig.is_equal());
        bench.report.add_time(lag, tool, time);
        rest(SETTLE_MS);
        bench.report.add_time(cpu, tool, Some(running.cpu() - before));
    }
    Ok(())
}

/// Twenty files, 500 writes a second.
pub fn rewrite(bench: &mut Bench) -> io::Result<()> {
    let line = |what, target| Line { figure: "rewrite", what, unit: Unit::Seconds, target };
    let lag = line("twenty files, 500 rewrites a second for 8 s, lag", Target::AtMost(0.15));
    let cpu = line("... processor time", Target::ShareOf(Tool::Lsyncd, 0.25));
    let writes = bench.size(4000, 500);
    for tool in sustained(bench) {
        let rig = Rig::new(Reach::Loopback)?;
        let running = Running::start(tool, &rig)?;
        let before = running.cpu();
        let begin = Instant::now();
        for n in 0..writes {
            pace(begin, Duration::from_millis(2) * n);
            fs::write(rig.source.join(format!("f{}", n % 20)), content(n))?;
        }
        let end = Instant::now();
        let last = |n: &u32| {
            let name = format!("f{}", n % 20);
            fs::read(rig.remote().join(name)).is_ok_and(|found| found == content(*n))
        };
        let time =
            until(end, LIMIT, Duration::from_millis(2), || (writes - 20..writes).all(|n| last(&n)));
        bench.report.add_time(lag, tool, time);
        rest(SETTLE_MS);
        bench.report.add_time(cpu, tool, Some(running.cpu() - before));
    }
    Ok(())
}

/// Always of the same length.
fn content(n: u32) -> Vec<u8> {
    format!("{n:08}").into_bytes().repeat(512)
}

/// Waits until `due` has passed since `begin`.
fn pace(begin: Instant, due: Duration) {
    std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
}

fn sustained(bench: &Bench) -> Vec<Tool> {
    bench.mirrors.iter().copied().filter(|tool| *tool != Tool::Loop).collect()
}
