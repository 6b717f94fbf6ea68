//! Merges the deltas into a new snapshot while the program runs, so that the record does not grow without limit.
//! Does not read the tree.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::format::{DIR, DirKey, RecordHeader};
use super::survey::{Paths, is_damage, read_baseline};
use super::writer::Writer;
use crate::ground::lock::lock;

/// Deltas shorter than this are not merged, even if the snapshot is smaller.
const DELTAS_MIN: u64 = 1 << 20;

/// Deltas longer than this are merged, even if the snapshot is larger, because a merge holds them in memory.
const DELTAS_MAX: u64 = 64 << 20;

/// The total length of deltas at which a snapshot of this length is merged with them.
pub(super) fn deltas_max(snapshot_len: u64) -> u64 {
    snapshot_len.clamp(DELTAS_MIN, DELTAS_MAX)
}

/// Whether a new snapshot may still replace the old one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// A delivery could not be recorded. A new snapshot would hide that.
    Spoiled,
    /// The record was started anew: the running survey or merge ends without publishing its result.
    Closed,
    /// The record is closed: the running survey or merge must stop, because the next start uses the same files.
    Ended,
}

/// Shared by a record and the one survey or merge that may be running.
pub(super) type Turn = Arc<Mutex<Gate>>;

/// Replaces the old snapshot with the new one, unless the gate forbids it.
pub(super) fn publish(turn: &Turn, paths: &Paths) -> io::Result<()> {
    let gate = lock(turn);
    match *gate {
        Gate::Open => fs::rename(&paths.new_snapshot, &paths.snapshot),
        Gate::Spoiled => Err(io::Error::other("a delivery could not be recorded meanwhile")),
        Gate::Closed | Gate::Ended => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Fails once the record is closed. A survey or a merge calls it for each directory, so that it stops soon.
pub(super) fn go_on(turn: &Turn) -> io::Result<()> {
    match *lock(turn) {
        Gate::Ended => Err(io::ErrorKind::Interrupted.into()),
        Gate::Open | Gate::Spoiled | Gate::Closed => Ok(()),
    }
}

/// Makes the new snapshot's name durable, and only then removes the deltas that it contains.
pub(super) fn remove_merged(paths: &Paths) -> io::Result<()> {
    sync_directory_of(&paths.snapshot)?;
    paths.deltas.iter().try_for_each(|delta| remove(delta))
}

/// Makes the names of the files beside `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A merge that can run on any thread. Pass its result to [`super::Record::merged`].
#[derive(Debug)]
pub struct Merger {
    pub(super) paths: Paths,
    pub(super) header: RecordHeader,
    pub(super) turn: Turn,
}

/// The result of a merge.
#[derive(Debug)]
pub struct Merged {
    pub(super) header: RecordHeader,
    pub(super) result: io::Result<()>,
    pub(super) turn: Turn,
}

impl Merger {
    /// Writes the new snapshot, replaces the old one, and removes the deltas that it contains. Nothing is lost from the
    /// record after an error, or if the process dies at any point.
    pub fn run(self) -> Merged {
        let result = self.merge();
        if result.is_err() {
            // Remove the partial snapshot, because it may be what fills the disk.
            _ = fs::remove_file(&self.paths.new_snapshot);
        }
        Merged { header: self.header, result, turn: self.turn }
    }

    fn merge(&self) -> io::Result<()> {
        write_merged(&self.paths, &self.header, &self.turn)?;
        publish(&self.turn, &self.paths)?;
        if let Err(error) = remove_merged(&self.paths) {
            log::warn!(
                "cannot remove the merged parts of the record {}: {error}; the next merge tries again",
                self.paths.snapshot.display()
            );
        }
        Ok(())
    }
}

/// Writes a new snapshot with everything that is on record. Fails with `InvalidData` when the record is damaged, and
/// with `Interrupted` when it is closed.
pub(super) fn write_merged(paths: &Paths, now: &RecordHeader, turn: &Turn) -> io::Result<()> {
    let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{why:?}"));
    let (mut baseline, alive) = read_baseline(paths, now)?.map_err(damaged)?;
    let mut writer = Writer::create(&paths.new_snapshot, &RecordHeader { alive, ..*now })?;
    // The ancestors of the current directory, each with its subdirectories. A directory that its parent does not name is gone.
    let mut above: Vec<(DirKey, BTreeSet<Box<[u8]>>)> = Vec::new();
    loop {
        go_on(turn)?;
        let listing = match baseline.next() {
            Ok(Some(listing)) => listing,
            Ok(None) => return writer.finish(),
            Err(e) if is_damage(&e) => return Err(io::ErrorKind::InvalidData.into()),
            Err(e) => return Err(e),
        };
        if let Some((parent, name)) = listing.dir.split() {
            while above.pop_if(|(top, _)| *top != parent && !parent.is_within(top)).is_some() {}
            let is_there =
                |(top, dirs): &(DirKey, BTreeSet<Box<[u8]>>)| *top == parent && dirs.contains(name);
            if !above.last().is_some_and(is_there) {
                continue;
            }
        }
        let dirs = listing.entries.iter().filter(|(_, s)| s.has(DIR));
        let dirs = dirs.map(|(name, _)| name.clone()).collect();
        writer.write(&listing)?;
        above.push((listing.dir, dirs));
    }
}
