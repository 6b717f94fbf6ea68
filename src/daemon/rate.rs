//! The rate of a counter that is read at irregular times.
//! Does not read the clock.

use std::time::Duration;

use crate::engine::Now;

/// The least time over which the rate is measured; if the counter is read often, at most twice this time.
const WINDOW: Duration = Duration::from_secs(5);

/// The last readings of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time of the first reading.
    pub since: Now,
    /// A reading that is older than [`WINDOW`], or the first one.
    old: (Now, u64),
    /// A later reading.
    new: (Now, u64),
}

impl Rate {
    /// Starts with the time and the count of the first reading.
    pub fn new(begin: (Now, u64)) -> Self {
        Self { since: begin.0, old: begin, new: begin }
    }

    /// Adds a reading; returns the current rate per second.
    pub fn at(&mut self, now: Now, count: u64) -> f64 {
        if now.saturating_sub(self.new.0) >= WINDOW {
            (self.old, self.new) = (self.new, (now, count));
        }
        let took = now.saturating_sub(self.old.0).as_secs_f64();
        let more = count.saturating_sub(self.old.1) as f64;
        // Right after the first reading, the rate would be meaningless.
        if took < 0.1 { 0.0 } else { more / took }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_look_tells_the_mean_since_the_beginning() {
        let mut rate = Rate::new((at(10), 0));
        assert!((rate.at(at(30), 2_000) - 100.0).abs() < 1e-9);
        assert!(Rate::new((at(10), 0)).at(at(10), 2_000).abs() < 1e-9);
    }

    #[test]
    fn later_looks_tell_the_last_seconds() {
        let mut rate = Rate::new((at(0), 0));
        (1..=100).for_each(|second| _ = rate.at(at(second), second * 10));
        let fast = (101..=111).map(|second| rate.at(at(second), 1_000 + (second - 100) * 500));
        assert!((fast.last().unwrap() - 500.0).abs() < 1e-9);
        let still = (112..=122).map(|second| rate.at(at(second), 6_500));
        assert!(still.last().unwrap().abs() < 1e-9, "it stands still");
    }
}
