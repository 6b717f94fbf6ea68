//! The life of one rsync process: it is started, fed, watched and ended.
//! Does not know what its arguments mean, and does not judge how it ended.

mod feed;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::RunSpec;
use super::confine::{self, Accounts};
use super::exit::{self, Ending};
use super::local::OpenDirectory;
use crate::destination::Destination;
use crate::ground::identity::Identity;
use crate::ground::lock::lock;
use crate::sys;

/// The environment variable with the owner's state directory, set for every rsync of ours.
pub const OWNER: &str = "SERSYNC_STATE";

/// How long unused sessions may take to end by themselves.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// Why a run could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// rsync is not installed.
    #[error("rsync is not installed or not in PATH; install the package rsync")]
    NoRsync,
    /// The watch root cannot be entered.
    #[error("cannot enter the watch root {}: {source}", path.display())]
    Root {
        /// The watch root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The watch root is not the directory that is watched.
    #[error("the watch root {} is not the directory that was watched", path.display())]
    RootChanged {
        /// The watch root.
        path: PathBuf,
    },
    /// The local target directory is not the right one.
    #[error("{0}")]
    NoDestination(String),
    /// The machine lacks something: processes, memory, file descriptors.
    #[error("cannot start rsync: {0}")]
    Spawn(#[source] io::Error),
}

/// When a run in flight is aborted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest time without progress: neither a pipe nor the processes' counters move.
    pub stall: Duration,
    /// How much of standard output is kept, in bytes.
    pub output_max: usize,
}

/// What a run in flight needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its processes work, or wait for a processor or a disk.
    Processor,
    /// They wait for the other side.
    Remote,
}

/// The result of a finished run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub ending: Ending,
    /// Its standard error up to a limit, and its message about skipped deletions from standard output.
    pub stderr: Vec<u8>,
    /// True when it wrote more than was kept.
    pub truncated: bool,
    /// How many bytes it sent to the other side; 0 where the kernel does not count.
    pub sent: u64,
    /// What it wrote to standard output; `None` when that was more than [`Limits::output_max`].
    pub output: Option<Vec<u8>>,
    /// The watch root without links, as the run's messages name it.
    pub root: PathBuf,
}

impl RunReport {
    /// Judges the run; see [`super::exit::judge`].
    pub fn judge(&self, endpoint: &super::Endpoint) -> super::exit::Outcome {
        use std::os::unix::ffi::OsStrExt;
        let is_daemon = matches!(endpoint.destination, Destination::Daemon { .. });
        let proxy = std::env::var("RSYNC_PROXY").ok().filter(|_| is_daemon);
        let places = exit::RunPaths {
            module: &endpoint.destination.name(),
            user: endpoint.destination.user(),
            password_file: endpoint.options.password_file.as_deref(),
            proxy: proxy.as_deref(),
            root: self.root.as_os_str().as_bytes(),
            remote_directory: endpoint.destination.directory(),
        };
        super::exit::judge(self.ending, &self.stderr, self.truncated, &places)
    }
}

/// Ends a run from another thread; cheap to clone.
#[derive(Debug, Clone)]
pub struct Killer(Arc<Mutex<Target>>);

#[derive(Debug)]
struct Target {
    /// The process group; `None` once its leader is reaped: the kernel may reuse the number.
    group: Option<Pid>,
    killed: bool,
    /// It may only go on while it makes progress.
    hurried: bool,
    /// How many bytes it had sent when it was reaped.
    sent: u64,
}

