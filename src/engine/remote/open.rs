//! Directories of a job in flight that are sent as what they are: what is below them need not wait for its end.
//! Does not look at the disk; the worker says which they are.

use std::collections::HashSet;

use super::RemoteState;
use crate::engine::JobId;
use crate::engine::pending::Hold;
use crate::path::RelPath;

impl RemoteState {
    /// From now on these paths of a job keep back only themselves, what is above them, and whoever means the whole of them.
    ///
    /// The job may still delete one of them: when it vanishes between the worker's look and rsync's. Then its own deletion
    /// is pending before anything that is made there anew, and what is pending at such a directory keeps back all below it.
    pub fn open(&mut self, job: JobId, directories: &[RelPath]) {
        let Some(flight) = self.flights.get_mut(&job) else { return };
        let own: HashSet<&RelPath> = flight.items.iter().map(|item| &item.path).collect();
        for directory in directories.iter().filter(|directory| own.contains(directory)) {
            if self.held.get(directory).is_some_and(|node| node.value == Some(Hold::Short)) {
                self.held.insert(directory, Hold::Directory);
                // The run sets its times at the end, perhaps after one that changes something in it.
                flight.parents.touch(directory.clone());
            }
        }
        self.stuck = false;
    }
}
