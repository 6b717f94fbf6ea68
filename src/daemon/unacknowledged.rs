//! Deliveries that record and journal do not know yet. They wait for a barrier of the watch thread, because an event
//! before their end may be unread: a directory that was renamed away and back while rsync read it was not delivered,
//! although rsync reports success.

use crate::change::{Extent, RemoteId, RootId, Scope};
use crate::engine::FlushId;
use crate::journal::Seq;
use crate::path::RelPath;
use crate::record::Observation;
use crate::watch::Barrier;

/// The number of waiting deliveries at which a barrier is requested even while jobs are in flight.
const MANY: usize = 64;

/// What a job's end changes in the record or the journal.
#[derive(Debug)]
pub enum Acknowledgement {
    /// Record this observation of the root.
    Observed(RootId, Observation),
    /// Remove these paths from the journal, for changes up to this sequence number.
    Delivered(RemoteId, Seq, Vec<(RelPath, Extent)>),
}

/// The deliveries that wait for a barrier, in the order in which their jobs ended.
#[derive(Debug)]
pub struct Unacknowledged {
    barrier: Barrier,
    waiting: Vec<Acknowledgement>,
    /// How many of them the requested barrier will acknowledge; `None` if none is requested.
    asked_for: Option<usize>,
    /// Flushes that wait for the next request of a barrier, and those that wait for the requested one.
    flushes: (Vec<FlushId>, Vec<FlushId>),
}

impl Unacknowledged {
    /// Nothing waits.
    pub fn new(barrier: Barrier) -> Self {
        Self { barrier, waiting: Vec::new(), asked_for: None, flushes: (Vec::new(), Vec::new()) }
    }

    /// Adds a delivery whose job has just ended.
    pub fn add(&mut self, delivery: Acknowledgement) {
        self.waiting.push(delivery);
    }

    /// Requests a barrier if one is needed and none is requested. While jobs are in flight (`at_rest` is false) it waits
    /// for more deliveries: a barrier takes processor time from the jobs, and only saves repeated work after a kill.
    pub fn ask(&mut self, at_rest: bool) {
        let is_due = if at_rest { !self.waiting.is_empty() } else { self.waiting.len() >= MANY };
        if is_due || !self.flushes.0.is_empty() {
            self.ask_now();
        }
    }

    /// Requests only one barrier at a time, because two answers could not be told apart.
    fn ask_now(&mut self) {
        if self.asked_for.is_none() {
            self.asked_for = Some(self.waiting.len());
            self.flushes.1.append(&mut self.flushes.0);
            self.barrier.ask();
        }
    }

    /// Adds a flush, which must know when all earlier events are reported.
    pub fn ask_for_flush(&mut self, flush: FlushId) {
        self.flushes.0.push(flush);
        self.ask_now();
    }

    /// The flushes for which the barrier is reached. Call it before the deliveries are taken.
    pub fn take_flushes(&mut self) -> Vec<FlushId> {
        std::mem::take(&mut self.flushes.1)
    }

    /// The deliveries that the barrier acknowledges.
    pub fn take_confirmed(&mut self) -> Vec<Acknowledgement> {
        let count = self.asked_for.take().unwrap_or(0);
        self.waiting.drain(..count).collect()
    }

    /// Drops the waiting deliveries after events were lost: an unread event might contradict them. Returns what they observed. The
    /// end of a full sync stays: what follows the loss compares everything once more, and a full sync that nothing cancels would be
    /// repeated by each start.
    pub fn give_up(&mut self) -> Vec<(RootId, Observation)> {
        let (mut ends, mut observed) = (Vec::new(), Vec::new());
        for delivery in self.waiting.drain(..) {
            match delivery {
                Acknowledgement::Observed(root, observation) => observed.push((root, observation)),
                Acknowledgement::Delivered(_, _, ref paths) if is_full_sync(paths) => {
                    ends.push(delivery);
                }
                Acknowledgement::Delivered(..) => {}
            }
        }
        self.waiting = ends;
        self.asked_for = self.asked_for.map(|_| 0);
        observed
    }

    /// The delivered paths that are still in the journal, with the numbers that will cancel them.
    pub fn deliveries(&self) -> impl Iterator<Item = (RemoteId, Seq, &RelPath, Extent)> {
        let paths = |delivery| match delivery {
            &Acknowledgement::Delivered(remote, seq, ref paths) => Some((remote, seq, paths)),
            Acknowledgement::Observed(..) => None,
        };
        let all = self.waiting.iter().filter_map(paths);
        all.flat_map(|(remote, seq, paths)| {
            paths.iter().map(move |(path, extent)| (remote, seq, path, *extent))
        })
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn is_full_sync(paths: &[(RelPath, Extent)]) -> bool {
    paths.iter().all(|(path, extent)| path.is_root() && extent.scope == Scope::Tree)
}
