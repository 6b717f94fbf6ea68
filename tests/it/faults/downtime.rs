//! Changes while the program is down or misses events are delivered, and nothing else is.
//! The daemon's log shows what a remote received.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::same::wait_until_same;
use crate::support::{tree, wait_for_content, wait_until, wait_until_within};

const SOON: Duration = Duration::from_secs(20);

/// A daemon that logs each name that it receives or deletes.
fn logging_daemon() -> Rsyncd {
    let module = "transfer logging = yes\nlog format = %o %n %l".to_string();
    Rsyncd::start_with(&Options { module, ..Options::default() })
}

/// The names of files that were received since the log had `from` bytes.
fn received(daemon: &Rsyncd, from: usize) -> Vec<String> {
    let log = fs::read(daemon.log_file()).unwrap();
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let words = |line: &str| line.split_once(" recv ").map(|(_, rest)| rest.to_string());
    let name = |rest: String| rest.rsplit_once(' ').map(|(name, _)| name.to_string());
    let mut names: Vec<String> = log.lines().filter_map(words).filter_map(name).collect();
    names.retain(|name| !name.ends_with('/'));
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_directory_that_is_moved_out_before_a_kill_and_back_after_it_is_sent_as_a_whole() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("d/sub/file", "1");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    mirror.wait_for_record();
    // What changed shortly before the end is sent in any case.
    std::thread::sleep(Duration::from_millis(300));
    let aside = mirror.dir.join("aside");
    fs::rename(mirror.at("d"), &aside).unwrap();
    wait_until("its copy is deleted", || !daemon.at("d").exists());
    mirror.write("marker", "end");
    assert_eq!(crate::control::run(&mirror, "flush", &[]).status.code(), Some(0));
    mirror.kill();
    fs::rename(&aside, mirror.at("d")).unwrap();
    mirror.launch();
    wait_until_same(&mirror.source, &daemon.data, SOON, "with the directory back");
}

#[test]
fn changes_during_downtime_are_delivered_and_nothing_else_is_sent() {
    for end in [Signal::TERM, Signal::KILL] {
        let daemon = logging_daemon();
        let mut mirror = Mirror::start(&Setup::to(&daemon));
        for i in 0..200 {
            mirror.write(format!("d{}/f{i}", i % 10), format!("{i}"));
        }
        mirror.write("old/name", "moved");
        wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
        mirror.wait_for_record();
        // The record treats everything as changed that changed within one tick before the program's end.
        std::thread::sleep(Duration::from_millis(300));
        mirror.write("last", "x");
        wait_for_content(&daemon.at("last"), "x");
        std::thread::sleep(Duration::from_millis(100));
        mirror.signal(end);
        mirror.wait();
        let sent_before = fs::read(daemon.log_file()).unwrap().len();

        mirror.write("d1/added", "new");
        fs::write(mirror.at("d2/f2"), "changed").unwrap();
        fs::remove_file(mirror.at("d3/f3")).unwrap();
        fs::remove_dir_all(mirror.at("d4")).unwrap();
        fs::rename(mirror.at("old"), mirror.at("new")).unwrap();
        let outside = mirror.dir.dir("outside");
        fs::write(outside.join("inside"), "came").unwrap();
        fs::rename(&outside, mirror.at("moved-in")).unwrap();
        symlink("nowhere", mirror.at("link")).unwrap();

        mirror.launch();
        wait_until_same(&mirror.source, &daemon.data, SOON, "after the downtime");
        mirror.write("marker", "end");
        wait_for_content(&daemon.at("marker"), "end");
        let mut names = received(&daemon, sent_before);
        // These changed right before the end, so they may be sent again.
        names.retain(|name| name != "last" && name != "marker");
        assert_eq!(names, ["d1/added", "d2/f2", "moved-in/inside", "new/name"]);
    }
}

