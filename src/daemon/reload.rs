//! `sersync2 reload` and SIGHUP: read the configuration again, and apply what has changed in it.
//! Remotes are added and removed in the running mirror. Other changes restart the mirror in this process, and keep what
//! is pending.

mod changes;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};

use super::main_event::{MainEvent, ProcessEvent, RefusedConfiguration};
use super::mirror::Mirror;
use super::observer;
use super::remote_workers::RemoteWorkers;
use super::running::start_timers;
use super::telling::{EventTeller, Tellers, shown};
use crate::change::{RemoteId, RootId};
use crate::config::load::load_again;
use crate::config::{self, Config, ListOrigin, LoadOptions, Loaded, ReadList};
use crate::control::protocol::{Answer, Command};
use crate::control::server::{Call, Reply};
use crate::engine::Event;
use crate::filter::Filter;
use crate::ground::every::Every;
use crate::ground::lock::lock;
use crate::ground::numbered::put;
use crate::ground::thread::JoinedThread;
use crate::logging::Log;
use crate::process::signals::Signal;
use crate::record::Recorder;
use crate::remote_list::{self, ListWatch};
use crate::source::Source;
use crate::worker::places::Daemons;
use changes::{Changes, Slot, slots_of};

/// A request to read the configuration again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What to do with the configuration.
    pub purpose: Purpose,
    /// Takes the answer; `None` for a signal.
    pub reply: Option<Reply>,
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To apply it.
    Apply,
    /// To report what would change.
    DryRun,
    /// To apply changed lists of remotes only, even if the file contains other changes.
    Lists,
}

impl ReloadRequest {
    /// A request because a list of remotes may have changed.
    pub fn by_list() -> Self {
        Self { purpose: Purpose::Lists, reply: None }
    }
}

/// Reports that the configuration cannot be read and nothing changes: to the client that asked, otherwise to the log.
fn refuse(error: RefusedConfiguration, purpose: Purpose, reply: Option<&Reply>) -> Answer {
    let RefusedConfiguration { report, lines } = error;
    let report = report.replace("; nothing was started", "");
    let stays = match purpose {
        Purpose::Lists => "the remotes that were in force stay in force",
        Purpose::Apply | Purpose::DryRun => "the configuration that was in force stays in force",
    };
    if purpose == Purpose::Lists {
        log::error!("reload: {}; {stays}", lines.join("; "));
    } else if reply.is_none() {
        lines.iter().for_each(|line| log::error!("reload: {line}"));
        log::error!("reload: {stays}");
    }
    Answer::failed("refused", format!("{report}\n{stays}"))
}

/// Keeps the settings in force except for the remotes.
fn keep_settings(config: &mut Config, in_force: &Config) {
    config.host = in_force.host.clone();
    config.telling = in_force.telling.clone();
    config.lists = in_force.lists.clone();
    keep_times(config, in_force);
}

/// Keeps the times in force.
fn keep_times(config: &mut Config, in_force: &Config) {
    config.fail_log.retry_minutes = in_force.fail_log.retry_minutes;
    config.crontab = in_force.crontab.clone();
}

/// What was created at the start and is needed for remotes that are added later.
pub struct Origins {
    /// The configuration, as an absolute path.
    pub file: PathBuf,
    /// The configuration in force.
    pub loaded: Loaded,
    /// The filter.
    pub filter: Arc<Filter>,
    /// The watch roots.
    pub sources: Vec<Arc<Source>>,
    /// The recorder of each root.
    pub recorders: Vec<Option<Recorder>>,
    /// The places of each daemon, which its remotes share.
    pub daemons: Daemons,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The log.
    pub log: Log,
    /// The channel to the main loop.
    pub events: Sender<MainEvent>,
}

/// The configuration in force, and the parts that a reload can replace.
pub struct Reload {
    origins: Origins,
    /// The current remotes, by number.
    slots: Vec<Option<Slot>>,
    timers: Vec<Every>,
    /// Watches the files that list remotes.
    lists: Option<ListWatch>,
    /// The thread that restarts page, alerts and the like with new settings.
    renewing: Option<JoinedThread>,
    tellers: Arc<Mutex<Tellers>>,
    /// The configuration in force, for the page.
    shown: Arc<Mutex<String>>,
    /// The waiting requests; the configuration is being read for the first one.
    asked: Vec<ReloadRequest>,
}

