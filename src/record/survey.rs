//! Walks a tree beside what is known of it: says what differs, and writes the new snapshot on the way.
//! Does not decide when; nothing is replaced until the caller has put the differences on record.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::format::{DIR, DirKey, Header, Listing, MOUNT, NAME_ONLY, Stamp, UNKNOWN_BELOW};
use super::known::{Damaged, Known, Seen, Snapshot};
use super::walk::{Found, Wanted};
use super::writer::Writer;
use crate::change::{Cause, Change, Scope};
use crate::path::RelPath;

/// An entry that changed so shortly before the last sign of life may have changed again within the same clock tick,
/// unseen: it is reported, in doubt.
const DOUBT_NS: i64 = 100_000_000;

/// Why a record cannot tell what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// There is none: the first start.
    Missing,
    /// It is damaged, incomplete, or of another version of this program.
    Damaged,
    /// Another file system is at the root now.
    OtherFileSystem,
}

/// What a survey found, apart from the changes.
#[derive(Debug, Default)]
pub struct Survey {
    /// Set when nothing could be compared; then no change was reported.
    pub unknown: Option<Unknown>,
    /// How many directories there are.
    pub directories: u64,
    /// How many other entries there are.
    pub files: u64,
    /// How many entries were known before.
    pub known: u64,
    /// How many of them are gone.
    pub gone: u64,
    /// Directories that could not be read: nothing is reported about what is in them.
    pub unreadable: Vec<RelPath>,
    /// Directories on which a file system was mounted, and is no more: nothing in them is reported as removed.
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

/// What is known, or why nothing is. `now` is the header that a snapshot of today would have.
pub(super) fn read_known(paths: &Paths, now: &Header) -> io::Result<Result<(Known, i64), Unknown>> {
    let snapshot = match Snapshot::open(&paths.snapshot)? {
        None => return Ok(Err(Unknown::Missing)),
        Some(Err(Damaged)) => return Ok(Err(Unknown::Damaged)),
        Some(Ok(snapshot)) => snapshot,
    };
    if !same_file_system(&snapshot.header, now) {
        return Ok(Err(Unknown::OtherFileSystem));
    }
    let mut seen = Seen::default();
    for delta in &paths.deltas {
        if let Err(Damaged) = seen.read(delta)? {
            return Ok(Err(Unknown::Damaged));
        }
    }
    let alive = snapshot.header.alive.max(seen.alive);
    match Known::new(snapshot, seen) {
        Ok(known) => Ok(Ok((known, alive))),
        Err(e) if is_damage(&e) => Ok(Err(Unknown::Damaged)),
        Err(e) => Err(e),
    }
}

pub(super) fn is_damage(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(e.kind(), InvalidData | UnexpectedEof)
}

/// Device numbers change at a reboot for some file systems, their ids for others.
pub(super) fn same_file_system(then: &Header, now: &Header) -> bool {
    let same =
        if then.fsid != 0 && now.fsid != 0 { then.fsid == now.fsid } else { then.dev == now.dev };
    same && then.ino == now.ino
}

/// A survey on its way.
struct Surveyor<'a> {
    known: Option<Known>,
    alive: i64,
    wanted: Wanted<'a>,
    sink: &'a mut dyn FnMut(Change),
    writer: Writer,
    result: Survey,
    /// Everything in these is reported already, each as one change.
    covered: BTreeSet<DirKey>,
    /// Nothing can be said about it: what was known stays known.
    blind: Option<DirKey>,
    /// Mount points that lost their file system, until the walk gets to them.
    lost: BTreeSet<DirKey>,
    losses: Losses,
}

/// What to make of a mount point without its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losses {
    /// It will be back: nothing in it is taken for removed, and the record remembers it.
    Accidents,
    /// It is meant to be gone, with everything in it.
    Meant,
}

/// What a walk calls for each directory, in sorted order.
pub(super) type Meet<'a> = &'a mut dyn FnMut(Found) -> io::Result<()>;

