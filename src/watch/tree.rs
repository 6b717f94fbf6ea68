//! The directories that are watched: watch descriptor <-> path, in under 80 bytes each.
//! Touches neither the disk nor the kernel; the caller removes the kernel's watches.

use std::collections::HashMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::change::RootId;
use crate::path::RelPath;

/// No directory: a value of the links between nodes.
const NONE: u32 = u32::MAX;

/// No watch: a value of a watch descriptor.
const UNWATCHED: i32 = -1;

/// A bit in `name_at`: some subdirectory is excluded and not watched.
const HIDES_EXCLUDED: u32 = 1 << 31;

/// A directory in the [`Tree`]; valid until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirId(u32);

/// One directory. Its name is in [`Tree::names`], after its length. Siblings are linked in both directions, so the cost of a
/// move does not depend on the number of siblings and descendants.
struct Node {
    parent: u32,
    first_child: u32,
    next: u32,
    previous: u32,
    /// Where its name begins in [`Tree::names`], and the bit [`HIDES_EXCLUDED`].
    name_at: u32,
    wd: i32,
}

/// All directories below all roots.
///
/// Invariant: every directory below a root is in `by_name`. Every directory with a watch is in `by_wd`, or in `shared` if another
/// directory has the same watch (a bind mount, or overlapping roots).
#[derive(Default)]
pub struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    names: Vec<u8>,
    names_wasted: usize,
    roots: Vec<(RootId, u32)>,
    by_name: HashTable<u32>,
    by_wd: HashTable<u32>,
    shared: HashMap<i32, Vec<u32>>,
    hasher: DefaultHashBuilder,
}

impl Tree {
    /// Adds the directory of `root` itself.
    pub fn add_root(&mut self, root: RootId) -> DirId {
        let node = self.new_node(NONE, b"");
        self.roots.push((root, node));
        DirId(node)
    }

    /// The directory of `root`, if it was added and not forgotten.
    pub fn root(&self, root: RootId) -> Option<DirId> {
        let found = self.roots.iter().find(|(id, _)| *id == root);
        found.map(|&(_, node)| DirId(node))
    }

    /// How many directories are known.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// True when no directory is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The directory `name` in `parent`, if known.
    pub fn child(&self, parent: DirId, name: &[u8]) -> Option<DirId> {
        let hash = self.name_hash(parent.0, name);
        let same = |&n: &u32| self.nodes[n as usize].parent == parent.0 && self.name_of(n) == name;
        self.by_name.find(hash, same).map(|&n| DirId(n))
    }

    /// The directory `name` in `parent`; it is added if it is not known.
    pub fn insert(&mut self, parent: DirId, name: &[u8]) -> DirId {
        if let Some(known) = self.child(parent, name) {
            return known;
        }
        let node = self.new_node(parent.0, name);
        self.link(node);
        DirId(node)
    }

    /// The directories known in `parent`.
    pub fn children(&self, parent: DirId) -> Vec<DirId> {
        let mut found = Vec::new();
        let mut at = self.nodes[parent.0 as usize].first_child;
        while at != NONE {
            found.push(DirId(at));
            at = self.nodes[at as usize].next;
        }
        found
    }

    /// The last component of the directory's path; empty for a root.
    pub fn name(&self, dir: DirId) -> &[u8] {
        self.name_of(dir.0)
    }

    /// The parent of `dir`; `None` for roots and for detached directories.
    pub fn parent(&self, dir: DirId) -> Option<DirId> {
        let parent = self.nodes[dir.0 as usize].parent;
        (parent != NONE).then_some(DirId(parent))
    }

    /// Where the directory is; `None` while it, or a directory above it, is detached.
    pub fn path(&self, dir: DirId) -> Option<(RootId, RelPath)> {
        let mut names = Vec::new();
        let mut at = dir.0;
        while self.nodes[at as usize].parent != NONE {
            names.push(self.name_of(at));
            at = self.nodes[at as usize].parent;
        }
        let &(root, _) = self.roots.iter().find(|(_, node)| *node == at)?;
        names.reverse();
        RelPath::new(&names.join(&b'/')).map(|path| (root, path))
    }

    /// The directory's watch.
    pub fn wd(&self, dir: DirId) -> Option<i32> {
        let wd = self.nodes[dir.0 as usize].wd;
        (wd != UNWATCHED).then_some(wd)
    }

