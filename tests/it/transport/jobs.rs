//! Jobs against a real daemon: below which directories other jobs may run at the same time, and what a worker returns.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Rig, path};
use sersync::change::{RemoteId, RootId, Scope};
use sersync::engine::pending::{Item, Mark};
use sersync::engine::{Job, JobId, JobKind, Verdict};
use sersync::rsync::excludes::Excludes;
use sersync::source::Source;
use sersync::worker::Progress;
use sersync::worker::remote_worker::{RemoteWorker, RemoteWorkerSetup};
use sersync::worker::rules::{Coverage, Rules};
use sersync::worker::shards::Sharding;
use sersync::worker::tally::Tally;

fn link(rig: &Rig) -> RemoteWorker {
    RemoteWorker::new(RemoteWorkerSetup {
        endpoint: rig.endpoint(),
        source: Arc::new(Source::open(rig.source.path()).unwrap()),
        rules: Rules {
            exclude: Arc::new(|_, _| false),
            patterns: Excludes::default(),
            coverage: Coverage::Whole,
            crontab: Vec::new(),
        },
        sharding: Sharding::On,
        links: Arc::default(),
        recorder: None,
        load_gate: Arc::default(),
        places: Arc::default(),
    })
}

fn item(name: &str, scope: Scope) -> Item {
    Item { path: path(name), mark: Mark::new(scope) }
}

fn batch(items: Vec<Item>) -> Job {
    Job {
        id: JobId(0),
        remote: RemoteId(0),
        root: RootId(0),
        kind: JobKind::Batch,
        items,
        moves: Vec::new(),
        deletes_below: true,
    }
}

/// The directories that a worker names during such a batch. They do not exist on the remote at that moment.
fn named(rig: &Rig, items: Vec<Item>) -> BTreeSet<String> {
    let job = batch(items);
    let named: RefCell<BTreeSet<String>> = RefCell::default();
    let opened = |progress| {
        let Progress::Opened(directories) = progress else { return };
        let new = directories.iter().map(ToString::to_string).filter(|name| !rig.holds(name));
        named.borrow_mut().extend(new);
    };
    let (report, _) = link(rig).run(&job, Duration::ZERO, &opened, &Tally::default());
    assert_eq!((report.verdict, report.failed), (Verdict::Done, vec![]));
    named.into_inner()
}

#[test]
fn a_job_that_is_aborted_while_it_has_no_run_begins_none() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("new", "x");
    rig.remote_file("gone");
    let mark = Mark::new(Scope::Entry);
    let items = ["new", "gone"].map(|name| Item { path: path(name), mark }).to_vec();
    let aborted = Tally::default();
    aborted.abort();
    let (report, _) = link(&rig).run(&batch(items.clone()), Duration::ZERO, &|_| {}, &aborted);
    assert_eq!(report.verdict, Verdict::Stopped);
    assert_eq!(rig.remote_names(""), ["gone"]);
    let (report, _) = link(&rig).run(&batch(items), Duration::ZERO, &|_| {}, &Tally::default());
    assert_eq!(report.verdict, Verdict::Done);
    assert_eq!(rig.remote_names(""), ["new"]);
}

#[test]
fn directories_of_a_batch_are_named_before_they_are_sent() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("a/b/file", "1");
    rig.source.dir("listed/below");
    rig.source.dir("whole/below");
    rig.remote_file("gone/file");
    let items = vec![
        item("a", Scope::Entry),
        item("a/b/file", Scope::Entry),
        item("gone", Scope::Tree),
        item("listed", Scope::Listing),
        item("whole", Scope::Tree),
    ];
    assert_eq!(named(&rig, items), ["a".to_owned()].into());
    assert!(rig.holds("a/b/file") && rig.holds("listed") && rig.holds("whole/below"));
    assert!(!rig.holds("gone"));
}

#[test]
fn where_directories_go_by_patterns_none_is_named() {
    // Only rsync reads rules in each directory, and it may delete below a directory that it reads.
    let rig = Rig::new(&["-a", "-F"]);
    rig.source.dir("a");
    assert_eq!(named(&rig, vec![item("a", Scope::Entry)]), BTreeSet::new());
    assert!(rig.holds("a"));
}

