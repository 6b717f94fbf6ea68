//! The fail log end to end: it lists what a remote refuses, survives a kill, and drops a path when it is delivered.
//! The refusals are real: a directory of the remote is immutable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::control;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A directory that not even root can write to, until this value is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: PathBuf) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        crate::support::skipped(format!("cannot make {} immutable", path.display()));
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

fn script(mirror: &Mirror) -> String {
    fs::read_to_string(&mirror.fail_log).unwrap_or_default()
}

#[test]
fn what_a_remote_refuses_stands_in_the_fail_log_until_it_is_delivered() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("locked/first", "x");
    wait_for_content(&daemon.at("locked/first"), "x");
    mirror.wait_for_record();
    let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
    mirror.write("locked/refused 'name'", "y");
    let inside = mirror.dir.dir("inside");
    fs::create_dir(inside.join("deep")).unwrap();
    fs::write(inside.join("deep/f"), "z").unwrap();
    fs::rename(&inside, mirror.at("locked/moved-in")).unwrap();
    mirror.write("free", "z");
    wait_for_content(&daemon.at("free"), "z");
    // After three quick retries, within some seconds.
    wait_until("the refused path is in the fail log", || script(&mirror).contains("refused"));
    let text = script(&mirror);
    assert!(text.contains("#errno 23\n"), "{text}");
    assert!(text.contains("rsync ") && text.contains("\"./locked/refused 'name'\""), "{text}");
    let mode = fs::metadata(&mirror.fail_log).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o137, 0, "mode {mode:o}");
    // The fail log is a valid shell script.
    assert!(Command::new("sh").arg("-n").arg(&mirror.fail_log).status().unwrap().success());

    mirror.kill();
    drop(lock);
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "after the kill");
    wait_until("the fail log is empty", || !script(&mirror).contains("rsync"));
}

#[test]
fn a_hidden_or_long_name_that_is_refused_stands_in_the_fail_log_under_its_own_name() {
    let daemon = Rsyncd::start();
    fs::create_dir(daemon.at("locked")).unwrap();
    let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    let long = "n".repeat(250);
    let names = [".htaccess", &long];
    for name in names {
        mirror.write(format!("locked/{name}"), "x");
    }
    for name in names {
        wait_until("it is in the fail log", || script(&mirror).contains(&format!("/{name}")));
    }
    drop(lock);
    control::run(&mirror, "retry", &[]);
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is accepted");
    wait_until("the fail log is empty", || !script(&mirror).contains("rsync"));
}

#[test]
fn a_deleted_directory_that_the_remote_cannot_delete_stands_in_the_fail_log() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    mirror.write("www/up/f", "x");
    mirror.write("www/g", "x");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let Some(lock) = Immutable::make(daemon.at("www/up")) else { return };
    fs::remove_dir_all(mirror.at("www")).unwrap();
    mirror.wait_for_output("www could not be sent to");
    wait_until("it is in the fail log", || script(&mirror).contains("www"));
    drop(lock);
    control::run(&mirror, "retry", &[]);
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it can be deleted");
}

#[test]
fn a_directory_that_moves_where_the_remote_refuses_it_keeps_nothing_else_back() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    for i in 0..20 {
        mirror.write(format!("d/{i}"), "x");
    }
    mirror.write("locked/f", "x");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
    fs::rename(mirror.at("d"), mirror.at("locked/d")).unwrap();
    mirror.wait_for_output("locked/d could not be sent to");
    mirror.write("beside", "x");
    wait_for_content(&daemon.at("beside"), "x");
    drop(lock);
    control::run(&mirror, "retry", &[]);
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it is accepted");
    assert!(!mirror.output().contains("cannot make the directory"), "{}", mirror.output());
}

