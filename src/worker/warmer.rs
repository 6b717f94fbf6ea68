//! The thread that starts warm sessions, one after the other, and not while something is being delivered.
//! Starting one takes more processor time than a small delivery; nobody waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::calm::Calm;
use super::link::Link;
use super::sessions::Lack;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct Warmer {
    calm: Arc<Calm>,
    thread: Option<JoinHandle<()>>,
}

impl Warmer {
    /// Keeps the sessions of these links warm from now on.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(links: Arc<[Link]>, calm: Arc<Calm>) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("sessions".into()).stack_size(256 << 10);
        let warm = {
            let calm = Arc::clone(&calm);
            move || warm(&links, &calm)
        };
        Ok(Self { calm, thread: Some(thread.spawn(warm)?) })
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        self.calm.end();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn warm(links: &[Link], calm: &Calm) {
    loop {
        let now = calm.now();
        let worst = links.iter().map(|link| (link.lack(), link)).max_by_key(|(l, _)| *l);
        match worst {
            Some((Lack::Urgent, link)) => link.start_session(),
            Some((Lack::Some, link)) if now.is_calm => link.start_session(),
            _ if calm.wait(now) => {}
            _ => return,
        }
    }
}
