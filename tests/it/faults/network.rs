//! A transfer that ends because the receiver or the sender dies: nothing of it stays.
//! `outages.rs` tests whole outages, and their effect on other remotes.

use std::time::Duration;

use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::{is_left_alone, wait_until_same};
use crate::support::{
    LIMIT, children_of, free_port, is_running, kill, wait_for_content, wait_until,
};

#[test]
fn a_transfer_that_is_cut_leaves_no_temporary_file_on_the_remote() {
    let mut daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(5, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemon) });
    mirror.write("d/first", "x");
    wait_for_content(&daemon.at("d/first"), "x");
    forwarder.set_rate(Some(2 << 20));
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
        let names = std::fs::read_dir(&data).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| !is_left_alone(name)).count() == 2
    });
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "after the cut");
}

#[test]
fn what_a_run_that_was_broken_off_has_sent_does_not_stay_when_it_arrives_late() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(8, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let params = "-artu".into();
    let mirror = Mirror::start(&Setup { remotes, port, params, ..Setup::to(&daemon) });
    mirror.write("first", "x");
    wait_for_content(&daemon.at("first"), "x");
    let outside = mirror.dir.dir("outside");
    let noise: Vec<u8> = (0..256u64 << 10).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
    std::fs::write(outside.join("a-large"), &noise).unwrap();
    std::fs::write(outside.join("file"), "old").unwrap();
    forwarder.hold_back();
    std::fs::rename(&outside, mirror.at("d")).unwrap();
    // The data except the beginning is still in the network, and the sender waits for an answer.
    let mut before = 0;
    wait_until("all is sent", || {
        std::thread::sleep(Duration::from_millis(100));
        let held = forwarder.held();
        std::mem::replace(&mut before, held) == held && held > noise.len() - (64 << 10)
    });
    forwarder.hold_back_only_these();
    children_of(mirror.pid()).into_iter().for_each(kill);
    mirror.write("d/file", "new");
    wait_for_content(&daemon.at("d/file"), "new");
    // This write is sent after all of it.
    mirror.write("d/after", "x");
    wait_for_content(&daemon.at("d/after"), "x");
    forwarder.release();
    wait_for_content(&daemon.at("d/file"), "old");
    wait_for_content(&daemon.at("d/file"), "new");
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "in the end");
}

#[test]
fn what_a_killed_program_left_at_work_is_ended_and_cleared_away() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(9, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let mut mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemon) });
    mirror.write("d/first", "x");
    wait_for_content(&daemon.at("d/first"), "x");
    forwarder.set_rate(Some(64 << 10));
    let noise: Vec<u8> = (0..8u64 << 20).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
    mirror.write("d/large", &noise);
    let dir = daemon.at("d");
    let names = || std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name());
    wait_until("the transfer is under way", || {
        names().any(|name| name.to_string_lossy().starts_with(".large."))
    });
    let left = children_of(mirror.pid());
    mirror.kill();
    let is_at_work = || left.iter().any(|pid| is_running(*pid));
    assert!(is_at_work(), "nothing outlives the program");
    std::fs::write(mirror.at("d/large"), "new").unwrap();
    mirror.launch();
    mirror.wait_for_output("that the last run had left at work");
    wait_until("nothing of the last run is at work", || !is_at_work());
    forwarder.set_rate(None);
    wait_for_content(&daemon.at("d/large"), "new");
    let is_clean = || names().filter(|name| !is_left_alone(name)).count() == 2;
    wait_until("its temporary file is gone", is_clean);
    // What the forwarder held may have arrived as a whole. A recheck five seconds after the start makes that good.
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "in the end");
}