#[test]
fn a_directory_is_compared_to_delete_from_it_only_by_a_job_that_holds_it() {
    // With the operator's own include rules, only a comparison of the directory deletes in it.
    let rig = Rig::new(&["-a", "--include=*.txt"]);
    rig.source.file("a/kept.txt", "1");
    rig.remote_file("a/gone.txt");
    let remote = link(&rig);
    let (report, _) = remote.run(
        &batch(vec![item("a/gone.txt", Scope::Entry)]),
        Duration::ZERO,
        &|_| {},
        &Tally::default(),
    );
    assert_eq!(report.returned, [item("a", Scope::Listing)]);
    assert!(rig.holds("a/gone.txt"));
    let (report, _) =
        remote.run(&batch(report.returned), Duration::ZERO, &|_| {}, &Tally::default());
    assert_eq!((report.verdict, report.returned), (Verdict::Done, vec![]));
    assert!(!rig.holds("a/gone.txt"));
}

#[test]
fn a_directory_that_cannot_be_read_keeps_nobody_else_from_being_deleted() {
    // With -L, rsync cannot read the target of a dangling link, and deletes nothing in that run.
    let words: [&[&str]; 3] = [&["-aL"], &["-aLq"], &["-aLF"]];
    for words in words {
        let rig = Rig::new(words);
        let names = ["a", "b", "c", "d", "e"];
        names.iter().for_each(|name| drop(rig.source.file(format!("{name}/file"), "1")));
        std::os::unix::fs::symlink("nowhere", rig.source.join("b/dangling")).unwrap();
        names.iter().for_each(|name| rig.remote_file(&format!("{name}/extra")));
        rig.remote_file("gone");
        let mut items: Vec<_> = names.iter().map(|name| item(name, Scope::Tree)).collect();
        items.push(item("gone", Scope::Entry));
        let (report, _) = link(&rig).run(&batch(items), Duration::ZERO, &|_| {}, &Tally::default());
        let failed: BTreeSet<_> =
            report.failed.iter().map(|failure| failure.path.to_string()).collect();
        assert_eq!(failed, ["b".to_owned(), "b/dangling".to_owned()].into(), "{words:?}");
        let left: Vec<_> =
            names.iter().filter(|name| rig.holds(&format!("{name}/extra"))).collect();
        assert_eq!(left, [&"b"], "{words:?}");
        assert!(names.iter().all(|name| rig.holds(&format!("{name}/file"))) && !rig.holds("gone"));
    }
}

#[test]
fn a_directory_that_appears_after_the_look_keeps_nothing_of_an_older_one() {
    let rig = Rig::new(&["-a"]);
    rig.source.dir("other");
    rig.source.file("was-file", "1");
    ["absent", "was-file"].iter().for_each(|name| rig.remote_file(&format!("{name}/old")));
    let remote = link(&rig);
    let items = vec![
        item("other", Scope::Entry),
        item("absent", Scope::Tree),
        item("was-file", Scope::Tree),
    ];
    // Create it between the worker's look and rsync's.
    let appear = |progress| {
        let Progress::Opened(_) = progress else { return };
        std::fs::remove_file(rig.source.join("was-file")).unwrap();
        ["absent", "was-file"]
            .iter()
            .for_each(|name| drop(rig.source.file(format!("{name}/new"), "1")));
    };
    let (report, _) = remote.run(&batch(items), Duration::ZERO, &appear, &Tally::default());
    assert_eq!((report.verdict, report.failed), (Verdict::Done, vec![]));
    let whole = ["absent", "was-file"].map(|name| item(name, Scope::Tree));
    assert_eq!(report.returned, whole);
    let (report, _) =
        remote.run(&batch(report.returned), Duration::ZERO, &|_| {}, &Tally::default());
    assert_eq!((report.verdict, report.returned), (Verdict::Done, vec![]));
    ["absent", "was-file"].iter().for_each(|name| assert_eq!(rig.remote_names(name), ["new"]));
}
