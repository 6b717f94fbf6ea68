//! The main loop: passes events to the engine, and carries out its actions.
//! Decides nothing itself. Writes an event to the journal before anything else handles it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use super::control::Controls;
use super::deliveries::Deliveries;
use super::ledger::Ledger;
use super::main_event::{MainEvent, ProcessEvent, Walked};
use super::observer::Observer;
use super::reload::{Reload, ReloadRequest};
use super::stopping::{Due, Stopping};
use super::teller::Teller;
use super::trust::{Admission, Trust};
use crate::change::{Cause, Change, RemoteId, Scope, WatchEvent};
use crate::config::Loaded;
use crate::control::server::SocketMaker;
use crate::engine::pending::Item;
use crate::engine::{Action, Engine, Event, JobId, JobReport, Notice, Settled, Verdict};
use crate::process::signals::Signal;
use crate::record::Observation;
use crate::sys::memory;
use crate::worker::Workers;

/// The parts of a running mirror.
pub struct Parts {
    /// Decides what starts next.
    pub engine: Engine,
    /// Run the jobs.
    pub workers: Workers,
    /// Holds what must be acknowledged.
    pub ledger: Ledger,
    /// Decides what may be deleted.
    pub trust: Trust,
    /// Writes logs, and passes changes to the plugin.
    pub teller: Teller,
    /// Makes snapshots on request.
    pub observer: Observer,
    /// Applies another configuration.
    pub reload: Reload,
}

/// The running mirror.
pub struct Mirror {
    pub(super) engine: Engine,
    pub(super) workers: Workers,
    pub(super) ledger: Ledger,
    pub(super) trust: Trust,
    pub(super) teller: Teller,
    pub(super) observer: Observer,
    /// Flushes, pauses and listeners of the control socket.
    pub(super) controls: Controls,
    /// What jobs in flight do to their paths.
    deliveries: Deliveries,
    pub(super) reload: Reload,
    /// If set, the mirror ends, and another one with this configuration replaces it.
    pub(super) successor: Option<Loaded>,
    pub(super) stopping: Stopping,
    /// The engine's time zero.
    started: Instant,
}

impl Mirror {
    /// Puts the parts together; the engine's time starts now.
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

    /// Runs until it is told to stop and nothing is in flight.
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
        // Close the record first: it must hold an observation before the journal forgets the delivery.
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

