//! Whether runs are delivering at this moment, for those who could do their work a little later.
//! Counts; does not know what is delivered, nor who waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After so long what is small has arrived where the network is fast, and its run's processes only take their leave.
const SMALL_DELIVERY: Duration = Duration::from_millis(5);

/// Shared by all remotes: they share the processors.
#[derive(Debug, Default)]
pub struct LoadGate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delivering: u32,
    /// Counts what may be news to one who waits.
    news: u64,
    ended: bool,
}

/// A run that is delivering; dropped when it has ended.
#[derive(Debug)]
pub struct Delivering {
    load_gate: Arc<LoadGate>,
    /// Runs that were delivering when this one began, itself included.
    beside: u32,
}

impl Delivering {
    /// How long the delivery takes if it is a small one: what goes to many remotes at once shares the processors.
    pub fn patience(&self) -> Duration {
        SMALL_DELIVERY * self.beside
    }
}

/// What one who waits is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// True when nothing is being delivered.
    pub is_calm: bool,
    /// For [`LoadGate::wait`].
    pub news: u64,
}

impl LoadGate {
    /// From now on something is being delivered.
    pub fn delivering(self: &Arc<Self>) -> Delivering {
        let mut state = self.lock();
        state.delivering += 1;
        Delivering { load_gate: Arc::clone(self), beside: state.delivering }
    }

    /// How things are.
    pub fn now(&self) -> Moment {
        let state = self.lock();
        Moment { is_calm: state.delivering == 0, news: state.news }
    }

    /// Somebody has something to do now, or when it is quiet.
    pub fn tell(&self) {
        self.lock().news += 1;
        self.changed.notify_all();
    }

    /// Nobody shall wait any more.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for news since that moment; false when the end has come.
    pub fn wait(&self, since: Moment) -> bool {
        let waits = |state: &mut State| !state.ended && state.news == since.news;
        let state = self.changed.wait_while(self.lock(), waits);
        !state.unwrap_or_else(PoisonError::into_inner).ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        let mut state = self.load_gate.lock();
        state.delivering -= 1;
        if state.delivering == 0 {
            state.news += 1;
            self.load_gate.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_calm_again_when_the_last_delivery_is_over() {
        let load_gate = Arc::new(LoadGate::default());
        let (one, two) = (load_gate.delivering(), load_gate.delivering());
        let before = load_gate.now();
        assert!(!before.is_calm);
        drop(one);
        assert_eq!(load_gate.now(), before, "nobody is woken for that");
        drop(two);
        assert!(load_gate.wait(before));
        assert!(load_gate.now().is_calm);
    }

    #[test]
    fn what_goes_to_many_remotes_at_once_may_take_longer() {
        let load_gate = Arc::new(LoadGate::default());
        let one = load_gate.delivering();
        let two = load_gate.delivering();
        assert_eq!([&one, &two].map(Delivering::patience), [1, 2].map(|n| SMALL_DELIVERY * n));
        drop(one);
        assert_eq!(load_gate.delivering().patience(), SMALL_DELIVERY * 2);
    }

    #[test]
    fn the_end_wakes_who_waits() {
        let load_gate = Arc::new(LoadGate::default());
        let waiting = {
            let load_gate = Arc::clone(&load_gate);
            std::thread::Builder::new().spawn(move || load_gate.wait(load_gate.now())).unwrap()
        };
        load_gate.end();
        assert!(!waiting.join().unwrap());
    }
}
