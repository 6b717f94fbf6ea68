//! A running full sync shows its progress: on request, and on a terminal.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{run, snapshot, text};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{kill, wait_until};

/// More files than are sent in one part, and a large one that cannot be compressed.
fn slow_full_sync(remote: &Rsyncd) -> Mirror {
    let slow = "<remote ip=\"127.0.0.1\" name=\"data\" bwlimit=\"1000\"/>".into();
    let mut setup = Setup { more_remotes: slow, ..Setup::to(remote) };
    setup.remotes.clear();
    setup.args = vec!["-r".into()];
    let mirror = Mirror::prepare(&setup);
    for dir in 0..35 {
        for file in 0..60 {
            mirror.write(format!("d{dir}/f{file}"), "");
        }
    }
    let noise = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    mirror.write("d0/large", (0..30_000_000u64).map(|n| noise(n * n + 1)).collect::<Vec<u8>>());
    mirror
}

#[test]
fn files_and_bytes_of_a_full_sync_under_way_grow() {
    let remote = Rsyncd::start();
    let mut mirror = slow_full_sync(&remote);
    mirror.launch();
    mirror.wait_ready();
    let told = || snapshot(&mirror)["remotes"][0]["full_sync"].clone();
    let sent = |least: u64| {
        let mut last = 0;
        wait_until(&format!("{least} bytes are sent"), || {
            let full_sync = told();
            assert!(!full_sync.is_null(), "it is done already");
            let bytes = full_sync["bytes"].as_u64().unwrap();
            assert!(bytes >= last, "{bytes} after {last}");
            last = bytes;
            bytes >= least
        });
        last
    };
    let first = sent(100_000);
    sent(first + 1);
    // The other parts finish while the part with the large file is running.
    wait_until("files are compared", || told()["files"].as_u64() > Some(1_000));
    wait_until("it has a rate", || told()["bytes_per_second"].as_f64() > Some(1.0));
    let said = text(&run(&mirror, "status", &[]));
    for words in ["full sync for ", " files compared, ", "B sent, ", "B/s, ", " parts, about "] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    mirror.kill();
}

#[test]
fn a_terminal_shows_a_full_sync_under_way_and_lines_of_the_log_stay_whole() {
    let remote = Rsyncd::start();
    let mirror = slow_full_sync(&remote);
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let other_end = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = File::options().write(true).open(other_end.to_str().unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sersync2"))
        .args(["-r", "-o"])
        .arg(&mirror.config)
        .arg("--state-dir")
        .arg(mirror.dir.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(other_end)
        .spawn()
        .unwrap();
    let seen = Arc::new(Mutex::new(String::new()));
    let (mut terminal, to) = (File::from(terminal), Arc::clone(&seen));
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Ends with an error when the other end is closed.
        while let Ok(read @ 1..) = terminal.read(&mut buffer) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    let seen = || seen.lock().unwrap().clone();
    let shows = |words: &str| wait_until(words, || seen().contains(words));
    shows("full sync 127.0.0.1::data [");
    // The line is updated by itself: at the end only a large file is being sent.
    wait_until("its figures change", || {
        let seen = seen();
        let figures = seen.split(" files, ").skip(1).filter_map(|line| line.split(", ").next());
        figures.collect::<BTreeSet<_>>().len() >= 3
    });
    assert!(run(&mirror, "pause", &[]).status.success());
    shows("paused");
    let seen = seen();
    let (before, _) = seen.split_once(" is paused by an operator").unwrap();
    // The progress lines are removed first.
    let (_, line) = before.rsplit_once("\u{1b}[2K").unwrap();
    assert!(line.contains("WARN") && !line.contains("full sync"), "{line:?}");
    kill(child.id());
    child.wait().unwrap();
}
