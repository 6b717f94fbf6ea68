//! Adds watches to whole trees, on several threads.
//! Reads no events.

use std::os::fd::BorrowedFd;

use rayon::prelude::*;
use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::ground::directory::list;
use crate::watch::open::counting_device;
use crate::watch::scan::scan_pool;

/// The link count of a directory without subdirectories: its name, and its own `.`.
const LINKS_OF_A_LEAF: u64 = 2;

/// A watch that was added.
#[derive(Debug)]
pub struct AddedWatch {
    /// Its number.
    pub wd: i32,
    /// The watched file or directory; a directory ends with a slash.
    pub name: Vec<u8>,
    /// An entry may have been created after the directory was listed and before it was watched.
    pub is_unsure: bool,
}

/// What a walk needs to know.
#[derive(Clone, Copy)]
pub struct WatchWalk<'a> {
    /// The inotify instance that gets the events.
    pub inotify: BorrowedFd<'a>,
    /// The events to watch for: `IN_*` bits.
    pub mask: u32,
    /// Directories to skip, spelled as the walk spells them.
    pub excluded: &'a [Vec<u8>],
}

impl WatchWalk<'_> {
    /// Watches one file or directory.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add(&self, path: &[u8]) -> Result<AddedWatch, Errno> {
        let wd = add_watch(self.inotify, path, WatchFlags::from_bits_retain(self.mask))?;
        let mut name = path.to_vec();
        if is_directory(path) && !path.ends_with(b"/") {
            name.push(b'/');
        }
        Ok(AddedWatch { wd, name, is_unsure: false })
    }

    /// Watches a file, or a directory with everything below it. The result lists children before their parents.
    ///
    /// # Errors
    /// When the directory cannot be watched, or when watches run out. Directories below it that vanish or cannot be
    /// read are skipped.
    pub fn add_tree(&self, path: &[u8]) -> Result<Vec<AddedWatch>, Errno> {
        let root = match open_directory(path) {
            Err(Errno::NOTDIR) => return Ok(vec![self.add(path)?]),
            opened => opened?,
        };
        let counting = counting_device(&root);
        drop(root);
        let path = with_slash(path);
        match scan_pool() {
            Ok(pool) => pool.install(|| self.visit(&path, counting)),
            Err(_) => self.visit(&path, counting),
        }
    }

    /// Watches a directory's content before the directory itself: otherwise, listing the content would cause events.
    fn visit(&self, path: &[u8], counting: Option<u64>) -> Result<Vec<AddedWatch>, Errno> {
        if is_leaf(path, counting) {
            let found = self.add(path)?;
            // No event reports a directory that was created before the watch was added, so look again.
            if is_leaf(path, counting) {
                return Ok(vec![found]);
            }
        }
        let listed_at = now();
        let children = self.children(path)?;
        let below: Vec<_> = children.par_iter().map(|child| self.visit(child, counting)).collect();
        let mut all = Vec::new();
        for found in below {
            match found {
                Ok(found) => all.extend(found),
                Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        let found = self.add(path)?;
        let is_unsure = changed_at(path)? >= listed_at;
        all.push(AddedWatch { is_unsure, ..found });
        Ok(all)
    }

    /// The subdirectories that are not excluded.
    pub fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut children = Vec::new();
        let listed = list(open_directory(path)?, |name, is_dir| {
            if is_dir {
                let child = [path, name, b"/"].concat();
                if !self.is_excluded(&child) {
                    children.push(child);
                }
            }
        });
        match listed.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
            Ok(()) => Ok(children),
            Err(errno) => Err(errno),
        }
    }

    /// True when the directory, whose path ends with a slash, is excluded.
    pub fn is_excluded(&self, directory: &[u8]) -> bool {
        let bare = directory.strip_suffix(b"/").unwrap_or(directory);
        self.excluded.iter().any(|excluded| excluded.strip_suffix(b"/").unwrap_or(excluded) == bare)
    }
}

/// Opens a directory for listing.
pub fn open_directory(path: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(CWD, path, flags, Mode::empty())
}

/// True when the path is a directory; a symbolic link to one is not.
pub fn is_directory(path: &[u8]) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The path with a trailing slash.
pub fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

fn stat(path: &[u8]) -> Result<Stat, Errno> {
    statat(CWD, path, AtFlags::empty())
}

fn is_leaf(path: &[u8], counting: Option<u64>) -> bool {
    counting.is_some_and(|device| {
        stat(path).is_ok_and(|found| found.st_dev == device && found.st_nlink == LINKS_OF_A_LEAF)
    })
}

/// When the directory's content last changed, in nanoseconds.
fn changed_at(path: &[u8]) -> Result<i128, Errno> {
    let found = stat(path)?;
    Ok(i128::from(found.st_ctime) * 1_000_000_000 + i128::from(found.st_ctime_nsec))
}

/// The time of the clock that the kernel uses for file times.
fn now() -> i128 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}
