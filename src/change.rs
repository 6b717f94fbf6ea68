//! What the watch thread reports to the engine: paths that may differ from their copies.
//! The disk is the truth; a change is only a hint.

use std::time::Duration;

use crate::path::RelPath;

/// How much of a path a hint covers, from fine to coarse: a coarser hint is always safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The path itself (for a directory: its own type, mode, owner and times).
    Entry,
    /// A directory and the names in it, but not what is below those names.
    Listing,
    /// The path and everything below it.
    Tree,
}

impl Scope {
    /// The name in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Listing => "listing",
            Self::Tree => "tree",
        }
    }
}

/// How much of a path may differ, and whether something may have to be deleted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// How much of the path.
    pub scope: Scope,
    /// No deletion was reported there. A listing or a tree then deletes nothing.
    pub additive: bool,
}

impl Extent {
    /// So much of a path, with deletions.
    pub fn new(scope: Scope) -> Self {
        Self { scope, additive: false }
    }

    /// True for a listing or a tree that deletes nothing.
    pub fn only_adds(self) -> bool {
        self.additive && self.scope != Scope::Entry
    }

    /// True when delivering this extent of a path also delivers the other extent of it.
    pub fn covers(self, other: Self) -> bool {
        self.scope >= other.scope && (!self.only_adds() || other.additive)
    }
}

/// One hint from the watch thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which path may differ.
    pub path: RelPath,
    /// How much of it may differ.
    pub scope: Scope,
    /// Its old name in the same root, if the kernel reported a move. Only a hint: it may be wrong.
    pub moved_from: Option<RelPath>,
    /// The kernel's event. It decides whether something may have to be deleted or compared by content, and whether failing paths
    /// are retried. Plugins and the debug output get it, too.
    pub cause: Cause,
    /// True when the kernel said that it is a directory.
    pub is_dir: bool,
}

/// The kernel event behind a change. The numbers are inotify's masks, which plugins get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after inotify's events")]
#[repr(u32)]
pub enum Cause {
    Modify = 0x2,
    Attrib = 0x4,
    CloseWrite = 0x8,
    MovedFrom = 0x40,
    MovedTo = 0x80,
    Create = 0x100,
    Delete = 0x200,
    /// Found by listing a directory, without a kernel event.
    Found = 0,
}

impl Cause {
    /// The name of inotify's event; `Found` has its own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Modify => "MODIFY",
            Self::Attrib => "ATTRIB",
            Self::CloseWrite => "CLOSE_WRITE",
            Self::MovedFrom => "MOVED_FROM",
            Self::MovedTo => "MOVED_TO",
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
            Self::Found => "FOUND",
        }
    }
}

impl Change {
    /// A hint about `path` alone.
    pub fn entry(path: RelPath, cause: Cause) -> Self {
        Self { path, scope: Scope::Entry, moved_from: None, cause, is_dir: false }
    }

    /// A hint about `path` and everything below it.
    pub fn tree(path: RelPath, cause: Cause) -> Self {
        Self { path, scope: Scope::Tree, moved_from: None, cause, is_dir: true }
    }

    /// How much it covers. Only an entry that was not deleted is additive: below a listing or a tree, a deletion may be unreported.
    pub fn extent(&self) -> Extent {
        let is_deletion = matches!(self.cause, Cause::Delete | Cause::MovedFrom);
        Extent { scope: self.scope, additive: self.scope == Scope::Entry && !is_deletion }
    }
}

/// Index of a `<localpath>` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(pub usize);

/// A path below a root.
pub type RootedPath = (RootId, RelPath);

/// Index of a remote among all remotes of the configuration, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(pub usize);

/// Why a root cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootLoss {
    /// It is gone, moved, unmounted, unreadable or suspiciously empty; with a clause for the log.
    Gone(String),
    /// Another directory is in its place, such as after a link was switched. The root is back when that directory is trusted.
    Replaced,
}

/// What the watch thread reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All watches of this root are set: no change is missed from now on. Sent once per root after start-up, and after a
    /// root came back.
    Ready {
        /// Which root.
        root: RootId,
        /// How many directories are watched.
        directories: usize,
    },
    /// Paths that may differ.
    Changed {
        /// Below which root.
        root: RootId,
        /// The changes, in the kernel's order.
        changes: Vec<Change>,
        /// With these, everything that happened before this time is reported. The time is of the file system's clock.
        known_until: Duration,
    },
    /// Everything that had happened when [`crate::watch::Barrier::ask`] was called was reported before this.
    BarrierReached,
    /// The kernel's queue overflowed, or events were lost otherwise: anything below the root may differ.
    Overflow {
        /// Which root.
        root: RootId,
    },
    /// The root cannot be read: nothing may be sent or deleted until it is back.
    RootLost {
        /// Which root.
        root: RootId,
        /// Why.
        loss: RootLoss,
    },
    /// The root is back and watched; a full sync is due.
    RootBack {
        /// Which root.
        root: RootId,
        /// True if it is another directory than before: what is missing there was not necessarily deleted.
        replaced: bool,
    },
    /// A file system mounted below the root is gone: nothing at or below this path may be sent or deleted.
    SubtreeLost {
        /// Which root.
        root: RootId,
        /// The mount point.
        path: RelPath,
        /// A clause for the log: what happened.
        reason: String,
    },
    /// The file system is mounted and watched again: everything below is to be compared.
    SubtreeBack {
        /// Which root.
        root: RootId,
        /// The mount point.
        path: RelPath,
    },
}

impl WatchEvent {
    /// Paths that may differ. More events may be queued in the kernel.
    pub fn changed(root: RootId, changes: Vec<Change>) -> Self {
        Self::Changed { root, changes, known_until: Duration::ZERO }
    }

    /// Describes an event that is not a change of a path: the root, the mount point if it concerns one, and a clause for people.
    pub fn news(&self) -> Option<(RootId, Option<&RelPath>, String)> {
        let news = match self {
            Self::Ready { .. } | Self::Changed { .. } | Self::BarrierReached => return None,
            Self::Overflow { root } => {
                (root, None, "the kernel dropped events: everything is compared".to_owned())
            }
            Self::RootLost { root, loss: RootLoss::Gone(reason) } => {
                (root, None, format!("lost: {reason}; nothing is deleted anywhere"))
            }
            Self::RootLost { root, loss: RootLoss::Replaced } => {
                (root, None, "another directory is in its place".to_owned())
            }
            Self::RootBack { root, .. } => (root, None, "back: a full sync follows".to_owned()),
            Self::SubtreeLost { root, path, reason } => {
                (root, Some(path), format!("lost: {reason}; nothing below it is deleted"))
            }
            Self::SubtreeBack { root, path } => {
                (root, Some(path), "back: it is compared".to_owned())
            }
        };
        let (root, path, clause) = news;
        Some((*root, path, clause))
    }
}
