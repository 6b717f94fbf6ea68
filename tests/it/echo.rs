//! Two instances that mirror each other: a delivery by one is not a change for the other, and nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use sersync::engine::DEFERRED_FOR;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::{TestDir, tree, wait_for_content, wait_until};

/// One machine of the pair: a directory that a daemon receives into and that an instance watches.
struct Side {
    daemon: Rsyncd,
    mirror: Option<Mirror>,
}

impl Side {
    fn new() -> Self {
        // Without this, the daemon logs only that a client has connected.
        let module = "transfer logging = yes\nlog format = moved %o %n".to_owned();
        Self { daemon: Rsyncd::start_with(&Options { module, ..Options::default() }), mirror: None }
    }

    /// Watches this side's directory and sends to `other`.
    fn mirror_to(&mut self, other: &Rsyncd, attrib: bool) {
        let mut mirror = Mirror::prepare(&Setup::to(other));
        let xml = fs::read_to_string(&mirror.config).unwrap();
        let own = self.daemon.data.display().to_string();
        let xml = xml.replace(&mirror.source.display().to_string(), &own);
        let switch = |on: bool| format!("<attrib start=\"{on}\"/>");
        fs::write(&mirror.config, xml.replace(&switch(false), &switch(attrib))).unwrap();
        mirror.launch();
        mirror.wait_ready();
        self.mirror = Some(mirror);
    }

    /// Writes a file in one step (a rename). A write in place could expose a half-written file to the other side.
    fn write(&self, name: &str, content: &str) {
        let path = self.daemon.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, content).unwrap();
        fs::rename(unfinished, path).unwrap();
    }

    /// How many names the daemon has received or deleted so far.
    fn transfers(&self) -> usize {
        let log = fs::read_to_string(self.daemon.log_file()).unwrap_or_default();
        log.matches("moved ").count()
    }

    /// How many clients the daemon has served to their end, ready sessions included.
    fn runs(&self) -> usize {
        let log = fs::read_to_string(self.daemon.log_file()).unwrap_or_default();
        log.matches("receiving file list").count() + log.matches("sent ").count()
    }
}

fn pair(attrib: bool) -> (Side, Side) {
    let (mut a, mut b) = (Side::new(), Side::new());
    a.mirror_to(&b.daemon, attrib);
    b.mirror_to(&a.daemon, attrib);
    know_each_other(&a, &b);
    (a, b)
}

/// Lets each side receive something and find out that the other side already has it.
#[track_caller]
fn know_each_other(a: &Side, b: &Side) {
    for (from, to, name) in [(a, b, "from a"), (b, a, "from b")] {
        from.write(name, name);
        to.mirror.as_ref().unwrap().wait_for_output("mirrors back");
    }
}

/// Longer than an echo waits before the other side is asked about it; a shorter pause proves nothing.
const QUIET: Duration = DEFERRED_FOR.saturating_add(Duration::from_secs(1));

/// Waits until both daemons have been idle for a while.
#[track_caller]
fn assert_comes_to_rest(a: &Side, b: &Side) {
    let counts = || (a.transfers(), b.transfers(), a.runs(), b.runs());
    let mut last = counts();
    let mut since = std::time::SystemTime::now();
    wait_until("both sides rest", || {
        let now = counts();
        if now != last {
            last = now;
            since = std::time::SystemTime::now();
        }
        since.elapsed().is_ok_and(|rest| rest >= QUIET)
    });
    assert_eq!(tree(&a.daemon.data), tree(&b.daemon.data));
}

