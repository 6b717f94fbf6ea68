//! What is neither sent to a remote nor deleted there, as a predicate and, as far as possible, as rsync patterns.
//! Runs nothing.

use crate::rsync::Endpoint;
use crate::rsync::excludes::Excludes;
use crate::watch::Exclude;

/// What is neither sent to a remote nor deleted there.
#[derive(Clone)]
pub struct Rules {
    /// True for what is not mirrored.
    pub exclude: Exclude,
    /// The rules as rsync patterns, as far as patterns can express them.
    pub patterns: Excludes,
    /// Whether the patterns are complete.
    pub coverage: Coverage,
    /// Patterns that apply to scheduled full syncs only.
    pub crontab: Vec<Vec<u8>>,
}

/// Whether patterns exclude exactly what the rules exclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// They do.
    Whole,
    /// They do not: some rule cannot be expressed as a pattern.
    Partial,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl Rules {
    /// True when a deleted directory may hold excluded files on the remote, which must stay.
    pub fn may_outlive_directories(&self) -> bool {
        self.coverage == Coverage::Partial || !self.patterns.kept.is_empty()
    }

    /// This endpoint, so that no run without these rules deletes what they keep.
    pub fn guard(&self, endpoint: Endpoint) -> Endpoint {
        if self.may_outlive_directories() { endpoint.keeping_names() } else { endpoint }
    }

    /// True when the rules mean the same in a run whose root is a directory below the watch root.
    pub fn hold_anywhere(&self) -> bool {
        self.coverage == Coverage::Whole && self.patterns.hold_anywhere()
    }
}
