//! Walks directories: watches each one, then lists it, until the tree equals the disk.
//! In parallel at start and after an overflow; does not interpret events.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use crate::change::{Cause, Change, RootId, RootedPath};
use crate::ground::directory::list;
use crate::ground::limits::Limit;
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::watch::open::{counting_device, open_dir, path_of_fd, short_path, stat};
use crate::watch::roots::Roots;
use crate::watch::tree::{DirId, Tree};
use crate::watch::unwatched::{Unwatched, WhyUnwatched};
use crate::watch::{Exclude, WATCHES_WANTED};

/// Above this number of directories to visit, threads are worth starting.
const PARALLEL_FROM: usize = 64;

/// `st_nlink` of a directory without subdirectories: its name and its own `.`; each subdirectory adds a `..`.
const LINKS_OF_A_LEAF: u64 = 2;

/// What a walk needs.
pub struct Scan<'a> {
    /// The inotify instance that gets the watches.
    pub inotify: BorrowedFd<'a>,
    /// Which events.
    pub mask: WatchFlags,
    /// Where the roots are.
    pub roots: &'a Roots,
    /// What is not visited.
    pub exclude: Option<&'a Exclude>,
    /// Mount points whose file system is gone; these are not visited either.
    pub lost: &'a BTreeSet<RootedPath>,
    /// The tree that the walk brings up to date.
    pub tree: &'a Mutex<Tree>,
    /// Directories that cannot be watched.
    pub unwatched: &'a Mutex<Unwatched>,
}

/// The purpose of a visit to a directory.
#[derive(Clone, Copy)]
enum Aim {
    /// To watch it and all below. On this device a directory with two links has no subdirectories and is not listed.
    Watch { counting: Option<u64> },
    /// To watch it and all below, and to report every entry.
    Report,
}

impl Aim {
    /// True when there are no subdirectories. Call it after adding the watch, which reports later ones.
    fn needs_no_list(self, root: &Path, path: &RelPath) -> bool {
        match self {
            Aim::Watch { counting: Some(device) } => stat(root, path)
                .is_ok_and(|found| found.st_dev == device && found.st_nlink == LINKS_OF_A_LEAF),
            Aim::Watch { counting: None } | Aim::Report => false,
        }
    }
}

/// The relevant entries of a directory.
#[derive(Default)]
struct Listing {
    directories: Vec<Vec<u8>>,
    hides_excluded: bool,
    found: Vec<Change>,
}

/// The result of a visit to one directory.
#[derive(Default)]
struct Visit {
    children: Vec<DirId>,
    found: Vec<Change>,
}

