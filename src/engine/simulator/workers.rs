//! The model of the worker pool: what a job does, when it takes effect, how it ends, and what remains after a crash.
//! `model.rs` has its effect on a tree.

use std::collections::BTreeSet;

use super::*;

impl Flying {
    /// How many swaps there had been when the session of this operation entered its directory; `None` if a run connects for it.
    fn entered_for(&self, item: usize, op: &Op) -> Option<u32> {
        let mark = self.job.items[item].mark;
        let by_name = match op {
            Op::Delete(_) => true,
            Op::Put { .. } => mark.scope == Scope::Entry,
            Op::Only(..) => false,
        };
        self.entered.filter(|_| by_name && mark.recheck != Recheck::Confirm)
    }
}

impl SimulatedRemote {
    /// Carries out an operation in the directory that was entered; returns what failed.
    fn apply(&mut self, entered: Option<u32>, op: &Op) -> Vec<PathFailure> {
        if entered.is_none_or(|swaps| swaps == self.swaps) {
            return self.copy.apply(op);
        }
        // Only the old directory changes, and it refuses nothing. The sender remembers the fresh stamps as after any delivery.
        let mut old = Copy { refused: BTreeSet::new(), ..self.copy.clone() };
        old.apply(op);
        self.copy.fresh = old.fresh;
        Vec::new()
    }
}

impl World {
    pub(super) fn start(&mut self, job: Job) {
        self.check_job(&job);
        let is_trial = self.is_doubtful(job.remote);
        self.remotes[job.remote.0].sessions |= !job.only_confirms();
        let entered = self.session_of(&job);
        let id = job.id;
        let report = JobReport::done();
        let (began, opened, ops, open_ends) = (self.now, Vec::new(), Vec::new(), Vec::new());
        let (is_waiting, went_on) = (false, false);
        self.flying.insert(
            id,
            Flying {
                job,
                began,
                is_trial,
                entered,
                is_waiting,
                went_on,
                opened,
                ops,
                open_ends,
                report,
            },
        );
        self.wake_in(0, 5, Wake::Look(id));
    }

    /// A batch may run in a session that has entered the remote's directory before the last swap.
    fn session_of(&mut self, job: &Job) -> Option<u32> {
        let is_ready = job.kind == JobKind::Batch && !job.only_confirms() && self.rng.chance(1, 2);
        let swaps = self.remotes[job.remote.0].swaps;
        is_ready.then(|| swaps.saturating_sub(self.rng.below(2) as u32))
    }

    /// The worker decides what to do; the seed decides when it takes effect.
    pub(super) fn look(&mut self, id: JobId) {
        let aborted = |flying: &Flying| flying.report.verdict == Verdict::Stopped;
        if self.flying.get(&id).is_none_or(aborted) {
            return;
        }
        let Some(mut flying) = self.flying.remove(&id) else { return };
        let job = &flying.job;
        let remote = &self.remotes[job.remote.0];
        let source = &self.sources[job.root.0];
        let look =
            SimulatedLook { source: &source.tree, kind: job.kind, fresh: &remote.copy.fresh };
        let mut plan = look.plan(&job.items, &mut self.rng);
        if !job.deletes_below {
            plan.ops.iter_mut().for_each(|ops| ops.retain(|op| !matches!(op, Op::Only(..))));
        }
        let undone = look.undone_moves(job);
        for move_ in &undone {
            for (item, ops) in job.items.iter().zip(&mut plan.ops) {
                if [&move_.new, &move_.old].contains(&&item.path) {
                    ops.clear();
                }
            }
        }
        let opened = look.directories(&job.items);
        let mut late = Vec::new();
        let slow = if remote.health == Health::Slow { 100 } else { 1 };
        flying.open_ends = look.open_ends(&job.items, &plan.ops);
        flying.ops = plan.ops;
        flying.report = JobReport { returned: plan.returned, undone, ..JobReport::done() };
        if source.gone {
            flying.report = JobReport::nothing(Verdict::Failed(Failure::source("gone")));
        } else if remote.health == Health::Down {
            flying.report = JobReport::nothing(down());
        } else if !self.calm && self.rng.chance(1, 25) {
            // The run is killed after some of its effects.
            flying.report = JobReport::nothing(down());
            let keep = self.rng.below(flying.ops.len() as u64 + 1) as usize;
            late = flying.ops.split_off(keep);
        } else if !self.calm && self.rng.chance(1, 25) {
            // A run is killed, and another one does all of its work. The data of the first may arrive late.
            late.clone_from(&flying.ops);
            flying.report.aborted = true;
        } else if !self.calm && self.rng.chance(1, 60) {
            let failure = Failure::new(FailureKind::Options, 1, "unknown option");
            flying.report = JobReport::nothing(Verdict::Failed(failure));
            flying.ops.clear();
        }
        let works = !source.gone && remote.health != Health::Down;
        if !works {
            flying.ops.clear();
        }
        if !opened.is_empty() && self.rng.chance(3, 4) {
            self.wake_in(0, 10, Wake::Opened(id, opened));
        }
        if self.rng.chance(1, 3) {
            self.wake_in(0, 10, Wake::Waits(id));
            if self.rng.chance(1, 3) {
                self.wake_in(10, 40, Wake::Works(id));
            }
        }
        let first = self.rng.ms(1, 40) * slow;
        let second = first + self.rng.ms(0, 20) * slow;
        for item in 0..flying.ops.len() {
            let at = if self.rng.chance(1, 2) { first } else { second };
            self.wake_at(self.now + at, Wake::Effect(id, item));
        }
        self.arrive_late(&flying.job, late);
        let hangs = !works && self.rng.chance(1, 3);
        let rest = self.rng.ms(1, if hangs { 30_000 } else { 50 });
        self.wake_at(self.now + second + rest, Wake::Done(id));
        self.flying.insert(id, flying);
    }

