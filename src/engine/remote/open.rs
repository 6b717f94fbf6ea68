//! Directories of a job in flight that exist and are sent alone: paths below them need not wait for the job's end.
//! Does not look at the disk; the worker names them.

use super::RemoteState;
use crate::engine::JobId;
use crate::engine::locks::Owner;
use crate::path::RelPath;

impl RemoteState {
    /// Lets paths below these directories of the job start. The directories themselves, what is above them, and trees and
    /// listings that cover them still wait.
    ///
    /// The job may still delete such a directory, if it vanishes between the worker's look and rsync's. Then the deletion
    /// is pending before anything new below it, and a pending mark at an open directory keeps back everything below it.
    pub fn open(&mut self, job: JobId, directories: &[RelPath]) {
        let opened = self.locks.downgrade(&Owner::Job(job), directories);
        if let Some(flight) = self.flights.get_mut(job) {
            // rsync sets the directory's times at the end, perhaps after another run has changed something in it.
            opened.into_iter().for_each(|directory| flight.parents.touch(directory.clone()));
        }
        self.backlog.search_again();
    }
}
