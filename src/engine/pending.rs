//! The pending set of a remote: paths that may differ from their copies.
//! Does not decide when a batch is taken; `schedule.rs` and the engine do.

use super::locks::{LockKind, PathLocks};
pub use super::mark::{Item, Mark, Recheck};
use super::taking::Taking;
pub use super::taking::Want;
use super::trie::{NodeId, Trie, TrieNode};
use crate::change::Scope;
use crate::path::RelPath;

/// Pending paths with their marks.
///
/// Invariant: below a path marked [`Scope::Tree`] nothing is marked.
#[derive(Debug, Default)]
pub struct Pending {
    trie: Trie<Mark>,
    tally: Tally,
}

/// How many marks of each kind there are: no search starts for a kind that is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    all: usize,
    large: usize,
    shard: usize,
}

impl Tally {
    fn add(&mut self, mark: Mark) {
        self.all += 1;
        self.large += usize::from(mark.large);
        self.shard += usize::from(mark.shard);
    }

    fn subtract(&mut self, mark: Mark) {
        self.all -= 1;
        self.large -= usize::from(mark.large);
        self.shard -= usize::from(mark.shard);
    }
}

/// What happened to a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// The path is marked.
    Itself,
    /// A tree above it absorbed it.
    Absorbed,
}

impl Pending {
    /// True when nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.tally.all == 0
    }

    /// How many paths are marked.
    pub fn len(&self) -> usize {
        self.tally.all
    }

    /// How many marks there are that go in batches.
    pub fn small(&self) -> usize {
        self.tally.all - self.tally.large - self.tally.shard
    }

    /// How many large files are marked.
    pub fn large(&self) -> usize {
        self.tally.large
    }

    /// How many shards are marked.
    pub fn shards(&self) -> usize {
        self.tally.shard
    }

    /// True when `path`, or anything above or below it, is marked.
    pub fn touches(&self, path: &RelPath) -> bool {
        self.trie.touches(path)
    }

    /// True when `path` itself is marked.
    pub fn holds(&self, path: &RelPath) -> bool {
        self.trie.get(path).is_some_and(|node| node.value.is_some())
    }

    /// Adds a hint. A tree mark above absorbs it; a new tree mark absorbs everything below.
    pub fn mark(&mut self, path: &RelPath, mark: Mark) -> Marked {
        let mut at = Trie::<Mark>::ROOT;
        for name in path.components() {
            if let Some(above) = self.trie.value_mut(at)
                && above.scope == Scope::Tree
            {
                above.compare_content |= mark.compare_content;
                above.additive &= mark.additive;
                above.recheck = above.recheck.merge(mark.recheck);
                return Marked::Absorbed;
            }
            at = self.trie.child_or_new(at, name);
        }
        self.mark_here(at, mark);
        Marked::Itself
    }

    fn mark_here(&mut self, at: NodeId, mark: Mark) {
        let mut merged = mark;
        if let Some(old) = self.trie.value(at) {
            self.tally.subtract(old);
            merged = old.merge(mark);
        }
        if merged.scope == Scope::Tree {
            self.trie.cut_below(at, |below| {
                self.tally.subtract(below);
                merged.compare_content |= below.compare_content;
                merged.additive &= below.additive;
                merged.recheck = merged.recheck.merge(below.recheck);
            });
        }
        self.tally.add(merged);
        *self.trie.value_mut(at) = Some(merged);
    }

    /// Something else stands at this path now, so its size is unknown.
    pub fn forget_size(&mut self, path: &RelPath) {
        let at = self.trie.find(path);
        let mark = at.and_then(|at| self.trie.value_mut(at).as_mut());
        if let Some(mark) = mark.filter(|mark| mark.large) {
            mark.large = false;
            self.tally.large -= 1;
        }
    }

    /// Takes this very path out, whatever its kind and whoever has locked it.
    pub fn remove(&mut self, path: &RelPath) -> Option<Mark> {
        let at = self.trie.find(path)?;
        let mark = self.trie.value(at)?;
        self.trie.remove_at(at);
        self.tally.subtract(mark);
        Some(mark)
    }

    /// Takes a batch out: paths of the wanted kind that no lock keeps back.
    pub fn take(&mut self, locks: &PathLocks, want: Want) -> Vec<Item> {
        self.take_or_wait(locks, want).0
    }

    /// As [`Pending::take`]; also returns a path that has to wait, and for which kind of lock.
    pub fn take_or_wait(
        &mut self,
        locks: &PathLocks,
        want: Want,
    ) -> (Vec<Item>, Option<(RelPath, LockKind)>) {
        let (items, waits) = Taking::new(&mut self.trie, want).take(locks);
        for item in &items {
            self.tally.subtract(item.mark);
        }
        self.trie.compact();
        (items, waits)
    }

    /// Collapses upward until at most `limit` marks are left: trees replace the entries below them. Such a tree deletes only if a
    /// deletion was reported there.
    pub fn collapse(&mut self, limit: usize) {
        let mut depth = depth(&self.trie.root());
        while self.tally.all > limit && depth > 0 {
            depth -= 1;
            self.collapse_below(Trie::<Mark>::ROOT, depth);
        }
    }

    /// Marks every node at this depth that has children as a tree.
    fn collapse_below(&mut self, at: NodeId, depth: usize) {
        let Some(first) = self.trie.first_child(at) else { return };
        if depth == 0 {
            return self.mark_here(at, Mark::additive(Scope::Tree));
        }
        let mut child = Some(first);
        while let Some(at) = child {
            child = self.trie.next(at);
            self.collapse_below(at, depth - 1);
        }
    }

    /// Every marked path, parents first. Lazy: there may be a million.
    pub fn iter(&self) -> impl Iterator<Item = Item> {
        let root = self.trie.root();
        let first = root.value.map(|mark| Item { path: RelPath::root(), mark });
        let mut ways = vec![(RelPath::root(), below(&root))];
        let rest = std::iter::from_fn(move || {
            loop {
                let (path, children) = ways.last_mut()?;
                let Some((name, child)) = children.next() else {
                    ways.pop();
                    continue;
                };
                let Some(path) = path.join(name) else { continue };
                let item = child.value.map(|mark| Item { path: path.clone(), mark });
                if child.children().next().is_some() {
                    ways.push((path, below(&child)));
                }
                if item.is_some() {
                    return item;
                }
            }
        });
        first.into_iter().chain(rest)
    }
}

