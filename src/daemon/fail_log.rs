//! What the fail log says: the engine's failures as commands that an operator could repeat.
//! The file itself is written by `crate::fail_log`.

use std::sync::Arc;

use crate::engine::FailLogEntry;
use crate::fail_log::{FailLog, FailedCommand};
use crate::path::RelPath;
use crate::rsync::{Endpoint, Presence};
use crate::source::Source;
use crate::worker::rules::{Coverage, Rules};

/// Knows how each remote is reached.
#[derive(Debug)]
pub struct FailLogWriter {
    /// `<failLog path>`.
    pub log: FailLog,
    /// What the commands must leave alone.
    pub rules: Rules,
    /// For each remote: how it is reached, and its root.
    pub remotes: Vec<(Endpoint, Arc<Source>)>,
}

impl FailLogWriter {
    /// Makes the fail log hold exactly these entries.
    pub fn write(&mut self, entries: &[FailLogEntry]) {
        let failures: Vec<FailedCommand> =
            entries.iter().filter_map(|entry| self.failure(entry)).collect();
        self.log.write(&failures);
    }

    fn failure(&self, entry: &FailLogEntry) -> Option<FailedCommand> {
        let (endpoint, source) = self.remotes.get(entry.remote.0)?;
        let path = entry.path.clone().unwrap_or_else(RelPath::root);
        let presence = match path.below(source.path()).symlink_metadata() {
            // A command that recurses would carry what only the filter's expressions can tell.
            Ok(found) if found.is_dir() && self.rules.coverage == Coverage::Whole => {
                Presence::Directory
            }
            Ok(_) => Presence::Other,
            Err(_) => Presence::Absent,
        };
        let run = endpoint.plan_by_hand(&path, presence, &self.rules.patterns);
        let words = std::iter::once("rsync".into()).chain(run.args).collect();
        Some(FailedCommand { code: entry.code, root: run.root, words })
    }
}
