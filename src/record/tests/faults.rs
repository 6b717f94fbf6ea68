//! The record under faults: lost mounts, unreadable directories, damaged files, a full disk.
//! Tests that mount are skipped where mounting is not allowed.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

#[test]
fn another_directory_at_the_root_is_not_compared() {
    let bed = Bed::new(&["tree/a"]);
    let root = bed.at("tree");
    let start = || {
        let mut record = Record::open(bed.state.path(), &root).unwrap();
        compare(&mut record)
    };
    start();
    fs::rename(&root, bed.at("away")).unwrap();
    fs::create_dir(&root).unwrap();
    let (survey, found) = start();
    assert_eq!((survey.unknown, found), (Some(Unknown::AnotherDirectory), changes([])));
}

#[test]
fn unmounted_directory_is_not_taken_for_an_emptied_one() {
    let bed = Bed::new(&["a"]);
    fs::create_dir(bed.at("m")).unwrap();
    let mount_it = || mount("none", bed.at("m"), "tmpfs", MountFlags::empty(), None);
    if let Err(e) = mount_it() {
        eprintln!("skipped: cannot mount: {e}");
        return;
    }
    bed.write("m/x/y", "old");
    bed.start();
    unmount(bed.at("m"), UnmountFlags::DETACH).unwrap();
    for _ in 0..2 {
        let (survey, found, _) = bed.start();
        assert_eq!((survey.lost_mounts, found), (vec![path("m")], changes([])));
    }
    // The operator confirms that the mount is gone: its content is reported as deleted, once.
    let mut record = bed.open();
    let (survey, found) = compare_with(&mut record, Losses::Meant);
    assert_eq!(survey.lost_mounts, []);
    assert!(found.contains(&("m/x".into(), TREE)), "{found:?}");
    record.close();
    assert_eq!(bed.start().0.lost_mounts, []);
    mount_it().unwrap();
    bed.write("m/x/y", "old");
    bed.start();
    unmount(bed.at("m"), UnmountFlags::DETACH).unwrap();
    // Mount another file system, which is empty: its content is a change of the tree.
    mount_it().unwrap();
    let found = bed.found();
    unmount(bed.at("m"), UnmountFlags::DETACH).unwrap();
    assert!(found.contains(&("m/x".into(), TREE)), "{found:?}");
}

#[test]
fn unreadable_directory_is_not_taken_for_an_empty_one() {
    let bed = Bed::new(&["a", "d/b", "d/e/c", "d-"]);
    bed.start();
    fs::remove_file(bed.at("a")).unwrap();
    let mut record = bed.open();
    let mut surveyor = record.start_survey().unwrap();
    surveyor.header.alive = i64::MAX;
    let wanted: Wanted<'_> = &|_, _| true;
    let mut found = Vec::new();
    let mut sink = |change: Change| found.push(change.path.to_string());
    let blind = format::DirKey::new(&path("d"));
    let result = survey::run(
        &surveyor.paths,
        &surveyor.header,
        wanted,
        &mut sink,
        (Losses::Accidents, WithoutBaseline::Silent),
        |meet| {
            walk::walk(bed.tree.path(), wanted, 1, |listed| match listed {
                walk::WalkedDirectory::Listed(listing) if listing.dir == blind => {
                    meet(walk::WalkedDirectory::Blind(
                        blind.clone(),
                        io::ErrorKind::PermissionDenied.into(),
                    ))
                }
                walk::WalkedDirectory::Listed(listing) if listing.dir.is_within(&blind) => Ok(()),
                other => meet(other),
            })
        },
    );
    assert_eq!(result.unwrap().unreadable, [path("d")]);
    record.keep(surveyor).unwrap();
    assert_eq!(found, ["./", "a"]);
    // The directory is readable again: its old content is still on record.
    fs::remove_file(bed.at("d/e/c")).unwrap();
    assert_eq!(bed.found(), changes([("d/e", ENTRY), ("d/e/c", ENTRY)]));
}

#[test]
fn damage_anywhere_is_noticed() {
    let bed = Bed::new(&["a", "d/b", "d/e/c"]);
    bed.start();
    let file = bed.open().stem.with_extension("snapshot");
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        for bytes in [&flipped[..], &whole[..at]] {
            fs::write(&file, bytes).unwrap();
            let mut record = bed.open();
            let surveyor = record.start_survey().unwrap();
            let survey = surveyor.compare(&|_, _| true, 1, &mut |_| {}).unwrap();
            assert_eq!(survey.unknown, Some(Unknown::Damaged), "byte {at}");
        }
    }
}

#[test]
fn delivery_that_could_not_be_written_spoils_the_record() {
    let bed = Bed::new(&["a"]);
    let (_, _, mut record) = bed.start();
    record.delta = File::options().write(true).open("/dev/full").unwrap();
    bed.deliver(&mut record, &[("a", ENTRY)]);
    drop(record);
    assert_eq!(bed.start().0.unknown, Some(Unknown::Damaged));
    assert_eq!(bed.start().0.unknown, None);
}

#[test]
fn a_survey_that_outlives_its_record_ends_at_the_next_directory() {
    let bed = Bed::new(&["a/b", "c/d"]);
    let (_, _, mut record) = bed.start();
    let surveyor = record.start_survey().unwrap();
    record.close();
    let ended = surveyor.compare(&|_, _| true, 1, &mut |_| {}).unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
}
