//! The main loop: feeds the engine with events, and carries its actions out.
//! Decides nothing itself; the journal is written before an event is acted on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::catch_up::CatchUp;
use super::fail_log::FailLogWriter;
use super::guard::Count;
use super::main_event::MainEvent;
use super::notice::Names;
use super::plugins::Plugins;
use super::progress::Progress;
use super::unacknowledged::{Delivery, Unacknowledged};
use crate::change::{Cause, Change, RemoteId, RootId, Scope, WatchEvent};
use crate::engine::pending::Item;
use crate::engine::{
    Action, Deletions, Engine, Event, FullSyncCause, JobId, JobKind, JobReport, Notice, Settled,
    Verdict,
};
use crate::journal::{Journal, Seq};
use crate::path::RelPath;
use crate::process::signals::Signal;
use crate::record::Look;
use crate::source::Source;
use crate::sys::memory;
use crate::worker::Workers;

/// How long the watch thread may take to say that it has told everything, at the end: as a rule it is some microseconds.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

/// How long runs in flight may go on after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What has to be known of a job when it is done.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    root: RootId,
    /// Whether it carries single changes or more than that.
    pub kind: JobKind,
    /// The journal's number when it started.
    seq: Seq,
}

/// The mirror at work.
pub struct Mirror {
    /// The core.
    pub engine: Engine,
    /// `None` where no state can be kept.
    pub journal: Option<Journal>,
    /// Who carries jobs out.
    pub workers: Workers,
    /// The watch roots by id.
    pub sources: Vec<Arc<Source>>,
    /// For each remote, its root.
    pub roots_of_remotes: Vec<RootId>,
    /// For messages.
    pub names: Names,
    /// Writes what failed.
    pub fail_log: FailLogWriter,
    /// The progress line of a full sync on a terminal.
    pub progress: Progress,
    /// Called for SIGHUP.
    pub reopen_log: Box<dyn Fn()>,
    /// When time began for the engine.
    pub started: Instant,
    /// The jobs in flight.
    pub jobs: HashMap<JobId, InFlight>,
    /// The plugin that runs after each delivery.
    pub plugins: Option<Plugins>,
    /// The record of each root; `None` where no state can be kept.
    pub catch_up: Option<CatchUp>,
    /// Roots that are walked when no full sync needs the processors: it finds all that the walk would find.
    pub walk_later: Vec<RootId>,
    /// Roots that came back and are counted before they are trusted.
    pub counts: HashMap<RootId, Count>,
    /// Roots below which not everything may be deleted, or not yet.
    pub restrained: BTreeMap<RootId, Deletions>,
    /// Roots whose next walk or count an operator has confirmed.
    pub confirmed: BTreeSet<RootId>,
    /// The journal's number when the last full sync of a remote was asked for.
    pub full_syncs: HashMap<RemoteId, Seq>,
    /// Signals that came before the watches stood.
    pub early_signals: Vec<Signal>,
    /// When what is in flight is broken off, after the order to stop.
    pub stop_at: Option<Instant>,
    /// Nothing is in flight any more; what was delivered last may still have to be confirmed.
    pub is_finished: bool,
    /// What the record and the journal are not told yet.
    pub unacknowledged: Unacknowledged,
}

impl Mirror {
    /// Works until it is told to stop and nothing is in flight.
    pub fn run(&mut self, events: &Receiver<MainEvent>) {
        let early = std::mem::take(&mut self.early_signals);
        let mut go_on = early.into_iter().all(|signal| self.signal(signal));
        go_on = go_on && self.handle(Event::DeadlineReached);
        while go_on {
            let due = self.engine.next_deadline();
            let due = due.map(|due| self.started + due);
            let event = match [due, self.stop_at].into_iter().flatten().min() {
                Some(due) => events.recv_deadline(due),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            go_on = match event {
                Ok(MainEvent::Event(event)) => self.handle(event),
                Ok(MainEvent::JobDone(job, report, look)) => self.job_done(job, report, look),
                Ok(MainEvent::CaughtUp(walked)) => self.caught_up(walked),
                Ok(MainEvent::Counted(counted)) => self.counted(&counted),
                Ok(MainEvent::Merged(root, merged)) => self.merged(root, merged),
                Ok(MainEvent::Signal(signal)) => self.signal(signal),
                Err(RecvTimeoutError::Timeout) => self.deadline(),
                Err(RecvTimeoutError::Disconnected) => false,
            };
        }
        // The record first: it may only say what the journal does not hold any more.
        self.catch_up.take().into_iter().for_each(CatchUp::close);
        if let Some(journal) = self.journal.take() {
            journal.close();
        }
    }

    /// Takes in what happened before the watches stood.
    pub fn wake_early(&mut self, event: MainEvent) {
        match event {
            MainEvent::Event(event) => _ = self.handle(event),
            MainEvent::Signal(signal) => self.early_signals.push(signal),
            // No job and no walk had been started.
            MainEvent::JobDone(..)
            | MainEvent::CaughtUp(_)
            | MainEvent::Counted(_)
            | MainEvent::Merged(..) => {}
        }
    }

    fn signal(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Reopen => {
                (self.reopen_log)();
                true
            }
            Signal::Stop => {
                log::info!("stopping: what is in flight is finished first");
                crate::process::tell_stopping();
                // The second one is an order not to wait.
                let patience = if self.stop_at.is_none() { STOP_PATIENCE } else { Duration::ZERO };
                self.stop_at = Some(self.started + self.started.elapsed() + patience);
                self.handle(Event::Stop)
            }
        }
    }

