//! The commands that steer a running mirror, against real daemons: flush, pause, sync-now, retry, log-level, stop.

use std::fs;
use std::process::Stdio;

use super::{command, run, snapshot, text};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until};

/// A mirror that has delivered something.
fn mirror_at_work() -> (Rsyncd, Mirror) {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    mirror.write("first", "first");
    wait_for_content(&remote.at("first"), "first");
    (remote, mirror)
}

fn wait_for_state(mirror: &Mirror, state: &str) {
    wait_until(&format!("the remote is {state}"), || {
        snapshot(mirror)["remotes"][0]["state"] == state
    });
}

#[test]
fn flush_in_the_line_after_a_write_returns_when_the_file_is_on_the_remote() {
    let (remote, mirror) = mirror_at_work();
    for round in 0..20 {
        let names: Vec<String> = (0..=round).map(|n| format!("d{round}/f{n}")).collect();
        names.iter().for_each(|name| mirror.write(name, name));
        let flushed = run(&mirror, "flush", &[]);
        assert_eq!(flushed.status.code(), Some(0), "{}", text(&flushed));
        for name in &names {
            let there = fs::read(remote.at(name)).unwrap_or_default();
            assert_eq!(String::from_utf8(there).unwrap(), *name, "round {round}");
        }
        fs::remove_dir_all(mirror.at(format!("d{round}"))).unwrap();
    }
    assert_eq!(run(&mirror, "flush", &[]).status.code(), Some(0));
    assert!(!remote.at("d19").exists());
}

