//! Move hints: the remote can make a new name from its copy under the old name.
//! They only save traffic: without a hint, the data is sent.

use std::collections::{BTreeMap, HashMap};

use super::pending::Item;
use crate::change::Scope;
use crate::path::{RelPath, within};

/// Longer chains of moves are not followed.
const CHAIN_MAX: usize = 64;

/// A move whose new name a job did not find, because it was renamed again or deleted. The job touched neither name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneMove {
    /// The name that the job did not find.
    pub new: RelPath,
    /// The name of the copy on the remote.
    pub old: RelPath,
}

/// The hints of one remote, by new name.
///
/// Invariant: `takers` leads from each origin to a new name whose hint has that origin.
#[derive(Debug, Default)]
pub struct MoveHints {
    hints: BTreeMap<RelPath, Hint>,
    /// Which new name needs the copy at an origin.
    takers: HashMap<RelPath, RelPath>,
}

#[derive(Debug)]
struct Hint {
    /// The name of the copy on the remote.
    origin: RelPath,
    /// Its file is no longer at the new name, as was reported or a job has found. So no job gets it, but a move to a third name
    /// may still start from its origin.
    is_left: bool,
}

impl MoveHints {
    /// Notes that the copy of `new` is at `origin`. A file that came back to its copy's name needs no move.
    pub fn note(&mut self, new: RelPath, origin: RelPath) {
        self.take(&new);
        if new != origin {
            self.takers.entry(origin.clone()).or_insert_with(|| new.clone());
            self.hints.insert(new, Hint { origin, is_left: false });
        }
    }

    /// Forgets the hint of one name; returns its origin.
    pub fn take(&mut self, new: &RelPath) -> Option<RelPath> {
        let origin = self.hints.remove(new)?.origin;
        if self.takers.get(&origin) == Some(new) {
            self.takers.remove(&origin);
        }
        Some(origin)
    }

    /// Where a job finds the copy of `new`.
    pub fn origin(&self, new: &RelPath) -> Option<&RelPath> {
        self.hints.get(new).filter(|hint| !hint.is_left).map(|hint| &hint.origin)
    }

    /// The file is no longer at its new name.
    pub fn leave(&mut self, new: &RelPath) {
        if let Some(hint) = self.hints.get_mut(new) {
            hint.is_left = true;
        }
    }

    /// Where the copy of `new` is, if the file is no longer there.
    pub fn left(&self, new: &RelPath) -> Option<&RelPath> {
        self.hints.get(new).filter(|hint| hint.is_left).map(|hint| &hint.origin)
    }

    /// The names that need the copy at `path`, each with what it needs in turn: after `mv b c; mv a b`, `a` is needed by `b` and
    /// that by `c`.
    pub fn takers<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let next = |path: &&RelPath| self.takers.get(*path);
        std::iter::successors(self.takers.get(path), next)
            .take_while(move |taker| *taker != path)
            .take(CHAIN_MAX)
    }

    /// The copies that `path` needs, nearest first: its origin, and the origin of that.
    pub fn origins<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        std::iter::successors(self.origin(path), |path| self.origin(path))
            .take_while(move |origin| *origin != path)
            .take(CHAIN_MAX)
    }

    /// Takes back an undone move. If the file was renamed again, returns its third name and where its copy is.
    pub fn give_back(&mut self, undone: UndoneMove) -> Option<(RelPath, RelPath)> {
        let UndoneMove { new, mut old } = undone;
        let third = self.takers.get(&new).cloned();
        // Another file may have been moved to the new name since: then its hint stays.
        if self.hints.get(&new).is_none_or(|hint| hint.origin == old) {
            self.take(&new);
            if third.is_none() {
                self.note(new.clone(), old.clone());
                self.leave(&new);
            }
        }
        let name = third?;
        // The move to its old name may be undone too: follow the chain to the copy.
        while self.left(&old).is_some()
            && let Some(origin) = self.take(&old)
        {
            old = origin;
        }
        self.note(name.clone(), old.clone());
        Some((name, old))
    }

    /// Forgets the hints of what was delivered below a tree.
    pub fn forget_below(&mut self, item: &Item) {
        if item.mark.scope != Scope::Tree || self.hints.is_empty() {
            return;
        }
        let below = within(self.hints.range(item.path.clone()..), &item.path, |(path, _)| path);
        for path in below.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.take(&path);
        }
    }

    /// Drops all hints when there are more than `max`.
    pub fn limit(&mut self, max: usize) {
        if self.hints.len() > max {
            self.clear();
        }
    }

    /// True when there are no hints.
    pub fn is_empty(&self) -> bool {
        self.hints.is_empty()
    }

    /// Drops all hints.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.hints.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_to_where_its_copy_is_needs_no_move() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let mut moves = MoveHints::default();
        moves.note(path("b"), path("a"));
        moves.note(path("a"), path("b"));
        let undone = UndoneMove { new: path("b"), old: path("a") };
        assert_eq!(moves.give_back(undone), Some((path("a"), path("a"))));
        assert_eq!(moves.origin(&path("a")), None);
    }
}
