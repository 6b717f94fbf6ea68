//! How the mirror comes to its end: the order to stop, the patience with what is in flight, the last acknowledgements.
//! Ends nothing itself.

use std::time::Duration;

/// How long runs in flight may go on after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long the watch thread may take to reach its last barrier: as a rule it is some microseconds.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// How far the end has come. Times are the engine's.
#[derive(Debug, Default)]
pub struct Stopping {
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    /// Jobs in flight may go on until then.
    Ordered(Duration),
    /// They were aborted; their reports are awaited.
    Aborted,
    /// Nothing is in flight. What was delivered last may be acknowledged until then.
    Finished(Duration),
    /// Nobody waits any more.
    Over,
}

/// What a deadline asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: it was the engine's.
    Nothing,
    /// Abort what is in flight.
    Abort,
}

impl Stopping {
    /// A signal orders the end. A second one is an order not to wait.
    pub fn order(&mut self, now: Duration) {
        self.phase = match self.phase {
            Phase::Running => Phase::Ordered(now + STOP_PATIENCE),
            Phase::Ordered(_) | Phase::Aborted => Phase::Ordered(now),
            phase @ (Phase::Finished(_) | Phase::Over) => phase,
        };
    }

    /// True once the end has been ordered.
    pub fn is_ordered(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Nothing is in flight any more.
    pub fn finish(&mut self, now: Duration) {
        self.phase = Phase::Finished(now + BARRIER_PATIENCE);
    }

    /// When the end has to be looked after.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ordered(at) | Phase::Finished(at) => Some(at),
            Phase::Running | Phase::Aborted | Phase::Over => None,
        }
    }

    /// A deadline is reached, perhaps one of these.
    pub fn deadline(&mut self, now: Duration) -> Due {
        match self.phase {
            Phase::Ordered(at) if at <= now => {
                self.phase = Phase::Aborted;
                Due::Abort
            }
            Phase::Finished(at) if at <= now => {
                // The next start delivers again what is not acknowledged.
                self.phase = Phase::Over;
                Due::Nothing
            }
            _ => Due::Nothing,
        }
    }

    /// True when the mirror may end; `is_acknowledged`: no delivery waits for its acknowledgement.
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
