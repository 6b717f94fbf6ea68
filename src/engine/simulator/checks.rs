//! Checks of the invariants of docs/ARCHITECTURE.md: at every job, after every step, and at the end.
//! Changes nothing.

use super::*;
use crate::engine::deferred::KINDS;
use model::Tree;

impl World {
    /// Checks that a job may start: invariants 3 (no overlap), 4 (a remote that is down holds one worker), 6 (nothing is sent
    /// from a lost root).
    pub(super) fn check_job(&self, job: &Job) {
        let workers = self.engine.setup.workers;
        assert!(self.at_work() < workers, "no worker is free for {job:?}");
        assert!(!self.lost[job.root.0], "{job:?} leaves a lost root");
        assert_eq!(job.root, self.remotes[job.remote.0].root);
        assert_eq!(job.items.is_empty(), job.kind.is_question());
        let deletions = self.deletions[job.root.0];
        let only_adds = job.items.iter().any(Item::only_adds);
        let deletes = deletions == Deletions::Allowed && !only_adds;
        assert_eq!(job.deletes_below, deletes, "{job:?} deletes");
        let compares = matches!(job.kind, JobKind::Trees(_));
        assert!(!compares || deletions != Deletions::Undecided, "{job:?} does not wait");
        let long = matches!(job.kind, JobKind::Large | JobKind::Trees(_));
        assert!(
            !long || workers == 1 || self.at_work() + 1 < workers,
            "no worker is left for small things beside {job:?}"
        );
        for (index, item) in job.items.iter().enumerate() {
            let twice = job.items[..index].iter().any(|i| i.path == item.path);
            assert!(!twice, "{item:?} stands twice in its job");
        }
        for other in self.flights_of(job.remote) {
            assert!(
                !self.is_doubtful(job.remote) || job.kind.is_question(),
                "{job:?} starts beside {other:?} although the remote is down"
            );
            let opened = &self.flying[&other.id].opened;
            for a in &job.items {
                let beside = |b: &Item| a.path != b.path && opened.contains(&b.path);
                let overlaps =
                    |b: &Item| a.path.is_within(&b.path) && !beside(b) || b.path.is_within(&a.path);
                let clash = other.items.iter().find(|b| overlaps(b));
                assert!(clash.is_none(), "{a:?} overlaps {clash:?} in flight");
            }
        }
    }

    /// Jobs that do not wait for their remotes.
    fn at_work(&self) -> usize {
        self.flying.values().filter(|flying| !flying.is_waiting).count()
    }

    fn flights_of(&self, remote: RemoteId) -> impl Iterator<Item = &Job> {
        let all = self.flying.values().map(|flying| &flying.job);
        all.filter(move |job| job.remote == remote)
    }

    pub(super) fn is_doubtful(&self, remote: RemoteId) -> bool {
        self.remotes[remote.0].told_down || !self.remotes[remote.0].known
    }

    /// Checks after every step that no remote starves, no wake-up is lost, and each change of the fail log is announced.
    pub(super) fn check_state(&self) {
        assert_eq!(self.fail_log, self.fail_log_now(), "the fail log changed without a word");
        for id in (0..self.remotes.len()).map(RemoteId) {
            assert_eq!(self.engine.owed(id), self.engine.undelivered(id).count());
            for (path, failing, due) in self.engine.failing(id) {
                let mut undelivered = self.engine.undelivered(id);
                let is_tried = undelivered.any(|item| item.covers(path, failing.mark));
                assert!(due.is_some() || is_tried, "{path} fails and is not tried again");
            }
        }
        let workers = self.engine.setup.workers;
        let free = workers.saturating_sub(self.at_work());
        let deadline = self.engine.next_deadline();
        for (index, remote) in self.remotes.iter().enumerate() {
            let id = RemoteId(index);
            let waits = self.engine.pending(id) > 0 && self.flights_of(id).next().is_none();
            let is_held = self.deletions[remote.root.0] != Deletions::Allowed;
            if !waits || is_held || self.lost[remote.root.0] {
                continue;
            }
            if !self.is_doubtful(id) {
                let too_many = self.flying.values().any(|flying| flying.went_on);
                let scarce = workers < 2 * self.remotes.len() || too_many;
                assert!(free > 0 || scarce, "{id:?} waits for the others' workers");
            }
            // Long jobs, and remotes in doubt, may wait for the jobs of others. Nothing may wait for an event that never comes.
            let alone = self.flying.is_empty();
            let small = self.engine.remotes[index].has_small_work();
            if alone || free > 0 && small && !self.is_doubtful(id) {
                let limit = if alone { 80_000 } else { 1_000 };
                assert!(
                    deadline.is_some_and(|at| at <= self.now + MS * limit),
                    "nothing will wake {id:?}: next deadline {deadline:?} at {:?}",
                    self.now
                );
            }
        }
    }

