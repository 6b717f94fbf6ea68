//! `sersync2 reload` and SIGHUP: the configuration is read again, and what has changed in it is put in force.
//! Remotes come and go under way. What cannot be changed under way starts the mirror again in this process, with all that is pending.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use super::main_event::MainEvent;
use super::mirror::Mirror;
use super::observer;
use super::remote_workers::RemoteWorkers;
use super::running::start_timers;
use super::telling::{EventTeller, Tellers, shown};
use super::timers::Timer;
use crate::change::{RemoteId, RootId};
use crate::config::{self, Config, LoadOptions, Remote};
use crate::control::protocol::Answer;
use crate::control::server::Reply;
use crate::engine::Event;
use crate::filter::Filter;
use crate::ground::lock::lock;
use crate::journal::Layout;
use crate::logging::Log;
use crate::record::Recorder;
use crate::source::Source;
use crate::worker::places::Daemons;

/// Somebody wants the configuration to be read again.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done with it.
    pub purpose: Purpose,
    /// Whom to answer; `None`: it was a signal.
    pub reply: Option<Reply>,
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To put it in force.
    Apply,
    /// To say what would change.
    DryRun,
}

/// A remote of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    root: RootId,
    /// What it is called in the journal: equal as long as it is the same place below the same root.
    name: Vec<u8>,
    remote: Remote,
}

/// What was made at the start and is needed for remotes that come later.
pub struct Origins {
    /// The configuration, as an absolute path.
    pub file: PathBuf,
    /// What is in force.
    pub config: Config,
    /// What is not mirrored.
    pub filter: Arc<Filter>,
    /// The watch roots.
    pub sources: Vec<Arc<Source>>,
    /// Who observes for the record of each root.
    pub recorders: Vec<Option<Recorder>>,
    /// The places that remotes of one daemon share.
    pub daemons: Daemons,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The log.
    pub log: Log,
    /// To the main loop.
    pub events: Sender<MainEvent>,
}

/// What is in force, and what can be put in its place.
pub struct Reload {
    origins: Origins,
    /// By number: the remotes that are mirrored now.
    slots: Vec<Option<Slot>>,
    timers: Vec<Timer>,
    tellers: Arc<Mutex<Tellers>>,
    /// The configuration in force, for the page.
    shown: Arc<Mutex<String>>,
    /// Who waits for the configuration; the first one's is being read.
    asked: Vec<Asked>,
}

/// How two configurations differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Places in the new configuration of remotes that are new.
    added: Vec<usize>,
    removed: Vec<RemoteId>,
    /// The same place, reached in another way.
    replaced: Vec<(RemoteId, usize)>,
    /// Page, status file, heartbeat, alerts or event log.
    tells_otherwise: bool,
    /// How often failures are tried again, or everything is compared.
    other_times: bool,
    /// Elements whose change makes the mirror start again.
    restart: Vec<&'static str>,
}

/// The remotes of a configuration, in file order.
pub fn slots_of(config: &Config) -> Vec<Slot> {
    let layout = Layout::new(&config.mirrors);
    let remotes = config.mirrors.iter().flat_map(|mirror| &mirror.remotes);
    let slot = |((root, name), remote): ((RootId, &[u8]), &Remote)| Slot {
        root,
        name: name.to_vec(),
        remote: remote.clone(),
    };
    layout.names().zip(remotes).map(slot).collect()
}

