//! `sersync2 reload` and SIGHUP against real daemons: what is unchanged continues, what is pending is kept.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use sersync::control::protocol::{Command, request_line};
use sersync::control::socket::connect_to;

use super::{command, run, snapshot, text};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::{TestDir, is_running, kill, wait_for_content, wait_until};

/// Replaces words in the configuration.
fn rewrite(mirror: &Mirror, from: &str, to: &str) {
    let before = fs::read_to_string(&mirror.config).unwrap();
    assert!(before.contains(from), "no {from:?} in {before}");
    fs::write(&mirror.config, before.replacen(from, to, 1)).unwrap();
}

fn reload(mirror: &Mirror, words: &[&str]) -> String {
    let reloaded = run(mirror, "reload", words);
    assert_eq!(reloaded.status.code(), Some(0), "{}", text(&reloaded));
    text(&reloaded)
}

/// A directory of this machine, and the element that makes it a remote.
fn second_remote(mirror: &Mirror) -> (PathBuf, String) {
    let second = mirror.dir.dir("second");
    let element = format!("<remote path=\"{}\"/>", second.display());
    (second, element)
}

fn remotes(mirror: &Mirror) -> usize {
    snapshot(mirror)["remotes"].as_array().map_or(0, Vec::len)
}

/// Waits until the remotes are in these states.
fn wait_for_states(mirror: &Mirror, states: &[&str]) {
    wait_until(&format!("the remotes are {states:?}"), || {
        let told = snapshot(mirror);
        let remotes = told["remotes"].as_array().cloned().unwrap_or_default();
        remotes.iter().map(|remote| &remote["state"]).eq(states)
    });
}

#[test]
fn a_remote_that_is_added_under_load_gets_everything_and_the_other_does_not_notice() {
    let first = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&first));
    mirror.write("old", "old");
    wait_for_content(&first.at("old"), "old");
    let (second, element) = second_remote(&mirror);
    rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
    assert!(reload(&mirror, &["--dry-run"]).contains("is added"));
    assert_eq!(remotes(&mirror), 1);
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) && count < 2_000 {
                mirror.write(format!("load/{count}"), "x");
                count += 1;
            }
            count
        });
        reload(&mirror, &[]);
        wait_for_content(&second.join("old"), "old");
        is_over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    mirror.write("last", "last");
    assert_eq!(run(&mirror, "flush", &["--timeout", "60"]).status.code(), Some(0));
    for place in [first.at("load"), second.join("load")] {
        assert_eq!(fs::read_dir(&place).unwrap().count(), written, "{}", place.display());
    }
    let told = snapshot(&mirror);
    assert_eq!(told["remotes"][0]["total"]["outages"], 0);
    assert_eq!(told["remotes"][0]["total"]["full_syncs"], 0);
    assert_eq!(told["remotes"][1]["total"]["full_syncs"], 1);
    assert!(reload(&mirror, &[]).contains("nothing has changed"));
    // The journal knows the remote too: the next start compares nothing, so it deletes nothing that only the copy has.
    mirror.stop();
    fs::write(second.join("extraneous"), "only here").unwrap();
    mirror.launch();
    mirror.wait_ready();
    wait_for_states(&mirror, &["up", "up"]);
    mirror.write("after", "after");
    assert_eq!(run(&mirror, "flush", &["--timeout", "60"]).status.code(), Some(0));
    wait_for_content(&second.join("after"), "after");
    wait_for_content(&first.at("after"), "after");
    assert!(second.join("extraneous").exists());
    assert_eq!(snapshot(&mirror)["remotes"][1]["total"]["full_syncs"], 0);
}

#[test]
fn a_remote_that_is_removed_gets_nothing_more_and_everything_when_it_is_back() {
    let first = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&first));
    wait_for_states(&mirror, &["up"]);
    let (second, element) = second_remote(&mirror);
    rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
    reload(&mirror, &[]);
    mirror.write("a", "a");
    wait_for_content(&second.join("a"), "a");
    for round in 0..3 {
        rewrite(&mirror, &element, "");
        assert!(reload(&mirror, &[]).contains("is removed"));
        wait_for_states(&mirror, &["up"]);
        // Only the full sync when the remote returns deletes this file.
        fs::write(second.join("extraneous"), "only here").unwrap();
        let name = format!("meanwhile {round}");
        mirror.write(&name, "b");
        wait_for_content(&first.at(&name), "b");
        assert!(!second.join(&name).exists());
        rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
        reload(&mirror, &[]);
        wait_for_content(&second.join(&name), "b");
        wait_until("the full sync deletes", || !second.join("extraneous").exists());
    }
    wait_for_states(&mirror, &["up", "up"]);
    // A number is reused when its last job is over, so numbers do not grow with every return.
    let told = snapshot(&mirror);
    let numbers = told["remotes"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap());
    assert!(numbers.max() < Some(4), "{told}");
}

