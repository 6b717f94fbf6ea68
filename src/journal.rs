//! The journal: an append-only file of changes, each written before it is acted on, and cancelled after its delivery.
//! The engine knows what is pending now; the journal restores that after a crash.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::change::{Change, Extent, RemoteId, RootId, Scope};
use crate::path::RelPath;

pub mod frame;
mod layout;
mod replay;
mod syncer;
#[cfg(test)]
mod tests;
mod volume;

pub use layout::JournalLayout;
pub use replay::{Doubt, Replay};

use frame::{CLOSED_AT, Completeness, FrameSubject, PAYLOAD_MAX, YES, encode};
use syncer::{Promotion, Syncer};
use volume::{Volume, boot_number, next_path, renew};

/// The number of a group of changes; a later group has a higher one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// What a remote lacks, for a journal that is written anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owed {
    /// The remote.
    pub remote: RemoteId,
    /// The number up to which the delivery under way will cancel it; `None` if none is under way.
    pub upto: Option<Seq>,
    /// Which path.
    pub path: RelPath,
    /// How much of it.
    pub extent: Extent,
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A later version of this program wrote it.
    #[error("the journal {} was written by a newer version of this program (format {version}, this one knows {}): \
        start that version, or remove the file and run once with -r", path.display(), frame::VERSION)]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        version: u16,
    },
    /// An I/O error.
    #[error("cannot {verb} the journal {}: {source}; fix that, or name another state directory with --state-dir DIR", path.display())]
    Io {
        /// The attempted operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// The open journal. Calls buffer in memory; [`Journal::commit`] writes.
///
/// Invariant: unless the file is marked incomplete, every committed change is in it (and in its successor, while a compaction is
/// under way).
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    layout: JournalLayout,
    live: Volume,
    /// The compacted journal, until it replaces the old one.
    successor: Option<Volume>,
    syncer: Syncer,
    buffer: Vec<u8>,
    seq: Seq,
    /// Entries recorded since the last job began. They need not be recorded again.
    recent: Recent,
    health: Health,
    walk: WalkState,
}

/// Whether a walk looks for changes that the journal lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkState {
    /// No walk does.
    Over,
    /// A walk does. If the program ends before the walk, the next start has to walk again.
    Awaited,
}

/// Entries with their roots. A deletion is recorded even if an addition of the same path was.
#[derive(Debug, Default)]
struct Recent {
    additions: HashMap<RelPath, RootId>,
    deletions: HashMap<RelPath, RootId>,
}

#[derive(Debug, PartialEq, Eq)]
enum Health {
    Sound,
    /// Set while the file is marked incomplete: how many groups were dropped since the last attempt to rewrite it.
    Incomplete {
        dropped: u64,
    },
}

/// Below this length compaction saves nothing worth an fsync.
const WORTH_COMPACTING: u64 = 1 << 20;
/// Below this length an empty journal is not cut.
const WORTH_CLEARING: u64 = 64 << 10;
/// At most so many entries of each sort are remembered as recorded.
const RECENT_MAX: usize = 10_000;
/// After so many groups an incomplete journal is rewritten.
const GROUPS_BEFORE_MENDING: u64 = 256;

impl Journal {
    /// Opens (or creates) the journal in the state directory `dir`. Returns what was pending; the new journal contains it
    /// already. Logs problems that need no decision.
    pub fn open(dir: &Path, layout: JournalLayout) -> Result<(Self, Replay), JournalError> {
        let path = dir.join("journal");
        let io = |verb, source| JournalError::Io { verb, path: path.clone(), source };
        let replay = match fs::read(&path) {
            Ok(bytes) => Replay::read(&bytes, &layout, boot_number())
                .map_err(|version| JournalError::Newer { path: path.clone(), version })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Replay::fresh(&layout),
            Err(e) => return Err(io("read", e)),
        };
        report(&replay, &path);
        let syncer = Syncer::start().map_err(|e| io("start the thread of", e))?;
        let (live, health) = match renew(&path, &layout, &replay) {
            Ok(live) => (live, Health::Sound),
            Err(e) if is_full(&e) => {
                let live = Volume::stand_in(&path).map_err(|e| io("write", e))?;
                warn_incomplete(&path, &e);
                (live, Health::Incomplete { dropped: 0 })
            }
            Err(e) => return Err(io("write", e)),
        };
        let seq = replay.seq;
        let walk = if replay.needs_walk() { WalkState::Awaited } else { WalkState::Over };
        let journal = Self {
            path,
            layout,
            live,
            successor: None,
            syncer,
            buffer: Vec::new(),
            seq,
            recent: Recent::default(),
            health,
            walk,
        };
        Ok((journal, replay))
    }