impl Scan<'_> {
    /// Watches `from` and all below it. Several threads scan a large tree; they end with the scan.
    pub fn run(&self, from: DirId) {
        let mut todo = vec![from];
        while let Some(dir) = todo.pop() {
            todo.extend(self.visit(dir, Aim::Watch { counting: None }).children);
            if todo.len() > PARALLEL_FROM
                && let Ok(pool) = scan_pool()
            {
                let aim = Aim::Watch { counting: self.counting_device(from) };
                return pool.scope(|scope| {
                    for dir in std::mem::take(&mut todo) {
                        scope.spawn(move |scope| self.spread(scope, dir, aim));
                    }
                });
            }
        }
    }

    /// Watches `from` and all below it; `report` gets every entry that it finds.
    pub fn walk(&self, from: DirId, mut report: impl FnMut(Change)) {
        let mut todo = vec![from];
        while let Some(dir) = todo.pop() {
            let visit = self.visit(dir, Aim::Report);
            todo.extend(visit.children);
            visit.found.into_iter().for_each(&mut report);
        }
    }

    fn spread<'s>(&'s self, scope: &rayon::Scope<'s>, dir: DirId, aim: Aim) {
        for child in self.visit(dir, aim).children {
            scope.spawn(move |scope| self.spread(scope, child, aim));
        }
    }

    fn counting_device(&self, dir: DirId) -> Option<u64> {
        let (root, path) = lock(self.tree).path(dir)?;
        counting_device(&open_dir(self.roots.path(root)?, &path).ok()?)
    }

    /// Watches one directory, *then* lists it, so that nothing made in between is missed.
    fn visit(&self, dir: DirId, aim: Aim) -> Visit {
        let Some((root, path)) = lock(self.tree).path(dir) else {
            return Visit::default();
        };
        let Some(root_path) = self.roots.path(root) else {
            return Visit::default();
        };
        let at = (root, path);
        let listed = self.watch(root_path, &at.1).and_then(|(wd, opened)| {
            if aim.needs_no_list(root_path, &at.1) {
                self.set_wd(dir, Some(wd));
                return Ok(Listing::default());
            }
            let opened = opened.map_or_else(|| open_dir(root_path, &at.1), Ok)?;
            self.set_wd(dir, Some(wd));
            self.list(&at, &opened, aim)
        });
        match listed {
            Ok(listing) => self.take_in(dir, &at, listing),
            Err(error) => self.give_up(dir, at, &error),
        }
    }

    /// The relevant entries of the open directory.
    fn list(&self, at: &RootedPath, opened: &OwnedFd, aim: Aim) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let reporting = matches!(aim, Aim::Report);
        let pathless = self.exclude.is_none() && self.lost.is_empty() && !reporting;
        list(opened, |name, is_dir| {
            if pathless || (!is_dir && !reporting) {
                listing.directories.extend(is_dir.then(|| name.to_vec()));
                return;
            }
            let Some(path) = at.1.join(name) else { return };
            if self.is_skipped(at.0, &path, is_dir) {
                listing.hides_excluded |= is_dir;
                return;
            }
            listing.directories.extend(is_dir.then(|| name.to_vec()));
            if reporting {
                listing.found.push(Change { is_dir, ..Change::entry(path, Cause::Found) });
            }
        })?;
        Ok(listing)
    }

    /// Brings the tree's children of `dir` up to date.
    fn take_in(&self, dir: DirId, at: &RootedPath, listing: Listing) -> Visit {
        let mut tree = lock(self.tree);
        let known = tree.children(dir);
        let insert = |name: &Vec<u8>| tree.insert(dir, name);
        let children: Vec<_> = listing.directories.iter().map(insert).collect();
        tree.set_hides_excluded(dir, listing.hides_excluded);
        if !known.is_empty() {
            let listed: HashSet<_> = children.iter().collect();
            for gone in known.iter().filter(|known| !listed.contains(known)) {
                self.unwatch(&tree.forget(*gone));
            }
        }
        drop(tree);
        lock(self.unwatched).remove(at);
        Visit { children, found: listing.found }
    }

    /// The watch of the directory that is at `path` now.
    pub fn watch_at(&self, (root, path): &RootedPath) -> Option<i32> {
        let root = self.roots.path(*root)?;
        self.try_watch(root, path).ok().map(|(wd, _)| wd)
    }

    fn is_skipped(&self, root: RootId, path: &RelPath, is_dir: bool) -> bool {
        self.exclude.is_some_and(|exclude| exclude(path, is_dir))
            || (!self.lost.is_empty() && self.lost.contains(&(root, path.clone())))
    }

    /// Adds the watch; raises the kernel's limit once when it is used up. If the path is too long for the call, the directory is
    /// opened, and the descriptor is returned too.
    fn watch(&self, root: &Path, path: &RelPath) -> io::Result<(i32, Option<OwnedFd>)> {
        match self.try_watch(root, path) {
            Err(error) if is_exhausted(&error) && raise_watches() => self.try_watch(root, path),
            result => result,
        }
    }

    fn try_watch(&self, root: &Path, path: &RelPath) -> io::Result<(i32, Option<OwnedFd>)> {
        let mask = self.mask | WatchFlags::ONLYDIR;
        if let Some(short) = short_path(root, path) {
            let follow = if path.is_root() { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
            return Ok((inotify::add_watch(self.inotify, short, mask | follow)?, None));
        }
        let opened = open_dir(root, path)?;
        let wd = inotify::add_watch(self.inotify, path_of_fd(&opened), mask)?;
        Ok((wd, Some(opened)))
    }

    /// Handles a directory that cannot be watched or listed: it is gone, or it stays unwatched for now.
    fn give_up(&self, dir: DirId, at: RootedPath, error: &io::Error) -> Visit {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let mut tree = lock(self.tree);
        let gone = matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
        if gone && !at.1.is_root() {
            self.unwatch(&tree.forget(dir));
            lock(self.unwatched).remove(&at);
            return Visit::default();
        }
        let why = WhyUnwatched::from(errno);
        if why == WhyUnwatched::Unreadable {
            self.watch_for_chmod(tree.parent(dir).and_then(|parent| tree.path(parent)));
        }
        drop(tree);
        let found = vec![Change::tree(at.1.clone(), Cause::Found)];
        lock(self.unwatched).add(at, why);
        Visit { found, ..Visit::default() }
    }

    /// Watches the parent of an unreadable directory, which reports when the directory is made readable.
    fn watch_for_chmod(&self, parent: Option<RootedPath>) {
        let Some((root, parent)) = parent else { return };
        if let Some(short) = self.roots.path(root).and_then(|root| short_path(root, &parent)) {
            let mask = WatchFlags::ATTRIB | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR;
            // A failure does not matter: a parent that is gone has its own event.
            let _ = inotify::add_watch(self.inotify, short, mask);
        }
    }

    fn set_wd(&self, dir: DirId, wd: Option<i32>) {
        let unused = lock(self.tree).set_wd(dir, wd);
        self.unwatch(unused.as_slice());
    }

    fn unwatch(&self, wds: &[i32]) {
        remove_watches(self.inotify, wds);
    }
}

/// A thread pool for one scan. Its threads and their memory are released after the scan.
///
/// # Errors
/// When the system gives us no threads.
pub fn scan_pool() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.thread_name(|n| format!("scan-{n}")).build()
}

/// Removes watches that nothing needs any more. The kernel removes those of deleted directories itself.
pub fn remove_watches(inotify: BorrowedFd<'_>, wds: &[i32]) {
    for &wd in wds {
        let _ = inotify::remove_watch(inotify, wd);
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOSPC)
}

/// True when the limit was raised, by this call or by another thread earlier.
fn raise_watches() -> bool {
    static RAISED: OnceLock<bool> = OnceLock::new();
    let limit = Limit::MaxUserWatches;
    *RAISED.get_or_init(|| match (limit.read(), limit.raise(WATCHES_WANTED)) {
        (Ok(before), Ok(true)) => {
            log::info!("raised {} from {before} to {WATCHES_WANTED}", limit.file());
            true
        }
        _ => false,
    })
}
