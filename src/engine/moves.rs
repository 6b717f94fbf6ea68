//! Move hints: the remote can make a new name from its copy under the old name.
//! They only save traffic: without a hint, the data is sent.

use std::collections::BTreeMap;

use super::pending::Item;
use crate::change::Scope;
use crate::path::{RelPath, within};

/// A move whose new name a job did not find, because it was renamed again or deleted. The job touched neither name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneMove {
    /// The name that the job did not find.
    pub new: RelPath,
    /// The name of the copy on the remote.
    pub old: RelPath,
}

/// The hints of one remote, by new name.
#[derive(Debug, Default)]
pub struct MoveHints {
    hints: BTreeMap<RelPath, Hint>,
}

#[derive(Debug)]
struct Hint {
    /// The name of the copy on the remote.
    origin: RelPath,
    /// A job has returned it as undone, so no job gets it again. A move to a third name may still start from its origin.
    is_given_back: bool,
}

impl Hint {
    fn new(origin: RelPath) -> Self {
        Self { origin, is_given_back: false }
    }
}

impl MoveHints {
    /// Notes that the copy of `new` is at `origin`. A file that came back to its copy's name needs no move.
    pub fn note(&mut self, new: RelPath, origin: RelPath) {
        if new == origin {
            self.hints.remove(&new);
            return;
        }
        self.hints.insert(new, Hint::new(origin));
    }

    /// Forgets the hint of one name; returns its origin.
    pub fn take(&mut self, new: &RelPath) -> Option<RelPath> {
        self.hints.remove(new).map(|hint| hint.origin)
    }

    /// Where a job finds the copy of `new`.
    pub fn origin(&self, new: &RelPath) -> Option<&RelPath> {
        self.hints.get(new).filter(|hint| !hint.is_given_back).map(|hint| &hint.origin)
    }

    /// Where the copy of `new` is, if a job has returned its move as undone.
    pub fn given_back(&self, new: &RelPath) -> Option<&RelPath> {
        self.hints.get(new).filter(|hint| hint.is_given_back).map(|hint| &hint.origin)
    }

    /// Takes back an undone move. If the file was renamed again, returns its third name and where its copy is.
    pub fn give_back(&mut self, undone: UndoneMove) -> Option<(RelPath, RelPath)> {
        let UndoneMove { new, mut old } = undone;
        let went_on = self.hints.iter().find(|(_, hint)| hint.origin == new);
        let went_on = went_on.map(|(name, _)| name.clone());
        let hint = self.hints.entry(new).or_insert_with(|| Hint::new(old.clone()));
        // Another file may have been moved to the new name since.
        hint.is_given_back |= hint.origin == old;
        let name = went_on?;
        // The move to its old name may be undone too: follow the chain to the copy.
        while self.hints.get(&old).is_some_and(|hint| hint.is_given_back)
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
            self.hints.remove(&path);
        }
    }

    /// Drops all hints when there are more than `max`.
    pub fn limit(&mut self, max: usize) {
        if self.hints.len() > max {
            self.clear();
        }
    }

    /// Drops all hints.
    pub fn clear(&mut self) {
        self.hints.clear();
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
