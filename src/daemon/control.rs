//! Executes the commands of the control socket in the main loop, and answers them.
//! The socket itself is `control/server.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listeners::Listeners;
use super::mirror::Mirror;
use super::reload::{self, Purpose};
use crate::change::{RemoteId, RootId};
use crate::control::protocol::{self, Answer, Command, Missing, read_path};
use crate::control::server::{Call, ClientEvent, Reply, SocketMaker};
use crate::engine::{Deletions, Event, FlushId, Now, Standing};
use crate::ground::counted::counted;
use crate::logging;
use crate::path::RelPath;
use crate::process::signals::Signal;

/// The maximum number of flushes at the same time.
const FLUSHES_MAX: usize = 32;

/// The maximum number of missing paths that an answer lists for each remote.
const MISSING_NAMED: usize = 20;

/// The chosen remotes, and the chosen paths below their roots; no path: everything.
type Targets = Vec<(RemoteId, Vec<RelPath>)>;

/// The flushes that clients wait for, the pauses, and the listeners.
#[derive(Debug, Default)]
pub struct Controls {
    /// Creates the control socket again after it was deleted; `None` without a control socket.
    pub socket: Option<SocketMaker>,
    flushes: BTreeMap<FlushId, Flush>,
    next_flush: u64,
    pauses: Vec<Pause>,
    /// The clients that follow events.
    pub listeners: Listeners,
}

/// A client that waits until its targets are delivered.
#[derive(Debug)]
struct Flush {
    reply: Reply,
    /// The request as the client sent it: the remote and the paths.
    asked: (Option<String>, Vec<String>),
    targets: Targets,
    until: Option<Now>,
    stage: Stage,
}

/// The stage of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits until the watch thread has reported all earlier events.
    AsksKernel,
    /// It waits for a walk that looks for changes made while the program was down.
    WaitsForWalk,
    /// The engine knows its targets, and reports when they are delivered.
    Marked,
}

/// The pause of a remote.
#[derive(Debug)]
struct Pause {
    remote: RemoteId,
    until: Option<Now>,
    /// It ends with this client.
    client: Option<u64>,
}

/// A pause that another mirror continues, in which the remote may have another number.
#[derive(Debug, Clone)]
pub struct KeptPause {
    root: PathBuf,
    /// Its name in the journal.
    remote: Vec<u8>,
    left: Option<Duration>,
    client: Option<u64>,
}

impl Controls {
    /// When a flush or a pause reaches its time limit.
    pub fn next_deadline(&self) -> Option<Now> {
        let flushes = self.flushes.values().filter_map(|flush| flush.until);
        flushes.chain(self.pauses.iter().filter_map(|pause| pause.until)).min()
    }

    /// Until when a remote is paused; `Some(None)`: until an operator resumes it.
    pub fn paused_until(&self, remote: RemoteId) -> Option<Option<Now>> {
        let pauses = self.pauses.iter().filter(|pause| pause.remote == remote);
        // A pause without an end outlasts all others.
        pauses.map(|pause| pause.until).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
    }
}

impl Mirror {
    /// Executes a command.
    pub fn control(&mut self, asked: ClientEvent) {
        match asked {
            ClientEvent::Call(Call { reply, .. }) if reply.is_late() => {}
            ClientEvent::Call(Call {
                command: Command::Flush { remote, paths, timeout_ms },
                reply,
            }) => self.begin_flush(reply, remote, paths, timeout_ms),
            ClientEvent::Call(Call { command: Command::Reload { dry_run }, reply }) => {
                let purpose = if dry_run { Purpose::DryRun } else { Purpose::Apply };
                self.begin_reload(reload::ReloadRequest { purpose, reply: Some(reply) });
            }
            ClientEvent::Call(Call { command: Command::Events, reply }) => {
                self.begin_listening(reply)
            }
            ClientEvent::Call(Call { command: Command::Stop, reply }) => {
                reply.send(done(["stopping: what is in flight is finished first".into()]));
                self.signal(Signal::Stop);
            }
            ClientEvent::Call(Call { command, reply }) => {
                let client = reply.client();
                let answer = self.answer(command, client);
                reply.send(answer.unwrap_or_else(|message| Answer::failed("refused", message)));
            }
            ClientEvent::Gone(client) => {
                self.controls.listeners.gone(client);
                self.end_pauses(|pause| pause.client == Some(client));
                self.forget_flushes(|flush| flush.reply.client() == client);
            }
        }
    }

