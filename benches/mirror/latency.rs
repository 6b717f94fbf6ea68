//! How long one change takes from the close of the file until it is visible on the remote.
//! bulk.rs and stream.rs measure many changes.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, median, percentile, rest, until};

const KILOBYTE: [u8; 1024] = [b'x'; 1024];
/// How often the remote is checked.
const STEP: Duration = Duration::from_micros(50);

fn line(figure: &'static str, what: &'static str, target: Target) -> Line {
    Line { figure, what, unit: Unit::Ms, target }
}

/// Writes a file and returns the moment of its close.
fn write(rig: &Rig, name: &str) -> io::Result<Instant> {
    fs::write(rig.source.join(name), KILOBYTE)?;
    Ok(Instant::now())
}

fn visible(rig: &Rig, name: &str, since: Instant) -> Option<Duration> {
    let copy = rig.remote().join(name);
    until(since, LIMIT, STEP, || copy.symlink_metadata().is_ok())
}

/// Changes one by one, each after a rest.
pub fn singles(rig: &Rig, count: usize) -> io::Result<Vec<Option<Duration>>> {
    let one = |n| {
        let name = format!("single{n}");
        let since = write(rig, &name)?;
        let time = visible(rig, &name, since);
        rest(SETTLE_MS);
        Ok(time)
    };
    (0..count).map(one).collect()
}

/// Two changes: the second one is written as soon as the first one is closed.
fn seconds(rig: &Rig, count: usize) -> io::Result<Vec<Option<Duration>>> {
    let one = |n| {
        write(rig, &format!("before{n}"))?;
        rest(1);
        let name = format!("after{n}");
        let since = write(rig, &name)?;
        let time = visible(rig, &name, since);
        rest(SETTLE_MS);
        Ok(time)
    };
    (0..count).map(one).collect()
}

/// Ten changes 20 ms apart, each with its own time.
fn ten_in_a_row(rig: &Rig, rounds: usize) -> io::Result<Vec<Option<Duration>>> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let mut written = Vec::new();
        let begin = Instant::now();
        let mut open: Vec<(String, Instant)> = Vec::new();
        while times.len() + open.len() < (round + 1) * 10 || !open.is_empty() {
            let due = begin + Duration::from_millis(20) * written.len() as u32;
            if written.len() < 10 && Instant::now() >= due {
                let name = format!("row{round}-{}", written.len());
                let since = write(rig, &name)?;
                written.push(name.clone());
                open.push((name, since));
            }
            open.retain(|(name, since)| {
                let age = since.elapsed();
                let arrived = rig.remote().join(name).symlink_metadata().is_ok();
                if arrived || age > LIMIT {
                    times.push(arrived.then_some(age));
                }
                !arrived && age <= LIMIT
            });
            std::thread::sleep(STEP);
        }
        rest(1000);
    }
    Ok(times)
}

