//! A shortage of memory: said, and answered by making do with less. The allocator waits meanwhile.
//! Does not decide what is given up; the engine does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::main_event::ProcessEvent;
use crate::ground::thread::JoinedThread;
use crate::sys::memory::Bell;

/// Listens for shortages; dropping it ends and joins its thread.
#[derive(Debug)]
pub struct ShortageWatch {
    bell: Bell,
    stop: Arc<AtomicBool>,
    _thread: JoinedThread,
}

impl ShortageWatch {
    /// Wakes the main loop whenever memory is short.
    ///
    /// # Errors
    /// When the system refuses a thread or a descriptor.
    pub fn start(events: Sender<ProcessEvent>) -> io::Result<Self> {
        let (bell, stop) = (Bell::hang()?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = JoinedThread::start_small("memory", 128 << 10, move || {
            loop {
                bell.wait();
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // A full channel wakes it as well.
                _ = events.try_send(ProcessEvent::MemoryShort);
            }
        })?;
        Ok(Self { bell, stop, _thread: thread })
    }
}

impl Drop for ShortageWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }
}
