//! Tests of the look at the disk before a job.

use super::*;
use crate::change::{RemoteId, RootId};
use crate::engine::JobId;
use crate::worker::links::Links;
use rustix::fs::{Mode, OFlags};
use std::fs;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn job(items: &[(&str, Scope)], moves: &[(&str, &str)]) -> Job {
    Job {
        id: JobId(0),
        remote: RemoteId(0),
        root: RootId(0),
        kind: JobKind::Batch,
        items: items
            .iter()
            .map(|(p, scope)| Item { path: path(p), mark: Mark::new(*scope) })
            .collect(),
        moves: moves.iter().map(|(new, old)| (path(new), path(old))).collect(),
        deletes_below: true,
    }
}

fn look_at_all(fd: &OwnedFd, job: &Job) -> Look {
    let nothing: Exclude = std::sync::Arc::new(|_, _| false);
    look_at_beside(fd, job, &nothing, &OperatorRules::default())
}

fn look_at_beside(fd: &OwnedFd, job: &Job, exclude: &Exclude, rules: &OperatorRules) -> Look {
    let operator = (rules, Path::new("/srv/www"));
    let (sharding, hints, hard_links) = (Sharding::On, Hints::Use, HardLinks::Ignore);
    let options = LookOptions { sharding, hints, exclude, operator, hard_links };
    look_at(fd, job, options)
}

fn look(root: &Path, job: &Job) -> Look {
    let fd = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    look_at_all(&fd, job)
}

fn names(look: &Look) -> Vec<String> {
    look.present.iter().map(|p| p.path.to_string()).collect()
}

fn back(text: &str) -> Item {
    Item { path: path(text), mark: Mark::new(Scope::Tree) }
}

#[test]
fn what_has_moved_on_leaves_its_old_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "a new day").unwrap();
    let undone = |items: &[(&str, Scope)], moves: &[(&str, &str)]| {
        let look = look(dir.path(), &job(items, moves));
        let undone: Vec<_> = look.undone.iter().map(|it| it.new.to_string()).collect();
        (undone, names(&look), look.absent.len())
    };
    let both = [("foo", Scope::Entry), ("bar", Scope::Tree)];
    assert_eq!(undone(&both, &[("bar", "foo")]), (vec!["bar".into()], vec![], 0));
    assert_eq!(undone(&both[1..], &[("bar", "foo")]), (vec!["bar".into()], vec![], 0));
    let log = [("log", Scope::Entry), ("log.1", Scope::Entry)];
    assert_eq!(undone(&log, &[("log.1", "log")]), (vec!["log.1".into()], vec![], 0));
    let deleted = [("dir", Scope::Entry), ("dir/old", Scope::Entry), ("new", Scope::Entry)];
    assert_eq!(undone(&deleted, &[("new", "dir/old")]), (vec![], vec![], 2));
    let received = [(".f.tXt012", Scope::Entry), ("f", Scope::Entry)];
    assert_eq!(undone(&received, &[("f", ".f.tXt012")]), (vec![], vec![], 2));
}

#[test]
fn an_absent_path_is_listed_as_its_topmost_absent_ancestor() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let items = [("a/b", Scope::Tree), ("a/b/c/d", Scope::Entry), ("a/b/x", Scope::Entry)];
    let look = look(dir.path(), &job(&items, &[]));
    assert_eq!(look.absent, BTreeSet::from([path("a/b")]));
    assert!(look.present.is_empty() && look.returned.is_empty());
}

#[test]
fn what_a_job_does_not_hold_it_does_not_delete() {
    let dir = tempfile::tempdir().unwrap();
    let items = [("a/b/c/d", Scope::Entry), ("a/b/x", Scope::Entry)];
    let found = look(dir.path(), &job(&items, &[]));
    assert!(found.absent.is_empty());
    assert_eq!(found.returned, [back("a")]);
    let large = Job { kind: JobKind::Large, ..job(&[("gone", Scope::Entry)], &[]) };
    let found = look(dir.path(), &large);
    assert!(found.absent.is_empty());
    assert_eq!(found.returned, [back("gone")]);
}