/// Writes on both sides in turn. Different files may follow each other at once. Two versions of one file need some seconds in between:
/// rsync's `--update` compares whole seconds, and an echo of the old version may still be in flight.
fn write_in_turn(a: &Side, b: &Side) {
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
        let name = format!("d{}/own{round}", round % 3);
        from.write(&name, &format!("round {round}"));
        wait_for_content(&to.daemon.at(&name), format!("round {round}"));
    }
    for (from, to) in [(a, b), (b, a), (a, b)] {
        let content = format!("written after {} transfers", from.transfers() + to.transfers());
        from.write("shared", &content);
        wait_for_content(&to.daemon.at("shared"), &content);
        assert_comes_to_rest(a, b);
        assert_eq!(fs::read(from.daemon.at("shared")).unwrap(), content.as_bytes());
    }
    for side in [a, b] {
        for round in 0..20 {
            let name = format!("d{}/own{round}", round % 3);
            let content = fs::read(side.daemon.at(name)).unwrap();
            assert_eq!(content, format!("round {round}").as_bytes());
        }
    }
}

/// A new mode arrives, but with a delay: the file looks as if an rsync had received it here.
fn change_mode(from: &Side, to: &Side) {
    fs::set_permissions(from.daemon.at("shared"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = || fs::metadata(to.daemon.at("shared")).unwrap().permissions().mode() & 0o777;
    wait_until("the new mode arrives", || mode() == 0o600);
}

#[test]
fn two_mirrors_of_each_other_come_to_rest_and_lose_nothing() {
    for attrib in [false, true] {
        let (a, b) = pair(attrib);
        write_in_turn(&a, &b);
        fs::remove_dir_all(a.daemon.at("d0")).unwrap();
        wait_until("the deletion arrives", || !b.daemon.at("d0/own0").exists());
        fs::rename(b.daemon.at("d1"), b.daemon.at("renamed")).unwrap();
        wait_until("the move arrives", || a.daemon.at("renamed/own1").exists());
        if attrib {
            change_mode(&a, &b);
        }
        assert_comes_to_rest(&a, &b);
    }
}

#[test]
fn two_mirrors_rest_after_a_storm_of_short_lives_on_one_side() {
    for attrib in [false, true] {
        let (a, b) = pair(attrib);
        for i in 0..300 {
            let name = format!("d{}/e/f{i}", i % 7);
            a.write(&name, "short");
            if i % 2 == 0 {
                fs::remove_file(a.daemon.at(&name)).unwrap();
            }
        }
        fs::remove_dir_all(a.daemon.at("d3")).unwrap();
        assert_comes_to_rest(&a, &b);
        // A file that was deleted while its echo was in flight may be back. A file that was not deleted must be there.
        for i in (0..300).filter(|i| i % 2 == 1 && i % 7 != 3) {
            assert!(a.daemon.at(format!("d{}/e/f{i}", i % 7)).exists(), "f{i} is lost");
        }
    }
}

/// The expected tree: each file's content.
type Tree = BTreeMap<String, String>;

fn contents(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(content) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, content);
            }
        }
    }
    found
}

/// The changes of one side in its turn. Updates `expected`, the tree that both sides must have in the end.
fn take_a_turn(turn: usize, side: &Side, expected: &mut Tree) {
    let content = format!("written in turn {turn}");
    let below = |name: &&String| name.contains('/');
    match turn % 5 {
        0 => {
            side.write("shared", &content);
            expected.insert("shared".into(), content);
        }
        1 => {
            let name = format!("d{}/f{turn}", turn % 3);
            side.write(&name, &content);
            expected.insert(name, content);
        }
        2 => {
            let name = expected.keys().rfind(below).unwrap().clone();
            let new = format!("{name}.moved");
            fs::rename(side.daemon.at(&name), side.daemon.at(&new)).unwrap();
            let moved = expected.remove(&name).unwrap();
            expected.insert(new, moved);
        }
        3 => {
            fs::write(side.daemon.at("shared"), &content).unwrap();
            expected.insert("shared".into(), content);
        }
        _ => {
            let name = expected.keys().find(below).unwrap().clone();
            fs::remove_file(side.daemon.at(&name)).unwrap();
            expected.remove(&name);
        }
    }
}

