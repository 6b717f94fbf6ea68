//! Sustained streams: the lag of the remote at the end, and the processor time of the mirror.
//! The script with inotifywait is omitted: it compares the whole tree for each event.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries};
use super::tool::{LIMIT, Running, SETTLE_MS, Tool};
use super::{Bench, rest, until};

/// 1,000 files of 4 KB per second into 50 directories.
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

/// Twenty files, each rewritten 500 times per second.
pub fn rewrite(bench: &mut Bench) -> io::Result<()> {
    let line = |what, target| Line { figure: "rewrite", what, unit: Unit::Seconds, target };
    let lag =
        line("twenty files, each rewritten 500 times a second for 8 s, lag", Target::AtMost(0.15));
    let cpu = line("... processor time", Target::ShareOf(Tool::Lsyncd, 0.25));
    let rounds = bench.size(4000, 250);
    let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
    for tool in sustained(bench) {
        let rig = Rig::new(Reach::Loopback)?;
        let running = Running::start(tool, &rig)?;
        let before = running.cpu();
        let begin = Instant::now();
        for round in 0..rounds {
            pace(begin, Duration::from_millis(2) * round);
            for name in &names {
                fs::write(rig.source.join(name), content(round))?;
            }
        }
        let end = Instant::now();
        let last = content(rounds - 1);
        let is_last = |name: &String| fs::read(rig.remote().join(name)).is_ok_and(|c| c == last);
        let time = until(end, LIMIT, Duration::from_millis(2), || names.iter().all(is_last));
        bench.report.add_time(lag, tool, time);
        rest(SETTLE_MS);
        bench.report.add_time(cpu, tool, Some(running.cpu() - before));
    }
    Ok(())
}

/// About 4 KB, never twice in a row with the same length. rsync would treat such a file as equal, and the other mirrors would do less.
fn content(round: u32) -> Vec<u8> {
    format!("{round:08}").into_bytes().repeat(500 + round as usize % 13)
}

/// Waits until `due` has passed since `begin`.
fn pace(begin: Instant, due: Duration) {
    std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
}

fn sustained(bench: &Bench) -> Vec<Tool> {
    bench.mirrors.iter().copied().filter(|tool| *tool != Tool::Loop).collect()
}
