//! What is known of one path that may differ from its copy.
//! Does not know of other paths.

use crate::change::Scope;
use crate::path::RelPath;

/// One path of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What is to be made equal.
    pub path: RelPath,
    /// How.
    pub mark: Mark,
}

/// True when all of these items only confirm what was delivered, and there is one.
pub fn only_confirm(items: &[Item]) -> bool {
    !items.is_empty() && items.iter().all(Item::confirms)
}

/// What is known of a pending path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// How far below the path it may differ.
    pub scope: Scope,
    /// Size and times may be equal while the content differs: rsync must not trust them.
    pub compare_content: bool,
    /// A large file: it has a job of its own, beside the batches of small files.
    pub large: bool,
    /// A shard of a large tree: it is sent beside the batches, and not divided again.
    pub shard: bool,
    /// No deletion was reported at or below the path: a tree deletes nothing, so what only the copy has stays.
    pub additive: bool,
    /// Whether it is a recheck.
    pub recheck: Recheck,
}

/// Whether a path is sent again although it did not change: an aborted run may have damaged its copy after the delivery
/// (`remote/recheck.rs`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recheck {
    /// No: something has changed.
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
    /// Both at once. A delivery that follows anyway needs no confirmation of the one before.
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

    /// A mark of this scope of which nothing is deleted.
    pub fn additive(scope: Scope) -> Self {
        Self { additive: true, ..Self::new(scope) }
    }

    /// Combines two hints: the coarser scope, and the caution of both.
    pub fn merge(self, other: Mark) -> Mark {
        let scope = self.scope.max(other.scope);
        let [fine, coarse] = if self.scope <= other.scope { [self, other] } else { [other, self] };
        Mark {
            scope,
            compare_content: self.compare_content || other.compare_content,
            large: (self.large || other.large) && scope == Scope::Entry,
            // A finer hint leaves a shard's size as it is. After a new hint about the whole tree its size is unknown.
            shard: coarse.shard && (fine.shard || fine.scope < scope),
            additive: self.additive && other.additive,
            recheck: self.recheck.merge(other.recheck),
        }
    }
}

impl Item {
    /// True when it only confirms what was delivered.
    pub fn confirms(&self) -> bool {
        self.mark.recheck == Recheck::Confirm
    }

    /// True for a directory of which only additions were seen.
    pub fn only_adds(&self) -> bool {
        self.mark.additive && self.mark.scope != Scope::Entry
    }

    /// True when its copy is to lose what stands in it and is gone here.
    pub fn deletes_below(&self) -> bool {
        !self.mark.additive && self.mark.scope != Scope::Entry
    }

    /// True when delivering this item delivers what `mark` says of `path`.
    pub fn covers(&self, path: &RelPath, mark: Mark) -> bool {
        let there = self.mark.scope == Scope::Tree && path.is_within(&self.path)
            || self.mark.scope >= mark.scope && *path == self.path;
        let may_delete = !self.only_adds() || mark.additive;
        there && may_delete && (self.mark.compare_content || !mark.compare_content)
    }
}
