//! One source and twenty remotes: when a change is on all of them, compared with rsync alone.
//! lsyncd has a `sync` block for each remote; the script with inotifywait supports only one.

use std::fs;
use std::io::{self, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::proc;
use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, median, rest, until};

/// One remote compared with twenty: on this machine, where receivers and senders share the processors, and over a network.
pub fn fan_out(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "fan-out", what, unit, target };
    let times = |one, all, factor| {
        let factor = line(factor, Unit::Times, Target::AtMost(3.0));
        [line(one, Unit::Ms, Target::None), line(all, Unit::Ms, Target::None), factor]
    };
    let places = [
        (
            Reach::RoundTrip,
            times(
                "1 KB file on one remote through 40 ms, median",
                "1 KB file on all of twenty through 40 ms, median",
                "... over the time for one, through 40 ms",
            ),
        ),
        (
            Reach::Loopback,
            times(
                "1 KB file on one remote, median",
                "1 KB file on all of twenty, median",
                "... over the time for one",
            ),
        ),
    ];
    let memory = line("... resident, without the sessions", Unit::Mebibytes, Target::None);
    let rounds = bench.size(20, 2);
    let many = bench.size(20, 3);
    for (reach, lines) in places {
        for tool in bench.mirrors.clone().into_iter().filter(|tool| *tool != Tool::Loop) {
            let (single, _) = until_on_all(tool, reach, 1, rounds)?;
            let (twenty, rss_kb) = until_on_all(tool, reach, many, rounds)?;
            add(bench, lines, tool, single, twenty);
            if reach == Reach::Loopback {
                bench.report.add(memory, tool, Some(rss_kb as f64 / 1024.0));
            }
        }
        let (single, twenty) = (by_hand(reach, 1, rounds)?, by_hand(reach, many, rounds)?);
        add(bench, lines, Tool::Rsync, single, twenty);
    }
    Ok(())
}

fn add(
    bench: &mut Bench,
    [one, all, factor]: [Line; 3],
    tool: Tool,
    single: Option<Duration>,
    twenty: Option<Duration>,
) {
    bench.report.add_time(one, tool, single);
    bench.report.add_time(all, tool, twenty);
    let over = single.zip(twenty).map(|(one, all)| all.as_secs_f64() / one.as_secs_f64());
    bench.report.add(factor, tool, over);
}

fn until_on_all(
    tool: Tool,
    reach: Reach,
    count: usize,
    rounds: usize,
) -> io::Result<(Option<Duration>, u64)> {
    let rig = Rig::with_modules(reach, count)?;
    let modules = (0..count).map(|n| format!("m{n}")).collect();
    fs::write(rig.source.join("first"), "x")?;
    let args = vec!["-r".into()];
    let running = Running::launch(tool, &rig, &More { args, modules, ..More::default() })?;
    until_there(&rig, "first", Instant::now());
    let mut times = Vec::new();
    for round in 0..rounds {
        rest(3 * SETTLE_MS);
        let name = format!("file{round}");
        fs::write(rig.source.join(&name), [b'x'; 1024])?;
        times.push(until_there(&rig, &name, Instant::now()));
    }
    Ok((median(&times), proc::count(running.pid()).rss_kb))
}

/// What the processors allow: an rsync is started for each remote beforehand, and all get the name at once.
fn by_hand(reach: Reach, count: usize, rounds: usize) -> io::Result<Option<Duration>> {
    let rig = Rig::with_modules(reach, count)?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let start_one = |n| {
            let destination = format!("rsync://127.0.0.1:{}/m{n}/", rig.port());
            let mut rsync = rig.rsync(&["--files-from=-", "--sockopts=TCP_NODELAY"]);
            rsync.args([".", &destination]).stdin(Stdio::piped()).spawn()
        };
        let mut sessions = (0..count).map(start_one).collect::<io::Result<Vec<_>>>()?;
        rest(3 * SETTLE_MS);
        let name = format!("file{round}");
        fs::write(rig.source.join(&name), [b'x'; 1024])?;
        let start = Instant::now();
        for session in &mut sessions {
            session.stdin.take().unwrap().write_all(name.as_bytes())?;
        }
        times.push(until_there(&rig, &name, start));
        for mut session in sessions {
            session.wait()?;
        }
    }
    Ok(median(&times))
}

/// The time until a file is on every remote. It checks rarely, to leave the processors to the mirror.
fn until_there(rig: &Rig, name: &str, start: Instant) -> Option<Duration> {
    let mut missing: Vec<_> = rig.modules.iter().map(|dir| dir.join(name)).collect();
    until(start, LIMIT, Duration::from_micros(200), || {
        // Check one remote at a time, because all of them are needed.
        while missing.last().is_some_and(|copy| copy.symlink_metadata().is_ok()) {
            missing.pop();
        }
        missing.is_empty()
    })
}
