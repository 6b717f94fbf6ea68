//! The recorded state of a directory tree: shows after a downtime what was added, changed, moved in or removed.
//! Does not know what is pending (the journal does), and does not read remotes.
//!
//! Invariant: an entry's state is recorded only when a delivery that began after its observation has succeeded, and
//! before the journal forgets the delivery. So an entry that equals its record equals its copy; all others are sent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::change::Change;
use crate::ground::lock::lock;
use crate::state::stable_hash;

mod baseline;
pub mod format;
mod merge;
mod recorder;
mod survey;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use merge::{Merged, Merger};
pub use recorder::{Observation, Recorder};
pub use survey::{Losses, Survey, Unknown, WithoutBaseline};
pub use walk::Wanted;

use baseline::{Delta, SnapshotFile};
use format::RecordHeader;
use merge::{Gate, Turn, deltas_max, go_on, publish, remove, remove_merged, sync_directory_of};

/// The record of one watch root.
#[derive(Debug)]
pub struct Record {
    root: PathBuf,
    /// The path of the record's files, without extension.
    stem: PathBuf,
    generation: u64,
    delta: File,
    delta_len: u64,
    /// Total length of earlier deltas that are not merged into the snapshot yet.
    earlier_len: u64,
    /// A merge starts when all deltas together are longer than this.
    merge_above: u64,
    recorder: Recorder,
    /// The snapshot's header; `None` when there is no snapshot.
    found: Option<RecordHeader>,
    /// Shared with the survey or merge that is running.
    turn: Turn,
    state: State,
    /// Why the first record was begun but never finished, if so.
    unfinished: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no snapshot yet, so deliveries need not be recorded.
    Blank,
    /// Deliveries are recorded.
    Kept,
    /// A write failed, or the files are damaged. The next start notices and compares everything.
    Broken,
}

/// A survey that can run on any thread. Pass it to [`Record::keep`], or drop it to keep the old record.
#[derive(Debug)]
pub struct Surveyor {
    paths: survey::Paths,
    header: RecordHeader,
    losses: Losses,
    without: WithoutBaseline,
    turn: Turn,
}

impl Record {
    /// Opens (or creates) the record of `root` in the state directory `dir`.
    pub fn open(dir: &Path, root: &Path) -> io::Result<Self> {
        let hash = stable_hash(root.as_os_str().as_bytes());
        let stem = dir.join(format!("record-{hash:016x}"));
        let snapshot_path = stem.with_extension("snapshot");
        let found = match SnapshotFile::open(&snapshot_path)? {
            Some(Ok(snapshot)) => Some(snapshot.header),
            _ => None,
        };
        let header = found.unwrap_or_default();
        let (mut generation, mut order) = (header.generation, header.order);
        let mut earlier_len = 0;
        for (number, path) in deltas(&stem)? {
            if number <= header.generation {
                remove(&path)?;
                continue;
            }
            earlier_len += fs::metadata(&path)?.len();
            generation = generation.max(number);
            let mut delta = Delta::default();
            // Ignore damage here: the survey reads the file again and reports it.
            let _ = delta.read(&path)?;
            order = order.max(delta.order);
        }
        let snapshot_len = fs::metadata(&snapshot_path).map_or(0, |found| found.len());
        let is_unfinished = !snapshot_path.exists() && stem.with_extension("begun").exists();
        let unfinished =
            is_unfinished.then_some("the first start ended before the tree was on record");
        Ok(Self {
            unfinished,
            delta: create(&delta_path(&stem, generation + 1))?,
            root: root.to_path_buf(),
            stem,
            generation: generation + 1,
            delta_len: 0,
            earlier_len,
            merge_above: deltas_max(snapshot_len),
            recorder: Recorder::new(root, order + 1),
            found,
            turn: Arc::new(Mutex::default()),
            state: if snapshot_path.exists() { State::Kept } else { State::Blank },
        })
    }

    /// True when the root is not the recorded directory, or is on another file system.
    pub fn is_of_another_root(&self) -> bool {
        let now = RecordHeader::of_root(&self.root);
        self.found.is_some_and(|then| now.is_ok_and(|now| !survey::same_file_system(&then, &now)))
    }

    /// True when the root is on another file system than the recorded one.
    pub fn is_on_another_file_system(&self) -> bool {
        let now = RecordHeader::of_root(&self.root);
        let other = |then: RecordHeader, now: RecordHeader| {
            !survey::same_file_system(&then, &RecordHeader { ino: then.ino, ..now })
        };
        self.found.is_some_and(|then| now.is_ok_and(|now| other(then, now)))
    }

