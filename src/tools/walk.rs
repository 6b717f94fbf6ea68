//! Sets up the watches of whole trees, on several threads.
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

/// Links of a directory that holds none: its name and its own `.`.
const LINKS_OF_A_LEAF: u64 = 2;

/// A watch that stands.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub wd: i32,
    /// The watched file or directory; a directory ends with a slash.
    pub name: Vec<u8>,
    /// Something may have been made in the directory after it was listed and before it was watched.
    pub is_unsure: bool,
}

/// What a walk needs to know.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// Who gets the events.
    pub inotify: BorrowedFd<'a>,
    /// Which events: `IN_*` bits.
    pub mask: u32,
    /// Directories that are left out, spelled as the walk spells them.
    pub excluded: &'a [Vec<u8>],
}

impl Walk<'_> {
    /// Watches one file or directory, as it is named.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, path: &[u8]) -> Result<Found, Errno> {
        let wd = add_watch(self.inotify, path, WatchFlags::from_bits_retain(self.mask))?;
        let mut name = path.to_vec();
        if is_directory(path) && !path.ends_with(b"/") {
            name.push(b'/');
        }
        Ok(Found { wd, name, is_unsure: false })
    }

    /// Watches the directory and all below it; a file is watched alone. What is below comes first.
    ///
    /// # Errors
    /// When the directory cannot be watched, or when watches run out. Directories below it that vanish or may not be
    /// read are left out.
    pub fn add_tree(&self, path: &[u8]) -> Result<Vec<Found>, Errno> {
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

    /// Below directories that are watched only when what is in them is: to add a watch is no event there.
    fn visit(&self, path: &[u8], counting: Option<u64>) -> Result<Vec<Found>, Errno> {
        if is_leaf(path, counting) {
            let found = self.add(path)?;
            // A directory that was made in between is told by no event: look again.
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
        all.push(Found { is_unsure, ..found });
        Ok(all)
    }

    /// The directories in the directory that are not left out.
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

    /// True when the directory, which ends with a slash, is left out.
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

/// True when a directory is there, and no symbolic link to one.
pub fn is_directory(path: &[u8]) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The path, with a slash at its end.
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

/// The time by the clock that stamps files.
fn now() -> i128 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}
