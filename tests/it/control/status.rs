//! `sersync2 status` against real daemons: exit code and text show and explain what is wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use rustix::process::Signal;

use super::{command, run, snapshot, text};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::tmpfs::Tmpfs;
use crate::support::{wait_for_content, wait_until};

fn status(mirror: &Mirror) -> Output {
    run(mirror, "status", &[])
}

/// Repeats the query until the output contains `words`; returns it with its exit code.
fn wait_for_status(mirror: &Mirror, words: &str) -> (Option<i32>, String) {
    let mut last = (None, String::new());
    wait_until(&format!("the status says {words:?}"), || {
        let output = status(mirror);
        last = (output.status.code(), text(&output));
        last.1.contains(words)
    });
    eprintln!("{}", last.1);
    last
}

#[test]
fn all_is_well_when_everything_is_delivered() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    mirror.write("a", "content");
    wait_for_content(&remote.at("a"), "content");
    let (code, text) = wait_for_status(&mirror, " ago ");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("127.0.0.1::data") && text.contains("all is well"), "{text}");
    let snapshot = snapshot(&mirror);
    assert_eq!(snapshot["remotes"][0]["state"], "up");
    assert_eq!(snapshot["remotes"][0]["total"]["deliveries"], 1);
    assert_eq!(snapshot["deliveries"][0]["path"], "a");
    assert!(snapshot["remotes"][0]["latency"]["p50_us"].as_u64().unwrap() > 0);
}

#[test]
fn watch_prints_the_state_again_and_again() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    let mut command = command(&mirror, "status", &["--watch"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    // It never ends by itself, so this waits for a second state, or fails when it has ended.
    let states = lines.filter(|line| line.starts_with("all is well")).take(2).count();
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(states, 2);
}

#[test]
fn bytes_and_deletions_are_counted() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    // With -z, only incompressible data is sent in its full length.
    let noise = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    mirror.write("a", (0..100_000u64).map(|n| noise(n * n + 1)).collect::<Vec<u8>>());
    wait_until("it is there", || remote.at("a").exists());
    fs::remove_file(mirror.at("a")).unwrap();
    wait_until("it is gone", || !remote.at("a").exists());
    let total = || snapshot(&mirror)["remotes"][0]["total"].clone();
    wait_until("the deletion is counted", || total()["deletions"] == 1);
    let bytes = total()["bytes"].as_u64().unwrap();
    assert!((100_000..130_000).contains(&bytes), "{bytes}");
    let deliveries = snapshot(&mirror)["deliveries"].clone();
    let kinds: Vec<&str> =
        deliveries.as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["sent", "deleted"]);
}

