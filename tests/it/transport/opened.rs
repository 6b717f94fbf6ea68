//! Which directories of a job a worker names, so that what is below them need not wait, and when it does.

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
use sersync::worker::link::{Link, LinkSetup};
use sersync::worker::rules::{Coverage, Rules};
use sersync::worker::shards::Sharding;

fn link(rig: &Rig) -> Link {
    Link::new(LinkSetup {
        endpoint: rig.endpoint(),
        source: Arc::new(Source::open(rig.source.path()).unwrap()),
        rules: Rules {
            exclude: Arc::new(|_, _| false),
            patterns: Excludes::default(),
            coverage: Coverage::Whole,
            crontab: Vec::new(),
        },
        sharding: Sharding::On,
        recorder: None,
        calm: Arc::default(),
    })
}

/// The directories that are named while such a job is done, and that stand nowhere on the remote at that moment.
fn named(rig: &Rig, kind: JobKind, items: &[(&str, Scope)]) -> BTreeSet<String> {
    let items = items.iter().map(|(p, scope)| Item { path: path(p), mark: Mark::new(*scope) });
    let job = Job {
        id: JobId(0),
        remote: RemoteId(0),
        root: RootId(0),
        kind,
        items: items.collect(),
        moves: Vec::new(),
        known_until: Duration::ZERO,
        deletes_below: true,
    };
    let named: RefCell<BTreeSet<String>> = RefCell::default();
    let opened = |directories: Vec<_>| {
        let new = directories.iter().map(ToString::to_string).filter(|name| !rig.holds(name));
        named.borrow_mut().extend(new);
    };
    let (report, _) = link(rig).run(&job, &opened);
    assert_eq!((report.verdict, report.failed), (Verdict::Done, vec![]));
    named.into_inner()
}

#[test]
fn directories_of_a_batch_are_named_before_they_are_sent() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("a/b/file", "1");
    rig.source.dir("listed/below");
    rig.source.dir("whole/below");
    rig.remote_file("gone/file");
    let items = [
        ("a", Scope::Entry),
        ("a/b/file", Scope::Entry),
        ("gone", Scope::Tree),
        ("listed", Scope::Listing),
        ("whole", Scope::Tree),
    ];
    assert_eq!(named(&rig, JobKind::Batch, &items), ["a".to_owned()].into());
    assert!(rig.holds("a/b/file") && rig.holds("listed") && rig.holds("whole/below"));
    assert!(!rig.holds("gone"));
}

#[test]
fn where_directories_go_by_patterns_none_is_named() {
    // Rules in each directory are read by rsync alone: below a directory that it reads, it may delete.
    let rig = Rig::new(&["-a", "-F"]);
    rig.source.dir("a");
    assert_eq!(named(&rig, JobKind::Batch, &[("a", Scope::Entry)]), BTreeSet::new());
    assert!(rig.holds("a"));
}
