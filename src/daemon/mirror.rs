//! The main loop: feeds the engine with events, and carries its actions out.
//! Decides nothing itself; the journal is written before an event is acted on.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use super::control::Controls;
use super::deliveries::Deliveries;
use super::ledger::Ledger;
use super::main_event::{MainEvent, ProcessEvent, Walked};
use super::observer::Observer;
use super::reload::{Asked, Reload};
use super::stopping::{Due, Stopping};
use super::teller::Teller;
use super::trust::{Admission, Trust};
use crate::change::WatchEvent;
use crate::config::Loaded;
use crate::control::server::SocketMaker;
use crate::engine::{
    Action, Engine, Event, Extraneous, JobId, JobReport, Notice, Settled, Verdict,
};
use crate::process::signals::Signal;
use crate::record::Observation;
use crate::sys::memory;
use crate::worker::Workers;

/// The parts of a mirror at work.
pub struct Parts {
    /// Decides what starts next.
    pub engine: Engine,
    /// Carry jobs out.
    pub workers: Workers,
    /// What must be acknowledged.
    pub ledger: Ledger,
    /// What may be deleted.
    pub trust: Trust,
    /// Tells the outside.
    pub teller: Teller,
    /// Makes snapshots for whoever wants to know.
    pub observer: Observer,
    /// Puts another configuration in force.
    pub reload: Reload,
}

/// The mirror at work.
pub struct Mirror {
    pub(super) engine: Engine,
    pub(super) workers: Workers,
    pub(super) ledger: Ledger,
    pub(super) trust: Trust,
    pub(super) teller: Teller,
    pub(super) observer: Observer,
    /// What clients of the control socket wait for and hold.
    pub(super) controls: Controls,
    /// What jobs in flight do to their paths.
    deliveries: Deliveries,
    pub(super) reload: Reload,
    /// The mirror ends so that another one with this configuration takes its place.
    pub(super) successor: Option<Loaded>,
    pub(super) stopping: Stopping,
    /// When time began for the engine.
    started: Instant,
}

impl Mirror {
    /// Puts the parts together; time begins now.
    pub fn new(parts: Parts, now: Instant) -> Self {
        let Parts { engine, workers, ledger, trust, teller, observer, reload } = parts;
        Self {
            engine,
            workers,
            ledger,
            trust,
            teller,
            observer,
            controls: Controls::default(),
            deliveries: Deliveries::default(),
            reload,
            successor: None,
            stopping: Stopping::default(),
            started: now,
        }
    }

    /// Works until it is told to stop and nothing is in flight.
    pub fn run(&mut self, events: &Receiver<MainEvent>, of_process: &Receiver<ProcessEvent>) {
        self.handle(Event::DeadlineReached);
        while !self.is_over() {
            let due = self.next_deadline();
            let left = due.map_or(Duration::MAX, |due| due.saturating_sub(self.now()));
            select! {
                recv(events) -> event => match event {
                    Ok(event) => self.wake(event),
                    Err(_) => break,
                },
                recv(of_process) -> event => match event {
                    Ok(event) => self.wake_from_outside(event),
                    Err(_) => break,
                },
                default(left) => self.deadline(),
            }
            self.control_due();
            self.tell_followers();
            self.show_progress();
        }
        self.teller.progress.clear();
        // The record first: it may only say what the journal does not hold any more.
        self.trust.close();
        self.ledger.close();
    }

    fn is_over(&self) -> bool {
        self.stopping.is_over(|| self.ledger.is_acknowledged())
    }

    /// The time since the start, as the engine counts it.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn next_deadline(&self) -> Option<Duration> {
        let deadlines = [
            self.engine.next_deadline(),
            self.stopping.next_deadline(),
            self.observer.next_deadline(),
            self.controls.next_deadline(),
            self.teller.progress.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes in whatever woke the main loop.
    fn wake(&mut self, event: MainEvent) {
        match event {
            MainEvent::Event(event) => self.handle(event),
            MainEvent::JobDone(job, report, observation) => self.job_done(job, report, observation),
            MainEvent::CaughtUp(walked) => {
                self.caught_up(walked);
                self.mark_flushes();
            }
            MainEvent::Counted(counted) => {
                let events = self.trust.counted(&counted);
                self.take_in_all(events);
                self.mark_flushes();
            }
            MainEvent::Merged(root, merged) => {
                let events = self.trust.merged(root, merged);
                self.take_in_all(events);
            }
            MainEvent::StateLost => self.state_lost(),
            MainEvent::Snapshot(request) => self.observer.add(request),
            MainEvent::ConfigurationRead(read) => self.configuration_read(read),
            MainEvent::ListChanged => self.begin_reload(Asked::by_list()),
        }
    }

    fn wake_from_outside(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Signal(signal) => self.signal(signal),
            ProcessEvent::Control(asked) => self.control(asked),
            ProcessEvent::MemoryShort => self.handle(Event::DeadlineReached),
        }
    }

