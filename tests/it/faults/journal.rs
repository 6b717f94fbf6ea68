//! Pending changes survive the end of the program, whatever state its journal is in.
//! Some of these tests switch the walk after downtime off, because it would find the same changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sersync::control::socket::connect_to;
use sersync::state::config_of;

use crate::control;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::tmpfs::Tmpfs;
use crate::support::{wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn without_walk(daemon: &Rsyncd) -> Setup {
    Setup { args: vec!["--no-catch-up".into()], ..Setup::to(daemon) }
}

fn journal(mirror: &Mirror) -> PathBuf {
    let is_journal = |path: &PathBuf| path.file_name().is_some_and(|name| name == "journal");
    mirror.state_files().into_iter().find(is_journal).expect("there is a journal")
}

fn is_on_record(mirror: &Mirror, name: &str) -> bool {
    let is_record =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("record-");
    let files = mirror.state_files().into_iter().filter(is_record);
    let mut contents = files.filter_map(|path| fs::read(path).ok());
    contents.any(|bytes| bytes.windows(name.len()).any(|window| window == name.as_bytes()))
}

/// A killed mirror. Its remote has `old` and `kept`, and lacks `new/0` to `new/19` and the deletion of `old`.
fn killed_while_the_remote_is_down(setup: &Setup, daemon: &mut Rsyncd) -> Mirror {
    let mut mirror = Mirror::start(setup);
    mirror.write("old", "x");
    mirror.write("kept", "x");
    wait_for_content(&daemon.at("old"), "x");
    wait_for_content(&daemon.at("kept"), "x");
    if setup.args.is_empty() {
        // A file is on record some time after it has arrived.
        wait_until("both are on record", || {
            ["old", "kept"].iter().all(|name| is_on_record(&mirror, name))
        });
    }
    daemon.stop();
    fs::remove_file(mirror.at("old")).unwrap();
    for i in 0..20 {
        mirror.write(format!("new/{i}"), format!("{i}"));
    }
    mirror.wait_for_output("is down");
    // The program writes each change to the journal before it acts on it.
    let written = |name: &[u8]| {
        let bytes = fs::read(journal(&mirror)).unwrap();
        bytes.windows(name.len()).any(|window| window == name)
    };
    wait_until("the last change is in the journal", || written(b"new/19") && written(b"old"));
    mirror.kill();
    mirror
}

#[test]
fn changes_that_wait_for_a_dead_remote_survive_a_kill() {
    let mut daemon = Rsyncd::start();
    let mut mirror = killed_while_the_remote_is_down(&without_walk(&daemon), &mut daemon);
    daemon.start_again();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the kill");
}

#[test]
fn a_full_sync_that_is_done_is_not_repeated_by_a_start_without_r() {
    let daemon = Rsyncd::start();
    let own = tempfile::tempdir().unwrap();
    let mut setup = Setup::to(&daemon);
    setup.more_remotes = format!("<remote path=\"{}\"/>", own.path().display());
    setup.args = vec!["-r".into()];
    let mut mirror = Mirror::prepare(&setup);
    // So many files and directories that a comparison is divided.
    let fill = |top: &Path| {
        for n in 0..2_100 {
            let directory = top.join(format!("{}", n % 40));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("{n}")), "").unwrap();
        }
    };
    fill(&mirror.source);
    mirror.launch();
    mirror.wait_for_record();
    let prepared = mirror.dir.join("large");
    fill(&prepared);
    fs::rename(&prepared, mirror.at("large")).unwrap();
    let delivered = |mirror: &Mirror, name: &str| {
        mirror.write(name, "x");
        let flush = control::run(mirror, "flush", &[]);
        assert!(flush.status.success(), "{flush:?}");
        assert!(daemon.at(name).exists() && own.path().join(name).exists());
    };
    delivered(&mirror, "last");
    assert!(mirror.stop().success());
    let theirs =
        ["of the remote", "1/of the remote", "large/of the remote", "large/1/of the remote"];
    let theirs = || theirs.iter().flat_map(|name| [daemon.at(name), own.path().join(name)]);
    theirs().for_each(|path| fs::write(path, "x").unwrap());
    mirror.set_args(&[]);
    mirror.launch();
    mirror.wait_ready();
    delivered(&mirror, "after the restart");
    theirs().for_each(|path| assert!(path.exists(), "{} was deleted", path.display()));
}

#[test]
fn a_state_directory_that_is_deleted_is_made_again_with_all_that_is_pending() {
    let mut daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    mirror.wait_for_record();
    daemon.stop();
    (0..300).for_each(|i| mirror.write(format!("d{}/f{i}", i % 7), format!("{i}")));
    mirror.wait_for_output("is down");
    // Rename it first: the program would recreate it during a slow removal.
    fs::rename(mirror.dir.join("state"), mirror.dir.join("gone")).unwrap();
    fs::remove_dir_all(mirror.dir.join("gone")).unwrap();
    mirror.write("trigger", "x");
    mirror.wait_for_output("the state directory was deleted while this program runs");
    let state = journal(&mirror).parent().unwrap().to_path_buf();
    wait_until("the control socket answers again", || connect_to(&state).is_ok());
    assert_eq!(config_of(&state), fs::canonicalize(&mirror.config).ok());
    mirror.write("later", "x");
    let written = || {
        let bytes = fs::read(journal(&mirror)).unwrap_or_default();
        bytes.windows(5).any(|window| window == b"later")
    };
    wait_until("the journal goes on", written);
    mirror.wait_for_record();
    assert_eq!(mirror.output().matches("the state directory was deleted").count(), 1);
    mirror.kill();
    daemon.start_again();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the kill");
}

