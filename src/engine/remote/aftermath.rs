//! What a run that was broken off may still do: its receiver works on with what it has got, and what lies in the network arrives late.
//! So what the run had is delivered again at once, and looked at once more when nothing of it can be left.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::change::Scope;
use crate::engine::Now;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::postponed::Postponed;
use crate::path::RelPath;

/// A receiver that has lost its sender is through with what it has got before this.
const SHORTEST: Duration = Duration::from_secs(5);

/// What was sent before the network failed is sent again by the kernel when the network is back, after a pause that is as long as the
/// failure at most; and the kernel gives up before this (Linux, Documentation/networking/ip-sysctl: tcp_orphan_retries).
const LONGEST: Duration = Duration::from_secs(120);

/// So many paths are remembered one by one; more become the whole tree.
const PATHS_MAX: usize = 100_000;

/// What is looked at once more, and when.
#[derive(Debug, Default)]
pub struct Aftermath {
    expected: Postponed,
    /// The directories above: they went along with what they were then.
    above: Postponed,
    /// There were too many of them: it is the whole tree.
    is_whole: bool,
}

impl Aftermath {
    /// The run that had `item` was broken off just now.
    pub fn note(&mut self, now: Now, item: &Item) {
        let due = now + SHORTEST;
        self.add(due, item.clone());
        let mut parent = item.path.parent().filter(|_| !self.is_whole);
        while let Some(path) = parent {
            parent = path.parent();
            self.above.add(due, &[recheck(path, Mark::new(Scope::Entry))]);
        }
    }

    /// Notes that the item is to be looked at once more; returns what stands for it.
    fn add(&mut self, due: Now, item: Item) -> Item {
        let mut item = recheck(item.path, item.mark);
        if self.is_whole || self.expected.count() >= PATHS_MAX {
            if !self.is_whole {
                *self = Self { is_whole: true, ..Self::default() };
            }
            item = recheck(RelPath::root(), Mark::new(Scope::Tree));
        }
        self.expected.add(due, std::slice::from_ref(&item));
        item
    }

    /// The remote answers again, for the first time since `lost`: from now on things may arrive late.
    pub fn begin(&mut self, now: Now, lost: Now) {
        let due = now + (now - lost).clamp(SHORTEST, LONGEST);
        self.expected.put_off(due);
        self.above.put_off(due);
    }

    /// What is to be looked at now.
    pub fn take_due(&mut self, now: Now) -> Vec<Item> {
        let due = [self.expected.take_due(now), self.above.take_due(now)].concat();
        self.is_whole &= self.expected.count() > 0;
        due
    }

    /// When something is due next, or earlier, provided that the remote answers.
    pub fn next_due(&self) -> Option<Now> {
        self.expected.next_due().into_iter().chain(self.above.next_due()).min()
    }

    /// All of it.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        self.expected.items().chain(self.above.items())
    }

    /// Takes in what a job has sent while something is expected: what is new at or below such a path may be lost again with it.
    /// Returns what of it is to be looked at once more.
    pub fn note_sent(&mut self, items: &[Item]) -> Vec<Item> {
        let mut spoilt = Vec::new();
        for item in items.iter().filter(|_| self.expected.count() > 0) {
            let own = self.expected.due_above(&item.path).map(|due| (due, item.clone()));
            spoilt.extend(own);
            if item.mark.scope == Scope::Tree {
                let whole = |(due, below): (Now, Item)| {
                    let mark = Mark { scope: Scope::Tree, ..below.mark };
                    (due, Item { mark, ..below })
                };
                spoilt.extend(self.expected.within(&item.path).map(whole));
            }
        }
        let mut rechecks = BTreeMap::new();
        for (due, item) in spoilt {
            let item = self.add(due, item);
            rechecks.insert(item.path.clone(), item);
        }
        rechecks.into_values().collect()
    }
}

fn recheck(path: RelPath, mark: Mark) -> Item {
    Item { path, mark: Mark { recheck: Recheck::Only, ..mark } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str) -> Item {
        Item { path: RelPath::new(path.as_bytes()).unwrap(), mark: Mark::new(Scope::Entry) }
    }

    fn due(aftermath: &mut Aftermath, now: Now) -> Vec<String> {
        aftermath.take_due(now).iter().map(|item| item.path.to_string()).collect()
    }

    #[test]
    fn the_longer_the_network_was_away_the_later_is_what_arrives_late() {
        let seconds = Duration::from_secs;
        for (lost, waits) in [(1, SHORTEST), (60, seconds(60)), (1_000, LONGEST)] {
            let mut aftermath = Aftermath::default();
            aftermath.note(seconds(1), &item("a"));
            let back = seconds(1 + lost);
            aftermath.begin(back, seconds(1));
            assert_eq!(aftermath.next_due(), Some(back + waits));
            assert_eq!(due(&mut aftermath, back + waits - seconds(1)), [""; 0]);
            assert_eq!(due(&mut aftermath, back + waits), ["a", "./"]);
            assert_eq!(aftermath.next_due(), None);
        }
    }

    #[test]
    fn what_is_delivered_meanwhile_where_something_is_expected_is_looked_at_too() {
        let mut aftermath = Aftermath::default();
        ["a", "d/b"].iter().for_each(|path| aftermath.note(Duration::ZERO, &item(path)));
        let mut spoilt = |delivered: Item| {
            let items = aftermath.note_sent(&[delivered]);
            items.iter().map(|item| (item.path.to_string(), item.mark.scope)).collect::<Vec<_>>()
        };
        assert_eq!(spoilt(item("d")), []);
        assert_eq!(spoilt(item("d/b/new")), [("d/b/new".into(), Scope::Entry)]);
        let tree = Item { mark: Mark::new(Scope::Tree), ..item("d") };
        let both = ["d/b", "d/b/new"].map(|path| (path.to_string(), Scope::Tree));
        assert_eq!(spoilt(tree), both);
        assert_eq!(due(&mut aftermath, SHORTEST), ["a", "d/b", "d/b/new", "./", "d"]);
        assert_eq!(aftermath.note_sent(&[item("a")]), []);
    }

    #[test]
    fn too_many_paths_become_the_whole_tree() {
        let mut aftermath = Aftermath::default();
        (0..PATHS_MAX + 10).for_each(|n| aftermath.note(Duration::ZERO, &item(&n.to_string())));
        let items: Vec<_> = aftermath.items().collect();
        assert_eq!((items.len(), items[0].path.clone()), (1, RelPath::root()));
        assert_eq!(items[0].mark.scope, Scope::Tree);
        let sent: Vec<_> = (0..10).map(|n| item(&format!("new/{n}"))).collect();
        assert_eq!(aftermath.note_sent(&sent), items);
        assert_eq!(due(&mut aftermath, SHORTEST), ["./"]);
        aftermath.note(SHORTEST, &item("a"));
        assert_eq!(due(&mut aftermath, 2 * SHORTEST), ["a", "./"]);
    }
}
