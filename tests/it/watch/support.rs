//! A watched directory, and a copy of it that is made only from the reports.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use sersync::change::{Change, RootId, Scope, WatchEvent};
use sersync::config::ChangeSwitches;
use sersync::config::WatchBackend;
use sersync::path::RelPath;
use sersync::watch::{WatchOptions, Watcher};
use tempfile::TempDir;

/// Long enough for a machine under load. A test that waits this long has failed.
pub const LIMIT: Duration = Duration::from_secs(30);

pub const ROOT: RootId = RootId(0);

/// A watched directory.
pub struct Watched {
    pub events: Receiver<WatchEvent>,
    pub watcher: Watcher,
    pub changes: Vec<Change>,
    pub directories: usize,
    pub root: PathBuf,
    _dir: Option<TempDir>,
}

/// The switches of the stock configuration.
pub fn stock_switches() -> ChangeSwitches {
    ChangeSwitches {
        delete: true,
        create_folder: true,
        create_file: false,
        close_write: true,
        move_from: true,
        move_to: true,
        attrib: false,
        modify: false,
    }
}

pub fn options(root: &Path, backend: WatchBackend) -> WatchOptions {
    WatchOptions {
        roots: vec![(ROOT, root.to_path_buf())],
        switches: stock_switches(),
        exclude: None,
        debug: false,
        backend,
        rescan_interval: Duration::from_secs(60),
    }
}

#[expect(clippy::disallowed_methods, reason = "tests wait with a limit")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

pub fn paths(changes: &[Change]) -> Vec<String> {
    let mut paths: Vec<_> = changes.iter().map(|change| change.path.to_string()).collect();
    paths.sort();
    paths.dedup();
    paths
}

pub fn covers(change: &Change, path: &RelPath) -> bool {
    change.path == *path || (change.scope == Scope::Tree && path.is_within(&change.path))
}

/// A temporary directory by its real path.
pub fn temp_dir() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

impl Watched {
    /// Watches a new directory that `prepare` fills.
    pub fn new(backend: WatchBackend, prepare: impl FnOnce(&Path)) -> Self {
        Self::with(backend, prepare, |_| {})
    }

    /// Watches a new directory that `prepare` fills, with other options.
    pub fn with(
        backend: WatchBackend,
        prepare: impl FnOnce(&Path),
        adapt: impl FnOnce(&mut WatchOptions),
    ) -> Self {
        let (dir, root) = temp_dir();
        prepare(&root);
        let mut options = options(&root, backend);
        adapt(&mut options);
        Self { _dir: Some(dir), ..Self::start(options) }
    }

    /// Starts watching, and waits until all watches are set.
    pub fn start(options: WatchOptions) -> Self {
        let (sender, events) = unbounded();
        let roots = options.roots.len();
        let root = options.roots[0].1.clone();
        let is_fanotify = options.backend == WatchBackend::Fanotify;
        let watcher = Watcher::start::<WatchEvent>(options, sender).unwrap();
        if is_fanotify && watcher.backend() != "fanotify" {
            eprintln!("fanotify is not possible here; tried with inotify");
        }
        let mut watched =
            Self { events, watcher, changes: Vec::new(), directories: 0, root, _dir: None };
        for _ in 0..roots {
            match watched.next() {
                WatchEvent::Ready { directories, .. } => watched.directories += directories,
                other => panic!("not ready: {other:?}"),
            }
        }
        watched
    }

    pub fn next(&self) -> WatchEvent {
        self.events.recv_timeout(LIMIT).expect("nothing is reported")
    }

    /// The next event that is not a change.
    pub fn next_news(&mut self) -> WatchEvent {
        loop {
            match self.next() {
                WatchEvent::Changed { changes, .. } => self.changes.extend(changes),
                news => return news,
            }
        }
    }

    /// Collects changes until `done` is true of them.
    pub fn until(&mut self, what: &str, done: impl Fn(&[Change]) -> bool) {
        let deadline = now() + LIMIT;
        while !done(&self.changes) {
            match self.events.recv_deadline(deadline) {
                Ok(WatchEvent::Changed { changes, .. }) => self.changes.extend(changes),
                Ok(other) => panic!("{other:?} while waiting for {what}"),
                Err(_) => panic!("no {what}; only {:#?}", self.changes),
            }
        }
    }

    /// Waits until the path, or the subtree that it is in, is reported.
    pub fn until_path(&mut self, path: &str) {
        let wanted = rel(path);
        self.until(path, |changes| changes.iter().any(|change| covers(change, &wanted)));
    }

    /// Everything that is reported up to now. It creates a file and waits for its report, which follows all earlier ones.
    pub fn all_until_now(&mut self) -> Vec<Change> {
        let last = self.root.join("last");
        fs::write(&last, "x").unwrap();
        self.until("last", |changes| changes.iter().any(|c| c.path == rel("last")));
        fs::remove_file(&last).unwrap();
        self.until("end of last", |changes| {
            changes
                .iter()
                .any(|c| c.path == rel("last") && c.cause == sersync::change::Cause::Delete)
        });
        let mut all = std::mem::take(&mut self.changes);
        all.retain(|change| change.path != rel("last"));
        all
    }

    /// Proves that every directory is watched under its present name: it creates a file in each and waits for the report.
    /// A directory that has just moved may first be reported as a whole; then it is watched.
    pub fn every_directory_is_watched(&mut self) {
        let dirs = Snapshot::of(&self.root).0.into_iter().filter(|(_, entry)| entry.kind == 'd');
        let mut files: Vec<_> = dirs.map(|(path, _)| path.join(b"probe").unwrap()).collect();
        let deadline = now() + LIMIT;
        while !files.is_empty() {
            assert!(now() < deadline, "not watched: {files:?}");
            self.changes.clear();
            for file in &files {
                fs::write(file.below(&self.root), "x").unwrap();
            }
            let reported = self.all_until_now();
            for file in &files {
                fs::remove_file(file.below(&self.root)).unwrap();
            }
            self.all_until_now();
            files.retain(|file| {
                let whole = reported.iter().any(|change| covers(change, file));
                let itself = reported.iter().any(|change| change.path == *file);
                assert!(whole || itself, "not watched: {file}");
                !itself
            });
        }
    }
}

