//! Whether copies may lose what their root lacks, and which directories have to be compared once more when they may.
//! Single paths are not asked about: somebody saw each of them go.

use std::collections::BTreeMap;

use super::pending::{Item, Mark};
use crate::change::Scope;
use crate::path::RelPath;

/// Directories that are remembered one by one; more become the whole tree.
const OWED_MAX: usize = 10_000;

/// Whether what is extraneous in whole directories may be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletions {
    /// It may.
    #[default]
    Allowed,
    /// That is being found out: full syncs wait, and what must not wait is sent without deletions.
    Undecided,
    /// It may not, until somebody says so: everything is sent without deletions.
    Withheld,
}

/// What one remote's copies may lose.
#[derive(Debug, Default)]
pub struct DeletionGate {
    verdict: Deletions,
    /// Compared without deletions, or not at all.
    owed: BTreeMap<RelPath, Mark>,
}

impl DeletionGate {
    /// What is owed and may be done now.
    pub fn decide(&mut self, verdict: Deletions) -> Vec<Item> {
        self.verdict = verdict;
        if verdict != Deletions::Allowed {
            return Vec::new();
        }
        let owed = std::mem::take(&mut self.owed);
        owed.into_iter().map(|(path, mark)| Item { path, mark }).collect()
    }

    pub fn is_allowed(&self) -> bool {
        self.verdict == Deletions::Allowed
    }

    /// True while a full sync has to wait.
    pub fn is_undecided(&self) -> bool {
        self.verdict == Deletions::Undecided
    }

    /// What was sent without deletions, or is not sent before it is decided.
    pub fn owe(&mut self, item: &Item) {
        if item.mark.scope == Scope::Entry || self.owes_everything() {
            return;
        }
        let known = self.owed.entry(item.path.clone()).or_insert(item.mark);
        *known = known.merge(item.mark);
        if self.owed.len() > OWED_MAX {
            let compare_content = self.owed.values().any(|mark| mark.compare_content);
            let whole_tree = Mark { compare_content, ..Mark::new(Scope::Tree) };
            self.owed = BTreeMap::from([(RelPath::root(), whole_tree)]);
        }
    }

    /// The root's set of names alone is not everything.
    fn owes_everything(&self) -> bool {
        self.owed.get(&RelPath::root()).is_some_and(|mark| mark.scope == Scope::Tree)
    }

    pub fn owed(&self) -> impl Iterator<Item = Item> {
        self.owed.iter().map(|(path, mark)| Item { path: path.clone(), mark: *mark })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, scope: Scope) -> Item {
        Item { path: RelPath::new(path.as_bytes()).unwrap(), mark: Mark::new(scope) }
    }

    #[test]
    fn what_was_sent_without_deletions_is_owed_until_they_are_allowed() {
        let mut deletion_gate = DeletionGate::default();
        assert!(deletion_gate.is_allowed());
        assert_eq!(deletion_gate.decide(Deletions::Undecided), []);
        deletion_gate.owe(&item("a", Scope::Listing));
        deletion_gate.owe(&item("a", Scope::Tree));
        deletion_gate.owe(&item("b", Scope::Entry));
        assert_eq!(deletion_gate.decide(Deletions::Withheld), []);
        assert_eq!(deletion_gate.owed().collect::<Vec<_>>(), [item("a", Scope::Tree)]);
        assert_eq!(deletion_gate.decide(Deletions::Allowed), [item("a", Scope::Tree)]);
        assert_eq!(deletion_gate.owed().next(), None);
    }

    #[test]
    fn the_names_of_the_root_do_not_stand_for_what_is_below_it() {
        let mut deletion_gate = DeletionGate::default();
        deletion_gate.owe(&item("", Scope::Listing));
        deletion_gate.owe(&item("a", Scope::Tree));
        let both = [item("", Scope::Listing), item("a", Scope::Tree)];
        assert_eq!(deletion_gate.owed().collect::<Vec<_>>(), both);
    }

    #[test]
    fn too_many_directories_become_the_whole_tree() {
        let mut deletion_gate = DeletionGate::default();
        for name in 0..=OWED_MAX {
            deletion_gate.owe(&item(&name.to_string(), Scope::Tree));
        }
        deletion_gate.owe(&item("more", Scope::Tree));
        assert_eq!(deletion_gate.owed().collect::<Vec<_>>(), [item("", Scope::Tree)]);
    }
}
