//! A trie of paths, one level per component; the pending set and the path locks are built on it.
//! Knows nothing of scopes or remotes; a value may stand on any node.
//!
//! A million paths take little memory and few allocations: nodes and names lie in one vector each, and a child is found
//! by one hash of its parent and its name, however many siblings it has. Siblings stand in the order in which they came.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::path::RelPath;

/// A link to no node.
const NONE: u32 = u32::MAX;

/// Slots that an emptied trie keeps; it frees the rest. A few, so that single changes allocate nothing; two tries for each of
/// hundreds of remotes are empty most of the time.
const KEPT: usize = 32;

/// The names are rewritten when so many bytes of them are gaps, at least.
const GAPS_MIN: usize = 4_096;

/// A trie with more slots is rewritten when three quarters of them are gaps.
const SPARSE_MIN: usize = 4_096;

/// A node of a [`Trie`]; valid until it is pruned or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

/// One path component. Its name lies in [`Trie::names`]; a free slot has an empty name.
#[derive(Debug)]
struct Slot<T> {
    parent: u32,
    first_child: u32,
    last_child: u32,
    next: u32,
    previous: u32,
    name_at: u32,
    name_len: u32,
    value: Option<T>,
}

impl<T> Slot<T> {
    fn new(parent: u32, name_at: u32, name_len: u32) -> Self {
        let (first_child, last_child, next, previous) = (NONE, NONE, NONE, NONE);
        Self { parent, first_child, last_child, next, previous, name_at, name_len, value: None }
    }
}

/// Values by path.
///
/// Invariant: a node has a value or children, unless it is the root or its id is in use.
#[derive(Debug)]
pub struct Trie<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    names: Vec<u8>,
    names_wasted: usize,
    by_name: HashTable<Entry>,
    hasher: DefaultHashBuilder,
}

/// A node with the hash of its parent and its name. The hash is stored, so that a growing table need not read the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u32,
    node: u32,
}

impl Entry {
    /// The table uses the highest and the lowest bits.
    fn wide(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            slots: vec![Slot::new(NONE, 0, 0)],
            free: Vec::new(),
            names: Vec::new(),
            names_wasted: 0,
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// A read-only view of a node and everything below it.
#[derive(Debug)]
pub struct TrieNode<'a, T> {
    /// The value of this very path.
    pub value: Option<T>,
    trie: &'a Trie<T>,
    id: NodeId,
}

impl<'a, T: Copy> TrieNode<'a, T> {
    /// True when neither this path nor any below it has a value.
    pub fn is_empty(&self) -> bool {
        self.trie.is_bare(self.id)
    }

    /// The child called `name`.
    pub fn child(&self, name: &[u8]) -> Option<Self> {
        self.trie.child(self.id, name).map(|id| self.trie.node(id))
    }

    /// All children with their names.
    pub fn children(&self) -> impl Iterator<Item = (&'a [u8], Self)> + use<'a, T> {
        let trie = self.trie;
        trie.children(self.id).map(|id| (trie.name(id), trie.node(id)))
    }
}

impl<T: Copy> Trie<T> {
    /// The node of the empty path, which always exists.
    pub const ROOT: NodeId = NodeId(0);

    /// The node of the empty path, to look at.
    pub fn root(&self) -> TrieNode<'_, T> {
        self.node(Self::ROOT)
    }

    /// The node at `path`.
    pub fn get(&self, path: &RelPath) -> Option<TrieNode<'_, T>> {
        self.find(path).map(|id| self.node(id))
    }

    /// Sets the value at `path`; returns the one before.
    pub fn insert(&mut self, path: &RelPath, value: T) -> Option<T> {
        let at = self.node_at(path);
        self.value_mut(at).replace(value)
    }

    /// The node at `path`, created if missing. Give it a value, or a child with a value.
    pub fn node_at(&mut self, path: &RelPath) -> NodeId {
        path.components().fold(Self::ROOT, |at, name| self.child_or_new(at, name))
    }

