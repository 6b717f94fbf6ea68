//! The phases of the mirror's end: the order to stop, the wait for jobs in flight, the last acknowledgements.
//! Ends nothing itself.

use std::time::Duration;

/// How long jobs in flight may continue after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long the watch thread may take to reach its last barrier; it usually takes some microseconds.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// The phase of the end. Times are the engine's.
#[derive(Debug, Default)]
pub struct Stopping {
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    /// Jobs in flight may continue until then.
    Ordered(Duration),
    /// Jobs were aborted; their reports are awaited.
    Aborted,
    /// Nothing is in flight. The last deliveries may be acknowledged until then.
    Finished(Duration),
    /// The mirror waits for nothing any more.
    Over,
}

/// What to do at a deadline.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: it was the engine's deadline.
    Nothing,
    /// Abort what is in flight.
    Abort,
}

impl Stopping {
    /// Handles an order to stop. A second order ends the wait.
    pub fn order(&mut self, now: Duration) {
        self.phase = match self.phase {
            Phase::Running => Phase::Ordered(now + STOP_PATIENCE),
            Phase::Ordered(_) | Phase::Aborted => Phase::Ordered(now),
            phase @ (Phase::Finished(_) | Phase::Over) => phase,
        };
    }

    /// True after an order to stop.
    pub fn is_ordered(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Notes that nothing is in flight any more.
    pub fn finish(&mut self, now: Duration) {
        self.phase = Phase::Finished(now + BARRIER_PATIENCE);
    }

    /// When the current phase ends.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ordered(at) | Phase::Finished(at) => Some(at),
            Phase::Running | Phase::Aborted | Phase::Over => None,
        }
    }

    /// Handles a deadline, which may be the engine's.
    pub fn deadline(&mut self, now: Duration) -> Due {
        match self.phase {
            Phase::Ordered(at) if at <= now => {
                self.phase = Phase::Aborted;
                Due::Abort
            }
            Phase::Finished(at) if at <= now => {
                // Give up: the next start delivers again what is not acknowledged.
                self.phase = Phase::Over;
                Due::Nothing
            }
            _ => Due::Nothing,
        }
    }

    /// True when the mirror may end. `is_acknowledged`: whether all deliveries are acknowledged.
    pub fn is_over(&self, is_acknowledged: impl FnOnce() -> bool) -> bool {
        match self.phase {
            Phase::Over => true,
            Phase::Finished(_) => is_acknowledged(),
            Phase::Running | Phase::Ordered(_) | Phase::Aborted => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn jobs_in_flight_are_aborted_after_ten_seconds_or_at_the_second_signal() {
        let mut stopping = Stopping::default();
        stopping.order(NOW);
        assert_eq!(stopping.next_deadline(), Some(NOW + STOP_PATIENCE));
        assert_eq!(stopping.deadline(NOW), Due::Nothing);
        stopping.order(NOW);
        assert_eq!(stopping.deadline(NOW), Due::Abort);
        assert_eq!(stopping.next_deadline(), None, "aborted once");
        assert!(!stopping.is_over(|| true));
    }

    #[test]
    fn the_end_waits_for_the_last_acknowledgement_but_not_for_ever() {
        let mut stopping = Stopping::default();
        stopping.order(NOW);
        stopping.finish(NOW);
        assert!(!stopping.is_over(|| false) && stopping.is_over(|| true));
        stopping.order(NOW);
        assert_eq!(stopping.next_deadline(), Some(NOW + BARRIER_PATIENCE), "a signal adds no time");
        assert_eq!(stopping.deadline(NOW + BARRIER_PATIENCE), Due::Nothing);
        assert!(stopping.is_over(|| false));
    }
}
