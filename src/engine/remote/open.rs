//! Directories that a job sends without their content: paths below them need not wait for the job's end.
//! Does not look at the disk; the worker names them.

use super::RemoteState;
use crate::engine::JobId;
use crate::engine::locks::Owner;
use crate::path::RelPath;

impl RemoteState {
    /// Lets paths below these directories start. The directories themselves, their ancestors, and trees and listings that cover
    /// them still wait.
    ///
    /// If such a directory is deleted between the worker's look and rsync's, the job deletes its copy. The deletion is then
    /// pending before anything new below it, and a pending mark at an open directory keeps back everything below.
    pub fn open(&mut self, job: JobId, directories: &[RelPath]) {
        let opened = self.locks.downgrade(&Owner::Job(job), directories);
        if let Some(flight) = self.flights.get_mut(job) {
            // rsync sets the directory's times at its end, perhaps after another run has changed something there.
            opened.into_iter().for_each(|directory| flight.parents.touch(directory.clone()));
        }
        self.backlog.search_again();
    }
}
