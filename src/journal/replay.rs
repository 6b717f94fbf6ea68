//! Reads a journal: which paths are still pending for which remote. Pure; does not touch the disk.
//! In doubt it returns too much: sending a path again costs time, a forgotten path is lost.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::frame::{
    Completeness, Frame, FrameSubject, HEADER_LEN, JournalHeader, decode_extent, encode_extent,
    parse_frame,
};
use super::{JournalLayout, Seq};
use crate::change::{Extent, RemoteId, RootId, Scope};
use crate::path::RelPath;
use crate::seal::NoFrame;

/// Above this number of paths, everything is pending instead, so that memory stays bounded.
const MARKS_MAX: usize = 1_500_000;
/// Remotes of one root beyond this rank share a bit that no delivery clears.
const RANK_SHARED: usize = 63;

/// Why everything is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The journal is damaged in the middle.
    Damaged,
    /// The disk was full: some changes are not in the journal.
    Incomplete,
    /// It is the journal of a configuration that shares no remote with this one.
    Foreign,
    /// It holds too many paths to keep them apart.
    TooMany,
}

/// What was pending when the journal was last written.
#[derive(Debug)]
pub struct Replay {
    /// No journal was there: the first start with this configuration (or its state was deleted).
    pub fresh: bool,
    /// Set when everything is pending for every remote, and why. Nothing is deleted for that: only the deletions that can
    /// be read are pending, and a walk finds what is gone of the recorded tree.
    pub doubt: Option<Doubt>,
    /// A walk was looking for missed changes when the program ended.
    pub walk_unfinished: bool,
    /// Remotes that the journal did not know: everything is pending for them. Nothing is deleted for that.
    pub new_remotes: Vec<RemoteId>,
    /// Bytes of an unfinished last write that were dropped.
    pub torn_bytes: usize,
    /// The machine was rebooted since, and the journal was not closed: a power failure or a kernel crash. The
    /// last seconds of both the journal and the source tree may be missing.
    pub power_lost: bool,
    pub(super) seq: Seq,
    layout: JournalLayout,
    roots: Vec<Marks>,
}

/// Pending paths of one root. The key is the path, a NUL and the extent's letter, so a path's marks are neighbours.
type Marks = BTreeMap<Box<[u8]>, Mark>;

#[derive(Debug, Clone)]
struct Mark {
    /// The youngest change.
    seq: Seq,
    /// One bit for each remote of the root that lacks it.
    owed: u64,
    /// The remotes whose youngest change is an older one. Most changes are recorded for all remotes at once.
    older: Vec<(Seq, u64)>,
}

impl Replay {
    /// The replay where there is no journal.
    pub(super) fn fresh(layout: &JournalLayout) -> Self {
        Self {
            fresh: true,
            doubt: None,
            walk_unfinished: false,
            new_remotes: Vec::new(),
            torn_bytes: 0,
            power_lost: false,
            seq: Seq(0),
            layout: layout.clone(),
            roots: vec![Marks::new(); layout.root_count()],
        }
    }

    /// Reads a journal; `boot` is the running boot (zero: unknown). Fails with the version of a newer program's journal.
    pub fn read(bytes: &[u8], layout: &JournalLayout, boot: u64) -> Result<Self, u16> {
        Self::read_up_to(bytes, layout, boot, MARKS_MAX)
    }

    /// The same, with at most about `marks_max` marks.
    pub(super) fn read_up_to(
        bytes: &[u8],
        layout: &JournalLayout,
        boot: u64,
        marks_max: usize,
    ) -> Result<Self, u16> {
        let mut replay = Self { fresh: false, ..Self::fresh(layout) };
        match JournalHeader::decode(bytes) {
            Err(Some(version)) => return Err(version),
            Err(None) => replay.doubt = Some(Doubt::Damaged),
            Ok(header) => {
                replay.power_lost = !header.closed && header.boot != boot && boot != 0;
                replay.walk_unfinished = header.completeness == Completeness::UntilWalk;
                if header.completeness == Completeness::Incomplete {
                    replay.doubt = Some(Doubt::Incomplete);
                }
                replay.read_frames(&bytes[HEADER_LEN..], marks_max);
            }
        }
        if replay.doubt.is_some() {
            replay.keep_deletions();
            let all: Vec<_> = replay.layout.remotes().collect();
            replay.owe_everything(&all, ADDITIONS);
        }
        Ok(replay)
    }

    /// True when the next walk must not be left out: it finds changes that are not in the journal.
    pub fn needs_walk(&self) -> bool {
        self.doubt.is_some() || self.walk_unfinished || self.power_lost
    }

