//! The recorded state of a directory tree: tells after a downtime what was added, changed, moved in or removed.
//! Does not know what is pending (the journal does), and reads no remote.
//!
//! The rule that makes it safe: an entry's state goes on record only once a delivery that began after the look at it has
//! succeeded, and before the journal forgets the delivery. Whatever differs from the record may differ from its copy.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::change::Change;
use crate::state::stable_hash;

mod eyes;
pub mod format;
mod known;
mod survey;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use eyes::{Eyes, Look};
pub use survey::{Losses, Survey, Unknown};
pub use walk::Wanted;

use format::Header;
use known::{Seen, Snapshot};

/// Below this length of the delta a merge is not worth the writing.
const WORTH_MERGING: u64 = 8 << 20;

/// The record of one watch root.
#[derive(Debug)]
pub struct Record {
    root: PathBuf,
    /// The files' common beginning.
    stem: PathBuf,
    generation: u64,
    delta: File,
    delta_len: u64,
    snapshot_len: u64,
    eyes: Eyes,
    /// Of the snapshot that was found; `None`: there was none.
    found: Option<Header>,
    /// Held by the survey that is on its way.
    turn: Arc<()>,
    state: State,
    /// True when an earlier start began the first record, and did not get to its end.
    unfinished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no snapshot yet: there is nothing to keep up to date.
    Blank,
    Kept,
    /// Something could not be written; a start will find the record damaged.
    Broken,
}

/// A survey that can be run on any thread. Give it back to [`Record::keep`], or drop it: then the old record stands.
#[derive(Debug)]
pub struct Surveyor {
    paths: survey::Paths,
    header: Header,
    losses: Losses,
    _turn: Arc<()>,
}

impl Record {
    /// Opens (or begins) the record of `root` in the state directory `dir`.
    pub fn open(dir: &Path, root: &Path) -> io::Result<Self> {
        let hash = stable_hash(root.as_os_str().as_bytes());
        let stem = dir.join(format!("record-{hash:016x}"));
        let snapshot_path = stem.with_extension("snapshot");
        let found = match Snapshot::open(&snapshot_path)? {
            Some(Ok(snapshot)) => Some(snapshot.header),
            _ => None,
        };
        let header = found.unwrap_or_default();
        let (mut generation, mut order) = (header.generation, header.order);
        for (number, path) in deltas(&stem)? {
            if number <= header.generation {
                fs::remove_file(path)?;
                continue;
            }
            generation = generation.max(number);
            let mut seen = Seen::default();
            // Damage is found again, and told, by the survey.
            let _ = seen.read(&path)?;
            order = order.max(seen.order);
        }
        let snapshot_len = fs::metadata(&snapshot_path).map_or(0, |found| found.len());
        let unfinished = !snapshot_path.exists() && stem.with_extension("begun").exists();
        Ok(Self {
            unfinished,
            delta: create(&delta_path(&stem, generation + 1))?,
            root: root.to_path_buf(),
            stem,
            generation: generation + 1,
            delta_len: 0,
            snapshot_len,
            eyes: Eyes::new(root, order + 1),
            found,
            turn: Arc::new(()),
            state: if snapshot_path.exists() { State::Kept } else { State::Blank },
        })
    }

    /// True when the root is another directory, or on another file system, than the one that was recorded.
    pub fn is_of_another_root(&self) -> bool {
        let now = Header::of_root(&self.root);
        self.found.is_some_and(|then| now.is_ok_and(|now| !survey::same_file_system(&then, &now)))
    }

    /// True when the root is on another file system than the one that was recorded.
    pub fn is_on_another_file_system(&self) -> bool {
        let now = Header::of_root(&self.root);
        let other = |then: Header, now: Header| {
            !survey::same_file_system(&then, &Header { ino: then.ino, ..now })
        };
        self.found.is_some_and(|then| now.is_ok_and(|now| other(then, now)))
    }

    /// Notes that from now on changes are watched, although the tree is not on record yet: without its record, the next start has
    /// to take everything for changed. Call it when the watches stand.
    pub fn begin(&self) -> io::Result<()> {
        if self.state != State::Blank || self.unfinished {
            return Ok(());
        }
        create(&self.stem.with_extension("begun"))?;
        self.sync_dir()
    }

    /// True when an earlier start ended before the tree was on record.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.stem.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }

    /// How many entries are on record; 0 when that cannot be read.
    pub fn count_known(&self) -> u64 {
        self.count_known_up_to(u64::MAX)
    }

    fn count_known_up_to(&self, enough: u64) -> u64 {
        let known = self.found.map(|found| survey::count_known(&self.paths()?, &found, enough));
        known.unwrap_or(Ok(0)).unwrap_or(0)
    }

    /// True when at least so many entries are on record.
    pub fn knows(&self, enough: u64) -> bool {
        self.count_known_up_to(enough) >= enough
    }

    fn paths(&self) -> io::Result<survey::Paths> {
        Ok(survey::Paths {
            root: self.root.clone(),
            snapshot: self.stem.with_extension("snapshot"),
            new_snapshot: self.stem.with_extension("new"),
            deltas: deltas(&self.stem)?.into_iter().map(|(_, path)| path).collect(),
        })
    }

