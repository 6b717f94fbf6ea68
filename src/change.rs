//! What crosses from the watch thread to the engine: a path that may differ from its copy.
//! Decides nothing; the disk is the truth, a change is only a hint.

use std::time::Duration;

use crate::path::RelPath;

/// How much below a path a hint covers. The order is from fine to coarse: coarser is always safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The path itself (for a directory: its own type, mode, owner and times).
    Entry,
    /// A directory and the set of names in it; not what is below those names.
    Listing,
    /// The path and everything below it.
    Tree,
}

impl Scope {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Listing => "listing",
            Self::Tree => "tree",
        }
    }
}

/// One hint from the watch thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What may differ.
    pub path: RelPath,
    /// How far down.
    pub scope: Scope,
    /// Where it was moved from inside the same root, when the kernel said so (move hint; may be wrong).
    pub moved_from: Option<RelPath>,
    /// The kernel's event. Only a deletion affects what is sent; otherwise it is for plugins and the debug output.
    pub cause: Cause,
    /// True when the kernel said that it is a directory.
    pub is_dir: bool,
}

/// The kind of kernel event behind a change; the numbers are inotify's masks (plugins report them).
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
}

/// Index of a `<localpath>` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(pub usize);

/// A place below a root.
pub type RootedPath = (RootId, RelPath);

/// Index of a remote among all remotes of the configuration, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(pub usize);

/// Why a root is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootLoss {
    /// It is gone, moved, unmounted, unreadable or holds too little; a clause for the log says what happened.
    Gone(String),
    /// Another directory is in its place, as after a link is switched: it is back as soon as it is trusted.
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
        /// Everything that happened before this time, by the clock of the files, has been reported with these.
        known_until: Duration,
    },
    /// Everything that had happened when [`crate::watch::Barrier::ask`] was called was reported before this.
    BarrierReached,
    /// The kernel's queue overflowed, or events were lost otherwise: anything below the root may differ.
    Overflow {
        /// Which root.
        root: RootId,
    },
    /// Nothing may be sent or deleted below the root until it is back.
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
        /// True when it is another directory than before: what it lacks need not have been deleted.
        replaced: bool,
    },
    /// A file system mounted below the root is gone: deletions at and below this path must stop.
    SubtreeLost {
        /// Which root.
        root: RootId,
        /// The mount point.
        path: RelPath,
        /// A clause for the log: what happened.
        reason: String,
    },
    /// The mount point holds a file system again and is watched; its subtree is due.
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

    /// An event that is not a change of a path, for people: the root, the mount point if it is about one, and a clause.
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
