//! A thread that does the same thing again after each interval.
//! Unlike [`super::thread`], its end does not wait long: what it does may wait for another machine.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// How long the end of the program waits for a thread, because a request to a web service may take longer.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A thread that does something after each interval, and sleeps in the kernel in between. Dropping it ends it.
#[derive(Debug)]
pub struct Every {
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Every {
    /// Starts the thread. It calls `tick` after `first`, and then after each `interval`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        name: &str,
        first: Duration,
        interval: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let (alive, ended) = bounded(0);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped even if the thread panics; the handle waits for that.
            let _alive = alive;
            let mut pause = first;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                tick();
                pause = interval;
            }
        })?;
        Ok(Self { stop: Some(stop), ended })
    }
}

impl Drop for Every {
    fn drop(&mut self) {
        self.stop = None;
        // Continue even if it has not ended: nothing depends on it.
        _ = self.ended.recv_timeout(END_PATIENCE);
    }
}
