//! What is known of one path that may differ from its copy.
//! Does not know of other paths.

use crate::change::{Extent, Scope};
use crate::path::RelPath;

/// A path with its mark: what a job makes equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Which path.
    pub path: RelPath,
    /// What is known of it.
    pub mark: Mark,
}

/// True when there are items, and all of them only confirm deliveries.
pub fn only_confirm(items: &[Item]) -> bool {
    !items.is_empty() && items.iter().all(Item::confirms)
}

/// What is known of a pending path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// How far below the path it may differ.
    pub scope: Scope,
    /// Compare the content: size and time may be equal although the files differ.
    pub compare_content: bool,
    /// A large file: it has a job of its own, beside the batches of small files.
    pub large: bool,
    /// A shard of a large tree: it has a job beside the batches, and is not divided again.
    pub shard: bool,
    /// No deletion was reported at or below the path. A tree or a listing then deletes nothing.
    pub additive: bool,
    /// Whether it is a recheck.
    pub recheck: Recheck,
}

/// Whether a path is compared again although it did not change, because an aborted run may have damaged its copy
/// (`remote/recheck.rs`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recheck {
    /// No: it has changed.
    #[default]
    No,
    /// It is only a recheck. Plugins are not told of its delivery.
    Only,
    /// It changed, and is a recheck too.
    Also,
    /// It was delivered in a session from before its change, and is compared by one that connects afterwards
    /// (`remote/confirm.rs`). Plugins are not told.
    Confirm,
}

impl Recheck {
    /// Combines two. A confirmation is dropped where the path is sent again anyway.
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Confirm, other) | (other, Self::Confirm) => other,
            (one, other) if one == other => one,
            _ => Self::Also,
        }
    }
}

impl Mark {
    /// A plain mark of this scope.
    pub fn new(scope: Scope) -> Self {
        let (compare_content, large, shard, additive) = (false, false, false, false);
        Self { scope, compare_content, large, shard, additive, recheck: Recheck::No }
    }

    /// A mark of this scope that deletes nothing.
    pub fn additive(scope: Scope) -> Self {
        Self { additive: true, ..Self::new(scope) }
    }

    /// How much of the path it covers.
    pub fn extent(self) -> Extent {
        Extent { scope: self.scope, additive: self.additive }
    }

    /// Combines two hints: the coarser scope, and the caution of both.
    pub fn merge(self, other: Mark) -> Mark {
        let scope = self.scope.max(other.scope);
        let [fine, coarse] = if self.scope <= other.scope { [self, other] } else { [other, self] };
        Mark {
            scope,
            compare_content: self.compare_content || other.compare_content,
            large: (self.large || other.large) && scope == Scope::Entry,
            // A finer hint does not change a shard's size. After a new hint about the whole tree, its size is unknown.
            shard: coarse.shard && (fine.shard || fine.scope < scope),
            additive: self.additive && other.additive,
            recheck: self.recheck.merge(other.recheck),
        }
    }
}

impl Item {
    /// True when it only confirms a delivery.
    pub fn confirms(&self) -> bool {
        self.mark.recheck == Recheck::Confirm
    }

    /// True for a tree or a listing that deletes nothing.
    pub fn only_adds(&self) -> bool {
        self.mark.extent().only_adds()
    }

    /// True for the whole tree without deletions.
    pub fn adds_everything(&self) -> bool {
        self.path.is_root() && self.mark.scope == Scope::Tree && self.mark.additive
    }

    /// True for a tree or a listing that deletes extraneous entries.
    pub fn deletes_below(&self) -> bool {
        !self.mark.additive && self.mark.scope != Scope::Entry
    }

    /// True when delivering this item also delivers `path` with `mark`.
    pub fn covers(&self, path: &RelPath, mark: Mark) -> bool {
        let there =
            *path == self.path || self.mark.scope == Scope::Tree && path.is_within(&self.path);
        let is_enough = self.mark.extent().covers(mark.extent());
        there && is_enough && (self.mark.compare_content || !mark.compare_content)
    }
}
