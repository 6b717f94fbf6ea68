//! The baseline of a comparison: the snapshot, streamed, with the later deltas applied.
//! Does not read the tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::iter::Peekable;
use std::path::Path;
use std::vec::IntoIter;

use super::format::{
    DIR, DirKey, EntryStamp, EntryState, HEADER_LEN, Listing, MOUNT, NAME_ONLY, RecordHeader,
    UNKNOWN_BELOW, decode_delta_frame, decode_listings,
};
use crate::path::RelPath;
use crate::seal::{self, NoFrame};

/// The file's content is not what this program wrote.
#[derive(Debug)]
pub struct Damaged;

/// A snapshot file, read listing by listing.
#[derive(Debug)]
pub struct SnapshotFile {
    /// The header of the file.
    pub header: RecordHeader,
    file: BufReader<File>,
    ready: Peekable<IntoIter<Listing>>,
    ended: bool,
}

impl SnapshotFile {
    /// Opens the snapshot at `path`; `Ok(None)` when there is none.
    pub fn open(path: &Path) -> io::Result<Option<Result<Self, Damaged>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut file = BufReader::new(file);
        let mut head = Vec::new();
        file.by_ref().take(HEADER_LEN as u64).read_to_end(&mut head)?;
        let Some(header) = RecordHeader::decode(&head) else {
            return Ok(Some(Err(Damaged)));
        };
        Ok(Some(Ok(Self { header, file, ready: Vec::new().into_iter().peekable(), ended: false })))
    }

    /// Reads until a listing is ready; false at the end of the snapshot.
    fn fill(&mut self) -> io::Result<bool> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the record is damaged");
        while !self.ended && self.ready.peek().is_none() {
            let mut head = [0; seal::HEAD_LEN];
            self.file.read_exact(&mut head)?;
            let len = seal::payload_len(&head).ok_or_else(damaged)?;
            let mut payload = Vec::new();
            self.file.by_ref().take(len as u64).read_to_end(&mut payload)?;
            if payload.len() < len || !seal::is_intact(&head, &payload) {
                return Err(damaged());
            }
            self.ended = payload.is_empty();
            let listings = decode_listings(&payload).ok_or_else(damaged)?;
            self.ready = listings.into_iter().peekable();
        }
        Ok(self.ready.peek().is_some())
    }

    /// The next listing; joins a long one, which the file holds in several frames.
    pub fn next(&mut self) -> io::Result<Option<Listing>> {
        self.fill()?;
        let Some(mut listing) = self.ready.next() else {
            return Ok(None);
        };
        while self.fill()?
            && let Some(more) = self.ready.next_if(|next| next.dir == listing.dir)
        {
            listing.entries.extend(more.entries);
        }
        Ok(Some(listing))
    }
}

/// The observed states of each name in a directory, each with the order of its observation.
type Names = BTreeMap<Box<[u8]>, Vec<(u64, EntryState)>>;

/// The observations since the snapshot: directory -> name -> states in the order of observation.
#[derive(Debug, Default)]
pub struct Delta {
    dirs: BTreeMap<DirKey, Names>,
    /// The order of the last observation of all names in a directory.
    listed: BTreeMap<DirKey, u64>,
    /// The highest order of an observation.
    pub order: u64,
    /// When the last observation was written; 0 when there is none.
    pub alive: i64,
}

impl Delta {
    /// Adds a delta file. Ignores a torn last frame, because the journal still holds its deliveries as pending.
    pub fn read(&mut self, path: &Path) -> io::Result<Result<(), Damaged>> {
        let bytes = fs::read(path)?;
        let mut rest = bytes.as_slice();
        loop {
            match seal::open(rest) {
                Ok((payload, len)) => {
                    rest = &rest[len..];
                    let Some(frame) = decode_delta_frame(payload) else {
                        return Ok(Err(Damaged));
                    };
                    self.order = self.order.max(frame.order);
                    self.alive = self.alive.max(frame.alive);
                    for (path, state) in frame.entries {
                        self.add(frame.order, &path, state);
                    }
                }
                Err(NoFrame::End | NoFrame::Torn) => return Ok(Ok(())),
                Err(NoFrame::Damaged) => return Ok(Err(Damaged)),
            }
        }
    }

    fn add(&mut self, order: u64, path: &RelPath, state: EntryState) {
        let key = DirKey::new(path);
        if state == EntryState::Listed {
            let last = self.listed.entry(key).or_default();
            *last = order.max(*last);
            return;
        }
        let (dir, name) = key.split().unwrap_or_default();
        let states = self.dirs.entry(dir.clone()).or_default();
        states.entry(name.into()).or_default().push((order, state));
        if !matches!(state, EntryState::Present(_)) {
            return;
        }
        // An entry proves that its directory exists, even if the directory itself was not observed.
        let named = (order, EntryState::Present(EntryStamp::NAMED_DIR));
        let mut below = dir;
        while let Some((dir, name)) = below.split() {
            let states = self.dirs.entry(dir.clone()).or_default();
            let states = states.entry(name.into()).or_default();
            if states.last() == Some(&named) {
                break;
            }
            states.push(named);
            below = dir;
        }
    }
}

/// The snapshot with the deltas applied, listing by listing in sorted order.
#[derive(Debug)]
pub struct Baseline {
    snapshot: SnapshotFile,
    next: Option<Listing>,
    delta: Delta,
    /// Directories that were missing at an observation, with the order of the last one. What was on record below is void: if the
    /// directory comes back, its copy does not.
    missing: BTreeMap<DirKey, u64>,
}

