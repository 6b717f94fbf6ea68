//! The cost of a change with little or nothing to send: processor time here and bytes on the wire, including sessions.
//! Does not wait for arrivals, because mostly nothing is sent.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig};
use super::tool::{Running, SETTLE_MS, Tool};
use super::{Bench, rest};

/// The names of its two rows, and an operation on a file.
type Event = (&'static str, &'static str, fn(&Path) -> io::Result<()>);

const EVENTS: [Event; 3] = [
    (
        "a file opened for writing and closed again, processor time",
        "... bytes on the wire (opened)",
        open_and_close,
    ),
    ("a file with a new time only, processor time", "... bytes on the wire (new time)", touch),
    ("1 KB rewritten, processor time", "... bytes on the wire (rewritten)", rewrite),
];

/// Measures one event after the other, with enough time in between for all sessions to end.
pub fn nothing(bench: &mut Bench) -> io::Result<()> {
    let rounds = bench.size(20, 3);
    for tool in bench.mirrors.iter().copied().filter(|tool| *tool != Tool::Loop) {
        for (time, wire, event) in EVENTS {
            let rig = Rig::new(Reach::Counted)?;
            let file = rig.source.join("file");
            fs::write(&file, [b'x'; 1024])?;
            rig.equalise()?;
            let running = Running::start(tool, &rig)?;
            rest(2 * SETTLE_MS);
            let (bytes_before, cpu_before) = (rig.wire_bytes(), running.cpu());
            for _ in 0..rounds {
                event(&file)?;
                rest(SETTLE_MS);
            }
            let cpu = (running.cpu() - cpu_before) / rounds;
            let bytes = (rig.wire_bytes() - bytes_before) / u64::from(rounds);
            let line = |what, unit| Line { figure: "nothing", what, unit, target: Target::None };
            bench.report.add_time(line(time, Unit::Ms), tool, Some(cpu));
            bench.report.add(line(wire, Unit::Count), tool, Some(bytes as f64));
        }
    }
    Ok(())
}

fn open_and_close(file: &Path) -> io::Result<()> {
    File::options().append(true).open(file).map(drop)
}

fn touch(file: &Path) -> io::Result<()> {
    File::options().append(true).open(file)?.set_modified(SystemTime::now())
}

fn rewrite(file: &Path) -> io::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fs::write(file, format!("{:>1024}", now.as_nanos()))
}
