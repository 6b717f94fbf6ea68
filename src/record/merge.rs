//! Merges the deltas into a new snapshot while the program runs, so that the record does not grow with every delivery.
//! Does not read the tree: it writes what is on record, in less space.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::format::{DIR, DirKey, Header};
use super::survey::{Paths, is_damage, read_baseline};
use super::writer::Writer;
use crate::ground::lock::lock;

/// Deltas below this length are not merged, however small the snapshot is.
const DELTAS_MIN: u64 = 1 << 20;

/// Deltas above this length are merged, however large the snapshot is: a merge holds them in memory.
const DELTAS_MAX: u64 = 64 << 20;

/// How long all deltas may become beside a snapshot of this length.
pub(super) fn deltas_max(snapshot_len: u64) -> u64 {
    snapshot_len.clamp(DELTAS_MIN, DELTAS_MAX)
}

/// Whether a new snapshot may still take the old one's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// A delivery could not be put on record: a new snapshot would hide that.
    Spoiled,
    /// The record has begun anew: what is under way is finished, and not put in its place.
    Closed,
    /// The record ends: what is under way ends as well, for the next start reads and writes the same files.
    Ended,
}

/// Shared by a record and the one survey or merge that may be under way.
pub(super) type Turn = Arc<Mutex<Gate>>;

/// Gives the new snapshot the old one's name, unless the record must stay as it is.
pub(super) fn publish(turn: &Turn, paths: &Paths) -> io::Result<()> {
    let gate = lock(turn);
    match *gate {
        Gate::Open => fs::rename(&paths.new_snapshot, &paths.snapshot),
        Gate::Spoiled => Err(io::Error::other("a delivery could not be put on record meanwhile")),
        Gate::Closed | Gate::Ended => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// An error as soon as the record ends. A survey or a merge asks for each directory.
pub(super) fn go_on(turn: &Turn) -> io::Result<()> {
    match *lock(turn) {
        Gate::Ended => Err(io::ErrorKind::Interrupted.into()),
        Gate::Open | Gate::Spoiled | Gate::Closed => Ok(()),
    }
}

/// Makes the new name durable *before* the deltas go that the new snapshot holds.
pub(super) fn remove_merged(paths: &Paths) -> io::Result<()> {
    sync_directory_of(&paths.snapshot)?;
    paths.deltas.iter().try_for_each(|delta| remove(delta))
}

/// Makes the names of the files beside `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Removes a file, which somebody else may have removed already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A merge that can be run on any thread. Give its result to [`super::Record::merged`].
#[derive(Debug)]
pub struct Merger {
    pub(super) paths: Paths,
    pub(super) header: Header,
    pub(super) turn: Turn,
}

/// How a merge has ended.
#[derive(Debug)]
pub struct Merged {
    pub(super) header: Header,
    pub(super) result: io::Result<()>,
    pub(super) turn: Turn,
}

impl Merger {
    /// Writes the new snapshot, puts it in the old one's place, and removes the deltas that it holds. After an error, and
    /// after the death of the process at any point, the record still says all that it said.
    pub fn run(self) -> Merged {
        let result = self.merge();
        if result.is_err() {
            // What is left of it may be what fills the disk.
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

/// Writes a new snapshot with everything that is on record. Fails with `InvalidData` when the record is damaged, and with
/// `Interrupted` when it ends.
pub(super) fn write_merged(paths: &Paths, now: &Header, turn: &Turn) -> io::Result<()> {
    let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{why:?}"));
    let (mut baseline, alive) = read_baseline(paths, now)?.map_err(damaged)?;
    let mut writer = Writer::create(&paths.new_snapshot, &Header { alive, ..*now })?;
    // The ancestors of the current directory, each with the directories in it. A directory that its parent does not name is gone.
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