impl Reload {
    /// The state at the start of the mirror.
    pub fn new(origins: Origins, timers: Vec<Every>) -> Self {
        let slots = slots_of(&origins.loaded.config).into_iter().map(Some).collect();
        let shown = Arc::new(Mutex::new(shown(&origins.loaded.config)));
        let (renewing, tellers, asked) = (None, Arc::default(), Vec::new());
        Self { origins, slots, timers, lists: None, renewing, tellers, shown, asked }
    }

    /// A remote's name in the journal, which no other remote of its watch path has.
    pub fn slot_name(&self, remote: RemoteId) -> Option<Vec<u8>> {
        Some(self.slots.get(remote.0)?.as_ref()?.name.clone())
    }

    /// Starts page, status file, heartbeat and alerts, and the watch on the lists of remotes.
    pub fn start_tellers(&mut self) {
        let Origins { loaded, events, log, .. } = &self.origins;
        *lock(&self.tellers) =
            Tellers::start(&loaded.config, &observer::reader(events.clone()), log, &self.shown, 0);
        self.lists = self.watch_lists(&loaded.config);
    }

    /// Starts the watch on the files that list remotes; `None` if there are none.
    fn watch_lists(&self, config: &Config) -> Option<ListWatch> {
        let file = |origin: &ListOrigin| match origin {
            ListOrigin::File(path) => Some(path.clone()),
            ListOrigin::Command(_) => None,
        };
        let files: Vec<PathBuf> = config.lists.iter().filter_map(file).collect();
        if files.is_empty() {
            return None;
        }
        let events = self.origins.events.clone();
        // Fails only when the main loop has ended.
        let watch = ListWatch::start(files, move || _ = events.send(MainEvent::ListChanged));
        let warn = |error| {
            log::warn!(
                "cannot watch the lists of remotes: {error}; `sersync2 reload` reads them again"
            );
        };
        watch.map_err(warn).ok()
    }

    /// The configuration in force.
    pub fn loaded(&self) -> &Loaded {
        &self.origins.loaded
    }

    fn config(&self) -> &Config {
        &self.origins.loaded.config
    }

    /// The filter.
    pub fn filter(&self) -> Arc<Filter> {
        Arc::clone(&self.origins.filter)
    }

    /// Reads the configuration on its own thread, because that may take long.
    fn read(&self, purpose: Purpose) -> Result<(), String> {
        let (file, events) = (self.origins.file.clone(), self.origins.events.clone());
        let in_force = self.origins.loaded.clone();
        let thread = std::thread::Builder::new().name("reload".into()).spawn(move || {
            let read_list = Some(remote_list::read as ReadList);
            // A list has nothing to do with what this machine lacks at the moment.
            let preflight = purpose != Purpose::Lists;
            let options = LoadOptions { plugin_alone: None, preflight, read_list };
            let loaded = match purpose {
                Purpose::Apply | Purpose::DryRun => {
                    let loaded = config::load(&file, &options);
                    loaded.map_err(|error| RefusedConfiguration::from(error.of_known_file()))
                }
                Purpose::Lists => {
                    load_again(&in_force, &options).map_err(RefusedConfiguration::from)
                }
            };
            for warning in loaded.iter().flat_map(Loaded::warning_lines) {
                if purpose != Purpose::Lists {
                    log::warn!("reload: {warning}");
                }
            }
            // Fails only when the main loop has ended.
            _ = events.send(MainEvent::ConfigurationRead(loaded.map(Box::new)));
        });
        thread.map(drop).map_err(|error| {
            format!("cannot start the thread that reads the configuration: {error}")
        })
    }

    /// Returns a function that restarts page, status file, heartbeat and alerts with the configuration in force.
    fn tellers_anew(&self, overflows: u64) -> Box<dyn FnOnce() + Send> {
        let Origins { loaded, events, log, .. } = &self.origins;
        let (config, reader) = (loaded.config.clone(), observer::reader(events.clone()));
        let log = log.clone();
        let (tellers, shown) = (Arc::clone(&self.tellers), Arc::clone(&self.shown));
        Box::new(move || {
            let mut tellers = lock(&tellers);
            // End the old ones first, to free the port and the files.
            *tellers = Tellers::default();
            *tellers = Tellers::start(&config, &reader, &log, &shown, overflows);
        })
    }

