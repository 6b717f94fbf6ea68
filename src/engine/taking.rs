//! Takes the items of one job out of a pending set.
//! Leaves every path that a lock keeps back: two runs for one remote never overlap.

use super::locks::{LockKind, Locks, PathLocks, has_long};
use super::mark::{Item, Mark};
use super::trie::{NodeId, Trie, TrieNode};
use crate::path::RelPath;

/// Which pending paths a job may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Up to so many paths of any kind except large files and shards.
    Batch(usize),
    /// One large file.
    Large,
    /// Up to so many shards.
    Trees(usize),
}

/// A walk through the pending set: its position, and what it has taken.
pub struct Taking<'a> {
    trie: &'a mut Trie<Mark>,
    want: Want,
    items: Vec<Item>,
    waits: Option<(RelPath, LockKind)>,
    path: Vec<u8>,
}

impl<'a> Taking<'a> {
    /// Nothing taken yet.
    pub fn new(trie: &'a mut Trie<Mark>, want: Want) -> Self {
        Self { trie, want, items: Vec::new(), waits: None, path: Vec::new() }
    }

    /// Takes what no lock keeps back. Also returns one path that has to wait, if any, and for which kind of lock: a short one if possible.
    pub fn take(mut self, locks: &PathLocks) -> (Vec<Item>, Option<(RelPath, LockKind)>) {
        self.visit(Trie::<Mark>::ROOT, Some(&locks.root()));
        (self.items, self.waits)
    }

    /// Takes what it may from the node and below; `locked` is the locks' node for the same path.
    fn visit(&mut self, at: NodeId, locked: Option<&TrieNode<Locks>>) {
        let mark = self.trie.value(at);
        match locked.and_then(|locked| locked.value).map(Locks::kind) {
            Some(LockKind::Directory) if mark.is_none() => {}
            // Prevent starvation: start nothing new below a directory that is itself pending.
            Some(LockKind::Directory) => return self.note_wait(LockKind::Short),
            Some(kind) => return self.note_wait(kind),
            None => {}
        }
        if let Some(mark) = mark {
            let below = locked.filter(|locked| !locked.is_empty());
            match below {
                None if self.wants(mark) => self.keep(at, mark),
                None => {}
                Some(below) => {
                    let long = has_long(below);
                    if self.wants(mark) {
                        self.note_wait(if long { LockKind::Long } else { LockKind::Short });
                    }
                    // Prevent starvation: start nothing new below a waiting ancestor, unless its wait is long.
                    if !long {
                        return;
                    }
                }
            }
        }
        let length = self.path.len();
        let mut next = self.trie.first_child(at);
        while let Some(child) = next.filter(|_| !self.is_full()) {
            // Read it now: `prune` may remove the child.
            next = self.trie.next(child);
            if length > 0 {
                self.path.push(b'/');
            }
            let name = self.trie.name(child);
            self.path.extend_from_slice(name);
            let locked = locked.and_then(|locked| locked.child(name));
            self.visit(child, locked.as_ref());
            self.path.truncate(length);
            self.trie.prune(child);
        }
    }

    fn note_wait(&mut self, kind: LockKind) {
        let better = match self.waits {
            None => true,
            Some((_, known)) => known == LockKind::Long && kind == LockKind::Short,
        };
        if better && let Some(path) = RelPath::new(&self.path) {
            self.waits = Some((path, kind));
        }
    }

    fn wants(&self, mark: Mark) -> bool {
        match self.want {
            Want::Batch(_) => !mark.large && !mark.shard,
            Want::Large => mark.large,
            Want::Trees(_) => mark.shard,
        }
    }

    fn keep(&mut self, at: NodeId, mark: Mark) {
        if let Some(path) = RelPath::new(&self.path) {
            *self.trie.value_mut(at) = None;
            self.items.push(Item { path, mark });
        }
    }

    fn is_full(&self) -> bool {
        match self.want {
            Want::Batch(limit) | Want::Trees(limit) => self.items.len() >= limit,
            Want::Large => !self.items.is_empty(),
        }
    }
}