    /// Whether every change is in a journal that is made from this.
    pub(super) fn completeness(&self) -> Completeness {
        match self.needs_walk() {
            true => Completeness::UntilWalk,
            false => Completeness::Complete,
        }
    }

    /// Replaces all marks by one for everything, with deletions: their names are lost.
    fn forget_names(&mut self, remotes: &[RemoteId]) {
        self.roots.iter_mut().for_each(Marks::clear);
        self.owe_everything(remotes, Extent::new(Scope::Tree));
    }

    /// Drops what the one mark for everything covers.
    fn keep_deletions(&mut self) {
        for marks in &mut self.roots {
            marks.retain(|key, _| !extent_of(key).is_some_and(|extent| ADDITIONS.covers(extent)));
        }
    }

    fn read_frames(&mut self, mut bytes: &[u8], marks_max: usize) {
        let table = match parse_frame(bytes) {
            Ok((frame, len)) => {
                bytes = &bytes[len..];
                self.seq = frame.seq;
                JournalLayout::from_frame(&frame)
            }
            Err(_) => None,
        };
        let Some(table) = table else {
            self.doubt = Some(Doubt::Damaged);
            return;
        };
        let here = self.layout.clone();
        let map = Map {
            roots: (0..table.root_count()).map(|root| here.find_root(&table, root)).collect(),
            remotes: table.remotes().map(|remote| here.find_remote(&table, remote.0)).collect(),
        };
        let known: Vec<_> = map.remotes.iter().flatten().copied().collect();
        if known.is_empty() && here.remotes().next().is_some() {
            self.doubt = Some(Doubt::Foreign);
            return;
        }
        loop {
            match parse_frame(bytes) {
                Ok((frame, len)) => {
                    bytes = &bytes[len..];
                    if self.apply(&frame, &map).is_none() {
                        self.doubt = Some(Doubt::Damaged);
                    }
                }
                Err(NoFrame::End) => break,
                Err(NoFrame::Torn) => {
                    self.torn_bytes = bytes.len();
                    break;
                }
                Err(NoFrame::Damaged) => {
                    self.doubt = Some(Doubt::Damaged);
                    break;
                }
            }
            if self.count() > marks_max {
                self.doubt = self.doubt.or(Some(Doubt::TooMany));
                self.keep_deletions();
                // Make room for many more, because this is slow.
                if self.count() > marks_max / 2 {
                    self.forget_names(&known);
                }
            }
        }
        self.new_remotes = here.remotes().filter(|r| !known.contains(r)).collect();
        self.owe_everything(&self.new_remotes.clone(), ADDITIONS);
    }

    fn count(&self) -> usize {
        self.roots.iter().map(Marks::len).sum()
    }

    /// `None` if the frame is invalid although its checksum is right.
    fn apply(&mut self, frame: &Frame<'_>, map: &Map) -> Option<()> {
        if frame.items.iter().any(|(_, p)| RelPath::new(p).is_none()) {
            return None;
        }
        let seq = frame.seq;
        self.seq = self.seq.max(seq);
        match frame.subject {
            FrameSubject::Table => return None,
            FrameSubject::Changed(root) => {
                if let Some(root) = *map.roots.get(root as usize)? {
                    // Everything is pending for a new remote anyway.
                    let known = map.remotes.iter().flatten().copied();
                    let of_root = known.filter(|r| self.layout.root_of(*r) == Some(root));
                    let bits = of_root.fold(0, |bits, r| bits | self.bit(r));
                    self.owe(root, seq, bits, &frame.items);
                }
            }
            FrameSubject::Pending(remote) => {
                if let Some(remote) = *map.remotes.get(remote as usize)? {
                    let root = self.layout.root_of(remote)?;
                    self.owe(root, seq, self.bit(remote), &frame.items);
                }
            }
            FrameSubject::Delivered(remote) => {
                if let Some(remote) = *map.remotes.get(remote as usize)? {
                    let root = self.layout.root_of(remote)?;
                    let bits = clearable(self.bit(remote));
                    for (extent, path) in &frame.items {
                        settle(&mut self.roots[root.0], path, *extent, seq, bits);
                    }
                }
            }
        }
        Some(())
    }

    fn bit(&self, remote: RemoteId) -> u64 {
        1 << self.layout.rank(remote).unwrap_or(0).min(RANK_SHARED)
    }

    fn owe(&mut self, root: RootId, seq: Seq, bits: u64, items: &[(Extent, &[u8])]) {
        for (extent, path) in items {
            let none = Mark { seq: Seq(0), owed: 0, older: Vec::new() };
            let mark = self.roots[root.0].entry(key(path, *extent)).or_insert(none);
            mark.owe(seq, bits);
        }
    }