    /// Ends flushes and pauses that have reached their time limit.
    pub fn control_due(&mut self) {
        let now = self.now();
        if self.controls.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        let is_due = |until: Option<Now>| until.is_some_and(|until| until <= now);
        self.end_pauses(|pause| is_due(pause.until));
        let late = self.controls.flushes.iter().filter(|(_, flush)| is_due(flush.until));
        let late: Vec<FlushId> = late.map(|(id, _)| *id).collect();
        for id in late {
            let missing = self.missing(id);
            if let Some(flush) = self.controls.flushes.remove(&id) {
                flush.reply.send(Answer::Flushed { missing });
                self.handle(Event::FlushForgotten(id));
            }
        }
    }

    fn answer(&mut self, command: Command, client: u64) -> Result<Answer, String> {
        match command {
            Command::Status => Ok(Answer::Status { snapshot: Box::new(self.snapshot()) }),
            Command::SyncNow { remote, path } => {
                let paths: Vec<String> = path.into_iter().collect();
                let targets = self.targets(remote.as_deref(), &paths)?;
                Ok(done([self.sync_now(targets)]))
            }
            Command::Explain { path } => {
                let targets = self.targets(None, &[path])?;
                let of = |(id, paths): (RemoteId, Vec<RelPath>)| self.stands(id, paths.first()?);
                Ok(Answer::Explained { remotes: targets.into_iter().filter_map(of).collect() })
            }
            Command::Retry { remote } => {
                let targets = self.targets(remote.as_deref(), &[])?;
                let failing: usize =
                    targets.iter().map(|(id, _)| self.engine.failing(*id).count()).sum();
                let is_down = |id: RemoteId| {
                    let outage = self.engine.observe(id).and_then(|view| view.outage);
                    outage.is_some_and(|outage| outage.failure.is_some())
                };
                let down = targets.iter().filter(|(id, _)| is_down(*id)).count();
                for (remote, _) in &targets {
                    self.handle(Event::Retry(*remote));
                }
                Ok(done([format!(
                    "{} and {} that {} down: retried now",
                    counted(failing as u64, "failed path", "failed paths"),
                    counted(down as u64, "remote", "remotes"),
                    if down == 1 { "is" } else { "are" },
                )]))
            }
            Command::Pause { remote, for_ms, while_connected } => {
                let targets = self.targets(remote.as_deref(), &[])?;
                let until = for_ms.map(|ms| self.now() + Duration::from_millis(ms));
                let client = while_connected.then_some(client);
                Ok(done(targets.into_iter().map(|(remote, _)| self.pause(remote, until, client))))
            }
            Command::Resume { remote } => {
                let targets = self.targets(remote.as_deref(), &[])?;
                let meant: BTreeSet<RemoteId> = targets.into_iter().map(|(id, _)| id).collect();
                let resumed = self.end_pauses(|pause| meant.contains(&pause.remote));
                let names = resumed
                    .iter()
                    .map(|id| format!("{} is resumed", self.teller.names.remote(*id)));
                let mut notes: Vec<String> = names.collect();
                notes.extend(resumed.is_empty().then(|| "nothing is paused".into()));
                Ok(done(notes))
            }
            Command::ConfirmDeletions => Ok(done(self.confirm_deletions())),
            Command::LogLevel { level } => {
                let level = level.parse().map_err(|_| {
                    format!("{level:?} is not a log level: use error, warn, info, debug or trace")
                })?;
                logging::set_level(level);
                Ok(done([format!("the log level is {level} until the next start")]))
            }
            Command::Flush { .. } | Command::Reload { .. } | Command::Events | Command::Stop => {
                Err("this is done elsewhere".into())
            }
        }
    }

