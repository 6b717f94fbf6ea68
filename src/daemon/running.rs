//! Starts every part of a mirror in the order of their dependencies, and ends them in reverse order.
//! The main loop is `daemon/mirror.rs`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, select};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::BoxError;
use super::catch_up::CatchUp;
use super::control::KeptPause;
use super::guard::Guard;
use super::ledger::Ledger;
use super::main_event::{MainEvent, ProcessEvent};
use super::mirror::{Mirror, Parts};
use super::notice::Names;
use super::observer::{self, Observer};
use super::plugins::Plugins;
use super::progress::ProgressDisplay;
use super::reload::{Origins, Reload};
use super::remote_workers::{RemoteWorkers, exclude_of};
use super::shortage::ShortageWatch;
use super::teller::Teller;
use super::telling::EventTeller;
use super::trust::Trust;
use super::watchdog::Watchdog;
use crate::args::Args;
use crate::banner;
use crate::change::{Extent, RemoteId, RootId, Scope, WatchEvent};
use crate::config::{self, Config, Loaded};
use crate::control::server::{Asked, ControlServer};
use crate::directory::as_path;
use crate::engine::pending::{Item, Mark};
use crate::engine::{Engine, EngineSetup, Event, Extraneous, FullSyncCause};
use crate::filter::Filter;
use crate::ground::absolute::absolute;
use crate::ground::counted::counted;
use crate::ground::every::Every;
use crate::ground::time::wall_ms;
use crate::journal::{Journal, JournalLayout, Replay};
use crate::logging::{self, Log};
use crate::path::RelPath;
use crate::process::signals::{Mode, Signal, Signals, start_signals};
use crate::process::{orphans, print};
use crate::record::{Record, Recorder};
use crate::snapshot::{Instance, SnapshotReader};
use crate::source::Source;
use crate::state::StateDir;
use crate::watch::{Exclude, WatchOptions, Watcher};
use crate::worker::Workers;
use crate::worker::places::Daemons;

/// The number of pending paths of all remotes at which they collapse upward. A path needs some 170 bytes, so the
/// whole program stays below 200 MB.
const PENDING_MAX: usize = 600_000;

/// The capacity of the channel of events: small, because each event may hold thousands of changes.
const EVENTS: usize = 256;

/// How long the main loop may take to accept a command.
const CONTROL_PATIENCE: Duration = Duration::from_secs(2);

/// How often directories without a watch are listed again.
const RESCAN: Duration = Duration::from_secs(60);

/// The parts that stay when the mirror is restarted with another configuration. The order of the fields matters: the
/// receiver is dropped first, so that no thread waits for us while we join it.
pub struct Outside {
    events: Receiver<ProcessEvent>,
    _signals: Signals,
    /// `None` until the watches of the first mirror are set, and if there is no state directory.
    control: Option<ControlServer>,
    /// Pauses that the next mirror continues.
    pauses: Vec<KeptPause>,
    watchdog: Watchdog,
    /// Dropped late, because ending the other parts needs memory, too.
    _shortage: ShortageWatch,
    sender: Sender<ProcessEvent>,
}

