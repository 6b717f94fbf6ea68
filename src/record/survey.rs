//! Compares a tree with its baseline: reports what differs, and writes the new snapshot during the same walk.
//! Does not replace the old snapshot: the caller does, once the differences are in the journal.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::baseline::{Baseline, Damaged, Delta, SnapshotFile};
use super::format::{
    DIR, DirKey, EntryStamp, Listing, MOUNT, NAME_ONLY, RecordHeader, UNKNOWN_BELOW,
};
use super::walk::{WalkedDirectory, Wanted};
use super::writer::Writer;
use crate::change::{Cause, Change, Scope};
use crate::path::RelPath;

/// An entry that changed so shortly before the program ended may have changed again within the same clock tick,
/// unseen. So it is reported as changed.
const DOUBT_NS: i64 = 100_000_000;

/// The same where the file system stamps files by whole seconds, or by every second one.
const COARSE_DOUBT_NS: i64 = 2_000_000_000;

/// How long before the end of the program a change of this time makes an entry doubtful.
fn doubt_ns(ctime: i64) -> i64 {
    if ctime % 1_000_000_000 == 0 { COARSE_DOUBT_NS } else { DOUBT_NS }
}

/// Why the record cannot show what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// There is no record: the first start.
    Missing,
    /// The record is damaged, incomplete, or of another version of this program.
    Damaged,
    /// The root is not the recorded directory.
    AnotherDirectory,
}

/// What a survey found, apart from the changes.
#[derive(Debug, Default)]
pub struct Survey {
    /// Why not everything could be compared, if so. Without a readable record, [`WithoutBaseline`] says what is reported.
    /// If the record is damaged in the middle, only the changes before that place are reported.
    pub unknown: Option<Unknown>,
    /// How many directories there are.
    pub directories: u64,
    /// How many other entries there are.
    pub files: u64,
    /// How many entries were known before.
    pub known: u64,
    /// How many of them are gone.
    pub gone: u64,
    /// Directories that could not be read: nothing in them is reported.
    pub unreadable: Vec<RelPath>,
    /// Mount points whose file system is no longer mounted: nothing in them is reported as removed.
    pub lost_mounts: Vec<RelPath>,
}

/// Where a survey reads and writes.
#[derive(Debug)]
pub(super) struct Paths {
    pub root: PathBuf,
    pub snapshot: PathBuf,
    pub new_snapshot: PathBuf,
    pub deltas: Vec<PathBuf>,
}

/// The baseline, or why there is none. `now` is the header that a snapshot made now would have.
pub(super) fn read_baseline(
    paths: &Paths,
    now: &RecordHeader,
) -> io::Result<Result<(Baseline, i64), Unknown>> {
    let snapshot = match SnapshotFile::open(&paths.snapshot)? {
        None => return Ok(Err(Unknown::Missing)),
        Some(Err(Damaged)) => return Ok(Err(Unknown::Damaged)),
        Some(Ok(snapshot)) => snapshot,
    };
    if !same_file_system(&snapshot.header, now) {
        return Ok(Err(Unknown::AnotherDirectory));
    }
    let mut delta = Delta::default();
    for path in &paths.deltas {
        if let Err(Damaged) = delta.read(path)? {
            return Ok(Err(Unknown::Damaged));
        }
    }
    let alive = snapshot.header.alive.max(delta.alive);
    match Baseline::new(snapshot, delta) {
        Ok(baseline) => Ok(Ok((baseline, alive))),
        Err(e) if is_damage(&e) => Ok(Err(Unknown::Damaged)),
        Err(e) => Err(e),
    }
}

pub(super) fn is_damage(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(e.kind(), InvalidData | UnexpectedEof)
}

/// Compares the file system's id, because some device numbers change at a reboot; without an id, the device number.
pub(super) fn same_file_system(then: &RecordHeader, now: &RecordHeader) -> bool {
    let same =
        if then.fsid != 0 && now.fsid != 0 { then.fsid == now.fsid } else { then.dev == now.dev };
    same && then.ino == now.ino
}

/// A running survey.
struct Surveyor<'a> {
    baseline: Option<Baseline>,
    alive: i64,
    wanted: Wanted<'a>,
    sink: &'a mut dyn FnMut(Change),
    writer: Writer,
    result: Survey,
    /// Directories that were reported as a tree, which covers everything below them.
    covered: BTreeSet<DirKey>,
    /// The unreadable or unmounted directory that the walk is in: its old entries stay on record.
    blind: Option<DirKey>,
    /// Mount points without their file system that the walk has not reached yet.
    lost: BTreeSet<DirKey>,
    losses: Losses,
    without: WithoutBaseline,
}