    /// The roots and remotes that it knows.
    pub fn layout(&self) -> &JournalLayout {
        &self.layout
    }

    /// False while the file lacks changes, because it could not be written.
    pub fn is_complete(&self) -> bool {
        self.health == Health::Sound
    }

    /// Changes were missed, and a walk looks for them. Until [`Journal::walk_over`], the next start must do the same.
    pub fn await_walk(&mut self) {
        self.set_walk(WalkState::Awaited);
    }

    /// True while a walk looks for changes that the journal lacks.
    pub fn awaits_walk(&self) -> bool {
        self.walk == WalkState::Awaited
    }

    /// The walk is over. Call it when everything that it has found is in the journal on disk.
    pub fn walk_over(&mut self) {
        self.set_walk(WalkState::Over);
    }

    fn set_walk(&mut self, walk: WalkState) {
        if std::mem::replace(&mut self.walk, walk) == walk || self.health != Health::Sound {
            return;
        }
        self.adopt_successor();
        let mut volumes = self.successor.iter().chain([&self.live]);
        let marked = volumes.try_for_each(|volume| volume.mark(walk.completeness()));
        drop(volumes);
        match marked {
            Ok(()) => self.syncer.sync(&self.live.file),
            Err(e) => self.become_incomplete(&e),
        }
    }

    /// A job begins. Returns the number of the last group of changes: the job delivers what changed up to it. Later changes are
    /// recorded again, even of the same path.
    pub fn begin_job(&mut self) -> Seq {
        self.recent.clear();
        self.seq
    }

    /// Records that `changes` below `root` are pending for all its remotes. Call it, and commit, before acting on them.
    pub fn append_changes(&mut self, root: RootId, changes: &[Change]) -> Seq {
        let recent = &mut self.recent;
        let news: Vec<_> = changes.iter().filter(|change| recent.is_news(root, change)).collect();
        if news.is_empty() {
            return self.seq;
        }
        let items = news.into_iter().map(|change| (change.extent(), change.path.as_bytes()));
        self.append(FrameSubject::Changed(root.0 as u32), items)
    }

    /// Records that `items` are pending for `remote` alone (a full sync of one remote, the parts of a larger hint).
    pub fn append_pending(&mut self, remote: RemoteId, items: &[(RelPath, Extent)]) -> Seq {
        let items = items.iter().map(|(path, extent)| (*extent, path.as_bytes()));
        self.append(FrameSubject::Pending(remote.0 as u32), items)
    }

    /// Records that `remote` holds `items` as they were after change `upto`, which [`Journal::begin_job`] gave.
    pub fn append_delivered(&mut self, remote: RemoteId, upto: Seq, items: &[(RelPath, Extent)]) {
        let items = items.iter().map(|(path, extent)| (*extent, path.as_bytes()));
        let subject = FrameSubject::Delivered(remote.0 as u32);
        encode(&mut self.buffer, subject, upto, items);
    }

    fn append<'a>(
        &mut self,
        subject: FrameSubject,
        items: impl Iterator<Item = (Extent, &'a [u8])>,
    ) -> Seq {
        self.seq.0 += 1;
        encode(&mut self.buffer, subject, self.seq, items);
        self.seq
    }

    /// Writes what was appended, which then survives the end of this process. A separate thread makes it durable against a
    /// power failure right afterwards. A full disk is one warning, and the journal is marked incomplete.
    pub fn commit(&mut self) {
        self.adopt_successor();
        if let Some(e) = self.syncer.take_failure() {
            self.become_incomplete(&e);
        }
        if self.buffer.is_empty() {
            return;
        }
        if let Health::Incomplete { dropped } = &mut self.health {
            *dropped += 1;
        } else if let Err(e) = self.write_buffer() {
            self.become_incomplete(&e);
        } else {
            self.syncer.sync(&self.live.file);
        }
        self.buffer.clear();
        self.buffer.shrink_to(PAYLOAD_MAX);
    }

