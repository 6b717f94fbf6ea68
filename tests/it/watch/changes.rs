//! What is reported when files and directories are created, written and deleted.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, openat};
use sersync::change::{Cause, Change, Scope};
use sersync::config::WatchBackend;
use sersync::path::RelPath;

use super::both_backends;
use super::support::*;

both_backends! {
    a_file_written_is_reported_once
    file_in_a_directory_made_a_moment_ago_arrives
    what_was_there_at_start_is_watched_and_not_reported
    links_fifos_and_linked_temporary_files_are_reported_although_nothing_is_written
    an_empty_new_file_counts_only_with_create_file_on
    what_is_switched_off_is_not_reported_but_watched
    a_deleted_directory_is_a_subtree_that_may_differ
    a_changed_mode_is_reported_with_attrib_on
    a_mode_that_follows_the_content_is_reported_with_attrib_off
    a_file_truncated_by_its_path_is_reported_with_modify_off
    a_file_held_open_is_reported_when_it_is_closed
    writes_that_follow_each_other_are_one_change
    excluded_directories_and_files_are_not_reported
    any_byte_may_stand_in_a_name
    a_path_longer_than_4096_bytes_is_watched
    a_symbolic_link_to_a_directory_is_not_followed
    a_file_that_is_closed_after_its_directory_was_deleted_is_nobodys_business
    what_others_do_beside_the_root_is_not_reported_and_becomes_ours_with_a_move
}

fn a_file_written_is_reported_once(backend: WatchBackend) {
    // Use an existing file: a new one may be seen before its close, and is then also reported as created (`src/watch/inotify.rs`).
    let mut watched = Watched::new(backend, |root| fs::write(root.join("a"), "old").unwrap());
    fs::write(watched.root.join("a"), "text").unwrap();
    assert_eq!(watched.all_until_now(), [Change::entry(rel("a"), Cause::CloseWrite)]);
}

fn file_in_a_directory_made_a_moment_ago_arrives(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |_| {});
    for round in 0..100 {
        let mut dir = watched.root.join(format!("r{round}"));
        let mut path = format!("r{round}");
        let mut files = Vec::new();
        for level in ["a", "b", "c", "d", "e"] {
            dir = dir.join(level);
            path = format!("{path}/{level}");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), "x").unwrap();
            files.push(format!("{path}/file"));
        }
        for file in files {
            watched.until_path(&file);
        }
    }
    watched.every_directory_is_watched();
}

fn what_was_there_at_start_is_watched_and_not_reported(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| {
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::write(root.join("a/b/old"), "x").unwrap();
    });
    if backend == WatchBackend::Inotify {
        assert_eq!(watched.directories, 4);
    }
    fs::write(watched.root.join("a/b/c/new"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["a/b/c/new"]);
}

fn links_fifos_and_linked_temporary_files_are_reported_although_nothing_is_written(
    backend: WatchBackend,
) {
    let mut watched = Watched::new(backend, |root| fs::write(root.join("file"), "x").unwrap());
    let root = watched.root.clone();
    symlink("nowhere", root.join("symlink")).unwrap();
    fs::hard_link(root.join("file"), root.join("hardlink")).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let unnamed = openat(CWD, &root, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).unwrap();
    rustix::io::write(&unnamed, b"text").unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unnamed));
    linkat(CWD, link, CWD, root.join("linked"), AtFlags::SYMLINK_FOLLOW).unwrap();
    let all = watched.all_until_now();
    assert_eq!(paths(&all), ["fifo", "hardlink", "linked", "symlink"]);
}

fn an_empty_new_file_counts_only_with_create_file_on(backend: WatchBackend) {
    for create_file in [false, true] {
        let mut watched = Watched::with(
            backend,
            |_| {},
            |options| {
                options.switches.close_write = false;
                options.switches.modify = true;
                options.switches.create_file = create_file;
            },
        );
        fs::write(watched.root.join("empty"), "").unwrap();
        fs::write(watched.root.join("full"), "x").unwrap();
        let mut wanted = vec!["full"];
        if create_file {
            wanted.insert(0, "empty");
        }
        assert_eq!(paths(&watched.all_until_now()), wanted);
    }
}