    /// The directories of one watch: usually one, several with bind mounts and overlapping roots.
    pub fn watched_by(&self, wd: i32) -> Vec<DirId> {
        let first = self.first_of(wd).map(DirId);
        let others = self.shared.get(&wd).into_iter().flatten();
        first.into_iter().chain(others.map(|&n| DirId(n))).collect()
    }

    /// Gives the directory another watch, or none. Returns the old one when nothing else needs it any more.
    #[must_use = "the kernel still holds the watch that is returned"]
    pub fn set_wd(&mut self, dir: DirId, wd: Option<i32>) -> Option<i32> {
        let wd = wd.unwrap_or(UNWATCHED);
        if self.nodes[dir.0 as usize].wd == wd {
            return None;
        }
        let unused = self.drop_wd(dir.0);
        self.nodes[dir.0 as usize].wd = wd;
        if wd == UNWATCHED {
            return unused;
        }
        if self.first_of(wd).is_some() {
            self.shared.entry(wd).or_default().push(dir.0);
        } else {
            let (hasher, nodes) = (&self.hasher, &self.nodes);
            let rehash = |&n: &u32| hasher.hash_one(nodes[n as usize].wd);
            self.by_wd.insert_unique(hasher.hash_one(wd), dir.0, rehash);
        }
        unused
    }

    /// True when a directory in `dir` is not watched because it is excluded.
    pub fn hides_excluded(&self, dir: DirId) -> bool {
        self.nodes[dir.0 as usize].name_at & HIDES_EXCLUDED != 0
    }

    /// Notes whether a directory in `dir` is excluded.
    pub fn set_hides_excluded(&mut self, dir: DirId, hides: bool) {
        let node = &mut self.nodes[dir.0 as usize];
        node.name_at &= !HIDES_EXCLUDED;
        node.name_at |= if hides { HIDES_EXCLUDED } else { 0 };
    }

    /// Detaches the directory with all below it from its parent; the watches stay. The cost does not depend on what is below.
    pub fn detach(&mut self, dir: DirId) {
        self.unlink(dir.0);
    }

    /// Attaches a detached directory as `name` in `parent`. No directory of that name may be known there.
    pub fn attach(&mut self, dir: DirId, parent: DirId, name: &[u8]) {
        self.names_wasted += 1 + self.name_of(dir.0).len();
        let name_at = self.store_name(name);
        let node = &mut self.nodes[dir.0 as usize];
        node.parent = parent.0;
        node.name_at = name_at | (node.name_at & HIDES_EXCLUDED);
        self.link(dir.0);
    }

    /// Forgets the directory and all below it. Returns the watches that nothing else needs.
    #[must_use = "the kernel still holds the watches that are returned"]
    pub fn forget(&mut self, dir: DirId) -> Vec<i32> {
        self.unlink(dir.0);
        self.roots.retain(|&(_, node)| node != dir.0);
        let mut unused = Vec::new();
        let mut todo = vec![dir.0];
        while let Some(node) = todo.pop() {
            let children = self.children(DirId(node));
            for &DirId(child) in &children {
                self.forget_name(child);
                todo.push(child);
            }
            unused.extend(self.drop_wd(node));
            self.names_wasted += 1 + self.name_of(node).len();
            self.free.push(node);
        }
        self.compact_names();
        unused
    }

