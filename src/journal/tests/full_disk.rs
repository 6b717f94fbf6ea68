//! The journal on a full disk, which is a small tmpfs.
//! Without the right to mount one, these tests are skipped. Damaged files: `tests.rs`.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// A small tmpfs, unmounted when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let options = c"size=256k";
        match mount("none", dir.path(), "tmpfs", MountFlags::empty(), options) {
            Ok(()) => Some(Self(dir)),
            Err(e) => {
                eprintln!("skipped: cannot mount a small disk: {e}");
                None
            }
        }
    }

    fn fill(&self) {
        let _ = fs::write(self.0.path().join("filler"), vec![1; 1 << 20]);
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn full_disk_lets_work_go_on_and_the_next_start_takes_everything_for_pending() {
    let Some(disk) = SmallDisk::new() else { return };
    let (mut journal, _) = Journal::open(disk.0.path(), two_roots()).unwrap();
    disk.fill();
    for i in 0..1000 {
        changed(&mut journal, 0, &[entry(&format!("a/file/with/a/name/{i}"))]);
        journal.commit();
    }
    drop(journal);
    let (journal, replay) = Journal::open(disk.0.path(), two_roots()).unwrap();
    assert_eq!(replay.doubt, Some(Doubt::Incomplete));
    assert_eq!(pending(&replay, A), everything());
    drop(journal);
    disk.free();
    assert_eq!(super::replay(disk.0.path()).doubt, Some(Doubt::Incomplete));
    assert_eq!(super::replay(disk.0.path()).doubt, None);
}

#[test]
fn incomplete_journal_is_mended_when_there_is_room_again() {
    let Some(disk) = SmallDisk::new() else { return };
    let (mut journal, _) = Journal::open(disk.0.path(), two_roots()).unwrap();
    disk.fill();
    let mut groups = 0;
    while !journal.is_worth_compacting(2) {
        changed(&mut journal, 0, &[entry(&format!("a/file/with/a/name/{groups}"))]);
        journal.commit();
        groups += 1;
        assert!(groups < 10_000);
    }
    disk.free();
    journal.compact([owed(A, entry("x"))]);
    changed(&mut journal, 1, &[entry("y")]);
    journal.commit();
    drop(journal);
    let replay = replay(disk.0.path());
    assert_eq!(replay.doubt, None);
    assert_eq!(pending(&replay, A), [entry("x")].into());
    assert_eq!(pending(&replay, C), [entry("y")].into());
}

#[test]
fn first_start_on_a_full_disk_is_remembered_as_incomplete() {
    let Some(disk) = SmallDisk::new() else { return };
    disk.fill();
    let (mut journal, first) = Journal::open(disk.0.path(), two_roots()).unwrap();
    assert!(first.fresh);
    changed(&mut journal, 0, &[entry("x")]);
    journal.commit();
    drop(journal);
    disk.free();
    assert_eq!(pending(&replay(disk.0.path()), A), everything());
}