    fn deadline(&mut self) -> bool {
        if self.is_finished {
            // The next start does once more what is not confirmed.
            return false;
        }
        if self.stop_at.is_some_and(|at| at <= self.started + self.started.elapsed()) {
            log::warn!(
                "what is in flight did not end in time and is broken off; the journal keeps it"
            );
            self.workers.kill();
            self.stop_at = None;
        }
        self.handle(Event::DeadlineReached)
    }

    fn job_done(&mut self, job: JobId, report: JobReport, look: Option<Look>) -> bool {
        if let Some(look) = look
            && self.catch_up.is_some()
            && report.verdict == Verdict::Done
            && let Some(root) = self.jobs.get(&job).map(|job| job.root)
            // What is gone must stay on record as long as it is not deleted.
            && !self.restrained.contains_key(&root)
        {
            self.unacknowledged.add(Delivery::Seen(root, look));
        }
        let go_on = self.handle(Event::JobDone(job, report));
        self.jobs.remove(&job);
        self.unacknowledged.ask(self.jobs.is_empty());
        go_on
    }

    /// Gives an event to the engine; false when everything is over.
    pub fn handle(&mut self, event: Event) -> bool {
        match &event {
            Event::Watch(WatchEvent::BarrierReached) => return self.confirm(),
            Event::Watch(WatchEvent::Overflow { .. }) => self.unacknowledged.give_up(),
            _ => {}
        }
        if let Event::Watch(WatchEvent::Overflow { root }) = event
            && self.look_for_changes(root)
        {
            self.notify(&Notice::Overflow { root });
            return true;
        }
        match &event {
            Event::Watch(WatchEvent::RootLost { root, .. }) => _ = self.counts.remove(root),
            Event::Watch(WatchEvent::RootBack { root, .. }) if self.is_to_be_counted(*root) => {
                return true;
            }
            Event::FullSync(_) => self.warn_of_restraint(),
            _ => {}
        }
        self.take_in(event)
    }

    /// The same for what has been looked at already.
    pub fn take_in(&mut self, event: Event) -> bool {
        if memory::take_shortage() {
            let actions = self.engine.handle(self.started.elapsed(), Event::MemoryShort);
            memory::release_unused();
            actions.into_iter().for_each(|action| _ = self.carry_out(action));
        }
        self.record(&event);
        if let Event::Watch(WatchEvent::RootBack { root, .. }) = &event
            && let Some(source) = self.sources.get(root.0)
            && let Err(error) = source.renew()
        {
            log::error!("{error}");
        }
        let actions = self.engine.handle(self.started.elapsed(), event);
        let go_on = actions.into_iter().all(|action| self.carry_out(action));
        self.progress.show(self.engine.full_sync_progress());
        if let Some(journal) = &mut self.journal {
            journal.commit();
        }
        self.compact_journal();
        memory::put_by_reserve();
        self.walk_postponed();
        go_on
    }

