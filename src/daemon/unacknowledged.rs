//! Deliveries of which the record and the journal are not told yet, for something may have happened before their end that nobody
//! has heard of: a directory that was renamed away and back while rsync looked was not delivered, whatever rsync says.
//! Decides nothing; the watch thread says when it has told all.

use crate::change::{RemoteId, RootId, Scope};
use crate::engine::FlushId;
use crate::journal::Seq;
use crate::path::RelPath;
use crate::record::Observation;
use crate::watch::Barrier;

/// So many are not left waiting, however much is under way.
const MANY: usize = 64;

/// What the end of a job leads to.
#[derive(Debug)]
pub enum Delivery {
    /// The record is to hold what was seen below this root before the job.
    Observed(RootId, Observation),
    /// The journal is to forget these paths, as they were up to this number.
    Delivered(RemoteId, Seq, Vec<(RelPath, Scope)>),
}

/// What waits for the watch thread's word, in the order in which the jobs have ended.
#[derive(Debug)]
pub struct Unacknowledged {
    barrier: Barrier,
    waiting: Vec<Delivery>,
    /// How many of them an answer that is under way will confirm.
    asked_for: Option<usize>,
    /// Flushes that wait until the question can be asked, and those that the answer under way is for.
    flushes: (Vec<FlushId>, Vec<FlushId>),
}

impl Unacknowledged {
    /// Nothing waits.
    pub fn new(barrier: Barrier) -> Self {
        Self { barrier, waiting: Vec::new(), asked_for: None, flushes: (Vec::new(), Vec::new()) }
    }

    /// A job has ended just now.
    pub fn add(&mut self, delivery: Delivery) {
        self.waiting.push(delivery);
    }

    /// Asks the watch thread, if there is a reason and it has not been asked already. While jobs are under way (`at_rest` is false) that
    /// can wait: it would take the processor from them, and for nothing but work that is done twice after a kill.
    pub fn ask(&mut self, at_rest: bool) {
        let is_due = if at_rest { !self.waiting.is_empty() } else { self.waiting.len() >= MANY };
        if is_due || !self.flushes.0.is_empty() {
            self.ask_now();
        }
    }

    /// Never asks twice at a time: of two answers nobody could tell which one it is.
    fn ask_now(&mut self) {
        if self.asked_for.is_none() {
            self.asked_for = Some(self.waiting.len());
            self.flushes.1.append(&mut self.flushes.0);
            self.barrier.ask();
        }
    }

    /// A flush has to know when all is told that happened before now.
    pub fn ask_for_flush(&mut self, flush: FlushId) {
        self.flushes.0.push(flush);
        self.ask_now();
    }

    /// The watch thread has answered: the flushes for which it has told everything. Call it before the deliveries are taken.
    pub fn take_flushes(&mut self) -> Vec<FlushId> {
        std::mem::take(&mut self.flushes.1)
    }

    /// The watch thread has answered: what is confirmed by that.
    pub fn take_confirmed(&mut self) -> Vec<Delivery> {
        let count = self.asked_for.take().unwrap_or(0);
        self.waiting.drain(..count).collect()
    }

    /// Something was lost that might have told otherwise: none of it is ever confirmed.
    pub fn give_up(&mut self) {
        self.waiting.clear();
        self.asked_for = self.asked_for.map(|_| 0);
    }

    /// The paths whose delivery the journal is not told of yet.
    pub fn deliveries(&self) -> impl Iterator<Item = (RemoteId, &RelPath, Scope)> {
        let paths = |delivery| match delivery {
            &Delivery::Delivered(remote, _, ref paths) => Some((remote, paths)),
            Delivery::Observed(..) => None,
        };
        let all = self.waiting.iter().filter_map(paths);
        all.flat_map(|(remote, paths)| {
            paths.iter().map(move |(path, scope)| (remote, path, *scope))
        })
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
