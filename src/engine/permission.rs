//! What a remote may do: an operator may pause or remove it, its root may be lost, and deletions may be held back or refused.
//! Does not say when a job starts.

/// Whether listings and trees may delete extraneous entries on the remotes.
/// A path whose own deletion was reported is always deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletions {
    /// They may.
    #[default]
    Allowed,
    /// Not decided yet: full syncs wait, everything else is sent without deletions.
    Undecided,
    /// They may not, until an operator confirms: everything is sent without deletions.
    Withheld,
}

impl Deletions {
    /// True when jobs may delete.
    pub fn are_allowed(self) -> bool {
        self == Self::Allowed
    }
}

/// What one remote may do.
#[derive(Debug, Default)]
pub struct Permission {
    /// Whether its jobs may delete.
    pub deletions: Deletions,
    /// The remote refuses deletions.
    pub deletions_are_refused: bool,
    /// An operator has paused it.
    pub is_paused: bool,
    /// Its root cannot be read.
    pub root_is_lost: bool,
    /// It is not mirrored any more, and only its jobs in flight are left.
    pub is_retired: bool,
}

impl Permission {
    /// True when what is extraneous can be deleted.
    pub fn may_delete(&self) -> bool {
        self.deletions.are_allowed() && !self.deletions_are_refused
    }

    /// True when jobs may start.
    pub fn may_start(&self) -> bool {
        !self.is_paused && !self.root_is_lost && !self.is_retired
    }
}
