//! What one remote lacks and no job has taken yet: pending paths, their age, the old names of moved ones, and which go together.
//! Does not know what is deferred, nor why a path is locked.

use std::collections::HashSet;

use super::Now;
use super::deferred::Deferred;
use super::locks::{LockKind, PathLocks};
use super::moves::MoveHints;
use super::pending::{Item, Mark, Marked, Pending, Want};
use super::together::{Completion, Together};
use crate::change::Scope;
use crate::path::RelPath;

/// The pending paths of one remote.
#[derive(Debug, Default)]
pub struct Backlog {
    pub pending: Pending,
    /// What was moved and is not delivered yet.
    pub moves: MoveHints,
    /// Which paths one job has to send together.
    pub together: Together,
    /// No pending path has waited since before this time. It stays when paths are taken out.
    since: Option<Now>,
    /// Every pending small path is locked: a search finds nothing until a lock is dropped.
    is_locked: bool,
}

impl Backlog {
    /// Adds a hint.
    pub fn mark(&mut self, path: &RelPath, mark: Mark, locks: &PathLocks) -> Marked {
        self.is_locked = self.is_locked && locks.keeps_back(path);
        self.pending.mark(path, mark)
    }

    /// Locks were dropped or marks were added: a search may find something.
    pub fn search_again(&mut self) {
        self.is_locked = false;
    }

    /// Takes the items of a batch that no lock keeps back.
    pub fn take_batch(
        &mut self,
        locks: &PathLocks,
        deferred: &Deferred,
        paths: usize,
    ) -> Vec<Item> {
        if self.is_locked || self.pending.small() == 0 {
            return Vec::new();
        }
        let mut items = self.pending.take(locks, Want::Batch(paths));
        if items.iter().any(Item::only_adds) {
            // Additive directories get a job of their own, because it must not delete.
            for item in items.extract_if(.., |item| !item.only_adds()) {
                self.pending.mark(&item.path, item.mark);
            }
        }
        self.complete_groups(&mut items, locks, deferred);
        self.is_locked = items.is_empty();
        items
    }

    /// Adds the other paths of the groups that these items belong to. If another job has one of them, the whole group waits.
    fn complete_groups(&mut self, items: &mut Vec<Item>, locks: &PathLocks, deferred: &Deferred) {
        if self.together.is_empty() && self.moves.is_empty() {
            return;
        }
        let mut taken: HashSet<RelPath> = items.iter().map(|item| item.path.clone()).collect();
        let mut completion = self.complete_moves(&taken, locks, deferred);
        taken.extend(completion.more.iter().cloned());
        self.together.complete(&taken, locks, &mut completion);
        completion.more.retain(|path| !completion.waiting.contains(path));
        for item in items.extract_if(.., |item| completion.waiting.contains(&item.path)) {
            self.pending.mark(&item.path, item.mark);
        }
        for path in completion.more {
            let known = self.pending.remove(&path).unwrap_or(Mark::new(Scope::Entry));
            let mark = Mark { large: false, shard: false, ..known };
            items.push(Item { path, mark });
        }
    }

    /// The names of one file before and after a move leave together, so that its copy is used before another file replaces it.
    fn complete_moves(
        &self,
        taken: &HashSet<RelPath>,
        locks: &PathLocks,
        deferred: &Deferred,
    ) -> Completion {
        let mut completion = Completion::default();
        let can_leave = |path: &RelPath| {
            taken.contains(path) || self.pending.holds(path) && !locks.keeps_back(path)
        };
        // A short job has the new name, or the file was moved on, but not reported yet.
        let is_late = |new: &RelPath| {
            locks.keeps_back_by(new) == Some(LockKind::Short) || deferred.moves_on(new)
        };
        let is_needed_later = |path: &RelPath| self.moves.takers(path).any(is_late);
        for path in taken {
            if is_needed_later(path) {
                completion.waiting.insert(path.clone());
                continue;
            }
            let related = self.moves.takers(path).chain(self.moves.origins(path));
            let joins = |path: &&RelPath| can_leave(path) && !is_needed_later(path);
            completion.more.extend(related.filter(joins).cloned());
        }
        completion.more.retain(|path| !taken.contains(path));
        completion
    }

    /// Marks what a job returned. If something was moved there since, its size is unknown.
    pub fn put_back(&mut self, item: &Item) {
        let is_moved = self.pending.holds(&item.path) && self.moves.origin(&item.path).is_some();
        let mark = Mark { large: item.mark.large && !is_moved, ..item.mark };
        self.pending.mark(&item.path, mark);
    }

    /// The moved ones of these items: (new, old).
    pub fn moves_of(&self, items: &[Item]) -> Vec<(RelPath, RelPath)> {
        let moved = |item: &Item| Some((item.path.clone(), self.moves.origin(&item.path)?.clone()));
        items.iter().filter_map(moved).collect()
    }

    /// Forgets the move hints of a delivered item. If the path is pending again, its hint is a new one.
    pub fn forget_moves(&mut self, item: &Item) {
        if !self.pending.holds(&item.path) {
            self.moves.take(&item.path);
        }
        self.moves.forget_below(item);
    }

    /// Keeps at most `max` paths. After a collapse, returns the numbers before and after it.
    pub fn limit(&mut self, max: usize) -> Option<(usize, usize)> {
        self.moves.limit(max);
        self.together.limit(max);
        let from = self.pending.len();
        (from > max.max(1)).then(|| {
            self.pending.collapse(max / 2);
            self.moves.clear();
            self.together.clear();
            self.is_locked = false;
            (from, self.pending.len())
        })
    }

    /// Since when something has been pending, at the earliest.
    pub fn since(&self) -> Option<Now> {
        self.since
    }

    /// Paths were put back that have been pending since then.
    pub fn age(&mut self, since: Option<Now>) {
        if !self.pending.is_empty() {
            self.since = self.since.into_iter().chain(since).min();
        }
    }

    /// Notes since when something has been pending. Call it after each event, before jobs start.
    pub fn note_age(&mut self, now: Now) {
        if self.pending.is_empty() {
            self.since = None;
            self.together.clear();
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }
}