fn what_is_switched_off_is_not_reported_but_watched(backend: WatchBackend) {
    let mut watched = Watched::with(
        backend,
        |root| {
            fs::create_dir_all(root.join("moved/sub")).unwrap();
            fs::write(root.join("old"), "x").unwrap();
        },
        |options| {
            options.switches.create_folder = false;
            options.switches.move_from = false;
            options.switches.move_to = false;
        },
    );
    let root = watched.root.clone();
    fs::create_dir(root.join("made")).unwrap();
    fs::rename(root.join("moved"), root.join("new")).unwrap();
    fs::rename(root.join("old"), root.join("older")).unwrap();
    assert_eq!(paths(&watched.all_until_now()), Vec::<String>::new());
    fs::write(root.join("made/file"), "x").unwrap();
    fs::write(root.join("new/sub/file"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["made/file", "new/sub/file"]);
}

fn a_deleted_directory_is_a_subtree_that_may_differ(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| fs::create_dir_all(root.join("a/b")).unwrap());
    fs::remove_dir_all(watched.root.join("a")).unwrap();
    let all = watched.all_until_now();
    assert!(all.contains(&Change::tree(rel("a"), Cause::Delete)), "{all:?}");
    fs::create_dir_all(watched.root.join("a/b")).unwrap();
    watched.every_directory_is_watched();
}

fn a_changed_mode_is_reported_with_attrib_on(backend: WatchBackend) {
    let prepare = |root: &std::path::Path| fs::create_dir(root.join("dir")).unwrap();
    for attrib in [false, true] {
        let mut watched =
            Watched::with(backend, prepare, |options| options.switches.attrib = attrib);
        let mode = |path: &str, mode| {
            let path = watched.root.join(path);
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        mode("dir", 0o711);
        mode("", 0o751);
        let all = watched.all_until_now();
        assert_eq!(paths(&all), if attrib { vec!["./", "dir"] } else { vec![] });
        assert!(all.iter().all(|change| change.is_dir && change.scope == Scope::Entry));
    }
}

fn a_mode_that_follows_the_content_is_reported_with_attrib_off(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| fs::write(root.join("old"), "x").unwrap());
    let root = watched.root.clone();
    fs::write(root.join("file"), "x").unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    watched.all_until_now();
    for name in ["old", "file", "dir"] {
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o700)).unwrap();
    }
    let attrib = |name, is_dir| Change { is_dir, ..Change::entry(rel(name), Cause::Attrib) };
    assert_eq!(watched.all_until_now(), [attrib("file", false), attrib("dir", true)]);
}

fn a_file_truncated_by_its_path_is_reported_with_modify_off(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| fs::write(root.join("old"), "text").unwrap());
    let program = "truncate('old', 1) or die";
    let mut perl = std::process::Command::new("perl");
    assert!(perl.args(["-e", program]).current_dir(&watched.root).status().unwrap().success());
    watched.until_path("old");
    assert_eq!(watched.changes, [Change::entry(rel("old"), Cause::Modify)]);
}

fn a_file_held_open_is_reported_when_it_is_closed(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |root| fs::write(root.join("log"), "text").unwrap());
    let mut log = fs::File::options().append(true).open(watched.root.join("log")).unwrap();
    std::io::Write::write_all(&mut log, b"more").unwrap();
    // The barrier checks every modified file.
    watched.watcher.barrier().ask();
    assert_eq!(watched.next_news(), sersync::change::WatchEvent::BarrierReached);
    assert_eq!(watched.changes, []);
    drop(log);
    watched.until_path("log");
    assert_eq!(watched.changes, [Change::entry(rel("log"), Cause::CloseWrite)]);
}

fn writes_that_follow_each_other_are_one_change(backend: WatchBackend) {
    let gate = Gate::default();
    let closed = gate.clone();
    let mut watched = Watched::with(
        backend,
        |_| {},
        |options| {
            options.exclude = Some(Arc::new(move |path, _| {
                closed.wait_at(path);
                false
            }));
        },
    );
    fs::write(watched.root.join("gate"), "x").unwrap();
    for _ in 0..500 {
        fs::write(watched.root.join("a"), "x").unwrap();
    }
    gate.open();
    let all = watched.all_until_now();
    let count = all.iter().filter(|change| change.path == rel("a")).count();
    assert!((1..=3).contains(&count), "{count} changes");
}

fn excluded_directories_and_files_are_not_reported(backend: WatchBackend) {
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("a/cache/deep")).unwrap(),
        |options| {
            options.exclude = Some(Arc::new(|path, is_dir| {
                path.name() == Some(if is_dir { b"cache" } else { b"tmp" })
            }));
        },
    );
    let root = watched.root.clone();
    for dir in ["a/cache", "a/cache/deep", "b/cache"] {
        fs::create_dir_all(root.join(dir)).unwrap();
        fs::write(root.join(dir).join("file"), "x").unwrap();
    }
    fs::write(root.join("b/tmp"), "x").unwrap();
    fs::write(root.join("b/kept"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["b", "b/kept"]);
}

