//! A named thread that does not outlive its owner: dropping the handle waits for the thread's end.
//! Does not tell the thread to stop. The owner does that, by an earlier field or in its own `drop`.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A running thread. The fields of a struct are dropped in order, after the struct's own `drop`. So the field that tells the
/// thread to stop must come before this handle.
#[derive(Debug)]
pub struct JoinedThread(Option<JoinHandle<()>>);

impl JoinedThread {
    /// Starts a thread. Lists of threads show the first 15 bytes of `name`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Self(Some(Builder::new().name(name.into()).spawn(run)?)))
    }

    /// Starts a thread with a stack of `stack_bytes`, for a thread without deep calls.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start_small(
        name: &str,
        stack_bytes: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self(Some(Builder::new().name(name.into()).stack_size(stack_bytes).spawn(run)?)))
    }
}

impl Drop for JoinedThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic of the thread was already logged.
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Owner {
        _stop: Sender<()>,
        _thread: JoinedThread,
    }

    #[test]
    fn dropping_the_owner_tells_the_thread_to_stop_and_waits_for_it() {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = channel();
        let told = Arc::clone(&ended);
        let thread = JoinedThread::start("test", move || {
            assert!(stopped.recv().is_err());
            told.store(true, Ordering::Release);
        });
        drop(Owner { _stop: stop, _thread: thread.unwrap() });
        assert!(ended.load(Ordering::Acquire));
    }
}
