//! The fanotify backend: one mark for each file system, without a walk and without a watch for each directory.
//! Asks the kernel for a directory's path when an event names it, and caches the answer.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{
    FAN_ATTRIB, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_MODIFY, FAN_ONDIR, FAN_Q_OVERFLOW,
    FAN_RENAME,
};
use rustix::io::Errno;

use crate::change::{Cause, Change, RootId, RootedPath};
use crate::config::ChangeSwitches;
use crate::path::RelPath;
use crate::sys::fanotify::{DirAndName, FanEvent, hear_all, ignore_in, init, parse};
use crate::watch::context::{Backend, ReadOutcome, WatchContext};
use crate::watch::unwatched::{Unwatched, WhyUnwatched};
use crate::watch::views::{Sighting, Sightings, Views, errno_of};

/// Room for what one read returns: some two thousand events.
const BUFFER_BYTES: usize = 128 * 1024;

/// The longest event: of a rename, with two handles and two names.
const EVENT_BYTES_MAX: usize = 24 + 2 * (12 + 8 + 128 + 256);

/// Most directories in the cache, below our roots or elsewhere on the file system.
const REMEMBERED_MAX: usize = 50_000;

/// After so many events in a directory outside our roots, the kernel is asked to ignore it, and again at each doubling.
/// A wake-up costs more than a hundred events that are read together.
const EVENTS_OF_OTHERS: u32 = 8;

/// How long events may collect after a read without events below our roots: foreign events are then read in bulk.
const REST: Duration = Duration::from_millis(1);

/// The fanotify group, and the cache of directories that its events named.
pub struct FanotifyWatch {
    group: OwnedFd,
    mask: u64,
    buffer: Vec<u8>,
    /// The last read may have left events: the next one might not have fit into the buffer.
    was_full: bool,
    views: Views,
    remembered: HashMap<Box<[u8]>, Known>,
    hearing: Hearing,
    unwatched: Unwatched,
    only_others: bool,
}

/// A cached directory.
struct Known {
    /// Its paths below our roots; empty when it is outside them.
    seen: Arc<[Sighting]>,
    events: u32,
}

/// Whether the kernel ignores some directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It ignores none, and may be asked to.
    All,
    /// It ignores some directories outside our roots.
    Less,
    /// It ignores none, and must not be asked to.
    Always,
}

impl FanotifyWatch {
    /// Watches every file system below the roots.
    ///
    /// # Errors
    /// When we lack the permission, or when the kernel or one of the file systems does not support it.
    pub fn new(
        context: &WatchContext,
        switches: &ChangeSwitches,
        interval: Duration,
    ) -> io::Result<Self> {
        let mut watch = Self {
            group: init()?,
            mask: mask_for(switches),
            buffer: vec![0; BUFFER_BYTES],
            was_full: false,
            views: Views::default(),
            remembered: HashMap::new(),
            // A directory that arrives from an ignored place is reported by its move only, so ignore nothing without `move_to`.
            hearing: if switches.move_to { Hearing::All } else { Hearing::Always },
            unwatched: Unwatched::new(interval),
            only_others: false,
        };
        match watch.views.renew(context, watch.group.as_fd(), watch.mask).into_iter().next() {
            Some((_, error)) => Err(error),
            None => watch.views.may_open().map(|()| watch),
        }
    }

    /// Reads the mounts again. File systems that cannot be marked are compared periodically.
    fn renew(&mut self, context: &WatchContext) {
        self.forget_places();
        self.unwatched.clear();
        for (place, error) in self.views.renew(context, self.group.as_fd(), self.mask) {
            self.unwatched.add(place, WhyUnwatched::Failed(errno_of(error)));
        }
    }

    /// Where the directory is below our roots.
    fn sight(&mut self, context: &WatchContext, dir: &[u8]) -> Arc<[Sighting]> {
        let events = match self.remembered.get_mut(dir) {
            Some(known) => {
                known.events = known.events.saturating_add(1);
                if !known.seen.is_empty() {
                    self.only_others = false;
                    return known.seen.clone();
                }
                known.events
            }
            None => return self.look_for(context, dir),
        };
        if events >= EVENTS_OF_OTHERS && events.is_power_of_two() {
            self.ignore(dir);
        }
        Arc::default()
    }

