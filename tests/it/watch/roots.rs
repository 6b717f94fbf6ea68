//! A root that is lost and returns, and file systems that are mounted and unmounted below it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use sersync::change::{RootId, RootLoss, WatchEvent};
use sersync::config::WatchBackend;
use sersync::watch::{WatchError, Watcher};

use super::both_backends;
use super::support::*;

both_backends! {
    a_renamed_root_is_lost_until_it_is_back
    a_deleted_root_is_lost_and_a_new_one_is_another
    a_root_that_is_exchanged_is_another_each_time
    a_renamed_directory_above_the_root_is_noticed
    a_root_that_is_a_symbolic_link_is_followed_and_its_new_target_is_another
    an_unmounted_root_is_lost_although_its_mount_point_is_there
    a_file_system_unmounted_below_the_root_is_a_lost_subtree
    a_file_system_mounted_below_the_root_is_watched
    a_bind_mount_is_reported_at_both_places
    a_root_that_is_a_part_of_a_file_system_mounted_elsewhere_is_watched
    a_directory_above_a_mount_point_is_renamed
    a_root_that_is_elsewhere_for_a_moment_loses_nothing
    several_roots_are_told_apart_even_one_in_another
    a_root_that_is_missing_at_start_is_an_error
}

/// A directory above the root, so that the root can be moved.
struct Held {
    watched: Watched,
    root: PathBuf,
    aside: PathBuf,
    _dir: tempfile::TempDir,
}

fn held(backend: WatchBackend) -> Held {
    let (dir, above) = temp_dir();
    let root = above.join("above/root");
    fs::create_dir_all(root.join("sub")).unwrap();
    let watched = Watched::start(options(&root, backend));
    Held { watched, root, aside: above.join("aside"), _dir: dir }
}

impl Held {
    fn is_lost(&mut self, part_of_reason: &str) {
        let news = self.watched.next_news();
        let WatchEvent::RootLost { loss, .. } = &news else { panic!("{news:?}") };
        let reason = match loss {
            RootLoss::Gone(reason) => reason,
            RootLoss::Replaced => "replaced",
        };
        assert!(reason.contains(part_of_reason), "{reason} instead of {part_of_reason}");
    }

    fn is_back(&mut self, wanted: bool) {
        let replaced = wanted;
        assert_eq!(self.watched.next_news(), WatchEvent::RootBack { root: ROOT, replaced });
        assert!(matches!(self.watched.next_news(), WatchEvent::Ready { .. }));
        self.watched.every_directory_is_watched();
    }

    /// Nothing at all is reported.
    fn is_silent(&mut self) {
        let silence = self.watched.events.recv_timeout(Duration::from_millis(100));
        assert_eq!(silence, Err(RecvTimeoutError::Timeout));
    }
}

fn a_renamed_root_is_lost_until_it_is_back(backend: WatchBackend) {
    let mut held = held(backend);
    fs::rename(&held.root, &held.aside).unwrap();
    held.is_lost("deleted or renamed");
    fs::remove_dir(held.aside.join("sub")).unwrap();
    fs::write(held.aside.join("file"), "x").unwrap();
    held.is_silent();
    fs::rename(&held.aside, &held.root).unwrap();
    held.is_back(false);
}

fn a_deleted_root_is_lost_and_a_new_one_is_another(backend: WatchBackend) {
    let mut held = held(backend);
    fs::remove_dir_all(held.root.parent().unwrap()).unwrap();
    held.is_lost("deleted or renamed");
    fs::create_dir_all(held.root.join("new")).unwrap();
    held.is_back(true);
}

fn a_root_that_is_exchanged_is_another_each_time(backend: WatchBackend) {
    let mut held = held(backend);
    fs::create_dir_all(&held.aside).unwrap();
    let flag = rustix::fs::RenameFlags::EXCHANGE;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, &held.root, cwd, &held.aside, flag).unwrap();
    held.is_lost("replaced");
    held.is_back(true);
    rustix::fs::renameat_with(cwd, &held.root, cwd, &held.aside, flag).unwrap();
    held.is_lost("replaced");
    held.is_back(true);
}

fn a_renamed_directory_above_the_root_is_noticed(backend: WatchBackend) {
    let mut held = held(backend);
    let above = held.root.parent().unwrap().to_path_buf();
    fs::rename(&above, &held.aside).unwrap();
    held.is_lost("deleted or renamed");
    fs::create_dir(&above).unwrap();
    held.is_silent();
    fs::rename(held.aside.join("root"), &held.root).unwrap();
    held.is_back(false);
}