    /// The chosen remotes, each with those of the paths that are below its root.
    fn targets(&self, remote: Option<&str>, paths: &[String]) -> Result<Targets, String> {
        let numbers = 0..self.ledger.roots_of_remotes().len();
        let is_there = |id: &RemoteId| self.engine.observe(*id).is_some();
        let all = || numbers.clone().map(RemoteId).filter(is_there);
        let is_meant =
            |id: &RemoteId| remote.is_none_or(|name| self.teller.names.remote(*id) == name);
        let remotes: Vec<RemoteId> = all().filter(is_meant).collect();
        if remotes.is_empty() {
            let known: Vec<&str> = all().map(|id| self.teller.names.remote(id)).collect();
            let name = remote.unwrap_or_default();
            return Err(format!("there is no remote {name}: say one of {}", known.join(", ")));
        }
        if paths.is_empty() {
            return Ok(remotes.into_iter().map(|id| (id, Vec::new())).collect());
        }
        let mut of_roots: BTreeMap<RootId, Vec<RelPath>> = BTreeMap::new();
        for text in paths {
            let (root, path) = self.locate(&read_path(text)).ok_or_else(|| {
                let roots: Vec<String> =
                    self.teller.names.roots.iter().map(|root| root.display().to_string()).collect();
                format!("{text} is not below a watch path: {}", roots.join(", "))
            })?;
            of_roots.entry(root).or_default().push(path);
        }
        let of = |id: RemoteId| {
            Some((id, of_roots.get(self.ledger.roots_of_remotes().get(id.0)?)?.clone()))
        };
        let targets: Targets = remotes.into_iter().filter_map(of).collect();
        match targets.is_empty() {
            true => Err("that remote does not get these paths".into()),
            false => Ok(targets),
        }
    }

    /// The root of an absolute path, and the path below it.
    fn locate(&self, path: &Path) -> Option<(RootId, RelPath)> {
        let mut found = self.teller.names.roots.iter().enumerate().filter_map(|(index, root)| {
            let below = path.strip_prefix(root).ok()?;
            let names: Vec<&[u8]> = below.iter().map(OsStr::as_bytes).collect();
            Some((RootId(index), RelPath::new(&names.join(&b'/'))?))
        });
        found.next()
    }

    fn sync_now(&mut self, targets: Targets) -> String {
        let mut trees = 0;
        for (remote, paths) in targets {
            let paths = if paths.is_empty() { vec![RelPath::root()] } else { paths };
            for path in paths {
                trees += 1;
                self.ledger.compare(remote, &path);
                self.handle(Event::Compare(remote, path));
            }
        }
        let trees = if trees == 1 { "1 tree is".into() } else { format!("{trees} trees are") };
        format!("{trees} compared now; `sersync2 flush` waits for the end")
    }

    fn pause(&mut self, remote: RemoteId, until: Option<Now>, client: Option<u64>) -> String {
        self.controls.pauses.push(Pause { remote, until, client });
        self.handle(Event::Pause(remote));
        let name = self.teller.names.remote(remote);
        log::warn!("remote {name} is paused by an operator: nothing is sent, and nothing is lost");
        let end = match (until, client) {
            (Some(_), _) => "it resumes by itself",
            (None, Some(_)) => "it resumes when the command ends",
            (None, None) => "until: sersync2 resume",
        };
        format!("{name} is paused; {end}")
    }

    /// Ends the chosen pauses; returns the remotes that are no longer paused.
    fn end_pauses(&mut self, ends: impl Fn(&Pause) -> bool) -> BTreeSet<RemoteId> {
        let (ended, kept) = self.controls.pauses.drain(..).partition(ends);
        self.controls.pauses = kept;
        let ended: Vec<Pause> = ended;
        let mut resumed: BTreeSet<RemoteId> = ended.iter().map(|pause| pause.remote).collect();
        resumed.retain(|remote| self.controls.paused_until(*remote).is_none());
        for remote in &resumed {
            log::info!("remote {} is resumed", self.teller.names.remote(*remote));
            self.handle(Event::Resume(*remote));
        }
        resumed
    }

    /// The pauses, for the mirror that takes over.
    pub fn kept_pauses(&self) -> Vec<KeptPause> {
        let now = self.now();
        let keep = |pause: &Pause| {
            let root = self.ledger.roots_of_remotes().get(pause.remote.0)?;
            Some(KeptPause {
                root: self.teller.names.roots.get(root.0)?.clone(),
                remote: self.reload.slot_name(pause.remote)?,
                left: pause.until.map(|until| until.saturating_sub(now)),
                client: pause.client,
            })
        };
        self.controls.pauses.iter().filter_map(keep).collect()
    }

    /// Restores the pauses of the previous mirror. Call it before anything is sent.
    pub fn pause_again(&mut self, kept: &[KeptPause]) {
        for pause in kept {
            let mut remotes = self.ledger.roots_of_remotes().iter().enumerate();
            let is_meant = |(id, root): &(usize, &RootId)| {
                self.teller.names.roots.get(root.0) == Some(&pause.root)
                    && self.reload.slot_name(RemoteId(*id)).as_ref() == Some(&pause.remote)
            };
            let Some((id, _)) = remotes.find(is_meant) else { continue };
            let until = pause.left.map(|left| self.now() + left);
            let remote = RemoteId(id);
            self.controls.pauses.push(Pause { remote, until, client: pause.client });
            self.handle(Event::Pause(remote));
        }
    }

