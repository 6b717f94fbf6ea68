//! The kernel's limits on inotify: read and, where we may, raised.
//! Never lowers a limit.

use std::fs;
use std::io;

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
    pub fn read(self) -> io::Result<u64> {
        let text = fs::read_to_string(self.file())?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Sets the limit to at least `wanted`; returns what is in force then. Fails when we may not write it.
    pub fn raise(self, wanted: u64) -> io::Result<u64> {
        let now = self.read()?;
        if now >= wanted {
            return Ok(now);
        }
        fs::write(self.file(), wanted.to_string())?;
        self.read()
    }
}
