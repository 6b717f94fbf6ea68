//! Merges while the program runs: the record stays small and complete, whenever the program is killed.
//! `tests/it/faults/record.rs` tests the running program.

use super::*;

/// Merges now, even if the deltas are short.
fn merge(record: &mut Record) {
    record.merge_above = 0;
    let merger = record.start_merge().unwrap();
    record.merged(merger.run());
}

impl Bed {
    fn state_len(&self) -> u64 {
        let files = fs::read_dir(self.state.path()).unwrap().flatten();
        files.map(|file| file.metadata().unwrap().len()).sum()
    }
}

#[test]
fn a_merge_keeps_what_is_known_and_what_is_delivered_meanwhile() {
    let bed = Bed::new(&["a", "d/b", "d/c", "gone/x/y"]);
    let (_, _, mut record) = bed.start();
    fs::remove_dir_all(bed.at("gone")).unwrap();
    fs::remove_file(bed.at("d/b")).unwrap();
    bed.write("d/c", "new");
    bed.write("n/e/w", "new");
    bed.deliver(&mut record, &[("gone", ENTRY), ("d/b", ENTRY), ("d/c", ENTRY), ("n", TREE)]);
    for round in 0..2 {
        record.merge_above = 0;
        let merger = record.start_merge().unwrap();
        bed.write("late", &format!("{round}"));
        bed.deliver(&mut record, &[("late", ENTRY)]);
        assert!(record.start_merge().is_none() && record.start_survey().is_err(), "one at a time");
        record.merged(merger.run());
    }
    drop(record);
    assert_eq!(deltas(&bed.open().stem).unwrap().len(), 2);
    assert_eq!(bed.found(), changes([]));
}

#[test]
fn the_record_of_a_small_tree_stays_small_over_hundreds_of_thousands_of_deliveries() {
    let names: Vec<String> = (0..50).map(|i| format!("d{}/f{i}", i % 5)).collect();
    let bed = Bed::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (_, _, mut record) = bed.start();
    let (mut merges, mut longest) = (0, 0);
    for delivery in 0..300_000 {
        bed.deliver(&mut record, &[(&names[delivery % names.len()], ENTRY)]);
        if let Some(merger) = record.start_merge() {
            longest = longest.max(bed.state_len());
            record.merged(merger.run());
            merges += 1;
        }
    }
    assert!(merges > 5, "only {merges} merges");
    assert!(longest < 3 << 20, "the record had {longest} bytes");
    bed.write("d0/f0", "changed at last");
    bed.deliver(&mut record, &[("d0/f0", ENTRY)]);
    std::mem::forget(record);
    assert_eq!(bed.found(), changes([]));
}

#[test]
fn what_earlier_starts_left_is_merged_too() {
    let bed = Bed::new(&["a"]);
    bed.start();
    for _ in 0..3 {
        let mut record = bed.open();
        (0..50).for_each(|_| bed.deliver(&mut record, &[("a", ENTRY)]));
        std::mem::forget(record);
    }
    let mut record = bed.open();
    record.merge_above = record.earlier_len - 1;
    let merger = record.start_merge().unwrap();
    record.merged(merger.run());
    assert!(bed.state_len() < 1_000, "{}", bed.state_len());
    assert_eq!(bed.found(), changes([]));
}

/// Copies the state directory as a kill at this moment would leave it.
fn photograph(bed: &Bed) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(bed.state.path()).unwrap().flatten() {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_kill_at_any_step_of_a_merge_loses_nothing() {
    let bed = Bed::new(&["a", "d/b", "gone"]);
    let (_, _, mut record) = bed.start();
    bed.write("a", "new");
    fs::remove_file(bed.at("gone")).unwrap();
    bed.deliver(&mut record, &[("a", ENTRY), ("gone", ENTRY)]);
    let mut pictures = vec![photograph(&bed)];
    record.merge_above = 0;
    let merger = record.start_merge().unwrap();
    pictures.push(photograph(&bed));
    bed.write("meanwhile", "new");
    bed.deliver(&mut record, &[("meanwhile", ENTRY)]);
    let before_write = pictures.len();
    merge::write_merged(&merger.paths, &merger.header, &merger.turn).unwrap();
    let whole = fs::read(&merger.paths.new_snapshot).unwrap();
    for len in 0..whole.len() {
        fs::write(&merger.paths.new_snapshot, &whole[..len]).unwrap();
        pictures.push(photograph(&bed));
    }
    fs::write(&merger.paths.new_snapshot, &whole).unwrap();
    pictures.push(photograph(&bed));
    publish(&merger.turn, &merger.paths).unwrap();
    pictures.push(photograph(&bed));
    for delta in &merger.paths.deltas {
        fs::remove_file(delta).unwrap();
        pictures.push(photograph(&bed));
    }
    for (step, picture) in pictures.into_iter().enumerate() {
        let killed = Bed { tree: TempDir::new().unwrap(), state: picture };
        let mut again = Record::open(killed.state.path(), bed.tree.path()).unwrap();
        let (survey, found) = compare(&mut again);
        assert_eq!(survey.unknown, None, "step {step}");
        // A delivery after the copy was taken must be reported again.
        let known = changes([]);
        let missed = changes([("", ENTRY), ("meanwhile", ENTRY)]);
        let expected = if step < before_write { missed } else { known };
        assert_eq!(found, expected, "step {step}");
    }
}

#[test]
fn a_merge_that_fails_leaves_the_record_as_it_was_and_is_put_off() {
    let bed = Bed::new(&["a"]);
    let (_, _, mut record) = bed.start();
    bed.write("a", "new");
    bed.deliver(&mut record, &[("a", ENTRY)]);
    record.merge_above = 0;
    let mut merger = record.start_merge().unwrap();
    merger.paths.new_snapshot = bed.state.path().join("missing/record.new");
    record.merged(merger.run());
    assert!(record.start_merge().is_none(), "not at once again");
    merge(&mut record);
    std::mem::forget(record);
    assert_eq!(bed.found(), changes([]));
}

#[test]
fn a_merge_does_not_hide_that_a_delivery_could_not_be_put_on_record() {
    let bed = Bed::new(&["a"]);
    let (_, _, mut record) = bed.start();
    bed.deliver(&mut record, &[("a", ENTRY)]);
    record.merge_above = 0;
    let merger = record.start_merge().unwrap();
    record.delta = File::options().write(true).open("/dev/full").unwrap();
    bed.deliver(&mut record, &[("a", ENTRY)]);
    record.merged(merger.run());
    drop(record);
    assert_eq!(bed.start().0.unknown, Some(Unknown::Damaged));
}

#[test]
fn a_merge_that_outlives_its_record_changes_nothing() {
    let bed = Bed::new(&["a"]);
    let (_, _, mut record) = bed.start();
    bed.deliver(&mut record, &[("a", ENTRY)]);
    record.merge_above = 0;
    let merger = record.start_merge().unwrap();
    let snapshot = merger.paths.snapshot.clone();
    record.close();
    let before = fs::read(&snapshot).unwrap();
    assert!(merger.run().result.is_err());
    assert_eq!(fs::read(&snapshot).unwrap(), before);
    assert_eq!(bed.found(), changes([]));
}