#[test]
fn what_is_refused_in_the_middle_of_a_tree_is_sent_after_a_restart() {
    for is_killed in [false, true] {
        let daemon = Rsyncd::start();
        fs::create_dir(daemon.at("locked")).unwrap();
        let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
        // Without ready sessions nothing is confirmed later, which would note the path once more.
        let rsync = "<session ready=\"0\"/>".into();
        let setup = Setup { args: vec!["-r".into()], rsync, ..Setup::to(&daemon) };
        let mut mirror = Mirror::prepare(&setup);
        mirror.write("locked/refused", "x");
        mirror.write("free", "y");
        mirror.launch();
        mirror.wait_for_output("is done in");
        wait_for_content(&daemon.at("free"), "y");
        wait_until("the refused path is in the fail log", || script(&mirror).contains("refused"));
        mirror.wait_for_record();
        match is_killed {
            true => mirror.kill(),
            false => assert!(mirror.stop().success()),
        }
        drop(lock);
        mirror.set_args(&[]);
        mirror.launch();
        wait_until_same(&mirror.source, &daemon.data, SOON, "after the restart");
    }
}

#[test]
fn a_remote_that_stays_down_stands_in_the_fail_log() {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    daemon.stop();
    mirror.write("g", "y");
    wait_until("the remote is in the fail log", || script(&mirror).contains("#errno 10"));
    daemon.start_again();
    wait_for_content(&daemon.at("g"), "y");
    wait_until("the fail log is empty", || !script(&mirror).contains("rsync"));
}

#[test]
fn a_script_that_sersync2_left_is_set_aside_and_never_run() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let mark = mirror.dir.join("was-run");
    let legacy = format!("#errno 10\ntouch {}\n", mark.display());
    fs::write(&mirror.fail_log, &legacy).unwrap();
    mirror.launch();
    mirror.wait_ready();
    mirror.wait_for_output(".legacy");
    let aside = mirror.fail_log.with_extension("sh.legacy");
    assert_eq!(fs::read_to_string(aside).unwrap(), legacy);
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    assert!(!mark.exists());
}

#[test]
fn what_cannot_be_deleted_by_comparing_its_directory_reaches_the_fail_log_too() {
    let daemon = Rsyncd::start();
    let params = "-a --include=*.txt".to_owned();
    let mirror = Mirror::start(&Setup { params, ..Setup::to(&daemon) });
    mirror.write("locked/gone.txt", "x");
    wait_for_content(&daemon.at("locked/gone.txt"), "x");
    mirror.wait_for_record();
    let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
    fs::remove_file(mirror.at("locked/gone.txt")).unwrap();
    wait_until("the directory is in the fail log", || script(&mirror).contains("locked"));
    mirror.wait_for_output("locked");
    drop(lock);
    assert!(daemon.at("locked/gone.txt").exists());
}

/// How many lines of the log report that something could not be sent.
fn complaints(output: &str) -> usize {
    output.lines().filter(|line| line.contains("could not be sent")).count()
}

#[test]
fn three_thousand_refused_files_are_few_lines_and_arrive_within_a_minute_after_the_cause_is_gone() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("locked/first", "x");
    wait_for_content(&daemon.at("locked/first"), "x");
    mirror.wait_for_record();
    let Some(lock) = Immutable::make(daemon.at("locked")) else { return };
    for number in 0..3_000 {
        mirror.write(format!("locked/f{number}"), "y");
    }
    wait_until("all of them are in the fail log", || script(&mirror).lines().count() > 3_000);
    let output = mirror.output();
    assert!(output.contains("in locked could not be sent"), "{output}");
    let lines = complaints(&output);
    assert!((1..20).contains(&lines), "{lines} lines");
    drop(lock);
    let a_minute = Duration::from_secs(60);
    wait_until_same(&mirror.source, &daemon.data, a_minute, "when the cause is gone");
    wait_until("the fail log is empty", || !script(&mirror).contains("rsync"));
}

#[test]
fn a_remote_that_is_down_is_said_again_when_the_log_is_opened_anew() {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    daemon.stop();
    mirror.write("g", "y");
    mirror.wait_for_output("is down");
    assert!(!mirror.output().contains("this lasts for"));
    mirror.signal(rustix::process::Signal::HUP);
    mirror.wait_for_output("sent when it is back (this lasts for");
}
