//! Tells whether the watch roots, and the mounts below them, are still the same as at the start.
//! Detects every loss and return without polling. The caller decides what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::change::{RootId, RootLoss};
use crate::ground::identity::Identity;
use crate::path::RelPath;
use crate::watch::mounts::{MOUNT_TABLE, Mounts};
use crate::watch::open::stat;

/// Most symbolic links followed in a row; the kernel has the same limit.
const LINKS_MAX: usize = 40;

/// Attempts to watch a path that keeps changing. After that, its events trigger another check.
const LOOKS_MAX: usize = 40;

/// What has changed about a root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the watch events they lead to")]
pub enum RootNews {
    Lost {
        root: RootId,
        loss: RootLoss,
    },
    Back {
        root: RootId,
        replaced: bool,
    },
    SubtreeLost {
        root: RootId,
        path: RelPath,
        reason: String,
    },
    SubtreeBack {
        root: RootId,
        path: RelPath,
    },
    /// Another file system is on top at this path than before.
    Mounted {
        root: RootId,
        path: RelPath,
    },
    /// It was moved away and back: changes in between may have been assigned to another path.
    Moved {
        root: RootId,
    },
}

/// The directory that is found at a root's path.
struct Sight {
    identity: Identity,
    real_path: PathBuf,
}

/// One watch root.
pub struct Root {
    /// Its number.
    pub id: RootId,
    /// The path as configured; symbolic links in it are followed.
    pub path: PathBuf,
    first: Identity,
    first_mount_point: PathBuf,
    /// The directory that is watched; `None` while the root is lost.
    current: Option<Identity>,
    mounts: BTreeMap<RelPath, u64>,
    lost_mounts: BTreeSet<RelPath>,
}

/// An inotify instance that watches every directory and link on the paths to the roots.
struct Sentinel {
    inotify: OwnedFd,
    /// The roots to which a watch's path leads.
    ways: Vec<(i32, RootId)>,
    /// Names on the path that we lack the permission to watch: only their parent directories report them.
    unwatched: BTreeSet<OsString>,
    /// The roots whose path was renamed, according to the events read.
    moved: Vec<RootId>,
}

/// All roots, and the sentinel that detects a replaced one.
pub struct Roots {
    list: Vec<Root>,
    sentinel: Sentinel,
    mount_table: Option<File>,
}

impl Root {
    /// The root as it is now; later checks compare with it.
    pub fn new(id: RootId, path: &Path) -> io::Result<Self> {
        let sight = look(path)?;
        let mounts = Mounts::now().unwrap_or_default();
        let mount_point = mounts.covering(&sight.real_path).map(|(point, _)| point.to_path_buf());
        Ok(Self {
            id,
            path: path.to_path_buf(),
            first: sight.identity,
            first_mount_point: mount_point.unwrap_or_default(),
            current: Some(sight.identity),
            mounts: mounts.below(&sight.real_path),
            lost_mounts: BTreeSet::new(),
        })
    }

    /// True while the root is watched.
    pub fn is_there(&self) -> bool {
        self.current.is_some()
    }

    fn check(&mut self, mounts: Option<&Mounts>, news: &mut Vec<RootNews>) {
        let root = self.id;
        let sight = look(&self.path);
        let mut replaced = false;
        if let Some(current) = self.current {
            match &sight {
                Ok(sight) if sight.identity == current => {
                    if let Some(mounts) = mounts {
                        self.check_mounts(mounts.below(&sight.real_path), news);
                    }
                    return;
                }
                Ok(sight) if self.is_unmounted(sight, mounts) => {
                    let loss = RootLoss::Gone("its file system was unmounted".into());
                    news.push(RootNews::Lost { root, loss });
                }
                Ok(_) => {
                    replaced = true;
                    news.push(RootNews::Lost { root, loss: RootLoss::Replaced });
                }
                Err(error) => {
                    news.push(RootNews::Lost { root, loss: RootLoss::Gone(reason_of(error)) });
                }
            }
            self.current = None;
        }
        if let Ok(sight) = sight
            && !self.is_unmounted(&sight, mounts)
        {
            self.current = Some(sight.identity);
            let replaced = replaced || sight.identity != self.first;
            // Report what is missing below the root first: when the root is back, everything is compared.
            if let Some(mounts) = mounts {
                self.find_mounts(mounts.below(&sight.real_path), replaced, news);
            }
            news.push(RootNews::Back { root, replaced });
        }
    }

