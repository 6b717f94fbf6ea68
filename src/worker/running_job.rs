//! One running job: what its runs have shown so far, and what it reports to the engine while it runs.
//! Runs nothing.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::Progress;
use super::tally::Tally;
use crate::engine::JobKind;
use crate::path::RelPath;

/// One running job.
pub struct RunningJob<'a> {
    /// The kind of the job.
    pub kind: JobKind,
    told: &'a dyn Fn(Progress),
    is_waiting: Cell<bool>,
    /// A run was aborted, and another run did its work.
    pub aborted: Cell<bool>,
    /// The remote has answered a run.
    pub answered: Cell<bool>,
    /// The remote has answered a run that made its own connection.
    pub answered_afresh: Cell<bool>,
    /// Counts what its runs have sent.
    pub tally: &'a Tally,
    /// [`super::Workers::know_until`] when the job was made.
    pub known_until: Duration,
    /// What was delivered in a session that may have connected before the change.
    pub unconfirmed: RefCell<Vec<RelPath>>,
}

impl<'a> RunningJob<'a> {
    /// A job that begins; `told` receives its progress, and `tally` counts what it sends.
    pub fn new(
        kind: JobKind,
        told: &'a dyn Fn(Progress),
        tally: &'a Tally,
        known_until: Duration,
    ) -> Self {
        Self {
            kind,
            told,
            is_waiting: Cell::default(),
            aborted: Cell::default(),
            answered: Cell::default(),
            answered_afresh: Cell::default(),
            tally,
            known_until,
            unconfirmed: RefCell::default(),
        }
    }

    /// Reports that changes below these directories need not wait for the job.
    pub fn open(&self, directories: Vec<RelPath>) {
        if !directories.is_empty() {
            (self.told)(Progress::Opened(directories));
        }
    }

    /// Reports that the job waits for the remote and needs no processor.
    pub fn waits(&self) {
        if !self.is_waiting.replace(true) {
            (self.told)(Progress::Waits);
        }
    }

    /// Reports that the job needs the processor.
    pub fn works(&self) {
        if self.is_waiting.replace(false) {
            (self.told)(Progress::Works);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn only_what_changes_is_said() {
        let said = RefCell::new(Vec::new());
        let told = |progress| said.borrow_mut().push(progress);
        let tally = Tally::default();
        let job = RunningJob::new(JobKind::Batch, &told, &tally, Duration::ZERO);
        job.works();
        job.open(Vec::new());
        job.waits();
        job.waits();
        job.works();
        assert_eq!(*said.borrow(), [Progress::Waits, Progress::Works]);
    }
}