/// Compares, and writes the new snapshot to `paths.new_snapshot`. When the record turns out to be damaged half-way, the
/// changes already reported are true, but not all.
pub(super) fn run(
    paths: &Paths,
    now: &Header,
    wanted: Wanted<'_>,
    sink: &mut dyn FnMut(Change),
    losses: Losses,
    walk: impl FnOnce(Meet<'_>) -> io::Result<()>,
) -> io::Result<Survey> {
    let (known, alive, unknown) = match read_known(paths, now)? {
        Ok((known, alive)) => (Some(known), alive, None),
        Err(unknown) => (None, 0, Some(unknown)),
    };
    let mut surveyor = Surveyor {
        known,
        alive,
        wanted,
        sink,
        writer: Writer::create(&paths.new_snapshot, now)?,
        result: Survey { unknown, ..Survey::default() },
        covered: BTreeSet::new(),
        blind: None,
        lost: BTreeSet::new(),
        losses,
    };
    walk(&mut |found| surveyor.meet(found))?;
    surveyor.skip_to(None)?;
    surveyor.writer.finish()?;
    Ok(surveyor.result)
}

impl Surveyor<'_> {
    fn meet(&mut self, found: Found) -> io::Result<()> {
        let key = match &found {
            Found::Listed(listing) => listing.dir.clone(),
            Found::Blind(key, _) => key.clone(),
        };
        self.skip_to(Some(&key))?;
        let then = match self.peek_known() {
            Some(dir) if dir == key => self.next_known()?,
            _ => None,
        };
        match found {
            Found::Blind(key, error) => {
                let path = key.path(b"").unwrap_or_default();
                log::warn!(
                    "cannot read the directory {path}: {error}; nothing is concluded about it"
                );
                self.result.unreadable.push(path);
                self.blind = Some(key);
                self.carry_over(then)
            }
            Found::Listed(listing) if self.lost.remove(&listing.dir) => {
                self.blind = Some(listing.dir);
                self.carry_over(then)
            }
            // What stands at the place of a lost mount is none of the mirror's.
            Found::Listed(listing) if self.is_blind(&listing.dir) => self.carry_over(then),
            Found::Listed(mut listing) => {
                if self.known.is_some() && !self.is_covered(&listing.dir) {
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

    fn peek_known(&self) -> Option<DirKey> {
        self.known.as_ref().and_then(Known::peek).cloned()
    }

    /// The next known listing. Damage ends what is known: the caller is told to take everything for changed.
    fn next_known(&mut self) -> io::Result<Option<Listing>> {
        let Some(known) = &mut self.known else {
            return Ok(None);
        };
        match known.next() {
            Err(e) if is_damage(&e) => {
                self.result.unknown = Some(Unknown::Damaged);
                self.known = None;
                Ok(None)
            }
            other => {
                let listing = other.as_ref().ok().and_then(Option::as_ref);
                self.result.known += listing.map_or(0, Listing::names);
                other
            }
        }
    }

    /// Passes over known directories in front of `key` (`None`: all): they are gone, unless nothing can be said.
    fn skip_to(&mut self, key: Option<&DirKey>) -> io::Result<()> {
        while let Some(dir) = self.peek_known()
            && key.is_none_or(|key| dir < *key)
        {
            let listing = self.next_known()?;
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
    fn compare(&mut self, then: &[(Box<[u8]>, Stamp)], now: &mut Listing) {
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
                // It is waited for: the record does not forget that something was mounted there.
                *new = old;
            } else if old.is_none_or(|old| !self.is_same(old, *new)) {
                self.report(path, old, *new);
            }
        }
        for (gone, old) in then {
            self.report_gone(dir.path(gone), *old);
        }
    }

    fn report_gone(&mut self, path: Option<RelPath>, old: Stamp) {
        let is_dir = old.has(DIR);
        // A path that the filter hides now is not gone.
        if let Some(path) = path.filter(|path| (self.wanted)(path, is_dir)) {
            self.result.gone += 1;
            // Another directory may get this name before the delivery; everything in the copy is the old one's then.
            let scope = if is_dir { Scope::Tree } else { Scope::Entry };
            (self.sink)(Change { is_dir, scope, ..Change::entry(path, Cause::Delete) });
        }
    }

    fn report(&mut self, path: RelPath, old: Option<Stamp>, new: Stamp) {
        let key = DirKey::new(&path);
        if self.is_covered(&key) {
            return;
        }
        let is_dir = new.has(DIR);
        let scope = match old {
            // The directory's copy goes with everything in it.
            Some(old) if old.has(DIR) && !is_dir => Scope::Tree,
            // Nobody knows which of the names in it are gone.
            Some(old) if is_dir && old.has(DIR) && old.has(UNKNOWN_BELOW) => {
                self.covered.insert(key);
                Scope::Tree
            }
            // What is in a directory is reported name by name: a comparison would delete what only the copy holds.
            _ => Scope::Entry,
        };
        (self.sink)(Change { is_dir, scope, ..Change::entry(path, Cause::Found) });
    }

    fn is_same(&self, old: Stamp, new: Stamp) -> bool {
        let recent = new.ctime >= self.alive.saturating_sub(DOUBT_NS);
        !old.has(NAME_ONLY | UNKNOWN_BELOW)
            && !recent
            && old.has(DIR) == new.has(DIR)
            && (old.ino, old.ctime) == (new.ino, new.ctime)
    }
}

/// How many entries are known of the tree whose snapshot has the header `then`.
pub(super) fn count_known(paths: &Paths, then: &Header, enough: u64) -> io::Result<u64> {
    let mut count = 0;
    if let Ok((mut known, _)) = read_known(paths, then)? {
        while count < enough
            && let Some(listing) = known.next()?
        {
            count += listing.names();
        }
    }
    Ok(count)
}
