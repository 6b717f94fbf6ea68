//! The remotes that the workers know, by their numbers. One may be replaced while its jobs are in flight.
//! Runs nothing.

use std::sync::{Arc, Mutex, Weak};

use super::remote_worker::RemoteWorker;
use crate::change::RemoteId;
use crate::ground::lock::lock;

/// All remotes; shared by the threads.
#[derive(Debug, Default)]
pub struct RemoteTable(Mutex<Remotes>);

#[derive(Debug, Default)]
struct Remotes {
    /// By number.
    list: Vec<Arc<RemoteWorker>>,
    /// Replaced remotes that still have a job in flight, with their numbers.
    replaced: Vec<(RemoteId, Weak<RemoteWorker>)>,
}

impl RemoteTable {
    /// A table of these remotes, numbered from 0.
    pub fn new(remotes: Vec<RemoteWorker>) -> Self {
        let list = remotes.into_iter().map(Arc::new).collect();
        Self(Mutex::new(Remotes { list, replaced: Vec::new() }))
    }

    /// The remote of this number.
    pub fn get(&self, remote: RemoteId) -> Option<Arc<RemoteWorker>> {
        lock(&self.0).list.get(remote.0).cloned()
    }

    /// Stores this remote under a number: the next free one or one in use. Returns the remote that had it before.
    pub fn set(&self, remote: RemoteId, worker: RemoteWorker) -> Option<Arc<RemoteWorker>> {
        let mut remotes = lock(&self.0);
        let worker = Arc::new(worker);
        match remotes.list.get_mut(remote.0) {
            Some(taken) => {
                let before = std::mem::replace(taken, worker);
                remotes.replaced.retain(|(_, old)| old.strong_count() > 0);
                remotes.replaced.push((remote, Arc::downgrade(&before)));
                Some(before)
            }
            None => {
                remotes.list.push(worker);
                None
            }
        }
    }

    /// All remotes.
    pub fn all(&self) -> Vec<Arc<RemoteWorker>> {
        lock(&self.0).list.clone()
    }

    /// All remotes, and the replaced ones that still have jobs in flight.
    pub fn all_at_work(&self) -> Vec<Arc<RemoteWorker>> {
        let remotes = lock(&self.0);
        let replaced = remotes.replaced.iter().filter_map(|(_, old)| old.upgrade());
        remotes.list.iter().cloned().chain(replaced).collect()
    }

    /// The remote of this number, and the replaced ones of this number that still have jobs in flight.
    pub fn at_work(&self, remote: RemoteId) -> Vec<Arc<RemoteWorker>> {
        let remotes = lock(&self.0);
        let of_number = remotes.replaced.iter().filter(|(number, _)| *number == remote);
        let replaced = of_number.filter_map(|(_, old)| old.upgrade());
        remotes.list.get(remote.0).cloned().into_iter().chain(replaced).collect()
    }
}
