//! Tests of the reader with a queue of its own: what it reports after one read or several.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

use super::*;
use crate::change::WatchEvent;
use crate::path::RelPath;
use crate::watch::batch::Batch;
use crate::watch::reader::Reader;
use crate::watch::roots::Root;
use crate::watch::{Barrier, WatchStatus};

/// A reader that gets one event with a short name in each read.
fn reader_of_single_events(dir: &TempDir) -> (Reader, Receiver<WatchEvent>, Barrier) {
    reader_with_room(dir, 40)
}

/// A reader that gets so many bytes of events in each read.
fn reader_with_room(dir: &TempDir, bytes: usize) -> (Reader, Receiver<WatchEvent>, Barrier) {
    let switches = ChangeSwitches {
        delete: true,
        create_folder: true,
        create_file: false,
        close_write: true,
        move_from: true,
        move_to: true,
        attrib: false,
        modify: false,
    };
    let (sender, events) = unbounded();
    let sink = Box::new(move |event| sender.send(event).unwrap());
    let roots = Roots::new(vec![Root::new(RootId(0), dir.path()).unwrap()]).unwrap();
    let context = WatchContext::new(
        roots,
        Batch::new(switches, None, sink),
        false,
        Arc::new(WatchStatus::default()),
    );
    let make = move |_: &WatchContext| {
        let queue = Queue::with_room(bytes)?;
        let watch = InotifyWatch::new(&switches, Duration::from_secs(60))?;
        Ok(Box::new(InotifyWatch { queue, ..watch }) as Box<dyn Backend>)
    };
    let new_eventfd = || Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let asked = new_eventfd();
    let barrier = Barrier(asked.clone());
    (Reader::new(Box::new(make), context, new_eventfd(), asked).unwrap(), events, barrier)
}

#[test]
fn a_new_file_whose_events_come_with_one_read_is_reported_once() {
    let dir = TempDir::new().unwrap();
    let (mut reader, events, _) = reader_with_room(&dir, 4096);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(reader.take_turn());
    let Ok(WatchEvent::Changed { changes, .. }) = events.try_recv() else { panic!() };
    assert_eq!(changes, [Change::entry(RelPath::new(b"file").unwrap(), Cause::CloseWrite)]);
}

#[test]
fn who_asks_is_answered_when_all_that_had_happened_is_told_and_no_half_of_a_move_waits() {
    let (dir, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir_all(dir.path().join("goes/below")).unwrap();
    let (mut reader, events, barrier) = reader_of_single_events(&dir);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    barrier.ask();
    assert!(reader.take_turn());
    assert!(matches!(events.try_recv(), Ok(WatchEvent::BarrierReached)), "nothing has happened");
    // The reader reads one event at a time, and has to wait for the second half of a move.
    ["a", "b", "c"].iter().for_each(|name| fs::write(dir.path().join(name), "x").unwrap());
    fs::rename(dir.path().join("goes"), outside.path().join("gone")).unwrap();
    barrier.ask();
    barrier.ask();
    let mut told = BTreeSet::new();
    loop {
        assert!(reader.take_turn());
        for event in events.try_iter() {
            match event {
                WatchEvent::Changed { changes, .. } => {
                    told.extend(changes.into_iter().map(|change| change.path.to_string()));
                }
                WatchEvent::BarrierReached => {
                    let all = ["a", "b", "c", "goes"].map(str::to_owned);
                    assert_eq!(told, BTreeSet::from(all));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn who_asks_does_not_wait_for_the_second_half_of_a_move_out_of_the_tree_when_more_was_read_after_the_first()
 {
    let (dir, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(dir.path().join("goes"), "x").unwrap();
    let (mut reader, events, barrier) = reader_with_room(&dir, 4096);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    fs::rename(dir.path().join("goes"), outside.path().join("gone")).unwrap();
    fs::write(dir.path().join("stays"), "x").unwrap();
    barrier.ask();
    assert!(reader.take_turn());
    let Ok(WatchEvent::Changed { changes, .. }) = events.try_recv() else { panic!() };
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(matches!(events.try_recv(), Ok(WatchEvent::BarrierReached)));
}

#[test]
fn both_halves_of_a_rename_are_handed_on_together_also_when_a_read_ends_between_them() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "x").unwrap();
    fs::create_dir(at("dir")).unwrap();
    let (mut reader, events, _) = reader_of_single_events(&dir);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    for (from, to) in [("file", "new"), ("new", "newer"), ("dir", "new")] {
        fs::rename(at(from), at(to)).unwrap();
    }
    let mut moves = 0;
    while moves < 3 {
        assert!(reader.take_turn());
        for event in events.try_iter() {
            let WatchEvent::Changed { changes, .. } = event else { panic!("{event:?}") };
            let [from, to] = &changes[..] else { panic!("{changes:?}") };
            assert_eq!((from.cause, to.cause), (Cause::MovedFrom, Cause::MovedTo));
            assert_eq!(to.moved_from.as_ref(), Some(&from.path));
            moves += 1;
        }
    }
}

#[test]
fn a_file_that_moves_away_is_reported_although_no_second_half_comes() {
    let (dir, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(dir.path().join("file"), "x").unwrap();
    let (mut reader, events, _) = reader_of_single_events(&dir);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    fs::rename(dir.path().join("file"), outside.path().join("file")).unwrap();
    while events.is_empty() {
        assert!(reader.take_turn());
    }
    let Ok(WatchEvent::Changed { changes, .. }) = events.try_recv() else { panic!() };
    let path = RelPath::new(b"file").unwrap();
    assert_eq!(changes, [Change::entry(path, Cause::MovedFrom)]);
}

#[test]
fn every_turn_of_a_stream_reads_on_whatever_else_is_said() {
    let dir = TempDir::new().unwrap();
    let beside = dir.path().join("beside");
    fs::write(&beside, "x").unwrap();
    let (mut reader, events, _) = reader_of_single_events(&dir);
    reader.begin();
    assert!(matches!(events.try_recv(), Ok(WatchEvent::Ready { .. })));
    // Each file is created, written and closed: three events, three turns.
    let files = 20;
    for n in 0..files {
        fs::write(dir.path().join(format!("f{n}")), "x").unwrap();
    }
    for turn in 0..3 * files {
        // The sentinel hears of mode changes of entries in a root.
        fs::set_permissions(&beside, Permissions::from_mode(0o600 + turn % 8)).unwrap();
        assert!(reader.take_turn());
    }
    let last = format!("f{}", files - 1);
    let has_last = |event: WatchEvent| matches!(event, WatchEvent::Changed { changes, .. } if changes.iter().any(|c| c.path.as_bytes() == last.as_bytes()));
    assert!(events.try_iter().any(has_last));
}
