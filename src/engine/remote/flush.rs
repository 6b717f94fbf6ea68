//! Requests of an operator for one remote: pause, resume, compare, flush.
//! They have no priority: a requested comparison becomes pending like any change.

use super::{Flight, Origin, RemoteState};
use crate::change::Scope;
use crate::engine::flush::{FlushId, FlushMark};
use crate::engine::pending::{Item, Mark};
use crate::engine::{Action, FullSyncCause, FullSyncFilter, JobId, Now};
use crate::path::RelPath;

impl RemoteState {
    /// No job starts from now on.
    pub fn pause(&mut self, now: Now) {
        self.permission.is_paused = true;
        self.contact.end_sessions(now);
    }

    /// Jobs may start again, and a remote that was down is tried at once.
    pub fn resume(&mut self, now: Now) {
        self.permission.is_paused = false;
        self.put_off_rechecks_after_standstill(now);
        self.contact.try_soon();
    }

    /// Compares a path and all below it with its copy.
    pub fn compare(&mut self, now: Now, path: &RelPath, actions: &mut Vec<Action>) {
        if path.is_root() {
            self.start_full_sync(now, FullSyncCause::Requested, actions);
        } else {
            self.mark(path, Mark::new(Scope::Tree));
        }
        self.contact.try_soon();
    }

    /// Begins a flush: notes everything that is pending or in flight.
    pub fn flush(&mut self, now: Now, id: FlushId, within: Vec<RelPath>) {
        self.deferred.confirm_soon(now);
        let mut mark = FlushMark::new(id, within);
        for (job, flight) in self.flights.iter() {
            if flight.origin == Origin::Pending {
                mark.add_job(job, &flight.items);
            }
        }
        let pending = self.backlog.pending.iter().map(|item| item.path);
        pending.chain(self.deferred.unsettled().cloned()).for_each(|path| mark.add(path));
        let full_sync = self.full_sync.as_ref();
        let compares = full_sync.is_some_and(|it| it.filter == FullSyncFilter::Off);
        // A lost root is compared when it is back. Only then is known what changed below it.
        if compares || self.permission.root_is_lost {
            mark.add_full_sync();
        }
        self.flushes.push(mark);
    }

    /// True when the flush no longer waits for this remote.
    pub fn is_flushed(&self, id: FlushId) -> bool {
        let mark = self.flushes.iter().find(|mark| mark.id == id);
        let owes_nothing = self.waiting() == 0 && self.deferred.unconfirmed() == 0;
        mark.is_none_or(|mark| mark.is_done(owes_nothing))
    }

    pub fn forget_flush(&mut self, id: FlushId) {
        self.flushes.retain(|mark| mark.id != id);
    }

    /// How many paths a flush still waits for, and the first of them.
    pub fn missing(&self, id: FlushId, first: usize) -> Option<(usize, Vec<RelPath>)> {
        if self.is_flushed(id) {
            return None;
        }
        let mark = self.flushes.iter().find(|mark| mark.id == id)?;
        let (paths, jobs) = mark.missing();
        let flights = jobs.filter_map(|job| self.flights.get(*job));
        let flying = flights.flat_map(|flight| flight.items.iter().map(|item| &item.path));
        let all: Vec<&RelPath> = paths.chain(flying).collect();
        let named = all.iter().take(first).map(|path| (*path).clone()).collect();
        Some((all.len(), named))
    }

    pub fn flush_undone(&mut self, job: JobId, items: &[Item]) {
        self.flushes.iter_mut().for_each(|mark| mark.job_undone(job, items));
    }

    /// A job has ended: `undone` failed, `returned` is still owed, and `withheld` was sent without deletions.
    pub(super) fn flush_settled(
        &mut self,
        job: JobId,
        flight: &Flight,
        undone: Vec<RelPath>,
        returned: &[Item],
        withheld: &[Item],
    ) {
        if self.flushes.is_empty() || flight.origin == Origin::FullSync {
            return;
        }
        let mut left = undone;
        left.extend(returned.iter().chain(withheld).map(|item| item.path.clone()));
        self.flushes.iter_mut().for_each(|mark| mark.job_done(job, &flight.items, &left));
    }
}
