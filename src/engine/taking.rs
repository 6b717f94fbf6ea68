//! A walk over what is pending that takes out what a job may hold.
//! Leaves alone whatever touches a job in flight: two runs for one remote never overlap.

use super::mark::{Item, Mark};
use super::trie::{Node, NodeId, Trie};
use crate::path::RelPath;

/// Which pending paths a job may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Up to so many paths of any kind but large files and whole trees.
    Batch(usize),
    /// One large file.
    Large,
    /// Up to so many trees, of those marked whole.
    Trees(usize),
}

/// The paths that jobs in flight hold, with the kind of job.
pub type Held = Trie<Hold>;

/// How a path is held by a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The job ends soon: what waits for it may make others wait.
    Short,
    /// A large file or a tree: nobody may be made to wait for someone who waits for it.
    Long,
    /// A directory that is there and is sent as one: what is below it may leave beside it.
    Directory,
}

/// True when a job that holds something keeps `path` back.
pub fn keeps_back(held: &Held, path: &RelPath) -> bool {
    let mut at = held.root();
    for name in path.components() {
        if at.value.is_some_and(|hold| hold != Hold::Directory) {
            return true;
        }
        let Some(child) = at.child(name) else { return false };
        at = child;
    }
    !at.is_empty()
}

/// A batch being taken: the walk's position and what it has so far.
pub struct Taking<'a> {
    trie: &'a mut Trie<Mark>,
    want: Want,
    items: Vec<Item>,
    waits: Option<(RelPath, Hold)>,
    path: Vec<u8>,
}

impl<'a> Taking<'a> {
    /// Nothing taken yet.
    pub fn new(trie: &'a mut Trie<Mark>, want: Want) -> Self {
        Self { trie, want, items: Vec::new(), waits: None, path: Vec::new() }
    }

    /// Takes what it may. Returns besides a path that must wait, and for what; rather one that waits for something short.
    pub fn take(mut self, held: &Held) -> (Vec<Item>, Option<(RelPath, Hold)>) {
        self.visit(Trie::<Mark>::ROOT, Some(&held.root()));
        (self.items, self.waits)
    }

    /// Takes what it may from the node and below; `held` is what is held at the same path.
    fn visit(&mut self, at: NodeId, held: Option<&Node<Hold>>) {
        let mark = self.trie.value(at);
        match held.and_then(|held| held.value) {
            Some(Hold::Directory) if mark.is_none() => {}
            // What is pending here has its turn next: nothing new leaves below it either.
            Some(Hold::Directory) => return self.note_wait(Hold::Short),
            Some(hold) => return self.note_wait(hold),
            None => {}
        }
        if let Some(mark) = mark {
            let below = held.filter(|held| !held.is_empty());
            match below {
                None if self.wants(mark) => self.keep(at, mark),
                None => {}
                Some(below) => {
                    let long = any_long(below);
                    if self.wants(mark) {
                        self.note_wait(if long { Hold::Long } else { Hold::Short });
                    }
                    // This path must wait for what flies below it. To let it have its turn, nothing new leaves
                    // below it meanwhile, unless that wait is long.
                    if !long {
                        return;
                    }
                }
            }
        }
        let length = self.path.len();
        let mut next = self.trie.first_child(at);
        while let Some(child) = next.filter(|_| !self.is_full()) {
            // Asked for now: the child goes when nothing is left of it.
            next = self.trie.next(child);
            if length > 0 {
                self.path.push(b'/');
            }
            let name = self.trie.name(child);
            self.path.extend_from_slice(name);
            let held = held.and_then(|held| held.child(name));
            self.visit(child, held.as_ref());
            self.path.truncate(length);
            self.trie.prune(child);
        }
    }

    fn note_wait(&mut self, hold: Hold) {
        let better = match self.waits {
            None => true,
            Some((_, known)) => known == Hold::Long && hold == Hold::Short,
        };
        if better && let Some(path) = RelPath::new(&self.path) {
            self.waits = Some((path, hold));
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

fn any_long(held: &Node<Hold>) -> bool {
    held.value == Some(Hold::Long) || held.children().any(|(_, child)| any_long(&child))
}
