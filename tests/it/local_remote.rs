//! A directory of this machine as a remote: rsync runs locally, and a share that is not mounted is never filled.

use std::fs;
use std::path::Path;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::tmpfs::Tmpfs;
use crate::support::{TestDir, tree, wait_for_content, wait_until};

/// A configuration with one remote: the directory `path`.
fn setup_to(daemon: &Rsyncd, path: &Path) -> Setup {
    let remote = format!("<remote path=\"{}\" bwlimit=\"0\"/>", path.display());
    Setup { remotes: Vec::new(), more_remotes: remote, ..Setup::to(daemon) }
}

#[test]
fn a_local_directory_gets_everything_that_a_remote_gets() {
    let copies = TestDir::new();
    let copy = copies.dir("copy");
    copies.file("copy/extraneous", "old");
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&setup_to(&daemon, &copy));
    mirror.write("a/f", "1");
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_ready();
    wait_for_content(&copy.join("a/f"), "1");
    wait_until("the full sync has deleted what is extraneous", || {
        !copy.join("extraneous").exists()
    });
    mirror.write("a/f", "2");
    mirror.write("a/it's \"odd\"\n", "3");
    wait_for_content(&copy.join("a/f"), "2");
    wait_for_content(&copy.join("a/it's \"odd\"\n"), "3");
    fs::rename(mirror.at("a"), mirror.at("b")).unwrap();
    fs::remove_file(mirror.at("b/f")).unwrap();
    wait_until("the copy is equal", || tree(&copy) == tree(&mirror.source));
    assert!(mirror.stop().success());
}

#[test]
fn a_share_that_is_not_mounted_is_never_filled_beneath_its_mount_point() {
    let dir = TestDir::new();
    let point = dir.dir("mnt");
    let Some(share) = Tmpfs::mount(&dir.join("disk"), "size=4m") else { return };
    let Some(mounted) = Tmpfs::bind(&dir.join("disk"), &point) else { return };
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&setup_to(&daemon, &point));
    mirror.write("f", "1");
    wait_for_content(&point.join("f"), "1");
    drop(mounted);
    mirror.write("g", "2");
    mirror.wait_for_output("another directory is in its place");
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "the mount point was filled");
    let Some(again) = Tmpfs::bind(&dir.join("disk"), &point) else { return };
    wait_for_content(&point.join("g"), "2");
    assert!(mirror.stop().success());
    drop((again, share));
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "the mount point was filled");
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let dir = TestDir::new();
    let daemon = Rsyncd::start();
    let copy = dir.join("nowhere");
    let mut mirror = Mirror::prepare(&setup_to(&daemon, &copy));
    mirror.launch();
    assert_eq!(mirror.wait().code(), Some(1));
    mirror.wait_for_output("sersync makes no directory for a remote on this machine");
    assert!(!copy.exists());
}