    pub(super) fn waits(&mut self, job: JobId) {
        let Some(flying) = self.flying.get_mut(&job) else { return };
        flying.is_waiting = true;
        self.feed(Event::JobWaits(job));
    }

    pub(super) fn works(&mut self, job: JobId) {
        let Some(flying) = self.flying.get_mut(&job) else { return };
        flying.went_on |= std::mem::take(&mut flying.is_waiting);
        self.feed(Event::JobWorks(job));
    }

    pub(super) fn opened(&mut self, job: JobId, directories: Vec<RelPath>) {
        // A worker's messages come in order, never after its report.
        let Some(flying) = self.flying.get_mut(&job) else { return };
        flying.opened.clone_from(&directories);
        self.feed(Event::JobOpened(job, directories));
    }

    /// The worker looks again where a directory may have appeared.
    pub(super) fn note_appeared(&self, flying: &mut Flying) {
        let tree = &self.sources[flying.job.root.0].tree;
        let appeared = flying.open_ends.iter().filter(|path| tree.is_dir(path));
        let trees = appeared.map(|path| Item { path: path.clone(), mark: Mark::new(Scope::Tree) });
        if flying.report.verdict == Verdict::Done {
            flying.report.returned.extend(trees);
        }
    }

    /// Notes what the engine knows of a remote after this job.
    pub(super) fn note_health(&mut self, flying: &Flying) {
        let remote = &mut self.remotes[flying.job.remote.0];
        match flying.report.verdict {
            Verdict::Done if flying.is_trial => {
                if remote.told_down {
                    remote.up_since = self.now;
                }
                remote.told_down = false;
                remote.known = true;
            }
            Verdict::Done | Verdict::Stopped => {}
            _ => remote.told_down |= flying.began >= remote.up_since,
        }
    }

    /// Aborts the jobs in flight for a remote: they do nothing more and end soon.
    pub(super) fn abort(&mut self, remote: RemoteId) {
        let mut aborted = Vec::new();
        for (id, flying) in self.flying.iter_mut().filter(|(_, f)| f.job.remote == remote) {
            let ops = flying.ops.iter_mut().map(std::mem::take).collect();
            flying.report = JobReport::nothing(Verdict::Stopped);
            aborted.push((*id, flying.job.clone(), ops));
        }
        for (id, job, ops) in aborted {
            self.wake_in(0, 20, Wake::Done(id));
            self.arrive_late(&job, ops);
        }
    }

    /// The receiver of an aborted run may apply what it got, as late as the engine allows for.
    fn arrive_late(&mut self, job: &Job, ops: Vec<Vec<Op>>) {
        if job.kind == JobKind::Trees(FullSyncFilter::Crontab) {
            // The next scheduled sync corrects it.
            return;
        }
        let remote = job.remote;
        let ops: Vec<Op> = ops.into_iter().flatten().collect();
        if !ops.is_empty() && self.rng.chance(1, 2) {
            self.wake_in(20, 4_900, Wake::Late(remote, ops));
        }
    }

    /// Nothing arrives while the remote does not answer.
    pub(super) fn late(&mut self, id: RemoteId, ops: Vec<Op>) {
        if self.remotes[id.0].health == Health::Down || self.remotes[id.0].told_down {
            return self.wake_in(50, 500, Wake::Late(id, ops));
        }
        ops.iter().for_each(|op| _ = self.remotes[id.0].copy.apply(op));
        self.check_nothing_is_forgotten(id);
    }

