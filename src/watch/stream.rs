//! Detects a stream of changes. During a stream the reader pauses between reads, so that events collect.
//! Reads neither the queue nor the clock.

use std::time::Duration;

/// Events that arrive within this time follow closely.
const CLOSE: Duration = Duration::from_millis(2);

/// Reads in a row, each closely after the last, that make a stream. A few changes are none, and are not delayed.
const READS: u32 = 8;

/// The pause between reads in a stream. Each read wakes three threads for some 20 µs each. In a stream, batches leave
/// only some ten times a second anyway.
const REST: Duration = Duration::from_millis(2);

/// How closely the last reads followed each other.
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