impl Outside {
    /// Starts to handle signals and shortages of memory.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn open(args: &Args, state: Option<&Arc<StateDir>>) -> Result<Self, BoxError> {
        let (sender, events) = bounded(EVENTS);
        let shortage = ShortageWatch::start(sender.clone())?;
        let mode = if args.daemon { Mode::Background } else { Mode::Foreground };
        let (to, state) = (sender.clone(), state.cloned());
        let signals = start_signals(mode, move |signal| {
            if let (Signal::Stop, Some(state)) = (signal, &state) {
                // Mark it at once, so that a start right after the signal waits for our end.
                state.mark_stopping();
            }
            _ = to.send(ProcessEvent::Signal(signal));
        })?;
        let (control, pauses, watchdog) = (None, Vec::new(), Watchdog::start());
        Ok(Self {
            events,
            _signals: signals,
            control,
            pauses,
            watchdog,
            _shortage: shortage,
            sender,
        })
    }

    /// Ends these parts and the last mirror.
    pub fn end_with(self, running: RunningDaemon) {
        let Self { events, _signals, control, _shortage, .. } = self;
        drop((events, _signals));
        drop(running);
        // The connection of `sersync2 stop` ends last: then nothing of us uses the watch path any more.
        drop(control);
    }

    /// Notes whether the mirror is being started again: commands wait meanwhile.
    pub fn set_starting(&self, starts: bool) {
        self.control.iter().for_each(|control| control.set_starting(starts));
    }

    /// Opens the control socket. If that fails, the mirror works without it.
    fn open_control(&mut self, state: Option<&StateDir>) {
        let (Some(state), None) = (state, &self.control) else { return };
        let events = self.sender.clone();
        let ask = move |asked| match events
            .send_timeout(ProcessEvent::Control(asked), CONTROL_PATIENCE)
        {
            Ok(()) => Asked::Heard,
            Err(SendTimeoutError::Timeout(_)) => Asked::Silent,
            Err(SendTimeoutError::Disconnected(_)) => Asked::Ending,
        };
        let warn = |error| {
            log::warn!(
                "cannot open the control socket in {}: {error}; `sersync2 status` and the other commands do not reach \
                 this instance",
                state.path().display()
            );
        };
        self.control = ControlServer::start(state.path(), Box::new(ask)).map_err(warn).ok();
    }
}

/// The parts that live as long as the mirror. The order of the fields matters: the receiver is dropped first, so that
/// no thread waits for us while we join it.
pub struct RunningDaemon {
    events: Receiver<MainEvent>,
    _watcher: Watcher,
    mirror: Mirror,
    /// Asks the main loop for its state.
    reader: SnapshotReader,
}

