//! Changes and faults of sources, roots and remotes, which the seed plans.
//! `workers.rs` has what the workers do.

use super::*;

impl World {
    /// Plans what happens, when, and how often.
    pub(super) fn plan_faults(&mut self) {
        let end = self.rng.ms(100, 60_000);
        self.end = end;
        let plan = |world: &mut World, most: u64, wake: Wake| {
            let count = world.rng.below(most + 1);
            for _ in 0..count {
                let at = world.rng.ms(0, end.as_millis() as u64);
                world.wake_at(at, wake.clone());
            }
        };
        plan(self, 120, Wake::Change);
        for root in (0..self.sources.len()).map(RootId) {
            plan(self, 2, Wake::Root(root));
            plan(self, 2, Wake::Overflow(root));
            for verdict in [Deletions::Undecided, Deletions::Withheld, Deletions::Allowed] {
                plan(self, 2, Wake::Deletions(root, verdict));
            }
        }
        for remote in (0..self.remotes.len()).map(RemoteId) {
            plan(self, 4, Wake::Health(remote));
            plan(self, 3, Wake::Refuse(remote));
            plan(self, 4, Wake::Swap(remote));
        }
        plan(self, 2, Wake::Crash);
        plan(self, 2, Wake::RetryFailLog);
        plan(self, 2, Wake::FullSync(FullSyncCause::Start));
        plan(self, 1, Wake::FullSync(FullSyncCause::Schedule));
    }

    pub(super) fn change(&mut self) {
        let root = self.rng.below(self.sources.len() as u64) as usize;
        self.sources[root].change(&mut self.rng);
        self.wake_in(0, 100, Wake::Hints(RootId(root)));
    }

    pub(super) fn send_hints(&mut self, root: RootId) {
        let source = &mut self.sources[root.0];
        if std::mem::take(&mut source.overflowed) {
            self.feed(Event::Watch(WatchEvent::Overflow { root }));
        }
        let source = &mut self.sources[root.0];
        let changes = source.take_hints(&mut self.rng);
        if !self.sources[root.0].hints.is_empty() {
            self.wake_in(1, 200, Wake::Hints(root));
        }
        if !changes.is_empty() {
            self.say(|| format!("  {changes:?}"));
            self.feed(Event::Watch(WatchEvent::changed(root, changes)));
            self.check_bounded(root);
        }
    }

    pub(super) fn decide_deletions(&mut self, root: RootId, verdict: Deletions) {
        self.deletions[root.0] = verdict;
        self.feed(Event::Deletions(root, verdict));
        for remote in (0..self.remotes.len()).map(RemoteId) {
            self.check_nothing_is_forgotten(remote);
        }
    }

    pub(super) fn flip_root(&mut self, root: RootId) {
        let source = &mut self.sources[root.0];
        source.gone = !source.gone;
        if source.gone {
            source.blinked = true;
            source.hints.clear();
        }
        self.wake_in(0, 500, Wake::RootSeen(root));
    }

    pub(super) fn root_seen(&mut self, root: RootId) {
        let blinked = std::mem::take(&mut self.sources[root.0].blinked);
        if blinked && !self.lost[root.0] {
            self.lost[root.0] = true;
            let reason = "unmounted".into();
            self.feed(Event::Watch(WatchEvent::RootLost {
                root,
                loss: crate::change::RootLoss::Gone(reason),
            }));
        }
        if self.lost[root.0] && !self.sources[root.0].gone {
            self.lost[root.0] = false;
            self.feed(Event::Watch(WatchEvent::RootBack { root, replaced: false }));
        }
    }
}
