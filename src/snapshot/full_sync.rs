//! A full sync under way, and the words that tell it: the same in the status, on a terminal and in the log.
//! Counts nothing itself.

use serde::{Deserialize, Serialize};

use crate::ground::counted::counted;
use crate::ground::figures::{bytes, duration};

/// A full sync under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FullSync {
    /// When it began.
    pub since_ms: u64,
    /// Parts of the tree that are compared already.
    pub parts_done: u64,
    /// All parts, as far as they are known.
    pub parts: u64,
    /// Files in the parts that are compared already.
    pub files: u64,
    /// Bytes that rsync has sent so far, as the kernel counts them; those of the runs under way included.
    pub bytes: u64,
    /// How many bytes a second it sends at present.
    #[serde(default)]
    pub bytes_per_second: f64,
    /// When it will be done, if it goes on like this; `None`: nobody can tell yet.
    pub done_at_ms: Option<u64>,
}

impl FullSync {
    /// How far it has come at `now_ms`.
    pub fn words(&self, now_ms: u64) -> String {
        let files = counted(self.files, "file", "files");
        let (sent, rate) = (bytes(self.bytes as f64), bytes(self.bytes_per_second));
        let mut words = format!("{files} compared, {sent} sent, {rate}/s");
        if self.parts > 1 {
            words += &format!(", {} of {} parts", self.parts_done, self.parts);
        }
        if let Some(done_at) = self.done_at_ms {
            let left = duration(done_at.saturating_sub(now_ms) / 1000);
            words += &format!(", about {left} left");
        }
        words
    }

    /// The same for a narrow line, where a bar stands for the parts.
    pub fn short_words(&self, now_ms: u64) -> String {
        let files = counted(self.files, "file", "files");
        let (sent, rate) = (bytes(self.bytes as f64), bytes(self.bytes_per_second));
        let left = |at: u64| format!(", {} left", duration(at.saturating_sub(now_ms) / 1000));
        format!("{files}, {sent}, {rate}/s{}", self.done_at_ms.map_or_else(String::new, left))
    }

    /// Both of them together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            since_ms: self.since_ms.min(other.since_ms),
            parts_done: self.parts_done + other.parts_done,
            parts: self.parts + other.parts,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
            bytes_per_second: self.bytes_per_second + other.bytes_per_second,
            // The later one of two that are known.
            done_at_ms: self.done_at_ms.zip(other.done_at_ms).map(|(a, b)| a.max(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_bytes_rate_parts_and_the_rest_of_the_time_are_told() {
        let mut sync = FullSync {
            parts_done: 8,
            parts: 64,
            files: 12_345,
            bytes: 1_200_000_000,
            bytes_per_second: 34e6,
            done_at_ms: Some(190_000),
            ..FullSync::default()
        };
        let words = "12345 files compared, 1.2 GB sent, 34 MB/s, 8 of 64 parts, about 3 min left";
        assert_eq!(sync.words(10_000), words);
        assert_eq!(sync.short_words(10_000), "12345 files, 1.2 GB, 34 MB/s, 3 min left");
        sync = FullSync { files: 1, parts: 1, done_at_ms: None, ..FullSync::default() };
        assert_eq!(sync.words(10_000), "1 file compared, 0 B sent, 0 B/s");
    }

    #[test]
    fn the_end_of_several_is_known_when_all_are_known() {
        let one = FullSync { bytes: 3, done_at_ms: Some(5), ..FullSync::default() };
        let other = FullSync { bytes: 4, done_at_ms: Some(9), ..FullSync::default() };
        assert_eq!((one.and(&other).bytes, one.and(&other).done_at_ms), (7, Some(9)));
        assert_eq!(one.and(&FullSync::default()).done_at_ms, None);
    }
}
