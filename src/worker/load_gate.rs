//! Tells whether deliveries need the processors now, so that other work can wait.
//! Only counts; does not know what is delivered or who waits.

use crate::ground::lock::{lock, wait_timeout_while};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How long no session is started after this machine lacked a resource that a run needs.
const SHORT_FOR: Duration = Duration::from_secs(60);

/// Shared by all remotes: they share the processors.
#[derive(Debug)]
pub struct LoadGate {
    processors: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delivering: usize,
    /// Incremented at every change that a waiting thread must see.
    generation: u64,
    /// When this machine last lacked a resource.
    short_since: Option<Instant>,
    ended: bool,
}

/// A delivery that needs the processor; drop it when it no longer does.
#[derive(Debug)]
pub struct Delivering {
    load_gate: Arc<LoadGate>,
}

/// What a waiting thread sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// True when runs need all processors.
    pub is_crowded: bool,
    /// True when this machine lacks a resource: sessions must leave it to the runs.
    pub is_short: bool,
    /// Passed to [`LoadGate::wait`].
    pub generation: u64,
}

impl Default for LoadGate {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }
}

impl LoadGate {
    /// For a machine with so many processors.
    pub fn new(processors: usize) -> Self {
        Self { processors, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Notes that a delivery begins.
    pub fn delivering(self: &Arc<Self>) -> Delivering {
        self.lock().delivering += 1;
        Delivering { load_gate: Arc::clone(self) }
    }

    /// The current state.
    pub fn now(&self) -> Moment {
        let state = self.lock();
        let is_short = state.short_since.is_some_and(|since| since.elapsed() < SHORT_FOR);
        let is_crowded = state.delivering >= self.processors;
        Moment { is_crowded, is_short, generation: state.generation }
    }

    /// Notes that this machine lacks a resource that a run needs.
    pub fn note_shortage(&self) {
        self.lock().short_since = Some(now());
        self.notify();
    }

    /// Wakes the waiting threads: there may be work for them.
    pub fn notify(&self) {
        self.lock().generation += 1;
        self.changed.notify_all();
    }

    /// Ends all waiting; nothing waits here afterwards.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for a change after `since`, at most until `until`; false when all waiting has ended.
    pub fn wait(&self, since: Moment, until: Option<Instant>) -> bool {
        let waits = |state: &mut State| !state.ended && state.generation == since.generation;
        let limit = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now()));
        !wait_timeout_while(&self.changed, self.lock(), limit, waits).0.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        let mut state = self.load_gate.lock();
        state.delivering -= 1;
        if state.delivering + 1 == self.load_gate.processors {
            state.generation += 1;
            self.load_gate.changed.notify_all();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a shortage is over after a while by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crowded_until_deliveries_leave_a_processor() {
        let load_gate = Arc::new(LoadGate::new(2));
        let (one, two, three) =
            (load_gate.delivering(), load_gate.delivering(), load_gate.delivering());
        let before = load_gate.now();
        assert!(before.is_crowded);
        drop(one);
        assert_eq!(load_gate.now(), before, "nobody is woken for that");
        drop(two);
        assert!(load_gate.wait(before, None));
        assert!(!load_gate.now().is_crowded);
        drop(three);
        assert!(!load_gate.now().is_crowded);
    }

    #[test]
    fn a_shortage_wakes_who_starts_sessions() {
        let load_gate = LoadGate::default();
        let before = load_gate.now();
        load_gate.note_shortage();
        assert!(load_gate.wait(before, None));
        assert!(!before.is_short && load_gate.now().is_short);
    }

    #[test]
    fn the_end_wakes_who_waits() {
        let load_gate = Arc::new(LoadGate::default());
        let waiting = {
            let load_gate = Arc::clone(&load_gate);
            std::thread::Builder::new()
                .spawn(move || load_gate.wait(load_gate.now(), None))
                .unwrap()
        };
        load_gate.end();
        assert!(!waiting.join().unwrap());
    }
}
