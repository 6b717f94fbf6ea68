//! A worker's look at the disk right before a job: what it will put on record if the job succeeds.
//! Does not write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{DIR, DirKey, NAME_ONLY, Sight, Stamp, UNKNOWN_BELOW, encode_sight};
use super::walk::{Wanted, list, look};
use crate::change::Scope;
use crate::path::RelPath;
use crate::seal;

/// A look at more than this many bytes of names is given up: what is below is then not known.
const LOOK_MAX: usize = 16 << 20;

/// What looks are taken with; cheap to clone, one for each worker.
#[derive(Debug, Clone)]
pub struct Eyes {
    root: PathBuf,
    order: Arc<AtomicU64>,
}

/// What was there at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    order: u64,
    sights: Vec<u8>,
}

impl Eyes {
    pub(super) fn new(root: &Path, order: u64) -> Self {
        Self { root: root.to_path_buf(), order: Arc::new(AtomicU64::new(order)) }
    }

    pub(super) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at what a job is about to deliver. Take it *before* rsync starts on these paths.
    pub fn look_at(&self, items: &[(RelPath, Scope)], wanted: Wanted<'_>) -> Look {
        let mut look = Look { order: self.next_order(), sights: Vec::new() };
        let mut last_parent = None;
        for (path, scope) in items {
            let found = self.see(path, &mut look.sights);
            let parent = (path.parent(), found.is_some());
            if last_parent.as_ref() != Some(&parent) {
                self.see_parent(&parent, &mut look.sights);
                last_parent = Some(parent);
            }
            let Some(stamp) = found else {
                continue;
            };
            match scope {
                Scope::Entry => {}
                Scope::Listing => self.see_names(path, wanted, &mut look.sights),
                Scope::Tree if stamp.has(DIR) => {
                    self.see_tree(path, stamp, wanted, &mut look.sights);
                }
                Scope::Tree => {}
            }
        }
        look
    }

    fn see(&self, path: &RelPath, sights: &mut Vec<u8>) -> Option<Stamp> {
        match look(&self.root, path) {
            Ok(Some(stamp)) => {
                encode_sight(sights, path, Sight::Present(stamp));
                Some(stamp)
            }
            Ok(None) => {
                encode_sight(sights, path, Sight::Absent);
                None
            }
            // What cannot be looked at is not put on record: then it is reported at the next start.
            Err(_) => None,
        }
    }

    /// The directory above a path that is there is sent with it; its times change with every name in it.
    fn see_parent(&self, parent: &(Option<RelPath>, bool), sights: &mut Vec<u8>) {
        if let (Some(path), is_sent) = parent
            && let Ok(Some(stamp)) = look(&self.root, path)
        {
            let sight = if *is_sent { Sight::Present(stamp) } else { Sight::Touched(stamp) };
            encode_sight(sights, path, sight);
        }
    }

    /// Only the names were delivered, not what is behind them.
    fn see_names(&self, path: &RelPath, wanted: Wanted<'_>, sights: &mut Vec<u8>) {
        let Ok(listing) = list(&self.root, &DirKey::new(path), wanted) else {
            return;
        };
        for (name, stamp) in &listing.entries {
            if let Some(path) = path.join(name) {
                let stamp = Stamp { flags: stamp.flags & DIR | NAME_ONLY, ..Stamp::default() };
                encode_sight(sights, &path, Sight::Present(stamp));
            }
        }
    }

    fn see_tree(&self, top: &RelPath, stamp: Stamp, wanted: Wanted<'_>, sights: &mut Vec<u8>) {
        let start = sights.len();
        let mut todo = vec![DirKey::new(top)];
        while let Some(key) = todo.pop() {
            let listing = list(&self.root, &key, wanted).ok();
            for (name, stamp) in listing.into_iter().flat_map(|listing| listing.entries) {
                if name.is_empty() {
                    continue;
                }
                if let Some(path) = key.path(&name) {
                    encode_sight(sights, &path, Sight::Present(stamp));
                }
                if stamp.has(DIR) {
                    todo.push(key.join(&name));
                }
            }
            if sights.len() - start > LOOK_MAX {
                sights.truncate(start);
                let flags = stamp.flags | UNKNOWN_BELOW;
                encode_sight(sights, top, Sight::Present(Stamp { flags, ..stamp }));
                return;
            }
        }
    }
}

impl Look {
    /// The look as a frame of the delta.
    pub(super) fn seal(&self, now_ns: i64) -> Vec<u8> {
        let mut frame = Vec::with_capacity(seal::HEAD_LEN + 16 + self.sights.len());
        let start = seal::begin(&mut frame);
        frame.extend_from_slice(&self.order.to_le_bytes());
        frame.extend_from_slice(&now_ns.to_le_bytes());
        frame.extend_from_slice(&self.sights);
        seal::close(&mut frame, start);
        frame
    }
}