    /// Marks the first record as begun. If it is still unfinished at the next start, everything may have changed.
    /// Call it when the watches are set.
    pub fn begin(&self) -> io::Result<()> {
        if self.state != State::Blank || self.unfinished.is_some() {
            return Ok(());
        }
        create(&self.stem.with_extension("begun"))?;
        sync_directory_of(&self.stem)
    }

    /// Notes that changes were lost before the first record was finished: the next survey reports every entry as changed.
    pub fn set_unfinished(&mut self, reason: &'static str) {
        self.unfinished = Some(reason);
    }

    /// True when there is a snapshot, readable or not.
    pub fn has_snapshot(&self) -> bool {
        self.state != State::Blank
    }

    /// Why everything may have changed although there is no record; `None` at the first start.
    pub fn why_unfinished(&self) -> Option<&'static str> {
        self.unfinished
    }

    /// How many entries are on record; 0 when the record cannot be read.
    pub fn count_known(&self) -> u64 {
        self.count_known_up_to(u64::MAX)
    }

    fn count_known_up_to(&self, enough: u64) -> u64 {
        let known = self.found.map(|found| survey::count_known(&self.paths()?, &found, enough));
        known.unwrap_or(Ok(0)).unwrap_or(0)
    }

    /// True when at least `enough` entries are on record.
    pub fn knows(&self, enough: u64) -> bool {
        self.count_known_up_to(enough) >= enough
    }

    fn paths(&self) -> io::Result<survey::Paths> {
        let merged = self.found.map_or(0, |found| found.generation);
        Ok(survey::Paths {
            root: self.root.clone(),
            snapshot: self.stem.with_extension("snapshot"),
            new_snapshot: self.stem.with_extension("new"),
            deltas: deltas(&self.stem)?
                .into_iter()
                .filter(|(number, _)| *number > merged)
                .map(|(_, path)| path)
                .collect(),
        })
    }

    /// The recorder that takes observations for this record.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Starts anew after the state directory was deleted: nothing is on record until the next survey.
    pub fn start_anew(&mut self) -> io::Result<()> {
        // A running survey or merge works on deleted files: it must not publish its result.
        *lock(&self.turn) = Gate::Closed;
        self.turn = Arc::new(Mutex::default());
        self.generation += 1;
        self.delta = create(&delta_path(&self.stem, self.generation))?;
        (self.delta_len, self.earlier_len, self.found) = (0, 0, None);
        (self.state, self.unfinished) = (State::Blank, None);
        self.begin()
    }

    /// Records the observation of a job that has succeeded. Call it *before* the journal forgets the delivery.
    /// If the write fails, warns once and marks the record as incomplete for the next start.
    pub fn append(&mut self, observation: &Observation) {
        // A delta is useless without a snapshot and without a survey that writes one.
        if self.state != State::Kept || self.found.is_none() && !self.is_busy() {
            return;
        }
        let frame = observation.seal(now_ns());
        match self.delta.write_all_at(&frame, self.delta_len) {
            Ok(()) => self.delta_len += frame.len() as u64,
            Err(e) => self.distrust(&e),
        }
    }

    /// Makes the snapshot unreadable, because the record is incomplete from now on.
    fn distrust(&mut self, error: &io::Error) {
        self.state = State::Broken;
        let path = self.stem.with_extension("snapshot");
        log::warn!(
            "cannot write the record of {}: {error}; work goes on, but a restart will have to sync everything",
            self.root.display()
        );
        // A running merge must not replace it with a readable snapshot.
        let mut gate = lock(&self.turn);
        *gate = Gate::Spoiled;
        let emptied = OpenOptions::new().write(true).open(&path);
        if let Err(e) = emptied.and_then(|file| file.set_len(0)) {
            log::error!(
                "cannot mark {} as incomplete: {e}; remove it before the next start",
                path.display()
            );
        }
    }

    /// True while a survey or a merge is running.
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }

    /// Prepares a merge when the deltas are long enough; later deliveries go to a new delta.
    pub fn start_merge(&mut self) -> Option<Merger> {
        let is_due = self.delta_len + self.earlier_len > self.merge_above;
        let found =
            self.found.filter(|_| is_due && self.state == State::Kept && !self.is_busy())?;
        match self.begin_delta(found) {
            Ok((paths, header)) => Some(Merger { paths, header, turn: Arc::clone(&self.turn) }),
            Err(error) => {
                self.put_off_merge(&error);
                None
            }
        }
    }

    /// Handles the result of a merge.
    pub fn merged(&mut self, merged: Merged) {
        if !Arc::ptr_eq(&merged.turn, &self.turn) {
            // The record was started anew meanwhile.
            return;
        }
        match merged.result {
            Ok(()) => {
                self.found = Some(merged.header);
                self.earlier_len = 0;
                self.merge_above = deltas_max(self.snapshot_len());
            }
            Err(error) if self.state == State::Broken => log::debug!("not merged: {error}"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                log::warn!(
                    "the record of {} is damaged; work goes on, but a restart will have to sync everything",
                    self.root.display()
                );
                self.state = State::Broken;
            }
            Err(error) => self.put_off_merge(&error),
        }
    }

    /// Postpones the next merge until the deltas have grown by the usual limit again.
    fn put_off_merge(&mut self, error: &io::Error) {
        let len = self.delta_len + self.earlier_len;
        self.merge_above = len + deltas_max(self.snapshot_len());
        log::warn!(
            "cannot merge the record of {}: {error}; it has {} KB and grows until that is fixed",
            self.root.display(),
            len >> 10
        );
    }

    fn snapshot_len(&self) -> u64 {
        fs::metadata(self.stem.with_extension("snapshot")).map_or(0, |found| found.len())
    }

    /// Starts a new delta; returns what is needed to write a snapshot of everything before it.
    fn begin_delta(&mut self, root: RecordHeader) -> io::Result<(survey::Paths, RecordHeader)> {
        let header = RecordHeader {
            generation: self.generation,
            order: self.recorder.next_order(),
            alive: now_ns(),
            ..root
        };
        let paths = self.paths()?;
        self.delta = create(&delta_path(&self.stem, self.generation + 1))?;
        self.generation += 1;
        self.earlier_len += self.delta_len;
        self.delta_len = 0;
        Ok((paths, header))
    }

    /// Prepares a survey against the current record; later observations go to a new delta.
    pub fn start_survey(&mut self) -> io::Result<Surveyor> {
        if self.is_busy() {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "a survey is already running"));
        }
        let (paths, header) = self.begin_delta(RecordHeader::of_root(&self.root)?)?;
        // Record deliveries from now on: they complete the survey's snapshot.
        self.state = State::Kept;
        *lock(&self.turn) = Gate::Open;
        let (losses, without) = (Losses::Accidents, WithoutBaseline::Silent);
        Ok(Surveyor { paths, header, losses, without, turn: Arc::clone(&self.turn) })
    }

    /// Replaces the record with the survey's snapshot. Call it only when every reported change is in the journal on disk.
    pub fn keep(&mut self, survey: Surveyor) -> io::Result<()> {
        publish(&survey.turn, &survey.paths)?;
        self.found = Some(survey.header);
        self.unfinished = None;
        self.earlier_len = 0;
        self.merge_above = deltas_max(self.snapshot_len());
        remove_merged(&survey.paths)?;
        // The first record is finished, so remove its marker.
        remove(&self.stem.with_extension("begun"))
    }

    /// Closes the record and writes the current time to it, so that the next start doubts few entries. A running survey
    /// or merge ends soon; wait for that before opening the record again.
    pub fn close(mut self) {
        let observation = self.recorder.observe(&[], &|_, _| true);
        self.append(&observation);
        *lock(&self.turn) = Gate::Ended;
    }
}

