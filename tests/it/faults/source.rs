//! A source that vanishes, completely or in part. It causes no deletion on a remote, an alarm reports what happened, and everything
//! converges when it is back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::{picture, wait_until_same};
use crate::support::tmpfs::Tmpfs;
use crate::support::wait_for_content;

const SOON: Duration = Duration::from_secs(15);

/// A mirror that has delivered a few files.
fn standing(daemon: &Rsyncd) -> Mirror {
    let mirror = Mirror::start(&Setup::to(daemon));
    fill(&mirror);
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    mirror
}

fn fill(mirror: &Mirror) {
    for i in 0..20 {
        mirror.write(format!("d{}/f{i}", i % 4), format!("{i}"));
    }
}

/// Makes another change first, so that a wrong deletion would have had time to happen.
fn nothing_is_deleted(daemon: &Rsyncd, before: usize) {
    let end = std::time::Instant::now() + Duration::from_millis(700);
    while std::time::Instant::now() < end {
        assert_eq!(picture(&daemon.data).len(), before, "something was deleted on the remote");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_root_that_is_renamed_away_and_back_deletes_nothing() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon);
    let before = picture(&daemon.data).len();
    let away = mirror.dir.join("away");
    fs::rename(&mirror.source, &away).unwrap();
    mirror.wait_for_output("ALARM");
    nothing_is_deleted(&daemon, before);
    fs::write(away.join("while-away"), "x").unwrap();
    fs::rename(&away, &mirror.source).unwrap();
    mirror.wait_for_output("is back");
    mirror.write("after", "y");
    wait_until_same(&mirror.source, &daemon.data, SOON, "when the root is back");
}

#[test]
fn a_root_that_is_deleted_deletes_nothing_until_there_is_one_again() {
    let daemon = Rsyncd::start();
    let mut mirror = standing(&daemon);
    // The program is stopped (SIGSTOP), so all changes are pending when it continues and finds no root.
    let before = picture(&daemon.data).len();
    mirror.signal(rustix::process::Signal::STOP);
    fs::remove_dir_all(&mirror.source).unwrap();
    mirror.signal(rustix::process::Signal::CONT);
    mirror.wait_for_output("ALARM");
    nothing_is_deleted(&daemon, before);
    // An unmounted file system leaves an empty directory.
    fs::create_dir(&mirror.source).unwrap();
    mirror.wait_for_output("are known");
    nothing_is_deleted(&daemon, before);
    fill(&mirror);
    mirror.wait_for_output("is back");
    wait_until_same(&mirror.source, &daemon.data, SOON, "with a new root");
    assert!(mirror.stop().success());
}

#[test]
fn a_root_that_is_replaced_is_compared_as_a_whole() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon);
    let other = mirror.dir.dir("other");
    fs::write(other.join("only-here"), "x").unwrap();
    for i in 0..20 {
        fs::create_dir_all(other.join(format!("d{}", i % 4))).unwrap();
        fs::write(other.join(format!("d{}/f{i}", i % 4)), "other").unwrap();
    }
    fs::rename(&mirror.source, mirror.dir.join("away")).unwrap();
    fs::rename(&other, &mirror.source).unwrap();
    mirror.wait_for_output("is another directory than before: everything below it is compared");
    wait_until_same(&mirror.source, &daemon.data, SOON, "with the other directory");
    mirror.write("later", "z");
    wait_for_content(&daemon.at("later"), "z");
}

#[test]
fn a_root_link_that_is_switched_is_said_in_one_true_line() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let release = |name: &str| {
        let release = mirror.dir.dir(name);
        (0..20).for_each(|i| fs::write(release.join(format!("f{i}")), name).unwrap());
        release
    };
    let releases = [release("first"), release("second"), release("the third")];
    let (source, aside) = (mirror.source.clone(), mirror.dir.join("aside"));
    let switch_to = |release: &std::path::Path| {
        std::os::unix::fs::symlink(release, &aside).unwrap();
        fs::rename(&aside, &source).unwrap();
    };
    fs::remove_dir(&source).unwrap();
    switch_to(&releases[0]);
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_ready();
    wait_until_same(&releases[0], &daemon.data, SOON, "at first");
    let assert_said_once = |mirror: &Mirror| {
        let output = mirror.output();
        let switched = output.matches("is another directory than before: everything").count();
        assert_eq!(switched, 1, "{output}");
        for untrue in ["ALARM", "is mounted", " is back"] {
            assert!(!output.contains(untrue), "{output}");
        }
    };
    switch_to(&releases[1]);
    wait_until_same(&releases[1], &daemon.data, SOON, "after the switch");
    assert_eq!(crate::control::run(&mirror, "flush", &[]).status.code(), Some(0));
    assert_said_once(&mirror);
    mirror.stop();
    switch_to(&releases[2]);
    mirror.launch();
    mirror.wait_ready();
    wait_until_same(&releases[2], &daemon.data, SOON, "after a switch during the downtime");
    assert_eq!(crate::control::run(&mirror, "flush", &[]).status.code(), Some(0));
    assert_said_once(&mirror);
}

