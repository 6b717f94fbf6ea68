//! Threads that run tasks, one for each task, so that a waiting task does not prevent others from starting.
//! Does not choose tasks or bound their number: the engine does.

use crate::ground::lock::{lock, wait_timeout_while};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// An idle thread ends after so long; one thread stays.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The stack of a thread; the unused part takes no memory.
const STACK_BYTES: usize = 512 << 10;

/// The threads. Dropping this runs the queued tasks and joins every thread.
pub struct Threads<T> {
    shared: Arc<Shared<T>>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
    work: Box<dyn Fn(T) + Send + Sync>,
}

/// Invariant: while `is_open`, there is at least one thread.
struct Queue<T> {
    tasks: VecDeque<T>,
    threads: usize,
    idle: usize,
    is_open: bool,
}

impl<T> std::fmt::Debug for Threads<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Threads<T> {
    /// Starts the first thread. Each thread calls `work` for a task.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(work: impl Fn(T) + Send + Sync + 'static) -> io::Result<Self> {
        let queue = Queue { tasks: VecDeque::new(), threads: 0, idle: 0, is_open: true };
        let (queue, work) = (Mutex::new(queue), Box::new(work));
        let shared = Arc::new(Shared { queue, changed: Condvar::new(), work });
        let mut threads = Self { shared, handles: Vec::new() };
        threads.add()?;
        Ok(threads)
    }

    /// Runs a task, on a new thread if all others are busy. If the system refuses a thread, the task waits.
    pub fn run(&mut self, task: T) {
        let is_short = {
            let mut queue = self.shared.lock();
            queue.tasks.push_back(task);
            queue.tasks.len() > queue.idle
        };
        self.shared.changed.notify_one();
        if is_short && let Err(error) = self.add() {
            log::warn!("cannot start a thread: {error}; its job waits for another thread");
        }
    }

    fn add(&mut self) -> io::Result<()> {
        self.handles.retain(|handle| !handle.is_finished());
        self.shared.lock().threads += 1;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("worker".into()).stack_size(STACK_BYTES);
        match thread.spawn(move || shared.work_off()) {
            Ok(handle) => self.handles.push(handle),
            Err(error) => {
                self.shared.lock().threads -= 1;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<T> Shared<T> {
    fn work_off(&self) {
        while let Some(task) = self.next() {
            (self.work)(task);
        }
    }

    /// Waits for a task; `None`: the thread ends.
    fn next(&self) -> Option<T> {
        let mut queue = self.lock();
        queue.idle += 1;
        let waits = |queue: &mut Queue<T>| queue.tasks.is_empty() && queue.is_open;
        while waits(&mut queue) {
            let is_last = queue.threads == 1;
            let idle_max = if is_last { Duration::MAX } else { IDLE_MAX };
            let timeout;
            (queue, timeout) = wait_timeout_while(&self.changed, queue, idle_max, waits);
            if timeout.timed_out() && queue.threads > 1 {
                break;
            }
        }
        queue.idle -= 1;
        let task = queue.tasks.pop_front();
        queue.threads -= usize::from(task.is_none());
        task
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        lock(&self.queue)
    }
}

impl<T> Drop for Threads<T> {
    fn drop(&mut self) {
        self.shared.lock().is_open = false;
        self.shared.changed.notify_all();
        for handle in self.handles.drain(..) {
            _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};

    #[test]
    fn a_task_that_waits_keeps_no_other_from_starting() {
        let (sender, ends) = unbounded();
        let mut threads = Threads::start(move |hold: Option<Receiver<()>>| {
            let held = hold.map(|hold| hold.recv());
            _ = sender.send(held.is_some());
        })
        .unwrap();
        let holds: Vec<_> = (0..20).map(|_| unbounded()).collect();
        holds.iter().for_each(|(_, hold)| threads.run(Some(hold.clone())));
        threads.run(None);
        assert_eq!(ends.recv(), Ok(false), "the last one ends first");
        drop(holds);
        drop(threads);
        assert_eq!(ends.iter().filter(|held| *held).count(), 20);
    }

    #[test]
    fn a_thread_does_many_tasks() {
        let (sender, ends) = unbounded();
        let mut threads = Threads::start(move |task: usize| _ = sender.send(task)).unwrap();
        for task in 0..1_000 {
            threads.run(task);
        }
        drop(threads);
        assert_eq!(ends.iter().count(), 1_000);
    }
}
