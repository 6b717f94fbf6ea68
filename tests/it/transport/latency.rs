//! How long a change takes on a ready session; run by hand with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use super::{BATCH, LIMITS, Rig, path};
use crate::support::sshd::Sshd;
use crate::support::{children_of, wait_until};
use sersync::rsync::input;

fn median_latency(rig: &Rig, connected: impl Fn(u32) -> bool) -> Duration {
    let mut times = Vec::new();
    for n in 0..21 {
        let name = format!("f{n}");
        let session = rig.session(&BATCH);
        wait_until("the session is connected", || connected(session.pid()));
        let list = input::names(&[path(&name)]);
        rig.source.file(&name, vec![b'x'; 1024]);
        let start = Instant::now();
        let copy = rig.daemon.at(&name);
        let run = std::thread::Builder::new().spawn(move || session.feed(&list, LIMITS)).unwrap();
        while copy.symlink_metadata().is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
        times.push(start.elapsed());
        run.join().unwrap();
    }
    times.sort();
    times[times.len() / 2]
}

/// Bytes that a process and its descendants have read and written so far.
fn counters(pid: u32) -> Vec<String> {
    let mut pids = children_of(pid);
    pids.push(pid);
    pids.iter()
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default())
        .collect()
}

/// True for a session that waits for its list: it has greeted and then been idle for a while.
fn waits(pid: u32) -> bool {
    let before = counters(pid);
    std::thread::sleep(Duration::from_millis(500));
    before == counters(pid)
}

#[test]
#[ignore = "a measurement"]
fn warm_session_is_fast_with_a_daemon_and_with_ssh() {
    let rig = Rig::new(&["-a"]);
    let daemon = median_latency(&rig, waits);
    let ssh = Sshd::start();
    let mut rig = Rig::new(&["-a", "-e", &format!("{}/ssh -p {}", ssh.bin().display(), ssh.port)]);
    rig.over_ssh(None);
    let over_ssh = median_latency(&rig, |pid| !children_of(pid).is_empty() && waits(pid));
    println!("ready session, write to visible: daemon {daemon:?}, ssh {over_ssh:?}");
    assert!(daemon < Duration::from_millis(5) && over_ssh < Duration::from_millis(10));
}
