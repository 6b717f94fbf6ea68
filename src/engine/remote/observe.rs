//! Views of a remote for the status, the page and the metrics.
//! Decides nothing.

use super::{Origin, RemoteState};
use crate::change::{RootId, Scope};
use crate::engine::pending::Item;
use crate::engine::retry::{Failing, Outage};
use crate::engine::{JobId, Now};
use crate::path::RelPath;

/// The state of one remote at one moment.
#[derive(Debug, Clone)]
pub struct RemoteView {
    /// The root that it mirrors.
    pub root: RootId,
    /// Why nothing can be sent; before first contact there is an outage without a failure.
    pub outage: Option<Outage>,
    /// True while a job finds out whether the remote answers.
    pub is_tried: bool,
    /// True while an operator has paused it.
    pub is_paused: bool,
    /// True while it gets changes from before its return, or a full sync.
    pub is_catching_up: bool,
    /// Paths that may differ from their copy, those in flight included; the full sync's shards are not among them.
    pub pending: usize,
    /// Since when the oldest path has been pending, at the earliest.
    pub oldest: Option<Now>,
    /// Jobs in flight, whatever they are for.
    pub in_flight: usize,
    /// The full sync under way.
    pub full_sync: Option<FullSyncView>,
    /// Paths that rsync could not deliver.
    pub failing: usize,
    /// The remote refuses deletions.
    pub refuses_deletions: bool,
}

/// A full sync under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullSyncView {
    /// When it began.
    pub since: Now,
    /// Shards that are not compared yet.
    pub left: usize,
    /// All shards so far.
    pub shards: usize,
    /// Files in the parts that are compared.
    pub files: u64,
    /// Bytes that its jobs have sent, those in flight not included.
    pub bytes: u64,
    /// Its jobs in flight.
    pub jobs: Vec<JobId>,
}

/// Whether one path is delivered to one remote.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Nothing that concerns it is owed.
    Delivered,
    /// It is owed, or something that covers it or is below it; the oldest pending path has waited since then.
    Pending(Option<Now>),
    /// It is in flight.
    InFlight(Option<Now>),
    /// rsync could not deliver it. With when it is retried; `None` while it is pending or in flight.
    Failing(Box<Failing>, Option<Now>),
}

impl RemoteState {
    /// The worst standing of the path and of everything below it.
    pub fn standing(&self, path: &RelPath) -> Standing {
        let concerns = |item: &Item| match item.mark.scope {
            Scope::Tree if path.is_within(&item.path) => true,
            Scope::Listing if path.parent().as_ref() == Some(&item.path) => true,
            _ => item.path.is_within(path),
        };
        let mut failing = self.failing();
        if let Some((_, failing, due)) = failing.find(|(failed, ..)| failed.is_within(path)) {
            return Standing::Failing(Box::new(failing.clone()), due);
        }
        let mut flights = self.flights.values();
        if let Some(flight) = flights.find(|flight| flight.items.iter().any(concerns)) {
            return Standing::InFlight(flight.pending_since);
        }
        match self.undelivered().any(|item| concerns(&item)) {
            true => Standing::Pending(self.backlog.since()),
            false => Standing::Delivered,
        }
    }

    /// True when this very path waits for a job.
    pub fn is_pending(&self, path: &RelPath) -> bool {
        self.backlog.pending.holds(path)
    }

    /// The remote's state now.
    pub fn observe(&self) -> RemoteView {
        let flights = || self.flights.values().filter(|flight| flight.origin == Origin::Pending);
        let flying: usize = flights().map(|flight| flight.items.len()).sum();
        let oldest = flights().filter_map(|flight| flight.pending_since);
        let oldest = oldest.chain(self.backlog.since()).min();
        let has_backlog = oldest.is_some_and(|oldest| oldest < self.contact.up_since());
        RemoteView {
            root: self.setup.root,
            outage: self.contact.outage().cloned(),
            is_tried: self.is_in_doubt_and_tried(),
            is_paused: self.permission.is_paused,
            is_catching_up: self.full_sync.is_some() || has_backlog,
            pending: self.backlog.pending.len() + flying + self.deferred.changes(),
            oldest,
            in_flight: self.flights.len(),
            full_sync: self.observe_full_sync(),
            failing: self.failing.len(),
            refuses_deletions: self.permission.deletions_are_refused,
        }
    }

    /// The full sync under way.
    pub fn observe_full_sync(&self) -> Option<FullSyncView> {
        let full_sync = self.full_sync.as_ref()?;
        let its = self.flights.iter().filter(|(_, flight)| flight.origin == Origin::FullSync);
        Some(FullSyncView {
            since: full_sync.since,
            left: full_sync.left.len() + full_sync.in_flight,
            shards: full_sync.shards,
            files: full_sync.files,
            bytes: full_sync.bytes,
            jobs: its.map(|(id, _)| id).collect(),
        })
    }

    /// Every path that rsync could not deliver, with when it is retried; `None` while it is pending or in flight.
    pub fn failing(&self) -> impl Iterator<Item = (&RelPath, &Failing, Option<Now>)> {
        let paths = self.failing.iter();
        paths.map(|(path, failing)| (path, failing, self.deferred.due_above(path)))
    }

    /// Notes since when something has been pending. Call it after each event, before jobs start.
    pub fn note_age(&mut self, now: Now) {
        self.backlog.note_age(now);
    }
}
