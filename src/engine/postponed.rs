//! Paths that a worker left alone, to be looked at again a little later.
//! Knows no reason; does not start anything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Now;
use super::mark::{Item, Mark};
use crate::path::RelPath;

/// What was left alone is looked at again after so long.
pub const POSTPONED: Duration = Duration::from_secs(2);

/// What is looked at again after a while, by path.
#[derive(Debug, Default)]
pub struct Postponed {
    paths: BTreeMap<RelPath, (Now, Mark)>,
    /// Nothing is due before this.
    earliest: Option<Now>,
}

impl Postponed {
    /// Notes what a worker left alone; what was noted before begins anew.
    pub fn add(&mut self, now: Now, items: &[Item]) {
        let due = now + POSTPONED;
        for Item { path, mark } in items {
            let known = self.paths.entry(path.clone()).or_insert((due, *mark));
            *known = (due, known.1.merge(*mark));
        }
        if !items.is_empty() {
            self.earliest.get_or_insert(due);
        }
    }

    /// What is due.
    pub fn take_due(&mut self, now: Now) -> Vec<Item> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.paths).into_iter().partition(|(_, (due, _))| *due <= now);
        self.paths = later;
        self.earliest = self.paths.values().map(|(due, _)| *due).min();
        due.into_iter().map(|(path, (_, mark))| Item { path, mark }).collect()
    }

    /// When something is due next, or earlier.
    pub fn next_due(&self) -> Option<Now> {
        self.earliest
    }

    /// All of it.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        self.paths.iter().map(|(path, (_, mark))| Item { path: path.clone(), mark: *mark })
    }

    /// How many paths.
    pub fn count(&self) -> usize {
        self.paths.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Scope;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_postponed_comes_again_once_and_the_last_time_counts() {
        let item = |text| Item { path: path(text), mark: Mark::new(Scope::Entry) };
        let mut postponed = Postponed::default();
        let second = Duration::from_secs(1);
        assert_eq!(postponed.next_due(), None);
        postponed.add(Duration::ZERO, &[item("a"), item("b")]);
        postponed.add(second, &[item("a")]);
        assert!(postponed.take_due(second).is_empty());
        assert_eq!(postponed.next_due(), Some(POSTPONED));
        assert_eq!(postponed.take_due(POSTPONED), [item("b")]);
        assert_eq!(postponed.items().collect::<Vec<_>>(), [item("a")]);
        assert_eq!(postponed.take_due(POSTPONED + second), [item("a")]);
        assert_eq!((postponed.next_due(), postponed.count()), (None, 0));
    }
}
