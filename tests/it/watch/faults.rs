//! Exhausted resources and unreadable directories: they are reported once and compared periodically.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use sersync::change::{Cause, Change, RootLoss};
use sersync::config::WatchBackend::{Auto, Fanotify, Inotify};

use super::support::*;
use crate::support::run_alone;

fn unwatched(watched: &Watched) -> usize {
    watched.watcher.status().unwatched.load(Ordering::Relaxed)
}

/// Runs one of the tests below that need a process of their own, in a user namespace of its own.
#[expect(clippy::disallowed_methods, reason = "the test runs itself in a namespace")]
fn run_in_namespace(test: &str) {
    let may = std::process::Command::new("unshare").args(["-U", "-r", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        crate::support::skipped("user namespaces are not allowed here");
        return;
    }
    run_alone(&format!("watch::faults::{test}"), &["unshare", "-U", "-r"]);
}

#[test]
fn what_cannot_be_watched_for_want_of_watches_is_compared_instead() {
    run_in_namespace("with_few_watches");
}

#[test]
#[ignore = "changes the limits of its namespace; run by the test above"]
fn with_few_watches() {
    let limit = Path::new("/proc/sys/user/max_inotify_watches");
    fs::write(limit, "60").unwrap();
    let dirs: Vec<_> = (0..100).map(|n| format!("d{n}/sub")).collect();
    let mut watched = Watched::with(
        Inotify,
        |root| dirs.iter().for_each(|dir| fs::create_dir_all(root.join(dir)).unwrap()),
        |options| options.rescan_interval = Duration::from_millis(300),
    );
    assert!(unwatched(&watched) > 20);
    for dir in &dirs {
        fs::write(watched.root.join(dir).join("file"), "x").unwrap();
    }
    for dir in &dirs {
        watched.until_path(&format!("{dir}/file"));
    }
    fs::write(limit, "1000").unwrap();
    let deadline = now() + LIMIT;
    while unwatched(&watched) > 0 && now() < deadline {
        watched.changes.clear();
        watched.until("a comparison", |changes| !changes.is_empty());
    }
    watched.every_directory_is_watched();
}

#[test]
fn a_shortage_of_files_loses_neither_root_nor_directory() {
    run_in_namespace("with_few_files");
}

#[test]
#[ignore = "uses up the files of its process; run by the test above"]
fn with_few_files() {
    let mut watched = Watched::with(
        Inotify,
        |_| {},
        |options| options.rescan_interval = Duration::from_millis(300),
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    fs::create_dir_all(watched.root.join("a/b/c")).unwrap();
    // A change of its mode triggers a check of the root.
    fs::set_permissions(&watched.root, PermissionsExt::from_mode(0o750)).unwrap();
    watched.until_path("a/b/c");
    drop(held);
    let deadline = now() + LIMIT;
    while unwatched(&watched) > 0 && now() < deadline {
        watched.changes.clear();
        watched.until("a comparison", |changes| !changes.is_empty());
    }
    watched.every_directory_is_watched();
}

#[test]
fn a_shortage_of_files_hides_no_directory_from_fanotify() {
    if !may_use_fanotify() {
        crate::support::skipped("fanotify needs root");
        return;
    }
    run_alone("watch::faults::with_few_files_for_fanotify", &["env"]);
}

#[test]
#[ignore = "uses up the files of its process; run by the test above"]
fn with_few_files_for_fanotify() {
    let mut watched = Watched::with(
        Fanotify,
        |root| fs::create_dir(root.join("dir")).unwrap(),
        |options| options.rescan_interval = Duration::from_millis(300),
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut held = Vec::new();
    let deadline = now() + LIMIT;
    // A thread of the watch may have used a descriptor meanwhile, and left it free: then one more is used up.
    while unwatched(&watched) == 0 && now() < deadline {
        while let Ok(file) = fs::File::open("/dev/null") {
            held.push(file);
        }
        // Links need no descriptor, but the directory cannot be looked up.
        let name = format!("dir/during{}", held.len());
        std::os::unix::fs::symlink("x", watched.root.join(&name)).unwrap();
        watched.until_path(&name);
    }
    assert_eq!(unwatched(&watched), 1);
    drop(held);
    let deadline = now() + LIMIT;
    while unwatched(&watched) > 0 && now() < deadline {
        watched.changes.clear();
        watched.until("a comparison", |changes| !changes.is_empty());
    }
    watched.changes.clear();
    std::os::unix::fs::symlink("x", watched.root.join("dir/after")).unwrap();
    watched
        .until("the change itself", |changes| changes.iter().any(|c| c.path == rel("dir/after")));
    watched.every_directory_is_watched();
}

/// Removes root's right to read everything from this thread and those that it starts.
fn drop_root_rights() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).unwrap();
}

#[test]
fn an_unreadable_directory_is_kept_and_watched_when_it_is_readable() {
    drop_root_rights();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let mut watched = Watched::new(Inotify, |root| {
        fs::create_dir_all(root.join("closed/sub")).unwrap();
        mode(&root.join("closed"), 0o000);
    });
    assert_eq!(unwatched(&watched), 1);
    mode(&watched.root.join("closed"), 0o755);
    watched.until_path("closed/sub");
    watched.every_directory_is_watched();
    assert_eq!(unwatched(&watched), 0);
}

#[test]
fn an_unreadable_root_is_lost_until_it_is_readable() {
    use sersync::change::WatchEvent::{Ready, RootBack, RootLost};
    drop_root_rights();
    let mut watched = Watched::new(Inotify, |root| fs::create_dir(root.join("sub")).unwrap());
    let mode = |watched: &Watched, mode| {
        fs::set_permissions(&watched.root, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(&watched, 0o000);
    match watched.next_news() {
        RootLost { loss: RootLoss::Gone(reason), .. } => {
            assert!(reason.contains("not be read"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    mode(&watched, 0o755);
    assert_eq!(watched.next_news(), RootBack { root: ROOT, replaced: false });
    assert!(matches!(watched.next_news(), Ready { .. }));
    watched.every_directory_is_watched();
}

fn may_use_fanotify() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_READ_SEARCH;
    let of_first_user = fs::read_to_string("/proc/self/uid_map").unwrap();
    let of_first_user = of_first_user.split_whitespace().eq(["0", "0", "4294967295"]);
    of_first_user && capabilities(None).unwrap().effective.contains(needed)
}

#[test]
fn fanotify_is_used_where_it_is_possible_and_by_itself_for_a_large_tree() {
    if !may_use_fanotify() {
        crate::support::skipped("fanotify needs root");
        return;
    }
    assert_eq!(Watched::new(Fanotify, |_| {}).watcher.backend(), "fanotify");
    assert_eq!(Watched::new(Auto, |_| {}).watcher.backend(), "inotify");
    let large = |root: &Path| {
        for n in 0..5_100 {
            fs::create_dir_all(root.join(format!("d{}/s{n}", n / 100))).unwrap();
        }
    };
    assert_eq!(Watched::new(Auto, large).watcher.backend(), "fanotify");
    assert_eq!(Watched::new(Inotify, large).watcher.backend(), "inotify");
}

#[test]
fn the_kernel_keeps_the_noise_of_others_to_itself_until_their_directory_is_ours() {
    let (_other, outside) = temp_dir();
    let noisy = outside.join("noisy/below");
    fs::create_dir_all(&noisy).unwrap();
    let mut watched = Watched::new(Fanotify, |_| {});
    if watched.watcher.backend() != "fanotify" {
        crate::support::skipped("fanotify needs root");
        return;
    }
    let kernel = rustix::system::uname();
    let major = kernel.release().to_string_lossy().split('.').next().unwrap().to_owned();
    let knows_how = major.parse::<u32>().unwrap() >= 6;
    for round in 0..100 {
        fs::write(noisy.join("file"), "x").unwrap();
        assert_eq!(watched.all_until_now(), []);
        if is_ignored_by_someone(&noisy) {
            break;
        }
        assert!(round < 99 || !knows_how, "every event wakes us");
    }
    fs::rename(outside.join("noisy"), watched.root.join("ours")).unwrap();
    assert_eq!(watched.all_until_now(), [Change::tree(rel("ours"), Cause::MovedTo)]);
    fs::write(watched.root.join("ours/below/file"), "y").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["ours/below/file"]);
}

/// True when a fanotify group of this process ignores the directory.
fn is_ignored_by_someone(dir: &Path) -> bool {
    let mark = format!("fanotify ino:{:x} ", fs::metadata(dir).unwrap().ino());
    let files = fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    infos
        .collect::<String>()
        .lines()
        .any(|line| line.starts_with(&mark) && !line.contains("ignored_mask:0 "))
}

#[test]
fn fanotify_gives_way_to_inotify_where_it_is_not_permitted() {
    run_in_namespace("without_fanotify");
}

#[test]
#[ignore = "needs a namespace without rights; run by the test above"]
fn without_fanotify() {
    let mut watched = Watched::new(Fanotify, |root| fs::create_dir(root.join("sub")).unwrap());
    assert_eq!(watched.watcher.backend(), "inotify");
    watched.every_directory_is_watched();
}

#[test]
fn a_file_system_that_cannot_be_marked_is_compared_instead() {
    if !may_use_fanotify() {
        crate::support::skipped("fanotify needs root");
        return;
    }
    let mut watched = Watched::with(
        Fanotify,
        |root| fs::create_dir(root.join("point")).unwrap(),
        |options| options.rescan_interval = Duration::from_millis(300),
    );
    let point = watched.root.join("point");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("proc", &point, "proc", flags, None).unwrap();
    for _ in 0..3 {
        watched.changes.clear();
        watched.until("a comparison", |changes| {
            changes.iter().any(|change| covers(change, &rel("point")))
        });
    }
    assert_eq!(unwatched(&watched), 1);
    fs::write(watched.root.join("beside"), "x").unwrap();
    watched.until_path("beside");
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
}