impl Changes {
    /// What is to be done to get from `old`, with its remotes by their numbers, to `new`.
    fn between(old: &Config, slots: &[Option<Slot>], new: &Config, wanted: &[Slot]) -> Self {
        let is_same = |one: &Slot, two: &Slot| one.root == two.root && one.name == two.name;
        let watches = |config: &Config| -> Vec<PathBuf> {
            config.mirrors.iter().map(|mirror| mirror.watch.clone()).collect()
        };
        let excludes = |config: &Config| config.crontab.as_ref().map(|it| it.excludes.clone());
        let minutes = |config: &Config| {
            (config.fail_log.retry_minutes, config.crontab.as_ref().map(|it| it.minutes))
        };
        let restart = [
            ("<localpath watch>", watches(old) != watches(new)),
            ("<filter>", old.filter != new.filter),
            ("<inotify>", old.changes != new.changes),
            ("<fileSystem>", old.backend != new.backend),
            ("<debug>", old.debug != new.debug),
            ("<guard>", old.guard != new.guard),
            ("<failLog path>", old.fail_log.path != new.fail_log.path),
            ("<crontabfilter>", excludes(old) != excludes(new)),
            ("<plugin>", old.plugin != new.plugin || old.plugins != new.plugins),
        ];
        let mut changes = Self {
            tells_otherwise: old.host != new.host || old.telling != new.telling,
            other_times: minutes(old) != minutes(new),
            restart: restart
                .iter()
                .filter(|(_, differs)| *differs)
                .map(|(name, _)| *name)
                .collect(),
            ..Self::default()
        };
        for (index, slot) in wanted.iter().enumerate() {
            let known = slots.iter().position(|it| it.as_ref().is_some_and(|it| is_same(it, slot)));
            match known {
                None => changes.added.push(index),
                Some(at) if slots[at].as_ref() != Some(slot) => {
                    changes.replaced.push((RemoteId(at), index));
                }
                Some(_) => {}
            }
        }
        for (at, slot) in slots.iter().enumerate() {
            let is_gone = |slot: &Slot| !wanted.iter().any(|wanted| is_same(wanted, slot));
            if slot.as_ref().is_some_and(is_gone) {
                changes.removed.push(RemoteId(at));
            }
        }
        changes
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A sentence for each of them.
    fn sentences(&self, slots: &[Option<Slot>], wanted: &[Slot]) -> Vec<String> {
        if self.is_empty() {
            return vec!["nothing has changed".into()];
        }
        let name = |id: &RemoteId| {
            let slot = slots.get(id.0).and_then(Option::as_ref);
            slot.map_or_else(String::new, |slot| slot.remote.destination.to_string())
        };
        let mut sentences = Vec::new();
        for index in &self.added {
            let name = &wanted[*index].remote.destination;
            sentences.push(format!("remote {name} is added: everything is compared with it"));
        }
        for id in &self.removed {
            sentences.push(format!(
                "remote {} is removed: what is pending for it is forgotten, and its copy stays as it is",
                name(id)
            ));
        }
        for (id, _) in &self.replaced {
            sentences.push(format!(
                "remote {} is reached in another way from its next run on; what is pending for it is kept",
                name(id)
            ));
        }
        if self.tells_otherwise {
            sentences.push(
                "page, status file, heartbeat, alerts and event log start again with their new settings".into(),
            );
        }
        if self.other_times {
            sentences.push("the times of <failLog> and <crontab> count from now on".into());
        }
        if !self.restart.is_empty() {
            sentences.push(format!(
                "{} cannot be changed under way: the mirror starts again in this process; what is in flight is \
                 finished, what is pending is kept, and what changes meanwhile is found",
                self.restart.join(", ")
            ));
        }
        sentences
    }
}

impl Reload {
    /// What the mirror starts with.
    pub fn new(origins: Origins, timers: Vec<Timer>) -> Self {
        let slots = slots_of(&origins.config).into_iter().map(Some).collect();
        let shown = Arc::new(Mutex::new(shown(&origins.config)));
        Self { origins, slots, timers, tellers: Arc::default(), shown, asked: Vec::new() }
    }

    /// Starts what tells others how the mirror is.
    pub fn start_tellers(&self) {
        let Origins { config, events, log, .. } = &self.origins;
        *lock(&self.tellers) =
            Tellers::start(config, &observer::reader(events.clone()), log, &self.shown);
    }

    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.origins.config
    }

    /// Reads the configuration on a thread of its own, since that may take a while.
    fn read(&self) -> Result<(), String> {
        let (file, events) = (self.origins.file.clone(), self.origins.events.clone());
        let thread = std::thread::Builder::new().name("reload".into()).spawn(move || {
            let options = LoadOptions { plugin_alone: None, preflight: true };
            let loaded = config::load(&file, &options);
            for warning in loaded.iter().flat_map(|loaded| loaded.warning_lines()) {
                log::warn!("reload: {warning}");
            }
            let config = loaded.map(|loaded| Box::new(loaded.config)).map_err(|e| e.to_string());
            // Fails only when the main loop has ended.
            _ = events.send(MainEvent::ConfigurationRead(config));
        });
        thread.map(drop).map_err(|error| {
            format!("cannot start the thread that reads the configuration: {error}")
        })
    }

