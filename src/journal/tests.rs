//! What the journal promises: nothing committed is lost, whatever happens to the file.
//! Speed is measured by the ignored test at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::layout::tests::layout;
use super::*;
use crate::change::Cause;

mod full_disk;
mod property;

const A: RemoteId = RemoteId(0);
const B: RemoteId = RemoteId(1);
const C: RemoteId = RemoteId(2);

type Pending = BTreeSet<(RelPath, Extent)>;

fn two_roots() -> JournalLayout {
    layout(&[("/one", &["a", "b"]), ("/two", &["c"])])
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// A write of a file.
fn entry(text: &str) -> (RelPath, Extent) {
    (path(text), Extent { scope: Scope::Entry, additive: true })
}

fn deletion(text: &str) -> (RelPath, Extent) {
    (path(text), Extent::new(Scope::Entry))
}

fn tree(text: &str) -> (RelPath, Extent) {
    (path(text), Extent::new(Scope::Tree))
}

fn additive_tree(text: &str) -> (RelPath, Extent) {
    (path(text), Extent { scope: Scope::Tree, additive: true })
}

/// What is pending in doubt: everything, but no deletion.
fn everything() -> Pending {
    [additive_tree("")].into()
}

fn changed(journal: &mut Journal, root: usize, items: &[(RelPath, Extent)]) -> Seq {
    let change = |(path, extent): &(RelPath, Extent)| {
        let cause = if extent.additive { Cause::CloseWrite } else { Cause::Delete };
        Change { scope: extent.scope, ..Change::entry(path.clone(), cause) }
    };
    let changes: Vec<_> = items.iter().map(change).collect();
    journal.append_changes(RootId(root), &changes)
}

/// Something that no delivery under way will cancel.
fn owed(remote: RemoteId, (path, extent): (RelPath, Extent)) -> Owed {
    Owed { remote, upto: None, path, extent }
}

fn pending(replay: &Replay, remote: RemoteId) -> Pending {
    replay.pending(remote).collect()
}

/// Opens the journal in `dir` as after a kill: the previous one was not closed.
fn replay(dir: &Path) -> Replay {
    Journal::open(dir, two_roots()).unwrap().1
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("journal")
}

#[test]
fn what_was_not_delivered_comes_back_for_each_remote_alone() {
    let dir = TempDir::new().unwrap();
    let (mut journal, first) = Journal::open(dir.path(), two_roots()).unwrap();
    assert!(first.fresh);
    let upto = changed(&mut journal, 0, &[entry("x"), entry("d/y")]);
    changed(&mut journal, 1, &[tree("z")]);
    journal.append_delivered(A, upto, &[entry("x")]);
    journal.commit();
    drop(journal);
    let replay = replay(dir.path());
    assert!(!replay.fresh && replay.doubt.is_none());
    assert_eq!(pending(&replay, A), [entry("d/y")].into());
    assert_eq!(pending(&replay, B), [entry("x"), entry("d/y")].into());
    assert_eq!(pending(&replay, C), [tree("z")].into());
}

#[test]
fn change_during_a_delivery_outlives_it() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[entry("x"), entry("y")]);
    let upto = journal.begin_job();
    changed(&mut journal, 0, &[entry("x")]);
    journal.append_delivered(A, upto, &[entry("x"), entry("y")]);
    journal.commit();
    drop(journal);
    assert_eq!(pending(&replay(dir.path()), A), [entry("x")].into());
}

#[test]
fn what_remotes_owe_one_after_the_other_is_cancelled_for_each() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let [of_a, of_b] = [A, B].map(|remote| journal.append_pending(remote, &[tree("")]));
    journal.append_delivered(A, of_a, &[tree("")]);
    journal.commit();
    let replay = || Replay::read(&fs::read(file(&dir)).unwrap(), &two_roots(), 0).unwrap();
    assert_eq!([A, B].map(|remote| pending(&replay(), remote)), [[].into(), [tree("")].into()]);
    journal.append_delivered(B, of_b, &[tree("")]);
    journal.commit();
    assert_eq!([A, B].map(|remote| pending(&replay(), remote)), [[].into(), [].into()]);
}

