//! `sersync2 reload` and SIGHUP against real daemons: what is unchanged goes on, what is pending is kept.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use super::{run, snapshot, text};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until};

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
    // The journal knows it, too: nothing is compared anew at the next start.
    mirror.kill();
    mirror.launch();
    mirror.wait_ready();
    mirror.write("after", "after");
    wait_for_content(&second.join("after"), "after");
    wait_for_content(&first.at("after"), "after");
}

#[test]
fn a_remote_that_is_removed_gets_nothing_more_and_everything_when_it_is_back() {
    let first = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&first));
    wait_until("it answers", || remotes(&mirror) == 1);
    let (second, element) = second_remote(&mirror);
    rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
    reload(&mirror, &[]);
    mirror.write("a", "a");
    wait_for_content(&second.join("a"), "a");
    for round in 0..3 {
        rewrite(&mirror, &element, "");
        assert!(reload(&mirror, &[]).contains("is removed"));
        assert_eq!(remotes(&mirror), 1);
        let name = format!("meanwhile {round}");
        mirror.write(&name, "b");
        wait_for_content(&first.at(&name), "b");
        assert!(!second.join(&name).exists());
        rewrite(&mirror, "</localpath>", &format!("{element}</localpath>"));
        reload(&mirror, &[]);
        wait_for_content(&second.join(&name), "b");
    }
    // Numbers are used again when their last job is over.
    wait_until("two are there", || remotes(&mirror) == 2);
}

#[test]
fn a_file_with_errors_is_refused_with_line_and_column_and_the_old_one_stays() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    wait_until("it answers", || remotes(&mirror) == 1);
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
