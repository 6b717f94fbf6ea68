//! Random changes at full speed during faults of every kind. Afterwards, when all is quiet, the trees are equal.
//! `scripts/soak SECONDS SEED` runs the long form.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::control::{run, snapshot};
use crate::support::forwarder::{Forwarder, Network};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::same::wait_until_same;
use crate::support::storm::{Chance, Storm};
use crate::support::{
    TestDir, children_of, free_port, kill, wait_for_content, wait_until, wait_until_within,
};

/// How long the trees may take to become equal when all is quiet.
const SETTLE: Duration = Duration::from_secs(40);

/// The maximum size of the state directory, however long the program runs: the trees have a few thousand entries.
const STATE_MAX: u64 = 16 << 20;

/// How soon a remote gets a change while other remotes are frozen.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn trees_are_equal_after_random_changes_with_kills_and_dead_daemons() {
    Trial::new(Chance::seed()).run(Duration::from_secs(6));
}

#[test]
fn deliveries_without_end_leave_a_bounded_state() {
    deliver_for(Duration::from_secs(1));
}

#[test]
#[ignore = "as long as asked: scripts/soak SECONDS"]
fn soak_of_deliveries() {
    deliver_for(asked());
}

/// Rewrites a few files again and again; the state directory stays small.
fn deliver_for(length: Duration) {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    let (start, mut count, mut largest) = (Instant::now(), 0_u64, 0);
    while start.elapsed() < length {
        for _ in 0..500 {
            count += 1;
            mirror.write(format!("d{}/f{}", count % 5, count % 50), format!("version {count}"));
        }
        mirror.write("last", format!("{count}"));
        wait_for_content(&daemon.at("last"), format!("{count}"));
        largest = largest.max(mirror.state_bytes());
        assert!(largest < STATE_MAX, "{largest} bytes after {count} writes");
    }
    eprintln!("{count} writes, at most {largest} bytes of state");
}