#[test]
fn a_path_below_what_is_now_a_file_becomes_that_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "now a file").unwrap();
    let items = [("a", Scope::Entry), ("a/b/c", Scope::Entry)];
    let look = look(dir.path(), &job(&items, &[]));
    assert!(names(&look).iter().all(|name| name == "a"));
    assert!(look.absent.is_empty() && look.returned.is_empty());
}

#[test]
fn a_symbolic_link_on_the_way_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("f"), "not ours").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
    let items = [("link/f", Scope::Entry), ("link/gone/x", Scope::Entry)];
    let look = look(dir.path(), &job(&items, &[]));
    assert!(names(&look).is_empty() && look.absent.is_empty());
    assert_eq!(look.returned, [back("link")]);
}

#[test]
fn a_large_file_is_returned_to_travel_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("big")).unwrap().set_len(LARGE_FILE).unwrap();
    fs::write(dir.path().join("small"), "x").unwrap();
    let items = [("big", Scope::Entry), ("small", Scope::Entry)];
    let look = look(dir.path(), &job(&items, &[]));
    assert_eq!(names(&look), ["small"]);
    assert!(look.returned.len() == 1 && look.returned[0].mark.large);
}

#[test]
fn what_holds_the_parts_of_a_large_tree_is_listed_before_they_go_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40 {
        let sub = dir.path().join(format!("top/d{i}"));
        fs::create_dir_all(&sub).unwrap();
        for j in 0..60 {
            fs::write(sub.join(format!("f{j}")), "").unwrap();
        }
    }
    let look = look(dir.path(), &job(&[("", Scope::Tree)], &[]));
    assert_eq!(look.listings, [path(""), path("top")]);
    let whole = |item: &Item| item.mark.shard && item.mark.scope == Scope::Tree;
    assert!(look.returned.len() == 40 && look.returned.iter().all(whole));
    assert!(look.trees.is_empty());
}

#[test]
fn a_moved_directory_is_copied_when_another_has_its_old_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    let items = [("old", Scope::Tree), ("new", Scope::Tree)];
    let job = job(&items, &[("new", "old")]);
    let moved = Move { new: path("new"), old: path("old"), what: Moved::Directory };
    assert_eq!(look(dir.path(), &job).moves, std::slice::from_ref(&moved));
    fs::create_dir(dir.path().join("old")).unwrap();
    let look = look(dir.path(), &job);
    assert_eq!(look.moves, [Move { what: Moved::ReplacedDirectory, ..moved }]);
    assert_eq!(look.trees, [path("old")]);
}

#[test]
fn old_names_wait_and_the_directories_to_move_to_go_first() {
    let moved = Move { new: path("p/new"), old: path("q/old"), what: Moved::Directory };
    let mut look = Look {
        moves: vec![moved],
        present: vec![Present::plain(path("f"), Presence::Other)],
        absent: ["q", "z"].map(path).into(),
        ..Look::default()
    };
    let later = look.put_off_old_names();
    assert_eq!(later.absent, [path("q")].into());
    assert_eq!(look.absent, [path("z")].into());
    let first: Vec<_> = look.present.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(first, [path("f"), path("p/new")]);
}

#[test]
fn nothing_below_a_directory_that_the_operator_excludes_is_sent_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/cache/d")).unwrap();
    fs::write(dir.path().join("a/cache/secret"), "x").unwrap();
    let fd = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let nothing: Exclude = std::sync::Arc::new(|_, _| false);
    let options = [("exclude".to_owned(), "cache/".into())];
    let rules = OperatorRules::parse(&options, |_| None);
    let items = [
        ("a/cache/secret", Scope::Entry),
        ("a/cache/gone", Scope::Entry),
        ("a/cache/d", Scope::Tree),
        ("a/cache/d/e", Scope::Listing),
    ];
    let look = look_at_beside(&fd, &job(&items, &[]), &nothing, &rules);
    assert!(names(&look).iter().all(|name| name == "a"), "{:?}", names(&look));
    assert!(look.absent.is_empty() && look.trees.is_empty() && look.listings.is_empty());
}

