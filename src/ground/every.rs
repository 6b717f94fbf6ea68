//! A thread that does the same thing again after each interval.
//! Unlike [`super::thread`], its end does not wait long: what it does may wait for another machine.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// How long the end of the program waits for a thread, because a request to a web service may take longer.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A thread that does something at once and then after each interval, and sleeps in the kernel in between. Dropping it ends it.
pub struct Every {
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Every {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        name: &str,
        interval: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let (alive, ended) = bounded(0);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped even if the thread panics; the handle waits for that.
            let _alive = alive;
            tick();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
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
