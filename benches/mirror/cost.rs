//! The cost of safety and observation: constant status requests, rsync's confinement, confirmations of deliveries.
//! Each figure is the ratio of with to without, in one run. Measures sersync2 only.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::latency::singles;
use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries, fill};
use super::tool::{LIMIT, More, Running, SETTLE_MS, Tool};
use super::{Bench, median, rest, until};
use crate::support::free_port;

/// The two sides of a comparison. They are measured alternately, so that a machine that slows down does not count as a cost.
fn turns(bench: &Bench) -> Vec<Side> {
    [Side::Without, Side::With].repeat(bench.size(2, 1))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Without,
    With,
}

type Times = Vec<Option<Duration>>;

/// The times of both sides.
#[derive(Debug, Default)]
struct Both {
    without: Times,
    with: Times,
}

impl Both {
    fn add(&mut self, side: Side, times: Times) {
        match side {
            Side::Without => self.without.extend(times),
            Side::With => self.with.extend(times),
        }
    }

    /// Reports both medians and their ratio.
    fn report(&self, bench: &mut Bench, [without, with, over]: [Line; 3]) {
        let (least, most) = (median(&self.without), median(&self.with));
        bench.report.add_time(without, Tool::Sersync, least);
        bench.report.add_time(with, Tool::Sersync, most);
        let ratio = least.zip(most).map(|(least, most)| most.as_secs_f64() / least.as_secs_f64());
        bench.report.add(over, Tool::Sersync, ratio);
    }
}

/// Without observers; then with the page open and ten status requests per second.
pub fn snapshot(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "snapshot", what, unit, target };
    let (mut single, mut storm) = (Both::default(), Both::default());
    for side in turns(bench) {
        let rig = Rig::new(Reach::Loopback)?;
        let port = free_port();
        let head = format!("<host hostip=\"localhost\" port=\"{port}\"/>");
        let running = Running::launch(Tool::Sersync, &rig, &More { head, ..More::default() })?;
        running.prove(&rig)?;
        let looker = (side == Side::With).then(|| Looker::start(port));
        single.add(side, singles(&rig, bench.size(50, 2))?);
        storm.add(side, vec![many(&rig, bench.size(3_000, 100))?]);
        drop(looker);
    }
    let ratio = |what| line(what, Unit::Times, Target::AtMost(1.2));
    single.report(
        bench,
        [
            line("1 KB file, nobody looks, median", Unit::Ms, Target::None),
            line("... the page is open, and /status is read all the time", Unit::Ms, Target::None),
            ratio("... over the time without"),
        ],
    );
    storm.report(
        bench,
        [
            line("3,000 files, nobody looks, until they are there", Unit::Seconds, Target::None),
            line("... the page is open, and /status is read", Unit::Seconds, Target::None),
            ratio("... over the time without (3,000 files)"),
        ],
    );
    Ok(())
}

fn many(rig: &Rig, files: usize) -> io::Result<Option<Duration>> {
    let (dirs, before) = (30, entries(rig.remote()));
    let start = Instant::now();
    fill(&rig.source, dirs, files, 1024)?;
    let is_there = || entries(rig.remote()) == before + dirs + files;
    Ok(until(start, LIMIT, Duration::from_millis(2), is_there))
}