impl Baseline {
    /// Applies `delta` to `snapshot`.
    pub fn new(mut snapshot: SnapshotFile, mut delta: Delta) -> io::Result<Self> {
        for states in delta.dirs.values_mut().flat_map(BTreeMap::values_mut) {
            states.sort_by_key(|(order, _)| *order);
        }
        let next = snapshot.next()?;
        Ok(Self { snapshot, next, delta, missing: BTreeMap::new() })
    }

    /// The directory of the next listing.
    pub fn peek(&self) -> Option<&DirKey> {
        let changed = self.delta.dirs.keys().next();
        match &self.next {
            Some(next) => Some(changed.map_or(&next.dir, |changed| changed.min(&next.dir))),
            None => changed,
        }
    }

    /// The next listing.
    pub fn next(&mut self) -> io::Result<Option<Listing>> {
        let Some(dir) = self.peek().cloned() else {
            return Ok(None);
        };
        let base = match &self.next {
            Some(next) if next.dir == dir => {
                let after = self.snapshot.next()?;
                std::mem::replace(&mut self.next, after)
            }
            _ => None,
        };
        let void_before = self.void_before(&dir);
        let base = base.filter(|_| void_before.is_none());
        let entries = base.map(|listing| listing.entries).unwrap_or_default();
        let snapshot_order = self.snapshot.header.order;
        let listed_at = self.delta.listed.remove(&dir).filter(|order| *order >= snapshot_order);
        let states = self.delta.dirs.remove(&dir);
        if states.is_none() && listed_at.is_none() {
            return Ok(Some(Listing { dir, entries }));
        }
        let mut names: BTreeMap<_, _> =
            entries.into_iter().map(|(name, stamp)| (name, (Some(stamp), Vec::new()))).collect();
        for (name, mut states) in states.into_iter().flatten() {
            states.retain(|(order, _)| void_before.is_none_or(|void| void <= *order));
            names.entry(name).or_default().1 = states;
        }
        let mut merged = Vec::new();
        for (name, (old, states)) in names {
            let mut missing_at = last_missing(old, snapshot_order, &states);
            let mut stamp = fold(old, snapshot_order, &states);
            let unlisted_at = listed_at.filter(|_| !name.is_empty());
            if let Some(order) = unlisted_at.filter(|order| !is_seen_since(&states, *order)) {
                // Its copy may be gone. The name stays on record, so that no deletion is missed.
                stamp = stamp.map(EntryStamp::name_only);
                missing_at = missing_at.max(stamp.filter(|it| it.has(DIR)).map(|_| order));
            }
            if let Some(order) = missing_at {
                self.missing.insert(dir.join(&name), order);
            }
            merged.extend(stamp.map(|stamp| (name, stamp)));
        }
        Ok(Some(Listing { dir, entries: merged }))
    }

    /// The order of the last observation at which the directory, or one above it, was missing.
    fn void_before(&self, dir: &DirKey) -> Option<u64> {
        let mut void = None;
        let mut at = (!self.missing.is_empty()).then(|| dir.clone());
        while let Some(key) = at {
            void = void.max(self.missing.get(&key).copied());
            at = key.split().map(|(above, _)| above);
        }
        void
    }
}

/// True if the name was observed at that order or later.
fn is_seen_since(states: &[(u64, EntryState)], order: u64) -> bool {
    let is_seen = |state: &EntryState| !matches!(state, EntryState::Touched(_));
    states.iter().any(|(seen, state)| *seen >= order && is_seen(state))
}

/// The order of the last observation at which a name that was a directory was none. Observations older than the snapshot do not
/// count.
fn last_missing(
    old: Option<EntryStamp>,
    snapshot_order: u64,
    states: &[(u64, EntryState)],
) -> Option<u64> {
    let is_dir = |state: &EntryState| matches!(state, EntryState::Present(s) if s.has(DIR));
    let was_dir = old.is_some_and(|stamp| stamp.has(DIR));
    if !was_dir && !states.iter().any(|(_, state)| is_dir(state)) {
        return None;
    }
    let is_missing =
        |state: &EntryState| !matches!(state, EntryState::Touched(_)) && !is_dir(state);
    let missing =
        states.iter().filter(|(order, state)| *order >= snapshot_order && is_missing(state));
    missing.map(|(order, _)| *order).max()
}

/// The state of one name after all its observations. In doubt the name stays on record, so that no deletion is missed.
fn fold(
    old: Option<EntryStamp>,
    snapshot_order: u64,
    states: &[(u64, EntryState)],
) -> Option<EntryStamp> {
    states.iter().fold(old, |known, (order, state)| {
        // An observation of the entry alone does not clear these flags.
        let kept = known.map_or(0, |stamp| stamp.flags & (UNKNOWN_BELOW | MOUNT));
        match state {
            EntryState::Present(stamp) if stamp.has(NAME_ONLY) => known.or(Some(*stamp)),
            EntryState::Present(stamp) => Some(EntryStamp { flags: stamp.flags | kept, ..*stamp }),
            EntryState::Touched(stamp) => known.map(|known| {
                let is_it = known.has(DIR) && stamp.has(DIR) && known.ino == stamp.ino;
                let ctime = if is_it { stamp.ctime } else { known.ctime };
                EntryStamp { ctime, ..known }
            }),
            // The observation is older than the snapshot, although it was written later: trust the snapshot.
            EntryState::Absent if *order < snapshot_order => known,
            EntryState::Absent => None,
            // It is kept for the directory, not for a name.
            EntryState::Listed => known,
        }
    })
}
