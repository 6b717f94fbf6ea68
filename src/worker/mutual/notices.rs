//! What the kernel's events say about a job's files: which were renamed here, by a receiving rsync or by something else.
//! Has no state.

use std::time::Duration;

use super::super::look::{Look, Present};
use super::super::moves::is_receivers;
use crate::change::Scope;
use crate::engine::Job;
use crate::engine::pending::{Item, Mark};
use crate::path::RelPath;

/// A job, and how far the kernel's events had been read when it was made.
#[derive(Debug)]
pub struct Notices<'a> {
    /// The job.
    pub job: &'a Job,
    /// By the clock that stamps files. Events after this time may be missing from the job's moves.
    pub known_until: Duration,
}

impl Notices<'_> {
    /// True for a file that an rsync has just received here.
    pub fn arrived(&self, path: &RelPath) -> bool {
        self.origin(path).is_some_and(|old| is_receivers(old, path))
    }

    /// True for a file that something other than a receiving rsync has renamed.
    pub fn was_renamed(&self, path: &RelPath) -> bool {
        self.origin(path).is_some_and(|old| !is_receivers(old, path))
    }

    /// True when the job's moves include the last change of this entry. A younger file may have replaced the renamed one, and its
    /// event is still to come.
    pub fn covers(&self, entry: &Present) -> bool {
        entry.version.is_none_or(|version| version.changed <= self.known_until)
    }

    /// The item of a path.
    pub fn item(&self, path: &RelPath) -> Option<&Item> {
        self.job.items.iter().find(|item| item.path == *path)
    }

    /// The items that an absent path stands for.
    pub fn items_of(&self, path: &RelPath) -> Vec<Item> {
        let items = self.job.items.iter();
        let mut items: Vec<_> = items.filter(|item| item.path.is_within(path)).cloned().collect();
        if !items.iter().any(|item| item.path == *path) {
            items.push(Item { path: path.clone(), mark: Mark::new(Scope::Tree) });
        }
        items
    }

    /// Returns to the engine what was written after the first look: the answer is about an older version.
    pub fn give_back_changed(&self, look: &mut Look, again: &Look) {
        let changed = |entry: &Present| {
            again.present.iter().any(|a| a.path == entry.path && a.version != entry.version)
        };
        for entry in look.present.extract_if(.., |entry| changed(entry)) {
            look.returned.extend(self.item(&entry.path).cloned());
        }
    }

    /// The old name of a path.
    fn origin(&self, path: &RelPath) -> Option<&RelPath> {
        self.job.moves.iter().find(|(new, _)| new == path).map(|(_, old)| old)
    }
}
