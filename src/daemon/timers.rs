//! Threads that do nothing but say that time has passed: the fail-retry thread and the crontab thread.
//! Between two events they sleep in the kernel.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// A running timer; dropping it ends and joins the thread.
#[derive(Debug)]
pub struct Timer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Calls `tick` every `interval`, for the first time after one interval.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        name: &str,
        interval: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(
            move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    tick();
                }
            },
        )?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread is in the log already.
            _ = thread.join();
        }
    }
}