fn a_root_that_is_a_symbolic_link_is_followed_and_its_new_target_is_another(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    for target in ["one/sub", "two/sub"] {
        fs::create_dir_all(above.join(target)).unwrap();
    }
    let link = above.join("link");
    symlink("one", &link).unwrap();
    let mut watched = Watched::start(options(&link, backend));
    watched.every_directory_is_watched();
    symlink(above.join("two"), above.join("new")).unwrap();
    fs::rename(above.join("new"), &link).unwrap();
    assert!(matches!(watched.next_news(), WatchEvent::RootLost { .. }));
    assert_eq!(watched.next_news(), WatchEvent::RootBack { root: ROOT, replaced: true });
    assert!(matches!(watched.next_news(), WatchEvent::Ready { .. }));
    watched.every_directory_is_watched();
    fs::write(above.join("one/sub/file"), "x").unwrap();
    assert_eq!(watched.all_until_now(), []);
}

/// A mount that is unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: &Path) -> Self {
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(path.to_path_buf())
    }

    fn bind(what: &Path, path: &Path) -> Self {
        mount_bind(what, path).unwrap();
        Self(path.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn an_unmounted_root_is_lost_although_its_mount_point_is_there(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    let point = above.join("point");
    fs::create_dir(&point).unwrap();
    let tmpfs = Mounted::on(&point);
    fs::create_dir_all(point.join("root/sub")).unwrap();
    fs::create_dir_all(point.join("root/sub")).unwrap();
    let watched = Watched::start(options(&point, backend));
    let mut held = Held { watched, root: point.clone(), aside: above, _dir };
    drop(tmpfs);
    held.is_lost("unmounted");
    fs::write(point.join("underneath"), "x").unwrap();
    held.is_silent();
    let tmpfs = Mounted::on(&point);
    fs::create_dir(point.join("new")).unwrap();
    held.is_back(true);
    drop((held, tmpfs));
}

fn a_file_system_unmounted_below_the_root_is_a_lost_subtree(backend: WatchBackend) {
    let (_dir, root) = temp_dir();
    let point = root.join("a/point");
    fs::create_dir_all(&point).unwrap();
    let tmpfs = Mounted::on(&point);
    fs::create_dir_all(point.join("sub/deep")).unwrap();
    let mut watched = Watched::start(options(&root, backend));
    watched.every_directory_is_watched();
    drop(tmpfs);
    match watched.next_news() {
        WatchEvent::SubtreeLost { path, .. } => assert_eq!(path, rel("a/point")),
        other => panic!("{other:?}"),
    }
    fs::write(point.join("underneath"), "x").unwrap();
    fs::remove_file(point.join("underneath")).unwrap();
    assert_eq!(watched.all_until_now(), []);
    let tmpfs = Mounted::on(&point);
    let back = WatchEvent::SubtreeBack { root: ROOT, path: rel("a/point") };
    assert_eq!(watched.next_news(), back);
    fs::create_dir_all(point.join("sub/deep")).unwrap();
    watched.until_path("a/point/sub/deep");
    watched.every_directory_is_watched();
    drop((watched, tmpfs));
}

fn a_file_system_mounted_below_the_root_is_watched(backend: WatchBackend) {
    let (_other, outside) = temp_dir();
    fs::create_dir_all(outside.join("sub/deep")).unwrap();
    let mut watched = Watched::new(backend, |root| fs::create_dir(root.join("point")).unwrap());
    let point = watched.root.join("point");
    let tmpfs = Mounted::bind(&outside, &point);
    watched.until_path("point/sub/deep");
    watched.every_directory_is_watched();
    drop(tmpfs);
    assert!(matches!(watched.next_news(), WatchEvent::SubtreeLost { .. }));
}

fn a_bind_mount_is_reported_at_both_places(backend: WatchBackend) {
    let (_dir, root) = temp_dir();
    for dir in ["real/sub", "again"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let bind = Mounted::bind(&root.join("real"), &root.join("again"));
    let mut watched = Watched::start(options(&root, backend));
    fs::write(root.join("real/sub/file"), "x").unwrap();
    let both = ["again/sub/file", "real/sub/file"];
    assert_eq!(paths(&watched.all_until_now()), both);
    fs::create_dir(root.join("again/new")).unwrap();
    fs::write(root.join("again/new/file"), "x").unwrap();
    watched.until_path("again/new/file");
    watched.until_path("real/new/file");
    fs::rename(root.join("real/sub"), root.join("real/renamed")).unwrap();
    watched.all_until_now();
    fs::write(root.join("again/renamed/file"), "y").unwrap();
    let both = ["again/renamed/file", "real/renamed/file"];
    assert_eq!(paths(&watched.all_until_now()), both);
    drop((watched, bind));
}

fn a_root_that_is_a_part_of_a_file_system_mounted_elsewhere_is_watched(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    for dir in ["whole/part/sub", "whole/beside", "point"] {
        fs::create_dir_all(above.join(dir)).unwrap();
    }
    let (whole, point) = (above.join("whole"), above.join("point"));
    let bind = Mounted::bind(&whole.join("part"), &point);
    let mut watched = Watched::start(options(&point, backend));
    fs::write(whole.join("beside/file"), "x").unwrap();
    fs::write(whole.join("part/sub/file"), "x").unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["sub/file"]);
    fs::rename(whole.join("beside"), whole.join("part/beside")).unwrap();
    assert_eq!(paths(&watched.all_until_now()), ["beside"]);
    watched.every_directory_is_watched();
    drop((watched, bind));
}

fn a_directory_above_a_mount_point_is_renamed(backend: WatchBackend) {
    let (_dir, root) = temp_dir();
    let (_other, outside) = temp_dir();
    fs::create_dir_all(root.join("a/b/point")).unwrap();
    let mut tmpfs = Mounted::on(&root.join("a/b/point"));
    fs::create_dir(root.join("a/b/point/sub")).unwrap();
    let mut watched = Watched::start(options(&root, backend));
    fs::rename(root.join("a"), root.join("z")).unwrap();
    tmpfs.0 = root.join("z/b/point");
    watched.until_path("z/b/point/sub");
    watched.every_directory_is_watched();
    // The mounts are checked: the mount below the new name is the one that was below the old name.
    drop(Mounted::on(&outside));
    watched.every_directory_is_watched();
    drop((watched, tmpfs));
}

fn a_root_that_is_elsewhere_for_a_moment_loses_nothing(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    let (root, aside) = (above.join("above/root"), above.join("aside"));
    fs::create_dir_all(root.join("sub")).unwrap();
    let gates: [Gate; 3] = Default::default();
    let mut options = options(&root, backend);
    let closed = gates.clone();
    options.exclude = Some(Arc::new(move |path, _| {
        // `gate` stops the reader at its first look at each of these names, so that events collect and are read together.
        let which = ["first/gate", "second/gate", "third/gate"];
        if let Some(at) = which.iter().position(|gate| *path == rel(gate)) {
            closed[at].wait_at(path);
        }
        false
    }));
    for dir in ["first", "second", "third"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    let mut watched = Watched::start(options);
    fs::write(root.join("third/file"), "x").unwrap();
    watched.until_path("third/file");
    fs::write(root.join("first/gate"), "x").unwrap();
    gates[0].is_reached();
    fs::write(root.join("second/gate"), "x").unwrap();
    fs::create_dir(root.join("sub/new")).unwrap();
    fs::write(root.join("third/gate"), "x").unwrap();
    gates[0].open();
    gates[1].is_reached();
    fs::rename(&root, &aside).unwrap();
    gates[1].open();
    gates[2].is_reached();
    fs::rename(&aside, &root).unwrap();
    gates[2].open();
    watched.until_path("sub/new");
    watched.until_path("");
    watched.every_directory_is_watched();
}

fn several_roots_are_told_apart_even_one_in_another(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    let (outer, inner) = (above.join("outer"), above.join("outer/inner"));
    fs::create_dir_all(inner.join("sub")).unwrap();
    let mut options = options(&outer, backend);
    options.roots.push((RootId(1), inner.clone()));
    let watched = Watched::start(options);
    fs::write(inner.join("sub/file"), "x").unwrap();
    let mut wanted = vec![(ROOT, rel("inner/sub/file")), (RootId(1), rel("sub/file"))];
    while !wanted.is_empty() {
        match watched.next() {
            WatchEvent::Changed { root, changes, .. } => {
                wanted.retain(|w| !changes.iter().any(|c| *w == (root, c.path.clone())));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_root_that_is_missing_at_start_is_an_error(backend: WatchBackend) {
    let (_dir, above) = temp_dir();
    let (sender, _events) = crossbeam_channel::unbounded();
    let missing = options(&above.join("missing"), backend);
    let error = Watcher::start::<WatchEvent>(missing, sender).err().unwrap();
    assert!(matches!(&error, WatchError::Root { path, .. } if path.ends_with("missing")));
    assert!(error.to_string().contains("create the directory"), "{error}");
}