/// How long the soak runs.
fn asked() -> Duration {
    let seconds = std::env::var("SERSYNC_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

#[test]
#[ignore = "as long as asked: scripts/soak SECONDS"]
fn soak() {
    let end = Instant::now() + asked();
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
    /// The connections to the other remotes, which freeze from time to time. That to the first remote does not.
    ways: Vec<Forwarder>,
    /// The copies of the other remotes.
    beside: Vec<PathBuf>,
    log: String,
    _dir: TestDir,
}

impl Trial {
    /// An odd seed adds three remotes to the first one, with only two workers for all.
    fn new(seed: u64) -> Self {
        eprintln!("SERSYNC_SEED={seed}");
        let program = std::env::var_os("SERSYNC_OLD_RSYNC").map(PathBuf::from);
        let dir = TestDir::new();
        let names: Vec<String> = (0..3 * (seed % 2)).map(|n| format!("m{n}")).collect();
        let beside: Vec<PathBuf> = names.iter().map(|name| dir.dir(name)).collect();
        let module = |(name, path): (&String, &PathBuf)| {
            format!("\n[{name}]\npath = {}\nread only = no\n", path.display())
        };
        let daemon = Rsyncd::start_with(&Options {
            program: program.unwrap_or_else(|| "rsync".into()),
            module: names.iter().zip(&beside).map(module).collect(),
            ..Options::default()
        });
        let mut setup = Setup { params: "-artz".into(), on: vec!["attrib"], ..Setup::to(&daemon) };
        let mut ways = Vec::new();
        if !beside.is_empty() {
            setup.port = free_port();
            setup.args = vec!["-n".into(), "2".into()];
            // Each has its own address, so they count as remotes of different machines.
            for (host, name) in (200..).zip(names) {
                let way = Forwarder::start(host, setup.port, daemon.port);
                setup.remotes.push((way.ip(), name));
                ways.push(way);
            }
            let way = Forwarder::start(199, setup.port, daemon.port);
            setup.remotes[0].0 = way.ip();
            ways.insert(0, way);
        }
        let mirror = Mirror::start(&setup);
        mirror.wait_for_record();
        let (chance, log) = (Chance::new(!seed), String::new());
        Self { seed, chance, daemon, mirror, ways, beside, log, _dir: dir }
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
            // Pause from time to time, so that there are small batches as well as large ones.
            if self.chance.below(300) == 0 {
                std::thread::sleep(Duration::from_millis(self.chance.below(60)));
            }
        }
        let whose = format!("seed {}, {} changes, faults:{}", self.seed, storm.count, self.log);
        self.ways.iter_mut().for_each(|way| way.set(Network::Sound));
        self.wait_for_deletions();
        for copy in [&self.daemon.data].into_iter().chain(&self.beside) {
            wait_until_same(&self.mirror.source, copy, SETTLE, &whose);
        }
        let bytes = self.mirror.state_bytes();
        assert!(bytes < STATE_MAX, "{whose}: {bytes} bytes of state");
        eprintln!("{whose}: equal after {:?}", start.elapsed() - length);
    }

    fn fault(&mut self, storm: &mut Storm) {
        let name = match self.chance.below(14) {
            0 | 1 => {
                self.mirror.kill();
                self.mirror.launch();
                " kill -9"
            }
            2 => {
                self.mirror.kill();
                // The walk finds what changes during the downtime.
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
            7 => {
                self.mirror.wait_ready();
                self.mirror.restart();
                " TERM and start"
            }
            8 => {
                self.delete_state(storm);
                " state deleted"
            }
            9 => {
                self.swap_module(storm);
                " module swapped"
            }
            10 => {
                (0..30).for_each(|_| storm.save_in_steps());
                " saves in steps"
            }
            11 if !self.beside.is_empty() => {
                self.freeze_others();
                " others frozen"
            }
            12 if !self.beside.is_empty() => {
                self.ways.iter_mut().for_each(|way| way.set(Network::Sound));
                " others answer"
            }
            _ => {
                let big = self.mirror.at("big");
                let _ = fs::write(big, vec![self.seed as u8; 6 << 20]);
                " large file"
            }
        };
        self.log.push_str(name);
    }

    /// Deletes the state directory, as a cleaner of temporary files does. The program notices it at the next change.
    /// It waits for the end of the walk at the start: until then only the state directory knows what was deleted.
    fn delete_state(&mut self, storm: &mut Storm) {
        self.wait_for_deletions();
        let gone = self.mirror.dir.join("gone");
        fs::rename(self.mirror.dir.join("state"), &gone).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        wait_until("the state is made again", || {
            storm.step();
            self.mirror.has_record()
        });
    }

    /// Waits until the walk at the start is over and deletions are allowed. Nearly all of a large tree may go while the program is down;
    /// then the guard holds the deletions back, and the operator confirms them.
    fn wait_for_deletions(&self) {
        wait_until("deletions are allowed", || {
            let deletions = snapshot(&self.mirror)["roots"][0]["deletions"].clone();
            if deletions == "withheld" {
                run(&self.mirror, "confirm-deletions", &[]);
            }
            deletions == "allowed"
        });
    }

    /// Replaces the module's directory by an empty one at run time. The program cannot notice what is missing, so the operator orders a
    /// full sync.
    fn swap_module(&mut self, storm: &mut Storm) {
        let old = self.daemon.data.with_extension("old");
        fs::rename(&self.daemon.data, &old).unwrap();
        fs::create_dir(&self.daemon.data).unwrap();
        (0..self.chance.below(300)).for_each(|_| storm.step());
        self.mirror.kill();
        self.mirror.launch_with(&["-r"]);
        self.mirror.wait_ready();
        fs::remove_dir_all(&old).unwrap();
    }

    /// Freezes the other remotes; the first one must still be served.
    fn freeze_others(&mut self) {
        self.ways[1..].iter_mut().for_each(|way| way.set(Network::Silent));
        let beacon = format!("beacon{}", self.log.len());
        self.mirror.write(&beacon, "x");
        let copy = self.daemon.at(&beacon);
        let what = format!("{beacon} beside frozen remotes, seed {}:{}", self.seed, self.log);
        wait_until_within(&what, SOON, || copy.exists());
    }
}