#[test]
fn what_is_under_way_during_a_compaction_is_cancelled_by_its_delivery() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let whole = journal.append_pending(A, &[tree("")]);
    let upto = changed(&mut journal, 0, &[entry("x"), entry("y")]);
    journal.begin_job();
    changed(&mut journal, 0, &[entry("y")]);
    let under_way = |remote, seq, (path, extent)| Owed { remote, upto: Some(seq), path, extent };
    journal.compact([
        under_way(A, whole, tree("")),
        under_way(A, upto, entry("x")),
        under_way(A, upto, entry("y")),
        owed(A, entry("y")),
        owed(B, entry("x")),
    ]);
    journal.append_delivered(A, upto, &[entry("x"), entry("y")]);
    journal.append_delivered(A, whole, &[tree("")]);
    journal.commit_durably();
    drop(journal);
    let replay = replay(dir.path());
    assert_eq!(pending(&replay, A), [entry("y")].into());
    assert_eq!(pending(&replay, B), [entry("x")].into());
}

#[test]
fn file_that_is_written_all_the_time_is_recorded_once_for_each_job() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let mut lengths = vec![journal.live.len];
    for _ in 0..2 {
        for _ in 0..100 {
            changed(&mut journal, 0, &[entry("x")]);
            journal.commit();
        }
        lengths.push(journal.live.len);
        journal.begin_job();
    }
    assert_eq!(lengths[2] - lengths[1], lengths[1] - lengths[0]);
    assert!(lengths[1] - lengths[0] < 100, "{lengths:?}");
    // The same name below another root is another file, and a tree is more than its entry.
    changed(&mut journal, 0, &[entry("x")]);
    changed(&mut journal, 1, &[entry("x")]);
    changed(&mut journal, 0, &[tree("x")]);
    journal.commit();
    drop(journal);
    let replay = replay(dir.path());
    assert_eq!(pending(&replay, A), [entry("x"), tree("x")].into());
    assert_eq!(pending(&replay, C), [entry("x")].into());
}

#[test]
fn delivered_tree_covers_what_is_below_and_nothing_beside() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let listing = (path("d"), Extent::new(Scope::Listing));
    let beside = [entry("d-"), entry("d0"), entry("e"), entry("dd/x")];
    changed(&mut journal, 0, &[entry("d"), entry("d/x"), tree("d/e/f")]);
    changed(&mut journal, 0, &beside);
    let upto = changed(&mut journal, 0, &[listing.clone(), tree("d")]);
    journal.append_delivered(A, upto, &[tree("d")]);
    journal.append_delivered(B, upto, &[listing]);
    journal.commit();
    drop(journal);
    let replay = replay(dir.path());
    assert_eq!(pending(&replay, A), beside.clone().into());
    let mut left: Pending = beside.into();
    left.extend([entry("d/x"), tree("d/e/f"), tree("d")]);
    assert_eq!(pending(&replay, B), left);
}

#[test]
fn uncommitted_changes_are_not_promised_and_committed_ones_survive_a_second_start() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[entry("x")]);
    journal.commit();
    changed(&mut journal, 0, &[entry("y")]);
    std::mem::forget(journal);
    for _ in 0..2 {
        assert_eq!(pending(&replay(dir.path()), A), [entry("x")].into());
    }
}

#[test]
fn tree_that_deletes_nothing_comes_back_as_one_and_its_delivery_leaves_deletions_pending() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[entry("d/new"), deletion("d/old")]);
    let upto = journal.append_pending(A, &[additive_tree("d"), additive_tree("e")]);
    journal.append_delivered(A, upto, &[additive_tree("d")]);
    journal.commit();
    drop(journal);
    let found = replay(dir.path());
    assert_eq!(pending(&found, A), [deletion("d/old"), additive_tree("e")].into());
    assert_eq!(pending(&found, B), [entry("d/new"), deletion("d/old")].into());
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    journal.append_delivered(A, journal.seq, &[tree("")]);
    journal.commit();
    drop(journal);
    assert_eq!(pending(&replay(dir.path()), A), [].into());
}

