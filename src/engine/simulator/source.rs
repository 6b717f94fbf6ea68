//! The model of a watch root: random changes of its tree, and the hints that the watch thread makes of them.
//! Hints come late, twice, coarser or reordered, but a child's never before its parent's.

use std::collections::VecDeque;

use super::Rng;
use super::model::{Thing, Tree};
use crate::change::{Cause, Change, Scope};
use crate::engine::pending::{Item, Mark};
use crate::path::RelPath;

/// A watch root and the hints that the engine has not got yet.
#[derive(Debug, Default)]
pub struct Source {
    pub tree: Tree,
    pub hints: VecDeque<Change>,
    /// Hints were lost, and the engine does not know it yet.
    pub overflowed: bool,
    /// The root is unmounted: nothing is watched, and workers see that it is not the root.
    pub gone: bool,
    /// The root was gone for a time since the watch thread's last look.
    pub blinked: bool,
    /// A file with such a stamp or an older one gets a new stamp at the next write.
    pub aged: u64,
    stamp: u64,
}

impl Source {
    /// Makes a random change, as a user of the tree would.
    pub fn change(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0..4 => {
                let path = self.some_place(rng);
                self.write(path, rng);
            }
            4 => {
                let path = self.some_place(rng);
                self.make_dir(path);
            }
            5..7 => {
                if let Some(path) = self.some_path(rng) {
                    self.delete(&path);
                }
            }
            7..9 => self.rename(rng),
            9 => self.move_out_or_in(rng),
            10 => {
                if let Some(path) = self.some_path(rng) {
                    self.touch(&path);
                }
            }
            _ => {
                for _ in 0..rng.below(30) {
                    let path = self.some_place(rng);
                    self.write(path, rng);
                }
            }
        }
    }

    /// The next hints, in an order in which the watch thread may send them.
    pub fn take_hints(&mut self, rng: &mut Rng) -> Vec<Change> {
        let count = rng.below(self.hints.len() as u64 + 1) as usize;
        let mut taken: Vec<Change> = self.hints.drain(..count).collect();
        for i in 1..taken.len() {
            let (a, b) = (&taken[i - 1].path, &taken[i].path);
            if !a.is_within(b) && !b.is_within(a) && rng.chance(1, 3) {
                taken.swap(i - 1, i);
            }
        }
        let mut sent = Vec::new();
        for mut change in taken {
            if rng.chance(1, 20) {
                change.scope = Scope::Tree;
            }
            if rng.chance(1, 20) {
                change.path = change.path.parent().unwrap_or_default();
                change.scope = Scope::Tree;
            }
            if rng.chance(1, 10) {
                sent.push(change.clone());
            }
            sent.push(change);
        }
        sent
    }

    /// What the engine does not know of, as a walk after downtime would find it: also the listings of the directories in which
    /// something changed.
    pub fn unreported(&self) -> impl Iterator<Item = Item> {
        self.hints.iter().flat_map(|hint| {
            let own = Item { path: hint.path.clone(), mark: Mark::new(hint.scope) };
            let parent = hint.path.parent().filter(|parent| self.tree.is_dir(parent));
            let names = parent.map(|path| Item { path, mark: Mark::new(Scope::Listing) });
            [own].into_iter().chain(names)
        })
    }

    /// True when more may have changed than the hints say.
    pub fn is_unsure(&self) -> bool {
        self.overflowed || self.gone || self.blinked
    }

    /// The program restarts: the memory of fresh stamps is lost.
    pub fn restart(&mut self) {
        self.hints.clear();
        self.overflowed = false;
        self.blinked = self.gone;
        self.aged = self.stamp;
    }

    fn hint(&mut self, path: &RelPath, scope: Scope, cause: Cause) {
        if !self.gone {
            let entry = Change::entry(path.clone(), cause);
            self.hints.push_back(Change { scope, ..entry });
        }
    }

    fn some_path(&self, rng: &mut Rng) -> Option<RelPath> {
        let paths: Vec<_> = self.tree.paths().filter(|p| !p.is_root()).collect();
        let index = rng.below(paths.len().max(1) as u64) as usize;
        paths.get(index).map(|p| (*p).clone())
    }

    /// A path in a random directory; it may exist.
    fn some_place(&self, rng: &mut Rng) -> RelPath {
        let dirs = self.tree.paths().filter(|p| self.tree.is_dir(p));
        let dirs: Vec<_> = dirs.filter(|p| p.components().count() < 4).collect();
        let dir = dirs[rng.below(dirs.len() as u64) as usize];
        // `a-` sorts between `a` and what is below `a`.
        let name = [&b"a"[..], b"a-", b"b", b"c", b"d"][rng.below(5) as usize];
        dir.join(name).unwrap()
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    fn write(&mut self, path: RelPath, rng: &mut Rng) {
        if self.tree.is_dir(&path) {
            if rng.chance(3, 4) {
                return;
            }
            self.delete(&path);
        }
        let version = self.next_stamp();
        let stamp = match self.tree.get(&path) {
            // Written again within the same tick.
            Some(Thing::File { stamp, .. }) if stamp > self.aged && rng.chance(1, 3) => stamp,
            _ => version,
        };
        let big = rng.chance(1, 6);
        let file = Thing::File { version, stamp, big };
        self.tree.put(path.clone(), file);
        self.hint(&path, Scope::Entry, Cause::CloseWrite);
    }

    fn make_dir(&mut self, path: RelPath) {
        if self.tree.is_dir(&path) {
            return;
        }
        if self.tree.get(&path).is_some() {
            self.delete(&path);
        }
        let mode = self.next_stamp();
        self.tree.put(path.clone(), Thing::Dir { mode });
        // The copy may hold what a directory of this name held before: its names must be compared.
        self.hint(&path, Scope::Listing, Cause::Create);
    }

    fn touch(&mut self, path: &RelPath) {
        if self.tree.is_dir(path) {
            let mode = self.next_stamp();
            self.tree.put(path.clone(), Thing::Dir { mode });
            self.hint(path, Scope::Entry, Cause::Attrib);
        }
    }

    fn delete(&mut self, path: &RelPath) {
        let mut gone = self.tree.within(path);
        self.tree.remove(path);
        gone.reverse();
        for p in gone {
            self.hint(&p, Scope::Entry, Cause::Delete);
        }
    }

    fn rename(&mut self, rng: &mut Rng) {
        let Some(old) = self.some_path(rng) else {
            return;
        };
        let new = self.some_place(rng);
        if new.is_within(&old) || old.is_within(&new) {
            return;
        }
        if self.tree.is_dir(&old) || self.tree.is_dir(&new) {
            self.delete(&new);
        }
        let scope = if self.tree.is_dir(&old) { Scope::Tree } else { Scope::Entry };
        for p in self.tree.within(&old) {
            let rest = p.components().skip(old.components().count());
            let to = rest.fold(new.clone(), |at, name| at.join(name).unwrap());
            let thing = self.tree.get(&p).unwrap();
            self.tree.put(to, thing);
        }
        self.tree.remove(&old);
        self.hint(&old, Scope::Entry, Cause::MovedFrom);
        self.hint(&new, scope, Cause::MovedTo);
        if let Some(hint) = self.hints.back_mut() {
            hint.moved_from = Some(old);
        }
    }

    /// The kernel reports only the top of the moved tree.
    fn move_out_or_in(&mut self, rng: &mut Rng) {
        if rng.chance(1, 2) {
            let Some(path) = self.some_path(rng) else {
                return;
            };
            self.tree.remove(&path);
            self.hint(&path, Scope::Entry, Cause::MovedFrom);
            return;
        }
        let path = self.some_place(rng);
        if self.tree.get(&path).is_some() {
            return;
        }
        let mode = self.next_stamp();
        self.tree.put(path.clone(), Thing::Dir { mode });
        for name in [&b"x"[..], b"y"] {
            let inner = path.join(name).unwrap();
            self.tree.put(inner.clone(), Thing::Dir { mode });
            let file = Thing::File { version: mode, stamp: mode, big: false };
            self.tree.put(inner.join(b"f").unwrap(), file);
        }
        self.hint(&path, Scope::Tree, Cause::MovedTo);
    }
}