impl RunningDaemon {
    /// Starts every part, and returns when the watches are set.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub fn start(
        args: &Args,
        loaded: &Loaded,
        state: Option<&Arc<StateDir>>,
        log: &Log,
        outside: &mut Outside,
    ) -> Result<Self, BoxError> {
        let (sender, events) = bounded(EVENTS);
        let config = &loaded.config;
        let holder = state.cloned();
        let state = state.map(AsRef::as_ref);
        let filter = Arc::new(Filter::new(&config.filter)?);
        let sources = open_sources(config)?;
        let remotes = RemoteWorkers::new(config, &sources, &filter, state.map(StateDir::path));
        end_orphans(state);
        let exclude = exclude_of(&filter);
        let records = open_records(config, state);
        let recorders: Vec<Option<Recorder>> =
            records.iter().map(|record| record.as_ref().map(Record::recorder)).collect();
        let timers = start_timers(config, &sender)?;
        let workers = args.threads;
        print(&banner::threads(workers, timers.len() - 1));
        if args.full_sync {
            print(&remotes.full_sync_lines());
        }
        let watcher = Watcher::start(watch_options(config, &exclude), sender.clone())?;
        let roots_of_remotes = remotes.roots();
        let (destinations, workers_count) = (remotes.destinations(), workers);
        let teller = make_teller(args, config, &remotes, &sources, log)?;
        let engine = Engine::new(EngineSetup {
            remotes: roots_of_remotes.clone(),
            workers,
            pending_max: PENDING_MAX,
            unrecorded: if args.full_sync { Extraneous::Deleted } else { Extraneous::Kept },
        });
        let mut daemons = Daemons::default();
        let workers = start_workers(&remotes, &recorders, &mut daemons, &sender)?;
        let origins = Origins {
            file: absolute(&args.config),
            loaded: loaded.clone(),
            filter,
            sources: sources.clone(),
            recorders,
            daemons,
            state: state.map(|state| state.path().to_path_buf()),
            log: log.clone(),
            events: sender.clone(),
        };
        let reload = Reload::new(origins, timers);
        let catch_up = state.map(|state| {
            let guard = Guard::new(config.guard, confirm_command(args), state.path());
            let catch_up = CatchUp::new(records, exclude, guard, sender.clone());
            if args.full_sync { catch_up } else { catch_up.without_full_sync() }
        });
        let restored_from = sources.clone();
        let trust = Trust::new(sources, teller.names.clone(), catch_up);
        // This renews the journal for these remotes. If anything before it fails, the old configuration goes on with its journal.
        let (journal, replay) = open_journal(config, state)?;
        if let (Some(journal), Some(state)) = (&journal, holder.clone()) {
            report_loss_of_state(journal, state, sender.clone());
        }
        let ledger = Ledger::new(journal, holder, roots_of_remotes.clone(), watcher.barrier());
        let instance = instance(args, config, state, workers_count, watcher.backend());
        let observer = Observer::new(instance, destinations, Arc::clone(watcher.status()));
        let parts = Parts { engine, workers, ledger, trust, teller, observer, reload };
        let mut mirror = Mirror::new(parts, now());
        mirror.pause_again(&outside.pauses);
        let last_run = LastRun { replay, sources: restored_from, roots_of_remotes };
        let begun = begin(&mut mirror, args, config, &watcher, (&events, outside), last_run);
        if let Err(stopped) = begun {
            mirror.ledger.close();
            // Setting watches can take minutes and cannot be interrupted: the end of the process ends it.
            std::mem::forget(watcher);
            return Err(stopped.into());
        }
        mirror.start_tellers();
        outside.open_control(state);
        // Scripts wait for these lines: after them, commands are answered.
        print(&banner::watching(config.mirrors.iter().map(|mirror| mirror.watch.as_path())));
        mirror.controls.socket = outside.control.as_ref().map(ControlServer::socket_maker);
        mirror.controls.listeners.listen_to(Arc::clone(watcher.ignored_hook()));
        Ok(Self { events, _watcher: watcher, mirror, reader: observer::reader(sender) })
    }

    /// Mirrors until a signal ends it, or until a reload needs a restart; then returns the new configuration.
    pub fn work(&mut self, outside: &Outside) -> Option<Loaded> {
        outside.watchdog.watch(self.reader.clone());
        self.mirror.run(&self.events, &outside.events);
        outside.watchdog.rest();
        self.mirror.take_successor()
    }

    /// Compares every tree with its remotes, because there is no record. Does not delete what only a remote has.
    pub fn compare_everything(&mut self) {
        self.mirror.handle(Event::FullSync(FullSyncCause::Unrecorded));
    }

    /// Ends every part of the mirror so that another one can take over, and returns the configuration in force.
    pub fn end(mut self, outside: &mut Outside) -> Loaded {
        outside.pauses = self.mirror.kept_pauses();
        for event in self.mirror.unanswered() {
            // If the channel is full, the request is dropped, and its client is told that the mirror is ending.
            _ = outside.sender.try_send(event);
        }
        self.mirror.loaded().clone()
    }
}

/// What the last run has left, and to whom it belongs.
struct LastRun {
    replay: Option<Replay>,
    sources: Vec<Arc<Source>>,
    roots_of_remotes: Vec<RootId>,
}

/// Waits until the watches are set, and then makes the mirror do what the last run has left and what changed since.
fn begin(
    mirror: &mut Mirror,
    args: &Args,
    config: &Config,
    watcher: &Watcher,
    (events, outside): (&Receiver<MainEvent>, &Outside),
    last_run: LastRun,
) -> Result<(), StoppedEarly> {
    let early = wait_for_watches(events, outside, config.mirrors.len())?;
    let LastRun { replay, sources, roots_of_remotes } = last_run;
    // Without a sound journal, only a walk finds what is gone.
    let needs_walk = replay.as_ref().is_some_and(Replay::needs_walk);
    let catches_up = !args.no_catch_up || needs_walk;
    if catches_up {
        mirror.doubt_recorded_roots();
    }
    mirror.wake_early(early);
    if catches_up {
        mirror.begin_records();
    }
    for mirror in &config.mirrors {
        log::info!("watching {} with {}", mirror.watch.display(), watcher.backend());
    }
    mirror.distrust_changed_roots(catches_up);
    if let Some(replay) = replay {
        let names = mirror.teller.names.clone();
        mirror.restore(restored(&replay, &roots_of_remotes, &sources, &names));
    }
    if catches_up {
        mirror.look_for_changes_since_the_last_run(args.full_sync);
    }
    if args.full_sync {
        mirror.handle(Event::FullSync(FullSyncCause::Start));
    }
    Ok(())
}