#[test]
fn deletion_is_recorded_although_a_write_of_the_same_file_was() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    for change in [entry("x"), deletion("x"), entry("x"), deletion("x")] {
        changed(&mut journal, 0, &[change]);
    }
    let upto = journal.append_pending(A, &[]);
    journal.append_delivered(A, upto, &[additive_tree("")]);
    journal.commit();
    drop(journal);
    assert_eq!(pending(&replay(dir.path()), A), [deletion("x")].into());
}

#[test]
fn journal_of_format_1_is_read() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[deletion("x"), tree("y")]);
    journal.commit();
    drop(journal);
    let mut bytes = fs::read(file(&dir)).unwrap();
    // Format 1 has no other letters than these.
    bytes[8] = 1;
    fs::write(file(&dir), bytes).unwrap();
    let old = replay(dir.path());
    assert_eq!((old.doubt, pending(&old, A)), (None, [deletion("x"), tree("y")].into()));
}

#[test]
fn torn_tail_is_cut_and_the_rest_kept() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[entry("x")]);
    journal.commit();
    changed(&mut journal, 0, &[entry("y")]);
    journal.commit();
    drop(journal);
    let bytes = fs::read(file(&dir)).unwrap();
    fs::write(file(&dir), &bytes[..bytes.len() - 3]).unwrap();
    let cut = replay(dir.path());
    assert!(cut.torn_bytes > 0 && cut.doubt.is_none());
    assert_eq!(pending(&cut, A), [entry("x")].into());
    assert_eq!(replay(dir.path()).torn_bytes, 0);
}

#[test]
fn garbage_in_the_middle_makes_everything_pending_and_is_kept_aside() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    for name in ["x", "y", "z"] {
        changed(&mut journal, 0, &[entry(name)]);
    }
    journal.commit();
    drop(journal);
    let mut bytes = fs::read(file(&dir)).unwrap();
    let middle = bytes.len() - 40;
    bytes[middle..middle + 8].copy_from_slice(b"garbage!");
    fs::write(file(&dir), &bytes).unwrap();
    let damaged = replay(dir.path());
    assert_eq!(damaged.doubt, Some(Doubt::Damaged));
    for remote in [A, B, C] {
        assert_eq!(pending(&damaged, remote), everything());
    }
    assert_eq!(fs::read(dir.path().join("journal.damaged")).unwrap(), bytes);
    // The new journal contains what is pending.
    let again = replay(dir.path());
    assert_eq!((again.doubt, pending(&again, C)), (None, everything()));
}

#[test]
fn in_doubt_the_deletions_that_can_be_read_are_pending_and_no_others() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let delivered = deletion("delivered");
    let upto = changed(&mut journal, 0, &[entry("x"), deletion("gone"), delivered.clone()]);
    journal.append_delivered(A, upto, std::slice::from_ref(&delivered));
    changed(&mut journal, 0, &[tree("moved"), deletion("unreadable")]);
    journal.commit();
    drop(journal);
    let mut bytes = fs::read(file(&dir)).unwrap();
    let damaged = bytes.windows(5).position(|name| name == b"moved").unwrap();
    bytes[damaged] = b'M';
    fs::write(file(&dir), &bytes).unwrap();
    let found = replay(dir.path());
    assert_eq!((found.doubt, found.needs_walk()), (Some(Doubt::Damaged), true));
    assert_eq!(pending(&found, A), [additive_tree(""), deletion("gone")].into());
    assert_eq!(pending(&found, B), [additive_tree(""), deletion("gone"), delivered].into());
    assert_eq!(pending(&found, C), everything());
}