    /// Ends what tells and what keeps time, and starts it anew. Elsewhere: the main loop must not wait for threads that wait for it.
    fn tell_anew(
        &mut self,
        old_timers: Vec<Timer>,
        old_log: Option<EventTeller>,
        tells_otherwise: Tells,
    ) {
        let Origins { config, events, log, .. } = &self.origins;
        let (config, reader, log) = (config.clone(), observer::reader(events.clone()), log.clone());
        let (tellers, shown) = (Arc::clone(&self.tellers), Arc::clone(&self.shown));
        let work = move || {
            drop((old_timers, old_log));
            if tells_otherwise == Tells::Otherwise {
                let mut tellers = lock(&tellers);
                // The port and the files must be free first.
                *tellers = Tellers::default();
                *tellers = Tellers::start(&config, &reader, &log, &shown);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reload".into()).spawn(work) {
            log::error!(
                "reload: cannot start a thread: {error}; what tells how the mirror is has ended: restart"
            );
        }
    }
}

/// Whether something is told in another way than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    AsBefore,
    Otherwise,
}

impl Mirror {
    /// Reads the configuration again.
    pub fn begin_reload(&mut self, asked: Asked) {
        self.reload.asked.push(asked);
        if self.reload.asked.len() == 1 {
            self.read_configuration();
        }
    }

    /// Those who cannot be served are told so, one after the other.
    fn read_configuration(&mut self) {
        if let Err(error) = self.reload.read() {
            self.configuration_read(Err(error));
        }
    }

    /// The configuration was read.
    pub fn configuration_read(&mut self, read: Result<Box<Config>, String>) {
        if self.reload.asked.is_empty() {
            return;
        }
        let Asked { purpose, reply } = self.reload.asked.remove(0);
        let answer = match read {
            Ok(config) => {
                let notes = self.heed_configuration(*config, purpose);
                if purpose == Purpose::Apply {
                    notes.iter().for_each(|note| log::info!("reload: {note}"));
                }
                Answer::Done { notes }
            }
            Err(error) => {
                let error = error.replace("; nothing was started", "");
                let lines = error.lines().filter(|line| !line.trim().is_empty());
                if reply.is_none() {
                    lines.for_each(|line| log::error!("reload: {line}"));
                    log::error!("reload: the configuration that was in force stays in force");
                }
                let stays = "the configuration that was in force stays in force";
                Answer::failed("refused", format!("{error}\n{stays}"))
            }
        };
        if let Some(reply) = reply {
            reply.send(answer);
        }
        if !self.reload.asked.is_empty() {
            self.read_configuration();
        }
    }

    fn heed_configuration(&mut self, config: Config, purpose: Purpose) -> Vec<String> {
        let wanted = slots_of(&config);
        let reload = &self.reload;
        let changes = Changes::between(reload.config(), &reload.slots, &config, &wanted);
        let sentences = changes.sentences(&reload.slots, &wanted);
        if purpose == Purpose::DryRun || changes.is_empty() || self.stopping.is_ordered() {
            return sentences;
        }
        if changes.restart.is_empty() {
            self.change_remotes(&config, &changes, &wanted);
            self.change_settings(config, &changes);
        } else {
            self.restart_with(config);
        }
        sentences
    }

    /// Remotes come and go; the others do not notice.
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

    /// The first number that no remote has, nor a job of one that is gone.
    fn free_number(&self) -> RemoteId {
        let slots = &self.reload.slots;
        let is_free = |id: &usize| {
            let id = RemoteId(*id);
            slots[id.0].is_none() && self.engine.is_free(id) && !self.ledger.has_jobs(id)
        };
        RemoteId((0..slots.len()).find(is_free).unwrap_or(slots.len()))
    }