fn any_byte_may_stand_in_a_name(backend: WatchBackend) {
    let mut watched = Watched::new(backend, |_| {});
    let mut names: Vec<Vec<u8>> =
        (1..=255u8).filter(|b| *b != b'/').map(|b| vec![b'x', b]).collect();
    names.push(vec![b'n'; 255]);
    names.push(b" (deleted)".to_vec());
    names.push(b"$(touch x); `x` \"'\\\n#".to_vec());
    for name in &names {
        let dir = watched.root.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    let all = watched.all_until_now();
    for name in &names {
        let file = RelPath::root().join(name).unwrap().join(name).unwrap();
        assert!(all.iter().any(|change| change.path == file), "{file}");
    }
    watched.every_directory_is_watched();
}

fn a_path_longer_than_4096_bytes_is_watched(backend: WatchBackend) {
    let name = "d".repeat(200);
    let descend = |from: &std::path::Path, levels: usize| {
        let mut at = openat(CWD, from, OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..levels {
            // It may exist from an earlier run of this test.
            let _ = rustix::fs::mkdirat(&at, &name, Mode::RWXU);
            at = openat(&at, &name, OFlags::PATH, Mode::empty()).unwrap();
        }
        at
    };
    let mut watched = Watched::new(backend, |root| drop(descend(root, 15)));
    let deep = descend(&watched.root, 30);
    let deepest = rel(&vec![name.as_str(); 30].join("/"));
    watched.until("deepest directory", |changes| changes.iter().any(|c| covers(c, &deepest)));
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(&deep, "file", flags, Mode::RUSR).unwrap());
    let file = deepest.join(b"file").unwrap();
    assert!(file.as_bytes().len() > 4096);
    watched.until("file", |changes| changes.iter().any(|c| covers(c, &file)));
}

fn a_symbolic_link_to_a_directory_is_not_followed(backend: WatchBackend) {
    let (_other, outside) = temp_dir();
    let mut watched = Watched::new(backend, |root| {
        symlink(&outside, root.join("link")).unwrap();
        symlink(root, root.join("loop")).unwrap();
    });
    symlink(&outside, watched.root.join("later")).unwrap();
    fs::create_dir(outside.join("sub")).unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["later"]);
}

fn a_file_that_is_closed_after_its_directory_was_deleted_is_nobodys_business(
    backend: WatchBackend,
) {
    let mut watched = Watched::new(backend, |root| fs::create_dir_all(root.join("a/b")).unwrap());
    let dir = fs::File::open(watched.root.join("a/b")).unwrap();
    let mut file = fs::File::create(watched.root.join("a/b/file")).unwrap();
    watched.all_until_now();
    fs::remove_dir_all(watched.root.join("a")).unwrap();
    std::io::Write::write_all(&mut file, b"late").unwrap();
    drop((file, dir));
    let all = watched.all_until_now();
    assert!(all.contains(&Change::tree(rel("a"), Cause::Delete)), "{all:?}");
    assert!(all.iter().all(|change| change.path.is_within(&rel("a"))), "{all:?}");
    fs::create_dir_all(watched.root.join("a/b")).unwrap();
    watched.every_directory_is_watched();
}

fn what_others_do_beside_the_root_is_not_reported_and_becomes_ours_with_a_move(
    backend: WatchBackend,
) {
    let (_other, outside) = temp_dir();
    let mut watched = Watched::new(backend, |_| {});
    for round in 0..30 {
        let dir = outside.join(format!("d{round}/below"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..20 {
            fs::write(dir.join(format!("{file}")), "x").unwrap();
        }
        if round % 10 < 9 {
            continue;
        }
        assert_eq!(watched.all_until_now(), []);
        let (there, here) = (outside.join(format!("d{round}")), watched.root.join("here"));
        fs::rename(&there, &here).unwrap();
        assert_eq!(watched.all_until_now(), [Change::tree(rel("here"), Cause::MovedTo)]);
        for file in 0..20 {
            fs::write(here.join(format!("below/{file}")), "y").unwrap();
        }
        assert_eq!(paths(&watched.all_until_now()).len(), 20);
        fs::rename(&here, &there).unwrap();
        assert_eq!(watched.all_until_now(), [Change::tree(rel("here"), Cause::MovedFrom)]);
        fs::write(there.join("below/0"), "z").unwrap();
        assert_eq!(watched.all_until_now(), []);
    }
}
