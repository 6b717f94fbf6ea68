//! What both backends share: the roots, the batch being collected, and the handling of lost roots.
//! Holds no watches; they belong to the [`Backend`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use crate::change::{Cause, Change, RootId, RootedPath, WatchEvent};
use crate::path::RelPath;
use crate::sys::lease::has_writer;
use crate::watch::batch::Batch;
use crate::watch::ignored::IgnoreReason;
use crate::watch::open::{open_file, stat};
use crate::watch::roots::{RootNews, Roots};
use crate::watch::steps::UnclosedFiles;
use crate::watch::{WatchStatus, set};

/// How many recent files to search for the file of an event.
const UNSURE_LOOK_BACK: usize = 16;

/// A kernel interface that reports changes.
pub trait Backend: Send {
    /// Its name for the log and the status.
    fn name(&self) -> &'static str;

    /// Readable when there are events.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Watches what is at this path now, and all below it, whatever was there before.
    fn watch(&mut self, context: &WatchContext, place: &RootedPath);

    /// Forgets the path and all below it.
    fn forget(&mut self, place: &RootedPath);

    /// How many directories are known; 0 for a backend without a list.
    fn directories(&self) -> usize;

    /// Reads the kernel's queue once and handles the events.
    fn read(&mut self, context: &mut WatchContext) -> ReadOutcome;

    /// True when the last read ended with the first half of a move, and the next may begin with the second half.
    fn is_mid_move(&self) -> bool {
        false
    }

    /// True when the last read may have left events in the queue.
    fn was_full(&self) -> bool;

    /// True while events are held back because the next ones may belong to them.
    fn keeps_back(&self) -> bool {
        false
    }

    /// When to call [`tick`](Self::tick), if no event comes before.
    fn timeout(&self) -> Option<Duration>;

    /// How long to leave the queue alone so that events collect. Called once after each read.
    fn rest(&mut self) -> Option<Duration> {
        None
    }

    /// Does the work that is due by time.
    fn tick(&mut self, context: &mut WatchContext);
}

/// What a read of the kernel's queue shows besides the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// No event was lost.
    Complete,
    /// Events were lost.
    Overflow,
}

/// The state that both backends use.
pub struct WatchContext {
    /// The watch roots.
    pub roots: Roots,
    /// The changes to send.
    pub batch: Batch,
    /// Log each event as the kernel gives it.
    pub debug: bool,
    /// Numbers for others to read.
    pub status: Arc<WatchStatus>,
    /// New files that are not closed yet.
    unsure: Vec<RootedPath>,
    /// Files that were modified in this read and not closed.
    modified: Vec<RootedPath>,
    /// Files that were modified in earlier reads and not closed.
    unclosed: UnclosedFiles,
}

impl WatchContext {
    /// Nothing collected yet.
    pub fn new(roots: Roots, batch: Batch, debug: bool, status: Arc<WatchStatus>) -> Self {
        let (unsure, modified, unclosed) = (Vec::new(), Vec::new(), UnclosedFiles::default());
        Self { roots, batch, debug, status, unsure, modified, unclosed }
    }

    /// The roots that are watched.
    pub fn roots_there(&self) -> Vec<RootId> {
        let there = self.roots.list().iter().filter(|root| root.is_there());
        there.map(|root| root.id).collect()
    }

    /// Watches everything below a root; returns how many directories that are.
    pub fn watch_root(&self, root: RootId, backend: &mut dyn Backend) -> usize {
        let before = backend.directories();
        backend.watch(self, &(root, RelPath::root()));
        set(&self.status.directories, backend.directories());
        backend.directories().saturating_sub(before)
    }

    /// Checks the roots and the mounts below them, and handles what has changed.
    pub fn check_roots(&mut self, backend: &mut dyn Backend) {
        for news in self.roots.check() {
            if let RootNews::SubtreeBack { root, path } = &news {
                self.batch.lost_mut().remove(&(*root, path.clone()));
            }
            match news {
                RootNews::SubtreeLost { root, path, .. }
                | RootNews::SubtreeBack { root, path }
                | RootNews::Mounted { root, path }
                    if self.batch.is_within_excluded(root, &path) => {}
                RootNews::Lost { root, loss } => {
                    backend.forget(&(root, RelPath::root()));
                    self.batch.send(WatchEvent::RootLost { root, loss });
                }
                RootNews::Back { root, replaced } => {
                    let directories = self.watch_root(root, backend);
                    self.batch.send(WatchEvent::RootBack { root, replaced });
                    self.batch.send(WatchEvent::Ready { root, directories });
                }
                RootNews::SubtreeLost { root, path, reason } => {
                    backend.forget(&(root, path.clone()));
                    self.batch.lost_mut().insert((root, path.clone()));
                    self.batch.send(WatchEvent::SubtreeLost { root, path, reason });
                }
                RootNews::SubtreeBack { root, path } => {
                    backend.watch(self, &(root, path.clone()));
                    self.batch.push(root, Change::tree(path.clone(), Cause::Found));
                    self.batch.send(WatchEvent::SubtreeBack { root, path });
                }
                RootNews::Moved { root } => {
                    self.watch_root(root, backend);
                    self.batch.push(root, Change::tree(RelPath::root(), Cause::Found));
                }
                RootNews::Mounted { root, path } => {
                    backend.watch(self, &(root, path.clone()));
                    self.batch.push(root, Change::tree(path, Cause::Found));
                }
            }
        }
    }

