//! Stamps of files that were sent while they were fresh. A later write may have the same size and time, and rsync's quick
//! check would skip it. Does not look at the disk.

use std::time::Duration;

use crate::ground::generations::Generations;
use crate::path::RelPath;

/// Entries of a generation; two generations are kept, some 10 MB at the most.
const GENERATION: usize = 50_000;

/// What rsync compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Modification time since the epoch.
    pub modified: Duration,
    /// Length in bytes.
    pub size: u64,
}

/// How finely the receiver compares times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// `--modify-window=-1`: rsync 3.1.3 and later.
    Nanoseconds,
    /// Whole seconds.
    Seconds,
}

/// Stamps of recently sent files of one remote.
///
/// Invariant: a path whose copy may have the stamp of an older content is remembered.
#[derive(Debug, Default)]
pub struct FreshStamps(Generations<RelPath, Stamp, GENERATION>);

impl FreshStamps {
    /// True when the copy of `path` may have this stamp and other content: rsync must not trust it.
    pub fn hides(&self, path: &RelPath, stamp: Stamp, granularity: Granularity) -> bool {
        let known = self.0.get(path);
        known.is_some_and(|known| same(*known, stamp, granularity))
    }

    /// Notes that `path` is about to be sent with this stamp. `now` is [`coarse_now`], read after the file was looked at.
    pub fn note(&mut self, path: &RelPath, stamp: Stamp, now: Duration, granularity: Granularity) {
        if is_fresh(stamp, now, granularity) {
            self.0.insert(path.clone(), stamp);
        } else {
            self.0.remove(path);
        }
    }

    /// True when something newer than this was sent, or was about to be.
    pub fn has_newer(&self, path: &RelPath, stamp: Stamp) -> bool {
        let known = self.0.get(path);
        known.is_some_and(|known| known.modified > stamp.modified)
    }

    /// The remembered paths below `old`, renamed to be below `new`.
    pub fn moved_along(&self, old: &RelPath, new: &RelPath) -> Vec<RelPath> {
        let known = self.0.keys();
        if old.is_root() {
            return known.cloned().collect();
        }
        let below = known.filter_map(|path| path.as_bytes().strip_prefix(old.as_bytes()));
        let below = below.filter(|rest| rest.starts_with(b"/"));
        below.filter_map(|rest| RelPath::new(&[new.as_bytes(), rest].concat())).collect()
    }
}

fn same(a: Stamp, b: Stamp, granularity: Granularity) -> bool {
    let times = match granularity {
        Granularity::Nanoseconds => a.modified == b.modified,
        Granularity::Seconds => a.modified.as_secs() == b.modified.as_secs(),
    };
    times && a.size == b.size
}

/// True while another write could get the same stamp. With nanoseconds that is within one tick only: a stamp ahead of the
/// coarse clock comes from Linux 6.13 or later, which never gives one twice to somebody who has looked.
fn is_fresh(stamp: Stamp, now: Duration, granularity: Granularity) -> bool {
    match granularity {
        Granularity::Nanoseconds => now == stamp.modified,
        Granularity::Seconds => now.as_secs() <= stamp.modified.as_secs(),
    }
}

/// The time of day since the epoch by the clock that stamps files; it advances by the tick.
pub fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn stamp(ms: u64, size: u64) -> Stamp {
        Stamp { modified: Duration::from_millis(ms), size }
    }

    /// Sends a file once; true when rsync must not trust its stamp.
    fn is_hidden(
        fresh: &mut FreshStamps,
        name: &str,
        stamp: Stamp,
        now: Duration,
        granularity: Granularity,
    ) -> bool {
        let hidden = fresh.hides(&path(name), stamp, granularity);
        fresh.note(&path(name), stamp, now, granularity);
        hidden
    }

    #[test]
    fn a_rewrite_within_the_second_is_forced_for_an_old_receiver() {
        let mut fresh = FreshStamps::default();
        let now = Duration::from_millis(1_100_010);
        assert!(!is_hidden(&mut fresh, "f", stamp(1_100_000, 4), now, Granularity::Seconds));
        assert!(is_hidden(&mut fresh, "f", stamp(1_100_500, 4), now, Granularity::Seconds));
        assert!(!is_hidden(&mut fresh, "f", stamp(1_100_700, 5), now, Granularity::Seconds));
        assert!(!is_hidden(&mut fresh, "g", stamp(1_100_700, 5), now, Granularity::Seconds));
    }

    #[test]
    fn a_rewrite_within_the_tick_is_forced_for_a_new_receiver() {
        let mut fresh = FreshStamps::default();
        let now = Duration::from_millis(1_000);
        assert!(!is_hidden(&mut fresh, "f", stamp(1_000, 4), now, Granularity::Nanoseconds));
        assert!(is_hidden(&mut fresh, "f", stamp(1_000, 4), now, Granularity::Nanoseconds));
        assert!(!is_hidden(&mut fresh, "f", stamp(1_004, 4), now, Granularity::Nanoseconds));
    }

    #[test]
    fn a_stamp_that_was_old_when_it_was_sent_is_trusted() {
        let mut fresh = FreshStamps::default();
        let now = Duration::from_secs(5_000);
        for _ in 0..2 {
            assert!(!is_hidden(&mut fresh, "f", stamp(1_000, 4), now, Granularity::Seconds));
        }
    }

    #[test]
    fn an_echo_between_two_mirrors_dies_down() {
        let mut fresh = FreshStamps::default();
        let written = stamp(1_000, 4);
        let at = |ms| Duration::from_millis(ms);
        assert!(!is_hidden(&mut fresh, "f", written, at(1_000), Granularity::Nanoseconds));
        assert!(is_hidden(&mut fresh, "f", written, at(1_004), Granularity::Nanoseconds));
        assert!(!is_hidden(&mut fresh, "f", written, at(1_008), Granularity::Nanoseconds));
    }
}