#[test]
fn a_remote_that_is_switched_off_is_found_and_explained() {
    let mut remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    mirror.write("a", "content");
    wait_for_content(&remote.at("a"), "content");
    remote.stop();
    mirror.write("b", "waits");
    // The interrupted run reports another error; the next try shows the cause.
    let (code, text) = wait_for_status(&mirror, "Connection refused");
    assert_eq!(code, Some(2), "{text}");
    for words in ["DOWN", "do:", "start the rsync daemon"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(snapshot(&mirror)["remotes"][0]["oldest_pending_ms"].is_u64());
    remote.start_again();
    wait_for_content(&remote.at("b"), "waits");
    assert_eq!(wait_for_status(&mirror, "all is well").0, Some(0));
    assert_eq!(snapshot(&mirror)["remotes"][0]["total"]["outages"], 1);
}

#[test]
fn a_remote_that_is_down_while_nothing_changes_is_up_when_it_is_back() {
    let mut remote = Rsyncd::start();
    remote.stop();
    let mirror = Mirror::start(&Setup::to(&remote));
    mirror.wait_for_output("is down");
    assert_eq!(wait_for_status(&mirror, "DOWN").0, Some(2));
    remote.start_again();
    mirror.wait_for_output("is back after");
    assert_eq!(wait_for_status(&mirror, "all is well").0, Some(0));
}

#[test]
fn a_wrong_password_is_found_and_explained() {
    let remote = Rsyncd::start();
    let password = remote.password_file("guessed");
    let auth =
        format!("<auth start=\"true\" users=\"bob\" passwordfile=\"{}\"/>", password.display());
    let mut setup = Setup { rsync: auth, ..Setup::to(&remote) };
    setup.remotes = vec![("127.0.0.1".into(), "auth".into())];
    let mirror = Mirror::start(&setup);
    mirror.write("a", "content");
    let (code, text) = wait_for_status(&mirror, "DOWN");
    assert_eq!(code, Some(2), "{text}");
    for words in ["refuses user bob", "do:", "secrets file"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(!text.contains("guessed"), "a password is told: {text}");
}

#[test]
fn a_full_disk_and_a_path_that_fails_are_told_apart_from_all_is_well() {
    let remote = Rsyncd::start();
    let Some(disk) = Tmpfs::mount(&remote.data, "size=1m") else { return };
    let mirror = Mirror::start(&Setup::to(&remote));
    disk.fill();
    mirror.write("big", vec![b'x'; 1 << 20]);
    let (code, text) = wait_for_status(&mirror, "No space left");
    assert!(matches!(code, Some(1 | 2)), "{code:?} {text}");
    disk.empty();
}

#[test]
fn a_file_that_never_arrives_is_named_with_its_reason() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    // A directory that cannot be deleted, because it is a mount point, is in the way.
    let Some(_mount) = Tmpfs::mount(&remote.at("in-the-way"), "size=1m") else { return };
    mirror.write("in-the-way", "a file");
    let (code, text) = wait_for_status(&mirror, "in-the-way: ");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot be delivered"), "{text}");
}

#[test]
fn one_that_was_killed_hangs_or_never_ran_is_said_so() {
    let remote = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&remote));
    let said = status(&mirror);
    assert_eq!(said.status.code(), Some(3));
    assert!(text(&said).contains("no sersync2 is running here"), "{}", text(&said));
    mirror.launch();
    mirror.wait_ready();
    wait_for_status(&mirror, "all is well");
    mirror.signal(Signal::STOP);
    let said = status(&mirror);
    assert_eq!(said.status.code(), Some(3));
    let hangs = format!("process {} does not answer", mirror.pid());
    assert!(text(&said).contains(&hangs), "{}", text(&said));
    mirror.signal(Signal::CONT);
    wait_for_status(&mirror, "all is well");
    mirror.kill();
    let said = status(&mirror);
    assert_eq!(said.status.code(), Some(3));
    assert!(text(&said).contains("it was killed or has crashed"), "{}", text(&said));
    mirror.launch();
    mirror.wait_ready();
    assert_eq!(wait_for_status(&mirror, "all is well").0, Some(0));
    mirror.stop();
    assert!(text(&status(&mirror)).contains("no sersync2 is running here"));
}

#[test]
fn one_that_starts_is_not_said_to_be_gone() {
    let remote = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&remote));
    wait_for_status(&mirror, "all is well");
    let is_socket = |path: &std::path::PathBuf| path.ends_with("control.sock");
    let socket = mirror.state_files().into_iter().find(is_socket).unwrap();
    // So it is while the watches are being set, without and with the socket of one that was killed.
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    let starts = format!("process {} is starting", mirror.pid());
    for _ in 0..2 {
        let said = status(&mirror);
        assert_eq!(said.status.code(), Some(3));
        assert!(text(&said).contains(&starts), "{}", text(&said));
        // Nobody listens on it when it is bound and then dropped.
        drop(std::os::unix::net::UnixListener::bind(&socket));
    }
    std::fs::rename(&aside, &socket).unwrap();
    assert_eq!(status(&mirror).status.code(), Some(0));
    mirror.stop();
}

#[test]
fn ten_clients_at_once_are_all_answered() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    wait_for_status(&mirror, "all is well");
    let asked: Vec<_> = (0..10).map(|_| command(&mirror, "status", &[]).spawn().unwrap()).collect();
    for mut client in asked {
        assert_eq!(client.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn every_instance_is_found_without_being_named() {
    let remote = Rsyncd::start();
    let mirrors = [0, 1].map(|_| Mirror::start(&Setup::to(&remote)));
    let everything = || {
        let program = env!("CARGO_BIN_EXE_sersync2");
        let output = std::process::Command::new(program).args(["status"]).output().unwrap();
        text(&output)
    };
    for mirror in &mirrors {
        let config = fs::canonicalize(&mirror.config).unwrap();
        wait_until("it is found", || everything().contains(&config.display().to_string()));
    }
    let program = env!("CARGO_BIN_EXE_sersync2");
    let output = std::process::Command::new(program).args(["flush"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    for mirror in &mirrors {
        let option = format!("-o {}", fs::canonicalize(&mirror.config).unwrap().display());
        assert!(text(&output).contains(&option), "{}", text(&output));
    }
}

#[test]
fn wrong_words_and_another_users_instance_are_refused() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    for words in [&["--max-age", "soon"][..], &["--dance"]] {
        assert_eq!(run(&mirror, "status", words).status.code(), Some(64));
    }
    let help = run(&mirror, "status", &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help).contains("Exit code"), "{}", text(&help));
    let output = command(&mirror, "status", &["--json"]).output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok());
}
