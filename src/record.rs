//! The recorded state of a directory tree: tells after a downtime what was added, changed, moved in or removed.
//! Does not know what is pending (the journal does), and reads no remote.
//!
//! Invariant: an entry's state goes on record after a delivery that began after the observation has succeeded, and before
//! the journal forgets the delivery. So whatever equals its record equals its copy, and the rest is sent again.

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

use baseline::{Delta, Snapshot};
use format::Header;
use merge::{Gate, Turn, deltas_max, go_on, publish, remove, remove_merged, sync_directory_of};

/// The record of one watch root.
#[derive(Debug)]
pub struct Record {
    root: PathBuf,
    /// The path of its files, without their extensions.
    stem: PathBuf,
    generation: u64,
    delta: File,
    delta_len: u64,
    /// Length of the earlier deltas that are not part of the snapshot yet.
    earlier_len: u64,
    /// A merge starts when all deltas together are longer than this.
    merge_above: u64,
    recorder: Recorder,
    /// The snapshot's header; `None`: there is no snapshot.
    found: Option<Header>,
    /// Held by the survey or merge that is under way.
    turn: Turn,
    state: State,
    /// Why a record that was begun is not finished, if so.
    unfinished: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no snapshot yet, so deliveries need not be recorded.
    Blank,
    /// Deliveries are recorded.
    Kept,
    /// A write failed, or the files are damaged. The next start finds that and compares everything.
    Broken,
}

/// A survey that can run on any thread. Give it back to [`Record::keep`], or drop it to keep the old record.
#[derive(Debug)]
pub struct Surveyor {
    paths: survey::Paths,
    header: Header,
    losses: Losses,
    without: WithoutBaseline,
    turn: Turn,
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
        let mut earlier_len = 0;
        for (number, path) in deltas(&stem)? {
            if number <= header.generation {
                remove(&path)?;
                continue;
            }
            earlier_len += fs::metadata(&path)?.len();
            generation = generation.max(number);
            let mut delta = Delta::default();
            // The survey reads it again and reports damage.
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

    /// Notes that changes are watched from now on although no record is finished: if it is not finished at the next start,
    /// everything may have changed. Call it when the watches are set.
    pub fn begin(&self) -> io::Result<()> {
        if self.state != State::Blank || self.unfinished.is_some() {
            return Ok(());
        }
        create(&self.stem.with_extension("begun"))?;
        sync_directory_of(&self.stem)
    }

    /// Changes were lost before the tree was on record: the next survey has to take every entry for changed.
    pub fn set_unfinished(&mut self, reason: &'static str) {
        self.unfinished = Some(reason);
    }

    /// True when there is a record, readable or not.
    pub fn has_snapshot(&self) -> bool {
        self.state != State::Blank
    }

    /// Why everything may have changed although nothing is on record; `None` when this is the first start.
    pub fn why_unfinished(&self) -> Option<&'static str> {
        self.unfinished
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

    /// Takes the observations for this record.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Begins again after the state directory was deleted: nothing is on record until the next survey.
    pub fn start_anew(&mut self) -> io::Result<()> {
        // A survey or merge under way works on deleted files: it must not publish its result.
        *lock(&self.turn) = Gate::Closed;
        self.turn = Arc::new(Mutex::default());
        self.generation += 1;
        self.delta = create(&delta_path(&self.stem, self.generation))?;
        (self.delta_len, self.earlier_len, self.found) = (0, 0, None);
        (self.state, self.unfinished) = (State::Blank, None);
        self.begin()
    }

    /// Records what was observed before a job that has succeeded. Call it *before* the journal forgets the delivery.
    /// When the disk is full, warns once and marks the record as incomplete for the next start.
    pub fn append(&mut self, observation: &Observation) {
        // Without a snapshot, or one in the making, there is nothing to keep up to date.
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
        // A merge under way must not replace it by a readable snapshot.
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

    /// True while a survey or a merge is under way.
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }

    /// Prepares a merge when the deltas are long enough; deliveries go to a new delta from then on.
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

    /// Takes in the result of a merge.
    pub fn merged(&mut self, merged: Merged) {
        if !Arc::ptr_eq(&merged.turn, &self.turn) {
            // The record has begun anew meanwhile.
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

    /// Tries the next merge when the deltas have grown by as much again.
    fn put_off_merge(&mut self, error: &io::Error) {
        let len = self.delta_len + self.earlier_len;
        self.merge_above = len + deltas_max(self.snapshot_len());
        log::warn!(
            "cannot merge the record of {}: {error}; it has {} KB and grows until that is mended",
            self.root.display(),
            len >> 10
        );
    }

    fn snapshot_len(&self) -> u64 {
        fs::metadata(self.stem.with_extension("snapshot")).map_or(0, |found| found.len())
    }

    /// Starts a new delta; returns what is needed to write a snapshot of everything before it.
    fn begin_delta(&mut self, root: Header) -> io::Result<(survey::Paths, Header)> {
        let header = Header {
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

    /// Prepares a survey against what is on record now; what is recorded from now on goes to a new delta.
    pub fn start_survey(&mut self) -> io::Result<Surveyor> {
        if self.is_busy() {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "a survey is under way already"));
        }
        let (paths, header) = self.begin_delta(Header::of_root(&self.root)?)?;
        // The survey's snapshot and the deliveries from now on belong together.
        self.state = State::Kept;
        *lock(&self.turn) = Gate::Open;
        let (losses, without) = (Losses::Accidents, WithoutBaseline::Silent);
        Ok(Surveyor { paths, header, losses, without, turn: Arc::clone(&self.turn) })
    }

    /// Replaces the record by what the survey found. Call it only when every change that it reported is in the journal on disk.
    pub fn keep(&mut self, survey: Surveyor) -> io::Result<()> {
        publish(&survey.turn, &survey.paths)?;
        self.found = Some(survey.header);
        self.unfinished = None;
        self.earlier_len = 0;
        self.merge_above = deltas_max(self.snapshot_len());
        remove_merged(&survey.paths)?;
        // The first record is finished, so its marker goes.
        remove(&self.stem.with_extension("begun"))
    }

    /// Closes the record with a last sign of life, so that the next start doubts few entries. A survey or a merge under way
    /// ends soon; whoever opens the record again waits for that first.
    pub fn close(mut self) {
        let observation = self.recorder.observe(&[], &|_, _| true);
        self.append(&observation);
        *lock(&self.turn) = Gate::Ended;
    }
}

impl Header {
    /// Identifies the directory at `root`.
    fn of_root(root: &Path) -> io::Result<Self> {
        let found = fs::metadata(root)?;
        let fsid = rustix::fs::statvfs(root).map_or(0, |vfs| vfs.f_fsid);
        Ok(Self { dev: found.dev(), fsid, ino: found.ino(), ..Self::default() })
    }
}

impl Surveyor {
    /// Says what a mount point without its file system means; [`Losses::Accidents`] if this is not called.
    pub fn with(self, losses: Losses) -> Self {
        Self { losses, ..self }
    }

    /// Says what is reported where there is no usable record; [`WithoutBaseline::Silent`] if this is not called.
    pub fn without_baseline(self, without: WithoutBaseline) -> Self {
        Self { without, ..self }
    }

    /// Walks the tree on `threads` threads (0: one per processor) and gives what differs from the record to `sink`, sorted by
    /// path. Without a usable record [`Survey::unknown`] says why; the new record is made all the same.
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
