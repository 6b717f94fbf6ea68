//! Whether changes come in a stream: then the kernel's queue is left alone between two reads, so that they collect.
//! Reads neither the queue nor the clock.

use std::time::Duration;

/// An event that has not to be waited for longer than this follows closely.
const CLOSE: Duration = Duration::from_millis(2);

/// So many reads in a row, each closely after the one before, are a stream. A few changes are not: nothing makes them wait.
const READS: u32 = 8;

/// How long the queue is left alone in a stream. Every read wakes three threads in turn, at some 20 µs each, and takes them from whoever
/// makes the changes; in a stream they leave all together some ten times a second anyway.
const REST: Duration = Duration::from_millis(2);

/// How the last reads came about.
#[derive(Debug, Default)]
pub struct Stream {
    close: u32,
}

impl Stream {
    /// Notes how long the events of a read were waited for.
    pub fn note(&mut self, waited: Duration) {
        self.close = if waited < CLOSE { self.close.saturating_add(1) } else { 0 };
    }

    /// How long to leave the queue alone now.
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
