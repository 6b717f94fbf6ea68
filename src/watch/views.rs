//! Finds the path of a directory below our roots, from the handle in an event.
//! Caches no path, and keeps no directory open for long: an open directory prevents unmounting its file system.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, fstatvfs, openat, stat};
use rustix::io::Errno;

use crate::change::{RootId, RootedPath};
use crate::path::RelPath;
use crate::sys::fanotify::{mark_filesystem, open_dir as open_by_handle};
use crate::watch::context::WatchContext;
use crate::watch::open::{open_dir, path_of_fd};

/// A directory below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The root that it is below.
    pub root: RootId,
    /// The directory, or an ancestor when the path is too long.
    pub path: RelPath,
    /// False when `path` is an ancestor.
    pub is_exact: bool,
}

/// A file system that is visible below a root: at the root itself, or at a mount point.
struct View {
    root: RootId,
    path: RelPath,
    real_path: PathBuf,
    filesystem: [u8; 8],
    /// The open directory at `real_path`, while it is used often.
    mount: Option<OwnedFd>,
}

/// All views of all roots.
#[derive(Default)]
pub struct Views(Vec<View>);

/// Where a directory is below our roots.
#[derive(Default)]
pub struct Sightings {
    /// Its paths: none, one, or several with bind mounts.
    pub seen: Vec<Sighting>,
    /// Paths that could not be checked, with the error; the next try may succeed.
    pub unsure: Vec<(RootedPath, Errno)>,
}

impl Views {
    /// Reads the current roots and mounts, and marks their file systems. Returns those that cannot be marked.
    pub fn renew(
        &mut self,
        context: &WatchContext,
        group: BorrowedFd<'_>,
        mask: u64,
    ) -> Vec<(RootedPath, io::Error)> {
        self.0.clear();
        let (mounts, mut failed) = (context.roots.mounts(), Vec::new());
        for root in context.roots.list().iter().filter(|root| root.is_there()) {
            let whole = (root.id, RelPath::root());
            let real_path = match root.path.canonicalize() {
                Ok(real_path) => real_path,
                Err(error) => {
                    failed.push((whole, error));
                    continue;
                }
            };
            let below = match &mounts {
                Ok(mounts) => mounts.below(&real_path),
                Err(error) => {
                    failed.push((whole, error.kind().into()));
                    BTreeMap::new()
                }
            };
            let below = below.into_keys();
            for path in std::iter::once(RelPath::root()).chain(below) {
                if context.batch.is_within_excluded(root.id, &path) {
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

    /// Removes the views at and below the path.
    pub fn forget(&mut self, (root, path): &RootedPath) {
        self.0.retain(|view| view.root != *root || !view.path.is_within(path));
    }

    /// True when another file system is visible below the path.
    pub fn has_below(&self, (root, path): &RootedPath) -> bool {
        self.0.iter().any(|view| view.root == *root && view.path.is_within(path))
    }

    /// The directory's current paths below our roots, without excluded ones.
    pub fn sight(&mut self, context: &WatchContext, dir: &[u8]) -> Sightings {
        let mut found = Sightings::default();
        for view in self.0.iter_mut().filter(|view| dir.starts_with(&view.filesystem)) {
            match view.sight(dir) {
                Ok(Some(seen)) if context.batch.is_within_excluded(seen.root, &seen.path) => {}
                Ok(seen) => found.seen.extend(seen),
                Err(errno) => found.unsure.push(((view.root, view.path.clone()), errno)),
            }
        }
        found
    }

    /// Opens the directory with `O_PATH`, if it is on one of our file systems.
    pub fn open(&mut self, dir: &[u8]) -> Option<OwnedFd> {
        let view = self.0.iter_mut().find(|view| dir.starts_with(&view.filesystem))?;
        view.open(dir).ok().flatten()
    }

    /// Checks that this process may open the directories of events: some containers may watch, but lack that permission.
    ///
    /// # Errors
    /// EPERM without CAP_DAC_READ_SEARCH.
    pub fn may_open(&mut self) -> io::Result<()> {
        // The kernel checks the permission before it looks for the directory, which does not exist.
        let mut nothing = [0; 24];
        nothing[8..16].copy_from_slice(&[8_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        for view in &mut self.0 {
            if let Err(Errno::PERM) = view.open(&nothing) {
                return Err(Errno::PERM.into());
            }
        }
        Ok(())
    }

    /// Closes the directories that were kept open for speed.
    pub fn close(&mut self) {
        self.0.iter_mut().for_each(|view| view.mount = None);
    }
}

impl View {
    /// `None` for a deleted directory: its handle is stale, and its parent reported the deletion.
    fn open(&mut self, dir: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        let mount = match &self.mount {
            Some(mount) => mount,
            None => {
                let opened = open_dir(&self.real_path, &RelPath::root()).map_err(errno_of)?;
                self.mount.insert(opened)
            }
        };
        match open_by_handle(mount, dir).map_err(errno_of) {
            Err(Errno::STALE) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Finds the path of the directory. An error proves nothing about the directory.
    fn sight(&mut self, dir: &[u8]) -> Result<Option<Sighting>, Errno> {
        let Some(mut opened) = self.open(dir)? else { return Ok(None) };
        let mut is_exact = true;
        let real_path = loop {
            if fstat(&opened)?.st_nlink == 0 {
                return Ok(None);
            }
            match rustix::fs::readlink(path_of_fd(&opened), Vec::new()) {
                Ok(path) => break path,
                Err(Errno::NAMETOOLONG) => opened = parent_of(&opened)?,
                Err(error) => return Err(error),
            }
            is_exact = false;
        };
        let real_path = Path::new(std::ffi::OsStr::from_bytes(real_path.as_bytes()));
        let Ok(below) = real_path.strip_prefix(&self.real_path) else { return Ok(None) };
        // Another mount may hide the path, or the path may be outdated. In the latter case another event follows.
        match stat(real_path) {
            Ok(found) if is_same(&fstat(&opened)?, &found) => {}
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error),
        }
        let below = below.as_os_str().as_bytes();
        let bytes = match (self.path.is_root(), below.is_empty()) {
            (true, _) => below.to_vec(),
            (_, true) => self.path.as_bytes().to_vec(),
            _ => [self.path.as_bytes(), below].join(&b'/'),
        };
        let path = RelPath::new(&bytes);
        Ok(path.map(|path| Sighting { root: self.root, path, is_exact }))
    }
}

fn parent_of(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, c"..", flags, Mode::empty())
}

/// The error number of an I/O error; EIO when it has none.
pub fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn is_same(one: &Stat, two: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
}

/// Marks the file system at the path; returns its id as events contain it.
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
