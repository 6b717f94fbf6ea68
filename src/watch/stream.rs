//! Detects a stream of changes. During a stream the reader pauses between reads, so that events collect.
//! Reads neither the queue nor the clock.

use std::time::Duration;

/// Events within this time count as close together.
const CLOSE: Duration = Duration::from_millis(2);

/// This many reads in a row, each close to the last, are a stream. A few changes are not a stream, and are not delayed.
const READS: u32 = 8;

/// The pause between reads in a stream. Each read wakes three threads for some 20 µs each. In a stream, batches are sent
/// only some ten times a second anyway.
const REST: Duration = Duration::from_millis(5);

/// How close together the last reads were.
#[derive(Debug, Default)]
pub struct Stream {
    close: u32,
}

impl Stream {
    /// Notes how long the last read waited for events.
    pub fn note(&mut self, waited: Duration) {
        self.close = if waited < CLOSE { self.close.saturating_add(1) } else { 0 };
    }

    /// The pause before the next read.
    pub fn rest(&self) -> Option<Duration> {
        (self.close >= READS).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_rests_between_reads_until_it_ends() {
        let mut stream = Stream::default();
        for _ in 1..READS {
            stream.note(Duration::ZERO);
            assert_eq!(stream.rest(), None, "a few changes are no stream");
        }
        stream.note(CLOSE / 2);
        assert_eq!(stream.rest(), Some(REST));
        stream.note(CLOSE / 2);
        assert_eq!(stream.rest(), Some(REST));
        stream.note(CLOSE);
        assert_eq!(stream.rest(), None);
    }
}