    /// True when the file system is unmounted and only the mount point is left.
    fn is_unmounted(&self, sight: &Sight, mounts: Option<&Mounts>) -> bool {
        let covering = mounts.and_then(|mounts| mounts.covering(&sight.real_path));
        let covering = covering.map(|(point, _)| point);
        sight.identity != self.first
            && covering.is_some_and(|point| {
                point != self.first_mount_point && self.first_mount_point.starts_with(point)
            })
    }

    /// True when nothing exists at the path. After an unmount the mount point is still there.
    fn is_empty_place(&self, path: &RelPath) -> bool {
        stat(&self.path, path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Checks the mounts below a root that is back. Of these, only a missing one matters: the rest is compared with the root. If
    /// another directory has taken the root's place, a file system is missing only where there is an empty directory.
    fn find_mounts(
        &mut self,
        now: BTreeMap<RelPath, u64>,
        replaced: bool,
        news: &mut Vec<RootNews>,
    ) {
        let root = self.id;
        let is_missing = |path: &RelPath| {
            !now.contains_key(path) && (!replaced || is_empty_directory(&self.path, path))
        };
        let missing = self.mounts.iter().filter(|(path, _)| is_missing(path));
        let missing = missing.map(|(path, id)| (path.clone(), *id));
        let mounts = missing.chain(now.clone()).collect();
        let is_over = |path: &&RelPath| !now.contains_key(path) && !is_missing(path);
        let over: Vec<RelPath> = self.lost_mounts.iter().filter(is_over).cloned().collect();
        for path in over {
            self.lost_mounts.remove(&path);
            news.push(RootNews::SubtreeBack { root, path });
        }
        self.mounts = mounts;
        self.check_mounts(now, news);
    }

    fn check_mounts(&mut self, now: BTreeMap<RelPath, u64>, news: &mut Vec<RootNews>) {
        let root = self.id;
        for (path, id) in self.mounts.iter().filter(|(path, _)| !now.contains_key(path)) {
            // It moved with a directory above it. That move has its own events, and the new path is mounted.
            if now.values().any(|other| other == id) && self.is_empty_place(path) {
                continue;
            }
            if !self.lost_mounts.iter().any(|lost| path.is_within(lost)) {
                let reason = "the file system there was unmounted".into();
                news.push(RootNews::SubtreeLost { root, path: path.clone(), reason });
            }
            self.lost_mounts.insert(path.clone());
        }
        for (path, id) in &now {
            if self.lost_mounts.remove(path) {
                news.push(RootNews::SubtreeBack { root, path: path.clone() });
            } else if self.mounts.get(path) != Some(id) {
                news.push(RootNews::Mounted { root, path: path.clone() });
            }
        }
        self.mounts = now;
    }
}

impl Roots {
    /// Tracks these roots.
    pub fn new(list: Vec<Root>) -> io::Result<Self> {
        let sentinel = arm(&list)?;
        Ok(Self { list, sentinel, mount_table: File::open(MOUNT_TABLE).ok() })
    }

    /// The roots.
    pub fn list(&self) -> &[Root] {
        &self.list
    }

    /// Where a root is, as configured.
    pub fn path(&self, root: RootId) -> Option<&Path> {
        self.list.iter().find(|r| r.id == root).map(|r| r.path.as_path())
    }

    /// Readable when a root may have been replaced.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.sentinel.inotify.as_fd()
    }

    /// The mounts as they are now.
    pub fn mounts(&self) -> io::Result<Mounts> {
        self.mount_table.as_ref().map_or_else(Mounts::now, Mounts::read)
    }

    /// Has POLLPRI when the mount table has changed.
    pub fn mount_table(&self) -> Option<BorrowedFd<'_>> {
        self.mount_table.as_ref().map(AsFd::as_fd)
    }

    /// The watch on the root directory has ended, so it was replaced, even if it looks the same.
    pub fn forget_identity(&mut self, root: RootId) {
        for root in self.list.iter_mut().filter(|r| r.id == root && r.is_there()) {
            root.current = Some(root.first.of_no_directory());
        }
    }

    /// Reads the sentinel's events; false when they concern only entries beside the paths to the roots.
    pub fn hear(&mut self) -> bool {
        self.sentinel.hear()
    }

