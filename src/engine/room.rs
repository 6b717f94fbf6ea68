//! What the workers have room for: which jobs may start for a remote while others use workers.
//! Does not choose a job: `remote/start.rs` does.

use super::remote::RemoteState;

/// What may start for a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Any job.
    Any,
    /// Only short jobs: the last free worker is reserved for them.
    Short,
    /// No job: every worker is busy or reserved for another remote.
    None,
}

/// How the workers are used. Counted once for all remotes, because there may be hundreds.
#[derive(Debug)]
pub struct Usage {
    workers: usize,
    free: usize,
    /// Remotes that use a worker to find out whether they answer.
    on_trial: usize,
    /// Remotes without a batch that uses a worker.
    without_batch: usize,
    /// Large files and trees, also those that wait for an answer.
    long_jobs: usize,
}

impl Usage {
    /// Counts; `busy` of the workers are used.
    pub fn count(remotes: &[RemoteState], workers: usize, busy: usize) -> Self {
        // Jobs that continue after a wait may exceed the number of workers.
        let free = workers.saturating_sub(busy);
        let mut usage = Self { workers, free, on_trial: 0, without_batch: 0, long_jobs: 0 };
        for remote in remotes {
            usage.on_trial += usize::from(remote.is_on_trial());
            usage.without_batch += usize::from(remote.is_active() && !remote.has_working_batch());
            usage.long_jobs += remote.long_jobs();
        }
        usage
    }

    /// What may start for `remote`. Up to half of the workers are reserved for batches of other remotes, one worker each, so
    /// that no slow remote takes all workers. While a remote's batch waits for an answer, its reserved worker stays reserved.
    pub fn room(&self, remote: &RemoteState) -> Room {
        let half = self.workers / 2;
        if self.free == 0 || (remote.is_doubtful() && self.on_trial >= half.max(1)) {
            return Room::None;
        }
        let kept = self.without_batch.min(half);
        // Long jobs cost memory even while they wait: when there are many, a remote that has one gets no second.
        let may_be_long = self.long_jobs < self.workers || remote.long_jobs() == 0;
        if self.free > kept.max(half.min(1)) && may_be_long {
            Room::Any
        } else if self.free > kept || !remote.has_working_batch() {
            Room::Short
        } else {
            Room::None
        }
    }
}