#[test]
fn a_first_start_that_is_killed_before_the_tree_is_on_record_loses_nothing() {
    for attempt in 0..8 {
        let daemon = Rsyncd::start();
        let mut mirror = Mirror::prepare(&Setup::to(&daemon));
        for dir in 0..2_000 << attempt {
            mirror.write(format!("d{dir}/f"), "old");
        }
        mirror.launch();
        mirror.wait_ready();
        mirror.kill();
        // If the walk is already over, try again with a larger tree.
        if mirror.has_record() {
            continue;
        }
        mirror.write("d1/f", "new");
        fs::remove_dir_all(mirror.at("d2")).unwrap();
        mirror.write("added", "x");
        // Nothing is compared, so extraneous files stay.
        let foreign = daemon.at("d1/of the remote");
        fs::create_dir_all(daemon.at("d1")).unwrap();
        fs::write(&foreign, "x").unwrap();
        mirror.launch();
        mirror.wait_for_output("the first start ended before the tree was on record");
        let all_arrived = || {
            let copy: BTreeSet<String> = tree(&daemon.data).into_iter().collect();
            tree(&mirror.source).iter().all(|line| copy.contains(line))
        };
        wait_until_within("everything has arrived after the second start", 3 * SOON, all_arrived);
        assert!(foreign.exists());
        return;
    }
    panic!("the first walk is always over already");
}

#[test]
fn a_first_start_without_r_sends_nothing_of_what_was_there() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    mirror.write("d/old", "x");
    let foreign = daemon.at("d/of the remote");
    fs::create_dir(daemon.at("d")).unwrap();
    fs::write(&foreign, "x").unwrap();
    // The record treats everything as changed that changed within one tick before the program's end.
    std::thread::sleep(Duration::from_millis(300));
    // The second start finds the record of the first.
    for name in ["first", "second"] {
        mirror.launch();
        mirror.wait_for_record();
        mirror.write(format!("e/{name}"), "x");
        wait_for_content(&daemon.at(format!("e/{name}")), "x");
        assert!(mirror.stop().success());
    }
    assert!(!daemon.at("d/old").exists() && foreign.exists());
}

#[test]
fn what_only_the_receiver_has_stays_after_a_downtime_without_r() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    for name in ["d/kept", "d/gone", "tree/x/y", "becomes-a-file/z"] {
        mirror.write(name, "x");
        wait_for_content(&daemon.at(name), "x");
    }
    mirror.wait_for_record();
    assert!(mirror.stop().success());
    for name in ["own", "d/own", "new/own"] {
        fs::create_dir_all(daemon.at(name).parent().unwrap()).unwrap();
        fs::write(daemon.at(name), "of the receiver").unwrap();
    }
    fs::remove_file(mirror.at("d/gone")).unwrap();
    fs::remove_dir_all(mirror.at("tree")).unwrap();
    fs::remove_dir_all(mirror.at("becomes-a-file")).unwrap();
    mirror.write("becomes-a-file", "x");
    mirror.write("d/added", "x");
    mirror.write("new/added", "x");
    mirror.launch();
    for name in ["d/added", "new/added", "becomes-a-file"] {
        wait_for_content(&daemon.at(name), "x");
    }
    wait_until("what is gone is deleted", || {
        !daemon.at("d/gone").exists() && !daemon.at("tree").exists()
    });
    mirror.write("marker", "end");
    wait_for_content(&daemon.at("marker"), "end");
    for name in ["own", "d/own", "new/own"] {
        assert!(daemon.at(name).exists(), "{name} was deleted");
    }
    assert!(daemon.at("d/kept").exists());
}

#[test]
fn without_the_walk_only_what_was_pending_is_delivered() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    mirror.wait_for_record();
    assert!(mirror.stop().success());
    mirror.write("meanwhile", "x");
    mirror.set_args(&["--no-catch-up"]);
    mirror.launch();
    mirror.wait_ready();
    for i in 0..5 {
        mirror.write(format!("after/{i}"), "x");
        wait_for_content(&daemon.at(format!("after/{i}")), "x");
    }
    assert!(!daemon.at("meanwhile").exists());
}

#[test]
fn changes_that_the_kernel_drops_are_found_and_said_once() {
    overflow(20_000);
}