    /// Handles a new file. With createFile on, that is a change. Otherwise the file is checked after this read.
    pub fn push_new_file(&mut self, root: RootId, path: RelPath) {
        if self.batch.switches().create_file {
            self.batch.push(root, Change::entry(path, Cause::Create));
        } else {
            if self.batch.ignored_hook().is_set() {
                let change = Change::entry(path.clone(), Cause::Create);
                self.batch.ignore(root, &change, IgnoreReason::SwitchedOff);
            }
            self.unsure.push((root, path));
        }
    }

    /// Handles a file that was written and closed. Its creation and its modification are settled with that.
    pub fn push_written(&mut self, root: RootId, path: RelPath, cause: Cause) {
        let place = (root, path);
        remove_recent(&mut self.unsure, &place);
        remove_recent(&mut self.modified, &place);
        self.unclosed.forget(&place);
        self.batch.push(root, Change::entry(place.1, cause));
    }

    /// True when a modification counts for nothing once the file is closed, and nobody wants to see it.
    pub fn waits_for_close(&self) -> bool {
        !self.batch.switches().modify && !self.batch.ignored_hook().is_set() && !self.debug
    }

    /// Handles a modified file. With `modify` on, that is a change. Otherwise the close counts as the change; a file that was
    /// truncated by its path is never closed, and is checked later.
    pub fn push_modified(&mut self, root: RootId, path: RelPath) {
        if self.batch.switches().modify {
            return self.batch.push(root, Change::entry(path, Cause::Modify));
        }
        if self.batch.ignored_hook().is_set() {
            let change = Change::entry(path.clone(), Cause::Modify);
            self.batch.ignore(root, &change, IgnoreReason::SwitchedOff);
        }
        let place = (root, path);
        let recent = self.modified.len().saturating_sub(UNSURE_LOOK_BACK);
        if !self.modified[recent..].contains(&place) {
            self.modified.push(place);
        }
    }

    /// Called when all events of a read are handled: the files that were modified in it wait for their close.
    pub fn settle_modified(&mut self) {
        if self.modified.is_empty() {
            return;
        }
        let now = now();
        for place in std::mem::take(&mut self.modified) {
            self.unclosed.note(place, now);
        }
    }

    /// How long until [`settle_due`](Self::settle_due) has something to do.
    pub fn timeout(&self) -> Option<Duration> {
        let unclosed = self.unclosed.due().map(|due| due.saturating_duration_since(now()));
        [unclosed, self.batch.timeout()].into_iter().flatten().min()
    }

    /// Checks the files that were modified a while ago and not closed since.
    pub fn settle_due(&mut self) {
        for place in self.unclosed.take_due(now()) {
            // A file that is still open will be closed.
            _ = self.push_if_truncated(place);
        }
    }

    /// Checks all files that were modified and not closed, because a barrier is asked for.
    pub fn settle_all(&mut self) {
        for place in self.unclosed.take_all() {
            if let Err(open) = self.push_if_truncated(place) {
                self.unclosed.note(open, now());
            }
        }
    }

    /// Reports a modified file that nothing has open for writing. Returns one that is still open.
    fn push_if_truncated(&mut self, (id, path): RootedPath) -> Result<(), RootedPath> {
        let root = self.roots.list().iter().find(|root| root.id == id);
        let Some(Ok(file)) = root.map(|root| open_file(&root.path, &path)) else {
            return Ok(());
        };
        let place = (id, path);
        // If nobody can tell, because there are no leases here or not for us, its end is reported again.
        if has_writer(file.as_fd()).is_ok_and(|has_writer| has_writer) {
            return Err(place);
        }
        self.batch.push_step(id, Change::entry(place.1, Cause::Modify));
        Ok(())
    }

    /// Handles files that were created and not closed within one read. With createFile off, an empty regular file is not
    /// reported. Everything else is, because no other event may follow.
    pub fn settle_unsure(&mut self) {
        for (id, path) in std::mem::take(&mut self.unsure) {
            if self.batch.is_excluded(id, &path, false) {
                continue;
            }
            let root = self.roots.list().iter().find(|root| root.id == id);
            let Some(Ok(stat)) = root.map(|root| stat(&root.path, &path)) else {
                continue;
            };
            let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
            if !(is_file && stat.st_size == 0 && stat.st_nlink == 1) {
                self.batch.push(id, Change::entry(path, Cause::Create));
            }
        }
    }

    /// The old path of a move, if that path is mirrored: the remote may still have the data there.
    pub fn hint(&self, root: RootId, from: RootedPath, is_dir: bool) -> Option<RelPath> {
        let usable = from.0 == root
            && self.batch.switches().move_from
            && !self.batch.is_excluded(from.0, &from.1, is_dir);
        usable.then_some(from.1)
    }
}

/// Removes the path, if it is among the last that were added.
fn remove_recent(places: &mut Vec<RootedPath>, place: &RootedPath) {
    let recent = places.len().saturating_sub(UNSURE_LOOK_BACK);
    if let Some(at) = places[recent..].iter().rposition(|known| known == place) {
        places.swap_remove(recent + at);
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread waits: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}
