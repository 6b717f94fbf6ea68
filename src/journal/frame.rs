//! The journal's file format: a fixed header, then sealed frames. Pure functions over bytes.
//! Does not interpret the frames (replay.rs does).

use super::Seq;
use crate::change::{Extent, Scope};
use crate::seal::{self, NoFrame};

/// The first bytes of every journal.
const MAGIC: &[u8; 8] = b"sersyncJ";
/// The version that this program writes. It also reads version 1, which does not know additive extents.
pub const VERSION: u16 = 2;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 48;
/// The offset of the byte that says whether every change is in the file ([`Completeness`]). It is overwritten in place, because a
/// full disk has no space for anything else.
pub const COMPLETE_AT: u64 = 10;
/// The offset of the byte that says whether the journal was closed in order.
pub const CLOSED_AT: u64 = 11;
/// The value of a marker byte that is set.
pub const YES: u8 = b'Y';
/// The value of a marker byte that is not set.
pub const NO: u8 = b'N';
/// The value of the byte at [`COMPLETE_AT`] for [`Completeness::UntilWalk`]. An older version reads it as [`NO`], which is safe.
const UNTIL_WALK: u8 = b'W';
/// A frame that has this length gets no more items; a longer list is divided into several frames.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// Whether every change is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Every change is.
    Complete,
    /// Changes were missed, as when the kernel drops events, and the walk that finds them has not ended yet.
    UntilWalk,
    /// Changes were not written (full disk); anything may be pending.
    Incomplete,
}

impl Completeness {
    /// Its marker byte.
    pub fn marker(self) -> u8 {
        match self {
            Self::Complete => YES,
            Self::UntilWalk => UNTIL_WALK,
            Self::Incomplete => NO,
        }
    }

    fn of_marker(marker: u8) -> Self {
        match marker {
            YES => Self::Complete,
            UNTIL_WALK => Self::UntilWalk,
            // A damaged marker must not hide a loss.
            _ => Self::Incomplete,
        }
    }
}

/// The content of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHeader {
    /// Whether every change is in the file.
    pub completeness: Completeness,
    /// True: the writer ended in order.
    pub closed: bool,
    /// Which boot of the machine wrote it; zero when unknown.
    pub boot: u64,
}

impl JournalHeader {
    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[COMPLETE_AT as usize] = self.completeness.marker();
        bytes[CLOSED_AT as usize] = if self.closed { YES } else { NO };
        bytes[16..24].copy_from_slice(&self.boot.to_le_bytes());
        bytes
    }

    /// Reads the header; `Err(Some(version))` when a newer program wrote it, `Err(None)` when it is no header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Option<u16>> {
        let bytes: &[u8; HEADER_LEN] = bytes
            .get(..HEADER_LEN)
            .and_then(|head| head.try_into().ok())
            .filter(|head: &&[u8; HEADER_LEN]| head.starts_with(MAGIC))
            .ok_or(None)?;
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if !(1..=VERSION).contains(&version) {
            return Err((version > VERSION).then_some(version));
        }
        let mut boot = [0; 8];
        boot.copy_from_slice(&bytes[16..24]);
        Ok(Self {
            completeness: Completeness::of_marker(bytes[COMPLETE_AT as usize]),
            closed: bytes[CLOSED_AT as usize] == YES,
            boot: u64::from_le_bytes(boot),
        })
    }
}

/// What a frame says about a list of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSubject {
    /// The names of all roots and remotes of the configuration follow; always the first frame.
    Table,
    /// Changed below this root: pending for all its remotes.
    Changed(u32),
    /// Pending for this remote alone.
    Pending(u32),
    /// Delivered to this remote: cancels what is not younger than the frame's number.
    Delivered(u32),
}

/// One frame, borrowed from the journal's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is about.
    pub subject: FrameSubject,
    /// The number of the change, or up to which number was delivered.
    pub seq: Seq,
    /// The paths; in a table, the names of roots (`Scope::Tree`) and remotes (`Scope::Entry`).
    pub items: Vec<(Extent, &'a [u8])>,
}

/// Splits the first frame off `bytes`: the frame and its length.
pub fn parse_frame(bytes: &[u8]) -> Result<(Frame<'_>, usize), NoFrame> {
    let (payload, len) = seal::open(bytes)?;
    let frame = parse_payload(payload).ok_or(NoFrame::Damaged)?;
    Ok((frame, len))
}

