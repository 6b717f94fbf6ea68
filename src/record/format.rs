//! The file format of the record: snapshot (sorted listings) and delta (later observations). Pure.
//! Does not combine them (`baseline.rs` does).

use crate::path::RelPath;
use crate::seal;

/// The first bytes of every snapshot.
const MAGIC: &[u8; 8] = b"sersyncR";
/// The version that this program writes.
pub const VERSION: u16 = 1;
/// Length of a snapshot's sealed header in bytes.
pub const HEADER_LEN: usize = seal::HEAD_LEN + 58;
/// A frame is sealed when it has grown to this length.
pub const FRAME_LEN: usize = 64 << 10;

/// A directory's path with NUL between the names, so that a directory sorts right before everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirKey(pub Box<[u8]>);

impl DirKey {
    /// The key of `path`.
    pub fn new(path: &RelPath) -> Self {
        let zero = |&b: &u8| if b == b'/' { 0 } else { b };
        Self(path.as_bytes().iter().map(zero).collect())
    }

    /// The path of `name` in this directory; an empty name is the directory itself. `None` when it is not a valid path.
    pub fn path(&self, name: &[u8]) -> Option<RelPath> {
        let slash = |&b: &u8| if b == 0 { b'/' } else { b };
        let dir = RelPath::new(&self.0.iter().map(slash).collect::<Vec<_>>())?;
        if name.is_empty() { Some(dir) } else { dir.join(name) }
    }

    /// The key of the directory `name` in this one.
    pub fn join(&self, name: &[u8]) -> Self {
        let separator: &[u8] = if self.0.is_empty() { b"" } else { b"\0" };
        Self([&self.0, separator, name].concat().into())
    }

    /// The directory that holds this one, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|&b| b == 0) {
            Some(at) => Some((Self(self.0[..at].into()), &self.0[at + 1..])),
            None => Some((Self::default(), &self.0)),
        }
    }

    /// True when this is `other` or below it.
    pub fn is_within(&self, other: &DirKey) -> bool {
        let rest = self.0.strip_prefix(&*other.0);
        other.0.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == 0)
    }
}

/// Flag: a directory.
pub const DIR: u8 = 1;
/// Flag: another file system is mounted there.
pub const MOUNT: u8 = 2;
/// Flag: the content of the directory is not known.
pub const UNKNOWN_BELOW: u8 = 4;
/// Flag: only the name is known, so any state counts as changed.
pub const NAME_ONLY: u8 = 8;

/// Identifies one state of an entry. It uses the change time, because only the kernel can set that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryStamp {
    /// [`DIR`] and the like.
    pub flags: u8,
    /// Inode number.
    pub ino: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime: i64,
}

impl EntryStamp {
    /// A directory of which only the name is known.
    pub const NAMED_DIR: Self = Self { flags: DIR | NAME_ONLY, ino: 0, ctime: 0 };

    /// The same entry when its state is not known any more: any state counts as changed.
    pub fn name_only(self) -> Self {
        let flags = self.flags & (DIR | MOUNT | UNKNOWN_BELOW) | NAME_ONLY;
        Self { flags, ino: 0, ctime: 0 }
    }

    /// True when `flag` is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A directory and its entries, sorted by name. In the root's listing, the empty name is the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Which directory.
    pub dir: DirKey,
    /// Names and states.
    pub entries: Vec<(Box<[u8]>, EntryStamp)>,
}

impl Listing {
    /// The number of entries, not counting the root itself in the root's listing.
    pub fn names(&self) -> u64 {
        self.entries.iter().filter(|(name, _)| !name.is_empty()).count() as u64
    }
}

/// The header of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Device of the root.
    pub dev: u64,
    /// The id of the root's file system from statvfs; zero when it has none.
    pub fsid: u64,
    /// Inode of the root.
    pub ino: u64,
    /// The last delta that is merged into this snapshot.
    pub generation: u64,
    /// Observations with a lower order are older than the snapshot.
    pub order: u64,
    /// When the snapshot was written, in nanoseconds since 1970.
    pub alive: i64,
}

impl RecordHeader {
    /// The header as a sealed frame of [`HEADER_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        let start = seal::begin(&mut out);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for word in [self.dev, self.fsid, self.ino, self.generation, self.order] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.alive.to_le_bytes());
        seal::close(&mut out, start);
        out
    }

    /// Reads a sealed header; `None` when it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(seal::open(bytes).ok()?.0);
        if bytes.take(8)? != MAGIC || bytes.take(2)? != VERSION.to_le_bytes() {
            return None;
        }
        Some(Self {
            dev: bytes.u64()?,
            fsid: bytes.u64()?,
            ino: bytes.u64()?,
            generation: bytes.u64()?,
            order: bytes.u64()?,
            alive: bytes.u64()? as i64,
        })
    }
}

/// Appends one listing to a snapshot frame's payload.
pub fn encode_listing(out: &mut Vec<u8>, dir: &DirKey, entries: &[(Box<[u8]>, EntryStamp)]) {
    put_bytes(out, &dir.0);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (name, stamp) in entries {
        put_bytes(out, name);
        put_stamp(out, *stamp);
    }
}