    /// As [`Journal::commit`], but returns only when it is durable.
    pub fn commit_durably(&mut self) {
        self.commit();
        // A successor that takes the journal's place now holds what was appended after its own sync.
        self.syncer.finish();
        self.adopt_successor();
        self.syncer.sync(&self.live.file);
        self.syncer.finish();
        self.commit();
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.live.write(&self.buffer)?;
        match &mut self.successor {
            Some(successor) => successor.write(&self.buffer),
            None => Ok(()),
        }
    }

    /// True when [`Journal::compact`] would pay; `pending` is 0 when it would be given nothing.
    pub fn is_worth_compacting(&self, pending: usize) -> bool {
        if self.successor.is_some() {
            return false;
        }
        match self.health {
            Health::Incomplete { dropped } => pending == 0 || dropped >= GROUPS_BEFORE_MENDING,
            Health::Sound if pending == 0 => self.live.len > WORTH_CLEARING,
            Health::Sound => self.live.len > 2 * self.live.base_len + WORTH_COMPACTING,
        }
    }

    /// Starts a new journal that contains only `owed`: everything that any remote lacks now. It replaces the old one when it is
    /// durable, in the background. A failure leaves the old one unchanged. This also repairs an incomplete journal.
    pub fn compact(&mut self, owed: impl IntoIterator<Item = Owed>) {
        self.commit();
        if self.successor.is_some() {
            return;
        }
        let mut owed = owed.into_iter().peekable();
        if owed.peek().is_none() && self.health == Health::Sound {
            return self.clear();
        }
        self.write_anew(owed);
    }

    /// Replaces the layout: writes a new journal, in which `owed` has the new numbers of the remotes. Returns when it is written.
    pub fn change_layout(&mut self, layout: JournalLayout, owed: impl IntoIterator<Item = Owed>) {
        self.commit();
        self.syncer.finish();
        self.adopt_successor();
        self.layout = layout;
        self.recent.clear();
        self.write_anew(owed.into_iter());
        self.syncer.finish();
        let is_written = self.successor.is_some();
        self.adopt_successor();
        if !is_written && self.health == Health::Sound {
            // Anything appended now would be read with the old numbers.
            self.become_incomplete(&io::ErrorKind::StorageFull.into());
        }
    }

    fn write_anew(&mut self, owed: impl Iterator<Item = Owed>) {
        self.seq.0 += 1;
        let from = next_path(&self.path);
        let as_of = (self.seq, self.walk.completeness());
        match Volume::create(&from, &self.layout, as_of, owed) {
            Ok(volume) => {
                self.syncer.promote(Promotion {
                    file: Arc::clone(&volume.file),
                    from,
                    to: self.path.clone(),
                });
                self.successor = Some(volume);
                if self.health != Health::Sound {
                    self.syncer.finish();
                    self.adopt_successor();
                }
            }
            Err(e) => {
                // Free the space of the unfinished file.
                let _ = fs::remove_file(&from);
                log::debug!("cannot compact the journal {}: {e}", self.path.display());
                if let Health::Incomplete { dropped } = &mut self.health {
                    *dropped = 0;
                }
            }
        }
    }

    /// From now on `call` runs after each sync, on the thread that syncs. It must not wait for the journal's owner.
    pub fn after_each_sync(&self, call: impl FnMut() + Send + 'static) {
        self.syncer.after_each_sync(call);
    }

    /// Writes the journal again, with `owed`, after its file has disappeared.
    pub fn make_again(&mut self, owed: impl IntoIterator<Item = Owed>) {
        self.commit();
        // An unfinished successor is missing too, or will be.
        self.syncer.finish();
        self.syncer.take_promoted();
        self.successor = None;
        self.recent.clear();
        self.health = Health::Incomplete { dropped: 0 };
        self.compact(owed);
    }

