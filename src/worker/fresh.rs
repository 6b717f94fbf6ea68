//! Remembers the stamps of files that were sent just after a write. A later write could get the same size and time, and rsync's
//! quick check would skip it. Does not look at the disk.

use std::time::Duration;

use crate::change::Scope;
use crate::ground::generations::Generations;
use crate::path::RelPath;

/// Entries per generation; two generations are kept, at most some 10 MB.
const GENERATION: usize = 50_000;

/// Directories per generation.
const DIRECTORIES: usize = 5_000;

/// What rsync's quick check compares.
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
pub struct FreshStamps {
    files: Generations<RelPath, Stamp, GENERATION>,
    directories: Generations<RelPath, Sent, DIRECTORIES>,
}

/// When a directory was sent to a receiver that compares whole seconds. Which of its files were fresh is not known.
#[derive(Debug, Clone, Copy)]
struct Sent {
    scope: Scope,
    began: Duration,
    ended: Duration,
}

impl Sent {
    /// True when the run may have read the file before a later write gave it the same stamp.
    fn may_hide(self, stamp: Stamp) -> bool {
        let modified = stamp.modified.as_secs();
        self.began.as_secs() <= modified && modified <= self.ended.as_secs()
    }
}

impl FreshStamps {
    /// True when the copy of `path` may have this stamp but other content, so that rsync must not trust it.
    pub fn hides(&self, path: &RelPath, stamp: Stamp, granularity: Granularity) -> bool {
        let known = self.files.get(path);
        known.is_some_and(|known| same(*known, stamp, granularity))
            || granularity == Granularity::Seconds && self.was_sent_fresh(path, stamp)
    }

    /// Notes that directories are about to be sent to a receiver that compares whole seconds.
    pub fn begin_directories(&mut self, paths: &[RelPath], scope: Scope, now: Duration) {
        for path in paths {
            let sent = Sent { scope, began: now, ended: Duration::MAX };
            self.directories.insert(path.clone(), sent);
        }
    }

    /// Notes that the run which sent these directories has ended.
    pub fn end_directories(&mut self, paths: &[RelPath], now: Duration) {
        for path in paths {
            if let Some(sent) = self.directories.get(path).copied() {
                self.directories.insert(path.clone(), Sent { ended: now, ..sent });
            }
        }
    }

    fn was_sent_fresh(&self, path: &RelPath, stamp: Stamp) -> bool {
        if self.directories.is_empty() {
            return false;
        }
        let parent = path.parent();
        let above = std::iter::successors(parent.clone(), RelPath::parent);
        above.into_iter().any(|dir| {
            self.directories.get(&dir).is_some_and(|sent| {
                sent.may_hide(stamp) && (sent.scope == Scope::Tree || Some(&dir) == parent.as_ref())
            })
        })
    }

    /// Notes that `path` is about to be sent with this stamp. `now` is [`coarse_now`], read after the file's stamp.
    /// Returns whether the stamp is fresh. If it is not, call [`FreshStamps::trust`] when the file has arrived, and not earlier: the
    /// copy keeps the older content if the run fails.
    pub fn note(
        &mut self,
        path: &RelPath,
        stamp: Stamp,
        now: Duration,
        granularity: Granularity,
    ) -> bool {
        let is_fresh = is_fresh(stamp, now, granularity);
        if is_fresh {
            self.files.insert(path.clone(), stamp);
        }
        is_fresh
    }

    /// Forgets the stamp of a path whose content has arrived with a stamp that no other content can get.
    pub fn trust(&mut self, path: &RelPath) {
        self.files.remove(path);
    }

    /// True when a newer version was sent or was about to be sent.
    pub fn has_newer(&self, path: &RelPath, stamp: Stamp) -> bool {
        let known = self.files.get(path);
        known.is_some_and(|known| known.modified > stamp.modified)
    }

