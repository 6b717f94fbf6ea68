//! The state directory of one configuration: finds it, keeps it private, and locks it.
//! Does not know the files in it (journal, record).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use crate::ground::lock::lock as lock_mutex;

/// The name of the lock file in a state directory.
pub const LOCK: &str = "lock";

/// How often, and after which pause, the lock is tried again after its holder was killed. A child of the holder keeps the lock
/// until it has become rsync.
const ORPHAN_TRIES: u32 = 100;
const ORPHAN_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither `XDG_STATE_HOME` nor `HOME` names a place.
    #[error(
        "no place for the state directory: neither XDG_STATE_HOME nor HOME is set; name one with --state-dir DIR"
    )]
    NoHome,
    /// The configuration file cannot be found.
    #[error("cannot find the configuration {}: {source}", path.display())]
    NoConfig {
        /// As the caller named it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works with this configuration.
    #[error("this configuration is already served by {}: stop it first, or use another configuration file (lock: {})",
        holder.map_or("another process".to_string(), |pid| format!("process {pid}")), path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, when it could be read.
        holder: Option<u32>,
    },
    /// The directory belongs to another user, or is a link.
    #[error("cannot use the state directory {}: {reason}; name another one with --state-dir DIR", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// A clause: what is wrong.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {verb} {}: {source}; name another state directory with --state-dir DIR", path.display())]
    Io {
        /// The attempted operation.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl StateError {
    fn no_config(path: &Path, source: io::Error) -> Self {
        Self::NoConfig { path: path.to_path_buf(), source }
    }

    fn io(verb: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { verb, path: path.to_path_buf(), source: source.into() }
    }
}

/// What determines where state directories are.
#[derive(Debug, Clone, Default)]
pub struct StateBases {
    /// `--state-dir DIR`: holds one subdirectory per configuration.
    pub explicit: Option<PathBuf>,
    /// True for uid 0.
    pub is_root: bool,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<OsString>,
    /// `$HOME`.
    pub home: Option<OsString>,
}

impl StateBases {
    /// Those of this process; `explicit` is the argument of `--state-dir`.
    pub fn of_this_process(explicit: Option<PathBuf>) -> Self {
        Self {
            explicit,
            is_root: geteuid().is_root(),
            xdg_state_home: std::env::var_os("XDG_STATE_HOME"),
            home: std::env::var_os("HOME"),
        }
    }

    /// The directory that holds one subdirectory per configuration.
    pub fn base(&self) -> Result<PathBuf, StateError> {
        if let Some(dir) = &self.explicit {
            return Ok(dir.clone());
        }
        if self.is_root {
            return Ok(PathBuf::from("/var/lib/sersync"));
        }
        // The XDG specification says to ignore a relative path.
        let absolute = |text: &Option<OsString>| {
            text.as_ref().map(PathBuf::from).filter(|dir| dir.is_absolute())
        };
        absolute(&self.xdg_state_home)
            .or_else(|| absolute(&self.home).map(|home| home.join(".local/state")))
            .map(|dir| dir.join("sersync"))
            .ok_or(StateError::NoHome)
    }
}

/// The private, locked state directory of one configuration; the lock ends with the value (or the process).
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    config: PathBuf,
    lock: Mutex<File>,
    /// Set when the loss of the directory was reported.
    is_reported: AtomicBool,
}

/// What a start does while another process holds the directory.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long to wait for a holder that has not reported that it stops. Zero: do not wait for any holder.
    pub limit: Duration,
    /// Called with the holder's process id before a wait for a holder that stops. This wait has no limit.
    pub waits: &'a dyn Fn(u32),
}

impl Patience<'_> {
    /// Waits for no holder.
    pub const NONE: Self = Self { limit: Duration::ZERO, waits: &|_| {} };
}

impl StateDir {
    /// Creates and locks the directory for the configuration file `config`. Waits for a holder that is stopping, because restart
    /// scripts do not wait for the end of the old process.
    pub fn open(
        config: &Path,
        places: &StateBases,
        patience: Patience<'_>,
    ) -> Result<Self, StateError> {
        let config = fs::canonicalize(config).map_err(|e| StateError::no_config(config, e))?;
        let base = places.base()?;
        let path = base.join(state_name(&config));
        make_private_dir(&path)?;
        let lock_path = path.join(LOCK);
        let lock = open_lock(&lock_path)?;
        lock_or_wait(&lock, &lock_path, patience)?;
        let (lock, is_reported) = (Mutex::new(lock), AtomicBool::new(false));
        let state = Self { path, config, lock, is_reported };
        state.record_holder()?;
        state.record_config();
        Ok(state)
    }