/// What tells the operator of the mirror's work.
fn make_teller(
    args: &Args,
    config: &Config,
    remotes: &RemoteWorkers,
    sources: &[Arc<Source>],
    log: &Log,
) -> Result<Teller, BoxError> {
    let names = remotes.names(sources);
    Ok(Teller {
        event_log: EventTeller::start(config, &names, &remotes.roots()),
        names,
        fail_log: remotes.fail_log(&config.fail_log.path),
        progress: if args.daemon {
            ProgressDisplay::in_log()
        } else {
            ProgressDisplay::on_terminal(log)
        },
        plugins: start_plugins(config)?,
        reopen_log: reopen(log),
    })
}

/// Tells the main loop when the state directory is gone.
fn report_loss_of_state(journal: &Journal, state: Arc<StateDir>, sender: Sender<MainEvent>) {
    journal.after_each_sync(move || {
        // Do not block here: the main loop may be waiting for this thread.
        state.report_loss(|| sender.try_send(MainEvent::StateLost).is_ok());
    });
}

/// Ends rsync processes that a killed program left running, because they could overwrite new data with old data.
fn end_orphans(state: Option<&StateDir>) {
    let ended = state.map_or(0, |state| orphans::end_orphans(state.path()));
    if ended > 0 {
        log::info!("ended {ended} rsync that the last run had left at work, because it was killed");
    }
}

/// The command that confirms deletions of this instance.
fn confirm_command(args: &Args) -> String {
    let shown = |path: &Path| absolute(path).display().to_string();
    let mut command = format!("sersync2 confirm-deletions -o {}", shown(&args.config));
    if let Some(state) = &args.state_dir {
        command += &format!(" --state-dir {}", shown(state));
    }
    command
}

/// The constant facts about the process, for snapshots.
fn instance(
    args: &Args,
    config: &Config,
    state: Option<&StateDir>,
    workers: usize,
    backend: &str,
) -> Instance {
    let shown = |path: &Path| absolute(path).display().to_string();
    let log_file = args.log_file.clone();
    let default = || logging::default_file(state.map(StateDir::path));
    let log_file = log_file.or_else(|| args.daemon.then(default));
    Instance {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        config: shown(&args.config),
        started_ms: wall_ms(),
        backend: backend.into(),
        state_dir: state.map(|state| state.path().display().to_string()),
        log_file: log_file.map(|path| shown(&path)),
        workers: workers as u64,
        fail_log: config.fail_log.path.display().to_string(),
        ..Instance::default()
    }
}

/// What to watch, and which changes count.
pub fn watch_options(config: &Config, exclude: &Exclude) -> WatchOptions {
    let roots = config.mirrors.iter().enumerate();
    WatchOptions {
        roots: roots.map(|(id, mirror)| (RootId(id), mirror.watch.clone())).collect(),
        switches: config.changes,
        exclude: Some(Arc::clone(exclude)),
        debug: config.debug,
        backend: config.backend,
        rescan_interval: RESCAN,
    }
}

fn open_sources(config: &Config) -> Result<Vec<Arc<Source>>, BoxError> {
    let open = |mirror: &config::MirrorConfig| Source::open(&mirror.watch).map(Arc::new);
    Ok(config.mirrors.iter().map(open).collect::<Result<_, _>>()?)
}

