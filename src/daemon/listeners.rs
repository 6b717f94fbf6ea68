//! Sends events about each path to the clients that listen at the control socket. Costs nothing without a listener.
//! A slow listener delays nobody: events that it does not read in time are dropped and counted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::mirror::Mirror;
use crate::change::{Cause, Change, RemoteId, RootId, WatchEvent};
use crate::config::ChangeSwitches;
use crate::control::event::{PathEvent, Stage};
use crate::control::protocol::{Answer, write_path};
use crate::control::server::{Listener, Reply};
use crate::engine::pending::Recheck;
use crate::engine::{Event, Job, JobReport, Settled};
use crate::filter::{Filter, Rule};
use crate::ground::lock::lock;
use crate::ground::time::wall_ms;
use crate::path::RelPath;
use crate::watch::ignored::{IgnoreReason, IgnoredHook};

/// The maximum number of listeners.
const LISTENERS_MAX: usize = 8;

/// The listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Shared with the watch thread, which reports ignored changes.
    all: Arc<Mutex<Vec<Listener>>>,
    /// The number of listeners. The main loop can read it without a lock, because only it adds and removes them.
    count: usize,
    ignored_hook: Option<Arc<IgnoredHook>>,
}

impl Listeners {
    /// Sets the hook by which the watch thread reports ignored changes.
    pub fn listen_to(&mut self, hook: Arc<IgnoredHook>) {
        self.ignored_hook = Some(hook);
    }

    /// True while there is a listener.
    pub fn is_anyone(&self) -> bool {
        self.count > 0
    }

    /// Removes a client that has disconnected.
    pub fn gone(&mut self, client: u64) {
        let mut all = lock(&self.all);
        all.retain(|listener| listener.client() != client);
        self.count = all.len();
        drop(all);
        if self.count == 0
            && let Some(hook) = &self.ignored_hook
        {
            hook.set(None);
        }
    }

    fn tell(&self, told: PathEvent) {
        tell(&mut lock(&self.all), told);
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // The watch thread may hold the list a moment longer than the mirror lives, so empty it.
        lock(&self.all).clear();
        if let Some(hook) = &self.ignored_hook {
            hook.set(None);
        }
    }
}

fn tell(listeners: &mut [Listener], told: PathEvent) {
    let line = Answer::Event { event: Box::new(told) }.to_line();
    listeners.iter_mut().for_each(|listener| listener.tell(&line));
}

/// Why a path that was delivered is pending again.
fn why_pending_again(recheck: Recheck) -> &'static str {
    match recheck {
        Recheck::No => "pending again: what only the remote has is still to be deleted",
        Recheck::Only | Recheck::Also => {
            "pending again: a run that was cut off may damage the copy"
        }
        Recheck::Confirm => "pending again: to confirm it",
    }
}

/// Words the reason why the watch thread ignores a change.
struct Reasons {
    roots: Vec<PathBuf>,
    switches: ChangeSwitches,
    excludes: Vec<String>,
    filter: Arc<Filter>,
}

impl Reasons {
    fn told(&self, root: RootId, change: &Change, why: IgnoreReason) -> PathEvent {
        let watch = self.roots.get(root.0).cloned().unwrap_or_default();
        let what = if why == IgnoreReason::Repeated { Stage::Merged } else { Stage::Ignored };
        PathEvent { what, why: Some(self.words(change, why)), ..of_change(&watch, change) }
    }