    /// The unanswered flushes, as requests to the mirror that takes over.
    pub fn unanswered_flushes(&mut self) -> Vec<Call> {
        let now = self.now();
        let ask = |flush: Flush| {
            let (remote, paths) = flush.asked;
            let left = flush.until.map(|until| until.saturating_sub(now).as_millis());
            let timeout_ms = left.map(|left| u64::try_from(left).unwrap_or(u64::MAX));
            Call { command: Command::Flush { remote, paths, timeout_ms }, reply: flush.reply }
        };
        std::mem::take(&mut self.controls.flushes).into_values().map(ask).collect()
    }

    /// Drops the pauses of a remote that is no longer mirrored.
    pub fn forget_pauses(&mut self, remote: RemoteId) {
        self.controls.pauses.retain(|pause| pause.remote != remote);
    }

    fn begin_flush(
        &mut self,
        reply: Reply,
        remote: Option<String>,
        paths: Vec<String>,
        timeout_ms: Option<u64>,
    ) {
        let targets = match self.targets(remote.as_deref(), &paths) {
            Ok(targets) => targets,
            Err(message) => {
                reply.send(Answer::failed("refused", message));
                return;
            }
        };
        if self.controls.flushes.len() >= FLUSHES_MAX {
            let message = format!("{FLUSHES_MAX} flushes are running already: try again later");
            reply.send(Answer::failed("busy", message));
            return;
        }
        let id = FlushId(self.controls.next_flush);
        self.controls.next_flush += 1;
        let until = timeout_ms.map(|ms| self.now() + Duration::from_millis(ms));
        let asked = (remote, paths);
        let flush = Flush { reply, asked, targets, until, stage: Stage::AsksKernel };
        self.controls.flushes.insert(id, flush);
        self.ledger.ask_for_flush(id);
    }

    /// The watch thread has reported everything that happened before these flushes.
    pub fn flushes_told(&mut self, ids: &[FlushId]) {
        for id in ids {
            if let Some(flush) = self.controls.flushes.get_mut(id) {
                flush.stage = Stage::WaitsForWalk;
            }
        }
        self.mark_flushes();
    }

    /// Passes the targets of flushes to the engine, if no walk can add changes to them any more.
    pub fn mark_flushes(&mut self) {
        let waiting = self.controls.flushes.iter();
        let waiting = waiting.filter(|(_, flush)| flush.stage == Stage::WaitsForWalk);
        let ready = waiting.filter(|(_, flush)| {
            let mut roots =
                flush.targets.iter().filter_map(|(id, _)| self.ledger.roots_of_remotes().get(id.0));
            !roots.any(|root| self.trust.is_looking(*root))
        });
        let ready: Vec<(FlushId, Targets)> =
            ready.map(|(id, flush)| (*id, flush.targets.clone())).collect();
        for (id, targets) in ready {
            if let Some(flush) = self.controls.flushes.get_mut(&id) {
                flush.stage = Stage::Marked;
            }
            self.handle(Event::Flush(id, targets));
        }
    }

    /// Answers a flush whose targets are delivered.
    pub fn flushed(&mut self, id: FlushId) {
        if let Some(flush) = self.controls.flushes.remove(&id) {
            flush.reply.send(Answer::Flushed { missing: Vec::new() });
        }
    }

    /// A remote was removed from the configuration: a flush of it alone ends.
    pub fn end_flushes_of(&mut self, remote: RemoteId) {
        let flushes = self.controls.flushes.iter_mut();
        let mut over = Vec::new();
        for (id, flush) in flushes {
            flush.targets.retain(|(target, _)| *target != remote);
            if flush.targets.is_empty() {
                over.push(*id);
            }
        }
        for id in over {
            if let Some(flush) = self.controls.flushes.remove(&id) {
                let message =
                    "the remote was removed from the configuration: what it lacks is not sent";
                flush.reply.send(Answer::failed("refused", message));
            }
            self.handle(Event::FlushForgotten(id));
        }
    }

