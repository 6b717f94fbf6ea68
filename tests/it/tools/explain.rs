//! `sersync2 explain` and `sersync2 events`, without a running instance and with one.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::wait_until;

fn run(mirror: &Mirror, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sersync2"))
        .args(words)
        .current_dir(&mirror.source)
        .output()
        .unwrap()
}

/// Explains a path; returns the exit code and the text.
fn explain(mirror: &Mirror, words: &[&str]) -> (i32, String) {
    let config = mirror.config.to_str().unwrap().to_owned();
    let words = [&["explain", "-o", &config], words].concat();
    let output = run(mirror, &words);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

fn prepare(daemon: &Rsyncd, params: &str) -> Mirror {
    let head = "<filter start=\"true\" dotfiles=\"false\"><exclude expression=\"(.*)\\.tmp\"/>\n\
                <exclude expression=\"^cache/\"/></filter>";
    Mirror::prepare(&Setup { head: head.into(), params: params.into(), ..Setup::to(daemon) })
}

#[test]
fn the_rule_that_keeps_a_path_back_is_named_with_its_place() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    fs::create_dir_all(mirror.at("cache/deep")).unwrap();
    for (path, words) in [
        ("a.tmp", "expression=\"(.*)\\.tmp\"/> at "),
        ("cache/deep/file", "cache matches <exclude expression=\"^cache/\"/> at "),
        ("x~", "an editor's temporary file"),
        ("sub/.hidden", "begins with a dot"),
        ("/nowhere/else", "is above it; the watch paths are:"),
    ] {
        let (code, text) = explain(&mirror, &[path]);
        assert!(code == 1 && text.contains(words), "{path}: {code} {text}");
        assert!(text.contains("not mirrored"), "{text}");
    }
    // The second expression is on the third line of the file, after its element's name.
    let (_, text) = explain(&mirror, &["cache/x"]);
    let place = fs::read_to_string(&mirror.config).unwrap();
    let line = place.lines().position(|line| line.contains("^cache/")).unwrap() + 1;
    assert!(
        text.contains(&format!("confxml.xml:{line}:")) || text.contains(&format!(":{line}:")),
        "{text}"
    );
}

#[test]
fn no_command_is_offered_that_would_send_what_the_filter_excludes() {
    let daemon = Rsyncd::start();
    let head = "<filter start=\"true\"><exclude expression=\"^(?!/?app\\.conf$).*\"/></filter>";
    let mirror = Mirror::prepare(&Setup { head: head.into(), ..Setup::to(&daemon) });
    for name in ["app.conf", "secret"] {
        fs::write(mirror.at(name), "").unwrap();
    }
    let root = mirror.source.to_str().unwrap();
    let (code, text) = explain(&mirror, &[root]);
    assert!(code == 0 && text.contains("command: none does the same"), "{text}");
    let (_, text) = explain(&mirror, &["app.conf"]);
    assert!(text.contains("command: cd "), "{text}");
}

#[test]
fn a_mirrored_path_has_its_command_and_its_copy_can_be_asked_for() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    let name = std::ffi::OsStr::from_bytes(b"a 'b'\n\xff");
    fs::create_dir(mirror.at("dir")).unwrap();
    fs::write(mirror.at(Path::new("dir").join(name)), "content").unwrap();
    let path = mirror.at(Path::new("dir").join(name));
    let output = Command::new(env!("CARGO_BIN_EXE_sersync2"))
        .args(["explain", "-o"])
        .arg(&mirror.config)
        .arg("--ask-remote")
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(": mirrored"), "{text}");
    assert!(text.contains("its copy: missing"), "{text}");
    // The printed command really sends the file.
    let command = text.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let status = Command::new("bash").args(["-c", command]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command}");
    assert_eq!(fs::read(daemon.at(Path::new("dir").join(name))).unwrap(), b"content");
    let (code, text) = explain(&mirror, &["--ask-remote", "dir"]);
    assert!(code == 0 && text.contains("its copy: equal"), "{text}");
    fs::write(mirror.at("dir/new"), "x").unwrap();
    fs::write(daemon.at("dir/old"), "x").unwrap();
    let (code, text) = explain(&mirror, &["--ask-remote", "dir"]);
    assert!(code == 0 && text.contains("its copy: ") && !text.contains("equal"), "{text}");
    let (code, text) = explain(&mirror, &["--ask-remote", "dir/old"]);
    assert!(code == 0 && text.contains("would be deleted"), "{text}");
}