    fn words(&self, change: &Change, why: IgnoreReason) -> String {
        match why {
            IgnoreReason::SwitchedOff if change.cause == Cause::Modify => {
                "<modify start=\"false\"/>: it counts when the file is closed".into()
            }
            IgnoreReason::SwitchedOff => {
                format!("<{} start=\"false\"/>", self.switches.of(change).0)
            }
            IgnoreReason::Lost => {
                "its file system is not mounted: nothing there counts as a change".into()
            }
            IgnoreReason::Repeated => "the previous event reported the same".into(),
            IgnoreReason::Excluded => {
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

fn of_path(watch: &Path, path: &RelPath) -> PathEvent {
    PathEvent {
        at_ms: wall_ms(),
        watch: Some(write_path(watch)),
        path: Some(write_path(&path.below(watch))),
        ..PathEvent::default()
    }
}

fn of_change(watch: &Path, change: &Change) -> PathEvent {
    PathEvent {
        event: Some(change.cause.name().into()),
        directory: change.is_dir,
        scope: Some(change.scope.name().into()),
        moved_from: change.moved_from.as_ref().map(|from| write_path(&from.below(watch))),
        ..of_path(watch, &change.path)
    }
}

impl Mirror {
    /// Adds the client as a listener.
    pub(super) fn begin_listening(&mut self, reply: Reply) {
        let listeners = &mut self.controls.listeners;
        if listeners.count >= LISTENERS_MAX {
            let message = format!("{LISTENERS_MAX} clients listen already: try again later");
            return reply.send(Answer::failed("busy", message));
        }
        let Some(listener) = reply.listen() else { return };
        lock(&listeners.all).push(listener);
        listeners.count += 1;
        let Some(hook) = listeners.ignored_hook.clone().filter(|hook| !hook.is_set()) else {
            return;
        };
        let all = Arc::clone(&listeners.all);
        let config = &self.reload.loaded().config;
        let reasons = Reasons {
            roots: self.teller.names.roots.clone(),
            switches: config.changes,
            excludes: config.filter.excludes.clone(),
            filter: self.reload.filter(),
        };
        hook.set(Some(Box::new(move |root, change, why| {
            tell(&mut lock(&all), reasons.told(root, change, why));
        })));
    }

    /// Reports an event right before the engine handles it.
    pub(super) fn tell_event(&self, event: &Event) {
        let listeners = &self.controls.listeners;
        if !listeners.is_anyone() {
            return;
        }
        let Event::Watch(event) = event else { return };
        if let WatchEvent::Changed { root, changes, .. } = event {
            changes.iter().for_each(|change| self.tell_change(*root, change));
        }
        let Some((root, path, why)) = event.news() else { return };
        let told = of_path(&self.watch_of(root), path.unwrap_or(&RelPath::root()));
        listeners.tell(PathEvent { why: Some(why), ..told });
    }

    fn tell_change(&self, root: RootId, change: &Change) {
        let of_root = |id: &RemoteId| self.ledger.roots_of_remotes().get(id.0) == Some(&root);
        let all = (0..self.ledger.roots_of_remotes().len()).map(RemoteId).filter(of_root);
        let remotes: Vec<RemoteId> = all.filter(|id| self.engine.is_mirrored(*id)).collect();
        let waits = |id: &RemoteId| self.engine.is_pending(*id, &change.path);
        let is_merged = !remotes.is_empty() && remotes.iter().all(waits);
        let what = if is_merged { Stage::Merged } else { Stage::Pending };
        let told = of_change(&self.watch_of(root), change);
        self.controls.listeners.tell(PathEvent {
            what,
            remotes: Some(remotes.len() as u64),
            ..told
        });
    }

    /// Reports that a job starts.
    pub(super) fn tell_job(&self, job: &Job) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of(job.root);
        for item in &job.items {
            let told = of_path(&watch, &item.path);
            let scope = Some(item.mark.scope.name().into());
            let why = job.only_confirms().then(|| "to confirm what was delivered".into());
            let told = PathEvent { what: Stage::InJob, scope, why, ..told };
            self.tell_of_job(told, job.remote, job.id.0);
        }
    }

    /// Reports paths that a worker could not deliver.
    pub(super) fn tell_failures(&self, job: u64, remote: RemoteId, report: &JobReport) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of_remote(remote);
        for failed in &report.failed {
            let why = Some(failed.failure.reason.clone());
            let told = of_path(&watch, &failed.path);
            self.tell_of_job(PathEvent { what: Stage::Failed, why, ..told }, remote, job);
        }
    }

    /// Reports a settled job.
    pub(super) fn tell_settled(&self, settled: &Settled) {
        if !self.controls.listeners.is_anyone() {
            return;
        }
        let watch = self.watch_of_remote(settled.remote);
        let took = settled.pending_since.map(|since| self.now().saturating_sub(since));
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let rechecks = settled.returned.iter().map(|item| (&item.path, item.mark.recheck));
        let rechecks: HashMap<&RelPath, Recheck> = rechecks.collect();
        let delivered = || settled.delivered.iter().chain(&settled.withheld);
        let paths: HashSet<&RelPath> = delivered().map(|item| &item.path).collect();
        let delivered = delivered().map(|item| {
            let why = rechecks.get(&item.path).map(|recheck| why_pending_again(*recheck));
            (item, Stage::Delivered, took_ms, why)
        });
        // One event for each path: what was delivered was not left undone.
        let returned = settled.returned.iter().filter(|item| !paths.contains(&item.path));
        let returned = returned.map(|item| {
            let why = (item.mark.recheck == Recheck::Confirm).then_some("to be confirmed");
            (item, Stage::Returned, None, why)
        });
        for (item, what, took_ms, why) in delivered.chain(returned) {
            let (scope, why) = (Some(item.mark.scope.name().into()), why.map(str::to_owned));
            let told = PathEvent { what, took_ms, scope, why, ..of_path(&watch, &item.path) };
            self.tell_of_job(told, settled.remote, settled.job.0);
        }
    }

    fn tell_of_job(&self, told: PathEvent, remote: RemoteId, job: u64) {
        let remote = Some(self.teller.names.remote(remote).to_owned());
        self.controls.listeners.tell(PathEvent { remote, job: Some(job), ..told });
    }

    fn watch_of_remote(&self, remote: RemoteId) -> PathBuf {
        let root = self.ledger.roots_of_remotes().get(remote.0);
        root.map(|root| self.watch_of(*root)).unwrap_or_default()
    }

    fn watch_of(&self, root: RootId) -> PathBuf {
        self.teller.names.roots.get(root.0).cloned().unwrap_or_default()
    }
}
