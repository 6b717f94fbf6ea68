//! What is neither sent to a remote nor deleted there, as expressions and as far as can be as rsync patterns.
//! Runs nothing.

use crate::rsync::excludes::Excludes;
use crate::watch::Exclude;

/// What is neither sent to a remote nor deleted there.
#[derive(Clone)]
pub struct Rules {
    /// True for what is not mirrored.
    pub exclude: Exclude,
    /// The same as rsync's patterns, as far as it can be said so.
    pub patterns: Excludes,
    /// Whether the patterns say all.
    pub coverage: Coverage,
    /// Patterns that hold in scheduled full syncs only.
    pub crontab: Vec<Vec<u8>>,
}

/// Whether patterns exclude exactly what the rules exclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// They do.
    Whole,
    /// Some rule has no pattern.
    Partial,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl Rules {
    /// True when a directory on the remote may hold what must stay although the directory goes.
    pub fn may_outlive_directories(&self) -> bool {
        self.coverage == Coverage::Partial || !self.patterns.kept.is_empty()
    }

    /// True when they mean the same for a directory that is a run's root.
    pub fn hold_anywhere(&self) -> bool {
        self.coverage == Coverage::Whole && self.patterns.hold_anywhere()
    }
}
