//! Remotes that answer but accept nothing: full, read-only, busy, refusing. Each is reported once and delays no other remote.
//! When the cause is gone, the remote gets everything.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::control;
use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::same::wait_until_same;
use crate::support::tmpfs::Tmpfs;
use crate::support::{free_port, wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// The longest pause before a refused path is tried again, and some more.
const A_MINUTE: Duration = Duration::from_secs(90);

/// A healthy remote, and a failing one whose module is `name`.
struct Two {
    sound: Rsyncd,
    failing: Rsyncd,
    _forwarders: [Forwarder; 2],
    mirror: Mirror,
}

impl Two {
    fn start(host: u8, failing: Rsyncd, name: &str, rsync: &str) -> Self {
        let sound = Rsyncd::start();
        let port = free_port();
        let forwarders = [
            Forwarder::start(host, port, sound.port),
            Forwarder::start(host + 1, port, failing.port),
        ];
        let remotes = [(forwarders[0].ip(), "data"), (forwarders[1].ip(), name)];
        let remotes = remotes.map(|(ip, name)| (ip, name.to_string())).into();
        let setup = Setup { remotes, port, rsync: rsync.into(), ..Setup::to(&sound) };
        let mirror = Mirror::start(&setup);
        Self { sound, failing, _forwarders: forwarders, mirror }
    }

    /// Ten changes reach the healthy remote, one after the other.
    fn sound_one_is_served(&self, what: &str) {
        for i in 0..10 {
            self.mirror.write(format!("{what}/{i}"), what);
            wait_for_content(&self.sound.at(format!("{what}/{i}")), what);
        }
    }

    /// The failing remote is reported once, with these words, and is served again when the cause is gone.
    fn is_said_and_mended(&self, words: &str, mend: impl FnOnce()) {
        self.sound_one_is_served("meanwhile");
        self.mirror.wait_for_output(words);
        mend();
        self.both_become_equal();
        let output = self.mirror.output();
        assert_eq!(output.matches("ERROR").count(), 1, "{output}");
    }

    fn both_become_equal(&self) {
        for daemon in [&self.sound, &self.failing] {
            wait_until_same(&self.mirror.source, &daemon.data, SOON, "in the end");
        }
    }
}

fn daemon(module: &str) -> Rsyncd {
    Rsyncd::start_with(&Options { module: module.into(), ..Options::default() })
}

#[test]
fn a_read_only_module_is_said_once_and_made_good_when_it_is_writable() {
    let two = Two::start(10, daemon("read only = yes"), "data", "");
    two.sound_one_is_served("meanwhile");
    two.is_said_and_mended(
        "accepts nothing, because module data is read only: set \"read only = no\"",
        || {
            two.failing.reconfigure(&Options::default());
        },
    );
}

#[test]
fn a_module_that_does_not_exist_is_said_once_and_made_good_when_it_does() {
    let two = Two::start(18, Rsyncd::start(), "later", "");
    two.is_said_and_mended("has no module later: correct name=", || {
        let path = two.failing.data.display();
        let module = format!("[later]\npath = {path}\nread only = no\n");
        two.failing.reconfigure(&Options { module, ..Options::default() });
    });
}

#[test]
fn a_host_that_is_not_let_in_is_said_once_and_made_good_when_it_is() {
    let two = Two::start(20, daemon("hosts deny = *"), "data", "");
    two.is_said_and_mended(
        "does not let this machine into module data: look at \"hosts allow\"",
        || {
            two.failing.reconfigure(&Options::default());
        },
    );
}

#[test]
fn a_module_that_is_closed_is_said_once_and_made_good_when_it_is_open() {
    let two = Two::start(12, daemon("max connections = -1"), "data", "");
    two.is_said_and_mended("is closed: \"max connections\" in its rsyncd.conf is negative", || {
        two.failing.reconfigure(&Options::default());
    });
}

/// So much is pending that the journal is worth rewriting as soon as nothing is.
#[test]
fn what_a_dead_remote_lacks_survives_many_restarts() {
    let mut two = Two::start(26, Rsyncd::start(), "data", "");
    two.mirror.wait_for_record();
    two.failing.stop();
    (0..1_500).for_each(|n| two.mirror.write(format!("{n:0100}"), "x"));
    for end in [Signal::TERM, Signal::KILL, Signal::TERM] {
        two.sound_one_is_served("meanwhile");
        wait_until_same(&two.mirror.source, &two.sound.data, SOON, "beside a dead one");
        two.mirror.signal(end);
        two.mirror.wait();
        two.mirror.launch();
    }
    two.failing.start_again();
    two.both_become_equal();
}

#[test]
fn a_module_for_one_connection_is_served() {
    let daemon = daemon("max connections = 1");
    let mirror = Mirror::start(&Setup::to(&daemon));
    for i in 0..10 {
        mirror.write(format!("d/{i}"), "x");
        wait_for_content(&daemon.at(format!("d/{i}")), "x");
    }
    fs::remove_dir_all(mirror.at("d")).unwrap();
    wait_until("the directory is gone", || !daemon.at("d").exists());
}

#[test]
fn a_wrong_password_is_said_without_the_password_and_made_good_when_it_is_right() {
    let failing = Rsyncd::start();
    let password = failing.password_file("hunter-two");
    let auth =
        format!("<auth start=\"true\" users=\"bob\" passwordfile=\"{}\"/>", password.display());
    let two = Two::start(14, failing, "auth", &auth);
    two.is_said_and_mended("::auth refuses user bob with the password in ", || {
        fs::write(&password, "secret").unwrap();
    });
    assert!(!two.mirror.output().contains("hunter-two"));
}

#[test]
fn a_full_remote_is_said_once_and_made_good_when_there_is_room() {
    let failing = Rsyncd::start();
    let Some(disk) = Tmpfs::mount(&failing.data, "size=1m") else { return };
    let two = Two::start(16, failing, "data", "");
    two.sound_one_is_served("before");
    two.both_become_equal();
    disk.fill();
    two.mirror.write("large", vec![b'x'; 100_000]);
    two.is_said_and_mended("cannot store anything: ", || disk.empty());
    assert!(two.mirror.output().contains("No space left on device"));
    drop(disk);
}

#[test]
fn a_file_that_is_larger_than_the_free_space_keeps_nothing_else_back() {
    let daemon = Rsyncd::start();
    let Some(disk) = Tmpfs::mount(&daemon.data, "size=4m") else { return };
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    mirror.write("large", vec![b'x'; 8 << 20]);
    mirror.wait_for_output("large could not be sent to");
    for i in 0..10 {
        mirror.write(format!("beside/{i}"), "x");
        wait_for_content(&daemon.at(format!("beside/{i}")), "x");
    }
    let output = mirror.output();
    assert!(output.contains("No space left on device"), "{output}");
    assert_eq!(output.matches("ERROR").count(), 1, "{output}");
    disk.resize("16m");
    control::run(&mirror, "retry", &[]);
    wait_until_same(&mirror.source, &daemon.data, SOON, "when there is room");
}

#[test]
fn a_read_only_file_system_inside_the_copy_keeps_nothing_else_back() {
    let daemon = Rsyncd::start();
    let uploads = daemon.at("uploads");
    let Some(disk) = Tmpfs::mount(&uploads, "size=1m") else { return };
    disk.make_read_only(true);
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    for i in 0..5 {
        mirror.write(format!("uploads/{i}"), "x");
        mirror.wait_for_output("uploads/0 could not be sent to");
        mirror.write(format!("beside/{i}"), "x");
        wait_for_content(&daemon.at(format!("beside/{i}")), "x");
    }
    let output = mirror.output();
    assert!(output.contains("Read-only file system (30); it is in the fail log"), "{output}");
    assert_eq!(output.matches("ERROR").count(), 1, "{output}");
    disk.make_read_only(false);
    wait_until_same(&mirror.source, &daemon.data, A_MINUTE, "when it is writable");
}

#[test]
fn a_remote_whose_file_system_is_read_only_gets_everything_soon_after() {
    let daemon = Rsyncd::start();
    let Some(disk) = Tmpfs::mount(&daemon.data, "size=4m") else { return };
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("d/f", "1");
    wait_until_same(&mirror.source, &daemon.data, SOON, "before");
    disk.make_read_only(true);
    for i in 0..200 {
        mirror.write(format!("d/{i}"), "x");
        mirror.write(format!("e{i}/f"), "x");
    }
    fs::remove_file(mirror.at("d/f")).unwrap();
    mirror.wait_for_output("Read-only file system");
    disk.make_read_only(false);
    wait_until_same(&mirror.source, &daemon.data, A_MINUTE, "when it is writable");
    let output = mirror.output();
    assert!(output.matches("could not be sent").count() < 100, "{output}");
}

#[test]
fn waiting_changes_take_little_memory_and_all_arrive_in_the_end() {
    await_many_changes(10_000, 40);
}

#[test]
#[ignore = "makes a million files: scripts/soak runs it"]
fn a_million_waiting_changes_take_less_than_200_mb() {
    await_many_changes(1_000_000, 200);
}

fn await_many_changes(count: usize, megabytes_max: u64) {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("seed", "x");
    wait_for_content(&daemon.at("seed"), "x");
    daemon.stop();
    let dirs = count / 500;
    for dir in 0..dirs {
        fs::create_dir_all(mirror.at(format!("some-directory-{dir}"))).unwrap();
    }
    for i in 0..count {
        let name = mirror.at(format!("some-directory-{}/a-file-name-{i}", i % dirs));
        std::os::unix::fs::symlink("target", name).unwrap();
    }
    mirror.wait_for_output("is down");
    mirror.write("last", "x");
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", mirror.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap().to_string();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    daemon.start_again();
    let limit = Duration::from_secs(30 + count as u64 / 1_000);
    wait_until_same(&mirror.source, &daemon.data, limit, "after the outage");
    let megabytes = peak();
    eprintln!("{count} changes waited in {megabytes} MB");
    assert!(megabytes < megabytes_max, "{megabytes} MB");
}