/// The entry at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: char,
    pub content: Vec<u8>,
}

/// The content of a directory by path, or of a copy that is made only from the reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<RelPath, Entry>);

impl Snapshot {
    pub fn of(root: &Path) -> Self {
        let mut snapshot = Self::default();
        snapshot.add_below(root, &RelPath::root());
        snapshot
    }

    /// Makes the copy equal to the disk where the change reports a possible difference.
    pub fn deliver(&mut self, root: &Path, change: &Change) {
        let below = change.scope == Scope::Tree || self.at(root, &change.path).is_none();
        self.0.retain(|path, _| *path != change.path && !(below && path.is_within(&change.path)));
        let mut parent = change.path.parent();
        while let Some(path) = parent.filter(|path| !path.is_root()) {
            match self.at(root, &path) {
                Some(entry) if entry.kind == 'd' => self.0.insert(path.clone(), entry),
                _ => return,
            };
            parent = path.parent();
        }
        if let Some(entry) = self.at(root, &change.path).filter(|_| !change.path.is_root()) {
            if entry.kind != 'd' {
                self.0.retain(|path, _| !path.is_within(&change.path));
            }
            self.0.insert(change.path.clone(), entry);
        }
        match change.scope {
            Scope::Tree => self.add_below(root, &change.path),
            Scope::Listing => self.drop_absent(root, &change.path),
            Scope::Entry => {}
        }
    }

    /// Removes entries that the directory no longer has.
    fn drop_absent(&mut self, root: &Path, dir: &RelPath) {
        let names = self.0.keys().filter(|path| path.parent().as_ref() == Some(dir));
        let absent = names.filter(|path| self.at(root, path).is_none());
        let absent: Vec<_> = absent.cloned().collect();
        self.0.retain(|path, _| !absent.iter().any(|gone| path.is_within(gone)));
    }

    /// Updates the other names of the file at `path`: the kernel reports a write at one name only.
    pub fn deliver_links(&mut self, root: &Path, path: &RelPath) {
        let inode = |path: &RelPath| Some(fs::symlink_metadata(path.below(root)).ok()?.ino());
        let Some(wanted) = inode(path) else { return };
        let files = self.0.iter().filter(|(_, entry)| entry.kind == 'f');
        let same = files.filter(|(path, _)| inode(path) == Some(wanted));
        let same: Vec<_> = same.map(|(path, _)| path.clone()).collect();
        for path in same {
            if let Some(entry) = self.at(root, &path) {
                self.0.insert(path, entry);
            }
        }
    }

    fn add_below(&mut self, root: &Path, dir: &RelPath) {
        if self.at(root, dir).is_none_or(|entry| entry.kind != 'd') {
            return;
        }
        let Ok(entries) = fs::read_dir(dir.below(root)) else {
            return;
        };
        for entry in entries.flatten() {
            let path = dir.join(entry.file_name().as_bytes()).unwrap();
            let Some(found) = self.at(root, &path) else {
                continue;
            };
            let is_dir = found.kind == 'd';
            self.0.insert(path.clone(), found);
            if is_dir {
                self.add_below(root, &path);
            }
        }
    }

    fn at(&self, root: &Path, path: &RelPath) -> Option<Entry> {
        let file = path.below(root);
        let meta = fs::symlink_metadata(&file).ok()?;
        let (kind, content) = match meta.file_type() {
            t if t.is_dir() => ('d', Vec::new()),
            t if t.is_symlink() => {
                ('l', fs::read_link(&file).ok()?.as_os_str().as_bytes().to_vec())
            }
            t if t.is_file() => ('f', fs::read(&file).ok()?),
            _ => ('o', meta.rdev().to_ne_bytes().to_vec()),
        };
        Some(Entry { kind, content })
    }

    /// What differs, for the message of a failed test.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let all = self.0.keys().chain(other.0.keys());
        let mut paths: Vec<_> = all.filter(|p| self.0.get(p) != other.0.get(p)).collect();
        paths.sort();
        paths.dedup();
        let show = |path| format!("{path}: {:?} / {:?}", self.0.get(path), other.0.get(path));
        paths.into_iter().map(show).collect()
    }
}

/// Stops the reader at a path called `gate` until the gate is opened, so that events collect.
#[derive(Clone, Default)]
pub struct Gate(std::sync::Arc<(std::sync::Mutex<Passage>, std::sync::Condvar)>);

#[derive(Default)]
struct Passage {
    is_reached: bool,
    is_open: bool,
}

impl Gate {
    pub fn wait_at(&self, path: &RelPath) {
        if path.name() == Some(b"gate") {
            let mut passage = self.0.0.lock().unwrap();
            passage.is_reached = true;
            self.0.1.notify_all();
            drop(self.0.1.wait_while(passage, |passage| !passage.is_open).unwrap());
        }
    }

    /// Waits until the reader has reached the gate.
    pub fn is_reached(&self) {
        let passage = self.0.0.lock().unwrap();
        let not_yet = |passage: &mut Passage| !passage.is_reached;
        let (_passage, waited) = self.0.1.wait_timeout_while(passage, LIMIT, not_yet).unwrap();
        assert!(!waited.timed_out(), "the reader does not come to the gate");
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }
}