#[test]
fn a_root_that_is_unmounted_deletes_nothing() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let Some(disk) = Tmpfs::mount(&mirror.source, "size=4m") else { return };
    mirror.launch();
    mirror.wait_ready();
    fill(&mirror);
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    drop(disk);
    mirror.wait_for_output("ALARM");
    nothing_is_deleted(&daemon, before);
    // Even after a restart, the empty mount point causes no deletion.
    mirror.kill();
    mirror.launch();
    mirror.wait_ready();
    nothing_is_deleted(&daemon, before);
}

#[test]
fn what_is_written_where_a_root_is_not_mounted_is_not_taken_for_the_tree() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup { args: vec!["-r".into()], ..Setup::to(&daemon) });
    let Some(disk) = Tmpfs::mount(&mirror.source, "size=4m") else { return };
    fill(&mirror);
    mirror.launch();
    mirror.wait_for_output("is done in");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    mirror.wait_for_record();
    mirror.stop();
    drop(disk);
    mirror.write("beneath", "x");
    mirror.launch();
    mirror.wait_for_output("holds 1 entries");
    assert_eq!(picture(&daemon.data).len(), before);
    mirror.kill();
    mirror.confirm_deletions();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

/// A mirror of a tree with a file system of its own at `volume`; `None` without the right to mount one.
fn mirror_with_volume(daemon: &Rsyncd) -> Option<(Mirror, Tmpfs)> {
    let mut mirror = Mirror::prepare(&Setup::to(daemon));
    let disk = Tmpfs::mount(&mirror.at("volume"), "size=4m")?;
    mirror.launch();
    mirror.wait_ready();
    fill(&mirror);
    mirror.write("volume/a/b", "x");
    Some((mirror, disk))
}

#[test]
fn a_subdirectory_that_is_unmounted_deletes_nothing_below_it() {
    let daemon = Rsyncd::start();
    let Some((mut mirror, disk)) = mirror_with_volume(&daemon) else { return };
    mirror.write("volume/c", "x");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    drop(disk);
    mirror.wait_for_output("ALARM: volume in ");
    nothing_is_deleted(&daemon, before);
    // A file written into the empty mount point does not belong to the file system.
    mirror.write("volume/beneath", "x");
    // Everything else is still mirrored.
    mirror.write("d0/f0", "changed");
    wait_for_content(&daemon.at("d0/f0"), "changed");
    nothing_is_deleted(&daemon, before);
    mirror.kill();
    mirror.launch();
    mirror.wait_ready();
    nothing_is_deleted(&daemon, before);
}

#[test]
fn a_root_that_comes_back_without_what_was_mounted_below_it_deletes_nothing_there() {
    let daemon = Rsyncd::start();
    let Some((mirror, _disk)) = mirror_with_volume(&daemon) else { return };
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    let aside = mirror.dir.join("aside");
    fs::rename(&mirror.source, &aside).unwrap();
    mirror.wait_for_output("ALARM");
    rustix::mount::unmount(aside.join("volume"), rustix::mount::UnmountFlags::DETACH).unwrap();
    fs::rename(&aside, &mirror.source).unwrap();
    mirror.wait_for_output("ALARM: volume in ");
    mirror.write("d0/f0", "changed");
    wait_for_content(&daemon.at("d0/f0"), "changed");
    nothing_is_deleted(&daemon, before);
}

#[test]
fn what_was_unmounted_below_a_root_that_was_away_is_sent_when_it_is_mounted_again() {
    let daemon = Rsyncd::start();
    let Some((mirror, disk)) = mirror_with_volume(&daemon) else { return };
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    drop(disk);
    mirror.wait_for_output("ALARM: volume in ");
    let aside = mirror.dir.join("aside");
    fs::rename(&mirror.source, &aside).unwrap();
    mirror.wait_for_output("ALARM: watch path");
    fs::write(aside.join("d0/unseen"), "x").unwrap();
    fs::rename(&aside, &mirror.source).unwrap();
    let Some(_disk) = Tmpfs::mount(&mirror.at("volume"), "size=4m") else { return };
    mirror.write("volume/new", "x");
    wait_until_same(&mirror.source, &daemon.data, SOON, "with the file system mounted again");
}

#[test]
fn what_was_pending_in_a_subdirectory_that_is_not_mounted_at_the_next_start_is_not_deleted() {
    let mut daemon = Rsyncd::start();
    let Some((mut mirror, disk)) = mirror_with_volume(&daemon) else { return };
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    mirror.wait_for_record();
    let before = picture(&daemon.data).len();
    daemon.stop();
    mirror.write("volume/a/b", "changed");
    mirror.write("d0/f0", "changed");
    mirror.wait_for_output("is down");
    mirror.kill();
    drop(disk);
    daemon.start_again();
    mirror.launch();
    mirror.wait_for_output("ALARM: volume in ");
    wait_for_content(&daemon.at("d0/f0"), "changed");
    nothing_is_deleted(&daemon, before);
}

