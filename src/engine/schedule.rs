//! When the next run for a remote may start: at once after rest, spaced when runs come fast.
//! Does not know what the run holds.

use std::time::Duration;

use super::Now;

/// Runs that may start at once after rest.
const BURST: u32 = 10;

/// Mean distance of runs in a sustained stream. At 80 ms some 70 runs carry 5,000 files in 5 s, at a seventh
/// of the processor time that run after run would cost (docs/ARCHITECTURE.md, "Group commit").
const SPACING: Duration = Duration::from_millis(80);

/// A bucket of permits: one is spent by a run, one comes back every [`SPACING`], at most [`BURST`] are kept.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// What is missing in the bucket, in time until it is full again, as of `at`.
    debt: Duration,
    at: Now,
}

impl Pace {
    /// The earliest time at which a run may start; in the past when one may start now.
    pub fn ready_at(&self) -> Now {
        self.at + (self.debt + SPACING).saturating_sub(SPACING * BURST)
    }

    /// True when a run may start.
    pub fn is_ready(&self, now: Now) -> bool {
        self.ready_at() <= now
    }

    /// Spends a permit.
    pub fn spend(&mut self, now: Now) {
        self.debt = self.debt.saturating_sub(now - self.at) + SPACING;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Cause, Change, RemoteId, RootId, WatchEvent};
    use crate::engine::{Action, Engine, Event, JobReport, Setup};
    use crate::path::RelPath;

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn after_rest_a_burst_goes_at_once_then_runs_are_spaced() {
        let mut pace = Pace::default();
        for _ in 0..BURST {
            assert!(pace.is_ready(START));
            pace.spend(START);
        }
        assert!(!pace.is_ready(START));
        assert_eq!(pace.ready_at(), START + SPACING);
        assert!(pace.is_ready(START + SPACING));
    }

    #[test]
    fn rest_fills_the_bucket_but_no_more_than_full() {
        let mut pace = Pace::default();
        pace.spend(START);
        let later = START + Duration::from_secs(3600);
        let mut runs = 0;
        while pace.is_ready(later) {
            pace.spend(later);
            runs += 1;
        }
        assert_eq!(runs, BURST);
    }

    #[test]
    fn a_change_that_fell_due_between_two_calls_is_not_forgotten() {
        let (root, remote) = (RootId(0), RemoteId(0));
        let mut engine =
            Engine::new(Setup { roots: 1, remotes: vec![root], workers: 4, pending_max: 100 });
        let mut now = Duration::from_secs(1);
        let change = |name: String| {
            let path = RelPath::new(name.as_bytes()).unwrap_or_default();
            let changes = vec![Change::entry(path, Cause::CloseWrite)];
            Event::Watch(WatchEvent::changed(root, changes))
        };
        // So many changes at once that the next one has to wait for the pace.
        for count in 0..100 {
            let actions = engine.handle(now, change(format!("f{count}")));
            let Some(Action::Run(job)) = actions.into_iter().next() else { break };
            assert_eq!(job.remote, remote);
            engine.handle(now, Event::JobDone(job.id, JobReport::done()));
        }
        let due = engine.next_deadline();
        assert!(due.is_some_and(|due| due > now), "it waits: {due:?}");
        // Whoever asks late gets the same answer.
        now += Duration::from_secs(60);
        assert_eq!(engine.next_deadline(), due);
        let woken = engine.handle(now, Event::DeadlineReached);
        assert!(woken.iter().any(|action| matches!(action, Action::Run(_))));
    }
}
