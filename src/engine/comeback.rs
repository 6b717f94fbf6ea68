//! Tests how soon a remote has everything after an outage.
//! Virtual time makes the result exact. Covers the engine alone; `tests/it/faults/outages.rs` uses real daemons.

use std::time::Duration;

use super::pending::{Item, Mark};
use super::{
    Action, Engine, EngineSetup, Event, Extraneous, Job, JobKind, JobReport, Now, Verdict,
};
use crate::change::{Cause, Change, RemoteId, RootId, Scope, WatchEvent};
use crate::failure::{Failure, FailureKind};
use crate::path::RelPath;

const ROOT: RootId = RootId(0);

/// A job that hangs on a dead connection until it is aborted.
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// How a remote fails while it is away.
#[derive(Clone, Copy)]
struct Fails {
    /// The verdict of a job.
    verdict: fn() -> Verdict,
    /// How long that takes.
    takes: Duration,
}

/// One remote. The verdict of a job depends on the remote's state at the job's start.
struct Rig {
    engine: Engine,
    now: Now,
    away: Option<Fails>,
    flying: Vec<(Now, Job, JobReport)>,
}

impl Rig {
    fn new() -> Self {
        let setup = EngineSetup {
            remotes: vec![ROOT],
            workers: 10,
            pending_max: 100_000,
            unrecorded: Extraneous::Deleted,
        };
        let mut rig = Self {
            engine: Engine::new(setup),
            now: Duration::from_secs(1),
            away: None,
            flying: Vec::new(),
        };
        rig.feed(Event::DeadlineReached);
        rig.run(Duration::from_secs(5));
        rig
    }

    fn feed(&mut self, event: Event) {
        for action in self.engine.handle(self.now, event) {
            match action {
                Action::Run(job) => {
                    let (takes, report) = match self.away {
                        None => (Duration::from_millis(60), JobReport::done()),
                        Some(failure) => (failure.takes, JobReport::nothing((failure.verdict)())),
                    };
                    self.flying.push((self.now + takes, job, report));
                }
                Action::Abort(RemoteId(0)) => {
                    for (end, _, report) in &mut self.flying {
                        (*end, *report) = (self.now, JobReport::nothing(Verdict::Stopped));
                    }
                }
                _ => {}
            }
        }
    }

    fn change(&mut self, name: &str) {
        let path = RelPath::new(name.as_bytes()).unwrap();
        let changes = vec![Change::entry(path, Cause::CloseWrite)];
        self.feed(Event::Watch(WatchEvent::changed(ROOT, changes)));
    }

    /// Lets time pass, with a change now and then.
    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let ends = self.flying.iter().map(|(at, ..)| *at).min();
            let due = [ends, self.engine.next_deadline()].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            match self.flying.iter().position(|(at, ..)| *at <= self.now) {
                Some(index) => {
                    let (_, job, report) = self.flying.swap_remove(index);
                    self.feed(Event::JobDone(job.id, report));
                }
                None => self.feed(Event::DeadlineReached),
            }
        }
        self.now = end;
    }

    /// Lets the remote return; measures how long it takes until the remote has everything.
    fn comeback(&mut self) -> Duration {
        self.away = None;
        let back = self.now;
        while self.engine.pending(RemoteId(0)) > 0 || !self.flying.is_empty() {
            self.run(Duration::from_millis(10));
            assert!(self.now - back < Duration::from_secs(600), "it is never caught up");
        }
        self.now - back
    }
}

fn refused() -> Verdict {
    Verdict::Failed(Failure::new(FailureKind::Away, 10, "connection refused"))
}

fn denied() -> Verdict {
    Verdict::Failed(Failure::new(FailureKind::Denied, 5, "refuses user bob"))
}

/// The longest comeback after outages of about `length` that end at different moments.
fn worst_comeback(length: Duration, failure: Fails) -> Duration {
    let tries = (0..40).map(|part| {
        let mut rig = Rig::new();
        rig.away = Some(failure);
        rig.change("first");
        rig.run(length + Duration::from_millis(part * 63));
        rig.change("second");
        rig.comeback()
    });
    tries.max().unwrap()
}

const LIMIT: Duration = Duration::from_secs(3);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_remote_that_answers_again_has_everything_within_three_seconds_however_long_it_was_away() {
    let (at_once, patience) = (Duration::from_millis(1), Duration::from_secs(2));
    for length in [Duration::from_secs(3), HALF_A_MINUTE, HOUR] {
        for takes in [at_once, patience] {
            let worst = worst_comeback(length, Fails { verdict: refused, takes });
            assert!(worst < LIMIT, "{worst:?} after {length:?}, knocks of {takes:?}");
        }
    }
}

#[test]
fn one_that_somebody_mends_has_everything_within_three_seconds_after_half_a_minute() {
    let failure = Fails { verdict: denied, takes: Duration::from_millis(100) };
    assert!(worst_comeback(HALF_A_MINUTE, failure) < LIMIT);
    let rare = worst_comeback(HOUR, failure);
    assert!(rare > LIMIT && rare < Duration::from_secs(80), "{rare:?}");
}

#[test]
fn jobs_that_hang_on_dead_connections_do_not_delay_the_comeback() {
    let mut rig = Rig::new();
    rig.change("big");
    let path = RelPath::new(b"big").unwrap();
    let mark = Mark { large: true, ..Mark::new(Scope::Entry) };
    rig.flying[0].2.returned = vec![Item { path, mark }];
    rig.away = Some(Fails { verdict: refused, takes: FOREVER });
    rig.run(Duration::from_secs(1));
    assert_eq!(rig.flying[0].1.kind, JobKind::Large);
    rig.away = Some(Fails { verdict: refused, takes: Duration::from_millis(1) });
    rig.change("small");
    rig.run(HALF_A_MINUTE);
    assert_eq!(rig.flying.len(), 1, "only what hangs is in flight between two knocks");
    assert!(rig.comeback() < LIMIT);
}
