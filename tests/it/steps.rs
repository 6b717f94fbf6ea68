//! The steps of a save: changes to a path shortly after its content arrive too, with the stock switches.
//! Each test runs with both backends.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_until, wait_until_within};

/// Long enough for a machine under load, and shorter than the interval of any full comparison.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// A mirror with the stock switches, by one backend.
fn mirror(backend: &str) -> (Mirror, Rsyncd) {
    let daemon = Rsyncd::start();
    let head = format!("<fileSystem xfs=\"false\" backend=\"{backend}\"/>");
    (Mirror::start(&Setup { head, ..Setup::to(&daemon) }), daemon)
}

fn run(program: &str, words: &[&str], dir: &Path) {
    let output = Command::new(program).args(words).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

fn mode(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|meta| meta.mode() & 0o7777)
}

fn wait_for_mode(daemon: &Rsyncd, name: &str, expected: u32) {
    wait_until_within(&format!("{name} has mode {expected:o}"), SOON, || {
        mode(&daemon.at(name)) == Some(expected)
    });
}

fn with_both(work: impl Fn(&Mirror, &Rsyncd)) {
    for backend in ["inotify", "fanotify"] {
        let (mirror, daemon) = mirror(backend);
        work(&mirror, &daemon);
    }
}

#[test]
fn twenty_keys_have_the_mode_that_follows_their_content() {
    with_both(|mirror, daemon| {
        for n in 0..20 {
            let key = format!("key{n}");
            mirror.write(&key, "secret");
            if n % 2 == 0 {
                wait_until("the content is there", || daemon.at(&key).exists());
            }
            fs::set_permissions(mirror.at(&key), Permissions::from_mode(0o600)).unwrap();
        }
        (0..20).for_each(|n| wait_for_mode(daemon, &format!("key{n}"), 0o600));
    });
}

#[test]
fn new_directories_have_the_mode_that_follows() {
    with_both(|mirror, daemon| {
        for n in 0..10 {
            let dir = format!("m{n}");
            fs::create_dir(mirror.at(&dir)).unwrap();
            if n % 2 == 0 {
                wait_until("the directory is there", || daemon.at(&dir).exists());
            }
            fs::set_permissions(mirror.at(&dir), Permissions::from_mode(0o2770)).unwrap();
        }
        (0..10).for_each(|n| wait_for_mode(daemon, &format!("m{n}"), 0o2770));
    });
}

#[test]
fn what_tools_save_has_its_mode_and_its_time() {
    with_both(|mirror, daemon| {
        let from = mirror.dir.file("from/program", "#!/bin/sh\n");
        let there = from.parent().unwrap();
        run("touch", &["-d", "2001-02-03 04:05:06", "program"], there);
        let source = mirror.source.to_str().unwrap();
        let target = |name: &str| format!("{source}/{name}");
        run("install", &["-m", "755", "program", &target("installed")], there);
        run("cp", &["-p", "program", &target("copied")], there);
        run("rsync", &["-a", "--inplace", "program", &target("inplace")], there);
        run("rsync", &["-a", "program", &target("renamed")], there);
        run("tar", &["-cf", "a.tar", "program"], there);
        run("tar", &["-xf", "a.tar", "-C", source], there);
        run("sh", &["-c", "echo x > by-hand; sleep 0.3; chmod 700 by-hand"], &mirror.source);
        wait_for_mode(daemon, "installed", 0o755);
        wait_for_mode(daemon, "by-hand", 0o700);
        let time = |path: &Path| fs::metadata(path).ok().map(|meta| meta.mtime());
        for name in ["copied", "inplace", "renamed", "program"] {
            wait_until_within(&format!("{name} has its time"), SOON, || {
                time(&daemon.at(name)) == time(&mirror.at(name))
            });
        }
    });
}

#[test]
fn a_file_truncated_by_its_path_arrives() {
    with_both(|mirror, daemon| {
        mirror.write("f", "content");
        wait_until("the content is there", || daemon.at("f").exists());
        run("perl", &["-e", "truncate('f', 3) or die"], &mirror.source);
        wait_until_within("the shorter file is there", SOON, || {
            fs::read(daemon.at("f")).is_ok_and(|content| content == b"con")
        });
    });
}

#[test]
fn a_time_of_modification_that_is_set_alone_arrives() {
    with_both(|mirror, daemon| {
        mirror.write("f", "content");
        wait_until("the content is there", || daemon.at("f").exists());
        let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let last_modification = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: omit, last_modification };
        let cwd = rustix::fs::CWD;
        rustix::fs::utimensat(cwd, mirror.at("f"), &times, rustix::fs::AtFlags::empty()).unwrap();
        wait_until_within("the time is there", SOON, || {
            fs::metadata(daemon.at("f")).is_ok_and(|meta| meta.mtime() == 1_000_000_000)
        });
    });
}