    /// The node at `path`, if it exists.
    pub fn find(&self, path: &RelPath) -> Option<NodeId> {
        path.components().try_fold(Self::ROOT, |at, name| self.child(at, name))
    }

    /// Removes the node's value, and the nodes that only led to it.
    pub fn remove_at(&mut self, mut at: NodeId) -> Option<T> {
        let value = self.value_mut(at).take();
        while let Some(parent) = self.parent(at).filter(|_| self.is_bare(at)) {
            self.prune(at);
            at = parent;
        }
        value
    }

    /// True when `path`, or a path above or below it, has a value.
    pub fn touches(&self, path: &RelPath) -> bool {
        let mut at = Self::ROOT;
        for name in path.components() {
            if self.value(at).is_some() {
                return true;
            }
            match self.child(at, name) {
                Some(child) => at = child,
                None => return false,
            }
        }
        !self.is_bare(at)
    }

    /// The value of this very path.
    pub fn value(&self, at: NodeId) -> Option<T> {
        self.slot(at).value
    }

    /// The value of this very path, mutable.
    pub fn value_mut(&mut self, at: NodeId) -> &mut Option<T> {
        &mut self.slot_mut(at).value
    }

    /// The last component of the path; empty for the root.
    pub fn name(&self, at: NodeId) -> &[u8] {
        name_of(&self.names, self.slot(at))
    }

    /// The child called `name`.
    pub fn child(&self, at: NodeId, name: &[u8]) -> Option<NodeId> {
        self.child_by_hash(at, name, self.hash(at.0, name))
    }

    /// The child called `name`, created if missing. Give it a value, or a child with a value.
    pub fn child_or_new(&mut self, at: NodeId, name: &[u8]) -> NodeId {
        let hash = self.hash(at.0, name);
        if let Some(known) = self.child_by_hash(at, name, hash) {
            return known;
        }
        let slot = Slot::new(at.0, self.names.len() as u32, name.len() as u32);
        self.names.extend_from_slice(name);
        let new = match self.free.pop() {
            Some(free) => {
                self.slots[free as usize] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.link(new, hash);
        NodeId(new)
    }

    /// The first child.
    pub fn first_child(&self, at: NodeId) -> Option<NodeId> {
        id(self.slot(at).first_child)
    }

    /// The next sibling, in order of creation.
    pub fn next(&self, at: NodeId) -> Option<NodeId> {
        id(self.slot(at).next)
    }

    /// The children, the oldest first.
    pub fn children(&self, at: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.first_child(at), |child| self.next(*child))
    }

    /// Removes the node if it has neither a value nor children.
    pub fn prune(&mut self, at: NodeId) {
        if at != Self::ROOT && self.is_bare(at) {
            self.unlink(at.0);
            self.give_back(at.0);
        }
    }

    /// Removes everything below the node; `gone` gets each value.
    pub fn cut_below(&mut self, at: NodeId, mut gone: impl FnMut(T)) {
        let mut todo: Vec<u32> = self.children(at).map(|child| child.0).collect();
        (self.slot_mut(at).first_child, self.slot_mut(at).last_child) = (NONE, NONE);
        while let Some(node) = todo.pop() {
            todo.extend(self.children(NodeId(node)).map(|child| child.0));
            self.slot(NodeId(node)).value.map(&mut gone);
            self.forget_name(node);
            self.give_back(node);
        }
    }

    /// Gives back what is free, if that is most of a large trie. Every [`NodeId`] is invalid afterwards.
    pub fn compact(&mut self) {
        let is_sparse = self.slots.len() > SPARSE_MIN && self.free.len() > self.slots.len() / 4 * 3;
        if !is_sparse {
            return;
        }
        let mut dense = Self::default();
        *dense.value_mut(Self::ROOT) = self.value(Self::ROOT);
        let mut todo = vec![(Self::ROOT, Self::ROOT)];
        while let Some((old, new)) = todo.pop() {
            for child in self.children(old) {
                let copy = dense.child_or_new(new, self.name(child));
                *dense.value_mut(copy) = self.value(child);
                todo.push((child, copy));
            }
        }
        *self = dense;
    }

    fn node(&self, id: NodeId) -> TrieNode<'_, T> {
        TrieNode { value: self.value(id), trie: self, id }
    }

