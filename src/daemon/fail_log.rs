//! Turns the engine's failures into the commands of the fail log, which an operator can repeat.
//! `crate::fail_log` writes the file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

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
        let is_partial = self.rules.coverage == Coverage::Partial;
        let presence = match path.below(source.path()).symlink_metadata() {
            Ok(found) if found.is_dir() && !is_partial => Presence::Directory,
            Ok(_) => Presence::Other,
            Err(_) => Presence::Absent,
        };
        let mut run = endpoint.plan_by_hand(&path, presence, &self.rules.patterns);
        if is_partial && presence == Presence::Absent {
            let reaches_below =
                |word: &OsString| word == "--force" || word.as_bytes().ends_with(b"/***");
            run.args.retain(|word| !reaches_below(word));
        }
        let words = std::iter::once("rsync".into()).chain(run.args).collect();
        Some(FailedCommand { code: entry.code, root: run.root, words })
    }
}
