//! The mirror with a receiver that cannot delete missing names, as in stock Debian 12. `make test` downloads such an rsync.

use std::fs;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::{tree, wait_for_content, wait_until};

fn old_daemon() -> Rsyncd {
    let program = std::env::var_os("SERSYNC_OLD_RSYNC").unwrap();
    Rsyncd::start_with(&Options { program: program.into(), ..Options::default() })
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn old_rsync_gets_deletions_too() {
    let daemon = old_daemon();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for i in 0..40 {
        mirror.write(format!("d{}/f{i}", i % 4), "x");
    }
    mirror.write("d0/[odd] *name?\\", "x");
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    for i in 0..20 {
        fs::remove_file(mirror.at(format!("d{}/f{i}", i % 4))).unwrap();
    }
    fs::remove_file(mirror.at("d0/[odd] *name?\\")).unwrap();
    fs::remove_dir_all(mirror.at("d3")).unwrap();
    mirror.write("d0/new", "y");
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn old_rsync_gets_same_size_rewrites() {
    let daemon = old_daemon();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for round in 0..20 {
        let content = format!("{round:04}");
        mirror.write("counter", &content);
        wait_for_content(&daemon.at("counter"), &content);
    }
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn old_rsync_follows_renamed_directories_and_replaced_types() {
    let daemon = old_daemon();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for i in 0..20 {
        mirror.write(format!("old/s{}/f{i}", i % 3), format!("{i}"));
    }
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    fs::rename(mirror.at("old"), mirror.at("new")).unwrap();
    mirror.write("x", "file");
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    fs::remove_file(mirror.at("x")).unwrap();
    mirror.write("x/y", "below");
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn old_rsync_gets_deletions_after_a_full_sync_that_asked_nothing() {
    let daemon = old_daemon();
    fs::write(daemon.at("not in the source"), "x").unwrap();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    for i in 0..20 {
        mirror.write(format!("d{}/f{i}", i % 4), "x");
    }
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_ready();
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    fs::remove_file(mirror.at("d0/f0")).unwrap();
    fs::remove_dir_all(mirror.at("d3")).unwrap();
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}
