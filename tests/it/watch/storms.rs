//! Many changes at once, lost events and a failing reader: a copy made only from the reports becomes equal.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::RecvTimeoutError;
use sersync::change::WatchEvent;
use sersync::config::WatchBackend;
use sersync::ground::limits::Limit;
use sersync::watch::Watcher;

use super::both_backends;
use super::support::*;

both_backends! {
    a_copy_that_follows_the_reports_of_random_operations_ends_up_equal
    directories_made_while_events_were_lost_are_watched
    a_reader_that_fails_starts_again_and_says_that_anything_may_differ
    a_tree_500_levels_deep_is_watched
    dropping_the_watcher_ends_its_thread_even_when_nobody_receives
    excluded_mounts_are_nobodys_business
}

/// A small random number generator with a seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Few names and levels, so that operations often affect the same paths.
    fn path(&mut self, root: &Path) -> PathBuf {
        let levels = 1 + self.below(4);
        (0..levels)
            .fold(root.to_path_buf(), |path, _| path.join(["a", "b", "c", "d"][self.below(4)]))
    }

    /// One operation; most fail because something is missing or in the way.
    fn operate(&mut self, root: &Path, outside: &Path) {
        let (one, two) = (self.path(root), self.path(root));
        let away = outside.join(["x", "y"][self.below(2)]);
        let _ = match self.below(16) {
            0..=2 => fs::create_dir_all(&one),
            3..=4 => fs::write(&one, format!("{}", self.0)),
            5..=7 => fs::rename(&one, &two),
            8 => fs::remove_dir_all(&one),
            9 => fs::remove_file(&one),
            10 => std::os::unix::fs::symlink("a", &one),
            11 => fs::hard_link(&one, &two),
            12 => fs::rename(&one, &away),
            13 => fs::rename(&away, &one),
            14 => {
                let flag = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &one, cwd, &two, flag).map_err(Into::into)
            }
            _ => fs::create_dir(&one).and_then(|()| fs::write(one.join("a"), "new")),
        };
    }
}

fn a_copy_that_follows_the_reports_of_random_operations_ends_up_equal(backend: WatchBackend) {
    for seed in 1..=seeds() {
        println!("seed {seed}");
        let (_other, outside) = temp_dir();
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut watched = Watched::new(backend, |root| {
            (0..30).for_each(|_| random.operate(root, &outside));
        });
        let root = watched.root.clone();
        let mut copy = Snapshot::of(&root);
        for _ in 0..1_000 {
            random.operate(&root, &outside);
            for event in watched.events.try_iter() {
                deliver(&mut copy, &root, event);
            }
        }
        let deadline = now() + LIMIT;
        let quiet = std::time::Duration::from_millis(100);
        while copy != Snapshot::of(&root) {
            match watched.events.recv_timeout(quiet) {
                Ok(event) => deliver(&mut copy, &root, event),
                Err(RecvTimeoutError::Timeout) if now() < deadline => {}
                Err(_) => {
                    let differences = copy.differences(&Snapshot::of(&root));
                    panic!("seed {seed}: the copy / the disk: {differences:#?}");
                }
            }
        }
        watched.every_directory_is_watched();
    }
}

/// How many storms to try; more of them in a soak run.
fn seeds() -> u64 {
    std::env::var("STORM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20)
}

/// A write through a hard link is reported at one name only, so delivering a file also updates its other names.
fn deliver(copy: &mut Snapshot, root: &Path, event: WatchEvent) {
    match event {
        WatchEvent::Changed { changes, .. } => {
            for change in &changes {
                copy.deliver(root, change);
                copy.deliver_links(root, &change.path);
            }
        }
        other => panic!("{other:?} in a storm"),
    }
}

fn directories_made_while_events_were_lost_are_watched(backend: WatchBackend) {
    let gate = Gate::default();
    let closed = gate.clone();
    let limit = || Limit::MaxQueuedEvents.read().unwrap();
    let limit_before = limit();
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("gone/sub")).unwrap(),
        |options| {
            options.exclude = Some(Arc::new(move |path, _| {
                closed.wait_at(path);
                false
            }));
        },
    );
    let root = watched.root.clone();
    fs::write(root.join("gate"), "x").unwrap();
    // Each rename causes two events. One file is renamed back and forth, so that no events are merged.
    // More events than the queue holds, plus what one read removes before the reader reaches the gate.
    let limit = limit().max(limit_before);
    let names = [root.join("f0"), root.join("f1")];
    fs::write(&names[0], "x").unwrap();
    for n in 0..limit.min(500_000) as usize / 2 + 10_000 {
        fs::rename(&names[n % 2], &names[(n + 1) % 2]).unwrap();
    }
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::create_dir_all(root.join("made/while/nobody/looked")).unwrap();
    gate.open();
    if backend == WatchBackend::Inotify {
        assert_eq!(watched.next_news(), WatchEvent::Overflow { root: ROOT });
        assert!(watched.watcher.status().overflows.load(Ordering::Relaxed) >= 1);
    }
    watched.until_path("f1");
    watched.every_directory_is_watched();
}

fn a_reader_that_fails_starts_again_and_says_that_anything_may_differ(backend: WatchBackend) {
    let has_failed = Arc::new(AtomicBool::new(false));
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("a/b")).unwrap(),
        |options| {
            options.exclude = Some(Arc::new(move |path, _| {
                let fatal = path.name() == Some(b"fatal");
                assert!(!fatal || has_failed.swap(true, Ordering::Relaxed), "a reader fails");
                false
            }));
        },
    );
    fs::write(watched.root.join("a/fatal"), "x").unwrap();
    assert_eq!(watched.next_news(), WatchEvent::Overflow { root: ROOT });
    fs::create_dir(watched.root.join("a/b/c")).unwrap();
    watched.until_path("a/b/c");
    watched.every_directory_is_watched();
}

fn a_tree_500_levels_deep_is_watched(backend: WatchBackend) {
    let deep = |levels| vec!["d"; levels].join("/");
    let mut watched =
        Watched::new(backend, |root| fs::create_dir_all(root.join(deep(250))).unwrap());
    fs::create_dir_all(watched.root.join(deep(500))).unwrap();
    watched.until_path(&deep(500));
    fs::write(watched.root.join(deep(500)).join("file"), "x").unwrap();
    watched.until_path(&format!("{}/file", deep(500)));
}

fn dropping_the_watcher_ends_its_thread_even_when_nobody_receives(backend: WatchBackend) {
    let (_dir, root) = temp_dir();
    let (sender, events) = crossbeam_channel::bounded(1);
    let watcher = Watcher::start::<WatchEvent>(options(&root, backend), sender).unwrap();
    assert!(matches!(events.recv_timeout(LIMIT), Ok(WatchEvent::Ready { .. })));
    let deadline = now() + LIMIT;
    for n in 0.. {
        fs::write(root.join(format!("f{n}")), "x").unwrap();
        if events.is_full() {
            break;
        }
        assert!(now() < deadline, "nothing is reported");
    }
    drop(watcher);
    while events.recv_timeout(LIMIT).is_ok() {}
    assert_eq!(events.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
}

fn excluded_mounts_are_nobodys_business(backend: WatchBackend) {
    let mut watched = Watched::with(
        backend,
        |root| fs::create_dir_all(root.join("cache/point")).unwrap(),
        |options| options.exclude = Some(Arc::new(|path, _| path.name() == Some(b"cache"))),
    );
    let point = watched.root.join("cache/point");
    for _ in 0..2 {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &point, "tmpfs", flags, None).unwrap();
        fs::write(point.join("file"), "x").unwrap();
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    assert_eq!(watched.all_until_now(), []);
}