/// What a mount point without its file system means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losses {
    /// It will be mounted again: nothing in it counts as removed, and the record keeps it.
    Accidents,
    /// It was removed on purpose, with everything in it.
    Meant,
}

/// What to report where there is no baseline to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBaseline {
    /// Nothing: this is the first start, or everything is compared anyway.
    Silent,
    /// Every entry, as possibly changed. Deleted entries cannot be reported then.
    AllEntries,
}

/// The callback of a walk, called for each directory in sorted order.
pub(super) type Meet<'a> = &'a mut dyn FnMut(WalkedDirectory) -> io::Result<()>;

/// Compares, and writes the new snapshot to `paths.new_snapshot`. If the record is damaged in the middle, the reported
/// changes are correct but incomplete.
pub(super) fn run(
    paths: &Paths,
    now: &RecordHeader,
    wanted: Wanted<'_>,
    sink: &mut dyn FnMut(Change),
    (losses, without): (Losses, WithoutBaseline),
    walk: impl FnOnce(Meet<'_>) -> io::Result<()>,
) -> io::Result<Survey> {
    let (baseline, alive, unknown) = match read_baseline(paths, now)? {
        Ok((baseline, alive)) => (Some(baseline), alive, None),
        Err(unknown) => (None, 0, Some(unknown)),
    };
    let mut surveyor = Surveyor {
        baseline,
        alive,
        wanted,
        sink,
        writer: Writer::create(&paths.new_snapshot, now)?,
        result: Survey { unknown, ..Survey::default() },
        covered: BTreeSet::new(),
        blind: None,
        lost: BTreeSet::new(),
        losses,
        without,
    };
    walk(&mut |found| surveyor.meet(found))?;
    surveyor.skip_to(None)?;
    surveyor.writer.finish()?;
    Ok(surveyor.result)
}

impl Surveyor<'_> {
    fn meet(&mut self, found: WalkedDirectory) -> io::Result<()> {
        let key = match &found {
            WalkedDirectory::Listed(listing) => listing.dir.clone(),
            WalkedDirectory::Blind(key, _) => key.clone(),
        };
        self.skip_to(Some(&key))?;
        let then = match self.peek_baseline() {
            Some(dir) if dir == key => self.next_of_baseline()?,
            _ => None,
        };
        match found {
            WalkedDirectory::Blind(key, error) => {
                let path = key.path(b"").unwrap_or_default();
                log::warn!(
                    "cannot read the directory {path}: {error}; its content is not compared"
                );
                self.result.unreadable.push(path);
                self.blind = Some(key);
                self.carry_over(then)
            }
            WalkedDirectory::Listed(listing) if self.lost.remove(&listing.dir) => {
                self.blind = Some(listing.dir);
                self.carry_over(then)
            }
            // The directory below a mount point without its file system does not belong to the mirror.
            WalkedDirectory::Listed(listing) if self.is_blind(&listing.dir) => {
                self.carry_over(then)
            }
            WalkedDirectory::Listed(mut listing) => {
                if (self.baseline.is_some() || self.without == WithoutBaseline::AllEntries)
                    && !self.is_covered(&listing.dir)
                {
                    self.compare(&then.unwrap_or_default().entries, &mut listing);
                }
                let dirs = listing.entries.iter().filter(|(_, s)| s.has(DIR)).count();
                self.result.directories += 1;
                self.result.files += (listing.entries.len() - dirs) as u64;
                self.writer.write(&listing)
            }
        }
    }

    fn is_covered(&self, key: &DirKey) -> bool {
        let mut key = Some(key.clone());
        while let Some(dir) = key {
            if self.covered.contains(&dir) {
                return true;
            }
            key = dir.split().map(|(above, _)| above);
        }
        false
    }

    fn is_blind(&self, key: &DirKey) -> bool {
        self.blind.as_ref().is_some_and(|top| key.is_within(top))
    }

    fn peek_baseline(&self) -> Option<DirKey> {
        self.baseline.as_ref().and_then(Baseline::peek).cloned()
    }

    /// The next listing of the baseline. Damage ends the baseline and sets [`Unknown::Damaged`].
    fn next_of_baseline(&mut self) -> io::Result<Option<Listing>> {
        let Some(baseline) = &mut self.baseline else {
            return Ok(None);
        };
        match baseline.next() {
            Err(e) if is_damage(&e) => {
                self.result.unknown = Some(Unknown::Damaged);
                self.baseline = None;
                Ok(None)
            }
            other => {
                let listing = other.as_ref().ok().and_then(Option::as_ref);
                self.result.known += listing.map_or(0, Listing::names);
                other
            }
        }
    }

    /// Skips directories of the baseline before `key` (`None`: all). They are gone, unless they could not be read.
    fn skip_to(&mut self, key: Option<&DirKey>) -> io::Result<()> {
        while let Some(dir) = self.peek_baseline()
            && key.is_none_or(|key| dir < *key)
        {
            let listing = self.next_of_baseline()?;
            if self.is_blind(&dir) {
                self.carry_over(listing)?;
            } else if dir.path(b"").is_some_and(|path| (self.wanted)(&path, true)) {
                self.result.gone += listing.map_or(0, |listing| listing.names());
            }
        }
        Ok(())
    }

    fn carry_over(&mut self, listing: Option<Listing>) -> io::Result<()> {
        match listing {
            Some(listing) => self.writer.write(&listing),
            None => Ok(()),
        }
    }

    /// Reports how the entries of one directory differ.
    fn compare(&mut self, then: &[(Box<[u8]>, EntryStamp)], now: &mut Listing) {
        let Listing { dir, entries } = now;
        let mut then = then.iter().peekable();
        for (name, new) in entries {
            while let Some((gone, old)) = then.next_if(|(old, _)| old < name) {
                self.report_gone(dir.path(gone), *old);
            }
            let old = then.next_if(|(old, _)| old == name).map(|(_, old)| *old);
            let Some(path) = dir.path(name) else { continue };
            if let Some(old) = old
                && old.has(MOUNT)
                && !new.has(MOUNT)
                && self.losses == Losses::Accidents
            {
                self.lost.insert(DirKey::new(&path));
                self.result.lost_mounts.push(path);
                // The file system may be mounted again, so the record keeps the mount point.
                *new = old;
            } else if old.is_none_or(|old| !self.is_same(old, *new)) {
                self.report(path, old, *new);
            }
        }
        for (gone, old) in then {
            self.report_gone(dir.path(gone), *old);
        }
    }

    fn report_gone(&mut self, path: Option<RelPath>, old: EntryStamp) {
        let is_dir = old.has(DIR);
        // A path that the filter excludes now does not count as gone.
        if let Some(path) = path.filter(|path| (self.wanted)(path, is_dir)) {
            self.result.gone += 1;
            // Another directory may get this name before the delivery. Its copy must not keep the old content.
            let scope = if is_dir { Scope::Tree } else { Scope::Entry };
            (self.sink)(Change { is_dir, scope, ..Change::entry(path, Cause::Delete) });
        }
    }

    fn report(&mut self, path: RelPath, old: Option<EntryStamp>, new: EntryStamp) {
        let key = DirKey::new(&path);
        if self.is_covered(&key) {
            return;
        }
        let is_dir = new.has(DIR);
        let scope = match old {
            // The copy of the old directory must be deleted with everything in it.
            Some(old) if old.has(DIR) && !is_dir => Scope::Tree,
            // The record does not know the old names, so only a comparison of the whole tree finds deletions.
            Some(old) if is_dir && old.has(DIR) && old.has(UNKNOWN_BELOW) => {
                self.covered.insert(key);
                Scope::Tree
            }
            // Report the entry alone: comparing the directory's tree would delete what only the copy has.
            _ => Scope::Entry,
        };
        (self.sink)(Change { is_dir, scope, ..Change::entry(path, Cause::Found) });
    }

    fn is_same(&self, old: EntryStamp, new: EntryStamp) -> bool {
        let recent = new.ctime >= self.alive.saturating_sub(doubt_ns(new.ctime));
        !old.has(NAME_ONLY | UNKNOWN_BELOW)
            && !recent
            && old.has(DIR) == new.has(DIR)
            && (old.ino, old.ctime) == (new.ino, new.ctime)
    }
}

/// How many entries are on record of the tree whose snapshot has the header `then`; stops at `enough`.
pub(super) fn count_known(paths: &Paths, then: &RecordHeader, enough: u64) -> io::Result<u64> {
    let mut count = 0;
    if let Ok((mut baseline, _)) = read_baseline(paths, then)? {
        while count < enough
            && let Some(listing) = baseline.next()?
        {
            count += listing.names();
        }
    }
    Ok(count)
}
