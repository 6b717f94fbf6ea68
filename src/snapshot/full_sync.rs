//! The progress of a full sync, and its wording, which status, terminal and log share.
//! Does not count anything itself.

use serde::{Deserialize, Serialize};

use crate::ground::counted::counted;
use crate::ground::figures::{bytes, duration};

/// A running full sync.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FullSyncStatus {
    /// When the full sync began.
    pub since_ms: u64,
    /// Shards that are already compared.
    pub parts_done: u64,
    /// All shards that are known so far.
    pub parts: u64,
    /// Files in the compared shards.
    pub files: u64,
    /// Bytes that rsync has sent so far, including running runs, from the kernel's counters.
    pub bytes: u64,
    /// Bytes per second that it sends now.
    #[serde(default)]
    pub bytes_per_second: f64,
    /// When it will end at the current speed; `None` if that is not known yet.
    pub done_at_ms: Option<u64>,
}

impl FullSyncStatus {
    /// The progress at `now_ms`, in words.
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

    /// The same for a narrow line, where a bar shows the shards.
    pub fn short_words(&self, now_ms: u64) -> String {
        let files = counted(self.files, "file", "files");
        let (sent, rate) = (bytes(self.bytes as f64), bytes(self.bytes_per_second));
        let left = |at: u64| format!(", {} left", duration(at.saturating_sub(now_ms) / 1000));
        format!("{files}, {sent}, {rate}/s{}", self.done_at_ms.map_or_else(String::new, left))
    }

    /// The sum of two full syncs.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            since_ms: self.since_ms.min(other.since_ms),
            parts_done: self.parts_done + other.parts_done,
            parts: self.parts + other.parts,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
            bytes_per_second: self.bytes_per_second + other.bytes_per_second,
            // The later time, if both are known.
            done_at_ms: self.done_at_ms.zip(other.done_at_ms).map(|(a, b)| a.max(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_bytes_rate_parts_and_the_rest_of_the_time_are_told() {
        let mut sync = FullSyncStatus {
            parts_done: 8,
            parts: 64,
            files: 12_345,
            bytes: 1_200_000_000,
            bytes_per_second: 34e6,
            done_at_ms: Some(190_000),
            ..FullSyncStatus::default()
        };
        let words = "12345 files compared, 1.2 GB sent, 34 MB/s, 8 of 64 parts, about 3 min left";
        assert_eq!(sync.words(10_000), words);
        assert_eq!(sync.short_words(10_000), "12345 files, 1.2 GB, 34 MB/s, 3 min left");
        sync = FullSyncStatus { files: 1, parts: 1, done_at_ms: None, ..FullSyncStatus::default() };
        assert_eq!(sync.words(10_000), "1 file compared, 0 B sent, 0 B/s");
    }

    #[test]
    fn the_end_of_several_is_known_when_all_are_known() {
        let one = FullSyncStatus { bytes: 3, done_at_ms: Some(5), ..FullSyncStatus::default() };
        let other = FullSyncStatus { bytes: 4, done_at_ms: Some(9), ..FullSyncStatus::default() };
        assert_eq!((one.and(&other).bytes, one.and(&other).done_at_ms), (7, Some(9)));
        assert_eq!(one.and(&FullSyncStatus::default()).done_at_ms, None);
    }
}