#[test]
fn a_subdirectory_that_is_not_mounted_at_the_start_deletes_nothing_before_that_is_confirmed() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup { args: vec!["-r".into()], ..Setup::to(&daemon) });
    let Some(disk) = Tmpfs::mount(&mirror.at("volume"), "size=4m") else { return };
    fill(&mirror);
    mirror.write("volume/a/b", "x");
    mirror.launch();
    mirror.wait_for_output("is done in");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    mirror.wait_for_record();
    mirror.stop();
    drop(disk);
    mirror.write("d0/f0", "changed");
    for args in [vec!["-r"], vec![], vec!["-r"]] {
        mirror.set_args(&args);
        mirror.launch();
        mirror.wait_for_output("ALARM: volume in ");
        wait_for_content(&daemon.at("d0/f0"), "changed");
        assert!(daemon.at("volume/a/b").exists());
        mirror.kill();
    }
    mirror.confirm_deletions();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

#[test]
fn a_subdirectory_that_is_renamed_away_or_replaced_takes_nothing_else_along() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon);
    let (here, away) = (mirror.at("d1"), mirror.dir.join("away"));
    let same = |when: &str| {
        wait_until_same(&mirror.source, &daemon.data, SOON, when);
        assert!(daemon.at("d0/f0").exists() && daemon.at("d2/f2").exists());
    };
    fs::rename(&here, &away).unwrap();
    same("while it is away");
    fs::rename(&away, &here).unwrap();
    same("when it is back");
    let other = mirror.dir.dir("other");
    fs::write(other.join("f1"), "of another").unwrap();
    fs::rename(&here, &away).unwrap();
    fs::rename(&other, &here).unwrap();
    same("with another in its place");
    fs::rename(&here, &other).unwrap();
    std::os::unix::fs::symlink(&away, &here).unwrap();
    fs::write(here.join("f1"), "through the link").unwrap();
    same("with a link in its place");
    assert!(daemon.at("d1").is_symlink());
    fs::remove_file(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    same("with the first one again");
    wait_for_content(&daemon.at("d1/f1"), "through the link");
}

#[test]
fn an_unreadable_root_deletes_nothing() {
    let daemon = Rsyncd::start();
    let Some(mirror) = as_nobody(&daemon) else { return };
    fill(&mirror);
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    fs::set_permissions(&mirror.source, fs::Permissions::from_mode(0o000)).unwrap();
    mirror.wait_for_output("ALARM");
    nothing_is_deleted(&daemon, before);
    fs::set_permissions(&mirror.source, fs::Permissions::from_mode(0o777)).unwrap();
    mirror.write("after", "y");
    wait_for_content(&daemon.at("after"), "y");
}

#[test]
fn an_unreadable_subdirectory_deletes_nothing_and_converges_when_it_can_be_read() {
    let daemon = Rsyncd::start();
    let Some(mut mirror) = as_nobody(&daemon) else { return };
    fill(&mirror);
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let before = picture(&daemon.data).len();
    let locked = mirror.at("d1");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    mirror.write("d1/unseen", "x");
    fs::remove_file(mirror.at("d1/f1")).unwrap();
    mirror.write("d2/f2", "changed");
    wait_for_content(&daemon.at("d2/f2"), "changed");
    mirror.kill();
    mirror.launch();
    mirror.wait_ready();
    mirror.write("d2/f6", "changed");
    wait_for_content(&daemon.at("d2/f6"), "changed");
    // The kernel has reported the deletion of one of these.
    for i in [5, 9, 13, 17] {
        assert!(daemon.at(format!("d1/f{i}")).exists(), "what cannot be read was deleted");
    }
    assert!(picture(&daemon.data).len() >= before - 1, "something else was deleted");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o777)).unwrap();
    let same = |path: &std::path::Path| fs::read(path).unwrap_or_default();
    crate::support::wait_until("the unreadable part arrives", || {
        same(&daemon.at("d1/unseen")) == b"x" && !daemon.at("d1/f1").exists()
    });
}

/// A mirror that runs as an ordinary user, because root can read everything.
fn as_nobody(daemon: &Rsyncd) -> Option<Mirror> {
    if !rustix::process::geteuid().is_root() {
        crate::support::skipped("only root can start a program as another user");
        return None;
    }
    let params = "-rltz".to_string();
    let mut mirror = Mirror::prepare(&Setup { params, on: vec!["attrib"], ..Setup::to(daemon) });
    mirror.run_as_nobody();
    mirror.launch();
    mirror.wait_ready();
    Some(mirror)
}