fn open_journal(
    config: &Config,
    state: Option<&StateDir>,
) -> Result<(Option<Journal>, Option<Replay>), BoxError> {
    let Some(state) = state else { return Ok((None, None)) };
    let (journal, replay) = Journal::open(state.path(), JournalLayout::new(&config.mirrors))?;
    Ok((Some(journal), Some(replay)))
}

/// Opens the record of each root. Without one, the next start cannot find changes made while the program is down.
fn open_records(config: &Config, state: Option<&StateDir>) -> Vec<Option<Record>> {
    let open = |watch: &PathBuf| {
        let record = Record::open(state?.path(), watch);
        let warn = |error| {
            log::error!(
                "cannot open the record of {}: {error}; what changed while this program was down is not found, and \
                 comparisons delete nothing: fix that and restart",
                watch.display()
            );
        };
        record.map_err(warn).ok()
    };
    config.mirrors.iter().map(|mirror| open(&mirror.watch)).collect()
}

/// Starts the retry timer, and then the crontab timer if it is configured.
pub fn start_timers(config: &Config, sender: &Sender<MainEvent>) -> Result<Vec<Every>, BoxError> {
    let tick = |event: Event| {
        let sender = sender.clone();
        // Fails only when the main loop has ended.
        move || _ = sender.send(MainEvent::Event(event.clone()))
    };
    let minutes = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
    let retry = minutes(config.fail_log.retry_minutes);
    let mut timers = vec![Every::start("retry", retry, retry, tick(Event::RetryFailLog))?];
    if let Some(crontab) = &config.crontab {
        let event = Event::FullSync(FullSyncCause::Schedule);
        let interval = minutes(crontab.minutes);
        timers.push(Every::start("crontab", interval, interval, tick(event))?);
    }
    Ok(timers)
}

fn start_workers(
    remotes: &RemoteWorkers,
    recorders: &[Option<Recorder>],
    daemons: &mut Daemons,
    sender: &Sender<MainEvent>,
) -> Result<Workers, BoxError> {
    let sender = sender.clone();
    // Fails only when the main loop has ended.
    let tell = move |said| _ = sender.send(MainEvent::from(said));
    let load_gate = Arc::default();
    let remotes = remotes.workers(recorders, &load_gate, daemons);
    Ok(Workers::start(remotes, load_gate, tell)?)
}

/// Starts the plugin that runs after each delivery.
fn start_plugins(config: &Config) -> Result<Option<Plugins>, BoxError> {
    let Some(name) = config.plugin else { return Ok(None) };
    let plugin = super::plugins::start_plugin(config, name)?;
    let roots: Vec<&Path> = config.mirrors.iter().map(|mirror| mirror.watch.as_path()).collect();
    let mut remotes = Vec::new();
    for (root, mirror) in config.mirrors.iter().enumerate() {
        let label = |remote: &config::Remote| (RootId(root), remote.destination.to_string());
        remotes.extend(mirror.remotes.iter().map(label));
    }
    Ok(Some(Plugins::new(plugin, config.changes, &roots, &remotes)))
}

/// Makes the function that reopens the log file: at SIGHUP, and when the state directory was deleted.
pub fn reopen(log: &Log) -> Box<dyn Fn()> {
    let log = log.clone();
    Box::new(move || match log.reopen() {
        Ok(Some(file)) => log::info!("the log file {} is reopened", file.display()),
        Ok(None) => log::info!("the log goes to standard error, so there is no log file to reopen"),
        Err(error) => log::warn!("{error}; the old log file stays in use"),
    })
}

/// Somebody told the program to stop before its watches were set.
#[derive(Debug, thiserror::Error)]
#[error("it was told to stop before its watches were set")]
pub struct StoppedEarly;

