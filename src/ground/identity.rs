//! Identifies a directory independently of its path, so that a replacement can be detected.
//! Does not decide what a replacement means.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, fstatfs, statfs, statx};

/// overlayfs gives a directory another birth time at the first write into it.
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

/// Identifies a directory while the machine runs. The birth time distinguishes a reused inode number from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Zero if the file system keeps no stable birth time.
    born: (i64, u32),
}

impl Identity {
    /// The identity of what `path` leads to now. Opens nothing, so that a shortage of file descriptors does not look like a loss.
    ///
    /// # Errors
    /// When there is nothing, or the kernel does not tell.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = statx(CWD, path, AtFlags::empty(), wanted())?;
        Ok(Self::new(&stat, statfs(path)?.f_type))
    }

    /// The identity of the open directory.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of_open(dir: impl AsFd) -> io::Result<Self> {
        let stat = statx(&dir, c"", AtFlags::EMPTY_PATH, wanted())?;
        Ok(Self::new(&stat, fstatfs(&dir)?.f_type))
    }

    /// An identity that differs from this one and from that of every directory.
    pub fn of_no_directory(self) -> Self {
        Self { inode: 0, ..self }
    }

    fn new(stat: &Statx, filesystem: i64) -> Self {
        let born = match filesystem {
            OVERLAYFS_SUPER_MAGIC => (0, 0),
            _ => (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        };
        Self { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino, born }
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_the_same_under_another_name_and_another_one_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        let first = Identity::of(&one).unwrap();
        std::fs::rename(&one, &two).unwrap();
        std::fs::write(two.join("file"), "").unwrap();
        assert_eq!(Identity::of(&two).unwrap(), first);
        assert_eq!(Identity::of_open(std::fs::File::open(&two).unwrap()).unwrap(), first);
        std::fs::create_dir(&one).unwrap();
        assert_ne!(Identity::of(&one).unwrap(), first);
        assert_ne!(first.of_no_directory(), first);
    }
}