    fn look_for(&mut self, context: &WatchContext, dir: &[u8]) -> Arc<[Sighting]> {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.forget_places();
        }
        let Sightings { seen, unsure } = self.views.sight(context, dir);
        let seen: Arc<[Sighting]> = seen.into();
        self.only_others &= seen.is_empty();
        if unsure.is_empty() {
            self.remembered.insert(dir.into(), Known { seen: seen.clone(), events: 1 });
        }
        for (place, errno) in unsure {
            // A missing path has its own events. After other errors, compare its file system later and ask again at the next event.
            if !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
                self.unwatched.add(place, WhyUnwatched::Failed(errno));
            }
        }
        seen
    }

    /// Asks the kernel to ignore a directory outside our roots. Renames and changes of attributes of the directory and of its
    /// ancestors are still reported, because one of our roots may be below it.
    fn ignore(&mut self, dir: &[u8]) {
        if self.hearing == Hearing::Always {
            return;
        }
        // A deleted directory causes no more events.
        let Some(opened) = self.views.open(dir) else { return };
        let mask = self.mask & !(FAN_RENAME | FAN_ATTRIB);
        self.hearing = match ignore_in(self.group.as_fd(), &opened, mask) {
            Ok(()) => Hearing::Less,
            // The kernel is too old, or has no room for more marks. Existing marks end when paths change.
            Err(_) => return,
        };
    }

    /// Clears the cache: any directory may have another path from now on.
    fn forget_places(&mut self) {
        self.remembered.clear();
        if self.hearing == Hearing::Less {
            self.hearing = match hear_all(self.group.as_fd()) {
                Ok(()) => Hearing::All,
                Err(error) => {
                    log::error!("cannot make the kernel report all directories again: {error}");
                    Hearing::Less
                }
            };
        }
    }

    /// Handles one event.
    fn apply(&mut self, context: &mut WatchContext, event: &FanEvent) {
        let Some(at) = event.at else { return };
        if event.mask & FAN_RENAME != 0 {
            return self.apply_rename(context, event, at);
        }
        for seen in self.sight(context, at.dir).iter() {
            log_raw(context, event.mask, seen, at.name);
            match path_in(seen, at.name) {
                Some(path) => push_all(context, seen.root, path, event.mask, at.name == b"."),
                None => push_coarse(context, seen),
            }
        }
    }

    fn apply_rename(&mut self, context: &mut WatchContext, event: &FanEvent, at: DirAndName) {
        let is_dir = event.mask & FAN_ONDIR != 0;
        let from = self.sight(context, at.dir);
        let to = event.to.map(|to| (self.sight(context, to.dir), to.name));
        let is_ours = !from.is_empty() || to.as_ref().is_some_and(|(to, _)| !to.is_empty());
        if is_dir && is_ours {
            // Everything below has another path now. Forget first, report second: changes in between are delivered with the report.
            self.forget_places();
            let old_places =
                from.iter().filter_map(|seen| Some((seen.root, path_in(seen, at.name)?)));
            if old_places.into_iter().any(|old| self.views.has_below(&old)) {
                self.renew(context);
            }
        }
        for seen in from.iter() {
            log_raw(context, event.mask, seen, at.name);
            match path_in(seen, at.name) {
                Some(path) => context.batch.push(seen.root, moved(path, Cause::MovedFrom, is_dir)),
                None => push_coarse(context, seen),
            }
        }
        for (seen, name) in to.iter().flat_map(|(seen, name)| seen.iter().map(|seen| (seen, *name)))
        {
            log_raw(context, event.mask, seen, name);
            let Some(path) = path_in(seen, name) else {
                push_coarse(context, seen);
                continue;
            };
            let old = from.iter().find(|old| old.root == seen.root);
            let old = old.and_then(|old| Some((old.root, path_in(old, at.name)?)));
            let old = old.filter(|(root, path)| !context.batch.is_excluded(*root, path, is_dir));
            let moved_from = old.and_then(|old| context.hint(seen.root, old, is_dir));
            let change = moved(path, Cause::MovedTo, is_dir);
            context.batch.push(seen.root, Change { moved_from, ..change });
        }
    }
}

