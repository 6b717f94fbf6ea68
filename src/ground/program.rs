//! Finds a program by its name.
//! Starts nothing.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The executable `name` in the directories of `PATH`, or in the usual ones when there is no `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let candidates = std::env::split_paths(&path).map(|dir| dir.join(name));
    let is_executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    };
    candidates.into_iter().find(is_executable)
}
