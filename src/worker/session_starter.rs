//! The thread that starts sessions, one after the other, and not while something is being delivered.
//! Starting one takes more processor time than a small delivery; nobody waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::load_gate::LoadGate;
use super::remote_worker::RemoteWorker;
use super::sessions::{SessionDemand, Sessions};

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct SessionStarter {
    load_gate: Arc<LoadGate>,
    thread: Option<JoinHandle<()>>,
}

impl SessionStarter {
    /// Keeps sessions ready for these remotes from now on.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(remotes: Arc<[RemoteWorker]>, load_gate: Arc<LoadGate>) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("sessions".into()).stack_size(256 << 10);
        let keep_ready = {
            let load_gate = Arc::clone(&load_gate);
            move || keep_ready(&remotes, &load_gate)
        };
        Ok(Self { load_gate, thread: Some(thread.spawn(keep_ready)?) })
    }
}

impl Drop for SessionStarter {
    fn drop(&mut self) {
        self.load_gate.end();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn keep_ready(remotes: &[RemoteWorker], load_gate: &LoadGate) {
    loop {
        let now = load_gate.now();
        if now.is_short {
            // What sessions hold, runs may need: descriptors, processes, memory.
            Sessions::close_all(remotes.iter().map(RemoteWorker::sessions));
        }
        let demands = remotes.iter().map(|remote| (remote.sessions().demand(), remote));
        let demands = demands.filter(|_| !now.is_short);
        match demands.max_by_key(|(demand, _)| *demand) {
            Some((SessionDemand::Urgent, remote)) => remote.sessions().start_one(),
            Some((SessionDemand::Some, remote)) if now.is_calm => remote.sessions().start_one(),
            _ if load_gate.wait(now) => {}
            _ => return,
        }
    }
}
