//! The thread that starts warm sessions, one after the other, and not while something is being delivered.
//! Starting one takes more processor time than a small delivery; nobody waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::load_gate::LoadGate;
use super::remote_worker::RemoteWorker;
use super::sessions::SessionDemand;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct SessionStarter {
    load_gate: Arc<LoadGate>,
    thread: Option<JoinHandle<()>>,
}

impl SessionStarter {
    /// Keeps the sessions of these links warm from now on.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(remotes: Arc<[RemoteWorker]>, load_gate: Arc<LoadGate>) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("sessions".into()).stack_size(256 << 10);
        let warm = {
            let load_gate = Arc::clone(&load_gate);
            move || warm(&remotes, &load_gate)
        };
        Ok(Self { load_gate, thread: Some(thread.spawn(warm)?) })
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

fn warm(remotes: &[RemoteWorker], load_gate: &LoadGate) {
    loop {
        let now = load_gate.now();
        let worst = remotes.iter().map(|remote| (remote.demand(), remote)).max_by_key(|(l, _)| *l);
        match worst {
            Some((SessionDemand::Urgent, remote)) => remote.start_session(),
            Some((SessionDemand::Some, remote)) if now.is_calm => remote.start_session(),
            _ if load_gate.wait(now) => {}
            _ => return,
        }
    }
}
