//! Remembers what jobs in flight do to their paths: send, delete or move; for the event log, snapshot and statistics.
//! Counts and reports nothing itself.

use std::collections::{HashMap, HashSet};

use crate::engine::pending::Item;
use crate::engine::{Job, JobId, JobReport};
use crate::path::RelPath;
use crate::snapshot::DeliveryKind;

/// The jobs in flight that also move or delete.
#[derive(Debug, Default)]
pub struct Deliveries {
    jobs: HashMap<JobId, Kinds>,
}

/// What one job does to its paths.
#[derive(Debug, Default)]
pub struct Kinds {
    moved: HashSet<RelPath>,
    deleted: HashSet<RelPath>,
}

impl Deliveries {
    /// A worker starts a job.
    pub fn started(&mut self, job: &Job) {
        if !job.moves.is_empty() {
            let moved = job.moves.iter().map(|(new, _)| new.clone()).collect();
            self.jobs.insert(job.id, Kinds { moved, ..Kinds::default() });
        }
    }

    /// A worker reports the result of a job.
    pub fn reported(&mut self, job: JobId, report: &JobReport) {
        if !report.deleted.is_empty() {
            let deleted = report.deleted.iter().cloned().collect();
            self.jobs.entry(job).or_default().deleted = deleted;
        }
    }

    /// Returns and forgets what a job did, when it is settled or has ended.
    pub fn take(&mut self, job: JobId) -> Kinds {
        self.jobs.remove(&job).unwrap_or_default()
    }
}

impl Kinds {
    /// What was done to a delivered item.
    pub fn of(&self, item: &Item) -> DeliveryKind {
        match &item.path {
            path if self.moved.contains(path) => DeliveryKind::Moved,
            path if self.deleted.contains(path) => DeliveryKind::Deleted,
            path if path.is_root() => DeliveryKind::Compared,
            _ => DeliveryKind::Sent,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::change::Scope;
    use crate::engine::pending::Mark;

    /// A job that deletes these paths.
    pub fn deleting(paths: &[&str]) -> Kinds {
        let path = |name: &&str| RelPath::new(name.as_bytes()).unwrap();
        Kinds { deleted: paths.iter().map(path).collect(), ..Kinds::default() }
    }

    #[test]
    fn what_is_gone_is_deleted_and_the_rest_is_sent() {
        let kinds = deleting(&["gone"]);
        let kind = |name: &str| {
            let path = RelPath::new(name.as_bytes()).unwrap();
            kinds.of(&Item { path, mark: Mark::new(Scope::Entry) })
        };
        assert_eq!(kind("gone"), DeliveryKind::Deleted);
        assert_eq!(kind("there"), DeliveryKind::Sent);
        assert_eq!(kind(""), DeliveryKind::Compared);
    }
}
