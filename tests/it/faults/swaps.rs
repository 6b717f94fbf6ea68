//! The copy is replaced while the mirror runs: by a release (`mv www old; mv new www`), or by a link that is switched.
//! Or the host name leads to another machine. The new copy gets all changes, even those that an older session sent to the old one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::sshd::Sshd;
use crate::support::{LIMIT, TestDir, children_of, free_port, run_alone, wait_until};

/// A copy on the receiver, and how it is replaced.
trait Place {
    /// Where the mirror delivers to.
    fn path(&self) -> PathBuf;
    /// Replaces the directory by an equal one; returns the old one.
    fn swap(&self) -> PathBuf;
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A module's directory, which is renamed away.
struct Renamed(PathBuf);

impl Place for Renamed {
    fn path(&self) -> PathBuf {
        self.0.clone()
    }

    fn swap(&self) -> PathBuf {
        let named = |n: u32| self.0.with_extension(format!("old{n}"));
        let old = (0..).map(named).find(|path| !path.exists()).unwrap();
        let new = self.0.with_extension("new");
        copy(&self.0, &new);
        fs::rename(&self.0, &old).unwrap();
        fs::rename(&new, &self.0).unwrap();
        old
    }
}

/// A link that is switched from one release to the next.
struct Linked(TestDir);

impl Place for Linked {
    fn path(&self) -> PathBuf {
        self.0.join("current")
    }

    fn swap(&self) -> PathBuf {
        let old = fs::canonicalize(self.path()).unwrap();
        let new = (0..).map(|n| self.0.join(format!("release{n}"))).find(|path| !path.exists());
        let new = new.unwrap();
        copy(&old, &new);
        symlink(&new, self.0.join("next")).unwrap();
        fs::rename(self.0.join("next"), self.path()).unwrap();
        old
    }
}

/// Makes every kind of change, each right after a swap: the ready sessions have entered the old directory.
fn swap_between_any_two_steps(mirror: &Mirror, place: &impl Place) {
    for name in ["rewritten", "deleted", "renamed"] {
        mirror.write(name, "1");
    }
    wait_until_same(&mirror.source, &place.path(), LIMIT, "at first");
    let arrives = |what: &str, is_there: &dyn Fn(&Path) -> bool, change: &dyn Fn()| {
        // A confirmation or a pause may have left no session: this change makes some ready.
        mirror.write("before", what);
        wait_until_same(&mirror.source, &place.path(), LIMIT, "before the swap");
        wait_until("sessions are ready", || children_of(mirror.pid()).len() >= 2);
        let old = place.swap();
        change();
        wait_until(&format!("{what} arrives somewhere"), || {
            is_there(&old) || is_there(&place.path())
        });
        if !is_there(&old) {
            // A confirmation delivered it. Wait for everything else that it delivers before the next swap copies the directory.
            assert_eq!(crate::control::run(mirror, "flush", &[]).status.code(), Some(0));
        }
    };
    arrives("a file", &|at| at.join("d/f").exists(), &|| mirror.write("d/f", "1"));
    let reads = |at: &Path, name: &str| fs::read_to_string(at.join(name)).unwrap_or_default();
    arrives("a rewrite", &|at| reads(at, "rewritten") == "2", &|| mirror.write("rewritten", "2"));
    arrives("a deletion", &|at| !at.join("deleted").exists(), &|| {
        fs::remove_file(mirror.at("deleted")).unwrap();
    });
    arrives("a rename", &|at| at.join("d/new").exists() && !at.join("renamed").exists(), &|| {
        fs::rename(mirror.at("renamed"), mirror.at("d/new")).unwrap();
    });
    wait_until_same(&mirror.source, &place.path(), LIMIT, "in the directory that stands there");
}

#[test]
fn a_module_that_is_swapped_between_any_two_steps_misses_nothing() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    swap_between_any_two_steps(&mirror, &Renamed(daemon.data.clone()));
}

#[test]
fn a_link_that_is_switched_between_any_two_steps_misses_nothing() {
    let sshd = Sshd::start();
    let place = Linked(TestDir::new());
    symlink(place.0.dir("first"), place.path()).unwrap();
    let setup = Setup {
        remotes: vec![("127.0.0.1".into(), place.path().display().to_string())],
        port: sshd.port,
        ssh: true,
        env: vec![("PATH".into(), sshd.path_variable())],
        ..Setup::plain()
    };
    let mirror = Mirror::start(&setup);
    swap_between_any_two_steps(&mirror, &place);
}

#[test]
fn what_went_into_the_old_directory_survives_a_kill() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("first", "1");
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "at first");
    wait_until("sessions are ready", || children_of(mirror.pid()).len() >= 2);
    let old = Renamed(daemon.data.clone()).swap();
    mirror.write("f", "1");
    fs::remove_file(mirror.at("first")).unwrap();
    wait_until("both are delivered somewhere", || {
        let done = |at: &Path| at.join("f").exists() && !at.join("first").exists();
        done(&old) || done(&daemon.data)
    });
    mirror.kill();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "after the kill");
}

#[test]
fn a_flush_waits_for_the_directory_that_stands_there() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("first", "1");
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "at first");
    wait_until("sessions are ready", || children_of(mirror.pid()).len() >= 2);
    Renamed(daemon.data.clone()).swap();
    mirror.write("f", "1");
    let flushed = crate::control::run(&mirror, "flush", &[]);
    assert_eq!(flushed.status.code(), Some(0));
    assert!(daemon.at("f").exists());
}

#[test]
fn what_a_machine_lacks_that_takes_over_the_name_is_sent() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can have an /etc/hosts of its own");
        return;
    }
    run_alone("faults::swaps::with_a_name_that_moves", &["unshare", "-m"]);
}

#[test]
#[ignore = "changes the hosts file of its namespace; run by the test above"]
fn with_a_name_that_moves() {
    let dir = TestDir::new();
    let hosts = dir.file("hosts", "");
    let bound = Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts").status();
    assert!(bound.unwrap().success());
    let lead_to = |ip: &str| fs::write(&hosts, format!("{ip} mirror.example\n")).unwrap();
    let (first, second) = (Rsyncd::start(), Rsyncd::start());
    let port = free_port();
    let way = Forwarder::start(2, port, first.port);
    let other_way = Forwarder::start(3, port, second.port);
    lead_to(&way.ip());
    let remotes = vec![("mirror.example".into(), "data".into())];
    let mirror = Mirror::start(&Setup { remotes, port, ..Setup::plain() });
    mirror.write("first", "1");
    mirror.write("sub/second", "2");
    wait_until_same(&mirror.source, &first.data, LIMIT, "at first");
    wait_until("sessions are ready", || children_of(mirror.pid()).len() >= 2);
    lead_to(&other_way.ip());
    mirror.write("f", "1");
    wait_until_same(&mirror.source, &second.data, LIMIT, "on the other machine");
    // It is said at the end of the job that has delivered there.
    let said = || mirror.output().matches("leads to another address").count();
    wait_until("it is said", || said() > 0);
    assert_eq!(said(), 1);
    lead_to(&way.ip());
    mirror.write("g", "1");
    wait_until_same(&mirror.source, &first.data, LIMIT, "on the first machine again");
}
