//! Paths that are to be looked at again a little later.
//! Knows no reason; does not start anything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Now;
use super::mark::{Item, Mark};
use crate::path::RelPath;

/// What a worker left alone is looked at again after so long.
pub const POSTPONED: Duration = Duration::from_secs(2);

/// What is looked at again after a while, by path.
#[derive(Debug, Default)]
pub struct Postponed {
    paths: BTreeMap<RelPath, (Now, Mark)>,
    /// Nothing is due before this.
    earliest: Option<Now>,
}

impl Postponed {
    /// Notes what is to be looked at again at `due`; what was noted before waits until then, too.
    pub fn add(&mut self, due: Now, items: &[Item]) {
        for Item { path, mark } in items {
            let known = self.paths.entry(path.clone()).or_insert((due, *mark));
            *known = (due.max(known.0), known.1.merge(*mark));
        }
        if !items.is_empty() {
            self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        }
    }

    /// Lets all of them wait until `due` at least.
    pub fn put_off(&mut self, due: Now) {
        for (at, _) in self.paths.values_mut() {
            *at = due.max(*at);
        }
        self.earliest = self.paths.values().map(|(due, _)| *due).min();
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

    /// When the path is due, or the nearest above it.
    pub fn due_above(&self, path: &RelPath) -> Option<Now> {
        let mut above = (!self.paths.is_empty()).then(|| path.clone());
        while let Some(path) = above {
            if let Some((due, _)) = self.paths.get(&path) {
                return Some(*due);
            }
            above = path.parent();
        }
        None
    }

    /// What stands at the path or below it, each with when it is due.
    pub fn within<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = (Now, Item)> + 'a {
        // What is below a path stands after it, among others whose bytes begin alike.
        let near = self.paths.range(path.clone()..);
        let near = near.take_while(|(at, _)| at.as_bytes().starts_with(path.as_bytes()));
        let within = near.filter(|(at, _)| at.is_within(path));
        within.map(|(at, (due, mark))| (*due, Item { path: at.clone(), mark: *mark }))
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
        postponed.add(POSTPONED, &[item("a"), item("b")]);
        postponed.add(POSTPONED + second, &[item("a")]);
        assert!(postponed.take_due(second).is_empty());
        assert_eq!(postponed.next_due(), Some(POSTPONED));
        assert_eq!(postponed.take_due(POSTPONED), [item("b")]);
        assert_eq!(postponed.items().collect::<Vec<_>>(), [item("a")]);
        assert_eq!(postponed.take_due(POSTPONED + second), [item("a")]);
        assert_eq!((postponed.next_due(), postponed.count()), (None, 0));
        postponed.add(second, &[item("a")]);
        postponed.put_off(2 * second);
        assert_eq!((postponed.next_due(), postponed.take_due(second)), (Some(2 * second), vec![]));
        assert_eq!(postponed.take_due(2 * second), [item("a")]);
    }
}
