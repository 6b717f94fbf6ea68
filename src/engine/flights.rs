//! The jobs of one remote that are in flight.
//! Only keeps them: `remote/start.rs` starts jobs, `remote/settle.rs` handles their reports.

use super::parents::Parents;
use super::pending::Item;
use super::{JobId, JobKind, Now};
use crate::path::RelPath;

/// A job in flight.
#[derive(Debug)]
pub struct Flight {
    pub kind: JobKind,
    pub origin: Origin,
    pub began: Now,
    /// Since when the oldest of its paths was pending; `None` when they come from a full sync.
    pub pending_since: Option<Now>,
    /// A trial: it started while the remote was not known to answer, so its end decides whether the remote is up.
    pub is_trial: bool,
    /// It waits for the remote, and uses no worker meanwhile.
    pub is_waiting: bool,
    pub items: Vec<Item>,
    /// It deletes extraneous entries of its directories.
    pub deletes_below: bool,
    pub parents: Parents,
}

impl Flight {
    /// True for jobs that end soon: batches and questions.
    pub fn is_short(&self) -> bool {
        self.kind == JobKind::Batch || self.kind.is_question()
    }

    /// True for large files and trees.
    pub fn is_long(&self) -> bool {
        !self.is_short()
    }

    /// True when it sends whole trees.
    pub fn sends_trees(&self) -> bool {
        matches!(self.kind, JobKind::Trees(_))
    }

    /// True when the path itself is one of its items.
    pub fn has(&self, path: &RelPath) -> bool {
        self.items.iter().any(|item| item.path == *path)
    }
}

/// Which set the items of a job were taken from. If it fails, they go back there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Pending,
    FullSync,
}

/// The jobs in flight: a dozen at most, the oldest first.
#[derive(Debug, Default)]
pub struct Flights {
    jobs: Vec<(JobId, Flight)>,
    /// When the last job ended.
    last_end: Now,
    /// The last job that started was short. When both could start, short and long jobs alternate.
    short_was_last: bool,
}

impl Flights {
    pub fn begin(&mut self, job: JobId, flight: Flight) {
        self.short_was_last = flight.is_short();
        self.jobs.push((job, flight));
    }

    /// A job has ended.
    pub fn end(&mut self, now: Now, job: JobId) -> Option<Flight> {
        let at = self.jobs.iter().position(|(id, _)| *id == job)?;
        self.last_end = now;
        Some(self.jobs.remove(at).1)
    }

    pub fn last_end(&self) -> Now {
        self.last_end
    }

    pub fn short_was_last(&self) -> bool {
        self.short_was_last
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn get(&self, job: JobId) -> Option<&Flight> {
        self.jobs.iter().find(|(id, _)| *id == job).map(|(_, flight)| flight)
    }

    pub fn get_mut(&mut self, job: JobId) -> Option<&mut Flight> {
        self.jobs.iter_mut().find(|(id, _)| *id == job).map(|(_, flight)| flight)
    }

    pub fn values(&self) -> impl Iterator<Item = &Flight> {
        self.jobs.iter().map(|(_, flight)| flight)
    }

    pub fn iter(&self) -> impl Iterator<Item = (JobId, &Flight)> {
        self.jobs.iter().map(|(job, flight)| (*job, flight))
    }

    pub fn count(&self, which: impl Fn(&Flight) -> bool) -> usize {
        self.values().filter(|flight| which(flight)).count()
    }

    /// Items in flight.
    pub fn items(&self) -> usize {
        self.values().map(|flight| flight.items.len()).sum()
    }

    /// A job for which `which` is true.
    pub fn find(&self, which: impl Fn(&Flight) -> bool) -> Option<JobId> {
        self.iter().find(|(_, flight)| which(flight)).map(|(job, _)| job)
    }

    /// The job waits for its remote; true if it did not wait before.
    pub fn wait(&mut self, job: JobId) -> bool {
        let flight = self.get_mut(job).filter(|flight| !flight.is_waiting);
        flight.map(|flight| flight.is_waiting = true).is_some()
    }

    /// The job continues; true if it waited before.
    pub fn work(&mut self, job: JobId) -> bool {
        let flight = self.get_mut(job).filter(|flight| flight.is_waiting);
        flight.map(|flight| flight.is_waiting = false).is_some()
    }
}
