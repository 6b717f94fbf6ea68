//! The guard on mass deletion: what vanishes unobserved is not deleted on a remote until somebody confirms it.
//! The trees have a thousand entries, because smaller ones are not guarded.

use std::fs;
use std::time::Duration;

use crate::control;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::{picture, wait_until_same};
use crate::support::tmpfs::Tmpfs;
use crate::support::{wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A stopped mirror of 1,200 files in twelve directories, which are delivered and recorded.
fn stopped_after_a_full_sync(daemon: &Rsyncd, head: &str) -> Mirror {
    let args = vec!["-r".into()];
    let setup = Setup { args, head: head.into(), ..Setup::to(daemon) };
    after_a_full_sync(daemon, Mirror::prepare(&setup))
}

fn after_a_full_sync(daemon: &Rsyncd, mut mirror: Mirror) -> Mirror {
    for i in 0..1_200 {
        mirror.write(format!("d{}/f{i}", i % 12), format!("{i}"));
    }
    mirror.launch();
    mirror.wait_for_output("is done in");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    mirror.wait_for_record();
    assert!(mirror.stop().success());
    mirror.set_args(&[]);
    mirror
}

#[test]
fn half_a_tree_gone_during_downtime_is_deleted_only_when_that_is_confirmed() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "");
    (0..7).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    mirror.write("d8/new", "x");
    for _ in 0..2 {
        mirror.launch();
        mirror.wait_for_output("ALARM: 707 of 12");
        let told = control::text(&control::run(&mirror, "status", &[]));
        for words in ["707 of 12", "if this is meant: sersync2 confirm-deletions -o"] {
            assert!(told.contains(words), "no {words:?} in {told}");
        }
        // Everything else is still mirrored.
        wait_for_content(&daemon.at("d8/new"), "x");
        mirror.write("d9/later", "y");
        wait_for_content(&daemon.at("d9/later"), "y");
        assert!(picture(&daemon.data).len() > 1_200, "something was deleted");
        mirror.kill();
    }
    mirror.confirm_deletions();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

/// With the usual command line of old installations, the full sync must not delete what the guard holds back.
#[test]
fn a_full_sync_at_start_deletes_half_a_tree_only_when_that_is_confirmed() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "");
    mirror.set_args(&["-r"]);
    (0..7).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    fs::write(daemon.at("d8/foreign"), "x").unwrap();
    mirror.write("d8/new", "x");
    for round in 0..2 {
        mirror.launch();
        mirror.wait_for_output(&format!("ALARM: {} of 1212", 707 + round));
        mirror.wait_for_output("nothing was deleted (see the alarm)");
        // Everything else is still mirrored: what the full sync finds, and new changes, including deletions.
        wait_for_content(&daemon.at("d8/new"), "x");
        mirror.write(format!("later{round}"), "y");
        wait_for_content(&daemon.at(format!("later{round}")), "y");
        let gone = format!("d9/f{}", 9 + 12 * round);
        fs::remove_file(mirror.at(&gone)).unwrap();
        wait_until("a deletion that was seen arrives", || !daemon.at(&gone).exists());
        // A directory that is moved in from elsewhere is sent completely.
        fs::create_dir_all(mirror.dir.join("elsewhere/deep")).unwrap();
        fs::write(mirror.dir.join("elsewhere/deep/f"), "z").unwrap();
        let moved = format!("moved{round}");
        fs::rename(mirror.dir.join("elsewhere"), mirror.at(&moved)).unwrap();
        wait_for_content(&daemon.at(format!("{moved}/deep/f")), "z");
        assert!((0..7).all(|dir| daemon.at(format!("d{dir}/f{dir}")).exists()), "deleted");
        assert!(daemon.at("d8/foreign").exists(), "a comparison has deleted");
        mirror.kill();
    }
    mirror.confirm_deletions();
    mirror.launch();
    mirror.wait_for_output("deletions are confirmed");
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
    assert!(!mirror.output().contains("ALARM"));
}

#[test]
fn what_a_full_sync_did_not_delete_is_compared_again_after_the_confirmation_without_r() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "");
    mirror.set_args(&["-r"]);
    (0..7).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    // The record does not contain this file; only a comparison finds it.
    fs::write(daemon.at("d8/foreign"), "x").unwrap();
    mirror.launch();
    mirror.wait_for_output("nothing was deleted (see the alarm)");
    mirror.kill();
    mirror.confirm_deletions();
    mirror.set_args(&[]);
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

