//! Moves: a new name is sent while its old name's copy still exists, so that rsync need not send the data again.
//! This only saves traffic: a hint that cannot be used is dropped.

use std::time::Duration;

use super::{Flight, RemoteState};
use crate::change::Scope;
use crate::engine::deferred::Condition;
use crate::engine::locks::{LockKind, Owner};
use crate::engine::pending::Item;
use crate::engine::{JobKind, Now, UndoneMove};
use crate::path::RelPath;

/// How long an undone move waits for a report of what became of its new name. It usually takes some milliseconds, but more when
/// processors are short.
const MOVES_ON: Duration = Duration::from_secs(1);

impl RemoteState {
    /// Makes `moved` wait for the job that is sending its old name.
    pub fn wait_for(&mut self, origin: &RelPath, moved: &RelPath) {
        if !self.locks.holds(origin) || self.locks.keeps_back(moved) {
            return;
        }
        // Editors rename a small file right after writing it. Sending it twice is quicker than waiting.
        let is_dear = |flight: &Flight, item: &Item| {
            flight.kind != JobKind::Batch || item.mark.scope == Scope::Tree
        };
        let sends_origin = |flight: &Flight| {
            flight.items.iter().any(|item| item.path == *origin && is_dear(flight, item))
        };
        if let Some(job) = self.flights.find(sends_origin) {
            self.locks.lock(Owner::Job(job), moved, LockKind::Short);
        }
    }

    /// A job returned `moved`: send it together with its old name if that is deferred or pending, or after the batch that has the
    /// old name in flight. Otherwise drop the hint.
    pub fn wait_for_origin(&mut self, now: Now, moved: &RelPath) {
        let Some(origin) = self.backlog.moves.origin(moved).cloned() else { return };
        let origin = &origin;
        if !self.locks.keeps_back(origin) {
            if !self.deferred.bring_forward(now, origin) && !self.backlog.pending.touches(origin) {
                self.backlog.moves.take(moved);
            }
            return;
        }
        let near = |item: &Item| item.path.is_within(origin) || origin.is_within(&item.path);
        let is_near =
            |flight: &Flight| flight.kind == JobKind::Batch && flight.items.iter().any(near);
        match self.flights.find(is_near) {
            Some(_) if self.locks.keeps_back(moved) => {}
            Some(job) => self.locks.lock(Owner::Job(job), moved, LockKind::Short),
            None => _ = self.backlog.moves.take(moved),
        }
    }

    /// Takes back moves that a job left undone, with the items at their old and new names. If the file was renamed twice in a row,
    /// the second rename is reported soon. The third name is then made from the copy, so the copy must not be deleted before.
    pub fn give_back(&mut self, now: Now, undone: Vec<UndoneMove>, items: &[Item]) {
        for undone in undone {
            let names = [undone.new.clone(), undone.old.clone()];
            // It is pending again if it was reported meanwhile what became of it.
            let is_known = self.backlog.pending.holds(&undone.new);
            if let Some((_, origin)) = self.backlog.moves.give_back(undone) {
                self.deferred.bring_forward(now, &origin);
            }
            for item in items.iter().filter(|item| names.contains(&item.path)) {
                match is_known {
                    true => _ = self.mark(&item.path, item.mark),
                    false => self.deferred.defer(Condition::MovedOn(now + MOVES_ON), item),
                }
            }
        }
    }

    /// It was reported that `path` is gone. If it is the new name of an undone move, both of its names need not wait any longer.
    pub fn end_undone_move(&mut self, now: Now, path: &RelPath) {
        let origin = self.backlog.moves.left(path).cloned();
        for name in origin.iter().chain([path]).filter(|_| origin.is_some()) {
            self.deferred.bring_forward(now, name);
        }
        self.backlog.moves.leave(path);
    }

    /// True when the path itself is an item of a job in flight.
    pub(super) fn is_in_flight(&self, path: &RelPath) -> bool {
        self.locks.holds(path) && self.flights.find(|flight| flight.has(path)).is_some()
    }
}