    /// Invariant 5: memory is bounded.
    pub(super) fn check_bounded(&self, root: RootId) {
        let share = (self.engine.setup.pending_max / self.remotes.len()).max(1);
        for remote in self.engine.remotes.iter().filter(|r| r.root() == root) {
            let (marks, moves) = remote.sizes();
            // Deferred paths have a limit of their own, and may just have become pending.
            let most = share + remote.limits().deferred_paths.max(KINDS);
            assert!(marks <= most, "{marks} marks, although {share} are allowed");
            assert!(moves <= share, "{moves} moves, although {share} are allowed");
        }
    }

    /// Invariant 2: every difference is pending, in flight, in the fail log, or not reported to the engine yet.
    pub(super) fn check_nothing_is_forgotten(&self, id: RemoteId) {
        let remote = &self.remotes[id.0];
        let source = &self.sources[remote.root.0];
        if source.is_unsure() || self.lost[remote.root.0] {
            return;
        }
        let mut items: Vec<_> = self.engine.undelivered(id).collect();
        items.extend(source.unreported());
        for path in source.tree.differences(&remote.copy.tree) {
            assert!(
                items.iter().any(|item| covers(item, &path, &source.tree)),
                "{path} of {id:?} is forgotten: {:?} there, {:?} here; owed: {items:?}",
                remote.copy.tree.get(&path),
                source.tree.get(&path)
            );
        }
    }

    /// Invariant 1: every copy is equal.
    pub(super) fn check_converged(&mut self) {
        for (index, remote) in self.remotes.iter().enumerate() {
            let id = RemoteId(index);
            let source = &self.sources[remote.root.0].tree;
            let differ = source.differences(&remote.copy.tree);
            assert!(differ.is_empty(), "{differ:?} of {id:?} never became equal");
            assert_eq!(self.engine.undelivered(id).next(), None, "owed by {id:?} at the end");
            assert_eq!((self.engine.owed(id), self.engine.pending(id)), (0, 0));
            assert!(!remote.sessions, "the sessions of {id:?} are never closed");
        }
        assert_eq!(self.engine.fail_log(), []);
        assert!(!self.engine.has_full_sync());
        let last = self.engine.handle(self.now, Event::Stop);
        assert_eq!(last, [Action::Finished]);
    }

    pub(super) fn fail_log_now(&self) -> Vec<(RemoteId, RelPath)> {
        let paths = self.engine.fail_log().into_iter();
        paths.filter_map(|e| Some((e.remote, e.path?))).collect()
    }
}

/// True when delivering `item` makes `path` equal.
fn covers(item: &Item, path: &RelPath, source: &Tree) -> bool {
    let Item { path: at, mark } = item;
    if at == path || mark.scope == Scope::Tree && path.is_within(at) {
        // An additive item leaves alone what only the copy has.
        let is_gone = source.get(path).is_none() && source.in_the_way(path).is_none();
        return !(item.only_adds() && is_gone && source.is_dir(at));
    }
    if let Some(file) = source.in_the_way(at) {
        // The file is delivered then, in place of the directory that its copy may hold.
        return path.is_within(&file);
    }
    if let Some(absent) = source.topmost_absent(at) {
        return path.is_within(&absent);
    }
    if at.is_within(path) {
        // rsync sends it as an implied directory.
        return true;
    }
    if !path.is_within(at) {
        return false;
    }
    let listed = mark.scope == Scope::Listing && lists_the_end_of(at, path, source);
    listed || !source.is_dir(at)
}

/// True when a listing of `at` deletes `path` below it.
fn lists_the_end_of(at: &RelPath, path: &RelPath, source: &Tree) -> bool {
    let name = path.components().nth(at.components().count());
    let child = name.and_then(|name| at.join(name));
    child.is_some_and(|child| source.get(&child).is_none())
}