    /// Starts a thread that ends the old parts and starts the new ones. The main loop must not join them itself, because
    /// they may wait for the main loop. The thread first waits for the previous one.
    fn start_renewal(&mut self) -> std::io::Result<Sender<Renewal>> {
        let (hand_over, handed) = bounded::<Renewal>(1);
        let before = self.renewing.take();
        let (given, taken) = bounded(1);
        let started = JoinedThread::start("reload", move || {
            drop(taken.recv());
            if let Ok(renewal) = handed.recv() {
                renewal.run();
            }
        });
        match started {
            Ok(thread) => {
                // Cannot fail: the channel has room, and the thread waits for this.
                _ = given.send(before);
                self.renewing = Some(thread);
                Ok(hand_over)
            }
            Err(error) => {
                self.renewing = before;
                Err(error)
            }
        }
    }
}

/// The parts to end, and what starts afterwards.
#[derive(Default)]
struct Renewal {
    timers: Vec<Every>,
    lists: Option<ListWatch>,
    event_log: Option<EventTeller>,
    tellers: Option<Box<dyn FnOnce() + Send>>,
}

impl Renewal {
    fn run(self) {
        drop((self.timers, self.lists, self.event_log));
        if let Some(start) = self.tellers {
            start();
        }
    }
}

impl Mirror {
    /// Reads the configuration again. A mirror that is ending leaves that to the mirror that takes over.
    pub fn begin_reload(&mut self, asked: ReloadRequest) {
        let mut waiting = self.reload.asked.iter().skip(1);
        if asked.purpose == Purpose::Lists && waiting.any(|it| it.purpose != Purpose::DryRun) {
            // A waiting request will read the new lists anyway.
            return;
        }
        self.reload.asked.push(asked);
        if self.reload.asked.len() == 1 {
            self.read_configuration();
        }
    }

    /// Starts to read the configuration for the first request; answers those for which that is impossible.
    fn read_configuration(&mut self) {
        let Some(asked) = self.reload.asked.first() else { return };
        if self.stopping.is_ordered() {
            return;
        }
        if let Err(error) = self.reload.read(asked.purpose) {
            self.configuration_read(Err(error.into()));
        }
    }

    /// Handles the configuration that was read.
    pub fn configuration_read(&mut self, read: Result<Box<Loaded>, RefusedConfiguration>) {
        if self.reload.asked.is_empty() || self.stopping.is_ordered() {
            return;
        }
        let ReloadRequest { purpose, reply } = self.reload.asked.remove(0);
        let answer = match read {
            Ok(loaded) => self.heed_configuration(*loaded, purpose),
            Err(error) => refuse(error, purpose, reply.as_ref()),
        };
        if let Some(reply) = reply {
            reply.send(answer);
        }
        self.read_configuration();
    }

    fn heed_configuration(&mut self, loaded: Loaded, purpose: Purpose) -> Answer {
        let wanted = slots_of(&loaded.config);
        let reload = &self.reload;
        let changes = Changes::between(reload.config(), &reload.slots, &loaded.config, &wanted);
        let mut notes = changes.sentences(&reload.slots, &wanted);
        if purpose == Purpose::DryRun {
            return Answer::Done { notes };
        }
        let mut failed = Vec::new();
        if changes.is_empty() {
            // Keep the new text, because messages about lists refer to its lines.
            self.reload.origins.loaded = loaded;
        } else if changes.restart.is_empty() {
            self.change_remotes(&loaded.config, &changes, &wanted);
            failed = self.change_settings(loaded, &changes);
        } else {
            self.restart_with(loaded);
        }
        // Do not log a list that was rewritten with the same remotes.
        if !(purpose == Purpose::Lists && changes.is_empty()) {
            notes.iter().for_each(|note| log::info!("reload: {note}"));
        }
        failed.iter().for_each(|note| log::error!("reload: {note}"));
        notes.append(&mut failed);
        Answer::Done { notes }
    }