    /// Cuts the journal: nothing is pending.
    fn clear(&mut self) {
        match self.live.file.set_len(self.live.table_len) {
            Ok(()) => {
                self.live.len = self.live.table_len;
                self.live.base_len = self.live.table_len;
                self.syncer.sync(&self.live.file);
            }
            Err(e) => log::warn!("cannot cut the journal {}: {e}", self.path.display()),
        }
    }

    /// Switches to the compacted journal after it has replaced the old file.
    fn adopt_successor(&mut self) {
        let Some(result) = self.syncer.take_promoted() else {
            return;
        };
        let Some(successor) = self.successor.take() else {
            return;
        };
        match result {
            Ok(()) => {
                if self.health != Health::Sound {
                    log::info!("the journal {} is complete again", self.path.display());
                }
                self.live = successor;
                self.health = Health::Sound;
            }
            Err(e) => log::warn!(
                "cannot replace the journal {}: {e}; the old one goes on",
                self.path.display()
            ),
        }
    }

    /// Marks the journal incomplete: the next start will treat everything as pending.
    fn become_incomplete(&mut self, error: &io::Error) {
        if self.health == Health::Sound {
            warn_incomplete(&self.path, error);
        }
        self.health = Health::Incomplete { dropped: 0 };
        // An unfinished successor would replace the marked file.
        self.syncer.finish();
        self.syncer.take_promoted();
        for volume in self.successor.take().iter().chain([&self.live]) {
            volume.mark_incomplete(&self.path);
        }
    }

    /// Closes the journal: everything is durable, and the next start knows that nothing was cut off.
    pub fn close(mut self) {
        self.commit_durably();
        if self.health == Health::Sound {
            let closed = self.live.file.write_all_at(&[YES], CLOSED_AT);
            if let Err(e) = closed.and_then(|()| self.live.file.sync_data()) {
                log::warn!("cannot close the journal {}: {e}", self.path.display());
            }
        }
    }
}

impl WalkState {
    /// What a journal that was written says of itself.
    fn completeness(self) -> Completeness {
        match self {
            Self::Over => Completeness::Complete,
            Self::Awaited => Completeness::UntilWalk,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn warn_incomplete(path: &Path, error: &io::Error) {
    log::warn!(
        "cannot write the journal {}: {error}; work goes on, but a restart will have to look at everything",
        path.display()
    );
}

impl Recent {
    fn clear(&mut self) {
        self.additions.clear();
        self.deletions.clear();
    }

    /// False for an entry that was recorded since the last job began: a file that is written all the time is recorded once
    /// for each job, not for each write.
    fn is_news(&mut self, root: RootId, change: &Change) -> bool {
        let Extent { scope, additive } = change.extent();
        if scope != Scope::Entry {
            return true;
        }
        let known = if additive { &mut self.additions } else { &mut self.deletions };
        if known.get(&change.path) == Some(&root) {
            return false;
        }
        if known.len() < RECENT_MAX {
            known.insert(change.path.clone(), root);
        }
        true
    }
}

/// Warns of problems of the journal that was found.
fn report(replay: &Replay, path: &Path) {
    let path = path.display();
    let doubt = replay.doubt.map(|doubt| match doubt {
        Doubt::Damaged => "is damaged",
        Doubt::Incomplete => "lacks changes (full disk)",
        Doubt::Foreign => "is of another configuration",
        Doubt::TooMany => "holds very many changes",
    });
    if let Some(doubt) = doubt {
        log::warn!(
            "the journal {path} {doubt}: everything will be synced; a path that is gone here is deleted on the remotes if the \
             journal or the record of the tree names it (any other only with -r)"
        );
    }
    if replay.walk_unfinished {
        log::warn!(
            "the last run ended before it had found the changes that it missed: they are looked for now"
        );
    }
    if replay.torn_bytes > 0 {
        let bytes = replay.torn_bytes;
        log::warn!("the journal {path} ends in an unfinished write: {bytes} bytes dropped");
    }
    if replay.power_lost {
        log::warn!(
            "the machine lost power or crashed while this configuration was mirrored: changes that were lost then are looked for"
        );
    }
}