#[test]
fn too_many_changes_become_one_and_so_do_too_many_deletions() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    (0..30).for_each(|i| _ = changed(&mut journal, 0, &[entry(&format!("f{i}"))]));
    changed(&mut journal, 0, &[deletion("gone")]);
    journal.commit();
    let read =
        |max| Replay::read_up_to(&fs::read(file(&dir)).unwrap(), &two_roots(), 0, max).unwrap();
    assert_eq!(read(40).doubt, None);
    let many = read(20);
    assert_eq!(many.doubt, Some(Doubt::TooMany));
    assert_eq!(pending(&many, A), [additive_tree(""), deletion("gone")].into());
    (0..30).for_each(|i| _ = changed(&mut journal, 0, &[deletion(&format!("f{i}"))]));
    journal.commit();
    let found = pending(&read(20), A);
    assert!(found.contains(&tree("")) && found.len() < 20, "{found:?}");
}

#[test]
fn a_walk_that_a_kill_ends_is_owed_until_one_has_ended() {
    let dir = TempDir::new().unwrap();
    let (mut journal, first) = Journal::open(dir.path(), two_roots()).unwrap();
    assert!(!first.needs_walk());
    journal.await_walk();
    changed(&mut journal, 0, &[deletion("x")]);
    journal.commit();
    drop(journal);
    // A start that is killed, too, and one that compacts the journal.
    assert!(replay(dir.path()).needs_walk());
    let (mut journal, second) = Journal::open(dir.path(), two_roots()).unwrap();
    assert!(second.needs_walk() && second.doubt.is_none() && journal.awaits_walk());
    assert_eq!(pending(&second, A), [deletion("x")].into());
    journal.change_layout(two_roots(), [owed(A, deletion("x"))]);
    drop(journal);
    let (mut journal, third) = Journal::open(dir.path(), two_roots()).unwrap();
    assert!(third.needs_walk());
    journal.walk_over();
    drop(journal);
    assert!(!replay(dir.path()).needs_walk());
}

#[test]
fn empty_or_foreign_file_makes_everything_pending() {
    for bytes in [&b""[..], b"x", b"#!/bin/sh\n# no journal at all, but long enough for a header\n"]
    {
        let dir = TempDir::new().unwrap();
        fs::write(file(&dir), bytes).unwrap();
        assert_eq!(replay(dir.path()).doubt, Some(Doubt::Damaged), "{bytes:?}");
    }
}

#[test]
fn journal_of_another_configuration_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let other = layout(&[("/three", &["a"])]);
    drop(Journal::open(dir.path(), other).unwrap());
    let replay = replay(dir.path());
    assert_eq!(replay.doubt, Some(Doubt::Foreign));
    assert_eq!(pending(&replay, A), everything());
    assert!(dir.path().join("journal.other").exists());
}

#[test]
fn new_remote_owes_everything_and_the_others_only_what_they_did() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    changed(&mut journal, 0, &[entry("x")]);
    journal.commit();
    drop(journal);
    let more = layout(&[("/two", &["c"]), ("/one", &["new", "b"])]);
    for _ in 0..2 {
        let replay = Journal::open(dir.path(), more.clone()).unwrap().1;
        assert_eq!(pending(&replay, RemoteId(0)), [].into());
        assert_eq!(pending(&replay, RemoteId(1)), everything());
        assert_eq!(pending(&replay, RemoteId(2)), [entry("x")].into());
    }
}

#[test]
fn newer_journal_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    drop(Journal::open(dir.path(), two_roots()).unwrap());
    let mut bytes = fs::read(file(&dir)).unwrap();
    bytes[8] = 3;
    fs::write(file(&dir), &bytes).unwrap();
    let error = Journal::open(dir.path(), two_roots()).unwrap_err();
    assert!(error.to_string().contains("format 3"), "{error}");
    assert_eq!(fs::read(file(&dir)).unwrap(), bytes);
}

#[test]
fn compaction_keeps_what_is_pending_and_what_came_meanwhile() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    for i in 0..20_000 {
        changed(&mut journal, 0, &[entry(&format!("some/long/enough/name/{i}"))]);
    }
    journal.commit();
    assert!(journal.is_worth_compacting(2));
    let before = fs::metadata(file(&dir)).unwrap().len();
    journal.compact([owed(A, entry("keep")), owed(C, tree("c"))]);
    changed(&mut journal, 0, &[entry("late")]);
    journal.commit_durably();
    assert!(!journal.is_worth_compacting(3));
    let upto = changed(&mut journal, 1, &[entry("later")]);
    journal.append_delivered(C, upto, &[tree("c")]);
    journal.commit();
    std::mem::forget(journal);
    assert!(fs::metadata(file(&dir)).unwrap().len() < before / 100);
    let replay = replay(dir.path());
    assert_eq!(pending(&replay, A), [entry("keep"), entry("late")].into());
    assert_eq!(pending(&replay, B), [entry("late")].into());
    assert_eq!(pending(&replay, C), [entry("later")].into());
}

