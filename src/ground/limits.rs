//! The kernel's limits on inotify and on open files: reads them and, if permitted, raises them.
//! Never lowers a limit.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One of `/proc/sys/fs/inotify/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the files")]
pub enum Limit {
    MaxUserWatches,
    MaxUserInstances,
    MaxQueuedEvents,
}

impl Limit {
    /// The limit's file.
    pub fn file(self) -> &'static str {
        match self {
            Limit::MaxUserWatches => "/proc/sys/fs/inotify/max_user_watches",
            Limit::MaxUserInstances => "/proc/sys/fs/inotify/max_user_instances",
            Limit::MaxQueuedEvents => "/proc/sys/fs/inotify/max_queued_events",
        }
    }

    /// The value in force.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(self) -> io::Result<u64> {
        read(self.file().as_ref())
    }

    /// Sets the limit to at least `wanted`; true when that changed it.
    ///
    /// # Errors
    /// When the file cannot be read or written, as in most containers and for ordinary users.
    pub fn raise(self, wanted: u64) -> io::Result<bool> {
        raise(self.file().as_ref(), wanted)
    }
}

/// Raises the number of open files of this process as far as it may without privileges.
///
/// # Errors
/// When the system refuses; the old limit then stays.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

fn read(file: &Path) -> io::Result<u64> {
    fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

fn raise(file: &Path, wanted: u64) -> io::Result<bool> {
    if read(file)? >= wanted {
        return Ok(false);
    }
    // Do not use `fs::write`: it would create a missing file.
    let mut target = fs::OpenOptions::new().write(true).open(file)?;
    target.write_all(format!("{wanted}\n").as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_low_limit_is_raised() {
        let file = limit("8192\n");
        assert!(raise(file.path(), 50_000_000).unwrap());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "50000000\n");
    }

    #[test]
    fn a_high_limit_is_never_lowered() {
        let file = limit("99000000\n");
        assert!(!raise(file.path(), 50_000_000).unwrap());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "99000000\n");
    }

    #[test]
    fn a_limit_that_is_not_there_is_an_error_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("max_user_watches");
        assert!(raise(&file, 1).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