#[test]
fn a_flush_of_a_remote_that_is_removed_does_not_say_that_it_is_delivered() {
    let first = Rsyncd::start();
    let mut second = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&first));
    wait_for_states(&mirror, &["up"]);
    let element = format!("<remote ip=\"127.0.0.1\" name=\"away\" port=\"{}\"/>", second.port);
    second.stop();
    rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
    reload(&mirror, &[]);
    mirror.write("a", "a");
    mirror.wait_for_output("is down");
    let is_socket = |path: &PathBuf| path.ends_with("control.sock");
    let socket = mirror.state_files().into_iter().find(is_socket).unwrap();
    let mut client = connect_to(socket.parent().unwrap()).unwrap();
    let remote = Some("127.0.0.1::away".into());
    let flush = Command::Flush { remote, paths: Vec::new(), timeout_ms: None };
    client.write_all(&request_line(flush)).unwrap();
    // Requests are handled in their order.
    assert_eq!(snapshot(&mirror)["remotes"].as_array().unwrap().len(), 2);
    rewrite(&mirror, &element, "");
    reload(&mirror, &[]);
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert!(answer.contains("was removed from the configuration"), "{answer}");
}

#[test]
fn what_a_wrong_file_holds_is_not_written_into_the_log() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    wait_for_states(&mirror, &["up"]);
    let alert = r#"<alert start="true" webhook=" https://h.example/access_token=TOKEN " template="dingtak"/>"#;
    rewrite(&mirror, "</sersync>", &format!("{alert}</sersync>"));
    mirror.signal(Signal::HUP);
    mirror.wait_for_output("reload: the configuration that was in force stays in force");
    let said = mirror.output();
    assert!(said.contains("confxml.xml:") && said.contains("dingtak"), "{said}");
    assert!(!said.contains("TOKEN"), "{said}");
    // Who asks for it sees the line.
    let refused = run(&mirror, "reload", &[]);
    assert!(text(&refused).contains("TOKEN"), "{}", text(&refused));
}

#[test]
fn a_file_with_errors_is_refused_with_line_and_column_and_the_old_one_stays() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    wait_for_states(&mirror, &["up"]);
    rewrite(&mirror, "start=\"true\" port=", "start=\"perhaps\" port=");
    let refused = run(&mirror, "reload", &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    for words in ["confxml.xml:", "perhaps", "stays in force"] {
        assert!(text(&refused).contains(words), "no {words:?} in {}", text(&refused));
    }
    mirror.signal(Signal::HUP);
    mirror.wait_for_output("reload: the configuration that was in force stays in force");
    mirror.write("a", "a");
    wait_for_content(&remote.at("a"), "a");
    fs::remove_file(&mirror.config).unwrap();
    let gone = run(&mirror, "reload", &[]);
    assert!(text(&gone).contains("; put it back"), "{}", text(&gone));
}

#[test]
fn a_filter_is_changed_by_sighup_in_the_same_process_and_what_is_pending_is_kept() {
    let mut remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    mirror.write("first", "first");
    wait_for_content(&remote.at("first"), "first");
    remote.stop();
    mirror.write("pending", "pending");
    let pid = mirror.pid();
    let filter = "<filter start=\"true\"><exclude expression=\"(.*)\\.tmp\"/></filter>";
    rewrite(&mirror, "<inotify>", &format!("{filter}<inotify>"));
    mirror.signal(Signal::HUP);
    mirror.wait_for_output("reload: the mirror works with the new configuration");
    assert_eq!(mirror.pid(), pid);
    mirror.write("a.tmp", "excluded");
    mirror.write("b", "b");
    remote.start_again();
    wait_for_content(&remote.at("b"), "b");
    wait_for_content(&remote.at("pending"), "pending");
    assert_eq!(run(&mirror, "flush", &["--timeout", "60"]).status.code(), Some(0));
    assert!(!remote.at("a.tmp").exists());
}

