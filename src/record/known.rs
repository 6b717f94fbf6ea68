//! What is known of a tree: the snapshot, streamed, with what was seen since laid over it.
//! Does not look at the tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::iter::Peekable;
use std::path::Path;
use std::vec::IntoIter;

use super::format::{
    DIR, DirKey, HEADER_LEN, Header, Listing, MOUNT, NAME_ONLY, Sight, Stamp, UNKNOWN_BELOW,
    decode_listings, decode_look,
};
use crate::path::RelPath;
use crate::seal::{self, Stop};

/// The bytes are not what we wrote.
#[derive(Debug)]
pub struct Damaged;

/// A snapshot file, read listing by listing.
#[derive(Debug)]
pub struct Snapshot {
    /// Its header.
    pub header: Header,
    file: BufReader<File>,
    ready: Peekable<IntoIter<Listing>>,
    ended: bool,
}

impl Snapshot {
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
        let Some(header) = Header::decode(&head) else {
            return Ok(Some(Err(Damaged)));
        };
        Ok(Some(Ok(Self { header, file, ready: Vec::new().into_iter().peekable(), ended: false })))
    }

    /// Reads on until a listing is ready; false at the snapshot's end.
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

    /// The next listing; a long one comes in several frames and is put together here.
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

/// The looks at each name of a directory, with their order.
type Names = BTreeMap<Box<[u8]>, Vec<(u64, Sight)>>;

/// What was seen since the snapshot: directory -> name -> looks in the order in which they were taken.
#[derive(Debug, Default)]
pub struct Seen {
    dirs: BTreeMap<DirKey, Names>,
    /// The highest order of a look.
    pub order: u64,
    /// The latest time at which a look was written; 0: there is none.
    pub alive: i64,
}

impl Seen {
    /// Adds a delta file. A last write that was cut short is ignored: its deliveries are still pending in the journal.
    pub fn read(&mut self, path: &Path) -> io::Result<Result<(), Damaged>> {
        let bytes = fs::read(path)?;
        let mut rest = bytes.as_slice();
        loop {
            match seal::open(rest) {
                Ok((payload, len)) => {
                    rest = &rest[len..];
                    let Some(look) = decode_look(payload) else {
                        return Ok(Err(Damaged));
                    };
                    self.order = self.order.max(look.order);
                    self.alive = self.alive.max(look.alive);
                    for (path, sight) in look.sights {
                        self.add(look.order, &path, sight);
                    }
                }
                Err(Stop::End | Stop::Torn) => return Ok(Ok(())),
                Err(Stop::Damaged) => return Ok(Err(Damaged)),
            }
        }
    }

    fn add(&mut self, order: u64, path: &RelPath, sight: Sight) {
        let key = DirKey::new(path);
        let (dir, name) = key.split().unwrap_or_default();
        let looks = self.dirs.entry(dir.clone()).or_default();
        looks.entry(name.into()).or_default().push((order, sight));
        if !matches!(sight, Sight::Present(_)) {
            return;
        }
        // What is in a directory shows that the directory is there, even if nobody looked at it.
        let named = (order, Sight::Present(Stamp::NAMED_DIR));
        let mut below = dir;
        while let Some((dir, name)) = below.split() {
            let looks = self.dirs.entry(dir.clone()).or_default();
            let looks = looks.entry(name.into()).or_default();
            if looks.last() == Some(&named) {
                break;
            }
            looks.push(named);
            below = dir;
        }
    }
}

/// The snapshot with what was seen since laid over it, listing by listing in sorted order.
#[derive(Debug)]
pub struct Known {
    snapshot: Snapshot,
    next: Option<Listing>,
    seen: Seen,
}

impl Known {
    /// Lays `seen` over `snapshot`.
    pub fn new(mut snapshot: Snapshot, mut seen: Seen) -> io::Result<Self> {
        for looks in seen.dirs.values_mut().flat_map(BTreeMap::values_mut) {
            looks.sort_by_key(|(order, _)| *order);
        }
        let next = snapshot.next()?;
        Ok(Self { snapshot, next, seen })
    }

    /// The directory of the next listing.
    pub fn peek(&self) -> Option<&DirKey> {
        let seen = self.seen.dirs.keys().next();
        match &self.next {
            Some(next) => Some(seen.map_or(&next.dir, |seen| seen.min(&next.dir))),
            None => seen,
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
        let entries = base.map(|listing| listing.entries).unwrap_or_default();
        let Some(looks) = self.seen.dirs.remove(&dir) else {
            return Ok(Some(Listing { dir, entries }));
        };
        let mut merged: BTreeMap<_, _> = entries.into_iter().collect();
        for (name, looks) in looks {
            let old = merged.get(&name).copied();
            match fold(old, self.snapshot.header.order, &looks) {
                Some(stamp) => merged.insert(name, stamp),
                None => merged.remove(&name),
            };
        }
        Ok(Some(Listing { dir, entries: merged.into_iter().collect() }))
    }
}

/// The state of one name after all looks at it. In doubt a name stays known: then its absence is noticed.
fn fold(old: Option<Stamp>, snapshot_order: u64, looks: &[(u64, Sight)]) -> Option<Stamp> {
    looks.iter().fold(old, |state, (order, sight)| {
        // A look at the entry alone learns nothing of these.
        let kept = state.map_or(0, |stamp| stamp.flags & (UNKNOWN_BELOW | MOUNT));
        match sight {
            Sight::Present(stamp) if stamp.has(NAME_ONLY) => state.or(Some(*stamp)),
            Sight::Present(stamp) => Some(Stamp { flags: stamp.flags | kept, ..*stamp }),
            Sight::Touched(stamp) => state.map(|state| {
                let is_it = state.has(DIR) && stamp.has(DIR) && state.ino == stamp.ino;
                let ctime = if is_it { stamp.ctime } else { state.ctime };
                Stamp { ctime, ..state }
            }),
            // A look from before the snapshot, written after it, may be outdated.
            Sight::Absent if *order < snapshot_order => state,
            Sight::Absent => None,
        }
    })
}
