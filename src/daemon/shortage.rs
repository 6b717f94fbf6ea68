//! Reports a shortage of memory to the main loop, which then reduces its state. The allocator waits meanwhile.
//! The engine decides what to reduce.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::main_event::ProcessEvent;
use crate::ground::thread::JoinedThread;
use crate::sys::memory::ShortageSignal;

/// The thread that waits for shortages; dropping it ends and joins the thread.
#[derive(Debug)]
pub struct ShortageWatch {
    signal: ShortageSignal,
    stop: Arc<AtomicBool>,
    _thread: JoinedThread,
}

impl ShortageWatch {
    /// Wakes the main loop whenever memory is short.
    ///
    /// # Errors
    /// When the thread or a descriptor cannot be created.
    pub fn start(events: Sender<ProcessEvent>) -> io::Result<Self> {
        let (signal, stop) = (ShortageSignal::listen()?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = JoinedThread::start_small("memory", 128 << 10, move || {
            loop {
                signal.wait();
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // If the channel is full, the main loop wakes anyway.
                _ = events.try_send(ProcessEvent::MemoryShort);
            }
        })?;
        Ok(Self { signal, stop, _thread: thread })
    }
}

impl Drop for ShortageWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.signal.send();
    }
}