#[test]
fn what_only_the_receiver_has_stays_when_changes_are_dropped_and_nothing_is_on_record() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    mirror.run_without_state();
    if !mirror.launch_with_a_short_queue() {
        return;
    }
    mirror.wait_for_output("without a journal");
    mirror.write("d/seen", "x");
    wait_for_content(&daemon.at("d/seen"), "x");
    fs::write(daemon.at("d/own"), "x").unwrap();
    mirror.signal(Signal::STOP);
    // The kernel merges equal events that follow each other directly.
    (0..17_000).for_each(|i| mirror.write(["a", "b"][i % 2], "x"));
    mirror.write("d/unseen", "x");
    mirror.signal(Signal::CONT);
    mirror.wait_for_output("the kernel dropped events");
    wait_for_content(&daemon.at("d/unseen"), "x");
    mirror.wait_for_output("what only the remote has was left there");
    assert!(daemon.at("d/own").exists(), "{}", mirror.output());
}

#[test]
fn what_is_dropped_during_the_first_full_sync_is_compared_once_more() {
    let daemon = Rsyncd::start();
    let params = "-rlt --bwlimit=1000".to_string();
    let mut mirror = Mirror::prepare(&Setup { params, ..Setup::to(&daemon) });
    // So many that the comparison is divided. The part with the large file takes some seconds.
    (0..2_100).for_each(|n| mirror.write(format!("d{}/f{n}", n % 40), "old"));
    mirror.write("d39/large", vec![1; 4_000_000]);
    mirror.set_args(&["-r"]);
    if !mirror.launch_with_a_short_queue() {
        return;
    }
    wait_for_content(&daemon.at("d0/f0"), "old");
    mirror.signal(Signal::STOP);
    // The kernel merges equal events that follow each other directly.
    (0..17_000).for_each(|i| mirror.write(["a", "b"][i % 2], "x"));
    mirror.write("d0/f0", "later");
    fs::remove_file(mirror.at("d0/f40")).unwrap();
    mirror.signal(Signal::CONT);
    mirror.wait_for_output("the kernel dropped events");
    let flush = crate::control::run(&mirror, "flush", &[]);
    assert!(flush.status.success(), "{flush:?}");
    assert_eq!(fs::read_to_string(daemon.at("d0/f0")).unwrap(), "later", "{}", mirror.output());
    assert!(!daemon.at("d0/f40").exists());
}

#[test]
fn a_file_that_is_deleted_during_its_transfer_while_changes_are_dropped_is_deleted_there() {
    let daemon = Rsyncd::start();
    let params = "-rlt --bwlimit=1000".to_string();
    // What a run that connects by itself has sent is not confirmed.
    let rsync = "<session ready=\"0\"/>".to_string();
    let mut mirror = Mirror::prepare(&Setup { params, rsync, ..Setup::to(&daemon) });
    if !mirror.launch_with_a_short_queue() {
        return;
    }
    mirror.write("first", "x");
    wait_for_content(&daemon.at("first"), "x");
    mirror.wait_for_record();
    mirror.write("large", vec![1; 3_000_000]);
    wait_until("the file is under way", || {
        let mut names = fs::read_dir(&daemon.data).unwrap().map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with(".large."))
    });
    mirror.signal(Signal::STOP);
    // The kernel merges equal events that follow each other directly.
    (0..17_000).for_each(|i| mirror.write(["a", "b"][i % 2], "x"));
    fs::remove_file(mirror.at("large")).unwrap();
    mirror.signal(Signal::CONT);
    mirror.wait_for_output("the kernel dropped events");
    let flush = crate::control::run(&mirror, "flush", &[]);
    assert!(flush.status.success(), "{flush:?}");
    assert_eq!(names(&daemon.data), names(&mirror.source), "{}", mirror.output());
}

