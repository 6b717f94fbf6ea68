//! One journal file on disk: how it is made, written and marked.
//! `journal.rs` knows which of several files is the current journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{COMPLETE_AT, Completeness, FrameSubject, JournalHeader, PAYLOAD_MAX, encode};
use super::replay::{Doubt, Replay};
use super::syncer::Promotion;
use super::{JournalLayout, Owed, Seq};
use crate::state::stable_hash;

/// An open file and how much of it is written.
#[derive(Debug)]
pub struct Volume {
    /// Shared with the thread that makes it durable.
    pub file: Arc<File>,
    /// Bytes written.
    pub len: u64,
    /// Length of header and table: what remains when nothing is pending.
    pub table_len: u64,
    /// Length when it was created.
    pub base_len: u64,
}

impl Volume {
    /// Writes a new journal to `path`, with `owed`. What no delivery under way will cancel gets the number `seq`.
    pub fn create(
        path: &Path,
        layout: &JournalLayout,
        (seq, completeness): (Seq, Completeness),
        owed: impl IntoIterator<Item = Owed>,
    ) -> io::Result<Self> {
        let file = options().truncate(true).open(path)?;
        let header = JournalHeader { completeness, closed: false, boot: boot_number() };
        let mut buffer = header.encode().to_vec();
        encode(&mut buffer, FrameSubject::Table, seq, layout.items());
        let mut volume =
            Self { file: Arc::new(file), len: 0, table_len: buffer.len() as u64, base_len: 0 };
        let mut owed = owed.into_iter().peekable();
        while let Some(first) = owed.next() {
            let (remote, upto) = (first.remote, first.upto);
            let is_alike = |next: &Owed| (next.remote, next.upto) == (remote, upto);
            let mut group = vec![(first.extent, first.path)];
            while let Some(next) = owed.next_if(|next| is_alike(next) && group.len() < 4096) {
                group.push((next.extent, next.path));
            }
            let items = group.iter().map(|(extent, path)| (*extent, path.as_bytes()));
            encode(&mut buffer, FrameSubject::Pending(remote.0 as u32), upto.unwrap_or(seq), items);
            if buffer.len() >= PAYLOAD_MAX {
                volume.write(&buffer)?;
                buffer.clear();
            }
        }
        volume.write(&buffer)?;
        volume.base_len = volume.len;
        Ok(volume)
    }

    /// Opens the file at `path` and marks it incomplete, because no new journal can be written. An empty file counts as
    /// incomplete too.
    pub fn stand_in(path: &Path) -> io::Result<Self> {
        let file = Arc::new(options().open(path)?);
        let len = file.metadata()?.len();
        let volume = Self { file, len, table_len: len, base_len: len };
        volume.mark_incomplete(path);
        Ok(volume)
    }

    /// Appends `bytes`. After a failure the file may end in a torn frame.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Marks in the header whether changes are missing.
    pub fn mark(&self, completeness: Completeness) -> io::Result<()> {
        self.file.write_all_at(&[completeness.marker()], COMPLETE_AT)
    }

    /// Marks in the header that changes are missing. Overwriting one byte needs no space on most file systems; if it does,
    /// the file is truncated, which means the same.
    pub fn mark_incomplete(&self, path: &Path) {
        let marked = match self.mark(Completeness::Incomplete) {
            Ok(()) => Ok(()),
            Err(_) => self.file.set_len(0),
        };
        if let Err(e) = marked.and_then(|()| self.file.sync_data()) {
            log::error!(
                "cannot mark the journal {} as incomplete: {e}; run once with -r after the next start",
                path.display()
            );
        }
    }
}

/// Replaces the journal at `path` by a new one with what `replay` found. A foreign or damaged journal is kept
/// beside it.
pub fn renew(path: &Path, layout: &JournalLayout, replay: &Replay) -> io::Result<Volume> {
    let aside = match replay.doubt {
        Some(Doubt::Damaged) => Some(path.with_extension("damaged")),
        Some(Doubt::Foreign) => Some(path.with_extension("other")),
        _ => None,
    };
    if let Some(aside) = aside {
        // Link a second name instead of renaming, so that there is a journal at every moment.
        let _ = fs::remove_file(&aside);
        match fs::hard_link(path, &aside) {
            Ok(()) => log::warn!("the old journal is kept as {}", aside.display()),
            Err(e) => log::warn!("cannot keep the old journal as {}: {e}", aside.display()),
        }
    }
    let from = next_path(path);
    let owed = layout.remotes().flat_map(|remote| {
        let own = replay.pending(remote);
        own.map(move |(path, extent)| Owed { remote, upto: None, path, extent })
    });
    let create = || {
        let volume = Volume::create(&from, layout, (replay.seq, replay.completeness()), owed)?;
        Promotion { file: Arc::clone(&volume.file), from: from.clone(), to: path.to_path_buf() }
            .carry_out()?;
        Ok(volume)
    };
    create().inspect_err(|_| {
        // Free the space of the unfinished file.
        let _ = fs::remove_file(&from);
    })
}

/// Where the next journal is written before it replaces the current one.
pub fn next_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options
}

/// A number for the running boot of this machine; zero if the kernel does not provide one.
pub fn boot_number() -> u64 {
    fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| stable_hash(&id))
}
