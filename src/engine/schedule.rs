//! When the next run for a remote may start: at once after a rest, spaced in a stream.
//! Does not know what a run sends.

use std::time::Duration;

use super::Now;

/// Mean distance of runs in a sustained stream. At 80 ms some 70 runs carry 5,000 files in 5 s, at a seventh
/// of the processor time that run after run would cost (docs/INTERNALS.md, "Group commit").
const SPACING: Duration = Duration::from_millis(80);

/// The same for runs with less than [`FEW`] paths: waiting longer would hardly reduce their number.
const SPACING_FEW: Duration = Duration::from_millis(40);

/// Two dozen changes a second are not a stream: each leaves at once.
const FEW: usize = 4;

/// How much may start at once after rest: ten runs with many paths, or about twenty with few.
const BURST: Duration = Duration::from_millis(800);

/// A token bucket of time: each run takes out its spacing, and time refills the bucket up to [`BURST`].
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// How long it takes from `at` until the bucket is full again.
    debt: Duration,
    at: Now,
}

impl Pace {
    /// The earliest time at which a run may start; in the past when one may start now.
    pub fn ready_at(&self) -> Now {
        self.at + (self.debt + SPACING).saturating_sub(BURST)
    }

    /// True when a run may start.
    pub fn is_ready(&self, now: Now) -> bool {
        self.ready_at() <= now
    }

    /// A run of so many paths starts.
    pub fn spend(&mut self, now: Now, paths: usize) {
        let spacing = if paths < FEW { SPACING_FEW } else { SPACING };
        self.debt = self.debt.saturating_sub(now - self.at) + spacing;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Cause, Change, RemoteId, RootId, WatchEvent};
    use crate::engine::{Action, Engine, EngineSetup, Event, Extraneous, JobReport};
    use crate::path::RelPath;

    const START: Duration = Duration::from_secs(100);

    /// How many runs of so many paths start at this moment.
    fn burst(pace: &mut Pace, now: Now, paths: usize) -> u32 {
        let mut runs = 0;
        while pace.is_ready(now) {
            pace.spend(now, paths);
            runs += 1;
        }
        runs
    }

    #[test]
    fn after_rest_a_burst_goes_at_once_then_runs_are_spaced() {
        for (paths, runs, spacing) in [(1, 19, SPACING_FEW), (FEW, 10, SPACING)] {
            let mut pace = Pace::default();
            assert_eq!(burst(&mut pace, START, paths), runs);
            let ready = pace.ready_at();
            assert!(ready > START && ready <= START + SPACING, "{ready:?}");
            assert_eq!(burst(&mut pace, ready, paths), 1);
            assert_eq!(pace.ready_at(), ready + spacing);
        }
    }

    #[test]
    fn rest_fills_the_bucket_but_no_more_than_full() {
        let mut pace = Pace::default();
        burst(&mut pace, START, FEW);
        let later = START + Duration::from_secs(3600);
        assert_eq!(burst(&mut pace, later, FEW), 10);
    }

    #[test]
    fn a_change_that_fell_due_between_two_calls_is_not_forgotten() {
        let (root, remote) = (RootId(0), RemoteId(0));
        let mut engine = Engine::new(EngineSetup {
            remotes: vec![root],
            workers: 4,
            pending_max: 100,
            unrecorded: Extraneous::Deleted,
        });
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
        // The deadline does not move while nothing happens.
        now += Duration::from_secs(60);
        assert_eq!(engine.next_deadline(), due);
        let woken = engine.handle(now, Event::DeadlineReached);
        assert!(woken.iter().any(|action| matches!(action, Action::Run(_))));
    }
}
