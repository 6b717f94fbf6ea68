//! Reports what happens: to the log, the fail log, the progress lines, the plugin and the event log.
//! Decides nothing, and delays nothing.

use std::sync::Arc;

use super::deliveries::Kinds;
use super::fail_log::FailLogWriter;
use super::notice::Names;
use super::plugins::Plugins;
use super::progress::ProgressDisplay;
use super::statistics::Clock;
use super::telling::EventTeller;
use crate::change::{RemoteId, RootId, WatchEvent};
use crate::engine::{Engine, Event, Notice, PathFailure, Settled};
use crate::ground::counted::paths;
use crate::ground::numbered::put;
use crate::rsync::Endpoint;
use crate::source::Source;

/// All receivers of reports.
pub struct Teller {
    /// The names behind the engine's ids.
    pub names: Names,
    /// Writes the fail log.
    pub fail_log: FailLogWriter,
    /// Shows the progress of full syncs.
    pub progress: ProgressDisplay,
    /// The plugin that runs after each delivery.
    pub plugins: Option<Plugins>,
    /// Writes a line for each delivery; `None` if the configuration has no event log.
    pub event_log: Option<EventTeller>,
    /// Reopens the log, for SIGHUP.
    pub reopen_log: Box<dyn Fn()>,
}

impl Teller {
    /// Passes new changes to the plugin.
    pub fn changed(&mut self, event: &Event) {
        if let (Event::Watch(WatchEvent::Changed { root, changes, .. }), Some(plugins)) =
            (event, &mut self.plugins)
        {
            plugins.changed(*root, changes);
        }
    }

    /// Reports a settled job of `root`.
    pub fn settled(&mut self, clock: Clock, root: RootId, settled: &Settled, kinds: &Kinds) {
        if let Some(log) = &self.event_log {
            log.settled(clock, settled, root, kinds);
        }
        if let Some(plugins) = &mut self.plugins {
            plugins.delivered(settled.remote, root, &settled.delivered);
            plugins.delivered(settled.remote, root, &settled.withheld);
        }
    }

    /// Reports paths that rsync could not deliver this time.
    pub fn failed(&self, clock: Clock, remote: RemoteId, paths: &[PathFailure]) {
        if let Some(log) = &self.event_log {
            paths.iter().for_each(|path| log.failed(clock, remote, path));
        }
    }

    /// Gives this number to a remote.
    pub fn name_remote(&mut self, id: RemoteId, name: String, reached: (Endpoint, Arc<Source>)) {
        put(&mut self.names.remotes, id.0, name);
        put(&mut self.fail_log.remotes, id.0, reached);
    }

    /// Updates the remotes after a reload: the root of each number, and the numbers of each root's remotes.
    pub fn change_remotes(&mut self, roots: &[RootId], numbers: &[Vec<RemoteId>]) {
        if let Some(log) = &mut self.event_log {
            log.name_remotes(&self.names.remotes, roots);
        }
        if let Some(plugins) = &mut self.plugins {
            plugins.change_remotes(numbers, &self.names.remotes);
        }
    }

    /// Reopens the log files, for log rotation.
    pub fn reopen_logs(&self) {
        (self.reopen_log)();
        self.event_log.iter().for_each(EventTeller::reopen);
    }

    /// Logs a notice of the engine; returns its level and its sentence.
    pub fn notify(&mut self, notice: &Notice) -> (log::Level, String) {
        if let (Notice::Failed { remote, failure, .. }, Some(plugins)) = (notice, &mut self.plugins)
            && failure.kind.is_remotes()
        {
            plugins.went_down(*remote);
        }
        let (level, sentence) = self.names.sentence(notice);
        log::log!(level, "{sentence}");
        (level, sentence)
    }

    /// Logs for each remote how much is pending.
    pub fn report(&self, engine: &Engine) {
        for (remote, name) in self.names.remotes.iter().enumerate() {
            let Some(_) = engine.observe(RemoteId(remote)) else { continue };
            let pending = engine.pending(RemoteId(remote));
            log::info!("SIGUSR1: remote {name}: {} pending", paths(pending as u64));
        }
    }

    /// Rewrites the fail log.
    pub fn write_fail_log(&mut self, engine: &Engine) {
        self.fail_log.write(&engine.fail_log());
    }
}