/// Reads a snapshot frame's payload. An empty payload marks the end of a complete snapshot.
pub fn decode_listings(payload: &[u8]) -> Option<Vec<Listing>> {
    let mut bytes = Bytes(payload);
    let mut listings = Vec::new();
    while !bytes.0.is_empty() {
        let dir = DirKey(bytes.bytes()?.into());
        let count = bytes.u32()?;
        // Reserve nothing: a damaged count must not allocate memory.
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push((bytes.bytes()?.into(), bytes.stamp()?));
        }
        listings.push(Listing { dir, entries });
    }
    Some(listings)
}

/// One entry of a delta: the observed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// It exists, in this state.
    Present(EntryStamp),
    /// A directory has this state after a name in it was removed. It applies only if the directory is on record.
    Touched(EntryStamp),
    /// It does not exist, nor anything below it.
    Absent,
    /// A directory that holds no other names than those in the same observation.
    Listed,
}

/// Appends one entry to a delta frame's payload (which begins with the order and the time, 8 bytes each).
pub fn encode_entry(out: &mut Vec<u8>, path: &RelPath, state: EntryState) {
    match state {
        EntryState::Present(stamp) => {
            out.push(b'p');
            put_stamp(out, stamp);
        }
        EntryState::Touched(stamp) => {
            out.push(b't');
            put_stamp(out, stamp);
        }
        EntryState::Absent => out.push(b'a'),
        EntryState::Listed => out.push(b'l'),
    }
    put_bytes(out, path.as_bytes());
}

/// A delta frame: one observation, with its order and the time when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaFrame {
    /// Later observations have higher numbers.
    pub order: u64,
    /// When it was written, in nanoseconds since 1970.
    pub alive: i64,
    /// The observed entries.
    pub entries: Vec<(RelPath, EntryState)>,
}

/// Reads a delta frame's payload.
pub fn decode_delta_frame(payload: &[u8]) -> Option<DeltaFrame> {
    let mut bytes = Bytes(payload);
    let (order, alive) = (bytes.u64()?, bytes.u64()? as i64);
    Some(DeltaFrame { order, alive, entries: decode_entries(bytes.0)? })
}

/// Reads the entries that [`encode_entry`] has written.
pub fn decode_entries(bytes: &[u8]) -> Option<Vec<(RelPath, EntryState)>> {
    let (mut bytes, mut entries) = (Bytes(bytes), Vec::new());
    while let Some(kind) = bytes.u8() {
        let state = match kind {
            b'p' => EntryState::Present(bytes.stamp()?),
            b't' => EntryState::Touched(bytes.stamp()?),
            b'a' => EntryState::Absent,
            b'l' => EntryState::Listed,
            _ => return None,
        };
        entries.push((RelPath::new(bytes.bytes()?)?, state));
    }
    Some(entries)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_stamp(out: &mut Vec<u8>, stamp: EntryStamp) {
    out.push(stamp.flags);
    put_number(out, stamp.ino);
    out.extend_from_slice(&stamp.ctime.to_le_bytes());
}

/// Appends a number, seven bits in each byte and the lowest first, because most numbers here are small.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A reader over untrusted bytes.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(usize::try_from(len).ok()?)
    }

    fn stamp(&mut self) -> Option<EntryStamp> {
        Some(EntryStamp { flags: self.u8()?, ino: self.number()?, ctime: self.u64()? as i64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn directory_stands_right_before_what_is_below_it() {
        let key = |text: &str| DirKey::new(&RelPath::new(text.as_bytes()).unwrap());
        let sorted = ["", "a", "a/b", "a/b/c", "a/c", "a-b", "b"].map(key);
        assert!(sorted.is_sorted());
        assert_eq!(key("a/b").split(), Some((key("a"), &b"b"[..])), "parent and name");
        assert!(key("a/b").is_within(&key("a")) && !key("a-b").is_within(&key("a")));
        assert_eq!(key("a").join(b"b").path(b"c"), RelPath::new(b"a/b/c"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = RecordHeader::decode(&bytes);
            let _ = decode_listings(&bytes);
            let _ = decode_delta_frame(&bytes);
        }

        #[test]
        fn listings_come_back(
            names in prop::collection::vec((any::<[u8; 3]>(), 0..16u8, any::<u64>(), any::<i64>()), 0..9)
        ) {
            let entry = |&(name, flags, ino, ctime): &([u8; 3], u8, u64, i64)| {
                (Box::from(&name[..]), EntryStamp { flags, ino, ctime })
            };
            let dir = DirKey(b"a\0b".as_slice().into());
            let listing = Listing { dir, entries: names.iter().map(entry).collect() };
            let mut bytes = Vec::new();
            for _ in 0..2 {
                encode_listing(&mut bytes, &listing.dir, &listing.entries);
            }
            prop_assert_eq!(decode_listings(&bytes), Some(vec![listing.clone(), listing]));
        }
    }
}