    fn owe_everything(&mut self, remotes: &[RemoteId], extent: Extent) {
        for &remote in remotes {
            if let Some(root) = self.layout.root_of(remote) {
                let bit = self.bit(remote);
                self.owe(root, self.seq, bit, &[(extent, b"")]);
            }
        }
    }

    /// The paths that any remote of `root` lacks, sorted; a path may be there more than once.
    pub fn paths(&self, root: RootId) -> impl Iterator<Item = RelPath> + '_ {
        let marks = self.roots.get(root.0).into_iter().flatten();
        marks.filter_map(|(key, _)| Some(split_key(key)?.0))
    }

    /// What is pending for `remote`, sorted by path.
    pub fn pending(&self, remote: RemoteId) -> impl Iterator<Item = (RelPath, Extent)> + '_ {
        let bit = self.bit(remote);
        let root = self.layout.root_of(remote);
        let marks = root.and_then(|root| self.roots.get(root.0));
        marks
            .into_iter()
            .flatten()
            .filter(move |(_, mark)| mark.all_owed() & bit != 0)
            .filter_map(|(key, _)| split_key(key))
    }
}

/// The numbers that a journal's roots and remotes have in this configuration; `None`: no longer in it.
struct Map {
    roots: Vec<Option<RootId>>,
    remotes: Vec<Option<RemoteId>>,
}

/// The tree below a root, without deletions. It covers every change that is no deletion.
const ADDITIONS: Extent = Extent { scope: Scope::Tree, additive: true };

fn clearable(bit: u64) -> u64 {
    bit & !(1 << RANK_SHARED)
}

fn key(path: &[u8], extent: Extent) -> Box<[u8]> {
    [path, &[0, encode_extent(extent)]].concat().into()
}

fn extent_of(key: &[u8]) -> Option<Extent> {
    key.last().copied().and_then(decode_extent)
}

fn split_key(key: &[u8]) -> Option<(RelPath, Extent)> {
    let (path, tail) = key.split_at_checked(key.len().checked_sub(2)?)?;
    Some((RelPath::new(path)?, decode_extent(tail[1])?))
}

/// Clears `bits` for everything that a delivery of `path` up to number `upto` covers.
fn settle(marks: &mut Marks, path: &[u8], delivered: Extent, upto: Seq, bits: u64) {
    let stays = |key: &[u8], mark: &mut Mark| {
        let extent = extent_of(key);
        extent.is_some_and(|extent| !delivered.covers(extent)) || mark.settle(upto, bits)
    };
    if delivered.scope == Scope::Tree && path.is_empty() {
        return marks.retain(|key, mark| stays(key, mark));
    }
    // The path's own marks are between "path\0" and "path\1", everything below between "path/" and "path0".
    let below = (delivered.scope == Scope::Tree).then_some([b"/", b"0"]);
    for [from, to] in [[b"\0", b"\x01"]].into_iter().chain(below) {
        let (from, to) = ([path, from].concat(), [path, to].concat());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let settled: Vec<_> = marks
            .range_mut::<[u8], _>(range)
            .filter_map(|(key, mark)| (!stays(key, mark)).then(|| key.clone()))
            .collect();
        settled.iter().for_each(|key| _ = marks.remove(key));
    }
}

impl Mark {
    /// Notes that these remotes lack the change `seq`. For each remote its youngest change counts.
    fn owe(&mut self, seq: Seq, bits: u64) {
        if seq >= self.seq && self.older.is_empty() && self.owed & !bits == 0 {
            (self.seq, self.owed) = (seq, bits);
            return;
        }
        let mut all = std::mem::take(&mut self.older);
        all.push((self.seq, self.owed));
        let younger = all.iter().filter(|(other, _)| *other > seq);
        let bits = bits & !younger.fold(0, |all, (_, owed)| all | owed);
        all.iter_mut().filter(|(other, _)| *other <= seq).for_each(|(_, owed)| *owed &= !bits);
        all.push((seq, bits));
        all.retain(|(_, owed)| *owed != 0);
        all.sort_unstable();
        (self.seq, self.owed) = all.pop().unwrap_or((seq, 0));
        self.older = all;
    }

    /// False when no remote lacks it any longer.
    fn settle(&mut self, upto: Seq, bits: u64) -> bool {
        if self.seq <= upto {
            self.owed &= !bits;
        }
        let older = self.older.iter_mut().filter(|(seq, _)| *seq <= upto);
        older.for_each(|(_, owed)| *owed &= !bits);
        self.older.retain(|(_, owed)| *owed != 0);
        self.all_owed() != 0
    }

    fn all_owed(&self) -> u64 {
        self.older.iter().fold(self.owed, |all, (_, owed)| all | owed)
    }
}
