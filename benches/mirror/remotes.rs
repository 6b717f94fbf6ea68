//! Many remotes: one change on all of them, a burst of files, our own memory, false alarms, the stop.
//! On an idle machine, with two busy loops per processor, and with a third of the remotes frozen. Measures sersync2 only.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::machines::Machine;
use super::proc;
use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, median, rest, until};

/// The disturbance during the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    BusyLoops,
    FrozenThird,
}

impl Beside {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::BusyLoops => ", two busy loops a core",
            Self::FrozenThird => ", a third frozen",
        }
    }
}

/// The results for one number of remotes.
struct Found {
    one: Option<Duration>,
    burst: Option<Duration>,
    resident_mib: f64,
    said_down: usize,
    stop: Option<Duration>,
    /// The same by one `rsync -a` for each remote, twice as many at once as there are processors.
    one_by_hand: Option<Duration>,
    burst_by_hand: Option<Duration>,
}

/// With 20, 50, 100 and 200 remotes.
pub fn remotes(bench: &mut Bench) -> io::Result<()> {
    for count in bench.size(vec![20, 50, 100, 200], vec![3]) {
        for beside in [Beside::Nothing, Beside::BusyLoops, Beside::FrozenThird] {
            let found = measure(bench, count, beside)?;
            add(bench, count, beside, &found);
        }
    }
    Ok(())
}

fn measure(bench: &Bench, count: usize, beside: Beside) -> io::Result<Found> {
    let rig = Rig::with_modules(Reach::Loopback, count)?;
    let mut machines = Machine::start_all(&rig)?;
    let named = machines.iter().enumerate();
    let modules = named.map(|(n, machine)| format!("{}::m{n}", machine.ip())).collect();
    fs::write(rig.source.join("first"), "x")?;
    let more = More { args: vec!["-r".into()], modules, ..More::default() };
    let mut running = Running::launch(Tool::Sersync, &rig, &more)?;
    until_there(&rig.modules, "first", Instant::now());
    let frozen = if beside == Beside::FrozenThird { count / 3 } else { 0 };
    machines[..frozen].iter().for_each(Machine::freeze);
    let healthy = &rig.modules[frozen..];
    let loops = if beside == Beside::BusyLoops { BusyLoops::start()? } else { BusyLoops(vec![]) };

    let mut times = Vec::new();
    for round in 0..bench.size(10, 2) {
        rest(3 * SETTLE_MS);
        let name = format!("file{round}");
        fs::write(rig.source.join(&name), [b'x'; 1024])?;
        times.push(until_there(healthy, &name, Instant::now()));
    }
    rest(3 * SETTLE_MS);
    let files = bench.size(1_000, 20);
    let start = Instant::now();
    fs::create_dir(rig.source.join("burst"))?;
    for n in 0..files {
        fs::write(rig.source.join(format!("burst/f{n}")), [b'x'; 1024])?;
    }
    let burst = until_all(healthy, start, Duration::from_millis(20), |module| {
        entries(&module.join("burst")) == files
    });
    let resident_mib = proc::count(running.pid()).rss_kb as f64 / 1024.0;
    let said_down = running.says_how_often(" is down");
    drop(loops);
    if bench.options.short && beside == Beside::FrozenThird {
        // The stop waits for jobs of a frozen machine, at most ten seconds.
        machines.clear();
    }
    let stop = running.stop(LIMIT);
    let is_compared = beside == Beside::Nothing;
    let hand = |what| is_compared.then(|| by_hand(&rig, &machines, what)).transpose();
    let (one_by_hand, burst_by_hand) = (hand("first")?, hand("burst/")?);
    let one = median(&times);
    Ok(Found { one, burst, resident_mib, said_down, stop, one_by_hand, burst_by_hand })
}

/// How long one `rsync -a` of `what` to each remote takes.
fn by_hand(rig: &Rig, machines: &[Machine], what: &str) -> io::Result<Duration> {
    let start = Instant::now();
    let at_once = 2 * available_parallelism()?.get();
    let mut running = VecDeque::new();
    for (n, machine) in machines.iter().enumerate() {
        if running.len() == at_once {
            running.pop_front().map(|mut child: Child| child.wait()).transpose()?;
        }
        let destination = format!("rsync://{}:{}/m{n}/by-hand/", machine.ip(), rig.port());
        let mut rsync = rig.rsync(&["--sockopts=TCP_NODELAY"]);
        running.push_back(rsync.args([what, &destination]).spawn()?);
    }
    for mut child in running {
        child.wait()?;
    }
    Ok(start.elapsed())
}

/// Adds the rows. The targets apply to 200 remotes on an idle machine. Frozen remotes are correctly reported as down.
fn add(bench: &mut Bench, count: usize, beside: Beside, found: &Found) {
    let most = |is_asked: bool, most| if is_asked { Target::AtMost(most) } else { Target::None };
    let is_idle = count == 200 && beside == Beside::Nothing;
    let line = |what: &str, unit, target| Line {
        figure: "remotes",
        // Leaking is fine: a row lives as long as the program.
        what: format!("{count} remotes{}: {what}", beside.words()).leak(),
        unit,
        target,
    };
    let report = &mut bench.report;
    let one = line("1 KB file on all", Unit::Ms, most(is_idle, 350.0));
    report.add_time(one, Tool::Sersync, found.one);
    if found.one_by_hand.is_some() {
        report.add_time(one, Tool::Rsync, found.one_by_hand);
    }
    let burst = line("1,000 files on all", Unit::Seconds, most(is_idle, 8.0));
    report.add_time(burst, Tool::Sersync, found.burst);
    if found.burst_by_hand.is_some() {
        report.add_time(burst, Tool::Rsync, found.burst_by_hand);
    }
    let resident = line("resident", Unit::Mebibytes, most(is_idle, 60.0));
    report.add(resident, Tool::Sersync, Some(found.resident_mib));
    let down = line("said to be down", Unit::Count, most(beside != Beside::FrozenThird, 0.0));
    report.add(down, Tool::Sersync, Some(found.said_down as f64));
    report.add_time(line("stop", Unit::Seconds, Target::None), Tool::Sersync, found.stop);
}

fn until_there(modules: &[PathBuf], name: &str, start: Instant) -> Option<Duration> {
    let step = Duration::from_millis(1);
    until_all(modules, start, step, |module| module.join(name).symlink_metadata().is_ok())
}

/// Waits until a condition is true for all modules. It checks one at a time, to leave the processors to the mirror.
fn until_all(
    modules: &[PathBuf],
    start: Instant,
    step: Duration,
    holds: impl Fn(&Path) -> bool,
) -> Option<Duration> {
    let mut missing: Vec<_> = modules.iter().collect();
    until(start, 4 * LIMIT, step, || {
        while missing.last().is_some_and(|module| holds(module)) {
            missing.pop();
        }
        missing.is_empty()
    })
}

/// Processes that do nothing but take processor time.
struct BusyLoops(Vec<Child>);

impl BusyLoops {
    fn start() -> io::Result<Self> {
        let count = 2 * available_parallelism()?.get();
        let start = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Ok(Self((0..count).map(start).collect::<io::Result<_>>()?))
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}