#[test]
fn what_the_kernel_dropped_before_a_kill_is_found_by_the_next_start_even_with_no_catch_up() {
    let daemon = Rsyncd::start();
    let params = "-rltz".to_string();
    let mut mirror = Mirror::prepare(&Setup { params, ..Setup::to(&daemon) });
    for attempt in 0..6 {
        if !mirror.launch_with_a_short_queue() {
            return;
        }
        let name = |name: &str| format!("{attempt}/{name}");
        for dir in 0..1_000 << attempt {
            fs::create_dir_all(mirror.at(name(&format!("d{dir}")))).unwrap();
        }
        mirror.write(name("gone"), "x");
        wait_for_content(&daemon.at(name("gone")), "x");
        mirror.wait_for_record();
        fs::write(daemon.at(name("own")), "x").unwrap();
        mirror.signal(Signal::STOP);
        // The kernel merges equal events that follow each other directly.
        (0..17_000).for_each(|i| mirror.write(name(["a", "b"][i % 2]), "x"));
        mirror.write(name("d7/unseen"), "x");
        fs::remove_file(mirror.at(name("gone"))).unwrap();
        mirror.signal(Signal::CONT);
        mirror.wait_for_output("the kernel dropped events");
        mirror.kill();
        let journal = mirror.state_files().into_iter().find(|path| path.ends_with("journal"));
        // The header says whether the walk was over. If so, try again with a larger tree.
        let owes_walk = fs::read(journal.unwrap()).unwrap()[10] == b'W';
        mirror.launch_with(&["--no-catch-up"]);
        wait_for_content(&daemon.at(name("d7/unseen")), "x");
        wait_until("what is gone is deleted", || !daemon.at(name("gone")).exists());
        assert!(daemon.at(name("own")).exists(), "{}", mirror.output());
        mirror.kill();
        if owes_walk {
            return;
        }
    }
    panic!("the walk is always over already");
}

#[test]
fn a_restart_without_its_state_deletes_nothing_without_r() {
    let mut daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    for name in ["gone", "d/pending", "d/kept"] {
        mirror.write(name, "x");
        wait_for_content(&daemon.at(name), "x");
    }
    mirror.wait_for_record();
    // This deletion was seen, but what has seen it is removed.
    daemon.stop();
    fs::remove_file(mirror.at("d/pending")).unwrap();
    mirror.wait_for_output("is down");
    mirror.kill();
    fs::remove_dir_all(mirror.dir.join("state")).unwrap();
    fs::remove_file(mirror.at("gone")).unwrap();
    fs::write(daemon.at("d/own"), "x").unwrap();
    daemon.start_again();
    mirror.launch();
    mirror.wait_ready();
    mirror.write("d/marker", "end");
    wait_for_content(&daemon.at("d/marker"), "end");
    assert_eq!(crate::control::run(&mirror, "flush", &[]).status.code(), Some(0));
    for name in ["gone", "d/pending", "d/kept", "d/own"] {
        assert!(daemon.at(name).exists(), "{name}: {}", mirror.output());
    }
}

#[test]
#[ignore = "makes 200,000 files: scripts/soak runs it"]
fn two_hundred_thousand_changes_that_nobody_reads_end_in_equal_trees() {
    overflow(200_000);
}

/// Every name below `root`.
fn names(root: &Path) -> BTreeSet<PathBuf> {
    let (mut names, mut todo) = (BTreeSet::new(), vec![root.to_path_buf()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
            names.insert(entry.path().strip_prefix(root).unwrap().into());
        }
    }
    names
}

/// Makes `count` changes while nothing reads the kernel's queue, which holds fewer.
fn overflow(count: usize) {
    let daemon = Rsyncd::start();
    let params = "-rltz".to_string();
    let mut mirror = Mirror::prepare(&Setup { params, ..Setup::to(&daemon) });
    if !mirror.launch_with_a_short_queue() {
        return;
    }
    mirror.write("first/x", "x");
    (0..200).for_each(|dir| fs::create_dir(mirror.at(format!("d{dir}"))).unwrap());
    mirror.write("last", "x");
    wait_for_content(&daemon.at("last"), "x");
    mirror.wait_for_record();
    mirror.signal(Signal::STOP);
    for i in 0..count {
        fs::write(mirror.at(format!("d{}/f{i}", i % 200)), "x").unwrap();
    }
    fs::remove_dir_all(mirror.at("first")).unwrap();
    mirror.signal(Signal::CONT);
    mirror.wait_for_output("the kernel dropped events");
    let limit = SOON + Duration::from_millis(count as u64 * 2);
    // An ordinary user cannot set owners, so owner and mode are not compared. Comparing so many entries costs more than sending them, so
    // compare rarely.
    let expected = names(&mirror.source);
    wait_until_within("the trees are equal", limit, || {
        std::thread::sleep(Duration::from_millis(count as u64 / 100));
        names(&daemon.data) == expected
    });
    let said = mirror.output().matches("the kernel dropped events").count();
    assert_eq!(said, 1, "{}", mirror.output());
}
