//! A directory of this machine that holds a copy, identified by device and inode.
//! So an unmounted share is never filled beneath its mount point. Makes no directory and sends nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags, open};

use crate::ground::identity::Identity;
use crate::ground::lock::lock;
use crate::sys;

/// The directory, as it was when the program started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDirectory {
    path: PathBuf,
    /// `None` when nothing was there.
    identity: Option<Identity>,
}

/// The open directory. Runs reach it even if its path leads elsewhere by then.
#[derive(Debug)]
pub struct OpenDirectory(OwnedFd);

/// The directories that this process has accepted. A reload must not accept another one: the share may be unmounted at that moment.
static ACCEPTED: Mutex<BTreeMap<PathBuf, Identity>> = Mutex::new(BTreeMap::new());

impl LocalDirectory {
    /// Accepts the directory that is at `path` now as the right one, unless this process has accepted one there before.
    pub fn new(path: &Path) -> Self {
        let mut accepted = lock(&ACCEPTED);
        let known = accepted.get(path).copied();
        let identity = known.or_else(|| Identity::of(path).ok());
        if let Some(identity) = identity {
            accepted.insert(path.to_path_buf(), identity);
        }
        Self { path: path.to_path_buf(), identity }
    }

    /// Opens the directory, if it is still the one that was accepted.
    ///
    /// # Errors
    /// Why nothing may be sent there now, a clause for the log.
    pub fn open(&self) -> Result<OpenDirectory, String> {
        let missing = |error: std::io::Error| {
            format!(
                "the directory cannot be used: {}; sersync never makes it, for a share may have to be mounted there",
                error.kind()
            )
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&self.path, flags, Mode::empty()).map_err(|e| missing(e.into()))?;
        let found = Identity::of_open(&directory).map_err(missing)?;
        if self.identity == Some(found) {
            return Ok(OpenDirectory(directory));
        }
        Err("another directory is in its place, because it was unmounted, mounted over or replaced; \
             mount it again, or restart sersync to accept what is there now"
            .into())
    }

    /// An argument of a run, with the directory's path replaced by the open directory.
    pub(super) fn pinned(&self, word: &OsStr, open: &OpenDirectory) -> OsString {
        match Path::new(word).strip_prefix(&self.path) {
            Ok(below) => {
                let mut pinned = OsString::from(open.path());
                pinned.push("/");
                if !below.as_os_str().is_empty() {
                    pinned.push(below);
                    pinned.push("/");
                }
                pinned
            }
            Err(_) => word.to_owned(),
        }
    }

    /// rsync's messages, with the path that the operator knows.
    pub(super) fn unpinned(&self, messages: Vec<u8>, pinned: &str) -> Vec<u8> {
        let mut left = messages.as_slice();
        let mut shown = Vec::with_capacity(messages.len());
        while let Some(at) = left.windows(pinned.len()).position(|part| part == pinned.as_bytes()) {
            shown.extend_from_slice(&left[..at]);
            shown.extend_from_slice(self.path.as_os_str().as_bytes());
            left = &left[at + pinned.len()..];
        }
        shown.extend_from_slice(left);
        shown
    }
}

impl std::os::fd::AsFd for OpenDirectory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl OpenDirectory {
    /// Lets the command inherit the descriptor. rsync's receiver is a fork of rsync and enters the directory through it.
    pub(super) fn share_with(&self, command: &mut Command) {
        sys::inherit(command, self.0.as_raw_fd());
    }

    /// A path to the directory for every process that inherits the descriptor.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_directory_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        assert!(LocalDirectory::new(&path).open().unwrap_err().contains("cannot be used"));
        std::fs::create_dir(&path).unwrap();
        let local = LocalDirectory::new(&path);
        let open = local.open().unwrap();
        let word = local.pinned(path.join("below/").as_os_str(), &open);
        assert_eq!(word.to_str().unwrap(), format!("{}/below/", open.path()));
        let messages = format!("open \"{}/f\" failed", open.path()).into_bytes();
        let shown = local.unpinned(messages, &open.path());
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            format!("open \"{}/f\" failed", path.display())
        );
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(local.open().unwrap_err().contains("another directory is in its place"));
        // A reload does not accept it either.
        assert!(LocalDirectory::new(&path).open().is_err());
    }
}