    /// Adds, removes and replaces remotes; the others are not affected.
    fn change_remotes(&mut self, config: &Config, changes: &Changes, wanted: &[Slot]) {
        let Origins { sources, filter, recorders, state, .. } = &self.reload.origins;
        let (recorders, state) = (recorders.clone(), state.clone());
        let makers = RemoteWorkers::new(config, sources, filter, state.as_deref());
        let mut new = Vec::new();
        for &index in &changes.added {
            let id = self.free_number();
            let slot = wanted[index].clone();
            let root = slot.root;
            self.put_remote(id, slot, &makers, index, &recorders);
            self.observer.statistics.forget(id);
            let deletions = self.trust.deletions(root);
            self.take_in_all(vec![Event::RemoteAdded(id, root, deletions)]);
            new.push(id);
        }
        for &(id, index) in &changes.replaced {
            self.put_remote(id, wanted[index].clone(), &makers, index, &recorders);
        }
        for &id in &changes.removed {
            self.reload.slots[id.0] = None;
            self.end_flushes_of(id);
            self.take_in_all(vec![Event::RemoteRemoved(id)]);
            self.forget_pauses(id);
        }
        if !(new.is_empty() && changes.removed.is_empty()) {
            let kept = |(slot, before): (&Option<Slot>, Option<&RootId>)| {
                let before = before.copied().unwrap_or(RootId(0));
                slot.as_ref().map_or(before, |slot| slot.root)
            };
            let before = self.ledger.roots_of_remotes().to_vec();
            let before = before.iter().map(Some).chain(std::iter::repeat(None));
            let roots: Vec<RootId> = self.reload.slots.iter().zip(before).map(kept).collect();
            let names = self.reload.slots.iter();
            let names = names.map(|slot| slot.as_ref().map(|slot| (slot.root, &*slot.name)));
            self.ledger.change_remotes(&self.engine, roots.clone(), names, &new);
            self.teller.change_remotes(&roots, &self.reload.numbers());
            self.teller.write_fail_log(&self.engine);
        }
    }

    /// The first number that neither a remote nor a job of a removed remote uses.
    fn free_number(&self) -> RemoteId {
        let slots = &self.reload.slots;
        let is_free = |id: &usize| {
            let id = RemoteId(*id);
            slots[id.0].is_none() && self.engine.is_free(id) && !self.ledger.has_jobs(id)
        };
        RemoteId((0..slots.len()).find(is_free).unwrap_or(slots.len()))
    }

    /// Gives this number to a remote.
    fn put_remote(
        &mut self,
        id: RemoteId,
        slot: Slot,
        makers: &RemoteWorkers,
        index: usize,
        recorders: &[Option<Recorder>],
    ) {
        let recorder = recorders.get(slot.root.0).cloned().flatten();
        let gate = self.workers.load_gate().clone();
        let made = makers.make(index, recorder, &gate, &mut self.reload.origins.daemons);
        let Some((worker, endpoint, source)) = made else { return };
        self.workers.set(id, worker);
        let destination = &slot.remote.destination;
        put(&mut self.observer.destinations, id.0, destination.url());
        self.teller.name_remote(id, destination.to_string(), (endpoint, source));
        put(&mut self.reload.slots, id.0, Some(slot));
    }

    /// Applies the settings that need no restart of the mirror. Returns a sentence for each that could not be changed: it
    /// stays as it was, and the next reload tries again.
    fn change_settings(&mut self, mut loaded: Loaded, changes: &Changes) -> Vec<String> {
        let (mut failed, mut renewing) = (Vec::new(), None);
        if changes.tells_otherwise || changes.other_times || changes.other_lists {
            match self.reload.start_renewal() {
                Ok(thread) => {
                    let renewal = self.exchange(&mut loaded.config, changes, &mut failed);
                    renewing = Some((thread, renewal));
                }
                Err(error) => {
                    keep_settings(&mut loaded.config, self.reload.config());
                    failed.push(format!(
                        "cannot start a thread: {error}; page, status file, heartbeat, alerts, event log, the times of <failLog> \
                         and <crontab>, and what is watched for <remotes> stay as they were: reload again"
                    ));
                }
            }
        }
        *lock(&self.reload.shown) = shown(&loaded.config);
        self.reload.origins.loaded = loaded;
        if let Some((thread, mut renewal)) = renewing {
            let overflows = self.observer.watch.overflows.load(Ordering::Relaxed) as u64;
            renewal.tellers = changes.tells_otherwise.then(|| self.reload.tellers_anew(overflows));
            // Cannot fail: the channel has room, and the thread waits for this.
            _ = thread.send(renewal);
        }
        failed
    }

