//! Paths that one job has to send together: the names of one file, which rsync links (`-H`) only if one list holds them all.
//! Workers find these groups; a group is forgotten when a job has taken it. Without it, a worker finds it again.

use std::collections::{BTreeSet, HashSet};

use super::locks::PathLocks;
use crate::path::RelPath;

/// The groups of one remote.
#[derive(Debug, Default)]
pub struct Together {
    groups: Vec<Vec<RelPath>>,
}

/// What a batch needs so that its groups are complete.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// These join the batch.
    pub more: BTreeSet<RelPath>,
    /// These leave it: they, or a path of their group, have to wait.
    pub waiting: HashSet<RelPath>,
}

impl Together {
    /// True when there are no groups.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds groups.
    pub fn note(&mut self, groups: Vec<Vec<RelPath>>) {
        self.groups.extend(groups);
    }

    /// Adds to `completion` what a batch of the paths `taken` needs, and forgets the groups that it takes. A group of which another
    /// job has a path, or of which a path waits already, waits as a whole.
    pub fn complete(
        &mut self,
        taken: &HashSet<RelPath>,
        locks: &PathLocks,
        completion: &mut Completion,
    ) {
        self.groups.retain(|group| {
            if !group.iter().any(|path| taken.contains(path)) {
                return true;
            }
            let missing = || group.iter().filter(|path| !taken.contains(*path));
            let waits = missing().any(|path| locks.keeps_back(path))
                || group.iter().any(|path| completion.waiting.contains(path));
            if waits {
                completion.waiting.extend(group.iter().cloned());
            } else {
                completion.more.extend(missing().cloned());
            }
            waits
        });
    }

    /// Drops all groups when they have more than `max` paths.
    pub fn limit(&mut self, max: usize) {
        if self.groups.iter().map(Vec::len).sum::<usize>() > max {
            self.clear();
        }
    }

    /// Drops all groups.
    pub fn clear(&mut self) {
        self.groups = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Scope;
    use crate::engine::backlog::Backlog;
    use crate::engine::deferred::Deferred;
    use crate::engine::locks::{LockKind, Owner};
    use crate::engine::pending::{Item, Mark};

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn names(items: &[Item]) -> Vec<String> {
        let mut names: Vec<_> = items.iter().map(|item| item.path.to_string()).collect();
        names.sort();
        names
    }

    /// A backlog with these pending paths and groups.
    fn backlog(pending: &[&str], groups: &[&[&str]]) -> Backlog {
        let mut backlog = Backlog::default();
        for name in pending {
            backlog.mark(&path(name), Mark::new(Scope::Entry), &PathLocks::default());
        }
        let group = |names: &&[&str]| names.iter().map(|name| path(name)).collect();
        backlog.together.note(groups.iter().map(group).collect());
        backlog
    }

    #[test]
    fn a_batch_takes_all_paths_of_a_group_however_far_apart_they_are() {
        let free = PathLocks::default();
        let mut backlog = backlog(&["a/1", "b/1", "z/o"], &[&["a/1", "z/o", "y/o"]]);
        assert_eq!(
            names(&backlog.take_batch(&free, &Deferred::default(), 1)),
            ["a/1", "y/o", "z/o"]
        );
        assert!(backlog.together.is_empty());
        assert_eq!(names(&backlog.take_batch(&free, &Deferred::default(), 9)), ["b/1"]);
        assert!(backlog.pending.is_empty());
    }

    #[test]
    fn a_group_waits_while_another_job_has_one_of_its_paths() {
        let mut backlog = backlog(&["a", "b", "c"], &[&["a", "d/o"]]);
        let mut locks = PathLocks::default();
        locks.lock(Owner::Reservation, &path("d"), LockKind::Short);
        assert_eq!(names(&backlog.take_batch(&locks, &Deferred::default(), 9)), ["b", "c"]);
        assert_eq!(names(&backlog.take_batch(&locks, &Deferred::default(), 9)), [""; 0]);
        locks.drop_owner(&Owner::Reservation);
        backlog.search_again();
        assert_eq!(names(&backlog.take_batch(&locks, &Deferred::default(), 9)), ["a", "d/o"]);
    }

    #[test]
    fn a_group_waits_while_the_copy_of_one_of_its_names_is_needed_for_a_move() {
        let mut backlog = backlog(&["a", "b"], &[&["a", "d/o"]]);
        backlog.moves.note(path("n"), path("a"));
        let mut locks = PathLocks::default();
        locks.lock(Owner::Reservation, &path("n"), LockKind::Short);
        assert_eq!(names(&backlog.take_batch(&locks, &Deferred::default(), 9)), ["b"]);
        locks.drop_owner(&Owner::Reservation);
        backlog.search_again();
        assert_eq!(names(&backlog.take_batch(&locks, &Deferred::default(), 9)), ["a", "d/o"]);
    }

    #[test]
    fn groups_cost_a_bounded_amount_of_memory() {
        let mut together = Together::default();
        together.note(vec![vec![path("a"), path("b")]]);
        together.limit(2);
        assert!(!together.is_empty());
        together.limit(1);
        assert!(together.is_empty());
    }
}
