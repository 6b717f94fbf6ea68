//! Turns the engine's failures into the commands of the fail log, which an operator can repeat.
//! `crate::fail_log` writes the file.

use std::sync::Arc;

use crate::change::Scope;
use crate::engine::FailLogEntry;
use crate::fail_log::{FailLog, FailedCommand};
use crate::path::RelPath;
use crate::rsync::{Endpoint, Presence};
use crate::source::Source;
use crate::worker::rules::{Coverage, Rules};

/// Builds the commands; knows how each remote is reached.
#[derive(Debug)]
pub struct FailLogWriter {
    /// `<failLog path>`.
    pub log: FailLog,
    /// The filter's rules, which the commands must respect.
    pub rules: Rules,
    /// For each remote: how it is reached, and its root.
    pub remotes: Vec<(Endpoint, Arc<Source>)>,
}

impl FailLogWriter {
    /// Replaces the content of the fail log with these entries.
    pub fn write(&mut self, entries: &[FailLogEntry]) {
        let failures: Vec<FailedCommand> =
            entries.iter().filter_map(|entry| self.failure(entry)).collect();
        self.log.write(&failures);
    }

    fn failure(&self, entry: &FailLogEntry) -> Option<FailedCommand> {
        let (endpoint, source) = self.remotes.get(entry.remote.0)?;
        let path = entry.path.clone().unwrap_or_else(RelPath::root);
        // If rsync cannot express the whole filter, a command that reaches what is below would send or delete excluded files.
        let reach = match self.rules.coverage {
            Coverage::Whole => Scope::Tree,
            Coverage::Partial => Scope::Entry,
        };
        let presence = Presence::of(&path.below(source.path()));
        let run = endpoint.plan_by_hand(&path, presence, &self.rules.patterns, reach);
        let words = std::iter::once("rsync".into()).chain(run.args).collect();
        Some(FailedCommand { code: entry.code, root: run.root, words })
    }
}