#[test]
fn what_differs_from_a_deleted_name_in_its_case_only_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big.iso"), "the new name").unwrap();
    fs::write(dir.path().join("other"), "").unwrap();
    fs::create_dir_all(dir.path().join("d/dir")).unwrap();
    let again = |text: &str, scope| Item {
        path: path(text),
        mark: Mark { recheck: Recheck::Only, ..Mark::new(scope) },
    };
    let gone = [("Big.iso", Scope::Entry), ("d/Dir", Scope::Tree)];
    let mut found = look(dir.path(), &job(&gone, &[]));
    found.returned.sort();
    assert_eq!(found.absent.len(), 2);
    assert_eq!(found.returned, [again("big.iso", Scope::Entry), again("d/dir", Scope::Tree)]);
    // Both in one job: the plan deletes first, and sends whatever the remote seems to have.
    let both = [gone[0], ("big.iso", Scope::Entry)];
    let found = look(dir.path(), &job(&both, &[]));
    assert!(found.returned.is_empty() && found.present[0].loses_copy);
    // The name of a directory says nothing of what is below it.
    let both = [gone[1], ("d/dir", Scope::Entry)];
    assert_eq!(look(dir.path(), &job(&both, &[])).returned, [again("d/dir", Scope::Tree)]);
}

#[test]
fn a_confirmation_does_not_delete_beside_a_name_that_differs_in_its_case_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big.iso"), "the new name").unwrap();
    let mut job = job(&[("Big.iso", Scope::Entry), ("gone", Scope::Entry)], &[]);
    job.items.iter_mut().for_each(|item| item.mark.recheck = Recheck::Confirm);
    let found = look(dir.path(), &job);
    assert_eq!(found.absent, [path("gone")].into());
    assert!(found.returned.is_empty() && found.present.is_empty());
}

/// A look with `-H`, as text: what is sent in one list, what leaves, and which names belong together.
fn look_with_links(root: &Path, job: &Job) -> (String, String, String) {
    let fd = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let exclude: Exclude = std::sync::Arc::new(|_, _| false);
    let (rules, links) = (OperatorRules::default(), Links::default());
    let look = look_at(
        &fd,
        job,
        LookOptions {
            sharding: Sharding::Off,
            hints: Hints::Use,
            exclude: &exclude,
            operator: (&rules, Path::new("/srv/www")),
            hard_links: HardLinks::Together(&links),
        },
    );
    let joined = |names: Vec<String>| names.join(" ");
    let linked = look.present.iter().filter(|entry| entry.is_linked);
    let linked = joined(linked.map(|entry| entry.path.to_string()).collect());
    let mut back: Vec<_> = look.returned.iter().map(|item| item.path.to_string()).collect();
    back.sort();
    let group = |names: &Vec<RelPath>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let groups = look.together.iter().map(|names| joined(group(names))).collect::<Vec<_>>();
    assert!(look.absent.iter().all(|path| !back.contains(&path.to_string())));
    (linked, joined(back), groups.join(" | "))
}

#[test]
fn the_names_of_a_linked_file_stay_in_one_job_or_leave_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("o"), "").unwrap();
    fs::write(dir.path().join("single"), "").unwrap();
    for name in ["o2", "d/o3"] {
        fs::hard_link(dir.path().join("o"), dir.path().join(name)).unwrap();
    }
    let entries =
        |names: &[&'static str]| names.iter().map(|name| (*name, Scope::Entry)).collect::<Vec<_>>();
    for (items, moves, expected) in [
        (entries(&["o2", "single"]), &[][..], ("", "o2", "d/o3 o o2")),
        (entries(&["o", "o2", "d/o3", "single"]), &[], ("o o2 d/o3", "", "")),
        (vec![("d", Scope::Tree)], &[], ("", "d/o3", "d/o3 o o2")),
        (vec![("d", Scope::Listing)], &[], ("", "d/o3", "d/o3 o o2")),
        (vec![("", Scope::Tree)], &[], ("", "", "")),
        // The old name leaves too, so that it is deleted when the new one arrives.
        (entries(&["o2", "gone"]), &[("o2", "gone")], ("", "gone o2", "d/o3 o o2 | o2 gone")),
    ] {
        let found = look_with_links(dir.path(), &job(&items, moves));
        let (linked, back, together) = expected;
        assert_eq!(found, (linked.into(), back.into(), together.into()), "{items:?}");
    }
}