impl RecordHeader {
    /// Identifies the directory at `root`.
    fn of_root(root: &Path) -> io::Result<Self> {
        let found = fs::metadata(root)?;
        let fsid = rustix::fs::statvfs(root).map_or(0, |vfs| vfs.f_fsid);
        Ok(Self { dev: found.dev(), fsid, ino: found.ino(), ..Self::default() })
    }
}

impl Surveyor {
    /// Sets what a mount point without its file system means; the default is [`Losses::Accidents`].
    pub fn with(self, losses: Losses) -> Self {
        Self { losses, ..self }
    }

    /// Sets what is reported without a usable record; the default is [`WithoutBaseline::Silent`].
    pub fn without_baseline(self, without: WithoutBaseline) -> Self {
        Self { without, ..self }
    }

    /// Walks the tree on `threads` threads (0: one per processor) and passes each difference to `sink`, sorted by path.
    /// Without a usable record [`Survey::unknown`] says why; the new record is still written.
    pub fn compare(
        &self,
        wanted: Wanted<'_>,
        threads: usize,
        sink: &mut dyn FnMut(Change),
    ) -> io::Result<Survey> {
        let lacking = (self.losses, self.without);
        survey::run(&self.paths, &self.header, wanted, sink, lacking, |meet| {
            walk::walk(&self.paths.root, wanted, threads, |found| {
                go_on(&self.turn)?;
                meet(found)
            })
        })
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