    /// Checks all roots and mounts; returns what has changed.
    pub fn check(&mut self) -> Vec<RootNews> {
        // Set up the sentinel before the check: a change during the check triggers another one.
        self.sentinel.hear();
        let moved = std::mem::take(&mut self.sentinel.moved);
        match arm(&self.list) {
            Ok(sentinel) => self.sentinel = sentinel,
            Err(error) => {
                log::warn!("the watch roots are not guarded until the next change: {error}")
            }
        }
        let mounts = self.mounts().ok();
        let mut news = Vec::new();
        for root in &mut self.list {
            let before = root.current;
            root.check(mounts.as_ref(), &mut news);
            if before.is_some() && root.current == before && moved.contains(&root.id) {
                news.push(RootNews::Moved { root: root.id });
            }
        }
        news
    }
}

/// Identifies the directory. One that we may not read counts as lost. Opens nothing, so that a shortage of file
/// descriptors does not look like a loss.
fn look(path: &Path) -> io::Result<Sight> {
    if !path.metadata()?.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    accessat(CWD, path, Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(Sight { identity: Identity::of(path)?, real_path: path.canonicalize()? })
}

/// True for an empty directory, as an unmount leaves one, and for one that cannot be read. False for a link to one.
fn is_empty_directory(root: &Path, path: &RelPath) -> bool {
    let path = root.join(OsStr::from_bytes(path.as_bytes()));
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
        && path.read_dir().map_or(true, |mut entries| entries.next().is_none())
}

/// Why a root cannot be opened any more, as a clause.
pub(crate) fn reason_of(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "it was deleted or renamed".into(),
        Some(Errno::NOTDIR | Errno::LOOP) => "it is no directory any more".into(),
        Some(Errno::ACCESS | Errno::PERM) => "it may not be read any more".into(),
        _ => format!("it cannot be opened any more: {error}"),
    }
}

/// A new sentinel that watches every directory and link on the path to each root. Where a name is missing, it watches the
/// parent for creations.
fn arm(roots: &[Root]) -> io::Result<Sentinel> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let (ways, unwatched, moved) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut sentinel = Sentinel { inotify, ways, unwatched, moved };
    for root in roots {
        let mut way = way_to(&root.path);
        // A creation between check and watch causes no event: check again.
        for _ in 0..LOOKS_MAX {
            sentinel.guard(root.id, &way);
            let before = std::mem::replace(&mut way, way_to(&root.path));
            if before == way {
                break;
            }
        }
    }
    Ok(sentinel)
}

impl Sentinel {
    /// Watches every step of the path, and the parent of the first missing one.
    fn guard(&mut self, root: RootId, way: &Way) {
        let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        let made = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let steps = way.steps.iter().map(|step| (step, own | WatchFlags::DONT_FOLLOW));
        for (path, mask) in steps.chain(way.ends.iter().map(|end| (end, own | made))) {
            match inotify::add_watch(&self.inotify, path, mask | WatchFlags::MASK_ADD) {
                Ok(wd) => self.ways.push((wd, root)),
                // We cannot watch it, but its parent still reports it.
                Err(_) => self.unwatched.extend(path.file_name().map(OsStr::to_os_string)),
            }
        }
    }

    /// Reads all events; true when some concern the paths. A watched directory also reports attributes of unrelated entries.
    fn hear(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut concerns = false;
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::MOVE_SELF) {
                let ways = self.ways.iter().filter(|(wd, _)| *wd == event.wd());
                self.moved.extend(ways.map(|(_, root)| *root));
            }
            let is_made = event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            concerns |= is_made || name.is_none_or(|name| self.unwatched.contains(name));
        }
        concerns
    }
}

/// The path that leads to a root.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    /// Directories and symbolic links.
    steps: Vec<PathBuf>,
    /// Directories in which the next step is missing, also behind a dangling link.
    ends: Vec<PathBuf>,
}

fn way_to(path: &Path) -> Way {
    let mut way = Way::default();
    let mut todo = vec![path.to_path_buf()];
    for _ in 0..LINKS_MAX {
        let Some(path) = todo.pop() else { break };
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        for step in above {
            let Ok(meta) = std::fs::symlink_metadata(step) else {
                way.ends.extend(step.parent().map(Path::to_path_buf));
                break;
            };
            way.steps.push(step.to_path_buf());
            if meta.is_symlink()
                && let (Ok(target), Some(parent)) = (std::fs::read_link(step), step.parent())
            {
                todo.push(parent.join(target));
            }
        }
    }
    way
}

#[cfg(test)]
mod tests;
