//! What is known of one path that may differ from its copy.
//! Does not know of other paths.

use crate::change::Scope;
use crate::path::RelPath;

/// One path of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What is to be made equal.
    pub path: RelPath,
    /// How it is to be done.
    pub mark: Mark,
}

/// What is known of a pending path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// How much below the path is meant.
    pub scope: Scope,
    /// Size and times may be equal although the content is not: rsync must not trust them.
    pub compare_content: bool,
    /// A large file: it travels alone, beside the batches of small ones.
    pub large: bool,
    /// A shard of a large tree: travels beside the batches, not divided again.
    pub shard: bool,
    /// Whether it is only to be made sure of.
    pub recheck: Recheck,
}

/// Whether a copy is looked at once more although nothing has changed here: a run that was broken off may have spoilt it since
/// its delivery (`remote/recheck.rs`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recheck {
    /// No: something has changed.
    #[default]
    No,
    /// For that reason alone. Nobody is told of such a delivery.
    Only,
    /// For that reason, too.
    Also,
}

impl Recheck {
    /// Both at once.
    pub fn merge(self, other: Self) -> Self {
        if self == other { self } else { Self::Also }
    }
}

impl Mark {
    /// A plain mark of this scope.
    pub fn new(scope: Scope) -> Self {
        Self { scope, compare_content: false, large: false, shard: false, recheck: Recheck::No }
    }

    /// Both hints at once: the coarser scope, and every caution of either.
    pub fn merge(self, other: Mark) -> Mark {
        let scope = self.scope.max(other.scope);
        let [fine, coarse] = if self.scope <= other.scope { [self, other] } else { [other, self] };
        Mark {
            scope,
            compare_content: self.compare_content || other.compare_content,
            large: (self.large || other.large) && scope == Scope::Entry,
            // A finer hint does not make a shard larger; a fresh hint about a tree says nothing of its size.
            shard: coarse.shard && (fine.shard || fine.scope < scope),
            recheck: self.recheck.merge(other.recheck),
        }
    }
}

impl Item {
    /// True when delivering this item delivers what `mark` says of `path`.
    pub fn covers(&self, path: &RelPath, mark: Mark) -> bool {
        let there = self.mark.scope == Scope::Tree && path.is_within(&self.path)
            || self.mark.scope >= mark.scope && *path == self.path;
        there && (self.mark.compare_content || !mark.compare_content)
    }
}
