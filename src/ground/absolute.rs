//! Paths that do not depend on the working directory.
//! Does not read the disk.

use std::path::{Path, PathBuf};

/// The absolute form of the path; unchanged if the working directory is gone.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