    /// From now on the number means this remote.
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
        put(&mut self.observer.destinations, id, destination.url());
        self.teller.name_remote(id, destination.to_string(), (endpoint, source));
        put(&mut self.reload.slots, id, Some(slot));
    }

    fn change_settings(&mut self, config: Config, changes: &Changes) {
        *lock(&self.reload.shown) = shown(&config);
        let event_log_differs = self.reload.config().telling.event_log != config.telling.event_log;
        self.reload.origins.config = config;
        let (mut old_timers, mut old_log) = (Vec::new(), None);
        if changes.other_times {
            let Origins { config, events, .. } = &self.reload.origins;
            match start_timers(config, events) {
                Ok(timers) => old_timers = std::mem::replace(&mut self.reload.timers, timers),
                Err(error) => log::error!("reload: {error}; the old times go on"),
            }
        }
        if event_log_differs {
            old_log = self.teller.event_log.take();
            let roots = self.ledger.roots_of_remotes();
            let config = &self.reload.origins.config;
            self.teller.event_log = EventTeller::start(config, &self.teller.names, roots);
        }
        let tells = if changes.tells_otherwise { Tells::Otherwise } else { Tells::AsBefore };
        if changes.tells_otherwise || changes.other_times {
            self.reload.tell_anew(old_timers, old_log, tells);
        }
    }

    /// Ends in order, and asks for another mirror in this process.
    fn restart_with(&mut self, config: Config) {
        self.successor = Some(config);
        self.stopping.order(self.now());
        self.handle(Event::Stop);
    }

    /// SIGHUP.
    pub fn reload_by_signal(&mut self) {
        self.begin_reload(Asked { purpose: Purpose::Apply, reply: None });
    }
}

impl Reload {
    /// For each root, the numbers of its remotes.
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

/// Sets what belongs to a number, which is the next one or one that is taken.
pub fn put<T>(list: &mut Vec<T>, id: RemoteId, value: T) {
    match list.get_mut(id.0) {
        Some(taken) => *taken = value,
        None => list.push(value),
    }
}

/// The configuration's path for a reload, wherever the program goes.
pub fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sersync: &str, head: &str) -> Config {
        let text = format!(
            "<head version=\"2.5\">{head}<sersync>{sersync}<rsync><commonParams params=\"-artuz\"/></rsync></sersync></head>"
        );
        config::load_bytes("c.xml", text.as_bytes(), &LoadOptions::default()).unwrap().config
    }

    fn mirror(remotes: &[&str]) -> String {
        let remotes = remotes.iter().map(|ip| format!("<remote ip=\"{ip}\" name=\"m\"/>"));
        format!("<localpath watch=\"/w\">{}</localpath>", remotes.collect::<String>())
    }

    fn between(old: &Config, new: &Config) -> Changes {
        let slots: Vec<_> = slots_of(old).into_iter().map(Some).collect();
        Changes::between(old, &slots, new, &slots_of(new))
    }

    #[test]
    fn remotes_that_come_and_go_need_no_new_start() {
        let old = config(&mirror(&["a", "b"]), "");
        assert!(between(&old, &old).is_empty());
        let changes = between(&old, &config(&mirror(&["c", "b"]), ""));
        assert_eq!((changes.added, changes.removed), (vec![0], vec![RemoteId(0)]));
        assert!(changes.restart.is_empty() && changes.replaced.is_empty());
        let swapped = between(&old, &config(&mirror(&["b", "a"]), ""));
        assert!(swapped.is_empty(), "{swapped:?}");
    }

    #[test]
    fn another_filter_starts_the_mirror_again_and_says_so() {
        let old = config(&mirror(&["a"]), "");
        let filter = "<filter start=\"true\"><exclude expression=\"x\"/></filter>";
        let new = config(&mirror(&["a"]), filter);
        let changes = between(&old, &new);
        assert_eq!(changes.restart, ["<filter>"]);
        let slots: Vec<_> = slots_of(&old).into_iter().map(Some).collect();
        let sentences = changes.sentences(&slots, &slots_of(&new));
        assert!(sentences[0].starts_with("<filter> cannot be changed under way"), "{sentences:?}");
    }

    #[test]
    fn a_number_that_is_free_is_nobodys() {
        let old = config(&mirror(&["a"]), "");
        let slots = [None, Some(slots_of(&old).remove(0))];
        assert!(Changes::between(&old, &slots, &old, &slots_of(&old)).is_empty());
    }
}
