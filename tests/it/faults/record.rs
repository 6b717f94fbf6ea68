//! The record of the tree over a long life: it stays small, and a kill while it is merged loses nothing.
//! `downtime.rs` tests its use after a downtime; `src/record/tests/merging.rs` tests merges step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{LIMIT, wait_for_content, wait_until};

const FILES: usize = 500;

/// The path of a file; long, so that the record grows quickly.
fn file(i: usize) -> String {
    format!("d{}/{i:0200}", i % 20)
}

fn record_files(mirror: &Mirror, part: &str) -> Vec<PathBuf> {
    let is_part = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("record-") && name.contains(part)
    };
    mirror.state_files().into_iter().filter(|path| is_part(path)).collect()
}

fn record_len(mirror: &Mirror) -> u64 {
    let files = record_files(mirror, "");
    files.iter().filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum()
}

/// The number of the current delta; each merge begins a new one.
fn generation(mirror: &Mirror) -> u64 {
    let number = |path: PathBuf| path.extension()?.to_str()?.strip_prefix("delta-")?.parse().ok();
    record_files(mirror, ".delta-").into_iter().filter_map(number).max().unwrap_or(0)
}

/// A mirror of a small tree that is recorded.
fn small_tree(daemon: &Rsyncd) -> Mirror {
    let mirror = Mirror::prepare(&Setup::to(daemon));
    rewrite(&mirror, "first");
    mirror
}

fn rewrite(mirror: &Mirror, content: &str) {
    (0..FILES).for_each(|i| mirror.write(file(i), content));
}

/// Rewrites the whole tree, and waits until its copy is there.
fn deliver_all(mirror: &Mirror, daemon: &Rsyncd, round: usize) {
    rewrite(mirror, &format!("{round}"));
    mirror.write("marker", format!("{round}"));
    wait_for_content(&daemon.at("marker"), format!("{round}"));
}

#[test]
fn the_record_of_a_small_tree_stays_small_however_much_is_delivered() {
    let daemon = Rsyncd::start();
    let mut mirror = small_tree(&daemon);
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_for_record();
    let (mut round, mut longest, first) = (0, 0, generation(&mirror));
    while generation(&mirror) < first + 3 {
        assert!(round < 200, "nothing is merged after {} deliveries", round * FILES);
        deliver_all(&mirror, &daemon, round);
        longest = longest.max(record_len(&mirror));
        round += 1;
    }
    // Usually it has 1.3 MB. While the machine is busy, more is delivered before a merge ends.
    assert!(longest < 6 << 20, "the record had {longest} bytes");
    wait_until_same(&mirror.source, &daemon.data, LIMIT, "at last");
    assert!(mirror.stop().success());
}

#[test]
fn a_kill_in_the_middle_of_a_merge_loses_nothing() {
    let daemon = Rsyncd::start();
    let mut mirror = small_tree(&daemon);
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_for_record();
    mirror.set_args(&[]);
    for hit in 0..3 {
        stop_in_the_middle_of_a_merge(&mirror, &daemon);
        mirror.signal(Signal::KILL);
        mirror.wait();
        mirror.write(file(1), format!("changed in downtime {hit}"));
        fs::remove_file(mirror.at(file(hit + 2))).unwrap();
        mirror.write(format!("d3/new-{hit}"), "new");
        mirror.launch();
        mirror.wait_ready();
        wait_until_same(&mirror.source, &daemon.data, LIMIT, "after the kill");
        let said = mirror.output();
        assert!(!said.contains("everything is compared") && !said.contains("damaged"), "{said}");
        wait_until("the walk is over", || record_files(&mirror, ".new").is_empty());
    }
}

/// Makes deliveries until a merge begins, and stops the program during the merge.
fn stop_in_the_middle_of_a_merge(mirror: &Mirror, daemon: &Rsyncd) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 {
                rewrite(mirror, &format!("{round}"));
                let arrived = || {
                    let content = fs::read(daemon.at(file(FILES - 1)));
                    content.is_ok_and(|it| it == format!("{round}").into_bytes())
                };
                wait_until("a round arrives", || is_over.load(Ordering::Relaxed) || arrived());
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < 10 * LIMIT && !is_over.load(Ordering::Relaxed) {
            if record_files(mirror, ".new").is_empty() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            mirror.signal(Signal::STOP);
            let is_hit = !record_files(mirror, ".new").is_empty();
            is_over.store(is_hit, Ordering::Relaxed);
            if !is_hit {
                mirror.signal(Signal::CONT);
            }
        }
        assert!(is_over.swap(true, Ordering::Relaxed), "no merge was met");
    });
}
