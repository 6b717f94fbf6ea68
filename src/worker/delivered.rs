//! The versions that a remote received lately: a later hint about the same version needs no run.
//! Forgets a version when in doubt. Without this memory, a late second run for one write could overwrite a mutual mirror's
//! newer content, because rsync's `--update` compares whole seconds.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::fresh::{Stamp, is_coarse_and_new};
use crate::ground::generations::Generations;
use crate::path::RelPath;

/// Entries per generation; two generations are kept. This fills a hash table with 8,192 slots, 200 KB.
const GENERATION: usize = 7_000;

/// One state of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Size and modification time.
    pub stamp: Stamp,
    /// When the file was last changed in any way, since the epoch.
    pub changed: Duration,
    /// Inode number.
    pub inode: u64,
}

impl Version {
    /// True when every later change gives the file another version. `now` is the kernel's coarse clock, read after the file's stamp.
    /// The kernel may give a stamp equal to `now` again, but never an older one. A stamp ahead of `now` comes from a newer kernel,
    /// which never gives a stamp again after it was read.
    pub fn is_settled(&self, now: Duration) -> bool {
        self.changed != now && self.stamp.modified != now && !is_coarse_and_new(self.changed, now)
    }
}

/// The latest deliveries to one remote. Paths and versions are kept as hashes with a secret key: 25 bytes each.
#[derive(Debug, Default)]
pub struct Delivered {
    hasher: RandomState,
    latest: Generations<u64, Entry, GENERATION>,
}

/// What was delivered under one name.
#[derive(Debug, Clone, Copy)]
struct Entry {
    version: u64,
    modified_ns: u64,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Delivered {
    /// True when exactly this version was delivered.
    pub fn has(&self, path: &RelPath, version: &Version) -> bool {
        self.get(path).is_some_and(|entry| entry.version == self.hasher.hash_one(version))
    }

    /// True when a newer version than this was delivered under this name.
    pub fn has_newer(&self, path: &RelPath, version: &Version) -> bool {
        let modified_ns = nanoseconds(version.stamp.modified);
        self.get(path).is_some_and(|entry| entry.modified_ns > modified_ns)
    }

    /// Notes a delivery; `version` was on disk before the run, and was settled ([`Version::is_settled`]).
    pub fn note(&mut self, path: &RelPath, version: Version) {
        let modified_ns = nanoseconds(version.stamp.modified);
        let entry = Entry { version: self.hasher.hash_one(version), modified_ns };
        self.latest.insert(self.hasher.hash_one(path), entry);
    }

    /// Forgets what was delivered under this name.
    pub fn forget(&mut self, path: &RelPath) {
        self.latest.remove(&self.hasher.hash_one(path));
    }

    /// Keeps only the latest deliveries. Called when nothing has happened for a while.
    pub fn rest(&mut self) {
        self.latest.forget_old();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.latest.get(&self.hasher.hash_one(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ms: u64) -> Version {
        let modified = Duration::from_millis(ms);
        Version { stamp: Stamp { modified, size: 1 }, changed: modified, inode: 1 }
    }

    #[test]
    fn only_the_very_same_version_counts_until_everything_is_forgotten() {
        let path = RelPath::new(b"f").unwrap();
        let mut delivered = Delivered::default();
        delivered.note(&path, version(1));
        assert!(delivered.has(&path, &version(1)));
        assert!(!delivered.has(&path, &version(2)));
        assert!(!delivered.has(&path, &Version { inode: 2, ..version(1) }));
        delivered.clear();
        assert!(!delivered.has(&path, &version(1)));
    }

    #[test]
    fn a_stamp_of_this_very_tick_is_not_settled() {
        assert!(!version(5).is_settled(Duration::from_millis(5)));
        assert!(version(4).is_settled(Duration::from_millis(5)));
        assert!(version(6).is_settled(Duration::from_millis(5)));
    }
}
