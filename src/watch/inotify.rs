//! The inotify backend: a watch for every directory, kept up to date by the events themselves.
//! `apply.rs` handles single events.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;

use crate::change::{Cause, Change, RootId, RootedPath};
use crate::config::ChangeSwitches;
use crate::ground::lock::lock;
use crate::watch::Exclude;
use crate::watch::context::{Backend, ReadOutcome, WatchContext};
use crate::watch::queue::Queue;
use crate::watch::roots::Roots;
use crate::watch::scan::{Scan, remove_watches};
use crate::watch::tree::{DirId, Tree};
use crate::watch::unwatched::Unwatched;

/// How long the second half of a rename may take to follow the first; the kernel queues them together.
const MOVE_PAIR_LIMIT: Duration = Duration::from_millis(5);

/// The first half of a rename, whose second half has not been seen.
pub struct Moving {
    pub(super) cookie: u32,
    pub(super) from: RootedPath,
    /// The directory, when it is one that we watch.
    pub(super) dir: Option<DirId>,
    /// Its position in the stream of events.
    pub(super) position: u64,
}

/// The inotify instance, and what it watches.
pub struct InotifyWatch {
    pub(super) queue: Queue,
    pub(super) tree: Mutex<Tree>,
    pub(super) moving: Vec<Moving>,
    pub(super) unwatched: Mutex<Unwatched>,
    /// Events before this position may be older than our last scan, so the directory of such an event is verified.
    pub(super) horizon: u64,
    /// Moves that began before this position have no second half.
    settled: u64,
    /// Where the last event of the last read began.
    last: u64,
    mask: WatchFlags,
}

impl InotifyWatch {
    /// A new instance that watches nothing yet.
    ///
    /// # Errors
    /// When the kernel gives us no inotify instance.
    pub fn new(switches: &ChangeSwitches, rescan_interval: Duration) -> io::Result<Self> {
        Ok(Self {
            queue: Queue::new()?,
            tree: Mutex::default(),
            moving: Vec::new(),
            unwatched: Mutex::new(Unwatched::new(rescan_interval)),
            horizon: 0,
            settled: 0,
            last: 0,
            mask: mask_for(switches),
        })
    }

    /// Watches `dir` and all below it, and reports every entry as a change.
    pub(super) fn walk(&mut self, context: &mut WatchContext, root: RootId, dir: DirId) {
        let (exclude, lost) = (context.batch.exclude().cloned(), context.batch.lost().clone());
        let batch = &mut context.batch;
        let scan = self.scan(&context.roots, exclude.as_ref(), &lost);
        scan.walk(dir, |change| batch.push(root, change));
        self.horizon = self.queue.end();
    }

    /// Watches `dir` and all below it again, because the tree may be out of date there.
    pub(super) fn rescan(&mut self, context: &WatchContext, dir: DirId) {
        self.scan(&context.roots, context.batch.exclude(), context.batch.lost()).run(dir);
        self.horizon = self.queue.end();
    }

    /// The watch of the directory that is at this path now.
    pub(super) fn watch_at(&self, context: &WatchContext, place: &RootedPath) -> Option<i32> {
        self.scan(&context.roots, None, context.batch.lost()).watch_at(place)
    }

    fn scan<'a>(
        &'a self,
        roots: &'a Roots,
        exclude: Option<&'a Exclude>,
        lost: &'a BTreeSet<RootedPath>,
    ) -> Scan<'a> {
        Scan {
            inotify: self.queue.fd(),
            mask: self.mask,
            roots,
            exclude,
            lost,
            tree: &self.tree,
            unwatched: &self.unwatched,
        }
    }

    /// Forgets the directory and all below it, here and in the kernel.
    pub(super) fn forget_dir(&mut self, dir: DirId) {
        let unused = lock(&self.tree).forget(dir);
        remove_watches(self.queue.fd(), &unused);
    }

    /// The known directory at `path`.
    fn find(&self, (root, path): &RootedPath) -> Option<DirId> {
        let tree = lock(&self.tree);
        path.components().try_fold(tree.root(*root)?, |dir, name| tree.child(dir, name))
    }

    /// Forgets directories that were moved out of our roots: their rename began before `position`.
    fn settle_moves(&mut self, context: &mut WatchContext, position: u64) {
        let begun_before = |moving: &Moving| moving.position < position;
        let (lone, pending) = std::mem::take(&mut self.moving).into_iter().partition(begun_before);
        self.moving = pending;
        let lone: Vec<Moving> = lone;
        for Moving { dir, from, .. } in lone {
            let Some(dir) = dir else { continue };
            self.forget_dir(dir);
            // After an exchange of two names the old name holds a directory, and no event reports it.
            self.watch(context, &from);
            if self.find(&from).is_some() {
                context.batch.push(from.0, Change::tree(from.1, Cause::Found));
            }
        }
    }
}