    /// Starts new timers, list watch and event log where their settings changed; moves the old ones to `Renewal`.
    fn exchange(
        &mut self,
        config: &mut Config,
        changes: &Changes,
        failed: &mut Vec<String>,
    ) -> Renewal {
        let mut old = Renewal::default();
        if changes.other_times {
            match start_timers(config, &self.reload.origins.events) {
                Ok(timers) => old.timers = std::mem::replace(&mut self.reload.timers, timers),
                Err(error) => {
                    keep_times(config, self.reload.config());
                    failed.push(format!(
                        "cannot start a timer: {error}; the times of <failLog> and <crontab> stay as they were: reload again"
                    ));
                }
            }
        }
        if changes.other_lists {
            let lists = self.reload.watch_lists(config);
            old.lists = std::mem::replace(&mut self.reload.lists, lists);
        }
        if self.reload.config().telling.event_log != config.telling.event_log {
            old.event_log = self.teller.event_log.take();
            let roots = self.ledger.roots_of_remotes();
            self.teller.event_log = EventTeller::start(config, &self.teller.names, roots);
        }
        old
    }

    /// Ends this mirror, and asks for another one in this process.
    fn restart_with(&mut self, successor: Loaded) {
        self.successor = Some(successor);
        self.order_end();
    }

    /// The unanswered requests for a reload, as events for the mirror that takes over.
    pub fn unanswered_reloads(&mut self) -> Vec<ProcessEvent> {
        let ask = |ReloadRequest { purpose, reply }: ReloadRequest| match (purpose, reply) {
            // The next mirror reads the lists at its start.
            (Purpose::Lists, _) => None,
            (_, None) => Some(ProcessEvent::Signal(Signal::Reopen)),
            (purpose, Some(reply)) => {
                let command = Command::Reload { dry_run: purpose == Purpose::DryRun };
                Some(ProcessEvent::call(Call { command, reply }))
            }
        };
        self.reload.asked.drain(..).filter_map(ask).collect()
    }

    /// Handles SIGHUP.
    pub fn reload_by_signal(&mut self) {
        self.begin_reload(ReloadRequest { purpose: Purpose::Apply, reply: None });
    }
}

impl Reload {
    /// The numbers of each root's remotes.
    fn numbers(&self) -> Vec<Vec<RemoteId>> {
        let mut numbers = vec![Vec::new(); self.config().mirrors.len()];
        for (id, slot) in self.slots.iter().enumerate() {
            if let Some(of_root) = slot.as_ref().and_then(|slot| numbers.get_mut(slot.root.0)) {
                of_root.push(RemoteId(id));
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(times: &str, host: &str) -> Loaded {
        let text = format!(
            "<head version=\"2.5\"><host hostip=\"localhost\" port=\"{host}\"/><sersync><localpath watch=\"/w\">\
             <remote ip=\"a\" name=\"m\"/></localpath><rsync><commonParams params=\"-a\"/></rsync>\
             <failLog path=\"/f\" timeToExecute=\"{times}\"/></sersync></head>"
        );
        config::load_bytes("c.xml", text.as_bytes(), &LoadOptions::default()).unwrap()
    }

    #[test]
    fn what_could_not_be_changed_is_found_by_the_next_reload() {
        let (in_force, wanted) = (load("60", "8008").config, load("7", "8009").config);
        let slots: Vec<_> = slots_of(&in_force).into_iter().map(Some).collect();
        let between =
            |one: &Config, two: &Config| Changes::between(one, &slots, two, &slots_of(two));
        let mut kept = wanted.clone();
        keep_settings(&mut kept, &in_force);
        assert!(between(&in_force, &kept).is_empty(), "nothing but what is true is in force");
        assert_eq!(between(&kept, &wanted), between(&in_force, &wanted));
    }
}