    /// All that happened before some deliveries ended is in the journal now: the record and the journal are told of them.
    fn confirm(&mut self) -> bool {
        for delivery in self.unacknowledged.take_confirmed() {
            match delivery {
                Delivery::Seen(root, look) => {
                    if let Some(catch_up) = &mut self.catch_up {
                        catch_up.append(root, &look);
                    }
                }
                Delivery::Delivered(remote, seq, paths) => {
                    if let Some(journal) = &mut self.journal {
                        journal.append_delivered(remote, seq, &paths);
                    }
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.commit();
        }
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.merge_long_records();
        }
        self.compact_journal();
        self.unacknowledged.ask(self.jobs.is_empty());
        !(self.is_finished && self.unacknowledged.is_empty())
    }

    /// Writes what an event makes pending to the journal, before it is acted on.
    fn record(&mut self, event: &Event) {
        match event {
            Event::Watch(WatchEvent::Changed { root, changes, known_until }) => {
                self.workers.know_until(*root, *known_until);
                if let Some(journal) = &mut self.journal {
                    journal.append_changes(*root, changes);
                }
                if let Some(plugins) = &mut self.plugins {
                    plugins.changed(*root, changes);
                }
            }
            Event::Watch(WatchEvent::Overflow { root } | WatchEvent::RootBack { root, .. })
            | Event::CompareRoot(root, _) => self.owe_root(*root),
            // A scheduled one is not repeated after a crash: the next one comes by itself.
            Event::FullSync(FullSyncCause::Schedule) => {}
            Event::FullSync(_) => {
                (0..self.sources.len()).for_each(|root| self.owe_root(RootId(root)));
            }
            _ => {}
        }
        if let Some(journal) = &mut self.journal {
            journal.commit();
        }
    }

    /// A whole root is to be compared: pending until the full sync of each remote is done.
    fn owe_root(&mut self, root: RootId) {
        let Some(journal) = &mut self.journal else { return };
        let seq = journal.append_changes(root, &[Change::tree(RelPath::root(), Cause::Found)]);
        let remotes = self.roots_of_remotes.iter().enumerate().filter(|(_, of)| **of == root);
        self.full_syncs.extend(remotes.map(|(remote, _)| (RemoteId(remote), seq)));
    }

    /// False for [`Action::Finished`], if nothing has to be confirmed.
    fn carry_out(&mut self, action: Action) -> bool {
        match action {
            Action::Run(job) => {
                let seq = self.journal.as_mut().map_or(Seq::default(), Journal::begin_job);
                self.jobs.insert(job.id, InFlight { root: job.root, kind: job.kind, seq });
                self.workers.run(job);
            }
            Action::CloseSessions(remote) => self.workers.close_sessions(remote),
            Action::Abort(remote) => self.workers.abort(remote),
            Action::Settled(settled) => self.settled(&settled),
            Action::FailLogChanged => self.fail_log.write(&self.engine.fail_log()),
            Action::Notify(notice) => self.notify(&notice),
            Action::Finished => {
                self.is_finished = true;
                self.stop_at = Some(self.started + self.started.elapsed() + CONFIRM_PATIENCE);
                self.unacknowledged.ask(true);
                return !self.unacknowledged.is_empty();
            }
        }
        true
    }

    fn settled(&mut self, settled: &Settled) {
        let job = self.jobs.remove(&settled.job);
        if let (Some(plugins), Some(job)) = (&mut self.plugins, job) {
            plugins.delivered(settled.remote, job.root, &settled.delivered);
            plugins.delivered(settled.remote, job.root, &settled.withheld);
        }
        let seq = job.map(|job| job.seq);
        let (Some(journal), Some(seq)) = (&mut self.journal, seq) else {
            return;
        };
        let pair = |item: &Item| (item.path.clone(), item.mark.scope);
        if !settled.returned.is_empty() {
            let returned: Vec<_> = settled.returned.iter().map(pair).collect();
            journal.append_pending(settled.remote, &returned);
        }
        let delivered = settled.delivered.iter().chain(&settled.rechecked);
        let delivered: Vec<_> = delivered.map(pair).collect();
        if !delivered.is_empty() {
            self.unacknowledged.add(Delivery::Delivered(settled.remote, seq, delivered));
        }
    }

    fn notify(&mut self, notice: &Notice) {
        if let Notice::FullSyncDone { remote, deletes, .. } = notice {
            self.full_sync_done(*remote, *deletes);
        }
        if let (
            Notice::RemoteDown { remote, .. } | Notice::RemoteDenies { remote, .. },
            Some(plugins),
        ) = (notice, &mut self.plugins)
        {
            plugins.went_down(*remote);
        }
        let (level, sentence) = self.names.sentence(notice);
        self.progress.suspend(|| log::log!(level, "{sentence}"));
    }

    fn full_sync_done(&mut self, remote: RemoteId, deletes: bool) {
        self.workers.keep_sessions_ready(remote);
        if !deletes {
            // It is owed until it may delete.
            return;
        }
        if let (true, Some(seq)) = (self.journal.is_some(), self.full_syncs.remove(&remote)) {
            let all = vec![(RelPath::root(), Scope::Tree)];
            self.unacknowledged.add(Delivery::Delivered(remote, seq, all));
        }
    }

    fn compact_journal(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !self.unacknowledged.is_empty() {
            // The engine has forgotten what the journal must not forget yet.
            return;
        }
        let remotes = || (0..self.roots_of_remotes.len()).map(RemoteId);
        let owed = remotes().map(|remote| self.engine.pending(remote)).sum();
        if journal.is_worth_compacting(owed) {
            let engine = &self.engine;
            let items = |remote| engine.undelivered(remote).map(move |item| (remote, item));
            let all = remotes().flat_map(items);
            journal.compact(all.map(|(remote, item)| (remote, item.path, item.mark.scope)));
        }
    }
}