    /// The remembered paths below `old`, renamed to be below `new`.
    pub fn moved_along(&self, old: &RelPath, new: &RelPath) -> Vec<RelPath> {
        let known = self.files.keys();
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

/// True while another write could get the same stamp. With nanoseconds that takes one tick of the clock. A stamp ahead of
/// the coarse clock comes from Linux 6.13 or later, which never gives a stamp again after it was read.
fn is_fresh(stamp: Stamp, now: Duration, granularity: Granularity) -> bool {
    match granularity {
        Granularity::Nanoseconds => now == stamp.modified || is_coarse_and_new(stamp.modified, now),
        Granularity::Seconds => now.as_secs() <= stamp.modified.as_secs(),
    }
}

/// True for a time without a fraction that is less than two seconds old: the file system may stamp files by whole seconds, as ext3 and
/// ext4 with small inodes do, or by every second one (vfat), and give the stamp again.
pub fn is_coarse_and_new(time: Duration, now: Duration) -> bool {
    time.subsec_nanos() == 0 && now < time + Duration::from_secs(2)
}

/// The time since the epoch, by the clock that stamps files. It advances once per tick.
pub fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    since_epoch(now.tv_sec, u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The time since 1970; zero for a time before it.
pub fn since_epoch(seconds: i64, nanoseconds: u64) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
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
        if !fresh.note(&path(name), stamp, now, granularity) {
            fresh.trust(&path(name));
        }
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
    fn a_rewrite_within_the_second_is_forced_where_files_have_stamps_of_whole_seconds() {
        let mut fresh = FreshStamps::default();
        let at = |ms| Duration::from_millis(ms);
        let of = Granularity::Nanoseconds;
        assert!(!is_hidden(&mut fresh, "f", stamp(1_000, 4), at(1_500), of));
        assert!(is_hidden(&mut fresh, "f", stamp(1_000, 4), at(1_900), of));
        assert!(is_hidden(&mut fresh, "f", stamp(1_000, 4), at(3_000), of));
        assert!(!is_hidden(&mut fresh, "f", stamp(1_000, 4), at(3_100), of));
    }

    #[test]
    fn what_hides_a_rewrite_is_remembered_until_the_rewrite_has_arrived() {
        let mut fresh = FreshStamps::default();
        let of = Granularity::Seconds;
        let at = |ms| Duration::from_millis(ms);
        assert!(fresh.note(&path("f"), stamp(1_100, 4), at(1_100), of));
        assert!(fresh.hides(&path("f"), stamp(1_600, 4), of));
        assert!(!fresh.note(&path("f"), stamp(1_600, 4), at(2_100), of));
        assert!(fresh.hides(&path("f"), stamp(1_600, 4), of), "the run may have failed");
        fresh.trust(&path("f"));
        assert!(!fresh.hides(&path("f"), stamp(1_600, 4), of));
    }

    #[test]
    fn a_rewrite_right_after_its_directory_was_sent_is_hidden_from_an_old_receiver() {
        let mut fresh = FreshStamps::default();
        let at = Duration::from_millis;
        fresh.begin_directories(&[path("tree")], Scope::Tree, at(10_500));
        fresh.begin_directories(&[path("list")], Scope::Listing, at(10_500));
        let hides = |fresh: &FreshStamps, name, ms| {
            fresh.hides(&path(name), stamp(ms, 4), Granularity::Seconds)
        };
        assert!(hides(&fresh, "tree/d/f", 99_000), "it may be under way still");
        fresh.end_directories(&[path("tree"), path("list")], at(11_200));
        for (name, ms, hidden) in [
            ("tree/d/f", 10_100, true),
            ("tree/d/f", 11_900, true),
            ("tree/d/f", 9_900, false),
            ("tree/d/f", 12_000, false),
            ("list/f", 11_000, true),
            ("list/d/f", 11_000, false),
            ("f", 11_000, false),
        ] {
            assert_eq!(hides(&fresh, name, ms), hidden, "{name} {ms}");
        }
        assert!(!fresh.hides(&path("tree/f"), stamp(10_500, 4), Granularity::Nanoseconds));
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
        let written = stamp(1_001, 4);
        let at = |ms| Duration::from_millis(ms);
        assert!(!is_hidden(&mut fresh, "f", written, at(1_001), Granularity::Nanoseconds));
        assert!(is_hidden(&mut fresh, "f", written, at(1_005), Granularity::Nanoseconds));
        assert!(!is_hidden(&mut fresh, "f", written, at(1_009), Granularity::Nanoseconds));
    }
}
