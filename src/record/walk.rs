//! A parallel walk that delivers the directories of a tree in sorted order, with bounded look-ahead.
//! Never follows a symbolic link.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, statat};
use rustix::io::Errno;

use super::format::{DIR, DirKey, EntryStamp, Listing, MOUNT};
use crate::ground::directory::each_entry;
use crate::path::RelPath;

/// Says whether a path is mirrored; the second argument: whether it is a directory.
pub type Wanted<'a> = &'a (dyn Fn(&RelPath, bool) -> bool + Sync);

/// How many directories are read ahead: enough for every thread, few enough to use little memory.
const WINDOW: usize = 128;

/// One directory as the walk found it.
#[derive(Debug)]
pub enum WalkedDirectory {
    /// It was read.
    Listed(Listing),
    /// It exists but cannot be read, so its content is unknown.
    Blind(DirKey, io::Error),
}

enum Slot {
    Todo,
    Done(WalkedDirectory),
    /// It vanished during the walk.
    Gone,
}

/// Walks everything below `root` on `threads` threads (0: one per processor) and passes each directory to `sink` in
/// sorted order. Fails when the root cannot be read, or when `sink` fails.
pub fn walk(
    root: &Path,
    wanted: Wanted<'_>,
    threads: usize,
    mut sink: impl FnMut(WalkedDirectory) -> io::Result<()>,
) -> io::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|_| "walk".into())
        .build()
        .map_err(io::Error::other)?;
    let mut slots = BTreeMap::from([(DirKey::default(), Slot::Todo)]);
    while !slots.is_empty() {
        let todo: Vec<_> = slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Todo))
            .take(WINDOW)
            .map(|(key, _)| key.clone())
            .collect();
        let read = |key: DirKey| {
            let slot = read_slot(root, &key, wanted);
            (key, slot)
        };
        let results: Vec<_> = pool.install(|| todo.into_par_iter().map(read).collect());
        for (key, slot) in results {
            let slot = slot?;
            if let Slot::Done(WalkedDirectory::Listed(listing)) = &slot {
                let dirs = listing.entries.iter();
                for (name, _) in dirs.filter(|(name, s)| s.has(DIR) && !name.is_empty()) {
                    slots.insert(key.join(name), Slot::Todo);
                }
            }
            slots.insert(key, slot);
        }
        while let Some(first) = slots.first_entry()
            && !matches!(first.get(), Slot::Todo)
        {
            if let Slot::Done(found) = first.remove() {
                sink(found)?;
            }
        }
    }
    Ok(())
}

fn read_slot(root: &Path, key: &DirKey, wanted: Wanted<'_>) -> io::Result<Slot> {
    let is_root = key.0.is_empty();
    match list(root, key, wanted) {
        Ok(listing) => Ok(Slot::Done(WalkedDirectory::Listed(listing))),
        Err(e) if is_root => Err(e.into()),
        // It is gone or no longer a directory. The kernel's events of its parent report that.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Slot::Gone),
        Err(e) => Ok(Slot::Done(WalkedDirectory::Blind(key.clone(), e.into()))),
    }
}

/// Reads one directory.
pub fn list(root: &Path, key: &DirKey, wanted: Wanted<'_>) -> Result<Listing, Errno> {
    let path = key.path(b"").ok_or(Errno::INVAL)?;
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if !path.is_root() {
        flags |= OFlags::NOFOLLOW;
    }
    let dir = open(path.below(root), flags, Mode::empty())?;
    let own = fstat(&dir)?;
    let mut entries: Vec<(Box<[u8]>, EntryStamp)> = Vec::new();
    if path.is_root() {
        entries.push((Box::default(), stamp(&own, own.st_dev)));
    }
    each_entry(&dir, |name, _| {
        let Some(child) = path.join(name.to_bytes()) else { return Ok(()) };
        let stamp = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => stamp(&found, own.st_dev),
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        if wanted(&child, stamp.has(DIR)) {
            entries.push((name.to_bytes().into(), stamp));
        }
        Ok(())
    })?;
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(Listing { dir: key.clone(), entries })
}

/// The state of `path` below `root`; `None` when it does not exist.
pub fn stamp_of(root: &Path, path: &RelPath) -> Result<Option<EntryStamp>, Errno> {
    let flags = if path.is_root() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let full = path.below(root);
    match statat(rustix::fs::CWD, full.as_os_str().as_bytes(), flags) {
        Ok(found) => Ok(Some(stamp(&found, found.st_dev))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

#[expect(clippy::unnecessary_cast, reason = "the types differ between architectures")]
fn stamp(found: &Stat, parent_dev: u64) -> EntryStamp {
    let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let is_mount = is_dir && found.st_dev != parent_dev;
    EntryStamp {
        flags: if is_dir { DIR } else { 0 } | if is_mount { MOUNT } else { 0 },
        ino: found.st_ino,
        ctime: (found.st_ctime as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add(found.st_ctime_nsec as i64),
    }
}