    /// Handles an event of the mirror's threads.
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
                self.mark_flushes();
            }
            MainEvent::StateLost => self.state_lost(),
            MainEvent::Snapshot(request) => self.observer.add(request),
            MainEvent::ConfigurationRead(read) => self.configuration_read(read),
            MainEvent::ListChanged => self.begin_reload(ReloadRequest::by_list()),
        }
    }

    fn wake_from_outside(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Signal(signal) => self.signal(signal),
            ProcessEvent::Control(asked) => self.control(asked),
            // Any event makes `take_in` read the shortage.
            ProcessEvent::MemoryShort => self.handle(Event::DeadlineReached),
        }
    }

    /// Creates the state directory again after it was deleted, as a cleaner of temporary files may do.
    fn state_lost(&mut self) {
        let made = self.ledger.make_state_again(&self.engine);
        // The default log file is in that directory, too.
        self.teller.reopen_logs();
        match made {
            Ok(()) => {
                let holds = match self.ledger.lacks_changes() {
                    false => "with all that is pending",
                    true => "but what is pending cannot be written there yet: make room",
                };
                log::error!(
                    "the state directory was deleted while this program runs: it is made again, {holds}; \
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
                 what is pending is forgotten at exit; correct that and send SIGHUP"
            ),
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reopen => {
                self.teller.reopen_logs();
                // The operator who sends SIGHUP may have fixed a problem, so retry, and repeat warnings in the new log.
                if self.ledger.has_lost_its_state() {
                    self.state_lost();
                }
                self.handle(Event::Remind);
                self.handle(Event::RetryFailLog);
                self.reload_by_signal();
            }
            Signal::Report => self.teller.report(&self.engine),
            Signal::Stop => {
                log::info!("stopping: what is in flight is finished first");
                crate::process::tell_stopping();
                self.ledger.mark_stopping();
                // If a restart is running, end instead.
                self.successor = None;
                self.order_end();
            }
        }
    }

    /// Nothing starts any more, and what is in flight ends.
    pub(super) fn order_end(&mut self) {
        self.stopping.order(self.now());
        self.workers.hurry();
        self.handle(Event::Stop);
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
            && let Some(observation) = self.trust.recordable(root, observation)
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

    /// Handles the end of a walk.
    fn caught_up(&mut self, walked: Walked) {
        // Write what it found to disk first: once the new record replaces the old one, no walk finds it again.
        self.ledger.commit_durably();
        let root = walked.root;
        let events = self.trust.caught_up(walked);
        self.take_in_all(events);
        // While deletions are withheld, the journal lacks them.
        if !self.trust.is_looking(root) && self.trust.deletions(root).are_allowed() {
            self.ledger.walk_ends(root);
        }
    }

    /// Passes an event to the engine, unless a walk or a count must come first.
    pub fn handle(&mut self, event: Event) {
        match &event {
            Event::Watch(WatchEvent::BarrierReached) => return self.barrier_reached(),
            Event::Watch(WatchEvent::Overflow { .. }) => {
                let trust = &mut self.trust;
                self.ledger.give_up_waiting(|root, names| trust.append(root, names));
            }
            _ => {}
        }
        match (self.trust.admit(&event), event) {
            (Admission::Passes, event) => self.take_in(event),
            (Admission::Walks, Event::Watch(WatchEvent::Overflow { root })) => {
                self.ledger.walk_begins(root);
                self.notify(&Notice::Overflow { root });
                // A job in flight may have read what a lost event is about, and the record does not have it yet.
                let changes = self.engine.in_flight(root).into_iter().map(again).collect();
                self.take_in(Event::Watch(WatchEvent::changed(root, changes)));
            }
            (Admission::Walks | Admission::Counts, _) => {}
        }
    }

    pub(super) fn take_in_all(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.take_in(event));
    }

    /// Passes an event to the engine.
    fn take_in(&mut self, event: Event) {
        if memory::take_shortage() {
            self.act_on(Event::MemoryShort);
            memory::release_unused();
        }
        self.observer.note_news();
        self.ledger.record(&event, &self.engine);
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
        memory::refill_reserve();
        self.count_time();
        if !self.ledger.is_comparing() {
            self.trust.start_waiting_walks();
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
                self.forget_if_nothing_is_owed(remote);
            }
            Action::ReduceSessions(remote) => {
                self.workers.reduce_sessions(remote);
                self.forget_if_nothing_is_owed(remote);
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

    fn forget_if_nothing_is_owed(&mut self, remote: RemoteId) {
        if self.engine.undelivered(remote).next().is_none() {
            self.workers.forget(remote);
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
        if let Notice::FullSyncDone { remote, .. } = notice {
            self.ledger.full_sync_done(*remote);
        }
        let (level, sentence) = self.teller.notify(notice);
        self.count_notice(notice, level, &sentence);
    }

    /// Handles a barrier: the watch thread has reported everything that happened before some deliveries ended.
    fn barrier_reached(&mut self) {
        let flushes = self.ledger.flushes_told();
        let trust = &mut self.trust;
        self.ledger.acknowledge(|root, observation| trust.append(root, observation));
        self.trust.merge_long_records();
        self.ledger.compact(&self.engine);
        self.flushes_told(&flushes);
    }
}

/// Reports an item once more.
fn again(item: Item) -> Change {
    let is_entry = item.mark.scope == Scope::Entry;
    let cause = if is_entry && !item.mark.additive { Cause::Delete } else { Cause::Found };
    Change { scope: item.mark.scope, is_dir: !is_entry, ..Change::entry(item.path, cause) }
}

/// The steps before the main loop, in this order, and those after it.
impl Mirror {
    /// The configuration of the mirror that replaces this one.
    pub fn take_successor(&mut self) -> Option<Loaded> {
        self.successor.take()
    }

    /// Unanswered requests, for the mirror that takes over.
    pub fn unanswered(&mut self) -> Vec<ProcessEvent> {
        let calls = self.unanswered_flushes().into_iter().map(ProcessEvent::call);
        calls.chain(self.unanswered_reloads()).collect()
    }

    /// The configuration in force.
    pub fn loaded(&self) -> &Loaded {
        self.reload.loaded()
    }

    /// Starts page, status file, heartbeat and alerts.
    pub fn start_tellers(&mut self) {
        self.reload.start_tellers();
    }

    /// Call it when the watches are set. Holds deletions of recorded roots back until a walk has found what is gone.
    pub fn doubt_recorded_roots(&mut self) {
        let events = self.trust.doubt_recorded_roots();
        self.take_in_all(events);
    }

    /// Handles events that arrived before the watches were set.
    pub fn wake_early(&mut self, events: Vec<MainEvent>) {
        for event in events {
            match event {
                MainEvent::Event(event) => self.handle(event),
                // These cannot occur: no job, walk, count or merge has started, and nobody can send a request yet.
                MainEvent::JobDone(..)
                | MainEvent::CaughtUp(_)
                | MainEvent::Counted(_)
                | MainEvent::Merged(..)
                | MainEvent::Snapshot(_)
                | MainEvent::ConfigurationRead(_)
                | MainEvent::ListChanged
                // The next sync of the journal detects this, too.
                | MainEvent::StateLost => {}
            }
        }
    }

    /// Begins the first record of roots that have none.
    pub fn begin_records(&self) {
        self.trust.begin_records();
    }

    /// Distrusts roots that are another directory than at the last start. `with_walks`: walks will look for other changes.
    pub fn distrust_changed_roots(&mut self, with_walks: bool) {
        let events = self.trust.distrust_changed_roots();
        self.take_in_all(events);
        self.trust.heed_confirmation(with_walks);
    }

    /// Makes pending what the last run left in the journal, and retries what failed.
    pub fn restore(&mut self, restored: impl Iterator<Item = Event>) {
        restored.for_each(|event| self.handle(event));
        self.ledger.restored();
        self.teller.write_fail_log(&self.engine);
    }

    /// Looks for changes made while the program was down.
    pub fn look_for_changes_since_the_last_run(&mut self, with_full_sync: bool) {
        let events = self.trust.look_for_changes_since_the_last_run(with_full_sync);
        self.take_in_all(events);
    }
}
