//! Path locks: paths that must not start now, and who owns each lock. A path is free when its last owner is gone.
//! Does not decide who may lock a path.

use std::collections::HashMap;

use super::job::JobId;
use super::trie::{NodeId, Trie, TrieNode};
use crate::path::RelPath;

/// How a path is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockKind {
    /// A directory that exists and is sent without its content: paths below it may start.
    Directory,
    /// The owner ends soon, so relatives of the path may wait for it.
    Short,
    /// The owner may take hours (a large file, a tree, a lost mount): only paths that touch this one wait.
    Long,
}

/// Who locks a path. When the owner ends, all its locks end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A job in flight.
    Job(JobId),
    /// A mount point whose file system is gone.
    LostMount(RelPath),
    /// A path that a waiting full sync needs next.
    Reservation,
}

/// How many locks of each kind a path has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Locks {
    counts: [u32; 3],
}

impl Locks {
    /// The strictest kind.
    pub fn kind(self) -> LockKind {
        let kinds = [LockKind::Long, LockKind::Short];
        let strict = kinds.into_iter().find(|kind| self.counts[*kind as usize] > 0);
        strict.unwrap_or(LockKind::Directory)
    }

    fn is_free(self) -> bool {
        self.counts == [0; 3]
    }
}

/// The locked paths of one remote.
///
/// Invariant: the counts of a path are the number of its entries in `owners`. So its node exists while it has an owner.
#[derive(Debug, Default)]
pub struct PathLocks {
    trie: Trie<Locks>,
    owners: HashMap<Owner, Vec<(NodeId, LockKind)>>,
}

impl PathLocks {
    /// The mount points whose file systems are gone.
    pub fn lost_mounts(&self) -> impl Iterator<Item = &RelPath> {
        self.owners.keys().filter_map(|owner| match owner {
            Owner::LostMount(path) => Some(path),
            Owner::Job(_) | Owner::Reservation => None,
        })
    }

    /// Adds a lock.
    pub fn lock(&mut self, owner: Owner, path: &RelPath, kind: LockKind) {
        self.lock_all(owner, [path], kind);
    }

    /// Adds a lock on each of these paths.
    pub fn lock_all<'a>(
        &mut self,
        owner: Owner,
        paths: impl IntoIterator<Item = &'a RelPath>,
        kind: LockKind,
    ) {
        let owned = self.owners.entry(owner).or_default();
        for path in paths {
            let at = self.trie.node_at(path);
            let locks = self.trie.value_mut(at).get_or_insert_default();
            locks.counts[kind as usize] += 1;
            owned.push((at, kind));
        }
    }

    /// Drops all locks of the owner; false when it has none.
    pub fn drop_owner(&mut self, owner: &Owner) -> bool {
        let Some(owned) = self.owners.remove(owner) else { return false };
        for (at, kind) in owned {
            let Some(locks) = self.trie.value_mut(at) else { continue };
            locks.counts[kind as usize] -= 1;
            if locks.is_free() {
                self.trie.remove_at(at);
            }
        }
        true
    }

    /// Turns the owner's short locks on these paths into [`LockKind::Directory`]; returns the paths that it changed.
    pub fn downgrade<'a>(&mut self, owner: &Owner, paths: &'a [RelPath]) -> Vec<&'a RelPath> {
        let Some(owned) = self.owners.get_mut(owner) else { return Vec::new() };
        let nodes = paths.iter().filter_map(|path| Some((self.trie.find(path)?, path)));
        let mut opened: HashMap<NodeId, &RelPath> = nodes.collect();
        let mut downgraded = Vec::new();
        for (at, kind) in owned.iter_mut().filter(|(_, kind)| *kind == LockKind::Short) {
            if let Some(path) = opened.remove(at)
                && let Some(locks) = self.trie.value_mut(*at)
            {
                locks.counts[LockKind::Short as usize] -= 1;
                locks.counts[LockKind::Directory as usize] += 1;
                *kind = LockKind::Directory;
                downgraded.push(path);
            }
        }
        downgraded
    }

    /// True when `path` itself is locked.
    pub fn holds(&self, path: &RelPath) -> bool {
        self.trie.get(path).is_some_and(|node| node.value.is_some())
    }

    /// True when `path`, or anything above it or below it, is locked.
    pub fn touches(&self, path: &RelPath) -> bool {
        self.trie.touches(path)
    }

    /// True when `path` must wait: it or something below it is locked, or something above it that is no open directory.
    pub fn keeps_back(&self, path: &RelPath) -> bool {
        self.keeps_back_by(path).is_some()
    }

    /// As [`PathLocks::keeps_back`]; returns the kind of lock, a long one if there is one.
    pub fn keeps_back_by(&self, path: &RelPath) -> Option<LockKind> {
        let mut at = self.root();
        for name in path.components() {
            let kind = at.value.map(Locks::kind);
            if kind.is_some_and(|kind| kind != LockKind::Directory) {
                return kind;
            }
            at = at.child(name)?;
        }
        let kind = if has_long(&at) { LockKind::Long } else { LockKind::Short };
        (!at.is_empty()).then_some(kind)
    }

    /// The locks as a tree, for a walk beside the pending set.
    pub fn root(&self) -> TrieNode<'_, Locks> {
        self.trie.root()
    }
}

/// True when a long lock is here or below.
pub fn has_long(locked: &TrieNode<Locks>) -> bool {
    locked.value.is_some_and(|locks| locks.kind() == LockKind::Long)
        || locked.children().any(|(_, child)| has_long(&child))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn kind(locks: &PathLocks, text: &str) -> Option<LockKind> {
        locks.trie.get(&path(text)).and_then(|node| node.value).map(Locks::kind)
    }

    #[test]
    fn a_path_is_free_when_its_last_owner_is_gone() {
        let mut locks = PathLocks::default();
        let (first, second) = (Owner::Job(JobId(1)), Owner::Job(JobId(2)));
        let mount = Owner::LostMount(path("a"));
        locks.lock(first.clone(), &path("a"), LockKind::Short);
        locks.lock(mount.clone(), &path("a"), LockKind::Long);
        locks.lock_all(second.clone(), [&path("a"), &path("a"), &path("b/c")], LockKind::Short);
        assert_eq!(kind(&locks, "a"), Some(LockKind::Long));
        assert!(locks.drop_owner(&mount) && !locks.drop_owner(&mount));
        assert_eq!(kind(&locks, "a"), Some(LockKind::Short));
        locks.drop_owner(&second);
        assert!(locks.keeps_back(&path("a")) && !locks.touches(&path("b")));
        locks.drop_owner(&first);
        assert!(!locks.keeps_back(&path("")) && locks.root().is_empty());
    }

    #[test]
    fn a_downgrade_concerns_the_locks_of_its_owner_alone() {
        let mut locks = PathLocks::default();
        let (first, second) = (Owner::Job(JobId(1)), Owner::Job(JobId(2)));
        locks.lock_all(first.clone(), [&path("a"), &path("b")], LockKind::Short);
        locks.lock(second.clone(), &path("b"), LockKind::Short);
        let directories = ["a", "b", "c"].map(path);
        assert_eq!(locks.downgrade(&first, &directories), [&path("a"), &path("b")]);
        assert!(!locks.keeps_back(&path("a/new")) && locks.keeps_back(&path("a")));
        assert!(locks.keeps_back(&path("b/new")));
        locks.drop_owner(&second);
        assert!(!locks.keeps_back(&path("b/new")) && locks.keeps_back(&path("b")));
        locks.drop_owner(&first);
        assert!(locks.root().is_empty());
    }
}
