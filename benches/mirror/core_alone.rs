//! The engine alone, without files or processes: changes per second, and the memory of pending paths.
//! The figures are processor time of one core, so other load does not count.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sersync::change::{Cause, Change, RootId, WatchEvent};
use sersync::engine::{Engine, EngineSetup, Event, Extraneous};
use sersync::path::RelPath;

use super::Bench;
use super::proc;
use super::report::{Line, Target, Unit};
use super::tool::Tool;

/// Changes in one event, as the watch thread gives them.
const EVENT: usize = 500;

/// Throughput and memory.
pub fn core_alone(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "core", what, unit, target };
    let memory = line("a million distinct pending paths", Unit::Mebibytes, Target::AtMost(120.0));
    let count = bench.size(1_000_000, 10_000);
    let before = proc::count(std::process::id()).rss_kb;
    let mut engine = engine(2 * count);
    for first in (0..count).step_by(EVENT) {
        engine.handle(Duration::from_secs(1), event(first..first + EVENT, |n| n));
    }
    let after = proc::count(std::process::id()).rss_kb;
    bench.report.add(memory, Tool::Sersync, Some((after - before.min(after)) as f64 / 1024.0));
    drop(engine);

    let rate = |what| line(what, Unit::Times, Target::AtLeast(2.0));
    let again = rate("changes a second through the engine, millions: ten thousand files");
    let copied = rate("... a million files, directory by directory");
    let scattered = rate("... a million files, each in another directory than the one before");
    for (line, which) in [
        (again, (|n, _| n % 10_000) as fn(usize, usize) -> usize),
        (copied, |n, _| n % 100 * 10_000 + n / 100),
        (scattered, |n, count| n * 7_919 % count),
    ] {
        let mut engine = self::engine(2 * count);
        let starts = (0..count).step_by(EVENT);
        let pick = |n| which(n, count);
        let events: Vec<_> = starts.map(|first| event(first..first + EVENT, pick)).collect();
        let start = processor_time();
        for event in events {
            engine.handle(Duration::from_secs(1), event);
        }
        let each = count as f64 / (processor_time() - start).as_secs_f64() / 1e6;
        bench.report.add(line, Tool::Sersync, Some(each));
    }
    Ok(())
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn engine(pending_max: usize) -> Engine {
    Engine::new(EngineSetup {
        remotes: vec![RootId(0)],
        workers: 10,
        pending_max,
        unrecorded: Extraneous::Deleted,
    })
}

fn event(numbers: std::ops::Range<usize>, pick: impl Fn(usize) -> usize) -> Event {
    let changes = numbers.map(|n| distinct(pick(n))).collect();
    Event::Watch(WatchEvent::changed(RootId(0), changes))
}

/// One of a million paths in ten thousand directories.
fn distinct(n: usize) -> Change {
    let name = format!("data{:03}/directory{:03}/file number {n:07}.dat", n % 100, n / 100 % 100);
    let path = RelPath::new(name.as_bytes()).unwrap_or_default();
    Change::entry(path, Cause::CloseWrite)
}
