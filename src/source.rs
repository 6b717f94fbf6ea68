//! A watch root and its identity. The identity is checked because a path that is absent from another directory is no
//! deletion. Does not watch the root; the watch thread reports when it is lost or back.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::ground::identity::Identity;
use crate::ground::lock::lock;
use crate::rsync::exit::{Lack, lacking};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// A watch root, shared by all parts that read below it.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    identity: Mutex<Identity>,
}

/// Why a watch root cannot be trusted now.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It cannot be opened.
    #[error("cannot open the watch path {}: {error}", path.display())]
    Open {
        /// The watch root.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// Another directory is in its place.
    #[error("{} is not the directory it was: it was replaced, mounted over or unmounted", path.display())]
    Replaced {
        /// The watch root.
        path: PathBuf,
    },
}

impl Unhealthy {
    /// What the machine lacks, if that is the cause.
    pub fn lacking(&self) -> Option<Lack> {
        match self {
            Self::Open { error, .. } => lacking(error),
            Self::Replaced { .. } => None,
        }
    }
}

impl Source {
    /// Opens the root and trusts the directory that is now at `path`.
    pub fn open(path: &Path) -> Result<Self, Unhealthy> {
        let (_, identity) = open_directory(path)?;
        Ok(Self { path: path.to_path_buf(), identity: Mutex::new(identity) })
    }

    /// The watch root's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the healthy root.
    pub fn identity(&self) -> Identity {
        *lock(&self.identity)
    }

    /// Trusts the directory that is now at the path, after the root came back.
    pub fn renew(&self) -> Result<(), Unhealthy> {
        let (_, identity) = open_directory(&self.path)?;
        *lock(&self.identity) = identity;
        Ok(())
    }

    /// Opens the root; fails if it is not the trusted directory.
    pub fn open_healthy(&self) -> Result<OwnedFd, Unhealthy> {
        let (directory, identity) = open_directory(&self.path)?;
        if identity == self.identity() {
            Ok(directory)
        } else {
            Err(Unhealthy::Replaced { path: self.path.clone() })
        }
    }
}

fn open_directory(path: &Path) -> Result<(OwnedFd, Identity), Unhealthy> {
    let fail = |error| Unhealthy::Open { path: path.to_path_buf(), error };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    let identity = Identity::of_open(&directory).map_err(fail)?;
    Ok((directory, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_root_is_not_healthy_until_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let source = Source::open(&root).unwrap();
        assert!(source.open_healthy().is_ok());
        std::fs::rename(&root, dir.path().join("old")).unwrap();
        assert!(matches!(source.open_healthy(), Err(Unhealthy::Open { .. })));
        std::fs::create_dir(&root).unwrap();
        assert!(matches!(source.open_healthy(), Err(Unhealthy::Replaced { .. })));
        source.renew().unwrap();
        assert!(source.open_healthy().is_ok());
    }
}