/// Waits until the watches are set; returns the events that arrived meanwhile.
fn wait_for_watches(
    events: &Receiver<MainEvent>,
    outside: &Outside,
    roots: usize,
) -> Result<Vec<MainEvent>, StoppedEarly> {
    let mut ready = 0;
    let (mut early, mut later) = (Vec::new(), Vec::new());
    while ready < roots {
        select! {
            recv(events) -> event => match event {
                Ok(MainEvent::Event(Event::Watch(WatchEvent::Ready { root, directories }))) => {
                    log::debug!("{directories} directories are watched below root {}", root.0);
                    ready += 1;
                }
                Ok(event) => early.push(event),
                Err(_) => break,
            },
            recv(outside.events) -> event => match event {
                Ok(ProcessEvent::Signal(Signal::Stop)) => return Err(StoppedEarly),
                Ok(event) => later.push(event),
                Err(_) => break,
            },
        }
    }
    // What came after them stays behind them.
    later.extend(outside.events.try_iter());
    for event in later {
        // If the channel is full, the request is dropped, and its client is told that the mirror is ending.
        _ = outside.sender.try_send(event);
    }
    Ok(early)
}

/// What the last run did not finish, as events for the engine. They are made one remote after the other, because many remotes
/// may lack the same paths.
fn restored<'a>(
    replay: &'a Replay,
    roots: &'a [RootId],
    sources: &[Arc<Source>],
    names: &'a Names,
) -> impl Iterator<Item = Event> + 'a {
    let ids = (0..sources.len()).map(RootId);
    let absent: Vec<_> =
        ids.zip(sources).map(|(id, root)| absent_paths(replay, id, root)).collect();
    let of_remote = move |(remote, root): (usize, &RootId)| {
        let remote = RemoteId(remote);
        let items = restored_items(replay.pending(remote));
        if !items.is_empty() {
            let count = items.len() as u64;
            let changes =
                counted(count, "change of the last run is", "changes of the last run are");
            log::info!("{changes} still to be delivered to {}", names.remote(remote));
        }
        // A path that was made again after its deletion is missing without a report.
        let made =
            items.iter().filter(|item| item.mark.scope == Scope::Entry && item.mark.additive);
        let made: HashSet<RelPath> = made.map(|item| item.path.clone()).collect();
        let is_absent = |item: &Item| {
            let is_deletion = item.mark.scope == Scope::Entry && !item.mark.additive;
            let is_reported = is_deletion && !made.contains(&item.path);
            !is_reported && absent[root.0].contains(&item.path)
        };
        let (absent, present): (Vec<_>, Vec<_>) = items.into_iter().partition(is_absent);
        let present = (!present.is_empty()).then_some(Event::Restored(remote, present));
        let absent = (!absent.is_empty()).then_some(Event::RestoredAbsent(remote, absent));
        present.into_iter().chain(absent)
    };
    roots.iter().enumerate().flat_map(of_remote)
}

/// The pending paths that are absent below a root; none if the root cannot be read.
fn absent_paths(replay: &Replay, id: RootId, root: &Source) -> HashSet<RelPath> {
    let Ok(root) = root.open_healthy() else { return HashSet::new() };
    let is_absent = |path: &RelPath| {
        let found = statat(&root, as_path(path), AtFlags::SYMLINK_NOFOLLOW);
        matches!(found, Err(Errno::NOENT | Errno::NOTDIR))
    };
    replay.paths(id).filter(is_absent).collect()
}

/// The items of a restored journal. It is no longer known which files were sent while fresh, so single paths are
/// compared by content. Whole trees are not, because reading them would take too long.
fn restored_items(pending: impl Iterator<Item = (RelPath, Extent)>) -> Vec<Item> {
    let mark = |Extent { scope, additive }| {
        let compare_content = scope == Scope::Entry;
        Mark { compare_content, additive, ..Mark::new(scope) }
    };
    pending.map(|(path, extent)| Item { path, mark: mark(extent) }).collect()
}

#[expect(clippy::disallowed_methods, reason = "the engine's time begins here")]
fn now() -> Instant {
    Instant::now()
}