fn parse_payload(payload: &[u8]) -> Option<Frame<'_>> {
    let (&kind, rest) = payload.split_first()?;
    let (target, rest) = rest.split_at_checked(4)?;
    let target = u32::from_le_bytes(target.try_into().ok()?);
    let (seq, mut rest) = rest.split_at_checked(8)?;
    let seq = Seq(u64::from_le_bytes(seq.try_into().ok()?));
    let subject = match kind {
        0 => FrameSubject::Table,
        1 => FrameSubject::Changed(target),
        2 => FrameSubject::Pending(target),
        3 => FrameSubject::Delivered(target),
        _ => return None,
    };
    let mut items = Vec::new();
    while let Some((&letter, tail)) = rest.split_first() {
        let (len, tail) = tail.split_at_checked(4)?;
        let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
        let (path, tail) = tail.split_at_checked(len)?;
        items.push((decode_extent(letter)?, path));
        rest = tail;
    }
    Some(Frame { subject, seq, items })
}

/// Appends frames that say `subject` about `items` to `out`; nothing at all when there are no items.
pub fn encode<'a>(
    out: &mut Vec<u8>,
    subject: FrameSubject,
    seq: Seq,
    items: impl IntoIterator<Item = (Extent, &'a [u8])>,
) {
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let start = seal::begin(out);
        let (kind, target) = match subject {
            FrameSubject::Table => (0, 0),
            FrameSubject::Changed(root) => (1, root),
            FrameSubject::Pending(remote) => (2, remote),
            FrameSubject::Delivered(remote) => (3, remote),
        };
        out.push(kind);
        out.extend_from_slice(&target.to_le_bytes());
        out.extend_from_slice(&seq.0.to_le_bytes());
        while out.len() - start < PAYLOAD_MAX {
            let Some((extent, path)) = items.next() else {
                break;
            };
            out.push(encode_extent(extent));
            out.extend_from_slice(&(path.len() as u32).to_le_bytes());
            out.extend_from_slice(path);
        }
        seal::close(out, start);
    }
}

/// The letter of an extent: a capital one is additive.
pub fn encode_extent(extent: Extent) -> u8 {
    let letter = match extent.scope {
        Scope::Entry => b'e',
        Scope::Listing => b'l',
        Scope::Tree => b't',
    };
    if extent.additive { letter.to_ascii_uppercase() } else { letter }
}

/// The extent of a letter.
pub fn decode_extent(letter: u8) -> Option<Extent> {
    let scope = match letter.to_ascii_lowercase() {
        b'e' => Scope::Entry,
        b'l' => Scope::Listing,
        b't' => Scope::Tree,
        _ => return None,
    };
    Some(Extent { scope, additive: letter.is_ascii_uppercase() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_comes_back_and_a_newer_one_is_named() {
        use Completeness::{Complete, Incomplete, UntilWalk};
        for completeness in [Incomplete, UntilWalk, Complete] {
            let header = JournalHeader { completeness, closed: false, boot: 7 };
            assert_eq!(JournalHeader::decode(&header.encode()), Ok(header));
        }
        let header = JournalHeader { completeness: Complete, closed: false, boot: 7 };
        let mut bytes = header.encode();
        bytes[COMPLETE_AT as usize] = 0;
        assert_eq!(JournalHeader::decode(&bytes).unwrap().completeness, Incomplete);
        bytes[8] = 9;
        assert_eq!(JournalHeader::decode(&bytes), Err(Some(9)));
        assert_eq!(JournalHeader::decode(&bytes[..20]), Err(None));
    }

    #[test]
    fn long_list_is_cut_into_frames_without_a_loss() {
        let path = vec![b'x'; 200_000];
        let mut bytes = Vec::new();
        let items = (0..20).map(|_| (Extent::new(Scope::Entry), path.as_slice()));
        encode(&mut bytes, FrameSubject::Changed(0), Seq(1), items);
        let (mut at, mut frames, mut count) = (0, 0, 0);
        while let Ok((frame, len)) = parse_frame(&bytes[at..]) {
            (at, frames, count) = (at + len, frames + 1, count + frame.items.len());
        }
        assert_eq!((at, count), (bytes.len(), 20));
        assert!(frames > 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = JournalHeader::decode(&bytes);
            let _ = parse_frame(&bytes);
        }

        #[test]
        fn one_damaged_byte_is_always_noticed(seq: u64, path: Vec<u8>, at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = Vec::new();
            let item = (Extent::new(Scope::Tree), path.as_slice());
            encode(&mut bytes, FrameSubject::Delivered(3), Seq(seq), [item]);
            prop_assert!(parse_frame(&bytes).is_ok());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(parse_frame(&bytes), Err(NoFrame::Damaged));
        }
    }
}
