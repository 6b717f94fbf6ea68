//! Paths that mean the same wherever the program goes.
//! Looks at no disk.

use std::path::{Path, PathBuf};

/// The path as seen from the root; as it is where the working directory is gone.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