/// A file in three new nested directories, each made 5 ms after the one before.
fn in_new_directories(rig: &Rig, count: usize) -> io::Result<Vec<Option<Duration>>> {
    let one = |n| {
        let mut name = String::new();
        for directory in [format!("new{n}"), "/below".into(), "/below".into()] {
            name += &directory;
            fs::create_dir(rig.source.join(&name))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        name += "/file";
        let since = write(rig, &name)?;
        let time = visible(rig, &name, since);
        rest(2 * SETTLE_MS);
        Ok(time)
    };
    (0..count).map(one).collect()
}

/// `rsync -a` of one file by hand, from its start until the file is visible.
fn by_hand(rig: &Rig, count: usize) -> io::Result<Vec<Option<Duration>>> {
    let one = |n| {
        let name = format!("hand{n}");
        let since = write(rig, &name)?;
        let mut child = rig.rsync(&[]).arg(&name).arg(rig.destination()).spawn()?;
        let time = visible(rig, &name, since);
        child.wait()?;
        Ok(time)
    };
    (0..count).map(one).collect()
}

/// To a daemon on this machine.
pub fn loopback(bench: &mut Bench) -> io::Result<()> {
    let single = line("latency", "1 KB file to a daemon, median", Target::AtMost(5.0));
    let single_99 = line("latency", "1 KB file to a daemon, p99", Target::AtMost(20.0));
    let second = line("latency", "a second one right after the first, median", Target::AtMost(5.0));
    let second_99 =
        line("latency", "a second one right after the first, p99", Target::AtMost(20.0));
    let row = line("latency", "ten changes 20 ms apart, median", Target::AtMost(5.0));
    let row_99 = line("latency", "ten changes 20 ms apart, p99", Target::AtMost(20.0));
    let new = line("latency", "in directories made 5 ms before, median", Target::AtMost(5.0));
    let rig = Rig::new(Reach::Loopback)?;
    let times = by_hand(&rig, bench.size(20, 2))?;
    bench.report.add_time(single, Tool::Rsync, median(&times));
    bench.report.add_time(single_99, Tool::Rsync, percentile(&times, 99));
    for tool in bench.mirrors.clone() {
        let rig = Rig::new(Reach::Loopback)?;
        let _running = Running::start(tool, &rig)?;
        let full = if tool == Tool::Sersync { 100 } else { 20 };
        let times = singles(&rig, bench.size(full, 2))?;
        bench.report.add_time(single, tool, median(&times));
        bench.report.add_time(single_99, tool, percentile(&times, 99));
        let times = seconds(&rig, bench.size(full / 2, 2))?;
        bench.report.add_time(second, tool, median(&times));
        bench.report.add_time(second_99, tool, percentile(&times, 99));
        let times = ten_in_a_row(&rig, bench.size(full / 10, 1))?;
        bench.report.add_time(row, tool, median(&times));
        bench.report.add_time(row_99, tool, percentile(&times, 99));
        let times = in_new_directories(&rig, bench.size(full / 5, 1))?;
        bench.report.add_time(new, tool, median(&times));
    }
    Ok(())
}

/// Over a round trip of 40 ms.
pub fn round_trip(bench: &mut Bench) -> io::Result<()> {
    let what =
        line("round-trip", "1 KB file through a 40 ms round trip, median", Target::AtMost(75.0));
    reached(bench, Reach::RoundTrip, what)
}

/// Over ssh.
pub fn ssh(bench: &mut Bench) -> io::Result<()> {
    let what = line("ssh", "1 KB file over ssh, median", Target::AtMost(10.0));
    reached(bench, Reach::Ssh, what)
}

fn reached(bench: &mut Bench, reach: Reach, line: Line) -> io::Result<()> {
    let count = bench.size(15, 1);
    let rig = Rig::new(reach)?;
    let times = by_hand(&rig, count)?;
    bench.report.add_time(line, Tool::Rsync, median(&times));
    for tool in bench.mirrors.clone() {
        let rig = Rig::new(reach)?;
        let _running = Running::start(tool, &rig)?;
        rest(SETTLE_MS);
        let times = singles(&rig, count)?;
        bench.report.add_time(line, tool, median(&times));
    }
    Ok(())
}

/// After a long idle time, when no session is ready any more, or one that stays (`<session idle>`). Several mirrors are idle at the
/// same time.
pub fn rest_of_a_minute(bench: &mut Bench) -> io::Result<()> {
    let cold = |what, ms| line("rest", what, Target::AtMost(ms));
    let stays = "<session idle=\"1\"/>";
    let lines = [
        (Reach::Loopback, "", cold("1 KB file after a minute's rest (no session), median", 12.0)),
        (Reach::Ssh, "", cold("the same over ssh, median", 20.0)),
        (Reach::RoundTrip, "", cold("the same through a 40 ms round trip, median", 80.0)),
        (Reach::Ssh, stays, cold("the same over ssh with a session that stays, median", 20.0)),
        (
            Reach::RoundTrip,
            stays,
            cold("... through a 40 ms round trip with a session that stays, median", 80.0),
        ),
    ];
    let mut resting = Vec::new();
    for (reach, rsync, line) in lines {
        if rsync.is_empty() {
            let rig = Rig::new(reach)?;
            bench.report.add_time(line, Tool::Rsync, median(&by_hand(&rig, bench.size(5, 1))?));
        }
        for _ in 0..bench.size(3, 1) {
            let rig = Rig::new(reach)?;
            let running = Running::launch(Tool::Sersync, &rig, &More { rsync, ..More::default() })?;
            running.prove(&rig)?;
            // Do not measure the first contact.
            let since = write(&rig, "before the rest")?;
            visible(&rig, "before the rest", since);
            resting.push((line, rig, running));
        }
    }
    rest(bench.options.rest_s * 1000);
    for (.., line) in lines {
        let mut times = Vec::new();
        for (_, rig, _) in resting.iter().filter(|(of, ..)| of.what == line.what) {
            let since = write(rig, "after the rest")?;
            times.push(visible(rig, "after the rest", since));
            // Several sessions are started now; wait, so that they do not disturb the next measurement.
            rest(10 * SETTLE_MS);
        }
        bench.report.add_time(line, Tool::Sersync, median(&times));
    }
    Ok(())
}

/// While a large file is being sent.
pub fn beside_a_large_file(bench: &mut Bench) -> io::Result<()> {
    let what = line("large", "1 KB file while 600 MB are under way, median", Target::AtMost(10.0));
    let megabytes = bench.size(600, 20);
    for tool in bench.mirrors.clone() {
        let rig = Rig::new(Reach::Loopback)?;
        let _running = Running::start(tool, &rig)?;
        fs::write(rig.dir.join("large"), vec![b'y'; megabytes << 20])?;
        fs::rename(rig.dir.join("large"), rig.source.join("large"))?;
        let mut times = Vec::new();
        let mut n = 0;
        while rig.remote().join("large").symlink_metadata().is_err() && n < 50 {
            let name = format!("beside{n}");
            let since = write(&rig, &name)?;
            times.push(visible(&rig, &name, since));
            rest(100);
            n += 1;
        }
        bench.report.add_time(what, tool, median(&times));
    }
    Ok(())
}