impl Backend for InotifyWatch {
    fn name(&self) -> &'static str {
        "inotify"
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }

    fn watch(&mut self, context: &WatchContext, place: &RootedPath) {
        let (root, path) = place;
        let dir = match path.parent().zip(path.name()) {
            Some(_) if context.batch.is_excluded(*root, path, true) => None,
            Some((parent, name)) => {
                let parent = self.find(&(*root, parent));
                parent.map(|parent| lock(&self.tree).insert(parent, name))
            }
            None => {
                let mut tree = lock(&self.tree);
                Some(tree.root(*root).unwrap_or_else(|| tree.add_root(*root)))
            }
        };
        if let Some(dir) = dir {
            self.rescan(context, dir);
        }
        if path.is_root() {
            lock(&self.tree).shrink();
        }
    }

    fn forget(&mut self, place: &RootedPath) {
        if let Some(dir) = self.find(place) {
            self.forget_dir(dir);
        }
        lock(&self.unwatched).remove_below(place);
    }

    fn directories(&self) -> usize {
        lock(&self.tree).len()
    }

    fn read(&mut self, context: &mut WatchContext) -> ReadOutcome {
        let mut outcome = ReadOutcome::Complete;
        let events = self.queue.read().unwrap_or_else(|error| {
            log::error!("cannot read file system events: {error}");
            outcome = ReadOutcome::Overflow;
            Vec::new()
        });
        self.settled = events.first().map_or(u64::MAX, |event| event.position);
        self.last = events.last().map_or(self.last, |event| event.position);
        let waits_for_close = context.waits_for_close();
        for (at, event) in events.iter().enumerate() {
            let next = events.get(at + 1).filter(|_| waits_for_close);
            if next.is_some_and(|next| self.queue.closes(event, next)) {
                // The close reports the change.
                continue;
            }
            if self.apply(context, event) == ReadOutcome::Overflow {
                outcome = ReadOutcome::Overflow;
            }
        }
        outcome
    }

    fn is_mid_move(&self) -> bool {
        self.moving.iter().any(|moving| moving.position == self.last)
    }

    fn was_full(&self) -> bool {
        self.queue.was_full()
    }

    fn keeps_back(&self) -> bool {
        // The first half of a file's move is sent, unless the second half may come with the next read.
        self.moving.iter().any(|moving| moving.dir.is_some()) || self.is_mid_move()
    }

    fn timeout(&self) -> Option<Duration> {
        if self.keeps_back() { Some(MOVE_PAIR_LIMIT) } else { lock(&self.unwatched).timeout() }
    }

    fn tick(&mut self, context: &mut WatchContext) {
        // After a read, settle the moves of earlier reads. After a timeout, settle all of them.
        let position = std::mem::replace(&mut self.settled, u64::MAX);
        self.settle_moves(context, position);
        let due = lock(&self.unwatched).take_due();
        for place in due {
            self.watch(context, &place);
            context.batch.push(place.0, Change::tree(place.1, Cause::Found));
        }
        lock(&self.unwatched).report(context);
    }
}

/// The events that are needed: those that are switched on, those that keep the tree up to date, and the steps of a save.
fn mask_for(switches: &ChangeSwitches) -> WatchFlags {
    let mut mask = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::ATTRIB
        | WatchFlags::EXCL_UNLINK;
    mask.set(WatchFlags::CLOSE_WRITE, switches.close_write);
    mask.set(WatchFlags::MODIFY, switches.modify || switches.close_write);
    mask
}

#[cfg(test)]
mod tests;
