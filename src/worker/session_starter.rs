//! The thread that starts sessions one by one, while no delivery needs the processors.
//! Starting a session takes more processor time than a small delivery, and is less urgent.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::load_gate::{LoadGate, Moment};
use super::remote_worker::RemoteWorker;
use super::sessions::{SessionDemand, Sessions, close_all};
use super::table::RemoteTable;
use crate::ground::thread::JoinedThread;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct SessionStarter {
    load_gate: Arc<LoadGate>,
    _thread: JoinedThread,
}

impl SessionStarter {
    /// Keeps sessions ready for these remotes from now on.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(remotes: Arc<RemoteTable>, load_gate: Arc<LoadGate>) -> io::Result<Self> {
        let keep_ready = {
            let load_gate = Arc::clone(&load_gate);
            move || keep_ready(&remotes, &load_gate)
        };
        let thread = JoinedThread::start_small("sessions", 256 << 10, keep_ready)?;
        Ok(Self { load_gate, _thread: thread })
    }
}

impl Drop for SessionStarter {
    fn drop(&mut self) {
        self.load_gate.end();
    }
}

fn keep_ready(remotes: &RemoteTable, load_gate: &LoadGate) {
    loop {
        let remotes = remotes.all();
        let now = load_gate.now();
        if now.is_short {
            // Runs may need the resources that sessions hold: descriptors, processes, memory.
            Sessions::close_all(remotes.iter().map(|remote| remote.sessions()));
        }
        remotes.iter().for_each(|remote| remote.sessions().make_room());
        let outdated: Vec<_> =
            remotes.iter().flat_map(|remote| remote.sessions().take_outdated()).collect();
        let goes_on = start_most_urgent(&remotes, now) || !outdated.is_empty();
        // The old sessions end while the new ones connect.
        close_all(outdated);
        if goes_on {
            continue;
        }
        let next = next_start(&remotes);
        // Do not keep a replaced remote alive while waiting.
        drop(remotes);
        if !load_gate.wait(now, next) {
            return;
        }
    }
}

/// Starts the session that is needed most. False when none is to be started now.
fn start_most_urgent(remotes: &[Arc<RemoteWorker>], now: Moment) -> bool {
    let demands = remotes.iter().map(|remote| (remote.sessions().demand(), remote));
    let demands = demands.filter(|_| !now.is_short);
    match demands.max_by_key(|(demand, _)| *demand) {
        Some((SessionDemand::Urgent, remote)) => remote.sessions().start_one(),
        Some((SessionDemand::Some, remote)) if now.is_calm => remote.sessions().start_one(),
        _ => return false,
    }
    true
}

/// When a session is due for which there is no place or no need now.
fn next_start(remotes: &[Arc<RemoteWorker>]) -> Option<Instant> {
    let sessions = remotes.iter().map(|remote| remote.sessions());
    sessions.flat_map(|it| [it.next_place(), it.next_renewal()]).flatten().min()
}
