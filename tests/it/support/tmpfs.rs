//! A small file system for a test, to be filled or unmounted.
//! Needs the right to mount; without it, a test reports that and is skipped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::skipped;

/// A mounted tmpfs; unmounted when dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one at the directory `at`; `None` (and a line that reports it) if that is not allowed.
    pub fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        match mount("none", at, "tmpfs", MountFlags::empty(), data.as_c_str()) {
            Ok(()) => Some(Self(at.into())),
            Err(error) => {
                skipped(format!("cannot mount: {error}"));
                None
            }
        }
    }

    /// Bind-mounts the directory `from` at `at`; `None` if that is not allowed.
    pub fn bind(from: &Path, at: &Path) -> Option<Self> {
        match rustix::mount::mount_bind(from, at) {
            Ok(()) => Some(Self(at.into())),
            Err(error) => {
                skipped(format!("cannot mount: {error}"));
                None
            }
        }
    }

    /// Allows no changes on it, or allows them again.
    pub fn make_read_only(&self, is: bool) {
        let flags = if is { MountFlags::RDONLY } else { MountFlags::empty() };
        rustix::mount::mount_remount(&self.0, flags, "").unwrap();
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        let data = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), data.as_c_str()).unwrap();
    }

    /// Fills all free space.
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while ballast.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Frees the space again.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join(".ballast")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