    /// The state directory was deleted, as cleaners of temporary files do.
    fn state_lost(&mut self) {
        let made = self.ledger.make_state_again(&self.engine);
        // By default the log lies there too.
        self.teller.reopen_logs();
        match made {
            Ok(()) => {
                log::error!(
                    "the state directory was deleted while this program runs: it is made again, with all that is pending; \
                     keep cleaners of temporary files away from it (--state-dir DIR names another place)"
                );
                self.trust.start_records_anew();
                if let Some(Err(error)) = self.controls.socket.as_ref().map(SocketMaker::make_again)
                {
                    log::warn!(
                        "cannot make the control socket again: {error}; `sersync2 status` and the other commands do not \
                         reach this instance until it is restarted"
                    );
                }
            }
            Err(error) => log::error!(
                "the state directory was deleted while this program runs, and cannot be made again: {error}; \
                 what is pending is forgotten at exit"
            ),
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reopen => {
                self.teller.reopen_logs();
                // Whoever sends it may have mended something just now, and reads the new log.
                self.handle(Event::Remind);
                self.handle(Event::RetryFailLog);
                self.reload_by_signal();
            }
            Signal::Report => self.teller.report(&self.engine),
            Signal::Stop => {
                log::info!("stopping: what is in flight is finished first");
                crate::process::tell_stopping();
                // A restart that is under way becomes the end.
                self.successor = None;
                self.stopping.order(self.now());
                self.handle(Event::Stop);
            }
        }
    }

    fn deadline(&mut self) {
        if self.stopping.deadline(self.now()) == Due::Abort {
            log::warn!(
                "what is in flight did not end in time and is aborted; the journal keeps it for the next start"
            );
            self.workers.kill();
        }
        if !self.is_over() {
            self.handle(Event::DeadlineReached);
        }
    }

    fn job_done(&mut self, job: JobId, report: JobReport, observation: Option<Observation>) {
        if let (Verdict::Done, Some(observation), Some(root)) =
            (&report.verdict, observation, self.ledger.root_of(job))
            && self.trust.records(root)
        {
            self.ledger.observed(root, observation);
        }
        if let Some(remote) = self.ledger.remote_of(job) {
            let clock = self.clock();
            self.observer.statistics.reported(clock, remote, &report);
            self.teller.failed(clock, remote, &report.failed);
            self.tell_failures(job.0, remote, &report);
        }
        self.deliveries.reported(job, &report);
        self.handle(Event::JobDone(job, report));
        self.ledger.job_ends(job);
        self.workers.job_ends(job);
        self.deliveries.take(job);
    }

    /// A walk is over.
    fn caught_up(&mut self, walked: Walked) {
        // What it found must not be lost when the new record takes the old one's place.
        self.ledger.commit_durably();
        let events = self.trust.caught_up(walked);
        self.take_in_all(events);
    }

    /// Gives an event to the engine, unless something else has to be done first.
    pub fn handle(&mut self, event: Event) {
        match &event {
            Event::Watch(WatchEvent::BarrierReached) => return self.barrier_reached(),
            Event::Watch(WatchEvent::Overflow { .. }) => self.ledger.give_up_waiting(),
            _ => {}
        }
        match (self.trust.admit(&event), event) {
            (Admission::Passes, event) => self.take_in(event),
            (Admission::Walks, Event::Watch(WatchEvent::Overflow { root })) => {
                self.notify(&Notice::Overflow { root });
            }
            (Admission::Walks | Admission::Counts, _) => {}
        }
    }