    /// What workers look with.
    pub fn eyes(&self) -> Eyes {
        self.eyes.clone()
    }

    /// Puts on record what was seen before a job that has succeeded. Call it *before* the journal is told of the delivery.
    /// A full disk is a warning, once; the next start then knows that the record is incomplete.
    pub fn append(&mut self, look: &Look) {
        if self.state != State::Kept {
            return;
        }
        let frame = look.seal(now_ns());
        match self.delta.write_all_at(&frame, self.delta_len) {
            Ok(()) => self.delta_len += frame.len() as u64,
            Err(e) => self.distrust(&e),
        }
    }

    /// Makes the snapshot unreadable: what is on record is no longer all.
    fn distrust(&mut self, error: &io::Error) {
        self.state = State::Broken;
        let path = self.stem.with_extension("snapshot");
        log::warn!(
            "cannot write the record of {}: {error}; work goes on, but a restart will have to sync everything",
            self.root.display()
        );
        let emptied = OpenOptions::new().write(true).open(&path);
        if let Err(e) = emptied.and_then(|file| file.set_len(0)) {
            log::error!(
                "cannot mark {} as incomplete: {e}; remove it before the next start",
                path.display()
            );
        }
    }

    /// True when [`Surveyor::merge`] would pay.
    pub fn is_worth_merging(&self) -> bool {
        self.state == State::Kept
            && self.delta_len > WORTH_MERGING.max(self.snapshot_len / 2)
            && Arc::strong_count(&self.turn) == 1
    }

    /// Prepares a survey (or a merge) of what is on record up to now; what is put on record from now on is kept apart.
    pub fn start_survey(&mut self) -> io::Result<Surveyor> {
        if Arc::strong_count(&self.turn) > 1 {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "a survey is on its way already",
            ));
        }
        let header = Header {
            generation: self.generation,
            order: self.eyes.next_order(),
            alive: now_ns(),
            ..Header::of_root(&self.root)?
        };
        let paths = self.paths()?;
        self.delta = create(&delta_path(&self.stem, self.generation + 1))?;
        self.generation += 1;
        self.delta_len = 0;
        // From here on deliveries are part of the snapshot to come.
        self.state = State::Kept;
        let losses = Losses::Accidents;
        Ok(Surveyor { paths, header, losses, _turn: Arc::clone(&self.turn) })
    }

    /// Replaces the record by what the survey found. Call it only when every change that it reported is in the journal,
    /// durably.
    pub fn keep(&mut self, survey: Surveyor) -> io::Result<()> {
        if self.state == State::Broken {
            return Err(io::Error::other("a delivery could not be put on record meanwhile"));
        }
        fs::rename(&survey.paths.new_snapshot, &survey.paths.snapshot)?;
        self.found = Some(survey.header);
        self.sync_dir()?;
        self.unfinished = false;
        // Beside a record it means nothing any more.
        _ = fs::remove_file(self.stem.with_extension("begun"));
        for delta in &survey.paths.deltas {
            fs::remove_file(delta)?;
        }
        self.snapshot_len = fs::metadata(&survey.paths.snapshot)?.len();
        Ok(())
    }

    /// Ends the record in order: what changed a moment ago is known to be seen.
    pub fn close(mut self) {
        let look = self.eyes.look_at(&[], &|_, _| true);
        self.append(&look);
    }
}

impl Header {
    /// Which directory is at `root` now.
    fn of_root(root: &Path) -> io::Result<Self> {
        let found = fs::metadata(root)?;
        let fsid = rustix::fs::statvfs(root).map_or(0, |vfs| vfs.f_fsid);
        Ok(Self { dev: found.dev(), fsid, ino: found.ino(), ..Self::default() })
    }
}

impl Surveyor {
    /// What a mount point without its file system means; at first an accident.
    pub fn with(self, losses: Losses) -> Self {
        Self { losses, ..self }
    }

    /// Walks the tree on `threads` threads (0: one per processor) and gives what differs from the record to `sink`, sorted by
    /// path. Without a usable record `sink` gets nothing and [`Survey::unknown`] says why; the new record is made all the same.
    pub fn compare(
        &self,
        wanted: Wanted<'_>,
        threads: usize,
        sink: &mut dyn FnMut(Change),
    ) -> io::Result<Survey> {
        survey::run(&self.paths, &self.header, wanted, sink, self.losses, |meet| {
            walk::walk(&self.paths.root, wanted, threads, meet)
        })
    }

    /// Merges what is on record into one snapshot, without a look at the tree. Fails with `InvalidData` when it is damaged.
    pub fn merge(&self) -> io::Result<()> {
        let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{why:?}"));
        survey::merge(&self.paths, &self.header)?.map_err(damaged)
    }
}

/// The delta files that belong to `stem`, oldest first.
fn deltas(stem: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(dir), Some(name)) = (stem.parent(), stem.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = [name.as_bytes(), b".delta-"].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.as_bytes().strip_prefix(prefix.as_slice());
        let number = number.and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        if let Some(number) = number {
            found.push((number, dir.join(name)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn delta_path(stem: &Path, generation: u64) -> PathBuf {
    stem.with_extension(format!("delta-{generation}"))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}
