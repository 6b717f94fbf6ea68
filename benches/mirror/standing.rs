//! The cost of an idle mirror: time until all watches are set, memory, wake-ups.
//! Nothing changes in the source during the measurement.

use std::fs;
use std::io;
use std::time::Instant;

use super::proc::{self, Counted};
use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, many_directories};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, rest};

const KB_PER_MIB: f64 = 1024.0;

/// The kernel's kB is 1,024 bytes.
const BYTES_PER_KB: f64 = 1024.0;

/// With ten thousand, a hundred thousand and a million directories.
pub fn standing(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "standing", what, unit, target };
    let seconds = |what| line(what, Unit::Seconds, Target::AtMost(0.6));
    let memory = |what| line(what, Unit::Megabytes, Target::AtMost(13.0));
    let count = bench.size(100_000, 1_000);
    let mut tools = vec![Tool::Sersync, Tool::Lsyncd];
    tools.retain(|tool| bench.mirrors.contains(tool));
    for (backend, tools, ready, resident) in [
        (
            "inotify",
            &tools[..],
            seconds("100,000 directories, inotify: watches stand after"),
            memory("100,000 directories, inotify: resident"),
        ),
        (
            "fanotify",
            &[Tool::Sersync],
            seconds("100,000 directories, fanotify: the mark stands after"),
            memory("100,000 directories, fanotify: resident"),
        ),
    ] {
        for &tool in tools {
            let rig = Rig::new(Reach::Loopback)?;
            many_directories(&rig.source, count)?;
            rig.equalise()?;
            let running = launched(bench, tool, &rig, backend, ready)?;
            running.prove(&rig)?;
            // Wait for the walk that detects changes during the downtime: it takes memory and time of its own.
            until_it_rests(&running);
            let rss_kb = counted(&running).rss_kb as f64;
            bench.report.add(resident, tool, Some(rss_kb * BYTES_PER_KB / 1e6));
            if backend == "fanotify" || tool != Tool::Sersync {
                noise(bench, tool, &rig, &running)?;
            }
        }
    }
    if !bench.options.short {
        million(bench)?;
    }
    idle(bench)
}

/// Starts the tool, and notes when all its watches are set.
fn launched(
    bench: &mut Bench,
    tool: Tool,
    rig: &Rig,
    backend: &'static str,
    ready: Line,
) -> io::Result<Running> {
    let start = Instant::now();
    let running = Running::launch(tool, rig, &More { backend, ..More::default() })?;
    let sign = if tool == Tool::Sersync { "watch path is:" } else { "recursive startup rsync" };
    bench.report.add_time(ready, tool, running.says(sign, start, LIMIT));
    Ok(running)
}

/// One fanotify mark needs no walk, whatever the number of directories. The time counts from the start of the program, so it includes
/// reading configuration and state.
fn million(bench: &mut Bench) -> io::Result<()> {
    let (unit, target) = (Unit::Ms, Target::AtMost(50.0));
    let what = "a million directories, fanotify: the mark stands after";
    let rig = Rig::new(Reach::Loopback)?;
    many_directories(&rig.source, 1_000_000)?;
    launched(
        bench,
        Tool::Sersync,
        &rig,
        "fanotify",
        Line { figure: "standing", what, unit, target },
    )?;
    Ok(())
}

fn until_it_rests(running: &Running) {
    let mut used = None;
    while used != Some(running.cpu()) {
        used = Some(running.cpu());
        rest(SETTLE_MS);
    }
}

/// Activity of other programs elsewhere on the same file system: in their existing directories, and in new ones.
fn noise(bench: &mut Bench, tool: Tool, rig: &Rig, running: &Running) -> io::Result<()> {
    let line =
        |what| Line { figure: "standing", what, unit: Unit::Ms, target: Target::AtMost(1.0) };
    let (files, others) = (bench.size(30_000, 300), rig.dir.dir("others"));
    for (line, files_each) in [
        (line("1,000 events of others in a hundred directories, processor time"), files / 100),
        (line("1,000 events of others in new directories, processor time"), 10),
    ] {
        let used = running.cpu();
        let mut events: u32 = 0;
        for number in 0..files / files_each {
            let directory = others.join(format!("{files_each} files {number}"));
            fs::create_dir(&directory)?;
            for name in 0..files_each {
                let file = directory.join(format!("file {name}"));
                fs::write(&file, "x")?;
                fs::remove_file(&file)?;
                // Created, written, deleted.
                events += 3;
            }
        }
        until_it_rests(running);
        bench.report.add_time(line, tool, Some((running.cpu() - used) * 1_000 / events));
    }
    Ok(())
}

fn counted(running: &Running) -> Counted {
    rest(SETTLE_MS);
    proc::count(running.pid())
}

fn idle(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "standing", what, unit, target };
    let memory = line("10,000 directories: resident", Unit::Mebibytes, Target::AtMost(12.0));
    let all = line("... with the sessions that stand ready", Unit::Mebibytes, Target::None);
    let wakes = line("... wake-ups in 5 s of rest", Unit::Count, Target::AtMost(0.0));
    let cpu = line("... processor time in 5 s of rest", Unit::Ms, Target::AtMost(0.0));
    let threads = line("... threads", Unit::Count, Target::None);
    let files = line("... open files", Unit::Count, Target::None);
    let children = line("... processes below it", Unit::Count, Target::None);
    for tool in bench.mirrors.clone() {
        let rig = Rig::new(Reach::Loopback)?;
        many_directories(&rig.source, bench.size(10_000, 1_000))?;
        rig.equalise()?;
        let running = Running::start(tool, &rig)?;
        let now = counted(&running);
        let (woken, used) = (proc::wake_ups(running.pid()), running.cpu());
        rest(bench.size(5_000, 500));
        let report = &mut bench.report;
        report.add(memory, tool, Some(now.rss_kb as f64 / KB_PER_MIB));
        report.add(all, tool, Some(now.rss_all_kb as f64 / KB_PER_MIB));
        report.add(wakes, tool, Some((proc::wake_ups(running.pid()) - woken) as f64));
        // The kernel counts in ticks, and those of a child that has ended may be rounded down.
        report.add_time(cpu, tool, Some(running.cpu().saturating_sub(used)));
        report.add(threads, tool, Some(now.threads as f64));
        report.add(files, tool, Some(now.open_files as f64));
        report.add(children, tool, Some(now.children as f64));
    }
    Ok(())
}