#[test]
fn a_full_sync_at_start_deletes_less_than_the_limit_and_everything_with_the_guard_off() {
    for (limit, gone) in [("<guard maxDelete=\"70%\"/>", 7), ("<guard maxDelete=\"off\"/>", 12)] {
        let daemon = Rsyncd::start();
        let mut mirror = stopped_after_a_full_sync(&daemon, limit);
        mirror.set_args(&["-r"]);
        (0..gone).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
        fs::create_dir(daemon.at("foreign")).unwrap();
        mirror.launch();
        wait_until_same(&mirror.source, &daemon.data, SOON, limit);
        assert!(!mirror.output().contains("ALARM"));
    }
}

#[test]
fn a_full_sync_at_start_deletes_nothing_when_nobody_can_tell_what_is_gone() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::prepare(&Setup { args: vec!["-r".into()], ..Setup::to(&daemon) });
    let Some(disk) = Tmpfs::mount(&mirror.dir.join("state"), "size=2m") else { return };
    let mut mirror = after_a_full_sync(&daemon, mirror);
    mirror.set_args(&["-r"]);
    (0..7).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    mirror.write("d8/new", "x");
    disk.fill();
    mirror.launch();
    mirror.wait_for_output("nothing was deleted (see the alarm)");
    mirror.wait_for_output(
        "directories are sent and nothing in them is deleted: fix that and restart",
    );
    wait_for_content(&daemon.at("d8/new"), "x");
    assert!((0..7).all(|dir| daemon.at(format!("d{dir}/f{dir}")).exists()), "deleted");
    mirror.kill();
    disk.empty();
    mirror.launch();
    mirror.wait_for_output("ALARM: 707 of 12");
    mirror.kill();
    mirror.confirm_deletions();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

#[test]
fn less_than_the_limit_is_deleted_without_a_word_and_so_is_everything_with_the_guard_off() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "<guard maxDelete=\"70%\"/>");
    (0..7).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "below the limit");
    assert!(!mirror.output().contains("ALARM"));
    mirror.stop();
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "<guard maxDelete=\"100%\"/>");
    (0..12).for_each(|dir| fs::remove_dir_all(mirror.at(format!("d{dir}"))).unwrap());
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "without a guard");
}

#[test]
fn a_root_that_comes_back_nearly_empty_is_not_mirrored_until_it_holds_more() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "");
    mirror.launch();
    mirror.wait_ready();
    mirror.write("d0/f0", "changed");
    wait_for_content(&daemon.at("d0/f0"), "changed");
    let away = mirror.dir.join("away");
    fs::rename(&mirror.source, &away).unwrap();
    fs::create_dir(&mirror.source).unwrap();
    mirror.write("d0/only", "x");
    mirror.wait_for_output("are known");
    assert_eq!(picture(&daemon.data).len(), 1_212);
    fs::remove_dir_all(&mirror.source).unwrap();
    fs::rename(&away, &mirror.source).unwrap();
    mirror.write("after", "y");
    wait_for_content(&daemon.at("after"), "y");
    wait_until_same(&mirror.source, &daemon.data, SOON, "when the root is whole again");
    // The same mass deletion again; this time it is confirmed.
    let said = || mirror.output().matches("are known").count();
    let before = said();
    fs::rename(&mirror.source, &away).unwrap();
    fs::create_dir(&mirror.source).unwrap();
    mirror.write("d0/only", "x");
    wait_until("it is said again", || said() > before);
    mirror.confirm_deletions();
    mirror.kill();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is confirmed");
}

#[test]
fn another_directory_found_at_the_start_is_mirrored_when_it_holds_enough() {
    let daemon = Rsyncd::start();
    let mut mirror = stopped_after_a_full_sync(&daemon, "");
    // Like a restore from a backup: another directory with nearly the same content.
    fs::rename(&mirror.source, mirror.dir.join("away")).unwrap();
    for i in 0..1_000 {
        mirror.write(format!("d{}/f{i}", i % 12), format!("{i}"));
    }
    mirror.launch();
    mirror.wait_for_output("is another directory than before: everything below it is compared");
    wait_until_same(&mirror.source, &daemon.data, SOON, "with the other directory");
    mirror.write("d0/later", "y");
    wait_for_content(&daemon.at("d0/later"), "y");
}
