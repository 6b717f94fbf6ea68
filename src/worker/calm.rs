//! Whether runs are delivering at this moment, for those who could do their work a little later.
//! Counts; does not know what is delivered, nor who waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Shared by all remotes: they share the processors.
#[derive(Debug, Default)]
pub struct Calm {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delivering: usize,
    /// Counts what may be news to one who waits.
    news: u64,
    ended: bool,
}

/// A run that is delivering; dropped when it has ended.
#[derive(Debug)]
pub struct Delivering(Arc<Calm>);

/// What one who waits is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// True when nothing is being delivered.
    pub is_calm: bool,
    /// For [`Calm::wait`].
    pub news: u64,
}

impl Calm {
    /// From now on something is being delivered.
    pub fn delivering(self: &Arc<Self>) -> Delivering {
        self.lock().delivering += 1;
        Delivering(Arc::clone(self))
    }

    /// How things are.
    pub fn now(&self) -> Moment {
        let state = self.lock();
        Moment { is_calm: state.delivering == 0, news: state.news }
    }

    /// Somebody has something to do now, or when it is calm.
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
        let mut state = self.0.lock();
        state.delivering -= 1;
        if state.delivering == 0 {
            state.news += 1;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_calm_again_when_the_last_delivery_is_over() {
        let calm = Arc::new(Calm::default());
        let (one, two) = (calm.delivering(), calm.delivering());
        let before = calm.now();
        assert!(!before.is_calm);
        drop(one);
        assert_eq!(calm.now(), before, "nobody is woken for that");
        drop(two);
        assert!(calm.wait(before));
        assert!(calm.now().is_calm);
    }

    #[test]
    fn the_end_wakes_who_waits() {
        let calm = Arc::new(Calm::default());
        let waiting = {
            let calm = Arc::clone(&calm);
            std::thread::Builder::new().spawn(move || calm.wait(calm.now())).unwrap()
        };
        calm.end();
        assert!(!waiting.join().unwrap());
    }
}
