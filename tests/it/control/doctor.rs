//! `sersync2 doctor` against real daemons and a real sshd: it predicts what would fail, and leaves nothing behind.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::text;
use crate::support::mirror::Setup;
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::sshd::Sshd;
use crate::support::{TestDir, skipped, tree};

/// Its output for `setup`, whose mirror is not started.
fn examine_with(setup: &Setup, words: &[&str]) -> (Output, TestDir) {
    let dir = TestDir::new();
    let source = dir.dir("source");
    dir.file("source/a/file", "content");
    let config = dir.file("c.xml", setup.xml(&source, &dir.join("fail.sh")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    command.arg("doctor").arg("-o").arg(config).arg("--state-dir").arg(dir.join("state"));
    command.args(words).envs(setup.env.iter().map(|(name, value)| (name, value)));
    (command.output().unwrap(), dir)
}

fn examine(setup: &Setup) -> Output {
    examine_with(setup, &[]).0
}

/// The verdict and the text of one check of the first remote.
fn finding(output: &Output, check: &str) -> (String, String) {
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sections = said["sections"].as_array().unwrap();
    let all = sections[1]["findings"].as_array().unwrap();
    let found = all.iter().find(|it| it["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {said:#}"));
    let word = |name: &str| found[name].as_str().unwrap().to_owned();
    (word("verdict"), word("text"))
}

#[test]
fn a_remote_that_is_ready_is_called_so_and_keeps_nothing_of_the_trial() {
    let remote = Rsyncd::start();
    fs::write(remote.at("theirs"), "kept").unwrap();
    let before = tree(&remote.data);
    let output = examine(&Setup::to(&remote));
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for words in [
        "127.0.0.1 is 127.0.0.1",
        "greets",
        "rsync 3.4 or newer",
        "module data lets us in",
        "it can do all",
        "kept to the nanosecond",
        "were made there and deleted again",
        "4 at once are served",
        "2 directories to watch",
        "ready: nothing is wrong",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert_eq!(tree(&remote.data), before);
}

#[test]
fn nothing_is_made_with_read_only_words_or_where_nothing_could_be_deleted() {
    let refusing =
        Options { module: "refuse options = delete checksum".into(), ..Options::default() };
    let remote = Rsyncd::start_with(&refusing);
    let (output, _dir) = examine_with(&Setup::to(&remote), &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(finding(&output, "writable").0, "unknown");
    let said = text(&output);
    assert!(said.contains("it deletes nothing") && said.contains("compare contents"), "{said}");
    let (output, _dir) = examine_with(&Setup::to(&remote), &["--json", "--read-only"]);
    assert!(finding(&output, "writable").1.contains("--read-only"));
    let log = fs::read_to_string(remote.log_file()).unwrap();
    assert!(!log.contains("sersync-doctor"), "{log}");
}

#[test]
fn each_way_in_that_is_closed_is_named_with_what_to_do() {
    let read_only = Options { module: "read only = yes".into(), ..Options::default() };
    let remote = Rsyncd::start_with(&read_only);
    let expect = |setup: &Setup, words: &[&str]| {
        let output = examine(setup);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in\n{text}");
        }
    };
    let data = Setup::to(&remote);
    expect(&data, &["read only", "do: set \"read only = no\""]);
    let module = |name: &str| vec![("127.0.0.1".to_owned(), name.to_owned())];
    expect(&Setup { remotes: module("none"), ..data.clone() }, &["has no module none", "do: "]);
    let password = remote.password_file("wrong");
    let auth =
        format!("<auth start=\"true\" users=\"bob\" passwordfile=\"{}\"/>", password.display());
    let wrong = Setup { remotes: module("auth"), rsync: auth, ..data.clone() };
    expect(&wrong, &["refuses user bob", "do: compare"]);
    let nowhere = vec![("no.such.host.invalid".to_owned(), "data".to_owned())];
    expect(&Setup { remotes: nowhere, ..data.clone() }, &["cannot be resolved"]);
    let port = remote.port;
    drop(remote);
    expect(&Setup { port, ..data }, &["Connection refused", "do: start the rsync daemon"]);
}

#[test]
fn a_directory_that_cannot_be_written_and_few_connections_are_told() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only a daemon of root can take another user for its module");
    }
    let remote = Rsyncd::start_with(&Options {
        module: "max connections = 1\nuid = 65534\ngid = 65534".into(),
        ..Options::default()
    });
    let (output, _dir) = examine_with(&Setup::to(&remote), &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let (verdict, said) = finding(&output, "writable");
    assert!(verdict == "error" && said.contains("Permission denied"), "{said}");
    let (verdict, said) = finding(&output, "connections");
    assert!(verdict == "warning" && said.contains("max connections"), "{said}");
}

#[test]
fn a_remote_behind_ssh_is_examined_too_and_a_directory_that_is_missing_is_not_made() {
    let sshd = Sshd::start();
    let there = TestDir::new();
    let mut setup = Setup {
        remotes: vec![("127.0.0.1".into(), there.dir("copy").display().to_string())],
        port: sshd.port,
        ssh: true,
        params: "-artuz -e 'ssh -p PORT'".replace("PORT", &sshd.port.to_string()),
        env: vec![("PATH".into(), sshd.path_variable())],
        ..Setup::plain()
    };
    let (output, _dir) = examine_with(&setup, &["--json"]);
    assert_eq!(finding(&output, "writable").0, "ok", "{}", text(&output));
    assert_eq!(finding(&output, "times").0, "ok");
    assert_eq!(finding(&output, "clock").0, "ok");
    let missing = there.join("missing");
    setup.remotes = vec![("127.0.0.1".into(), missing.display().to_string())];
    let (output, _dir) = examine_with(&setup, &["--json"]);
    assert!(finding(&output, "writable").1.contains("not there yet"), "{}", text(&output));
    assert!(!missing.exists());
}

#[test]
fn state_of_a_configuration_that_is_gone_is_named_with_the_command_that_removes_it() {
    let remote = Rsyncd::start();
    let setup = Setup::to(&remote);
    let mut mirror = crate::support::mirror::Mirror::start(&setup);
    mirror.stop();
    let moved = mirror.dir.join("moved.xml");
    fs::rename(&mirror.config, &moved).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    command.arg("doctor").arg("-o").arg(&moved);
    let output = command.arg("--state-dir").arg(mirror.dir.join("state")).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let gone = format!("belongs to {}, which is gone", mirror.config.display());
    assert!(text.contains(&gone) && text.contains("do: rm -r "), "{text}");
}

#[test]
fn two_watch_paths_with_one_module_are_found_although_their_hosts_are_written_differently() {
    let remote = Rsyncd::start();
    let dir = TestDir::new();
    let first = Setup { remotes: vec![("127.0.0.1".into(), "data".into())], ..Setup::to(&remote) };
    let second = format!("</localpath>\n<localpath watch=\"{}\">", dir.dir("second").display());
    let second = format!("{second}<remote ip=\"localhost\" name=\"data\"/>");
    let output = examine(&Setup { more_remotes: second, ..first });
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(
        text(&output).contains("goes to the same module of the same machine"),
        "{}",
        text(&output)
    );
}