impl Backend for FanotifyWatch {
    fn name(&self) -> &'static str {
        "fanotify"
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    fn watch(&mut self, context: &WatchContext, _place: &RootedPath) {
        self.renew(context);
    }

    fn forget(&mut self, place: &RootedPath) {
        self.forget_places();
        self.views.forget(place);
        self.unwatched.remove_below(place);
    }

    fn directories(&self) -> usize {
        0
    }

    fn read(&mut self, context: &mut WatchContext) -> ReadOutcome {
        let length = match rustix::io::read(&self.group, &mut self.buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => {
                log::error!("cannot read file system events: {error}");
                return ReadOutcome::Overflow;
            }
        };
        self.only_others = length > 0;
        self.was_full = length + EVENT_BYTES_MAX > self.buffer.len();
        let mut outcome = ReadOutcome::Complete;
        let buffer = std::mem::take(&mut self.buffer);
        for event in parse(&buffer[..length]) {
            if event.mask & FAN_Q_OVERFLOW != 0 {
                outcome = ReadOutcome::Overflow;
            }
            self.apply(context, &event);
        }
        self.buffer = buffer;
        self.views.close();
        outcome
    }

    fn was_full(&self) -> bool {
        self.was_full
    }

    fn timeout(&self) -> Option<Duration> {
        self.unwatched.timeout()
    }

    fn rest(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.only_others).then_some(REST)
    }

    fn tick(&mut self, context: &mut WatchContext) {
        let due = self.unwatched.take_due();
        if !due.is_empty() {
            self.renew(context);
        }
        for (root, path) in due {
            context.batch.push(root, Change::tree(path, Cause::Found));
        }
        self.unwatched.report(context);
    }
}

/// The path of `name` in the directory; `None` when only one above the directory is known.
fn path_in(seen: &Sighting, name: &[u8]) -> Option<RelPath> {
    match name {
        _ if !seen.is_exact => None,
        b"." => Some(seen.path.clone()),
        name => seen.path.join(name),
    }
}

/// Reports a directory as a tree, because something changed below it whose path is too long.
fn push_coarse(context: &mut WatchContext, seen: &Sighting) {
    context.batch.push(seen.root, Change::tree(seen.path.clone(), Cause::Found));
}

/// Every kind of change that was merged into one event, in the order of a file's life.
fn push_all(context: &mut WatchContext, root: RootId, path: RelPath, mask: u64, is_itself: bool) {
    let has = |bit| mask & bit != 0;
    let is_dir = has(FAN_ONDIR) || is_itself;
    let entry = |cause| Change { is_dir, ..Change::entry(path.clone(), cause) };
    if has(FAN_CREATE) && is_dir {
        context.batch.push(root, entry(Cause::Create));
    } else if has(FAN_CREATE) {
        context.push_new_file(root, path.clone());
    }
    if has(FAN_MODIFY) {
        context.push_modified(root, path.clone());
    }
    if has(FAN_CLOSE_WRITE) {
        context.push_written(root, path.clone(), Cause::CloseWrite);
    }
    if has(FAN_ATTRIB) {
        context.batch.push(root, entry(Cause::Attrib));
    }
    if has(FAN_DELETE) && is_dir {
        context.batch.push(root, Change::tree(path, Cause::Delete));
    } else if has(FAN_DELETE) {
        context.batch.push(root, entry(Cause::Delete));
    }
}

fn moved(path: RelPath, cause: Cause, is_dir: bool) -> Change {
    if is_dir { Change::tree(path, cause) } else { Change::entry(path, cause) }
}

fn log_raw(context: &WatchContext, mask: u64, seen: &Sighting, name: &[u8]) {
    if context.debug {
        let name = String::from_utf8_lossy(name);
        log::info!("fanotify: mask {mask:#x} in {}: {name:?}", seen.path);
    }
}

/// The events that are needed: those that are switched on, those that show where directories are, and the steps of a save.
fn mask_for(switches: &ChangeSwitches) -> u64 {
    let mask = FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR | FAN_ATTRIB;
    match (switches.close_write, switches.modify) {
        (true, _) => mask | FAN_CLOSE_WRITE | FAN_MODIFY,
        (false, true) => mask | FAN_MODIFY,
        (false, false) => mask,
    }
}
