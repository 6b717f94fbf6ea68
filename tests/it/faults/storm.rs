//! Random changes at full speed while everything around them breaks; then quiet, and equal trees.
//! `scripts/soak SECONDS` runs the long form; `SERSYNC_SEED` repeats a run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::same::wait_until_same;
use crate::support::storm::{Chance, Storm};
use crate::support::{children_of, kill};

/// How long the trees may take to become equal when all is quiet.
const SETTLE: Duration = Duration::from_secs(40);

#[test]
fn trees_are_equal_after_random_changes_with_kills_and_dead_daemons() {
    Trial::new(Chance::seed()).run(Duration::from_secs(6));
}

#[test]
#[ignore = "as long as asked: scripts/soak SECONDS"]
fn soak() {
    let seconds = std::env::var("SERSYNC_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let mut seed = Chance::seed();
    let mut rounds = 0;
    while Instant::now() < end {
        Trial::new(seed).run(Duration::from_secs(10));
        seed = seed.wrapping_add(1);
        rounds += 1;
    }
    eprintln!("{rounds} rounds, all trees equal");
}

/// A mirror, its remote, and what happens to them.
struct Trial {
    seed: u64,
    chance: Chance,
    daemon: Rsyncd,
    mirror: Mirror,
    log: String,
}

impl Trial {
    fn new(seed: u64) -> Self {
        eprintln!("SERSYNC_SEED={seed}");
        let program = std::env::var_os("SERSYNC_OLD_RSYNC").map(PathBuf::from);
        let daemon = Rsyncd::start_with(&Options {
            program: program.unwrap_or_else(|| "rsync".into()),
            ..Options::default()
        });
        let setup = Setup { params: "-artz".into(), on: vec!["attrib"], ..Setup::to(&daemon) };
        let mirror = Mirror::start(&setup);
        mirror.wait_for_record();
        Self { seed, chance: Chance::new(!seed), daemon, mirror, log: String::new() }
    }

    fn run(mut self, length: Duration) {
        let outside = self.mirror.dir.dir("outside");
        let mut storm = Storm::new(&self.mirror.source, &outside, self.seed);
        let start = Instant::now();
        let mut next_fault = Duration::ZERO;
        while start.elapsed() < length {
            storm.step();
            if start.elapsed() >= next_fault {
                self.fault(&mut storm);
                next_fault = start.elapsed() + Duration::from_millis(self.chance.below(900));
            }
            // Now and then a pause, so that small batches occur as well as large ones.
            if self.chance.below(300) == 0 {
                std::thread::sleep(Duration::from_millis(self.chance.below(60)));
            }
        }
        let whose = format!("seed {}, {} changes, faults:{}", self.seed, storm.count, self.log);
        wait_until_same(&self.mirror.source, &self.daemon.data, SETTLE, &whose);
        eprintln!("{whose}: equal after {:?}", start.elapsed() - length);
    }

    fn fault(&mut self, storm: &mut Storm) {
        let name = match self.chance.below(8) {
            0 | 1 => {
                self.mirror.kill();
                self.mirror.launch();
                " kill -9"
            }
            2 => {
                self.mirror.kill();
                // What changes meanwhile is found by the walk.
                (0..self.chance.below(2_000)).for_each(|_| storm.step());
                self.mirror.launch();
                " kill -9 and changes"
            }
            3 => {
                self.mirror.wait_ready();
                assert!(self.mirror.stop().success());
                (0..self.chance.below(500)).for_each(|_| storm.step());
                self.mirror.launch();
                " stop"
            }
            4 => {
                self.daemon.stop();
                (0..self.chance.below(1_000)).for_each(|_| storm.step());
                self.daemon.start_again();
                " daemon"
            }
            5 => {
                for child in children_of(self.mirror.pid()) {
                    kill(child);
                }
                " children"
            }
            6 => {
                self.mirror.signal(Signal::STOP);
                (0..self.chance.below(1_000)).for_each(|_| storm.step());
                self.mirror.signal(Signal::CONT);
                " stopped for a moment"
            }
            _ => {
                let big = self.mirror.at("big");
                let _ = fs::write(big, vec![self.seed as u8; 6 << 20]);
                " large file"
            }
        };
        self.log.push_str(name);
    }
}
