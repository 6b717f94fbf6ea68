//! What is reported for renames; and directories stay watched wherever they are moved.

use std::fs;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sersync::change::{Cause, Change, Scope};
use sersync::config::WatchBackend;

use super::both_backends;
use super::support::*;

both_backends! {
    a_renamed_directory_is_watched_under_its_new_name
    a_renamed_file_says_where_its_data_is
    a_directory_moved_out_is_forgotten_and_one_moved_in_is_watched
    a_directory_renamed_into_a_new_one_is_watched
    two_directories_that_are_exchanged_are_watched
    a_directory_that_is_exchanged_with_one_outside_is_watched
    a_directory_that_replaces_an_empty_one_is_watched
    a_chain_of_renames_leads_to_the_last_name
    what_was_excluded_is_watched_under_an_included_name_and_back
    filters_hold_below_a_renamed_directory
    a_file_moved_over_another_is_reported
}

fn a_renamed_directory_is_watched_under_its_new_name(backend: WatchBackend) {
    let mut watched =
        Watched::new(backend, |root| fs::create_dir_all(root.join("old/sub")).unwrap());
    fs::rename(watched.root.join("old"), watched.root.join("new")).unwrap();
    let all = watched.all_until_now();
    assert_eq!(all[0], Change::tree(rel("old"), Cause::MovedFrom));
    let moved_from = Some(rel("old"));
    assert_eq!(all[1], Change { moved_from, ..Change::tree(rel("new"), Cause::MovedTo) });
    assert_eq!(all.len(), 2);
    fs::write(watched.root.join("new/sub/file"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["new/sub/file"]);
}

fn a_renamed_file_says_where_its_data_is(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("old"), "x").unwrap();
    });
    fs::rename(watched.root.join("old"), watched.root.join("dir/new")).unwrap();
    let all = watched.all_until_now();
    let to = Change::entry(rel("dir/new"), Cause::MovedTo);
    let moved_from = Some(rel("old"));
    assert_eq!(all, [Change::entry(rel("old"), Cause::MovedFrom), Change { moved_from, ..to }]);
}

fn a_directory_moved_out_is_forgotten_and_one_moved_in_is_watched(backend: WatchBackend) {
    let (_other, outside) = temp_dir();
    let mut watched = Watched::new(backend, |root| fs::create_dir_all(root.join("a/b")).unwrap());
    let root = watched.root.clone();
    fs::rename(root.join("a"), outside.join("a")).unwrap();
    let all = watched.all_until_now();
    assert_eq!(all, [Change::tree(rel("a"), Cause::MovedFrom)]);
    fs::write(outside.join("a/b/file"), "x").unwrap();
    assert_eq!(watched.all_until_now(), []);
    if backend == WatchBackend::Inotify {
        let directories = &watched.watcher.status().directories;
        assert_eq!(directories.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
    fs::rename(outside.join("a"), root.join("c")).unwrap();
    assert_eq!(watched.all_until_now(), [Change::tree(rel("c"), Cause::MovedTo)]);
    fs::write(root.join("c/b/file"), "y").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["c/b/file"]);
}

fn a_directory_renamed_into_a_new_one_is_watched(backend: WatchBackend) {
    let mut watched =
        Watched::new(backend, |root| fs::create_dir_all(root.join("d0/sub")).unwrap());
    let mut path = String::from("d0");
    for round in 1..100 {
        let root = watched.root.clone();
        let new = format!("n{round}/x/y");
        fs::create_dir_all(root.join(&new)).unwrap();
        fs::rename(root.join(&path), root.join(&new).join("d")).unwrap();
        path = format!("{new}/d");
        fs::write(root.join(&path).join("sub/file"), format!("{round}")).unwrap();
        watched.until_path(&format!("{path}/sub/file"));
    }
    watched.every_directory_is_watched();
}

fn two_directories_that_are_exchanged_are_watched(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| {
        fs::create_dir_all(root.join("a/in-a")).unwrap();
        fs::create_dir_all(root.join("b/in-b")).unwrap();
    });
    let (a, b) = (watched.root.join("a"), watched.root.join("b"));
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    let all = watched.all_until_now();
    for path in ["a", "b"] {
        assert!(all.iter().any(|c| c.path == rel(path) && c.scope == Scope::Tree), "{all:?}");
    }
    watched.every_directory_is_watched();
}

fn a_directory_that_is_exchanged_with_one_outside_is_watched(backend: WatchBackend) {
    let (_other, outside) = temp_dir();
    fs::create_dir_all(outside.join("new")).unwrap();
    let mut watched = Watched::new(backend, |root| fs::create_dir_all(root.join("a/old")).unwrap());
    let a = watched.root.join("a");
    for (one, two) in [(&outside, &a), (&a, &outside)] {
        renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
        watched.until_path("a");
        watched.all_until_now();
        watched.every_directory_is_watched();
    }
}

fn a_directory_that_replaces_an_empty_one_is_watched(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| {
        fs::create_dir_all(root.join("a/sub")).unwrap();
        fs::create_dir(root.join("b")).unwrap();
    });
    fs::rename(watched.root.join("a"), watched.root.join("b")).unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["a", "b"]);
    watched.every_directory_is_watched();
}

fn a_chain_of_renames_leads_to_the_last_name(backend: WatchBackend) {
    let mut watched =
        Watched::new(backend, |root| fs::create_dir_all(root.join("d0/sub")).unwrap());
    for n in 0..200 {
        let (from, to) = (format!("d{n}"), format!("d{}", n + 1));
        fs::rename(watched.root.join(from), watched.root.join(to)).unwrap();
    }
    watched.until_path("d200");
    watched.all_until_now();
    watched.every_directory_is_watched();
}

fn what_was_excluded_is_watched_under_an_included_name_and_back(backend: WatchBackend) {
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("cache/sub")).unwrap(),
        |options| {
            options.exclude = Some(Arc::new(|path, _| path.name() == Some(b"cache")));
        },
    );
    let (cache, kept) = (watched.root.join("cache"), watched.root.join("kept"));
    fs::rename(&cache, &kept).unwrap();
    assert_eq!(watched.all_until_now(), [Change::tree(rel("kept"), Cause::MovedTo)]);
    fs::write(kept.join("sub/file"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["kept/sub/file"]);
    fs::rename(&kept, &cache).unwrap();
    assert_eq!(watched.all_until_now(), [Change::tree(rel("kept"), Cause::MovedFrom)]);
    fs::write(cache.join("sub/file"), "x").unwrap();
    assert_eq!(watched.all_until_now(), []);
}

fn filters_hold_below_a_renamed_directory(backend: WatchBackend) {
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("a/deep/x/y")).unwrap(),
        |options| {
            options.exclude = Some(Arc::new(|path, _| *path == rel("b/deep/x")));
        },
    );
    let root = watched.root.clone();
    fs::write(root.join("a/deep/x/y/file"), "1").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["a/deep/x/y/file"]);
    fs::rename(root.join("a"), root.join("b")).unwrap();
    watched.all_until_now();
    fs::write(root.join("b/deep/x/y/file"), "22").unwrap();
    assert_eq!(watched.all_until_now(), []);
    fs::rename(root.join("b"), root.join("c")).unwrap();
    watched.all_until_now();
    fs::write(root.join("c/deep/x/y/file"), "333").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["c/deep/x/y/file"]);
}

fn a_file_moved_over_another_is_reported(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| {
        fs::write(root.join("a"), "a").unwrap();
        fs::write(root.join("b"), "b").unwrap();
    });
    fs::rename(watched.root.join("a"), watched.root.join("b")).unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["a", "b"]);
}
