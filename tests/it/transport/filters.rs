//! The operator's filters in `<commonParams>` apply in every kind of run, in both directions.

use super::{Rig, path};
use sersync::path::RelPath;
use sersync::rsync::exit::Outcome;
use sersync::rsync::{Abilities, RunKind, Way, input};

/// Sends each name by the kind of run that the endpoint chooses.
fn deliver(rig: &Rig, names: &[&str], batch: fn(&Rig, &[&str]) -> Outcome) {
    let endpoint = rig.endpoint();
    for name in names {
        let outcome = match endpoint.way(rig.presence(name), Abilities::ALL) {
            Way::Batch => batch(rig, &[name]),
            Way::Fallback => rig.fallback(&[name]),
            Way::ListingOfParent => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                rig.listing(&[parent], &[])
            }
        };
        assert_eq!(outcome, Outcome::Delivered, "{name}");
    }
}

fn excluded_names_are_neither_sent_nor_deleted(params: &[&str]) {
    for batch in [Rig::batch, Rig::long_batch] {
        let rig = Rig::new(params);
        rig.source.file("a/new.o", "1");
        rig.source.file("a/new.c", "1");
        rig.remote_file("a/gone.o");
        rig.remote_file("a/gone.c");
        rig.remote_file("gone-dir/x.o");
        rig.remote_file("gone-dir/x.c");
        deliver(&rig, &["a/new.o", "a/new.c", "a/gone.o", "a/gone.c", "gone-dir"], batch);
        assert_eq!(rig.remote_names("a"), ["gone.o", "new.c"]);
        assert_eq!(rig.remote_names("gone-dir"), ["x.o"]);
    }
}

#[test]
fn exclude_words_hold() {
    excluded_names_are_neither_sent_nor_deleted(&["-a", "--exclude=*.o"]);
    excluded_names_are_neither_sent_nor_deleted(&["-a", "--exclude", "*.o"]);
}

#[test]
fn include_words_hold() {
    excluded_names_are_neither_sent_nor_deleted(&["-a", "--include=*.c", "--exclude=*.o"]);
}

#[test]
fn rule_files_hold_although_names_are_separated_by_nul() {
    let dir = crate::support::TestDir::new();
    let rules = dir.file("rules", "# objects\n*.o\n*.obj\n");
    let word = format!("--exclude-from={}", rules.display());
    excluded_names_are_neither_sent_nor_deleted(&["-a", &word]);
    let word = format!("--filter=merge,- {}", rules.display());
    excluded_names_are_neither_sent_nor_deleted(&["-a", &word]);
}

#[test]
fn rules_in_each_directory_hold() {
    let rig = Rig::new(&["-aF"]);
    rig.source.file("a/.rsync-filter", "- *.o\n- *.obj\n");
    rig.source.file("a/new.o", "1");
    rig.source.file("a/new.c", "1");
    rig.remote_file("a/gone.c");
    rig.remote_file("a/bystander.c");
    deliver(&rig, &["a/new.o", "a/new.c", "a/gone.c"], Rig::batch);
    assert_eq!(rig.remote_names("a"), ["bystander.c", "new.c"]);
}

#[test]
fn names_with_line_breaks_travel_beside_rules_in_each_directory() {
    let rig = Rig::new(&["-aF"]);
    rig.source.file("a\nb/c\rd", "1");
    rig.source.file("a\nb/x.o", "1");
    rig.source.file("a\nb/.rsync-filter", "- *.tmp\n- *.o\n");
    rig.remote_file("a\nb/gone\n");
    deliver(&rig, &["a\nb/c\rd", "a\nb/x.o", "a\nb/gone\n"], Rig::batch);
    assert_eq!(rig.remote_names("a\nb"), ["c\rd"]);
}

#[test]
fn rules_of_every_kind_hold_in_a_full_sync() {
    let rules = crate::support::TestDir::new();
    let file = rules.file("rules", "# objects\n*.o\n*.obj\n");
    let rig = Rig::new(&["-aF", &format!("--exclude-from={}", file.display())]);
    rig.source.file("a/.rsync-filter", "- *.tmp\n- *.swp\n");
    let odd: Vec<RelPath> = ["a/x\ny", "a/[b]*", "a/back\\slash", "a/plain"].map(path).into();
    for exact in &odd {
        rig.source.file(std::str::from_utf8(exact.as_bytes()).unwrap(), "1");
    }
    for name in ["a/1.o", "a/2.obj", "a/3.tmp", "a/4.swp", "a/sent", "a/b"] {
        rig.source.file(name, "1");
    }
    rig.remote_file("a/there.obj");
    rig.remote_file("a/extra");
    let excludes: Vec<_> = odd.iter().map(input::exact_pattern).collect();
    let kind =
        RunKind::Trees { dirs: vec![path("")], checksum: false, deletes: true, at_once: false };
    assert_eq!(rig.run(&kind, &input::filters(&excludes)), Outcome::Delivered);
    assert_eq!(rig.remote_names("a"), [".rsync-filter", "b", "sent", "there.obj"]);
}

#[test]
fn what_sersync_excludes_is_left_alone_whatever_the_operator_says() {
    let rig = Rig::new(&["-a", "--include=*", "--delete-excluded"]);
    rig.source.file("d/sent", "1");
    rig.source.file("d/here.log", "1");
    rig.remote_file("d/there.log");
    rig.remote_file("d/extra");
    assert_eq!(rig.trees(&["d"], &["/d/*.log"]), Outcome::Delivered);
    assert_eq!(rig.remote_names("d"), ["sent", "there.log"]);
}

#[test]
fn delete_excluded_of_the_operator_holds_in_full_syncs_only() {
    let rig = Rig::new(&["-a", "--exclude=*.o", "--delete-excluded"]);
    rig.source.file("d/f", "1");
    rig.remote_file("d/x.o");
    deliver(&rig, &["d/f", "d/x.o"], Rig::batch);
    assert!(rig.holds("d/x.o"));
    assert_eq!(rig.trees(&["d"], &[]), Outcome::Delivered);
    assert!(!rig.holds("d/x.o"));
}
