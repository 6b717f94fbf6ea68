//! Directories that appear after the worker's look at the disk and before rsync's own.
//! Looks at the disk again; sends nothing.

use std::collections::HashSet;

use super::{RemoteWorker, unhealthy};
use crate::change::Scope;
use crate::engine::Job;
use crate::engine::pending::{Item, Mark};
use crate::path::RelPath;
use crate::rsync::Presence;
use crate::worker::look::{Looks, Present};
use crate::worker::remote::Stop;
use crate::worker::shards::{is_directory, stat};

impl RemoteWorker {
    /// Directories whose names were absent, or were something else, at the first look. If an older directory had the name before,
    /// rsync may have merged the new one into its copy, which then holds old entries. So such trees are compared again.
    pub(super) fn appeared(&self, looks: &Looks, job: &Job) -> Result<Vec<Item>, Stop> {
        let whole = job.items.iter().filter(|item| item.mark.scope != Scope::Entry);
        let whole: HashSet<&RelPath> = whole.map(|item| &item.path).collect();
        let is_other =
            |entry: &&Present| entry.presence == Presence::Other && whole.contains(&entry.path);
        let mut others: Vec<&RelPath> = Vec::new();
        for look in looks.all() {
            others.extend(&look.absent_dirs);
            others.extend(look.present.iter().filter(is_other).map(|entry| &entry.path));
        }
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let root = self.remote.source().open_healthy().map_err(|error| unhealthy(&error))?;
        others.retain(|path| stat(&root, path).is_ok_and(|stat| is_directory(&stat)));
        let mark = Mark::new(Scope::Tree);
        Ok(others.into_iter().map(|path| Item { path: path.clone(), mark }).collect())
    }
}