/// An observer with the page open that requests the status repeatedly; it ends when dropped.
struct Looker {
    events: TcpStream,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Looker {
    fn start(port: u16) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let mut events = get(port, "/events").expect("the page is served");
        let reading = events.try_clone().expect("a descriptor");
        let reader = std::thread::spawn(move || _ = io::copy(&mut { reading }, &mut io::sink()));
        let stop = Arc::clone(&ended);
        let asker = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = get(port, "/status").and_then(|mut stream| {
                    let mut text = String::new();
                    stream.read_to_string(&mut text).map(|_| text)
                });
                let is_answer = answer.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200"));
                assert!(is_answer, "/status: {answer:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        _ = events.flush();
        Self { events, ended, threads: vec![reader, asker] }
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        _ = self.events.shutdown(Shutdown::Both);
        self.threads.drain(..).for_each(|thread| thread.join().expect("the status was read"));
    }
}

fn get(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Each change starts its own run (`<session ready="0"/>`), so that the start of rsync is part of the time.
pub fn confinement(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "confine", what, unit, target };
    let (mut latency, mut used) = (Both::default(), Both::default());
    let rounds = bench.size(40, 2);
    for side in turns(bench) {
        let rig = Rig::new(Reach::Loopback)?;
        let env = if side == Side::Without { vec![("SERSYNC_UNCONFINED", "1")] } else { vec![] };
        let rsync = "<session ready=\"0\"/>";
        let running =
            Running::launch(Tool::Sersync, &rig, &More { env, rsync, ..More::default() })?;
        running.prove(&rig)?;
        let before = running.cpu();
        latency.add(side, singles(&rig, rounds)?);
        used.add(side, vec![Some((running.cpu() - before) / rounds as u32)]);
    }
    latency.report(
        bench,
        [
            line("1 KB file by a run of its own, not confined, median", Unit::Ms, Target::None),
            line("... confined", Unit::Ms, Target::None),
            line("... over the time without", Unit::Times, Target::AtMost(1.2)),
        ],
    );
    used.report(
        bench,
        [
            line("... processor time of a change, not confined", Unit::Ms, Target::None),
            line("... processor time of a change, confined", Unit::Ms, Target::None),
            line("... over the processor time without", Unit::Times, Target::AtMost(1.2)),
        ],
    );
    Ok(())
}

/// A delivery through a ready session is compared again two seconds later. The delivery itself does not wait for that.
pub fn confirmation(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit| Line { figure: "confirm", what, unit, target: Target::None };
    let one = (1, ["one file", "one file's confirmation"]);
    let many = (100, ["100 files", "100 files' confirmation"]);
    for (files, what) in bench.size(vec![one, many], vec![many]) {
        let rig = Rig::new(Reach::Counted)?;
        let running = Running::start(Tool::Sersync, &rig)?;
        let (mut delivery, mut confirmation) = (Spent::default(), Spent::default());
        let rounds = bench.size(10, 1);
        for round in 0..rounds {
            // Let sessions become ready, and earlier confirmations end.
            fs::write(rig.source.join("before"), format!("{round}"))?;
            rest(3_500);
            let start = Spent::so_far(&rig, &running);
            let dir = rig.source.join(format!("{files} files, round {round}"));
            fs::create_dir(&dir)?;
            (0..files).try_for_each(|n| fs::write(dir.join(format!("file{n}")), [b'x'; 1024]))?;
            let copy = rig.remote().join(dir.file_name().unwrap_or_default());
            until(Instant::now(), LIMIT, Duration::from_millis(5), || entries(&copy) == files);
            rest(2 * SETTLE_MS);
            let delivered = Spent::so_far(&rig, &running);
            rest(3_000);
            let confirmed = Spent::so_far(&rig, &running);
            delivery.add(start, delivered);
            confirmation.add(delivered, confirmed);
        }
        let [first, second] = what;
        let named = |whose: &str, what: &str, unit| line(format!("{whose}: {what}").leak(), unit);
        let report = &mut bench.report;
        for (spent, whose) in [(delivery, first), (confirmation, second)] {
            let each = spent.cpu / rounds;
            report.add_time(named(whose, "processor time", Unit::Ms), Tool::Sersync, Some(each));
            let bytes = spent.bytes as f64 / f64::from(rounds);
            report.add(named(whose, "bytes on the wire", Unit::Count), Tool::Sersync, Some(bytes));
        }
        // At least one tick of the kernel's counter.
        let tick = Duration::from_millis(10);
        let over = confirmation.cpu.as_secs_f64() / delivery.cpu.max(tick).as_secs_f64();
        let ratio = named(second, "over the delivery, processor time", Unit::Times);
        report.add(ratio, Tool::Sersync, Some(over));
        let over = confirmation.bytes as f64 / delivery.bytes.max(1) as f64;
        let ratio = named(second, "over the delivery, bytes", Unit::Times);
        report.add(ratio, Tool::Sersync, Some(over));
    }
    Ok(())
}

/// Processor time of the mirror and what it starts, and bytes on the wire.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    cpu: Duration,
    bytes: u64,
}

impl Spent {
    fn so_far(rig: &Rig, running: &Running) -> Self {
        Self { cpu: running.cpu(), bytes: rig.wire_bytes() }
    }

    fn add(&mut self, from: Self, to: Self) {
        self.cpu += to.cpu.saturating_sub(from.cpu);
        self.bytes += to.bytes - from.bytes;
    }
}
