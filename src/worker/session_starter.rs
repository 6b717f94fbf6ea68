//! The thread that starts sessions one by one, while deliveries leave a processor free.
//! Starting a session takes more processor time than a small delivery, and is less urgent.

use std::cmp::Reverse;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::load_gate::LoadGate;
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
        if now.is_crowded {
            // Nothing may start, so do not look at the sessions of hundreds of remotes now.
            drop(remotes);
            if load_gate.wait(now, None) {
                continue;
            }
            return;
        }
        let outdated: Vec<_> =
            remotes.iter().flat_map(|remote| remote.sessions().take_outdated()).collect();
        let goes_on = start_missing(&remotes, load_gate) || !outdated.is_empty();
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

/// Starts a session for each remote that lacks one, in the order of need, until the runs need the processors. False when it
/// started none.
fn start_missing(remotes: &[Arc<RemoteWorker>], load_gate: &LoadGate) -> bool {
    let demands = remotes.iter().map(|remote| (remote.sessions().demand(), remote));
    let mut lacking: Vec<_> =
        demands.filter(|(demand, _)| *demand != SessionDemand::Nothing).collect();
    lacking.sort_by_key(|(demand, _)| Reverse(*demand));
    let may_start = |_: &_| {
        let now = load_gate.now();
        !now.is_short && !now.is_crowded
    };
    let started = lacking.iter().take_while(may_start);
    started.map(|(_, remote)| remote.sessions().start_one()).count() > 0
}

/// When a session is due for which there is no place or no need now.
fn next_start(remotes: &[Arc<RemoteWorker>]) -> Option<Instant> {
    let sessions = remotes.iter().map(|remote| remote.sessions());
    sessions.flat_map(|it| [it.next_place(), it.next_renewal()]).flatten().min()
}
