//! How a large tree is divided into parts that can be compared by several runs at once.
//! Lists directories; does not know which jobs are in flight.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstatvfs, openat, statat};
use rustix::io::Errno;

use crate::directory::{as_path, count, entries};
use crate::path::RelPath;
use crate::watch::Exclude;

/// A tree with more entries than this is divided into shards.
const SMALL_TREE: u64 = 2_000;
/// A tree is divided into at least so many shards, if it has enough directories near its top.
const SHARDS: usize = 32;
/// How many levels down shards are looked for.
const SHARD_DEPTH: usize = 6;

/// The longest list, in entries, that rsync may hold in memory on both sides: at most 100 MB, usually an eighth of that.
const SHORT_LIST: u64 = 1_000_000;

/// How far a tree may be divided into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharding {
    /// Not at all: with `-H`, hard links may cross shards.
    Off,
    /// At the top only: rsync would match patterns against a deeper source's own name, not against its parents' names.
    Top,
    /// As far as it helps.
    On,
}

/// A tree in parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Divided {
    /// Directories above the shards, parents first: their listings are made equal before the shards.
    pub listings: Vec<RelPath>,
    /// Trees that can be compared in any order and at the same time.
    pub shards: Vec<RelPath>,
}

/// What decides how a tree is divided.
#[derive(Clone, Copy)]
pub struct Shards<'a> {
    /// The open watch root.
    pub root: &'a OwnedFd,
    /// How far it may be divided.
    pub sharding: Sharding,
    /// What is not mirrored.
    pub exclude: &'a Exclude,
}

impl Shards<'_> {
    /// The directories in `path` that are mirrored.
    fn directories(&self, path: &RelPath) -> io::Result<Vec<RelPath>> {
        let mut entries = entries(self.root, path)?;
        entries.retain(|(path, is_dir)| *is_dir && !(self.exclude)(path, true));
        Ok(entries.into_iter().map(|(path, _)| path).collect())
    }

    /// True for a tree that is too small to be divided.
    pub fn is_small(&self, path: &RelPath) -> bool {
        count(self.root, path, &**self.exclude, SMALL_TREE + 1) <= SMALL_TREE
    }

    /// Divides a tree into directories near its top and trees below them. A directory that cannot be read stays whole.
    pub fn divide(&self, path: &RelPath) -> Divided {
        let (mut divided, mut level) = (Divided::default(), vec![path.clone()]);
        let depth = if self.sharding == Sharding::Top { 1 } else { SHARD_DEPTH };
        for _ in 0..depth {
            let mut below = Vec::new();
            for path in level {
                match self.directories(&path) {
                    Ok(directories) => {
                        below.extend(directories);
                        divided.listings.push(path);
                    }
                    // rsync reads it, or reports why not.
                    Err(_) => divided.shards.push(path),
                }
            }
            level = below;
            if level.len() >= SHARDS || level.is_empty() {
                break;
            }
        }
        divided.shards.append(&mut level);
        divided
    }
}

/// The stat of `path` below `root`, of a link itself.
///
/// # Errors
/// The kernel's.
pub fn stat(root: &OwnedFd, path: &RelPath) -> Result<Stat, Errno> {
    statat(root, as_path(path), AtFlags::SYMLINK_NOFOLLOW)
}

/// True for a tree that cannot have many entries, because its file system has few. Some file systems do not report how many
/// they have; then it is false.
pub fn is_short(root: &OwnedFd, path: &RelPath) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(root, as_path(path), flags, Mode::empty());
    let stat = directory.and_then(fstatvfs).ok().filter(|stat| stat.f_files > 0);
    stat.is_some_and(|stat| stat.f_files.saturating_sub(stat.f_ffree) <= SHORT_LIST)
}

/// True for a directory's stat.
pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_read_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let exclude: Exclude = std::sync::Arc::new(|_: &RelPath, _| false);
        let shards = Shards { root: &root, sharding: Sharding::Top, exclude: &exclude };
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let divided = Divided { listings: vec![path("a")], shards: vec![path("a/b")] };
        assert_eq!(shards.divide(&path("a")), divided);
        // Its entries are unknown, so it must not count as delivered when only its names were sent.
        let whole = Divided { listings: vec![], shards: vec![path("unreadable")] };
        assert_eq!(shards.divide(&path("unreadable")), whole);
    }
}
