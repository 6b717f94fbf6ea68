//! The thread that starts sessions one by one, while no delivery needs the processors.
//! Starting a session takes more processor time than a small delivery, and is less urgent.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::load_gate::LoadGate;
use super::remote_worker::RemoteWorker;
use super::sessions::{SessionDemand, Sessions};
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
        let demands = remotes.iter().map(|remote| (remote.sessions().demand(), remote));
        let demands = demands.filter(|_| !now.is_short);
        match demands.max_by_key(|(demand, _)| *demand) {
            Some((SessionDemand::Urgent, remote)) => remote.sessions().start_one(),
            Some((SessionDemand::Some, remote)) if now.is_calm => remote.sessions().start_one(),
            _ => {
                let next = next_place(&remotes);
                // Do not keep a replaced remote alive while waiting.
                drop(remotes);
                if !load_gate.wait(now, next) {
                    return;
                }
            }
        }
    }
}

/// When a session may be started for which there is no place now.
fn next_place(remotes: &[Arc<RemoteWorker>]) -> Option<Instant> {
    remotes.iter().filter_map(|remote| remote.sessions().next_place()).min()
}