#[test]
fn what_is_asked_while_the_mirror_starts_again_is_done_by_the_next_one_and_a_pause_stays() {
    let (first, other) = (Rsyncd::start(), TestDir::new());
    let (slow, mut setup) = (other.dir("slow"), Setup::to(&first));
    setup.more_remotes = format!("<remote path=\"{}\" bwlimit=\"1m\"/>", slow.display());
    let mirror = Mirror::start(&setup);
    wait_for_states(&mirror, &["up", "up"]);
    let paused = snapshot(&mirror)["remotes"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(run(&mirror, "pause", &["--remote", &paused]).status.code(), Some(0));
    // This file is in flight for two seconds, and the ending mirror waits for it.
    mirror.write("large", crate::support::noise(2 << 20, 1));
    wait_until("it is in flight", || snapshot(&mirror)["remotes"][1]["in_flight"] != 0);
    let slow_name = snapshot(&mirror)["remotes"][1]["name"].as_str().unwrap().to_owned();
    let flush = command(&mirror, "flush", &["--remote", &slow_name, "--timeout", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let filter = "<filter start=\"true\"><exclude expression=\"(.*)\\.tmp\"/></filter>";
    rewrite(&mirror, "<inotify>", &format!("{filter}<inotify>"));
    assert!(reload(&mirror, &[]).contains("the mirror starts again"));
    let (second, element) = second_remote(&mirror);
    rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
    assert!(reload(&mirror, &[]).contains("is added"));
    wait_for_content(&second.join("large"), fs::read(mirror.at("large")).unwrap());
    let flushed = flush.wait_with_output().unwrap();
    assert_eq!(flushed.status.code(), Some(0), "{}", text(&flushed));
    assert_eq!(fs::metadata(slow.join("large")).unwrap().len(), 2 << 20);
    wait_for_states(&mirror, &["paused", "up", "up"]);
    assert!(!first.at("large").exists());
    assert_eq!(run(&mirror, "resume", &[]).status.code(), Some(0));
    wait_for_content(&first.at("large"), fs::read(mirror.at("large")).unwrap());
}

#[test]
fn a_list_of_remotes_is_followed_and_one_that_is_empty_drops_nobody() {
    let other = TestDir::new();
    let second = other.dir("second");
    // A second module of the same daemon: the lines of a list share the port.
    let module = format!("\n[second]\npath = {}\nread only = no", second.display());
    let first = Rsyncd::start_with(&Options { module, ..Options::default() });
    let list = other.file("web.list", "# web\n127.0.0.1\n");
    let mut setup = Setup::to(&first);
    setup.remotes = Vec::new();
    setup.more_remotes = format!("<remotes file=\"{}\" name=\"data\"/>", list.display());
    let mirror = Mirror::start(&setup);
    mirror.write("old", "old");
    wait_for_content(&first.at("old"), "old");
    wait_for_states(&mirror, &["up"]);
    // A half-edited configuration must not come into force.
    rewrite(&mirror, "<head", "<not finished");
    let new = other.file("new", "127.0.0.1\n127.0.0.1 second # new\n");
    fs::rename(new, &list).unwrap();
    wait_for_content(&second.join("old"), "old");
    mirror.wait_for_output("remote 127.0.0.1::second is added");
    wait_for_states(&mirror, &["up", "up"]);
    let told = snapshot(&mirror);
    assert_eq!(told["remotes"][0]["total"]["full_syncs"], 0);
    assert_eq!(told["remotes"][0]["total"]["outages"], 0);
    assert_eq!(told["remotes"][1]["total"]["full_syncs"], 1);
    fs::write(&list, "").unwrap();
    mirror.wait_for_output(
        "web.list: it names no remote; the remotes that were in force stay in force",
    );
    fs::write(&list, "127.0.0.1\n127.0.0.1 -second\n").unwrap();
    mirror.wait_for_output("web.list:2:11: ");
    mirror.write("after", "after");
    wait_for_content(&first.at("after"), "after");
    wait_for_content(&second.join("after"), "after");
    fs::write(&list, "127.0.0.1 second\n").unwrap();
    mirror.wait_for_output("remote 127.0.0.1::data is removed");
    wait_for_states(&mirror, &["up"]);
}

#[test]
fn a_command_that_lists_remotes_ends_with_the_mirror_and_so_does_what_it_started() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (first, other) = (Rsyncd::start(), TestDir::new());
        // While the file `slow` is there, the command does not end.
        let script = r#"
            if [ -e "$0.slow" ]; then
                sleep 1000 > "$0.out" &
                echo $$ $! > "$0.new"; mv "$0.new" "$0.pids"; wait
            fi
            echo 127.0.0.1"#;
        let script = other.file("list", script);
        let mut setup = Setup::to(&first);
        setup.remotes = Vec::new();
        setup.more_remotes =
            format!("<remotes command=\"sh {}\" name=\"data\"/>", script.display());
        let mut mirror = Mirror::start(&setup);
        wait_for_states(&mirror, &["up"]);
        other.file("list.slow", "");
        mirror.signal(Signal::HUP);
        let file = other.join("list.pids");
        wait_until("the command runs", || file.exists());
        let pids = fs::read_to_string(file).unwrap();
        let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        mirror.signal(signal);
        mirror.wait();
        // After a kill nobody is left who knows the children of the command.
        let ends = if signal == Signal::TERM { &pids[..] } else { &pids[..1] };
        wait_until("they have ended", || !ends.iter().any(|pid| is_running(*pid)));
        kill(pids[1]);
    }
}
