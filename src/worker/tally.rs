//! What the main loop shares with one job: what it has sent so far, and whether it is aborted.
//! Costs nothing between reports: the kernel counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ground::lock::lock;
use crate::rsync::run::Killer;

/// What one job has sent, and whether it is aborted.
#[derive(Debug, Default)]
pub struct Tally {
    sums: Mutex<Sums>,
    is_aborted: AtomicBool,
}

#[derive(Debug, Default)]
struct Sums {
    /// Bytes sent by the runs that are over.
    ended: u64,
    /// The run under way.
    run: Option<Killer>,
}

impl Tally {
    /// Notes that a run of the job begins.
    pub fn run_begins(&self, run: Killer) {
        lock(&self.sums).run = Some(run);
    }

    /// Notes that the run is over and has sent so many bytes.
    pub fn run_ended(&self, sent: u64) {
        let mut sums = lock(&self.sums);
        sums.run = None;
        sums.ended += sent;
    }

    /// The job must come back undone: no run of it may begin any more.
    pub fn abort(&self) {
        self.is_aborted.store(true, Ordering::SeqCst);
    }

    /// True after [`Tally::abort`].
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::SeqCst)
    }

    /// How many bytes the job has sent so far.
    pub fn sent(&self) -> u64 {
        let sums = lock(&self.sums);
        sums.ended + sums.run.as_ref().map_or(0, Killer::sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_runs_have_sent_adds_up() {
        let tally = Tally::default();
        tally.run_ended(3);
        tally.run_ended(4);
        assert_eq!(tally.sent(), 7);
    }
}