    /// Writes down the configuration's path, because the directory's name does not determine it.
    fn record_config(&self) {
        // Only the doctor and the list of instances need this file, so ignore a failure.
        _ = fs::write(self.path.join(CONFIG_PATH), self.config.as_os_str().as_bytes());
    }

    /// Calls `report` if the directory, its lock or its journal was deleted while this process holds it, until `report` has
    /// returned true once.
    pub fn report_loss(&self, report: impl FnOnce() -> bool) {
        // Mark it first: once it is reported, the directory may be whole, and the mark gone, before this goes on.
        if self.is_reported.swap(true, Ordering::SeqCst) {
            return;
        }
        if !self.is_lost() || !report() {
            self.is_reported.store(false, Ordering::SeqCst);
        }
    }

    /// True when the directory was deleted, or what this process holds in it.
    pub fn is_lost(&self) -> bool {
        let held = lock_mutex(&self.lock).metadata();
        let found = fs::symlink_metadata(self.path.join(LOCK));
        let is_ours = match (held, found) {
            (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
            (_, Err(e)) => e.kind() != io::ErrorKind::NotFound,
            (Err(_), _) => true,
        };
        // A compaction replaces the journal atomically, so it is never missing.
        !is_ours || is_missing(&self.path.join("journal"))
    }

    /// Creates and locks the directory again after its loss. Call [`StateDir::report_again`] when the journal is there, too.
    pub fn make_again(&self) -> Result<(), StateError> {
        make_private_dir(&self.path)?;
        let lock_path = self.path.join(LOCK);
        let lock = open_lock(&lock_path)?;
        let is_the_old_one = {
            let (held, found) = (lock_mutex(&self.lock).metadata(), lock.metadata());
            matches!((held, found), (Ok(held), Ok(found)) if held.ino() == found.ino())
        };
        if !is_the_old_one {
            lock_or_wait(&lock, &lock_path, Patience::NONE)?;
            *lock_mutex(&self.lock) = lock;
        }
        self.record_config();
        self.record_holder()
    }

    /// The directory holds everything again: another loss is reported.
    pub fn report_again(&self) {
        self.is_reported.store(false, Ordering::SeqCst);
    }

    /// Writes to the lock file that this process is stopping, so that a new start waits for it.
    pub fn mark_stopping(&self) {
        let text = format!("{}{STOPPING}", std::process::id());
        // If this fails, a new start waits only for a short time.
        _ = lock_mutex(&self.lock).write_all_at(text.as_bytes(), 0);
    }

    /// As [`StateDir::open`], but if the operator named no directory and none can be created, the program works without one, as
    /// in read-only containers. The second value is then the reason, which the caller logs later: there is no log yet. A locked
    /// directory is still an error.
    pub fn open_if_possible(
        config: &Path,
        places: &StateBases,
        patience: Patience<'_>,
    ) -> Result<(Option<Self>, Option<StateError>), StateError> {
        match Self::open(config, places, patience) {
            Ok(state) => Ok((Some(state), None)),
            Err(error @ StateError::Locked { .. }) => Err(error),
            Err(error) if places.explicit.is_some() => Err(error),
            Err(error) => Ok((None, Some(error))),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes this process's id to the lock file. Call it again after a fork: the child inherits the lock but has another id.
    pub fn record_holder(&self) -> Result<(), StateError> {
        let text = format!("{}\n", std::process::id());
        let write = || {
            let lock = lock_mutex(&self.lock);
            lock.set_len(0)?;
            lock.write_all_at(text.as_bytes(), 0)
        };
        match write() {
            // The id is only information, so a full disk must not prevent the start.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other.map_err(|e| StateError::io("write", &self.path.join(LOCK), e)),
        }
    }
}

/// A directory name for the canonical path of a configuration: readable, and different for different paths.
pub fn state_name(config: &Path) -> String {
    const READABLE_MAX: usize = 80;
    let bytes = config.as_os_str().as_bytes();
    let readable: String = bytes[bytes.len().saturating_sub(READABLE_MAX)..]
        .iter()
        .map(|&b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' => char::from(b),
            _ => '-',
        })
        .collect();
    let readable = readable.trim_start_matches(['-', '.']);
    format!("{readable}-{:016x}", stable_hash(bytes))
}

/// FNV-1a. Unlike std's hasher, it gives the same number in every version of this program.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The configuration file that a state directory belongs to; `None` if it cannot be read.
pub fn config_of(directory: &Path) -> Option<PathBuf> {
    let config = fs::read(directory.join(CONFIG_PATH)).ok()?;
    Some(PathBuf::from(OsString::from_vec(config)))
}

/// The state directories below `base` that nobody holds and whose configuration file is gone, each with that file's path.
pub fn abandoned(base: &Path) -> Vec<(PathBuf, PathBuf)> {
    let directories = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    let abandoned = |directory: PathBuf| {
        let config = config_of(&directory)?;
        let lock = File::open(directory.join(LOCK)).ok()?;
        let is_free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
        (is_missing(&config) && is_free).then_some((directory, config))
    };
    let mut found: Vec<_> = directories.filter_map(abandoned).collect();
    found.sort();
    found
}

/// The file in the state directory that holds the path of the configuration file.
const CONFIG_PATH: &str = "config-path";

/// Follows the process id in the lock file while the holder is stopping.
const STOPPING: &str = " stopping\n";

fn open_lock(path: &Path) -> Result<File, StateError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(|e| StateError::io("open", path, e))
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Creates `path` and its parent with mode 0700, and checks that no other user can write to `path`. Missing directories further
/// up (`/var/lib`) belong to the system and get mode 0755.
fn make_private_dir(path: &Path) -> Result<(), StateError> {
    let make = |mode, dir: &Path| {
        let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
        made.map_err(|e| StateError::io("make the state directory", path, e))
    };
    if let Some(shared) = path.parent().and_then(Path::parent) {
        make(0o755, shared)?;
    }
    make(0o700, path)?;
    let found = fs::symlink_metadata(path).map_err(|e| StateError::io("look at", path, e))?;
    let wrong = |reason: String| StateError::Unsafe { path: path.to_path_buf(), reason };
    if !found.is_dir() {
        return Err(wrong("it is a symbolic link".into()));
    }
    let own = geteuid().as_raw();
    if found.uid() != own {
        return Err(wrong(format!("it belongs to user {}, not to user {own}", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| StateError::io("make private", path, e))?;
    }
    Ok(())
}

/// The directory of a configuration; it need not exist.
///
/// # Errors
/// When there is no such file, or no place for state.
pub fn directory_of(config: &Path, places: &StateBases) -> Result<PathBuf, StateError> {
    let config = fs::canonicalize(config).map_err(|e| StateError::no_config(config, e))?;
    Ok(places.base()?.join(state_name(&config)))
}

/// The process that holds a state directory, or was the last to hold it.
pub fn holder(directory: &Path) -> Option<u32> {
    read_holder(&File::open(directory.join(LOCK)).ok()?).map(|holder| holder.pid)
}

/// The process that holds a state directory now and is not stopping. Does not touch the lock: a start at this moment would take
/// that for another instance.
pub fn holder_now(directory: &Path) -> Option<u32> {
    let lock = directory.join(LOCK);
    let Holder { pid, is_stopping } = read_holder(&File::open(&lock).ok()?)?;
    let lock = fs::metadata(lock).ok()?;
    // The id alone proves nothing: the kernel may have given it to another process since.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let is_lock = |open: fs::Metadata| (open.dev(), open.ino()) == (lock.dev(), lock.ino());
    let mut open = open.filter_map(|file| fs::metadata(file.path()).ok());
    (!is_stopping && open.any(is_lock)).then_some(pid)
}

fn lock_or_wait(lock: &File, path: &Path, patience: Patience<'_>) -> Result<(), StateError> {
    if try_lock(lock, path)? {
        return Ok(());
    }
    if read_holder(lock).is_some_and(|holder| holder.ends(lock, patience)) {
        for _ in 0..ORPHAN_TRIES {
            if try_lock(lock, path)? {
                return Ok(());
            }
            // No event reports that the lock is free. This happens only after a kill, and ends within milliseconds.
            let _ = poll(&mut [], Some(&ORPHAN_PAUSE));
        }
    }
    let holder = read_holder(lock).map(|holder| holder.pid);
    Err(StateError::Locked { path: path.to_path_buf(), holder })
}

/// The holder of the lock, from the lock file.
#[derive(Debug, Clone, Copy)]
struct Holder {
    pid: u32,
    is_stopping: bool,
}

impl Holder {
    /// Waits for the end of this process; false if it does not end.
    fn ends(self, lock: &File, patience: Patience<'_>) -> bool {
        if patience.limit.is_zero() {
            return false;
        }
        if !self.is_stopping && has_ended(self.pid, Some(patience.limit)) {
            return true;
        }
        // It may have begun to stop meanwhile.
        let is_stopping =
            read_holder(lock).is_some_and(|now| now.is_stopping && now.pid == self.pid);
        if is_stopping {
            (patience.waits)(self.pid);
        }
        is_stopping && has_ended(self.pid, None)
    }
}

/// Takes the lock; false if another process holds it.
fn try_lock(lock: &File, path: &Path) -> Result<bool, StateError> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(StateError::io("lock", path, e)),
    }
}

fn read_holder(lock: &File) -> Option<Holder> {
    let mut text = [0; 64];
    let len = lock.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    let pid = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Holder { pid, is_stopping: text.ends_with(STOPPING) })
}

/// Waits until process `pid` has ended, at most `limit`; false if it still runs.
fn has_ended(pid: u32, limit: Option<Duration>) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return true;
    };
    let end = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(end) => end,
        Err(error) => return error == Errno::SRCH,
    };
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    matches!(poll(&mut [PollFd::new(&end, PollFlags::IN)], limit.as_ref()), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn places(dir: &TempDir) -> StateBases {
        StateBases { explicit: Some(dir.path().join("state")), ..StateBases::default() }
    }

    fn config(dir: &TempDir, name: &str) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, "<head/>").unwrap();
        path
    }

    #[test]
    fn root_and_users_have_their_own_places() {
        let base = |is_root, xdg: Option<&str>, home: Option<&str>| {
            StateBases {
                is_root,
                xdg_state_home: xdg.map(Into::into),
                home: home.map(Into::into),
                ..StateBases::default()
            }
            .base()
        };
        assert_eq!(base(true, None, None).unwrap(), Path::new("/var/lib/sersync"));
        assert_eq!(base(false, Some("/s"), Some("/h")).unwrap(), Path::new("/s/sersync"));
        assert_eq!(
            base(false, Some("relative"), Some("/h")).unwrap(),
            Path::new("/h/.local/state/sersync")
        );
        let error = base(false, None, None).unwrap_err().to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }

    #[test]
    fn names_are_readable_and_differ_where_only_the_punctuation_differs() {
        let a = state_name(Path::new("/etc/sersync/a b.xml"));
        let b = state_name(Path::new("/etc/sersync/a-b.xml"));
        assert!(a.starts_with("etc-sersync-a-b.xml-"), "{a}");
        assert_ne!(a, b);
        assert!(state_name(Path::new(&format!("/{}", "x/".repeat(2000)))).len() <= 255);
    }

    #[test]
    fn second_instance_of_a_configuration_is_told_who_holds_it() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let two = config(&dir, "two.xml");
        let link = dir.path().join("link.xml");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let held = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        let _other = StateDir::open(&two, &places(&dir), Patience::NONE).unwrap();
        let error = StateDir::open_if_possible(&link, &places(&dir), Patience::NONE).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
        drop(held);
        StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
    }

    #[test]
    fn who_holds_it_now_is_known_without_its_lock() {
        let dir = TempDir::new().unwrap();
        let held = StateDir::open(&config(&dir, "one.xml"), &places(&dir), Patience::NONE).unwrap();
        let directory = held.path().to_path_buf();
        assert_eq!(holder_now(&directory), Some(std::process::id()));
        held.mark_stopping();
        assert_eq!(holder_now(&directory), None);
        drop(held);
        // The lock file still names this process.
        fs::write(directory.join(LOCK), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(holder_now(&directory), None);
    }

    #[test]
    fn state_of_a_configuration_that_is_gone_is_found_when_nobody_holds_it() {
        let dir = TempDir::new().unwrap();
        let (one, two) = (config(&dir, "one.xml"), config(&dir, "two.xml"));
        let held = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        StateDir::open(&two, &places(&dir), Patience::NONE).unwrap();
        let base = places(&dir).base().unwrap();
        assert_eq!(abandoned(&base), []);
        fs::remove_file(&one).unwrap();
        assert_eq!(abandoned(&base), [], "it runs");
        let path = held.path().to_path_buf();
        drop(held);
        assert_eq!(
            abandoned(&base),
            [(path, fs::canonicalize(dir.path()).unwrap().join("one.xml"))]
        );
    }

    #[test]
    fn directory_that_is_deleted_is_noticed_once_and_locked_again() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let held = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        let journal = held.path().join("journal");
        fs::write(&journal, "").unwrap();
        let noticed = || {
            let mut noticed = false;
            held.report_loss(|| {
                noticed = true;
                true
            });
            noticed
        };
        assert!(!noticed());
        fs::remove_file(&journal).unwrap();
        held.report_loss(|| false);
        assert!(noticed() && !noticed(), "said once");
        held.make_again().unwrap();
        assert!(!noticed(), "its journal is still being made");
        fs::write(&journal, "").unwrap();
        held.report_again();
        assert!(!noticed());
        fs::remove_dir_all(held.path()).unwrap();
        assert!(noticed());
        held.make_again().unwrap();
        assert!(!noticed(), "its journal is still being made");
        fs::write(&journal, "").unwrap();
        held.report_again();
        assert!(!noticed());
        // It is made again before the report returns.
        fs::remove_file(&journal).unwrap();
        held.report_loss(|| {
            held.make_again().unwrap();
            fs::write(&journal, "").unwrap();
            held.report_again();
            true
        });
        fs::remove_file(&journal).unwrap();
        assert!(noticed(), "the next loss is noticed");
        fs::write(&journal, "").unwrap();
        let error = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap_err();
        assert!(error.to_string().contains("already served"), "{error}");
        drop(held);
        StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
    }

    #[test]
    fn what_another_start_has_made_meanwhile_is_left_to_it() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let held = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        fs::remove_dir_all(held.path()).unwrap();
        let _second = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        fs::write(held.path().join("journal"), "").unwrap();
        assert!(held.is_lost());
        assert!(matches!(held.make_again(), Err(StateError::Locked { .. })));
    }

    #[test]
    fn only_what_is_ours_is_closed_to_others() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let places = StateBases {
            explicit: Some(dir.path().join("var/lib/sersync")),
            ..StateBases::default()
        };
        StateDir::open(&one, &places, Patience::NONE).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("var") & 0o700, mode("var/lib") & 0o500), (0o700, 0o500));
        assert_ne!(mode("var/lib") & 0o055, 0, "unless the umask says so");
        assert_eq!(mode("var/lib/sersync"), 0o700);
    }

    #[test]
    fn directory_is_private_even_when_it_was_not() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let path =
            StateDir::open(&one, &places(&dir), Patience::NONE).unwrap().path().to_path_buf();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        StateDir::open(&one, &places(&dir), Patience::NONE).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn directory_that_is_a_link_or_belongs_to_another_user_is_refused() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let base = places(&dir).base().unwrap();
        fs::create_dir(&base).unwrap();
        let path = base.join(state_name(&fs::canonicalize(&one).unwrap()));
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        let error = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        if geteuid().is_root() {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let error = StateDir::open(&one, &places(&dir), Patience::NONE).unwrap_err();
            assert!(error.to_string().contains("user 12345"), "{error}");
        }
    }

    #[test]
    fn impossible_place_is_a_warning_unless_it_was_asked_for() {
        let dir = TempDir::new().unwrap();
        let one = config(&dir, "one.xml");
        let home = StateBases { home: Some(one.clone().into()), ..StateBases::default() };
        let (none, why) = StateDir::open_if_possible(&one, &home, Patience::NONE).unwrap();
        assert!(none.is_none() && why.is_some());
        let asked = StateBases { explicit: Some(one.clone()), ..StateBases::default() };
        let error = StateDir::open_if_possible(&one, &asked, Patience::NONE).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
