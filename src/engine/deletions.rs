//! Whether copies may lose what their root lacks.
//! Single paths are not asked about: somebody saw each of them go.

/// Whether extraneous entries of whole directories may be deleted on the remotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletions {
    /// They may.
    #[default]
    Allowed,
    /// Not decided yet: full syncs wait, and everything else is sent without deletions.
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
