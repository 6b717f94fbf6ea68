//! `-r`: a full sync of 100,000 files in 10,000 directories to an empty remote and to an equal one.
//! Compared with one `rsync -a` of the same tree by hand.

use std::io;
use std::time::{Duration, Instant};

use super::report::{Line, Target, Unit};
use super::rig::{Reach, Rig, entries, fill};
use super::tool::{More, Running, Tool};
use super::{Bench, median};
use crate::support::tmpfs::Tmpfs;

const LIMIT: Duration = Duration::from_secs(300);

/// Local and through a long round trip.
pub fn full_sync(bench: &mut Bench) -> io::Result<()> {
    let line = |what, unit, target| Line { figure: "full-sync", what, unit, target };
    let seconds = |what| line(what, Unit::Seconds, Target::None);
    let times = |what, least| line(what, Unit::Times, Target::AtLeast(least));
    one(
        bench,
        Reach::Loopback,
        (seconds("100,000 files to an empty daemon"), times("... faster than rsync -a by", 1.3)),
        (seconds("100,000 files to an equal daemon"), times("... than rsync -a by", 1.3)),
    )?;
    one(
        bench,
        Reach::RoundTrip,
        (
            seconds("100,000 files through 40 ms, empty"),
            times("... faster than rsync -a through 40 ms by", 1.7),
        ),
        (
            seconds("100,000 files through 40 ms, equal"),
            times("... than rsync -a through 40 ms by", 1.7),
        ),
    )
}

fn one(
    bench: &mut Bench,
    reach: Reach,
    empty: (Line, Line),
    equal: (Line, Line),
) -> io::Result<()> {
    let rig = Rig::new(reach)?;
    let (dirs, files) = bench.size((10_000, 100_000), (50, 500));
    // A realistic tree: a hundred directories with a hundred each.
    for top in 0..100.min(dirs) {
        let (dirs, files) = (dirs / 100.min(dirs), files / 100.min(dirs));
        fill(&rig.source.join(format!("top{top:03}")), dirs, files, 200)?;
    }
    // A remote is another machine. So its writes must not be on the source's file system, which fanotify watches.
    let _own_file_system = Tmpfs::mount(rig.remote(), "mode=755");
    for (is_empty, (time, factor)) in [(true, empty), (false, equal)] {
        let rounds = bench.size(if is_empty { 3 } else { 5 }, 1);
        let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            if is_empty {
                clear(&rig)?;
            }
            by_hand.push(Some(rig.by_hand(&[])?.0));
            if is_empty {
                clear(&rig)?;
            }
            ours.push(sersync(&rig)?);
        }
        let (ours, by_hand) = (median(&ours), median(&by_hand));
        bench.report.add_time(time, Tool::Sersync, ours);
        bench.report.add_time(time, Tool::Rsync, by_hand);
        if let (Some(ours), Some(by_hand)) = (ours, by_hand) {
            let value = by_hand.as_secs_f64() / ours.as_secs_f64();
            bench.report.add(factor, Tool::Sersync, Some(value));
        }
    }
    Ok(())
}

/// The time from the start of the program until it reports that the full sync is done.
fn sersync(rig: &Rig) -> io::Result<Option<Duration>> {
    // The record of the last run must not help.
    _ = std::fs::remove_dir_all(rig.dir.join("state"));
    let start = Instant::now();
    let more = More { args: vec!["-r".into()], ..More::default() };
    let running = Running::launch(Tool::Sersync, rig, &more)?;
    let done = running.says(" is done in ", start, LIMIT);
    let equal = entries(&rig.source) == entries(rig.remote());
    Ok(done.filter(|_| equal))
}

fn clear(rig: &Rig) -> io::Result<()> {
    for entry in std::fs::read_dir(rig.remote())? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}