/// A turn ends when the other side has the change, not when everything is quiet. All directories exist before: a rename in a directory
/// that is not watched yet is seen only under its new name.
#[test]
fn writers_who_take_turns_on_both_sides_lose_nothing() {
    let (a, b) = pair(false);
    for dir in ["d0", "d1", "d2"] {
        fs::create_dir(a.daemon.at(dir)).unwrap();
        wait_until("the directory arrives", || b.daemon.at(dir).exists());
    }
    let mut expected = contents(&a.daemon.data);
    for turn in 0..20 {
        let (from, to) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
        take_a_turn(turn, from, &mut expected);
        let found = || (contents(&from.daemon.data), contents(&to.daemon.data));
        assert_eq!(found().0, expected, "turn {turn}, on the writer's own side");
        let both = (expected.clone(), expected.clone());
        wait_until(&format!("turn {turn} is on both sides: {expected:?}"), || found() == both);
    }
    assert_comes_to_rest(&a, &b);
    assert_eq!(contents(&a.daemon.data), expected);
}

#[test]
fn one_file_that_both_sides_rewrite_in_turn_keeps_its_last_content() {
    let (a, b) = pair(false);
    for turn in 0..60 {
        let (from, to) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let content = format!("turn {turn}");
        from.write("shared", &content);
        wait_for_content(&to.daemon.at("shared"), &content);
    }
    assert_comes_to_rest(&a, &b);
    assert_eq!(fs::read_to_string(a.daemon.at("shared")).unwrap(), "turn 59");
}

/// The next version is written while the other side's echo of the last one is in flight.
#[test]
fn a_file_that_one_side_rewrites_again_and_again_keeps_its_last_content() {
    let (a, b) = pair(false);
    for round in 0..3 {
        for i in 0..20 {
            let before = fs::read(b.daemon.at("f")).ok();
            a.write("f", &format!("round {round}, version {i:02}"));
            wait_until("the other side gets one of them", || {
                fs::read(b.daemon.at("f")).ok() != before
            });
        }
        assert_comes_to_rest(&a, &b);
        let last = format!("round {round}, version 19");
        assert_eq!(fs::read_to_string(a.daemon.at("f")).unwrap(), last);
        assert_eq!(fs::read_to_string(b.daemon.at("f")).unwrap(), last);
    }
}

#[test]
fn what_arrives_by_rsync_goes_on_to_the_next_in_a_chain() {
    let (mut middle, last) = (Side::new(), Rsyncd::start());
    middle.mirror_to(&last, false);
    let dir = TestDir::new();
    for i in 0..6 {
        let content = format!("version {i}");
        let file = dir.file("f", &content);
        let destination = format!("rsync://127.0.0.1:{}/data/", middle.daemon.port);
        let sent =
            std::process::Command::new("rsync").arg("-tI").arg(file).arg(destination).status();
        assert!(sent.unwrap().success());
        wait_for_content(&last.at("f"), &content);
    }
    fs::remove_file(middle.daemon.at("f")).unwrap();
    wait_until("the deletion goes on", || !last.at("f").exists());
    let output = middle.mirror.as_ref().unwrap().output();
    assert!(!output.contains("mirrors back"), "{output}");
}

#[test]
fn what_is_copied_here_with_its_times_is_taken_for_no_echo() {
    let (mut side, remote) = (Side::new(), Rsyncd::start());
    let origin = TestDir::new();
    for i in 0..2_000 {
        let file = origin.file(format!("tree/d{}/f{i}", i % 50), "x".repeat(i));
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }
    side.mirror_to(&remote, false);
    for copy in ["one", "two", "three"] {
        let to = side.daemon.at(copy);
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg("-a").arg(origin.join("tree")).arg(to).status().unwrap().success());
        wait_until("the copy arrives", || tree(&side.daemon.data) == tree(&remote.data));
    }
    let output = side.mirror.as_ref().unwrap().output();
    assert!(!output.contains("mirrors back"), "{output}");
}