#[test]
fn flush_says_what_is_missing_and_why_when_the_remote_is_off() {
    let (mut remote, mirror) = mirror_at_work();
    remote.stop();
    mirror.write("dir/late", "late");
    let flushed = run(&mirror, "flush", &["--timeout", "2"]);
    assert_eq!(flushed.status.code(), Some(1), "{}", text(&flushed));
    for words in ["127.0.0.1::data", "missing", "it is down", "dir"] {
        assert!(text(&flushed).contains(words), "no {words:?} in {}", text(&flushed));
    }
    // Log rotation sends SIGHUP to processes that are called sersync2, and means mirrors only.
    let mut waits = command(&mirror, "flush", &["--timeout", "60"]).spawn().unwrap();
    let name = format!("/proc/{}/comm", waits.id());
    wait_until("a command has its own name", || {
        fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sersync2-flush")
    });
    waits.kill().unwrap();
    waits.wait().unwrap();
    let elsewhere = run(&mirror, "flush", &["--timeout", "5", "/nowhere"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(text(&elsewhere).contains("not below a watch path"), "{}", text(&elsewhere));
    remote.start_again();
    let path = mirror.at("dir/late");
    let flushed = run(&mirror, "flush", &["--timeout", "60", path.to_str().unwrap()]);
    assert_eq!(flushed.status.code(), Some(0), "{}", text(&flushed));
    assert_eq!(fs::read(remote.at("dir/late")).unwrap(), b"late");
}

#[test]
fn ten_flushes_at_once_all_end() {
    let (remote, mirror) = mirror_at_work();
    mirror.write("a", "a");
    let flushes: Vec<_> =
        (0..10).map(|_| command(&mirror, "flush", &[]).spawn().unwrap()).collect();
    for mut flush in flushes {
        assert_eq!(flush.wait().unwrap().code(), Some(0));
    }
    assert_eq!(fs::read(remote.at("a")).unwrap(), b"a");
}

#[test]
fn nothing_leaves_while_it_is_paused_and_nothing_is_lost() {
    let (remote, mirror) = mirror_at_work();
    let paused = run(&mirror, "pause", &[]);
    assert_eq!(paused.status.code(), Some(0), "{}", text(&paused));
    mirror.write("kept", "kept");
    let flushed = run(&mirror, "flush", &["--timeout", "1"]);
    assert_eq!(flushed.status.code(), Some(1));
    assert!(text(&flushed).contains("it is paused"), "{}", text(&flushed));
    assert!(!remote.at("kept").exists());
    assert_eq!(run(&mirror, "status", &[]).status.code(), Some(1));
    let resumed = run(&mirror, "resume", &[]);
    assert!(text(&resumed).contains("127.0.0.1::data is resumed"), "{}", text(&resumed));
    wait_for_content(&remote.at("kept"), "kept");
    assert!(text(&run(&mirror, "resume", &[])).contains("nothing is paused"));
}

#[test]
fn a_pause_for_a_time_ends_by_itself() {
    let (remote, mirror) = mirror_at_work();
    run(&mirror, "pause", &["--for", "1s"]);
    mirror.write("kept", "kept");
    wait_for_content(&remote.at("kept"), "kept");
    wait_for_state(&mirror, "up");
}

#[test]
fn a_pause_for_a_command_ends_with_it_however_it_ends() {
    let (remote, mirror) = mirror_at_work();
    let failing = run(&mirror, "pause", &["--", "sh", "-c", "exit 7"]);
    assert_eq!(failing.status.code(), Some(7), "{}", text(&failing));
    wait_for_state(&mirror, "up");
    let killed = run(&mirror, "pause", &["--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.status.code(), Some(137));
    wait_for_state(&mirror, "up");
    let missing = run(&mirror, "pause", &["--", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127));
    wait_for_state(&mirror, "up");
    let mut waits =
        command(&mirror, "pause", &["--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    wait_for_state(&mirror, "paused");
    mirror.write("kept", "kept");
    // The command ends because its input closes, although the process that waited for it was killed.
    waits.kill().unwrap();
    waits.wait().unwrap();
    wait_for_content(&remote.at("kept"), "kept");
}

#[test]
fn sync_now_finds_what_was_changed_on_the_remote() {
    let (remote, mirror) = mirror_at_work();
    mirror.write("sub/file", "sub");
    wait_for_content(&remote.at("sub/file"), "sub");
    // A delivery is confirmed a moment later, and sent again if it is missing. The flush waits for that.
    assert_eq!(run(&mirror, "flush", &[]).status.code(), Some(0));
    fs::remove_file(remote.at("sub/file")).unwrap();
    fs::remove_file(remote.at("first")).unwrap();
    let sub = mirror.at("sub");
    let synced = run(&mirror, "sync-now", &[sub.to_str().unwrap()]);
    assert_eq!(synced.status.code(), Some(0), "{}", text(&synced));
    assert_eq!(run(&mirror, "flush", &[]).status.code(), Some(0));
    assert!(remote.at("sub/file").exists() && !remote.at("first").exists());
    run(&mirror, "sync-now", &[]);
    assert_eq!(run(&mirror, "flush", &[]).status.code(), Some(0));
    assert!(remote.at("first").exists());
}

#[test]
fn another_user_is_refused_although_the_socket_lets_him_in() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        crate::support::skipped("only root can ask as another user");
        return;
    }
    let (_remote, mirror) = mirror_at_work();
    wait_for_state(&mirror, "up");
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let state = fs::read_dir(mirror.dir.join("state")).unwrap().next().unwrap().unwrap().path();
    for directory in [mirror.dir.path(), &mirror.dir.join("state"), &state] {
        open(directory, 0o755);
    }
    open(&state.join("control.sock"), 0o666);
    let own = command(&mirror, "stop", &[]);
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let asked = other.arg(own.get_program()).args(own.get_args()).output().unwrap();
    assert_eq!(asked.status.code(), Some(1), "{}", text(&asked));
    assert!(text(&asked).contains("only the user who runs this instance"), "{}", text(&asked));
    wait_for_state(&mirror, "up");
}

#[test]
fn retry_log_level_and_unknown_remotes_are_answered() {
    let (_remote, mirror) = mirror_at_work();
    assert!(text(&run(&mirror, "retry", &[])).contains("0 failed paths"));
    let unknown = run(&mirror, "retry", &["--remote", "nobody::data"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("say one of 127.0.0.1::data"), "{}", text(&unknown));
    assert_eq!(run(&mirror, "log-level", &["loud"]).status.code(), Some(64));
    assert_eq!(run(&mirror, "log-level", &["debug"]).status.code(), Some(0));
    mirror.write("b", "b");
    mirror.wait_for_output("DEBUG");
    assert!(text(&run(&mirror, "confirm-deletions", &[])).contains("nothing is held back"));
}

#[test]
fn stop_returns_when_the_instance_has_ended() {
    let (_remote, mut mirror) = mirror_at_work();
    // An instance whose configuration file was moved away can still be stopped by its name.
    let away = mirror.config.with_extension("away");
    fs::rename(&mirror.config, &away).unwrap();
    let stopped = run(&mirror, "stop", &[]);
    assert_eq!(stopped.status.code(), Some(0), "{}", text(&stopped));
    assert_eq!(mirror.wait().code(), Some(0));
    fs::rename(&away, &mirror.config).unwrap();
    assert_eq!(run(&mirror, "stop", &[]).status.code(), Some(3));
}

#[test]
fn who_stops_it_before_its_watches_are_set_does_not_wait_for_them() {
    let remote = Rsyncd::start();
    for attempt in 0..8 {
        let mut mirror = Mirror::prepare(&Setup::to(&remote));
        for directory in 0..1_000 << attempt {
            fs::create_dir(mirror.at(format!("d{directory}"))).unwrap();
        }
        mirror.launch();
        mirror.wait_for_output("sersync working thread");
        mirror.signal(rustix::process::Signal::TERM);
        assert_eq!(mirror.wait().code(), Some(0), "{}", mirror.output());
        if mirror.output().contains("told to stop before its watches were set") {
            assert!(!mirror.output().contains("watch path is:"), "{}", mirror.output());
            return;
        }
    }
    panic!("the watches are always set before it is stopped");
}

#[test]
fn every_shell_gets_completions_for_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let program = env!("CARGO_BIN_EXE_sersync2");
        let output =
            std::process::Command::new(program).args(["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        for word in ["status", "flush", "confirm-deletions", "max-age"] {
            assert!(text(&output).contains(word), "{shell}: no {word}");
        }
    }
}