/// What stands below one node.
type Below<'a> = Box<dyn Iterator<Item = (&'a [u8], TrieNode<'a, Mark>)> + 'a>;

fn below<'a>(node: &TrieNode<'a, Mark>) -> Below<'a> {
    Box::new(node.children())
}

fn depth(node: &TrieNode<Mark>) -> usize {
    node.children().map(|(_, child)| depth(&child) + 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::locks::Owner;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn pending(paths: &[(&str, Scope)]) -> Pending {
        let mut pending = Pending::default();
        for (text, scope) in paths {
            pending.mark(&path(text), Mark::new(*scope));
        }
        pending
    }

    fn locked(text: &str, kind: LockKind) -> PathLocks {
        let mut locks = PathLocks::default();
        locks.lock(Owner::Reservation, &path(text), kind);
        locks
    }

    fn names(items: &[Item]) -> Vec<String> {
        items.iter().map(|item| item.path.to_string()).collect()
    }

    #[test]
    fn a_tree_absorbs_what_is_below_it() {
        let mut p = pending(&[("a/b", Scope::Entry), ("a/c/d", Scope::Entry), ("a", Scope::Tree)]);
        assert_eq!(p.len(), 1);
        p.mark(&path("a/x/y"), Mark::new(Scope::Tree));
        assert_eq!(names(&p.take(&PathLocks::default(), Want::Batch(9))), ["a"]);
        assert!(p.is_empty());
    }

    #[test]
    fn a_tree_that_absorbs_a_path_compares_content_if_the_path_does() {
        let mut p = Pending::default();
        p.mark(&path("a/b"), Mark { compare_content: true, ..Mark::new(Scope::Entry) });
        p.mark(&path("a"), Mark::new(Scope::Tree));
        assert!(p.iter().all(|item| item.mark.compare_content) && p.len() == 1);
    }

    #[test]
    fn a_path_in_flight_keeps_its_relatives_back() {
        let locks = locked("a/b", LockKind::Short);
        let all = [("a", Scope::Entry), ("a/b", Scope::Entry), ("a/b/c", Scope::Entry)];
        let mut p = pending(&all);
        p.mark(&path("z"), Mark::new(Scope::Entry));
        assert_eq!(names(&p.take(&locks, Want::Batch(9))), ["z"]);
        assert_eq!(p.len(), 3);
    }

    #[test]
    fn a_tree_that_waits_for_a_long_job_does_not_stop_its_children() {
        let locks = locked("a/big", LockKind::Long);
        let mut p = pending(&[("a/small", Scope::Entry), ("a", Scope::Listing)]);
        assert_eq!(names(&p.take(&locks, Want::Batch(9))), ["a/small"]);
        let locks = locked("a/big", LockKind::Short);
        let mut p = pending(&[("a/small", Scope::Entry), ("a", Scope::Listing)]);
        assert_eq!(names(&p.take(&locks, Want::Batch(9))), Vec::<String>::new());
    }

    #[test]
    fn shards_go_by_themselves_and_no_more_than_are_wanted() {
        let mut p = pending(&[("small", Scope::Entry)]);
        for text in ["a", "b", "c"] {
            p.mark(&path(text), Mark { shard: true, ..Mark::new(Scope::Tree) });
        }
        assert_eq!(names(&p.take(&PathLocks::default(), Want::Trees(2))), ["a", "b"]);
        assert_eq!(names(&p.take(&PathLocks::default(), Want::Batch(9))), ["small"]);
        assert_eq!(names(&p.take(&PathLocks::default(), Want::Trees(2))), ["c"]);
    }

    #[test]
    fn a_shard_stays_one_unless_its_tree_is_new() {
        let shard = || Mark { shard: true, ..Mark::new(Scope::Tree) };
        for scope in [Scope::Entry, Scope::Listing] {
            assert_eq!(shard().merge(Mark::new(scope)), shard());
            assert_eq!(Mark::new(scope).merge(shard()), shard());
        }
        assert_eq!(shard().merge(shard()), shard());
        assert_eq!(shard().merge(Mark::new(Scope::Tree)), Mark::new(Scope::Tree));
    }

    #[test]
    fn collapsing_keeps_every_path_covered() {
        let mut p = Pending::default();
        for i in 0..100 {
            p.mark(&path(&format!("d{}/e/f{i}", i % 7)), Mark::new(Scope::Entry));
        }
        p.collapse(10);
        assert!(p.len() <= 10);
        let items: Vec<_> = p.iter().collect();
        for i in 0..100 {
            let leaf = path(&format!("d{}/e/f{i}", i % 7));
            assert!(
                items.iter().any(|it| it.mark.scope == Scope::Tree && leaf.is_within(&it.path))
            );
        }
    }

    fn arb_path() -> impl Strategy<Value = RelPath> {
        proptest::collection::vec(0u8..3, 0..4).prop_map(|names| {
            let text: Vec<String> = names.iter().map(|n| format!("{n}")).collect();
            path(&text.join("/"))
        })
    }

    fn arb_scope() -> impl Strategy<Value = Scope> {
        prop_oneof![Just(Scope::Entry), Just(Scope::Listing), Just(Scope::Tree)]
    }

    proptest! {
        /// Whatever is marked stays covered by what is pending or taken, and batches never touch a locked path.
        #[test]
        fn nothing_marked_is_lost_and_no_batch_overlaps_what_is_in_flight(
            marks in proptest::collection::vec((arb_path(), arb_scope()), 1..40),
            flying in proptest::collection::vec(arb_path(), 0..3),
            limit in 1usize..10,
        ) {
            let mut locks = PathLocks::default();
            locks.lock_all(Owner::Reservation, &flying, LockKind::Short);
            let mut p = Pending::default();
            for (path, scope) in &marks {
                p.mark(path, Mark::new(*scope));
            }
            let mut seen = p.take(&locks, Want::Batch(limit));
            seen.extend(p.take(&locks, Want::Trees(limit)));
            for item in &seen {
                for other in &flying {
                    prop_assert!(!item.path.is_within(other) && !other.is_within(&item.path));
                }
            }
            prop_assert_eq!(p.iter().count(), p.len());
            seen.extend(p.iter());
            for (path, scope) in &marks {
                let covered = seen.iter().any(|item| {
                    item.path == *path && item.mark.scope >= *scope
                        || item.mark.scope == Scope::Tree && path.is_within(&item.path)
                });
                prop_assert!(covered, "{path} is lost");
            }
        }
    }
}
