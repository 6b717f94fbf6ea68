//! Tells whoever listens through the control socket what happens to each path. Costs nothing while nobody does.
//! Nobody waits for a listener: what it does not read in time is left out, and counted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::mirror::Mirror;
use crate::change::{Cause, Change, RemoteId, RootId, RootLoss, Scope, WatchEvent};
use crate::control::event::{Told, What};
use crate::control::protocol::{Answer, write_path};
use crate::control::server::{Listener, Reply};
use crate::engine::{Event, Job, JobReport, Settled};
use crate::filter::{Filter, Rule};
use crate::ground::lock::lock;
use crate::ground::time::wall_ms;
use crate::path::RelPath;
use crate::watch::ear::{Ear, Why};

/// So many may listen at the same time.
const LISTENERS_MAX: usize = 8;

/// Whoever listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Shared with the watch thread, which tells what it ignores.
    all: Arc<Mutex<Vec<Listener>>>,
    /// The main loop's own view: it alone adds and removes.
    count: usize,
    ear: Option<Arc<Ear>>,
}

impl Listeners {
    /// The watch thread tells through this what it ignores.
    pub fn listen_to(&mut self, ear: Arc<Ear>) {
        self.ear = Some(ear);
    }

    /// True while somebody listens.
    pub fn is_anyone(&self) -> bool {
        self.count > 0
    }

    /// A client has gone.
    pub fn gone(&mut self, client: u64) {
        let mut all = lock(&self.all);
        all.retain(|listener| listener.client() != client);
        self.count = all.len();
        drop(all);
        if self.count == 0
            && let Some(ear) = &self.ear
        {
            ear.set(None);
        }
    }

    fn tell(&self, told: Told) {
        tell(&mut lock(&self.all), told);
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // The watch thread may hold the list a moment longer than the mirror lives.
        lock(&self.all).clear();
        if let Some(ear) = &self.ear {
            ear.set(None);
        }
    }
}

fn tell(listeners: &mut [Listener], told: Told) {
    let line = Answer::Event { event: Box::new(told) }.to_line();
    listeners.iter_mut().for_each(|listener| listener.tell(&line));
}

/// Says why the watch thread ignores a change.
struct Reasons {
    roots: Vec<PathBuf>,
    excludes: Vec<String>,
    filter: Arc<Filter>,
}

impl Reasons {
    fn told(&self, root: RootId, change: &Change, why: Why) -> Told {
        let watch = self.roots.get(root.0).cloned().unwrap_or_default();
        let what = if why == Why::Repeated { What::Merged } else { What::Ignored };
        Told { what, why: Some(self.words(change, why)), ..of_change(&watch, change) }
    }

    fn words(&self, change: &Change, why: Why) -> String {
        match why {
            Why::SwitchedOff if change.cause == Cause::Modify => {
                "<modify start=\"false\"/>: it counts when the file is closed".into()
            }
            Why::SwitchedOff => {
                let switch = switch_of(change);
                format!("<{switch} start=\"false\"/>")
            }
            Why::Lost => "its file system is gone: nothing there is a change".into(),
            Why::Repeated => "the event before it said the same".into(),
            Why::Excluded => {
                let Some((at, rule)) = self.filter.deciding_rule(&change.path, change.is_dir)
                else {
                    return "it is excluded".into();
                };
                format!("{at} {}", self.rule(rule))
            }
        }
    }

    fn rule(&self, rule: Rule) -> String {
        match rule {
            Rule::Expression(index) => {
                let text = self.excludes.get(index).map_or("", String::as_str);
                format!("matches <exclude expression=\"{text}\"/>")
            }
            Rule::EditorName => "is the name of an editor's temporary file".into(),
            Rule::Dotfile => "holds a name that begins with a dot".into(),
        }
    }
}

/// The switch of `<inotify>` for this kind of change.
fn switch_of(change: &Change) -> &'static str {
    match change.cause {
        Cause::Create if change.is_dir => "createFolder",
        Cause::Create => "createFile",
        Cause::CloseWrite => "closeWrite",
        Cause::Delete => "delete",
        Cause::MovedFrom => "moveFrom",
        Cause::MovedTo => "moveTo",
        Cause::Attrib => "attrib",
        Cause::Modify => "modify",
        Cause::Found => "createFolder",
    }
}

fn of_path(watch: &Path, path: &RelPath) -> Told {
    Told {
        at_ms: wall_ms(),
        watch: Some(write_path(watch)),
        path: Some(write_path(&path.below(watch))),
        ..Told::default()
    }
}

fn of_change(watch: &Path, change: &Change) -> Told {
    Told {
        event: Some(change.cause.name().into()),
        directory: change.is_dir,
        scope: Some(scope_name(change.scope).into()),
        moved_from: change.moved_from.as_ref().map(|from| write_path(&from.below(watch))),
        ..of_path(watch, &change.path)
    }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Entry => "entry",
        Scope::Listing => "listing",
        Scope::Tree => "tree",
    }
}