    pub(super) fn take_in_all(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.take_in(event));
    }

    /// Gives an event to the engine.
    fn take_in(&mut self, event: Event) {
        if memory::take_shortage() {
            self.act_on(Event::MemoryShort);
            memory::release_unused();
        }
        self.observer.note_news();
        self.ledger.record(&event);
        self.teller.changed(&event);
        self.tell_event(&event);
        match &event {
            Event::Watch(WatchEvent::Changed { root, known_until, .. }) => {
                self.workers.know_until(*root, *known_until);
            }
            Event::Watch(WatchEvent::RootBack { root, .. }) => self.trust.renew(*root),
            _ => {}
        }
        self.act_on(event);
        self.ledger.commit();
        self.ledger.compact(&self.engine);
        memory::put_by_reserve();
        self.count_time();
        if !self.ledger.is_comparing() {
            self.trust.walk_postponed();
        }
    }

    fn act_on(&mut self, event: Event) {
        let now = self.now();
        for action in self.engine.handle(now, event) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Run(job) => {
                self.ledger.job_begins(&job);
                self.deliveries.started(&job);
                self.tell_job(&job);
                self.workers.run(job);
            }
            Action::CloseSessions(remote) => {
                self.workers.close_sessions(remote);
                if self.engine.undelivered(remote).next().is_none() {
                    self.workers.forget(remote);
                }
            }
            Action::Abort(remote) => self.workers.abort(remote),
            Action::Settled(settled) => self.settled(&settled),
            Action::Flushed(id) => self.flushed(id),
            Action::FailLogChanged => self.teller.write_fail_log(&self.engine),
            Action::Notify(notice) => self.notify(&notice),
            Action::Finished => {
                self.stopping.finish(self.now());
                self.ledger.ask_for_barrier();
            }
        }
    }

    fn settled(&mut self, settled: &Settled) {
        let clock = self.clock();
        let kinds = self.deliveries.take(settled.job);
        self.tell_settled(settled);
        self.observer.statistics.settled(clock, settled, &kinds);
        if let Some(root) = self.ledger.settled(settled) {
            self.teller.settled(clock, root, settled, &kinds);
        }
    }

    fn notify(&mut self, notice: &Notice) {
        if let Notice::FullSyncDone { remote, extraneous, .. } = notice {
            self.workers.keep_sessions_ready(*remote);
            // Where deletions are withheld, it is owed until they are allowed.
            if *extraneous != Extraneous::Withheld {
                self.ledger.full_sync_done(*remote);
            }
        }
        let (level, sentence) = self.teller.notify(notice);
        self.count_notice(notice, level, &sentence);
    }

    /// The watch thread has told all that happened before some deliveries ended.
    fn barrier_reached(&mut self) {
        let flushes = self.ledger.flushes_told();
        let trust = &mut self.trust;
        self.ledger.acknowledge(|root, observation| trust.append(root, observation));
        self.trust.merge_long_records();
        self.ledger.compact(&self.engine);
        self.flushes_told(&flushes);
    }
}

/// What precedes the main loop, in this order; and what follows it.
impl Mirror {
    /// The configuration that takes the place of this mirror's.
    pub fn take_successor(&mut self) -> Option<Loaded> {
        self.successor.take()
    }

    /// What was asked for and is not answered: the mirror that takes over answers it.
    pub fn unanswered(&mut self) -> Vec<ProcessEvent> {
        let calls = self.unanswered_flushes().into_iter().map(ProcessEvent::call);
        calls.chain(self.unanswered_reloads()).collect()
    }

    /// The configuration in force.
    pub fn loaded(&self) -> &Loaded {
        self.reload.loaded()
    }

    /// Starts what tells others how the mirror is.
    pub fn start_tellers(&mut self) {
        self.reload.start_tellers();
    }

    /// The watches stand. What the record knows is not deleted before a walk has found what is gone.
    pub fn doubt_recorded_roots(&mut self) {
        let events = self.trust.doubt_recorded_roots();
        self.take_in_all(events);
    }

    /// Takes in what happened before the watches stood.
    pub fn wake_early(&mut self, events: Vec<MainEvent>) {
        for event in events {
            match event {
                MainEvent::Event(event) => self.handle(event),
                // No job, walk, count or merge has begun, and nobody has asked for anything.
                MainEvent::JobDone(..)
                | MainEvent::CaughtUp(_)
                | MainEvent::Counted(_)
                | MainEvent::Merged(..)
                | MainEvent::Snapshot(_)
                | MainEvent::ConfigurationRead(_)
                | MainEvent::ListChanged
                // The next sync finds it too.
                | MainEvent::StateLost => {}
            }
        }
    }

    /// Begins the first record, where there is none.
    pub fn begin_records(&self) {
        self.trust.begin_records();
    }

    /// Trusts no root that is another directory than at the last start; `with_walks`: what else changed is looked for later.
    pub fn distrust_changed_roots(&mut self, with_walks: bool) {
        let events = self.trust.distrust_changed_roots();
        self.take_in_all(events);
        self.trust.heed_confirmation(with_walks);
    }

    /// What the last run left in the journal is pending again, and what failed is tried at once.
    pub fn restore(&mut self, restored: Vec<Event>) {
        restored.into_iter().for_each(|event| self.handle(event));
        self.teller.write_fail_log(&self.engine);
    }

    /// Looks for what changed while this program was down.
    pub fn look_for_changes_since_the_last_run(&mut self, with_full_sync: bool) {
        let events = self.trust.look_for_changes_since_the_last_run(with_full_sync);
        self.take_in_all(events);
    }
}
