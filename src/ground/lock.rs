//! Locks mutexes that stay usable after a thread panicked while it held them.
//! Only for data that every holder keeps consistent at each step.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, WaitTimeoutResult};
use std::time::Duration;

/// Locks `mutex`, even after a panic of an earlier holder.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is notified.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is notified, at most for `limit`.
pub fn wait_timeout<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}

/// Waits while `waits` returns true, at most for `limit`.
pub fn wait_timeout_while<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
    waits: impl FnMut(&mut T) -> bool,
) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
    condition.wait_timeout_while(guard, limit, waits).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_stays_usable_after_a_panic_of_its_holder() {
        let mutex = Mutex::new(1);
        let holder = std::panic::AssertUnwindSafe(|| {
            let _held = lock(&mutex);
            panic!("in a test");
        });
        assert!(std::panic::catch_unwind(holder).is_err());
        *lock(&mutex) += 1;
        let (guard, _) =
            wait_timeout_while(&Condvar::new(), lock(&mutex), Duration::ZERO, |_| false);
        assert_eq!(*guard, 2);
    }
}
