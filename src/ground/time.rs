//! The wall clock in milliseconds, for output to people and other programs.
//! Durations inside the program are measured with the monotonic clock, which cannot be set.

use std::time::{SystemTime, UNIX_EPOCH};

use super::figures::duration;

/// The wall clock, in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time from `then_ms` to `now_ms` in words; `0 s` if `then_ms` is later.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    duration(now_ms.saturating_sub(then_ms) / 1000)
}