impl Killer {
    /// Kills the run and everything it started. The remote removes its unfinished files by itself.
    pub fn kill(&self) {
        let mut target = lock(&self.0);
        target.killed = true;
        if let Some(group) = target.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// The program stops: from now on the run ends soon if it makes no progress.
    pub fn hurry(&self) {
        lock(&self.0).hurried = true;
    }

    /// True once [`Killer::hurry`] was called.
    fn is_hurried(&self) -> bool {
        lock(&self.0).hurried
    }

    /// True once [`Killer::kill`] was called.
    fn was_used(&self) -> bool {
        lock(&self.0).killed
    }

    /// How many bytes the run has sent so far.
    pub fn sent(&self) -> u64 {
        let target = lock(&self.0);
        // While this lock is held the process is not reaped, so its id is not reused.
        target.group.map_or(target.sent, feed::bytes_sent)
    }

    /// Kills what is left of the process group, and forgets its id.
    fn disarm(&self) {
        let mut target = lock(&self.0);
        if let Some(group) = target.group.take() {
            target.sent = feed::bytes_sent(group);
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A started rsync: connected (or connecting), and waiting for its standard input.
///
/// Invariant: dropping it ends its process group and leaves no zombie.
#[derive(Debug)]
pub struct Session {
    child: Child,
    pidfd: OwnedFd,
    killer: Killer,
    spec: RunSpec,
    expected: Option<Identity>,
    places: Opened,
    /// The account files at the start; `None` for an unconfined run, which can also read replaced files.
    accounts: Option<Accounts>,
    reaped: Option<ExitStatus>,
}

/// Where a run reads and writes.
#[derive(Debug)]
struct Opened {
    /// The watch root without links.
    root: PathBuf,
    /// The path by which the run reaches its local target directory.
    pinned: Option<String>,
}

impl Session {
    /// Starts a run and returns at once. With `expected`, it starts only inside that very directory.
    ///
    /// # Errors
    /// When rsync or the watch root is missing, the root is another directory, or no process can be made.
    pub fn start(spec: &RunSpec, expected: Option<Identity>) -> Result<Self, StartError> {
        let in_root = |source| StartError::Root { path: spec.root.clone(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(&spec.root, flags, Mode::empty()).map_err(|e| in_root(e.into()))?;
        let found = Identity::of_open(&dir).map_err(in_root)?;
        if expected.is_some_and(|expected| expected != found) {
            return Err(StartError::RootChanged { path: spec.root.clone() });
        }
        let root = std::fs::read_link(descriptor_path(&dir)).unwrap_or_else(|_| spec.root.clone());
        let destination = match spec.local.as_ref().map(|local| local.open()) {
            Some(opened) => Some(opened.map_err(StartError::NoDestination)?),
            None => None,
        };
        let accounts = Accounts::now();
        let (child, is_confined) = spawn(spec, &dir, destination.as_ref())?;
        let pinned = destination.map(|destination| destination.path());
        let mut session = Self::adopt(child, spec, expected, Opened { root, pinned })?;
        session.accounts = is_confined.then_some(accounts);
        Ok(session)
    }

    fn adopt(
        mut child: Child,
        spec: &RunSpec,
        expected: Option<Identity>,
        places: Opened,
    ) -> Result<Self, StartError> {
        let pid = Pid::from_child(&child);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                return Err(StartError::Spawn(error.into()));
            }
        };
        let target = Target { group: Some(pid), killed: false, hurried: false, sent: 0 };
        Ok(Self {
            child,
            pidfd,
            killer: Killer(Arc::new(Mutex::new(target))),
            spec: spec.clone(),
            expected,
            places,
            accounts: None,
            reaped: None,
        })
    }

    /// The process id of rsync.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started for.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// A handle that ends it from another thread.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// False once it has ended by itself, or can no longer look up users and groups.
    pub fn is_alive(&self) -> bool {
        !self.has_ended() && !self.has_lost_accounts()
    }

    /// True once it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// True when account files were replaced. A confined run cannot read the new ones, and would send numbers instead of names.
    pub fn has_lost_accounts(&self) -> bool {
        self.accounts.is_some_and(|accounts| accounts != Accounts::now())
    }

    /// Writes `input`, closes standard input, and waits for the end of the run.
    ///
    /// A run whose watch root has been replaced gets nothing and is ended.
    pub fn feed(self, input: &[u8], limits: Limits) -> RunReport {
        self.feed_and(input, limits, &mut |_| {})
    }

    /// [`Self::feed`] that also reports from time to time what the run needs.
    pub fn feed_and(
        mut self,
        input: &[u8],
        limits: Limits,
        needs: &mut dyn FnMut(Need),
    ) -> RunReport {
        let same_root = self.expected.is_none_or(|expected| {
            Identity::of(&self.spec.root).is_ok_and(|found| found == expected)
        });
        // A session may have waited for a long time: do not send to a directory that has been unmounted.
        let lost = self.spec.local.as_ref().and_then(|local| local.open().err());
        let fed = match lost {
            _ if !same_root => feed::Fed::aborted(Ending::RootChanged),
            Some(_) => feed::Fed::aborted(Ending::NoDestination),
            None => feed::feed(&mut self, input, limits, needs),
        };
        let status = self.reap();
        let sent = self.killer.sent();
        let ending = match fed.ending.unwrap_or_else(|| self.ending(status)) {
            Ending::Code(0 | 23 | 24) if fed.deaf => Ending::Deaf,
            Ending::Code(0 | 23 | 24) if self.has_lost_accounts() => Ending::AccountsChanged,
            ending => ending,
        };
        RunReport {
            ending,
            stderr: self.shown(fed.stderr),
            truncated: fed.truncated,
            sent,
            output: fed.output,
            root: self.places.root.clone(),
        }
    }

    /// rsync's messages with the paths that the operator knows.
    fn shown(&self, stderr: Vec<u8>) -> Vec<u8> {
        match (&self.spec.local, &self.places.pinned) {
            (Some(local), Some(pinned)) => local.unpinned(stderr, pinned),
            _ => stderr,
        }
    }

    /// Ends sessions that are not needed: each gets an empty list and ends. After half a second the rest is killed.
    pub fn close_all(mut sessions: Vec<Self>) {
        sessions.iter_mut().for_each(|session| drop(session.child.stdin.take()));
        let end = now() + CLOSE_PATIENCE;
        for session in &sessions {
            session.ends_within(end.saturating_duration_since(now()));
        }
    }

    fn ending(&self, status: Option<ExitStatus>) -> Ending {
        use std::os::unix::process::ExitStatusExt;
        let code = status.and_then(|status| status.code());
        if self.killer.was_used() && code.is_none() {
            return Ending::Killed;
        }
        let signal = status.and_then(|status| status.signal());
        code.map_or_else(|| Ending::Signal(signal.unwrap_or(0)), Ending::Code)
    }

    fn ends_within(&self, patience: Duration) -> bool {
        if self.reaped.is_some() {
            return true;
        }
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Timespec::try_from(patience).ok().as_ref()), Ok(1..))
    }

    /// Ends whatever is left of the process group and takes the leader's status.
    fn reap(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() {
            self.killer.disarm();
            self.reaped = self.child.wait().ok();
        }
        self.reaped
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reap();
    }
}

#[expect(clippy::disallowed_methods, reason = "sessions leave within a time by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

/// The path to a descriptor's directory. It leads to the same directory whatever is renamed.
fn descriptor_path(dir: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// Starts rsync; also returns whether it is confined.
#[expect(clippy::disallowed_methods, reason = "this is the one place that starts rsync")]
fn spawn(
    spec: &RunSpec,
    dir: &OwnedFd,
    destination: Option<&OpenDirectory>,
) -> Result<(Child, bool), StartError> {
    let mut args = spec.args.clone();
    let mut command = Command::new("rsync");
    if let (Some(local), Some(open), Some(last)) = (&spec.local, destination, args.last_mut()) {
        open.share_with(&mut command);
        *last = local.pinned(last, open);
    }
    command
        .args(&args)
        .current_dir(descriptor_path(dir))
        // exit.rs reads the messages in English.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if spec.args.iter().any(|word| word == "-e") {
        // A remote shell that asks on the terminal would wait for ever. In a session of its own it has no terminal.
        sys::lead_session(&mut command);
    } else {
        command.process_group(0);
    }
    if let Some(owner) = &spec.owner {
        command.env(OWNER, owner);
    }
    if std::env::var_os("RSYNC_PASSWORD").is_none() {
        // Without a password, rsync would ask on the terminal and wait for ever.
        command.env("RSYNC_PASSWORD", "");
    }
    let confinement = spec.confinement.as_ref().filter(|_| confine::is_usable());
    let confined = confinement.and_then(|confinement| {
        let copy = destination.map(|destination| destination.as_fd());
        let started = confinement.start(&mut command, dir.as_fd(), copy);
        started.inspect_err(|reason| confine::warn_once_of_unconfined_start(reason)).ok()
    });
    let is_confined = confined.is_some();
    let started = confined.unwrap_or_else(|| command.spawn());
    started.map(|child| (child, is_confined)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::NoRsync,
        _ => StartError::Spawn(error),
    })
}