    /// Releases reserved memory; worthwhile once, after the first scan.
    pub fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.names.shrink_to_fit();
        let (hasher, nodes, names) = (&self.hasher, &self.nodes, &self.names);
        self.by_wd.shrink_to_fit(|&n| hasher.hash_one(nodes[n as usize].wd));
        self.by_name.shrink_to_fit(|&n| {
            let node = &nodes[n as usize];
            hasher.hash_one((node.parent, stored_name(names, node)))
        });
    }

    /// Bytes of memory that the tree holds.
    pub fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.names.capacity()
            + self.free.capacity() * size_of::<u32>()
            + self.by_name.allocation_size()
            + self.by_wd.allocation_size()
    }

    fn name_of(&self, node: u32) -> &[u8] {
        stored_name(&self.names, &self.nodes[node as usize])
    }

    fn name_hash(&self, parent: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn first_of(&self, wd: i32) -> Option<u32> {
        let same = |&n: &u32| self.nodes[n as usize].wd == wd;
        self.by_wd.find(self.hasher.hash_one(wd), same).copied()
    }

    fn new_node(&mut self, parent: u32, name: &[u8]) -> u32 {
        let node = Node {
            parent,
            first_child: NONE,
            next: NONE,
            previous: NONE,
            name_at: self.store_name(name),
            wd: UNWATCHED,
        };
        if let Some(free) = self.free.pop() {
            self.nodes[free as usize] = node;
            return free;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn store_name(&mut self, name: &[u8]) -> u32 {
        let at = self.names.len() as u32;
        // No file system has longer names than 255 bytes.
        self.names.push(name.len() as u8);
        self.names.extend_from_slice(name);
        at
    }

    /// Makes the node, whose parent and name are set, the first child of its parent.
    fn link(&mut self, node: u32) {
        let parent = self.nodes[node as usize].parent;
        let next = std::mem::replace(&mut self.nodes[parent as usize].first_child, node);
        self.nodes[node as usize].next = next;
        self.nodes[node as usize].previous = NONE;
        if next != NONE {
            self.nodes[next as usize].previous = node;
        }
        let hash = self.name_hash(parent, self.name_of(node));
        let (hasher, nodes, names) = (&self.hasher, &self.nodes, &self.names);
        self.by_name.insert_unique(hash, node, |&n| {
            let node = &nodes[n as usize];
            hasher.hash_one((node.parent, stored_name(names, node)))
        });
    }

    fn unlink(&mut self, node: u32) {
        self.forget_name(node);
        let Node { parent, next, previous, .. } = self.nodes[node as usize];
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else if parent != NONE {
            self.nodes[parent as usize].first_child = next;
        }
        let node = &mut self.nodes[node as usize];
        (node.parent, node.next, node.previous) = (NONE, NONE, NONE);
    }

    fn forget_name(&mut self, node: u32) {
        let hash = self.name_hash(self.nodes[node as usize].parent, self.name_of(node));
        if let Ok(entry) = self.by_name.find_entry(hash, |&n| n == node) {
            entry.remove();
        }
    }

    /// Removes the node's watch; returns it when no other directory shares it.
    fn drop_wd(&mut self, node: u32) -> Option<i32> {
        let wd = std::mem::replace(&mut self.nodes[node as usize].wd, UNWATCHED);
        if wd == UNWATCHED {
            return None;
        }
        let hash = self.hasher.hash_one(wd);
        let heir = match self.shared.get_mut(&wd) {
            Some(others) if others.contains(&node) => {
                others.retain(|&other| other != node);
                Some(None)
            }
            Some(others) => Some(others.pop()),
            None => None,
        };
        if self.shared.get(&wd).is_some_and(Vec::is_empty) {
            self.shared.remove(&wd);
        }
        if heir == Some(None) {
            return None;
        }
        let entry = self.by_wd.find_entry(hash, |&n| n == node).ok()?;
        match heir.flatten() {
            Some(heir) => *entry.into_mut() = heir,
            None => {
                entry.remove();
                return Some(wd);
            }
        }
        None
    }

    /// Rewrites the names without gaps once half of the memory is gaps.
    fn compact_names(&mut self) {
        if self.names_wasted < 4096 || self.names_wasted * 2 < self.names.len() {
            return;
        }
        let free: std::collections::HashSet<u32> = self.free.iter().copied().collect();
        let mut names = Vec::with_capacity(self.names.len() - self.names_wasted);
        for number in (0..self.nodes.len() as u32).filter(|n| !free.contains(n)) {
            let at = names.len() as u32;
            let name = self.name_of(number);
            names.push(name.len() as u8);
            names.extend_from_slice(name);
            let node = &mut self.nodes[number as usize];
            node.name_at = at | (node.name_at & HIDES_EXCLUDED);
        }
        self.names = names;
        self.names_wasted = 0;
    }
}

fn stored_name<'a>(names: &'a [u8], node: &Node) -> &'a [u8] {
    let at = (node.name_at & !HIDES_EXCLUDED) as usize;
    let (length, from) = (names[at] as usize, at + 1);
    &names[from..from + length]
}

#[cfg(test)]
mod tests;
