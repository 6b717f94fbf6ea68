//! The engine alone, without a file or a process: changes a second, and the memory of what is pending.
//! The numbers are those of one core.

use std::io;
use std::time::{Duration, Instant};

use sersync::change::{Cause, Change, RootId, WatchEvent};
use sersync::engine::{Engine, Event, Setup};
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
    let rate =
        line("changes a second through the engine, millions", Unit::Times, Target::AtLeast(2.0));
    let memory = line("a million distinct pending paths", Unit::Mebibytes, Target::AtMost(120.0));
    let count = bench.size(1_000_000, 10_000);
    let before = proc::count(std::process::id()).rss_kb;
    let mut engine = engine(2 * count);
    for first in (0..count).step_by(EVENT) {
        let event = event((first..first + EVENT).map(distinct).collect());
        engine.handle(Duration::from_secs(1), event);
    }
    let after = proc::count(std::process::id()).rss_kb;
    bench.report.add(memory, Tool::Sersync, Some((after - before.min(after)) as f64 / 1024.0));
    drop(engine);

    let mut busy = self::engine(2 * count);
    let events: Vec<Event> = (0..count)
        .step_by(EVENT)
        .map(|first| event((first..first + EVENT).map(|n| distinct(n % 10_000)).collect()))
        .collect();
    let start = Instant::now();
    for event in events {
        busy.handle(Duration::from_secs(1), event);
    }
    let each = count as f64 / start.elapsed().as_secs_f64() / 1e6;
    bench.report.add(rate, Tool::Sersync, Some(each));
    Ok(())
}

fn engine(pending_max: usize) -> Engine {
    Engine::new(Setup { roots: 1, remotes: vec![RootId(0)], workers: 10, pending_max })
}

fn event(changes: Vec<Change>) -> Event {
    Event::Watch(WatchEvent::Changed { root: RootId(0), changes })
}

/// One of a million paths in ten thousand directories.
fn distinct(n: usize) -> Change {
    let name = format!("data{:03}/directory{:03}/file number {n:07}.dat", n % 100, n / 100 % 100);
    let path = RelPath::new(name.as_bytes()).unwrap_or_default();
    Change::entry(path, Cause::CloseWrite)
}
