//! Turns one inotify event into changes, and keeps the tree of watched directories up to date.
//! Neither reads the kernel's queue nor sends changes.

use inotify::EventMask;

use crate::change::{Cause, Change, RootId, RootedPath};
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::watch::context::{Backend, ReadOutcome, WatchContext};
use crate::watch::inotify::{InotifyWatch, Moving};
use crate::watch::queue::RawEvent;
use crate::watch::tree::DirId;

/// One event in one directory.
struct Occurrence<'a> {
    event: &'a RawEvent,
    parent: DirId,
    name: &'a [u8],
    root: RootId,
    path: RelPath,
}

impl Occurrence<'_> {
    fn place(&self) -> RootedPath {
        (self.root, self.path.clone())
    }

    fn moving(&self, dir: Option<DirId>) -> Moving {
        let RawEvent { cookie, position, .. } = *self.event;
        Moving { cookie, from: self.place(), dir, position }
    }

    fn dir_entry(&self, cause: Cause) -> Change {
        Change { is_dir: true, ..Change::entry(self.path.clone(), cause) }
    }
}

impl InotifyWatch {
    /// Handles one event.
    pub(super) fn apply(&mut self, context: &mut WatchContext, event: &RawEvent) -> ReadOutcome {
        if context.debug {
            self.log_raw(event);
        }
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return ReadOutcome::Overflow;
        }
        if event.mask.contains(EventMask::UNMOUNT) {
            context.check_roots(self);
        } else if event.mask.contains(EventMask::IGNORED) {
            self.apply_end_of_watch(context, event.wd);
        } else {
            let name = self.queue.name(event).to_vec();
            let dirs = lock(&self.tree).watched_by(event.wd);
            for parent in dirs {
                // Handling the event in one directory may have ended the watch of the next one.
                if lock(&self.tree).wd(parent) == Some(event.wd) {
                    self.apply_in(context, event, parent, &name);
                }
            }
        }
        ReadOutcome::Complete
    }

    fn log_raw(&self, event: &RawEvent) {
        let name = String::from_utf8_lossy(self.queue.name(event)).into_owned();
        let tree = lock(&self.tree);
        let dir = tree.watched_by(event.wd).first().and_then(|dir| tree.path(*dir));
        let dir = dir.map(|(_, path)| path.to_string()).unwrap_or_default();
        log::info!("inotify: {:?} cookie {} in {dir}: {name:?}", event.mask, event.cookie);
    }

    /// Handles the end of a watch that the kernel removed by itself: the directory or its file system is gone.
    fn apply_end_of_watch(&mut self, context: &mut WatchContext, wd: i32) {
        let dirs = lock(&self.tree).watched_by(wd);
        for dir in dirs {
            let mut tree = lock(&self.tree);
            // The kernel has already removed the watch.
            let _ = tree.set_wd(dir, None);
            let Some((root, path)) = tree.path(dir) else {
                continue;
            };
            drop(tree);
            if path.is_root() {
                context.roots.forget_identity(root);
                context.check_roots(self);
            } else {
                self.walk(context, root, dir);
            }
        }
    }

    fn apply_in(
        &mut self,
        context: &mut WatchContext,
        event: &RawEvent,
        parent: DirId,
        name: &[u8],
    ) {
        let Some((root, dir_path)) = lock(&self.tree).path(parent) else {
            // The directory is being moved. It is compared as a whole when it arrives.
            self.horizon = self.queue.end();
            return;
        };
        if name.is_empty() {
            // Events of a directory itself are also reported by its parent. Only the root has no parent.
            if dir_path.is_root() && event.mask.contains(EventMask::ATTRIB) {
                let change = Change { is_dir: true, ..Change::entry(dir_path, Cause::Attrib) };
                context.batch.push(root, change);
            }
            return;
        }
        let Some(path) = dir_path.join(name) else {
            return;
        };
        let here = Occurrence { event, parent, name, root, path };
        let mask = event.mask;
        match mask.contains(EventMask::ISDIR) {
            true if mask.contains(EventMask::CREATE) => self.apply_new_dir(context, &here),
            true if mask.contains(EventMask::DELETE) => self.apply_deleted_dir(context, &here),
            true if mask.contains(EventMask::MOVED_FROM) => {
                self.apply_dir_moved_from(context, &here)
            }
            true if mask.contains(EventMask::MOVED_TO) => self.apply_dir_moved_to(context, &here),
            true if mask.contains(EventMask::ATTRIB) => self.apply_dir_attrib(context, &here),
            true => {}
            false => self.apply_file(context, here),
        }
    }

    fn apply_file(&mut self, context: &mut WatchContext, here: Occurrence) {
        let mask = here.event.mask;
        let root = here.root;
        if mask.contains(EventMask::CREATE) {
            context.push_new_file(root, here.path);
        } else if mask.contains(EventMask::CLOSE_WRITE) {
            context.push_written(root, here.path, Cause::CloseWrite);
        } else if mask.contains(EventMask::MODIFY) {
            context.push_modified(root, here.path);
        } else if mask.contains(EventMask::ATTRIB) {
            context.batch.push(root, Change::entry(here.path, Cause::Attrib));
        } else if mask.contains(EventMask::DELETE) {
            context.batch.push(root, Change::entry(here.path, Cause::Delete));
        } else if mask.contains(EventMask::MOVED_FROM) {
            self.moving.push(here.moving(None));
            context.batch.push(root, Change::entry(here.path, Cause::MovedFrom));
        } else if mask.contains(EventMask::MOVED_TO) {
            let moving = self.take_moving(here.event.cookie, root);
            let moved_from = moving.and_then(|moving| context.hint(root, moving.from, false));
            let change = Change::entry(here.path, Cause::MovedTo);
            context.batch.push(root, Change { moved_from, ..change });
        }
    }

    fn apply_new_dir(&mut self, context: &mut WatchContext, here: &Occurrence) {
        if context.batch.is_excluded(here.root, &here.path, true) {
            return lock(&self.tree).set_hides_excluded(here.parent, true);
        }
        context.batch.push(here.root, here.dir_entry(Cause::Create));
        let known = lock(&self.tree).child(here.parent, here.name);
        if known.is_some_and(|dir| self.is_watched_at(context, dir, &here.place())) {
            return;
        }
        let dir = lock(&self.tree).insert(here.parent, here.name);
        self.walk(context, here.root, dir);
    }

    fn apply_deleted_dir(&mut self, context: &mut WatchContext, here: &Occurrence) {
        self.forget_child(here.parent, here.name);
        context.batch.push(here.root, Change::tree(here.path.clone(), Cause::Delete));
    }

    fn apply_dir_moved_from(&mut self, context: &mut WatchContext, here: &Occurrence) {
        let dir = lock(&self.tree).child(here.parent, here.name);
        if let Some(dir) = dir {
            lock(&self.tree).detach(dir);
        }
        self.moving.push(here.moving(dir));
        context.batch.push(here.root, Change::tree(here.path.clone(), Cause::MovedFrom));
    }

    fn apply_dir_moved_to(&mut self, context: &mut WatchContext, here: &Occurrence) {
        let moving = self.take_moving(here.event.cookie, here.root);
        // The rename may have replaced an empty directory.
        self.forget_child(here.parent, here.name);
        if context.batch.is_excluded(here.root, &here.path, true) {
            if let Some(dir) = moving.and_then(|moving| moving.dir) {
                self.forget_dir(dir);
            }
            return lock(&self.tree).set_hides_excluded(here.parent, true);
        }
        // Watch first, report second: what is created in between is delivered with the directory.
        let from = moving.as_ref().map(|moving| moving.from.clone());
        match moving.and_then(|moving| moving.dir.map(|dir| (dir, moving.from))) {
            Some((dir, from)) => self.apply_known_dir_moved(context, here, dir, from),
            None => {
                let dir = lock(&self.tree).insert(here.parent, here.name);
                self.rescan(context, dir);
            }
        }
        let moved_from = from.and_then(|from| context.hint(here.root, from, true));
        let change = Change::tree(here.path.clone(), Cause::MovedTo);
        context.batch.push(here.root, Change { moved_from, ..change });
    }

    fn apply_known_dir_moved(
        &mut self,
        context: &mut WatchContext,
        here: &Occurrence,
        dir: DirId,
        from: RootedPath,
    ) {
        lock(&self.tree).attach(dir, here.parent, here.name);
        if !self.is_watched_at(context, dir, &here.place()) {
            // Two names were exchanged, or there were further renames: look at both paths.
            self.rescan(context, dir);
            self.watch(context, &from);
            context.batch.push(from.0, Change::tree(from.1, Cause::Found));
        } else if here.event.position < self.horizon {
            self.rescan(context, dir);
        } else if context.batch.exclude().is_some() {
            self.exclude_anew(context, here.root, dir);
        }
    }

    fn apply_dir_attrib(&mut self, context: &mut WatchContext, here: &Occurrence) {
        context.batch.push(here.root, here.dir_entry(Cause::Attrib));
        if lock(&self.unwatched).contains(&here.place()) {
            let dir = lock(&self.tree).insert(here.parent, here.name);
            self.walk(context, here.root, dir);
        }
    }

    /// Applies the exclusions anew after a rename. Forgets what is excluded now, and rescans directories that held excluded ones.
    fn exclude_anew(&mut self, context: &WatchContext, root: RootId, moved: DirId) {
        let mut todo = vec![moved];
        while let Some(dir) = todo.pop() {
            let tree = lock(&self.tree);
            let path = tree.path(dir).map(|(_, path)| path).unwrap_or_default();
            let (hides, children) = (tree.hides_excluded(dir), tree.children(dir));
            drop(tree);
            if dir != moved && context.batch.is_excluded(root, &path, true) {
                let mut tree = lock(&self.tree);
                if let Some(parent) = tree.parent(dir) {
                    tree.set_hides_excluded(parent, true);
                }
                drop(tree);
                self.forget_dir(dir);
            } else if hides {
                self.rescan(context, dir);
            } else {
                todo.extend(children);
            }
        }
    }

    /// True when the directory at this path is the one that we watch as `dir`.
    fn is_watched_at(&self, context: &WatchContext, dir: DirId, place: &RootedPath) -> bool {
        let known = lock(&self.tree).wd(dir);
        known.is_some() && self.watch_at(context, place) == known
    }

    fn forget_child(&mut self, parent: DirId, name: &[u8]) {
        let known = lock(&self.tree).child(parent, name);
        if let Some(dir) = known {
            self.forget_dir(dir);
        }
    }

    fn take_moving(&mut self, cookie: u32, root: RootId) -> Option<Moving> {
        let same = |moving: &Moving| moving.cookie == cookie && moving.from.0 == root;
        let at = self.moving.iter().position(same)?;
        Some(self.moving.swap_remove(at))
    }
}