#[test]
fn a_remote_that_cannot_be_asked_is_said() {
    let mut daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    fs::write(mirror.at("f"), "x").unwrap();
    daemon.stop();
    let (code, text) = explain(&mirror, &["--ask-remote", "f"]);
    assert!(code == 0 && text.contains("its copy: cannot be asked: "), "{text}");
}

#[test]
fn an_option_of_common_params_that_keeps_a_path_back_is_named() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-rtz --exclude=*.log --max-size 3");
    fs::write(mirror.at("a.log"), "x").unwrap();
    fs::write(mirror.at("large"), "large").unwrap();
    fs::write(mirror.at("small"), "x").unwrap();
    std::os::unix::fs::symlink("small", mirror.at("link")).unwrap();
    for (path, words) in [
        ("a.log", "that decides is '--exclude=*.log'"),
        ("large", "that decides is '--max-size 3'"),
        ("link", "skipping non-regular file"),
    ] {
        let (code, text) = explain(&mirror, &[path]);
        assert!(code == 1 && text.contains(words), "{path}: {code} {text}");
    }
    assert_eq!(explain(&mirror, &["small"]).0, 0);
    // One of these paths is not mirrored.
    assert_eq!(explain(&mirror, &["small", "a.log"]).0, 1);
}

#[test]
fn a_deletion_is_mirrored_unless_deletions_are_off() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    assert_eq!(explain(&mirror, &["gone"]).0, 0);
    let off = Mirror::prepare(&Setup { off: vec!["delete"], ..Setup::to(&daemon) });
    let (code, text) = explain(&off, &["gone"]);
    assert!(code == 1 && text.contains("<delete start=\"false\"/>"), "{text}");
}

#[test]
fn wrong_words_end_with_64_and_wrong_files_with_3() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    for (words, code) in [
        (&["explain"][..], 64),
        (&["explain", "--nothing", "f"], 64),
        (&["explain", "-o", "/nowhere.xml", "f"], 3),
        (&["events", "-o", "/nowhere.xml"], 3),
        (&["events", "--nothing"], 64),
    ] {
        let output = run(&mirror, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(run(&mirror, &["explain", "--help"]).status.code(), Some(0));
}

#[test]
fn events_shows_what_happens_and_what_is_made_of_it() {
    let daemon = Rsyncd::start();
    let mirror = prepare(&daemon, "-artz");
    for layout in [&[][..], &["--json"]] {
        let log = mirror.dir.join("events.log");
        let mut viewer = Command::new(env!("CARGO_BIN_EXE_sersync2"))
            .args(["events", "-o"])
            .arg(&mirror.config)
            .args(layout)
            .stdout(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let read = || fs::read_to_string(&log).unwrap();
        wait_until("it watches", || read().contains("watched from now on"));
        mirror.write("file", "x");
        mirror.write("x.tmp", "x");
        fs::rename(mirror.at("file"), mirror.at("moved")).unwrap();
        fs::remove_file(mirror.at("moved")).unwrap();
        wait_until("the deletion is shown", || read().contains("DELETE"));
        let text = read();
        if layout.is_empty() {
            for words in
                ["CLOSE_WRITE", "pending for 1 remote\n", "moved from", "ignored x.tmp matches"]
            {
                assert!(text.contains(words), "{words}: {text}");
            }
        } else {
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(value["time"].is_string() && value["watch"].is_string(), "{line}");
            }
            assert!(text.contains("\"decision\":\"ignored\""), "{text}");
        }
        viewer.kill().unwrap();
        viewer.wait().unwrap();
        fs::remove_file(mirror.at("x.tmp")).unwrap();
    }
    assert!(!daemon.at("moved").exists() && !daemon.at("file").exists(), "nothing is sent");
}

#[test]
fn a_running_instance_says_how_a_path_stands_at_each_remote() {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("a", "a");
    wait_until("it is delivered", || explain(&mirror, &["a"]).1.contains("now: delivered"));
    daemon.stop();
    mirror.write("b", "b");
    let mut text = String::new();
    wait_until("it is pending", || {
        text = explain(&mirror, &["b"]).1;
        text.contains("now: pending for ") && text.contains(" s: it is down: ")
    });
    assert!(explain(&mirror, &["a"]).1.contains("now: delivered"), "{text}");
}