    fn slot(&self, at: NodeId) -> &Slot<T> {
        &self.slots[at.0 as usize]
    }

    fn slot_mut(&mut self, at: NodeId) -> &mut Slot<T> {
        &mut self.slots[at.0 as usize]
    }

    fn parent(&self, at: NodeId) -> Option<NodeId> {
        id(self.slot(at).parent)
    }

    fn is_bare(&self, at: NodeId) -> bool {
        let slot = self.slot(at);
        slot.value.is_none() && slot.first_child == NONE
    }

    fn hash(&self, parent: u32, name: &[u8]) -> u32 {
        self.hasher.hash_one((parent, name)) as u32
    }

    fn child_by_hash(&self, at: NodeId, name: &[u8], hash: u32) -> Option<NodeId> {
        let same = |other: &Entry| {
            let slot = &self.slots[other.node as usize];
            other.hash == hash && slot.parent == at.0 && name_of(&self.names, slot) == name
        };
        let found = self.by_name.find(Entry { hash, node: NONE }.wide(), same);
        found.map(|found| NodeId(found.node))
    }

    /// Makes the node, whose parent and name are set, the last child of its parent.
    fn link(&mut self, node: u32, hash: u32) {
        let parent = self.slots[node as usize].parent;
        let before = std::mem::replace(&mut self.slots[parent as usize].last_child, node);
        self.slots[node as usize].previous = before;
        match before {
            NONE => self.slots[parent as usize].first_child = node,
            before => self.slots[before as usize].next = node,
        }
        let entry = Entry { hash, node };
        self.by_name.insert_unique(entry.wide(), entry, Entry::wide);
    }

    fn unlink(&mut self, node: u32) {
        self.forget_name(node);
        let Slot { parent, next, previous, .. } = self.slots[node as usize];
        match previous {
            NONE => self.slots[parent as usize].first_child = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => self.slots[parent as usize].last_child = previous,
            next => self.slots[next as usize].previous = previous,
        }
    }

    fn forget_name(&mut self, node: u32) {
        let slot = &self.slots[node as usize];
        let hash = self.hash(slot.parent, name_of(&self.names, slot));
        let entry = Entry { hash, node };
        if let Ok(found) = self.by_name.find_entry(entry.wide(), |other| *other == entry) {
            found.remove();
        }
    }

    /// Frees the slot of a node that is already unlinked.
    fn give_back(&mut self, node: u32) {
        let slot = &mut self.slots[node as usize];
        self.names_wasted += std::mem::take(&mut slot.name_len) as usize;
        self.free.push(node);
        if self.by_name.is_empty() {
            self.slots.truncate(1);
            self.slots.shrink_to(KEPT);
            self.free = Vec::new();
            self.names = Vec::new();
            self.names_wasted = 0;
            self.by_name.shrink_to(KEPT, Entry::wide);
        } else if self.names_wasted > GAPS_MIN && self.names_wasted * 2 > self.names.len() {
            self.compact_names();
        }
    }

    /// Rewrites the names without gaps.
    fn compact_names(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.names_wasted);
        for slot in &mut self.slots {
            let at = names.len() as u32;
            names.extend_from_slice(name_of(&self.names, slot));
            slot.name_at = at;
        }
        self.names = names;
        self.names_wasted = 0;
    }
}

fn id(link: u32) -> Option<NodeId> {
    (link != NONE).then_some(NodeId(link))
}

fn name_of<'a, T>(names: &'a [u8], slot: &Slot<T>) -> &'a [u8] {
    let at = slot.name_at as usize;
    &names[at..at + slot.name_len as usize]
}

#[cfg(test)]
mod tests;
