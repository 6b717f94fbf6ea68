//! Where below our roots a directory is that an event names by handle: the file systems that the roots show.
//! Remembers no directory; keeps none open longer than asked, as that would keep file systems from being unmounted.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, fstatvfs, openat, stat};
use rustix::io::Errno;

use crate::change::{Place, RootId};
use crate::path::RelPath;
use crate::sys::fanotify::{mark_filesystem, open_dir as open_by_handle};
use crate::watch::desk::Desk;
use crate::watch::mounts::Mounts;
use crate::watch::open::{open_dir, path_of_fd};

/// A directory below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Below which root.
    pub root: RootId,
    /// The directory, or when that is too long a path, one above it.
    pub path: RelPath,
    /// False when it is one above it.
    pub is_exact: bool,
}

/// A file system as it is seen below a root: at the root itself, or at a mount point.
struct View {
    root: RootId,
    path: RelPath,
    real_path: PathBuf,
    filesystem: [u8; 8],
    /// The directory at `real_path`, while it is asked for often.
    mount: Option<OwnedFd>,
}

/// All views of all roots.
#[derive(Default)]
pub struct Views(Vec<View>);

impl Views {
    /// Looks at the roots and mounts as they are now, and marks their file systems. Returns what cannot be marked.
    pub fn renew(
        &mut self,
        desk: &Desk,
        group: BorrowedFd<'_>,
        mask: u64,
    ) -> Vec<(Place, io::Error)> {
        self.0.clear();
        let mounts = Mounts::read().unwrap_or_default();
        let mut failed = Vec::new();
        for root in desk.roots.list().iter().filter(|root| root.is_there()) {
            let Ok(real_path) = root.path.canonicalize() else {
                continue;
            };
            let below = mounts.below(&real_path).into_keys();
            for path in std::iter::once(RelPath::root()).chain(below) {
                if desk.batch.is_within_excluded(root.id, &path) {
                    continue;
                }
                let real_path = path.below(&real_path);
                match mark(group, &real_path, mask) {
                    Ok(filesystem) => {
                        let root = root.id;
                        self.0.push(View { root, path, real_path, filesystem, mount: None });
                    }
                    Err(error) => failed.push(((root.id, path), error)),
                }
            }
        }
        failed
    }

    /// Ends the views at and below the place.
    pub fn forget(&mut self, (root, path): &Place) {
        self.0.retain(|view| view.root != *root || !view.path.is_within(path));
    }

    /// Where the directory is below our roots at this moment: nowhere, somewhere, or with bind mounts at several
    /// places. What is excluded is nowhere.
    pub fn sight(&mut self, desk: &Desk, dir: &[u8]) -> Vec<Sighting> {
        let views = self.0.iter_mut().filter(|view| dir.starts_with(&view.filesystem));
        let seen = views.filter_map(|view| view.sight(dir));
        seen.filter(|seen| !desk.batch.is_within_excluded(seen.root, &seen.path)).collect()
    }

    /// The directory, opened as a mere place, on a file system that we show.
    pub fn open(&mut self, dir: &[u8]) -> Option<OwnedFd> {
        self.0.iter_mut().find(|view| dir.starts_with(&view.filesystem))?.open(dir)
    }

    /// Lets go of what was opened to answer quickly.
    pub fn close(&mut self) {
        self.0.iter_mut().for_each(|view| view.mount = None);
    }
}

impl View {
    /// A deleted directory has no handle any more; what happened to it was said of its parent.
    fn open(&mut self, dir: &[u8]) -> Option<OwnedFd> {
        if self.mount.is_none() {
            self.mount = open_dir(&self.real_path, &RelPath::root()).ok();
        }
        open_by_handle(self.mount.as_ref()?, dir).ok()
    }

    fn sight(&mut self, dir: &[u8]) -> Option<Sighting> {
        let mut opened = self.open(dir)?;
        let mut is_exact = true;
        let real_path = loop {
            if fstat(&opened).ok()?.st_nlink == 0 {
                return None;
            }
            match rustix::fs::readlink(path_of_fd(&opened), Vec::new()) {
                Ok(path) => break path,
                Err(Errno::NAMETOOLONG) => opened = parent_of(&opened)?,
                Err(_) => return None,
            }
            is_exact = false;
        };
        let real_path = Path::new(std::ffi::OsStr::from_bytes(real_path.as_bytes()));
        let below = real_path.strip_prefix(&self.real_path).ok()?;
        // The path may be one that this mount does not show, or that another mount hides.
        if !is_same(&fstat(&opened).ok()?, &stat(real_path).ok()?) {
            return None;
        }
        let below = below.as_os_str().as_bytes();
        let bytes = match (self.path.is_root(), below.is_empty()) {
            (true, _) => below.to_vec(),
            (_, true) => self.path.as_bytes().to_vec(),
            _ => [self.path.as_bytes(), below].join(&b'/'),
        };
        let path = RelPath::new(&bytes)?;
        Some(Sighting { root: self.root, path, is_exact })
    }
}

fn parent_of(dir: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, c"..", flags, Mode::empty()).ok()
}

fn is_same(one: &Stat, two: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
}

/// Marks the file system that is seen at the path; returns its number as events give it.
fn mark(group: BorrowedFd<'_>, path: &Path, mask: u64) -> io::Result<[u8; 8]> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, path, flags, Mode::empty())?;
    mark_filesystem(group, &dir, mask)?;
    let number = fstatvfs(&dir)?.f_fsid;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(number as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&((number >> 32) as u32).to_ne_bytes());
    Ok(bytes)
}
