//! What moved and its old name: who waits for whom, so that the copy under the old name is there for the new one.
//! Only saves traffic; a hint that is of no use is dropped.

use super::{Flight, RemoteState};
use crate::change::Scope;
use crate::engine::JobKind;
use crate::engine::pending::{Hold, Item, keeps_back};
use crate::path::RelPath;

impl RemoteState {
    /// What was moved leaves after the run that brings its origin: only then need no data be sent again.
    pub fn wait_for(&mut self, origin: &RelPath, moved: &RelPath) {
        if !self.is_in_flight(origin) || keeps_back(&self.held, moved) {
            return;
        }
        // A small file that gets its final name a moment after it was written (as editors do) is sent twice
        // sooner than it has waited for the first run's end.
        let is_dear = |flight: &Flight, item: &Item| {
            flight.kind != JobKind::Batch || item.mark.scope == Scope::Tree
        };
        let holds = |flight: &&mut Flight| {
            flight.items.iter().any(|item| item.path == *origin && is_dear(flight, item))
        };
        if let Some(flight) = self.flights.values_mut().find(holds) {
            self.held.insert(moved, Hold::Short);
            flight.waited_for_by.push(moved.clone());
        }
    }

    /// What came back although it was moved leaves together with its old name, or after the batch that holds that.
    /// Where neither will be soon, the hint is of no use.
    pub fn wait_for_origin(&mut self, moved: &RelPath) {
        let Some(origin) = self.moves.get(moved) else { return };
        if !keeps_back(&self.held, origin) {
            if !self.pending.touches(origin) {
                self.moves.remove(moved);
            }
            return;
        }
        let near = |item: &Item| item.path.is_within(origin) || origin.is_within(&item.path);
        let holds =
            |flight: &&mut Flight| flight.kind == JobKind::Batch && flight.items.iter().any(near);
        match self.flights.values_mut().find(holds) {
            Some(_) if keeps_back(&self.held, moved) => {}
            Some(flight) => {
                self.held.insert(moved, Hold::Short);
                flight.waited_for_by.push(moved.clone());
            }
            None => _ = self.moves.remove(moved),
        }
    }

    /// Keeps old names that a job in flight may have use for.
    pub fn hold_origins(&mut self) {
        for origin in self.flights.values().flat_map(|flight| &flight.origins) {
            if self.held.get(origin).is_none_or(|node| node.value.is_none()) {
                self.held.insert(origin, Hold::Short);
            }
        }
    }

    /// Lets go of paths that waited for a job, but of none that another one holds as its own.
    pub fn release(&mut self, paths: &[RelPath]) {
        for path in paths {
            let is_own = |item: &Item| item.path == *path;
            if !self.flights.values().any(|flight| flight.items.iter().any(is_own)) {
                self.held.remove(path);
            }
        }
    }
}