#[test]
fn journal_shrinks_to_its_table_when_nothing_is_pending() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let empty = fs::metadata(file(&dir)).unwrap().len();
    assert!(!journal.is_worth_compacting(0));
    let long = entry(&"x".repeat(200_000));
    let upto = changed(&mut journal, 0, std::slice::from_ref(&long));
    journal.append_delivered(A, upto, std::slice::from_ref(&long));
    journal.append_delivered(B, upto, &[long]);
    journal.commit();
    assert!(journal.is_worth_compacting(0));
    journal.compact([]);
    assert_eq!(fs::metadata(file(&dir)).unwrap().len(), empty);
    changed(&mut journal, 0, &[entry("x")]);
    journal.commit();
    drop(journal);
    assert_eq!(pending(&replay(dir.path()), A), [entry("x")].into());
}

#[test]
fn power_failure_is_told_from_an_orderly_end() {
    let dir = TempDir::new().unwrap();
    let other_boot = |closed: bool| {
        let (journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
        if closed {
            journal.close();
        } else {
            drop(journal);
        }
        let mut bytes = fs::read(file(&dir)).unwrap();
        bytes[16] ^= 1;
        fs::write(file(&dir), &bytes).unwrap();
        let found = replay(dir.path());
        assert_eq!(found.needs_walk(), found.power_lost);
        found.power_lost
    };
    assert!(!other_boot(true));
    assert!(other_boot(false));
    drop(Journal::open(dir.path(), two_roots()).unwrap());
    assert!(!replay(dir.path()).power_lost);
}

#[test]
fn fifty_thousand_changes_cost_one_fdatasync_per_group_and_never_one_per_change() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let (groups, per_group) = (100, 500);
    for group in 0..groups {
        let items: Vec<_> = (0..per_group).map(|i| entry(&format!("{group}/f{i}"))).collect();
        changed(&mut journal, 0, &items);
        journal.commit();
    }
    journal.commit_durably();
    // The durable commit costs one more, even if nothing is left to sync.
    assert!(journal.syncer.syncs() <= groups + 1, "{} syncs", journal.syncer.syncs());
    drop(journal);
    assert_eq!(pending(&replay(dir.path()), A).len() as u64, groups * per_group);
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn measure_the_sustained_rate() {
    let dir = TempDir::new_in(".").unwrap();
    let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
    let (groups, per_group) = (5_000, 100);
    let begin = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    for group in 0..groups {
        let name = |i| entry(&format!("some/directory/of/{group}/file-number-{i}.html"));
        let items: Vec<_> = (0..per_group).map(name).collect();
        let start = std::time::Instant::now();
        let upto = changed(&mut journal, 0, &items);
        journal.commit();
        slowest = slowest.max(start.elapsed());
        journal.append_delivered(A, upto, &items);
        journal.commit();
    }
    journal.commit_durably();
    let took = begin.elapsed();
    let rate = f64::from(groups * per_group) / took.as_secs_f64();
    println!("{rate:.0} changes/s, slowest commit {slowest:?}, {took:?} in all");
    let begin = std::time::Instant::now();
    let lone = 200;
    for i in 0..lone {
        changed(&mut journal, 0, &[entry(&format!("lone/{i}"))]);
        journal.commit();
    }
    let commits = begin.elapsed() / lone;
    for i in 0..lone {
        changed(&mut journal, 0, &[entry(&format!("lone/{i}"))]);
        journal.commit_durably();
    }
    let durable = (begin.elapsed() - commits * lone) / lone;
    println!("a lone change: commit {commits:?}, durable {durable:?}");
}
