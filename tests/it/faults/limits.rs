//! What runs out for the running program: open files. Said, degraded, and made good when there is more.
//! Watches that run out are tried in `watch/faults.rs`, memory in `remotes.rs`.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{is_running, wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Lowers a limit of the running program; returns what it was.
fn limit(mirror: &Mirror, resource: Resource, to: u64) -> Rlimit {
    let pid = Pid::from_raw(mirror.pid().cast_signed());
    let lower = Rlimit { current: Some(to), maximum: getrlimit(resource).maximum };
    prlimit(pid, resource, lower).unwrap()
}

fn mend(mirror: &Mirror, resource: Resource, before: Rlimit) {
    let pid = Pid::from_raw(mirror.pid().cast_signed());
    prlimit(pid, resource, before).unwrap();
}

/// The resource runs out while changes come, and comes back.
fn try_shortage(mirror: &Mirror, daemon: &Rsyncd, resource: Resource, to: u64) {
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    let before = limit(mirror, resource, to);
    // Sessions that were started before take the first of these.
    let mut count = 0;
    wait_until("the shortage is said", || {
        count += 1;
        mirror.write(format!("d{}/f{count}", count % 3), "x");
        std::thread::sleep(Duration::from_millis(50));
        mirror.output().contains("cannot start rsync")
    });
    assert!(is_running(mirror.pid()));
    let output = mirror.output();
    assert!(!output.contains("ALARM") && output.matches("ERROR").count() < 10, "{output}");
    mend(mirror, resource, before);
    mirror.write("after", "y");
    wait_for_content(&daemon.at("after"), "y");
}

#[test]
fn a_shortage_of_open_files_is_said_and_made_good() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    try_shortage(&mirror, &daemon, Resource::Nofile, 10);
    wait_until_same(&mirror.source, &daemon.data, SOON, "with enough files");
}