    pub(super) fn effect(&mut self, job: JobId, item: usize) {
        let Some(flying) = self.flying.get_mut(&job) else {
            return;
        };
        let remote = &mut self.remotes[flying.job.remote.0];
        let gone = self.sources[flying.job.root.0].gone;
        if gone || remote.health == Health::Down {
            flying.report = JobReport::nothing(down());
            return;
        }
        let path = &flying.job.items[item].path;
        let tree = &self.sources[flying.job.root.0].tree;
        // rsync looks again: what was deleted since the worker's look is deleted by name.
        let vanished = flying.job.kind == JobKind::Batch
            && !flying.ops[item].is_empty()
            && tree.topmost_absent(path).as_ref() == Some(path)
            && self.rng.chance(1, 2);
        if vanished {
            flying.ops[item] = vec![Op::Delete(path.clone())];
        }
        // A directory that has appeared since is sent as a directory.
        if self.rng.chance(1, 2) {
            for op in &mut flying.ops[item] {
                let path = op.path();
                if flying.open_ends.contains(path)
                    && let Some(thing) = tree.get(path).filter(|_| tree.is_dir(path))
                {
                    *op = Op::Put { path: path.clone(), thing, compare_content: false };
                }
            }
        }
        for op in &flying.ops[item] {
            let entered = flying.entered_for(item, op);
            flying.report.unconfirmed.extend(entered.map(|_| op.path().clone()));
            let is_gone = matches!(op, Op::Delete(gone) if path.is_within(gone));
            flying.report.deleted.extend(is_gone.then(|| path.clone()));
            let failed = remote.apply(entered, op);
            if flying.report.verdict == Verdict::Done {
                flying.report.failed.extend(failed);
            }
        }
    }

    /// kill -9 and a restart: the journal restores what was not delivered, the walk finds what was not reported.
    pub(super) fn crash(&mut self) {
        for flying in std::mem::take(&mut self.flying).into_values() {
            let remote = &mut self.remotes[flying.job.remote.0];
            let works = remote.health != Health::Down && !self.sources[flying.job.root.0].gone;
            if works && self.rng.chance(1, 2) {
                for (item, ops) in flying.ops.iter().enumerate() {
                    ops.iter().for_each(|op| _ = remote.apply(flying.entered_for(item, op), op));
                }
            } else if works {
                self.arrive_late(&flying.job, flying.ops);
            }
        }
        let ours = |wake: &Wake| {
            !matches!(
                wake,
                Wake::Look(_)
                    | Wake::Opened(..)
                    | Wake::Waits(_)
                    | Wake::Works(_)
                    | Wake::Effect(..)
                    | Wake::Done(_)
            )
        };
        self.wakes.retain(|_, wake| ours(wake));
        let mut restored = Vec::new();
        for (index, remote) in self.remotes.iter_mut().enumerate() {
            remote.told_down = false;
            remote.up_since = Now::ZERO;
            remote.known = false;
            remote.sessions = false;
            remote.copy.fresh.clear();
            let mut items: Vec<_> = self.engine.undelivered(RemoteId(index)).collect();
            let source = &self.sources[remote.root.0];
            items.extend(source.unreported());
            if source.is_unsure() || self.lost[remote.root.0] {
                let (path, mark) = (RelPath::root(), Mark::new(Scope::Tree));
                items.push(Item { path, mark });
            }
            items.iter_mut().for_each(|item| item.mark.compare_content = true);
            restored.push(Event::Restored(RemoteId(index), items));
        }
        let setup = self.engine.setup.clone();
        self.engine = new_engine(&mut self.rng, setup);
        self.fail_log.clear();
        for (index, source) in self.sources.iter_mut().enumerate() {
            source.restart();
            self.lost[index] = false;
            self.deletions[index] = Deletions::Allowed;
            if source.gone {
                self.wakes.insert((self.now, 0), Wake::RootSeen(RootId(index)));
            }
            let copies = self.remotes.iter_mut().filter(|remote| remote.root.0 == index);
            copies.for_each(|remote| remote.copy.aged = source.aged);
        }
        for root in (0..self.sources.len()).map(RootId) {
            self.deletions[root.0] = Deletions::Undecided;
            self.feed(Event::Deletions(root, Deletions::Undecided));
            self.wake_in(0, 2_000, Wake::Deletions(root, Deletions::Allowed));
        }
        for event in restored {
            self.feed(event);
        }
        for remote in (0..self.remotes.len()).map(RemoteId) {
            self.check_nothing_is_forgotten(remote);
        }
    }
}

fn down() -> Verdict {
    Verdict::Failed(Failure::new(FailureKind::Away, 12, "connection lost"))
}
