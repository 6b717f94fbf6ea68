//! One source and twenty remotes: when a change is on all of them.
//! The other mirrors are left out: lsyncd would need twenty `sync` blocks and twenty walks of the tree.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::proc;
use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, median, rest, until};

/// One remote beside twenty.
pub fn fan_out(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "fan-out", what, unit, target };
    let one = line("1 KB file on one remote, median", Unit::Ms, Target::None);
    let all = line("1 KB file on all of twenty, median", Unit::Ms, Target::None);
    let factor = line("... over the time for one", Unit::Times, Target::AtMost(3.0));
    let memory = line("... resident, without the sessions", Unit::Mebibytes, Target::None);
    let rounds = bench.size(20, 2);
    let (single, _) = until_on_all(1, rounds)?;
    let (twenty, rss_kb) = until_on_all(bench.size(20, 3), rounds)?;
    bench.report.add_time(one, Tool::Sersync, single);
    bench.report.add_time(all, Tool::Sersync, twenty);
    let over = single.zip(twenty).map(|(one, all)| all.as_secs_f64() / one.as_secs_f64());
    bench.report.add(factor, Tool::Sersync, over);
    bench.report.add(memory, Tool::Sersync, Some(rss_kb as f64 / 1024.0));
    Ok(())
}

fn until_on_all(count: usize, rounds: usize) -> io::Result<(Option<Duration>, u64)> {
    let rig = Rig::with_modules(Reach::Loopback, count)?;
    let modules = (0..count).map(|n| format!("m{n}")).collect();
    let more = More { modules, ..More::default() };
    let running = Running::launch(Tool::Sersync, &rig, &more)?;
    running.says("watch path is:", Instant::now(), LIMIT);
    let mut times = Vec::new();
    for round in 0..=rounds {
        rest(3 * SETTLE_MS);
        let name = format!("file{round}");
        fs::write(rig.source.join(&name), [b'x'; 1024])?;
        let start = Instant::now();
        let mut missing: Vec<_> = rig.modules.iter().map(|dir| dir.join(&name)).collect();
        let time = until(start, LIMIT, Duration::from_micros(50), || {
            missing.retain(|copy| copy.symlink_metadata().is_err());
            missing.is_empty()
        });
        // The first one finds no session yet.
        times.extend((round > 0).then_some(time));
    }
    Ok((median(&times), proc::count(running.pid()).rss_kb))
}
