//! Moves: a new name is sent while the copy under the old name still exists, so that rsync need not send the data again.
//! Only saves traffic: a move hint that is of no use is dropped.

use super::{Flight, RemoteState};
use crate::change::Scope;
use crate::engine::locks::{LockKind, Owner};
use crate::engine::pending::Item;
use crate::engine::{JobId, JobKind};
use crate::path::RelPath;

impl RemoteState {
    /// Lets `moved` wait for the job that is just sending its old name.
    pub fn wait_for(&mut self, origin: &RelPath, moved: &RelPath) {
        if !self.locks.holds(origin) || self.locks.keeps_back(moved) {
            return;
        }
        // Editors rename a small file right after they wrote it. Sending it twice takes less time than waiting.
        let is_dear = |flight: &Flight, item: &Item| {
            flight.kind != JobKind::Batch || item.mark.scope == Scope::Tree
        };
        let sends_origin = |flight: &Flight| {
            flight.items.iter().any(|item| item.path == *origin && is_dear(flight, item))
        };
        if let Some(job) = self.flight_that(sends_origin) {
            self.locks.lock(Owner::Job(job), moved, LockKind::Short);
        }
    }

    /// A job returned `moved`: it is sent together with its old name, or after the batch that has the old name in flight.
    /// If neither is near, drops the hint.
    pub fn wait_for_origin(&mut self, moved: &RelPath) {
        let Some(origin) = self.moves.get(moved) else { return };
        if !self.locks.keeps_back(origin) {
            if !self.pending.touches(origin) {
                self.moves.remove(moved);
            }
            return;
        }
        let near = |item: &Item| item.path.is_within(origin) || origin.is_within(&item.path);
        let is_near =
            |flight: &Flight| flight.kind == JobKind::Batch && flight.items.iter().any(near);
        match self.flight_that(is_near) {
            Some(_) if self.locks.keeps_back(moved) => {}
            Some(job) => self.locks.lock(Owner::Job(job), moved, LockKind::Short),
            None => _ = self.moves.remove(moved),
        }
    }

    fn flight_that(&self, is_it: impl Fn(&Flight) -> bool) -> Option<JobId> {
        let found = self.flights.iter().find(|(_, flight)| is_it(flight));
        found.map(|(job, _)| *job)
    }
}