#[test]
fn a_torn_tail_is_dropped_with_a_warning_and_nothing_is_lost() {
    let mut daemon = Rsyncd::start();
    let mut mirror = killed_while_the_remote_is_down(&Setup::to(&daemon), &mut daemon);
    let file = fs::OpenOptions::new().write(true).open(journal(&mirror)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    daemon.start_again();
    mirror.launch();
    mirror.wait_for_output("ends in an unfinished write");
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the torn tail");
}

#[test]
fn a_damaged_journal_leads_to_a_full_comparison_that_deletes_nothing_unknown_without_r() {
    let mut daemon = Rsyncd::start();
    // The second start says that no walk is wanted. But only a walk finds what is gone.
    for (damage, args) in [(0usize, &[][..]), (40, &["--no-catch-up"])] {
        daemon.start_again();
        let mut mirror = killed_while_the_remote_is_down(&Setup::to(&daemon), &mut daemon);
        let path = journal(&mirror);
        let mut bytes = fs::read(&path).unwrap();
        let end = if damage == 0 { bytes.len() } else { bytes.len() / 2 };
        bytes[damage..end].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7) ^ 0x5A);
        fs::write(&path, bytes).unwrap();
        fs::create_dir_all(daemon.at("new")).unwrap();
        let own = ["own", "new/own"].map(|name| daemon.at(name));
        own.iter().for_each(|own| fs::write(own, "of the receiver").unwrap());
        daemon.start_again();
        mirror.set_args(args);
        mirror.launch();
        mirror.wait_for_output("is damaged: everything will be synced");
        wait_for_content(&daemon.at("new/19"), "19");
        wait_until("what is gone is deleted", || !daemon.at("old").exists());
        mirror.write("marker", "end");
        wait_for_content(&daemon.at("marker"), "end");
        assert!(own.iter().all(|own| own.exists()), "{}", mirror.output());
        assert!(mirror.stop().success());
        mirror.set_args(&["-r"]);
        mirror.launch();
        wait_until_same(&mirror.source, &daemon.data, SOON, "with -r");
        assert!(mirror.stop().success());
    }
}

#[test]
fn a_journal_of_other_remotes_leads_to_a_full_comparison() {
    let mut daemon = Rsyncd::start();
    let mut mirror = killed_while_the_remote_is_down(&Setup::to(&daemon), &mut daemon);
    let xml = fs::read_to_string(&mirror.config).unwrap();
    fs::write(&mirror.config, xml.replace("ip=\"127.0.0.1\"", "ip=\"localhost\"")).unwrap();
    daemon.start_again();
    mirror.launch();
    mirror.wait_for_output("is of another configuration: everything will be synced");
    wait_until_same(&mirror.source, &daemon.data, SOON, "with other remotes");
}

#[test]
fn a_second_instance_of_a_configuration_is_refused_and_told_who_holds_it() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    let second = second_instance(&mirror, &mirror.dir.join("state"));
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = format!("already served by process {}", mirror.pid());
    assert!(told.contains(&holder), "{told}");
    mirror.write("f", "still at work");
    wait_for_content(&daemon.at("f"), "still at work");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::prepare(&Setup::to(&daemon));
    let file = mirror.dir.file("a-file", "");
    let refused = second_instance(&mirror, &file);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("a-file") && told.contains("--state-dir"), "{told}");
}

fn second_instance(mirror: &Mirror, state: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    command.arg("-o").arg(&mirror.config).arg("--state-dir").arg(state).output().unwrap()
}

#[test]
fn a_full_disk_under_the_journal_stops_nothing_and_a_restart_compares_everything() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&without_walk(&daemon));
    let Some(disk) = Tmpfs::mount(&mirror.dir.join("state"), "size=1m") else { return };
    mirror.launch();
    mirror.wait_ready();
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    disk.fill();
    for i in 0..2_000 {
        mirror.write(format!("during/a-rather-long-name-to-fill-pages-{i}"), "x");
    }
    mirror.wait_for_output("work goes on, but a restart will have to look at everything");
    wait_until_same(&mirror.source, &daemon.data, SOON, "while the disk is full");
    mirror.kill();
    // The program saw no events for these.
    mirror.write("unseen", "x");
    fs::remove_file(mirror.at("before")).unwrap();
    disk.empty();
    mirror.launch();
    mirror.wait_for_output("everything will be synced");
    wait_for_content(&daemon.at("unseen"), "x");
    // Nobody has recorded it.
    assert!(daemon.at("before").exists());
    assert!(mirror.stop().success());
    mirror.set_args(&["-r"]);
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the full disk, with -r");
}

#[test]
fn a_journal_that_cannot_be_written_is_shown_until_it_is_complete_again() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let Some(disk) = Tmpfs::mount(&mirror.dir.join("state"), "size=1m") else { return };
    mirror.launch();
    mirror.wait_ready();
    let lacks = || control::snapshot(&mirror)["instance"]["journal_incomplete"].clone();
    wait_until("status answers", || !lacks().is_null());
    assert_eq!(lacks(), false);
    disk.fill();
    for i in 0..500 {
        mirror.write(format!("during/a-rather-long-name-to-fill-pages-{i}"), "x");
    }
    mirror.wait_for_output("work goes on, but a restart will have to look at everything");
    wait_until("status shows it", || lacks() == true);
    let told = control::run(&mirror, "status", &[]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let told = control::text(&told);
    assert!(told.contains("STATE CANNOT BE WRITTEN"), "{told}");
    assert!(told.contains("do:  make room in "), "{told}");
    assert!(told.contains("NOT ALL IS WELL: what is pending cannot be written down"), "{told}");
    disk.empty();
    // The next change triggers another try.
    mirror.write("after", "x");
    wait_until("it is complete again", || lacks() == false);
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the full disk");
}
