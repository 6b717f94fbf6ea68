//! What one remote still has to deliver of what was pending when a flush was requested.
//! Starts nothing: a flush only reports when everything is delivered.

use std::collections::{BTreeSet, HashSet};

use super::JobId;
use super::pending::Item;
use crate::change::Scope;
use crate::path::{RelPath, within};

/// Identifies a flush, over all remotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushId(pub u64);

/// Above this number of paths, the flush waits until the remote owes nothing at all.
const PATHS_MAX: usize = 200_000;

/// The mark of a flush at one remote.
///
/// A job that began before the mark may have read a file before its last change. So such a job settles only its own items, and
/// only jobs that begin later settle the pending paths.
#[derive(Debug)]
pub struct FlushMark {
    pub id: FlushId,
    /// Wait only for what is at, above or below one of these; empty: for everything.
    within: Vec<RelPath>,
    /// Jobs that were in flight.
    jobs: HashSet<JobId>,
    /// Paths that no job has delivered yet.
    paths: BTreeSet<RelPath>,
    /// A full sync is under way or due.
    waits_for_full_sync: bool,
    /// There were too many paths to remember them.
    waits_for_all: bool,
}

impl FlushMark {
    pub fn new(id: FlushId, within: Vec<RelPath>) -> Self {
        let (jobs, paths) = (HashSet::new(), BTreeSet::new());
        let (waits_for_full_sync, waits_for_all) = (false, false);
        Self { id, within, jobs, paths, waits_for_full_sync, waits_for_all }
    }

    fn concerns(&self, path: &RelPath) -> bool {
        let near = |within: &RelPath| path.is_within(within) || within.is_within(path);
        self.within.is_empty() || self.within.iter().any(near)
    }

    /// Adds a path that no job has delivered yet.
    pub fn add(&mut self, path: RelPath) {
        if self.waits_for_all || !self.concerns(&path) {
            return;
        }
        self.paths.insert(path);
        if self.paths.len() > PATHS_MAX {
            self.paths.clear();
            self.waits_for_all = true;
        }
    }

    /// Adds a job that was in flight.
    pub fn add_job(&mut self, job: JobId, items: &[Item]) {
        if items.iter().any(|item| self.concerns(&item.path)) {
            self.jobs.insert(job);
        }
    }

    /// A full sync has to end first.
    pub fn add_full_sync(&mut self) {
        self.waits_for_full_sync = true;
    }

    /// A full sync is done.
    pub fn full_sync_done(&mut self) {
        self.waits_for_full_sync = false;
    }

    /// A job has failed: its items wait for another job.
    pub fn job_undone(&mut self, job: JobId, items: &[Item]) {
        if self.jobs.remove(&job) {
            items.iter().for_each(|item| self.add(item.path.clone()));
        }
    }

    /// A job has delivered its items except what is `left`.
    pub fn job_done(&mut self, job: JobId, items: &[Item], left: &[RelPath]) {
        let mut is_touched = self.jobs.remove(&job);
        if !is_touched {
            for item in items {
                is_touched |= self.paths.remove(&item.path);
                if item.mark.scope == Scope::Tree {
                    is_touched |= self.remove_below(&item.path);
                }
            }
        }
        if is_touched {
            left.iter().for_each(|path| self.add(path.clone()));
        }
    }

    fn remove_below(&mut self, tree: &RelPath) -> bool {
        let below = within(self.paths.range(tree.clone()..), tree, |path| path);
        let below: Vec<RelPath> = below.cloned().collect();
        below.iter().for_each(|path| _ = self.paths.remove(path));
        !below.is_empty()
    }

    /// True when everything is delivered; `owes_nothing` says whether the remote owes nothing at all.
    pub fn is_done(&self, owes_nothing: bool) -> bool {
        owes_nothing && !self.waits_for_full_sync
            || self.jobs.is_empty()
                && self.paths.is_empty()
                && !self.waits_for_full_sync
                && !self.waits_for_all
    }

    /// The paths and the jobs that it still waits for.
    pub fn missing(&self) -> (impl Iterator<Item = &RelPath>, impl Iterator<Item = &JobId>) {
        (self.paths.iter(), self.jobs.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pending::Mark;
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn item(text: &str, scope: Scope) -> Item {
        Item { path: path(text), mark: Mark::new(scope) }
    }

    fn mark(within: &[&str], paths: &[&str]) -> FlushMark {
        let mut mark = FlushMark::new(FlushId(0), within.iter().map(|it| path(it)).collect());
        paths.iter().for_each(|it| mark.add(path(it)));
        mark
    }

    #[test]
    fn a_job_that_began_before_takes_away_only_what_it_had_in_hand() {
        let mut mark = mark(&[], &["a"]);
        mark.add_job(JobId(1), &[item("a", Scope::Entry)]);
        mark.job_done(JobId(1), &[item("a", Scope::Entry)], &[]);
        assert!(!mark.is_done(false));
        mark.job_done(JobId(2), &[item("a", Scope::Entry)], &[]);
        assert!(mark.is_done(false));
    }

    #[test]
    fn a_tree_takes_away_what_is_below_it_and_pieces_come_in_its_place() {
        let mut mark = mark(&[], &["d/a", "d/b/c", "da", "e"]);
        mark.job_done(JobId(5), &[item("d", Scope::Tree)], &[path("d/b")]);
        mark.job_done(JobId(6), &[item("e", Scope::Entry), item("da", Scope::Entry)], &[]);
        assert!(!mark.is_done(false));
        mark.job_done(JobId(7), &[item("d/b", Scope::Tree)], &[]);
        assert!(mark.is_done(false));
    }

    #[test]
    fn what_came_later_is_not_waited_for() {
        let mut mark = mark(&[], &["a"]);
        mark.job_done(JobId(3), &[item("new", Scope::Entry)], &[path("new")]);
        mark.job_done(JobId(4), &[item("a", Scope::Entry)], &[]);
        assert!(mark.is_done(false));
    }

    #[test]
    fn a_job_that_came_to_nothing_leaves_its_paths_to_be_waited_for() {
        let mut mark = mark(&["d"], &["x"]);
        let items = [item("d/a", Scope::Entry), item("y", Scope::Entry)];
        mark.add_job(JobId(1), &items);
        mark.job_undone(JobId(1), &items);
        let left: Vec<_> = mark.missing().0.cloned().collect();
        assert_eq!(left, [path("d/a")]);
    }

    #[test]
    fn too_many_paths_are_waited_for_as_all_that_is_owed() {
        let mut mark = mark(&[], &[]);
        (0..=PATHS_MAX).for_each(|n| mark.add(path(&n.to_string())));
        assert!(!mark.is_done(false));
        assert!(mark.is_done(true));
        mark.add_full_sync();
        assert!(!mark.is_done(true));
    }
}
