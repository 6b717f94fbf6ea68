//! Tells the outside what happens: log lines, the fail log, the progress line, the plugin.
//! Decides nothing, and holds nothing up.

use super::fail_log::FailLogWriter;
use super::notice::Names;
use super::plugins::Plugins;
use super::progress::Progress;
use crate::change::{RootId, WatchEvent};
use crate::engine::{Engine, Event, Notice, Settled};

/// Everything that tells.
pub struct Teller {
    /// The names behind the engine's ids.
    pub names: Names,
    /// Writes what failed.
    pub fail_log: FailLogWriter,
    /// The progress line of a full sync on a terminal.
    pub progress: Progress,
    /// The plugin that runs after each delivery.
    pub plugins: Option<Plugins>,
    /// Reopens the log, for SIGHUP.
    pub reopen_log: Box<dyn Fn()>,
}

impl Teller {
    /// Changes begin their way to the remotes.
    pub fn changed(&mut self, event: &Event) {
        if let (Event::Watch(WatchEvent::Changed { root, changes, .. }), Some(plugins)) =
            (event, &mut self.plugins)
        {
            plugins.changed(*root, changes);
        }
    }

    /// A job below `root` is settled.
    pub fn settled(&mut self, root: RootId, settled: &Settled) {
        if let Some(plugins) = &mut self.plugins {
            plugins.delivered(settled.remote, root, &settled.delivered);
            plugins.delivered(settled.remote, root, &settled.withheld);
        }
    }

    /// Logs a notice of the engine; its level and its sentence.
    pub fn notify(&mut self, notice: &Notice) -> (log::Level, String) {
        if let (Notice::Failed { remote, failure, .. }, Some(plugins)) = (notice, &mut self.plugins)
            && failure.kind.is_remotes()
        {
            plugins.went_down(*remote);
        }
        let (level, sentence) = self.names.sentence(notice);
        self.progress.suspend(|| log::log!(level, "{sentence}"));
        (level, sentence)
    }

    /// Writes the fail log anew.
    pub fn write_fail_log(&mut self, engine: &Engine) {
        self.fail_log.write(&engine.fail_log());
    }

    /// Shows how far a full sync has come.
    pub fn show_progress(&mut self, engine: &Engine) {
        self.progress.show(engine.full_sync_progress());
    }
}