impl Mirror {
    /// Somebody listens from now on.
    pub(super) fn begin_listening(&mut self, reply: Reply) {
        let listeners = &mut self.controls.listeners;
        if listeners.count >= LISTENERS_MAX {
            let message = format!("{LISTENERS_MAX} clients listen already: try again later");
            return reply.send(Answer::failed("busy", message));
        }
        let Some(listener) = reply.listen() else { return };
        lock(&listeners.all).push(listener);
        listeners.count += 1;
        let Some(ear) = listeners.ear.clone().filter(|ear| !ear.listens()) else { return };
        let all = Arc::clone(&listeners.all);
        let config = &self.reload.loaded().config;
        let reasons = Reasons {
            roots: self.teller.names.roots.clone(),
            excludes: config.filter.excludes.clone(),
            filter: self.reload.filter(),
        };
        ear.set(Some(Box::new(move |root, change, why| {
            tell(&mut lock(&all), reasons.told(root, change, why));
        })));
    }

    /// An event is about to be taken in.
    pub(super) fn tell_event(&self, event: &Event) {
        let listeners = &self.controls.listeners;
        if !listeners.is_anyone() {
            return;
        }
        let Event::Watch(event) = event else { return };
        let news = match event {
            WatchEvent::Changed { root, changes, .. } => {
                changes.iter().for_each(|change| self.tell_change(*root, change));
                return;
            }
            WatchEvent::Overflow { root } => {
                (root, None, "the kernel dropped events: everything is compared".to_owned())
            }
            WatchEvent::RootLost { root, loss: RootLoss::Gone(reason) } => {
                (root, None, format!("lost: {reason}; nothing is deleted anywhere"))
            }
            WatchEvent::RootLost { root, loss: RootLoss::Replaced } => {
                (root, None, "another directory is in its place".to_owned())
            }
            WatchEvent::RootBack { root, .. } => {
                (root, None, "back: a full sync follows".to_owned())
            }
            WatchEvent::SubtreeLost { root, path, reason } => {
                (root, Some(path), format!("lost: {reason}; nothing below it is deleted"))
            }
            WatchEvent::SubtreeBack { root, path } => {
                (root, Some(path), "back: it is compared".to_owned())
            }
            WatchEvent::Ready { .. } | WatchEvent::BarrierReached => return,
        };
        let (root, path, why) = news;
        let told = of_path(&self.watch_of(*root), path.unwrap_or(&RelPath::root()));
        listeners.tell(Told { why: Some(why), ..told });
    }

    fn tell_change(&self, root: RootId, change: &Change) {
        let of_root = |id: &RemoteId| self.ledger.roots_of_remotes().get(id.0) == Some(&root);
        let all = (0..self.ledger.roots_of_remotes().len()).map(RemoteId).filter(of_root);
        let remotes: Vec<RemoteId> = all.filter(|id| self.engine.is_mirrored(*id)).collect();
        let waits = |id: &RemoteId| self.engine.is_pending(*id, &change.path);
        let is_merged = !remotes.is_empty() && remotes.iter().all(waits);
        let what = if is_merged { What::Merged } else { What::Pending };
        let told = of_change(&self.watch_of(root), change);
        self.controls.listeners.tell(Told { what, remotes: Some(remotes.len() as u64), ..told });
    }

    /// A job starts.
    pub(super) fn tell_job(&self, job: &Job) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of(job.root);
        for item in &job.items {
            let told = of_path(&watch, &item.path);
            let scope = Some(scope_name(item.mark.scope).into());
            let why = job.only_confirms().then(|| "to confirm what was delivered".into());
            let told = Told { what: What::InJob, scope, why, ..told };
            self.tell_of_job(told, job.remote, job.id.0);
        }
    }

    /// A worker has reported what it could not deliver.
    pub(super) fn tell_failures(&self, job: u64, remote: RemoteId, report: &JobReport) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of_remote(remote);
        for failed in &report.failed {
            let why = Some(failed.failure.reason.clone());
            let told = of_path(&watch, &failed.path);
            self.tell_of_job(Told { what: What::Failed, why, ..told }, remote, job);
        }
    }

    /// A job is settled.
    pub(super) fn tell_settled(&self, settled: &Settled) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of_remote(settled.remote);
        let took = settled.pending_since.map(|since| self.now().saturating_sub(since));
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let delivered = settled.delivered.iter().chain(&settled.withheld);
        let delivered = delivered.map(|item| (item, What::Delivered, took_ms));
        let returned = settled.returned.iter().map(|item| (item, What::Returned, None));
        for (item, what, took_ms) in delivered.chain(returned) {
            let scope = Some(scope_name(item.mark.scope).into());
            let told = Told { what, took_ms, scope, ..of_path(&watch, &item.path) };
            self.tell_of_job(told, settled.remote, settled.job.0);
        }
    }

    fn tell_of_job(&self, told: Told, remote: RemoteId, job: u64) {
        let remote = Some(self.teller.names.remote(remote).to_owned());
        self.controls.listeners.tell(Told { remote, job: Some(job), ..told });
    }

    fn watch_of_remote(&self, remote: RemoteId) -> PathBuf {
        let root = self.ledger.roots_of_remotes().get(remote.0);
        root.map(|root| self.watch_of(*root)).unwrap_or_default()
    }

    fn watch_of(&self, root: RootId) -> PathBuf {
        self.teller.names.roots.get(root.0).cloned().unwrap_or_default()
    }
}
