//! `<statusFile>`: the snapshot as a JSON file, replaced at regular intervals even if nothing changes.
//! Never makes a stale state look fresh: if the main loop does not answer, the file is not touched.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::complaint::Complaint;
use crate::snapshot::{Snapshot, SnapshotReader};

/// How long the main loop may take for a snapshot.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everybody may read it, because monitoring runs as another user; it holds no secret.
const MODE: u32 = 0o644;

/// The file, and the source of its content.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    reader: SnapshotReader,
    complaint: Complaint,
}

impl StatusFile {
    /// Does not write the file yet.
    pub fn new(path: PathBuf, reader: SnapshotReader) -> Self {
        let complaint = Complaint::about(format!("status file {}", path.display()));
        Self { path, reader, complaint }
    }

    /// Replaces the file with the current state.
    pub fn write(&mut self) {
        let outcome = match self.reader.now(PATIENCE) {
            Ok(snapshot) => {
                replace(&self.path, &snapshot).map_err(|error| complaint(&self.path, &error))
            }
            Err(error) => Err(format!("is not updated: {error}")),
        };
        self.complaint.note(outcome);
    }
}

/// Why it cannot be written, and what to do. The error itself may name a temporary file that means nothing to the operator.
fn complaint(path: &Path, error: &std::io::Error) -> String {
    let dir = path.parent().unwrap_or(Path::new("/")).display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("cannot be written: the directory {dir} does not exist; create it")
        }
        kind => format!(
            "cannot be written: {kind}; give this user the right to write in {dir}, and room"
        ),
    }
}

/// Replaces the file atomically: a reader sees the old or the new content, never a part.
fn replace(path: &Path, snapshot: &Snapshot) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".sersync-status-")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(dir)?;
    let mut json = serde_json::to_vec_pretty(snapshot)?;
    json.push(b'\n');
    file.write_all(&json)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        for pid in [1, 2] {
            let mut snapshot = Snapshot::default();
            snapshot.instance.pid = pid;
            replace(&path, &snapshot).unwrap();
            let read: Snapshot = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(read.instance.pid, pid);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("no/where"), &Snapshot::default()).is_err());
    }
}