    fn forget_flushes(&mut self, is_over: impl Fn(&Flush) -> bool) {
        let over = self.controls.flushes.iter().filter(|(_, flush)| is_over(flush));
        let over: Vec<FlushId> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.controls.flushes.remove(&id);
            self.handle(Event::FlushForgotten(id));
        }
    }

    /// The missing paths of a flush, remote by remote.
    fn missing(&self, id: FlushId) -> Vec<Missing> {
        let Some(flush) = self.controls.flushes.get(&id) else { return Vec::new() };
        let of = |remote: RemoteId| {
            let (count, first) = match flush.stage {
                Stage::Marked => self.engine.missing(remote, id, MISSING_NAMED)?,
                Stage::AsksKernel | Stage::WaitsForWalk => (0, Vec::new()),
            };
            let reason = match flush.stage {
                Stage::AsksKernel => Some("the kernel's event queue is still being read".into()),
                Stage::WaitsForWalk => {
                    Some("it is still looking for what changed while it was not running".into())
                }
                Stage::Marked => self.reason(remote),
            };
            Some(Missing {
                remote: self.teller.names.remote(remote).into(),
                paths: count as u64,
                first: first.iter().map(RelPath::to_string).collect(),
                reason,
            })
        };
        flush.targets.iter().filter_map(|(remote, _)| of(*remote)).collect()
    }

    /// The state of a path at one remote.
    fn stands(&self, remote: RemoteId, path: &RelPath) -> Option<protocol::PathStatus> {
        let clock = self.clock();
        let known = protocol::PathStatus {
            remote: self.teller.names.remote(remote).into(),
            reason: self.reason(remote),
            ..protocol::PathStatus::default()
        };
        let since = |since: Option<Now>| since.map(|since| clock.wall_of(since));
        Some(match self.engine.standing(remote, path)? {
            Standing::Delivered => {
                protocol::PathStatus { state: "delivered".into(), reason: None, ..known }
            }
            Standing::Pending(at) => {
                protocol::PathStatus { state: "pending".into(), since_ms: since(at), ..known }
            }
            Standing::InFlight(at) => {
                protocol::PathStatus { state: "in_flight".into(), since_ms: since(at), ..known }
            }
            Standing::Failing(failing, due) => protocol::PathStatus {
                state: "failing".into(),
                since_ms: since(Some(failing.since)),
                reason: Some(failing.failure.reason.clone()),
                what_to_do: Some(failing.failure.what_to_do().into()),
                tries: failing.tries.into(),
                next_try_ms: due.filter(|due| *due > clock.now).map(|due| clock.wall_of(due)),
                ..known
            },
        })
    }

    /// Why something is not delivered to a remote.
    fn reason(&self, remote: RemoteId) -> Option<String> {
        let view = self.engine.observe(remote)?;
        let down = view.outage.as_ref().and_then(|outage| outage.failure.as_ref());
        let failing = || {
            let (path, failing, _) = self.engine.failing(remote).next()?;
            Some(format!("{path}: {}", failing.failure.reason))
        };
        match () {
            () if self.engine.is_lost(view.root) => Some("its watch path is lost".into()),
            () if view.is_paused => Some("it is paused; to go on: sersync2 resume".into()),
            () if down.is_some() => down.map(|failure| format!("it is down: {}", failure.clause())),
            () if view.failing > 0 => failing(),
            () if self.trust.deletions(view.root) == Deletions::Withheld => Some(
                "deletions are held back; if they are meant: sersync2 confirm-deletions".into(),
            ),
            () if view.full_sync.is_some() => Some("a full sync is running".into()),
            () => None,
        }
    }

    /// Allows the deletions that the guard holds back, as an operator has confirmed them.
    fn confirm_deletions(&mut self) -> Vec<String> {
        let (confirmed, at_walk, events) = self.trust.confirm();
        let mut notes = Vec::new();
        for root in at_walk {
            let path = self.teller.names.root(root);
            notes
                .push(format!("{path} is still being searched: confirm again if an alarm follows"));
        }
        for root in confirmed {
            let path = self.teller.names.root(root);
            log::warn!("deletions below {path} are confirmed by an operator");
            notes.push(format!("what is gone below {path} is deleted on the remotes"));
        }
        self.take_in_all(events);
        notes.extend(notes.is_empty().then(|| "nothing is held back".into()));
        notes
    }
}

fn done(notes: impl IntoIterator<Item = String>) -> Answer {
    Answer::Done { notes: notes.into_iter().collect() }
}
