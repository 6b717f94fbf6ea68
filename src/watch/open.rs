//! Opens directories and files below a watch root, however long their path is.
//! Never follows a symbolic link below the root, and keeps no directory open.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, statat};
use rustix::io::Errno;

use crate::path::RelPath;

/// The longest path that the kernel takes in one piece, with its NUL.
const PATH_MAX: usize = 4096;

/// The absolute path of `path`, in one piece if that is short enough for a system call.
pub fn short_path(root: &Path, path: &RelPath) -> Option<Vec<u8>> {
    let root = root.as_os_str().as_bytes();
    let mut bytes = Vec::with_capacity(root.len() + 1 + path.as_bytes().len() + 1);
    bytes.extend_from_slice(root);
    if !path.is_root() {
        bytes.push(b'/');
        bytes.extend_from_slice(path.as_bytes());
    }
    (bytes.len() < PATH_MAX).then_some(bytes)
}

/// A short path that leads to an open file.
pub fn path_of_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens the directory `path` below `root` for reading. The root itself may be a symbolic link, but nothing below it.
pub fn open_dir(root: &Path, path: &RelPath) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if path.is_root() {
        return Ok(openat(CWD, root, flags, Mode::empty())?);
    }
    if let Some(short) = short_path(root, path) {
        return Ok(openat(CWD, short, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    let mut at = openat(CWD, root, flags, Mode::empty())?;
    for name in path.components() {
        at = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(at)
}

/// Opens a regular file below `root` for reading.
pub fn open_file(root: &Path, path: &RelPath) -> io::Result<OwnedFd> {
    // Opening a pipe or a device would have side effects.
    if !FileType::from_raw_mode(stat(root, path)?.st_mode).is_file() {
        return Err(Errno::INVAL.into());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    if let Some(short) = short_path(root, path) {
        return Ok(openat(CWD, short, flags, Mode::empty())?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
        return Err(Errno::NAMETOOLONG.into());
    };
    Ok(openat(open_dir(root, &parent)?, name, flags, Mode::empty())?)
}

/// The stat of `path` below `root`, of a symbolic link itself.
pub fn stat(root: &Path, path: &RelPath) -> io::Result<Stat> {
    if let Some(short) = short_path(root, path) {
        return Ok(statat(CWD, short, AtFlags::SYMLINK_NOFOLLOW)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
        return Err(Errno::NAMETOOLONG.into());
    };
    let parent = open_dir(root, &parent)?;
    Ok(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The device of the open directory, if its file system counts subdirectories in `st_nlink`. Some (btrfs, overlayfs,
/// many network file systems) do not.
pub fn counting_device(dir: &OwnedFd) -> Option<u64> {
    let kind = fstatfs(dir).ok()?.f_type;
    let counts = matches!(kind, libc::EXT4_SUPER_MAGIC | libc::XFS_SUPER_MAGIC | libc::TMPFS_MAGIC);
    Some(fstat(dir).ok()?.st_dev).filter(|_| counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_links_are_trusted_each_directory_is_one() {
        let dir = tempfile::TempDir::new().unwrap();
        let opened = || open_dir(dir.path(), &RelPath::root()).unwrap();
        if counting_device(&opened()).is_some() {
            for count in 0..3 {
                assert_eq!(fstat(opened()).unwrap().st_nlink, 2 + count);
                std::fs::write(dir.path().join(format!("file{count}")), "").unwrap();
                std::fs::create_dir(dir.path().join(format!("dir{count}"))).unwrap();
            }
        }
        let proc = open_dir(Path::new("/proc"), &RelPath::root()).unwrap();
        assert_eq!(counting_device(&proc), None);
    }
}
