//! Observes the disk right before a job. The record stores the observation when the job has succeeded.
//! Does not write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{
    DIR, DirKey, EntryStamp, EntryState, NAME_ONLY, UNKNOWN_BELOW, decode_entries, encode_entry,
};
use super::walk::{Wanted, list, stamp_of};
use crate::change::Scope;
use crate::path::RelPath;
use crate::seal;

/// A longer observation of a tree is dropped; the record then marks the content of the tree as unknown.
const OBSERVATION_MAX: usize = 16 << 20;

/// Takes observations of one root. Each worker has its clone, which is cheap.
#[derive(Debug, Clone)]
pub struct Recorder {
    root: PathBuf,
    order: Arc<AtomicU64>,
}

/// The state of some paths on disk at one moment.
#[derive(Debug, Clone)]
pub struct Observation {
    order: u64,
    entries: Vec<u8>,
}

impl Recorder {
    pub(super) fn new(root: &Path, order: u64) -> Self {
        Self { root: root.to_path_buf(), order: Arc::new(AtomicU64::new(order)) }
    }

    pub(super) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    /// Observes the paths that a job is about to deliver. Call it *before* rsync starts on them.
    pub fn observe(&self, items: &[(RelPath, Scope)], wanted: Wanted<'_>) -> Observation {
        let mut observation = Observation { order: self.next_order(), entries: Vec::new() };
        let mut last_parent = None;
        for (path, scope) in items {
            let found = self.observe_entry(path, &mut observation.entries);
            let parent = (path.parent(), found.is_some());
            if last_parent.as_ref() != Some(&parent) {
                self.observe_parent(&parent, &mut observation.entries);
                last_parent = Some(parent);
            }
            let Some(stamp) = found else {
                continue;
            };
            match scope {
                Scope::Entry => {}
                Scope::Listing => self.observe_names(path, wanted, &mut observation.entries),
                Scope::Tree if stamp.has(DIR) => {
                    self.observe_tree(path, stamp, wanted, &mut observation.entries);
                }
                Scope::Tree => {}
            }
        }
        observation
    }

    fn observe_entry(&self, path: &RelPath, entries: &mut Vec<u8>) -> Option<EntryStamp> {
        match stamp_of(&self.root, path) {
            Ok(Some(stamp)) => {
                encode_entry(entries, path, EntryState::Present(stamp));
                Some(stamp)
            }
            Ok(None) => {
                encode_entry(entries, path, EntryState::Absent);
                None
            }
            // An entry that cannot be read stays off the record, so the next start reports it as changed.
            Err(_) => None,
        }
    }

    /// Observes the parent, because rsync sends it with an existing path, and its times change with every name in it.
    fn observe_parent(&self, parent: &(Option<RelPath>, bool), entries: &mut Vec<u8>) {
        if let (Some(path), is_sent) = parent
            && let Ok(Some(stamp)) = stamp_of(&self.root, path)
        {
            let state =
                if *is_sent { EntryState::Present(stamp) } else { EntryState::Touched(stamp) };
            encode_entry(entries, path, state);
        }
    }

    /// Observes the names in a directory, without states: a job of scope listing delivers only names.
    fn observe_names(&self, path: &RelPath, wanted: Wanted<'_>, entries: &mut Vec<u8>) {
        let Ok(listing) = list(&self.root, &DirKey::new(path), wanted) else {
            return;
        };
        encode_entry(entries, path, EntryState::Listed);
        for (name, stamp) in &listing.entries {
            if let Some(path) = path.join(name) {
                let stamp =
                    EntryStamp { flags: stamp.flags & DIR | NAME_ONLY, ..EntryStamp::default() };
                encode_entry(entries, &path, EntryState::Present(stamp));
            }
        }
    }

    fn observe_tree(
        &self,
        top: &RelPath,
        stamp: EntryStamp,
        wanted: Wanted<'_>,
        entries: &mut Vec<u8>,
    ) {
        let start = entries.len();
        let mut todo = vec![DirKey::new(top)];
        while let Some(key) = todo.pop() {
            let Ok(listing) = list(&self.root, &key, wanted) else { continue };
            if let Some(directory) = key.path(b"") {
                encode_entry(entries, &directory, EntryState::Listed);
            }
            for (name, stamp) in listing.entries {
                if name.is_empty() {
                    continue;
                }
                if let Some(path) = key.path(&name) {
                    encode_entry(entries, &path, EntryState::Present(stamp));
                }
                if stamp.has(DIR) {
                    todo.push(key.join(&name));
                }
            }
            if entries.len() - start > OBSERVATION_MAX {
                entries.truncate(start);
                let flags = stamp.flags | UNKNOWN_BELOW;
                encode_entry(entries, top, EntryState::Present(EntryStamp { flags, ..stamp }));
                return;
            }
        }
    }
}

impl Observation {
    /// The same names without their states: they get on record if they are not, and nothing on record changes.
    #[must_use]
    pub fn names_only(&self) -> Self {
        let mut entries = Vec::new();
        for (path, state) in decode_entries(&self.entries).into_iter().flatten() {
            if let EntryState::Present(stamp) = state {
                let stamp =
                    EntryStamp { flags: stamp.flags & DIR | NAME_ONLY, ..EntryStamp::default() };
                encode_entry(&mut entries, &path, EntryState::Present(stamp));
            }
        }
        Self { order: self.order, entries }
    }

    /// Encodes the observation as a sealed frame of the delta.
    pub(super) fn seal(&self, now_ns: i64) -> Vec<u8> {
        let mut frame = Vec::with_capacity(seal::HEAD_LEN + 16 + self.entries.len());
        let start = seal::begin(&mut frame);
        frame.extend_from_slice(&self.order.to_le_bytes());
        frame.extend_from_slice(&now_ns.to_le_bytes());
        frame.extend_from_slice(&self.entries);
        seal::close(&mut frame, start);
        frame
    }
}
