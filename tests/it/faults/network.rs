//! One remote of three behind a network that fails: the other two stay quick, and it catches up when it is back.
//! The failures are made by a forwarder in front of each daemon.

use std::time::{Duration, Instant};

use crate::support::forwarder::{Forwarder, Network};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::{differences, wait_until_same};
use crate::support::{LIMIT, free_port, wait_for_content, wait_until};

/// Three daemons, each behind a forwarder, and the mirror that feeds them.
struct Three {
    daemons: Vec<Rsyncd>,
    forwarders: Vec<Forwarder>,
    mirror: Mirror,
}

impl Three {
    fn start() -> Self {
        let daemons: Vec<_> = (0..3).map(|_| Rsyncd::start()).collect();
        let port = free_port();
        let forward = |(host, daemon): (u8, &Rsyncd)| Forwarder::start(host, port, daemon.port);
        let forwarders: Vec<_> = (2..).zip(&daemons).map(forward).collect();
        let remotes = forwarders.iter().map(|f| (f.ip(), "data".to_string())).collect();
        let mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemons[0]) });
        mirror.write("first", "x");
        daemons.iter().for_each(|daemon| wait_for_content(&daemon.at("first"), "x"));
        Self { daemons, forwarders, mirror }
    }

    /// The third remote's network fails for `length` under load.
    fn try_failure(&mut self, failure: Network, length: Duration) {
        self.forwarders[2].set(failure);
        let start = Instant::now();
        let mut latencies = Vec::new();
        let mut count = 0;
        while start.elapsed() < length {
            count += 1;
            let (name, begin) = (format!("d{}/f{count}", count % 7), Instant::now());
            self.mirror.write(&name, &name);
            for daemon in &self.daemons[..2] {
                wait_for_content(&daemon.at(&name), &name);
            }
            latencies.push(begin.elapsed());
            std::thread::sleep(Duration::from_millis(30));
        }
        latencies.sort();
        let (median, worst) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
        assert!(count > 20, "only {count} files");
        assert!(median < Duration::from_millis(300), "the others took {median:?} ({worst:?})");
        assert!(worst < Duration::from_secs(2), "one change took {worst:?} to reach the others");
        assert!(!differences(&self.mirror.source, &self.daemons[2].data).is_empty());
        self.forwarders[2].set(Network::Sound);
        let back = Instant::now();
        let (source, third) = (&self.mirror.source, &self.daemons[2].data);
        // How soon is the engine's promise, kept on virtual time in `src/engine/comeback.rs`; here it is printed.
        wait_until_same(source, third, LIMIT, "the third remote after its return");
        let (length, soon) = (length.as_secs(), back.elapsed());
        eprintln!(
            "{failure:?} for {length} s: others {median:?} ({worst:?}), caught up in {soon:?}"
        );
    }
}

#[test]
fn a_remote_that_refuses_delays_no_other_and_catches_up() {
    let mut three = Three::start();
    three.try_failure(Network::Refusing, Duration::from_secs(5));
    three.mirror.wait_for_output("127.0.0.4::data is down");
    three.mirror.wait_for_output("127.0.0.4::data is back");
}

#[test]
fn a_remote_in_a_black_hole_delays_no_other_and_catches_up() {
    Three::start().try_failure(Network::BlackHole, Duration::from_secs(6));
}

#[test]
fn a_remote_that_accepts_and_says_nothing_delays_no_other_and_catches_up() {
    let mut three = Three::start();
    three.try_failure(Network::Silent, Duration::from_secs(7));
}

#[test]
#[ignore = "takes two minutes: scripts/soak runs it"]
fn thirty_seconds_without_a_remote_are_made_good_soon_after() {
    for failure in [Network::Refusing, Network::BlackHole, Network::Silent] {
        Three::start().try_failure(failure, Duration::from_secs(30));
    }
}

#[test]
fn a_transfer_that_is_cut_leaves_no_temporary_file_on_the_remote() {
    let mut daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(5, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemon) });
    mirror.write("d/first", "x");
    wait_for_content(&daemon.at("d/first"), "x");
    forwarder.set_rate(2 << 20);
    let noise: Vec<u8> = (0..8u64 << 20).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
    mirror.write("d/big", &noise);
    let dir = daemon.at("d");
    let temporary = || {
        let names = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".big.")).count()
    };
    wait_until("the transfer is under way", || temporary() > 0);
    daemon.stop();
    assert_eq!(temporary(), 1, "a killed receiver leaves its temporary file");
    mirror.wait_for_output("is down");
    daemon.start_again();
    wait_for_content(&daemon.at("d/big"), &noise);
    let data = daemon.at("d");
    wait_until("nothing is left of the first try", || {
        std::fs::read_dir(&data).unwrap().count() == 2
    });
    wait_until_same(&mirror.source, &daemon.data, Duration::from_secs(5), "after the cut");
}
