//! The timer threads: one for retries of the fail log, one for `<crontab>`.
//! They sleep in the kernel between two ticks.

use std::io;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::ground::thread::JoinedThread;

/// A running timer; dropping it ends and joins the thread.
#[derive(Debug)]
pub struct Timer {
    _stop: Sender<()>,
    _thread: JoinedThread,
}

impl Timer {
    /// Calls `tick` every `interval`, for the first time after one interval.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        name: &str,
        interval: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = JoinedThread::start_small(name, 256 << 10, move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        })?;
        Ok(Self { _stop: stop, _thread: thread })
    }
}
