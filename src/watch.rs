//! The watch thread: one thread that reports what may have changed below all watch roots.
//! Interprets nothing: the engine decides what a change means for a remote.

mod apply;
pub mod batch;
mod choose;
pub mod context;
pub mod fanotify;
pub mod ignored;
pub mod inotify;
pub mod mounts;
pub mod open;
pub mod queue;
pub mod reader;
pub mod roots;
pub mod scan;
pub mod steps;
mod stream;
pub mod tree;
pub mod unwatched;
mod views;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, select};
use rustix::event::{EventfdFlags, eventfd};

use crate::change::{RootId, WatchEvent};
use crate::config::{ChangeSwitches, WatchBackend};
use crate::ground::thread::JoinedThread;
use crate::path::RelPath;
use batch::{Batch, WatchSink};
use context::WatchContext;
use ignored::IgnoredHook;
use reader::{MakeBackend, Reader};
use roots::{Root, Roots};

/// What is not mirrored: called with a path and whether it is a directory.
pub type Exclude = Arc<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// `fs.inotify.max_user_watches` is raised to this when it is used up. sersync2 sets the same value.
pub const WATCHES_WANTED: u64 = 50_000_000;

/// What to watch, and which changes to report.
pub struct WatchOptions {
    /// The watch roots: directories, or symbolic links to directories.
    pub roots: Vec<(RootId, PathBuf)>,
    /// Which kinds of change are reported.
    pub switches: ChangeSwitches,
    /// What is neither reported nor watched.
    pub exclude: Option<Exclude>,
    /// Log each event as the kernel gives it.
    pub debug: bool,
    /// The kernel interface to use.
    pub backend: WatchBackend,
    /// How often directories that cannot be watched are compared.
    pub rescan_interval: Duration,
}

/// Why watching cannot start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum WatchError {
    #[error("cannot watch {}: {source}; create the directory or correct <localpath watch>", path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error(
        "cannot set up inotify: {0}; raise fs.inotify.max_user_instances or the limit on open files"
    )]
    Inotify(io::Error),
    #[error("cannot start the watch thread: {0}; raise the limit on processes")]
    Thread(io::Error),
}

/// Numbers for the status; they may be read at any time.
#[derive(Debug, Default)]
pub struct WatchStatus {
    /// How many directories are known.
    pub directories: AtomicUsize,
    /// How many of them have no watch and are rescanned instead.
    pub unwatched: AtomicUsize,
    /// How often the kernel's queue overflowed.
    pub overflows: AtomicUsize,
}

/// Asks the watch thread for a barrier: a report that it has sent everything that happened before. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Barrier(Arc<OwnedFd>);

impl Barrier {
    /// [`WatchEvent::BarrierReached`] follows when everything that happened before this call is reported. Calls in quick
    /// succession may get one answer.
    pub fn ask(&self) {
        // Fails only when the counter is full: then the thread is about to read it.
        _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The running watch thread; dropping it stops and joins the thread.
pub struct Watcher {
    wake: Arc<OwnedFd>,
    barrier: Barrier,
    stop: Option<Sender<()>>,
    _thread: JoinedThread,
    status: Arc<WatchStatus>,
    ignored_hook: Arc<IgnoredHook>,
    backend: &'static str,
}

impl Watcher {
    /// Starts watching. Returns at once; [`WatchEvent::Ready`] tells when all watches of a root are set.
    ///
    /// # Errors
    /// When a root is no readable directory, or the kernel gives us no inotify instance or thread.
    pub fn start<E>(options: WatchOptions, events: Sender<E>) -> Result<Self, WatchError>
    where
        E: From<WatchEvent> + Send + 'static,
    {
        let (stop, stopped) = bounded::<()>(0);
        let sink = Box::new(move |event: WatchEvent| {
            // Stop waiting for room in the channel when the watcher is dropped.
            select! {
                send(events, event.into()) -> _ => {}
                recv(stopped) -> _ => {}
            }
        });
        Self::start_with(options, sink, stop)
    }

    fn start_with(
        options: WatchOptions,
        sink: WatchSink,
        stop: Sender<()>,
    ) -> Result<Self, WatchError> {
        let roots = options.roots.iter().map(|(id, path)| {
            Root::new(*id, path).map_err(|source| WatchError::Root { path: path.clone(), source })
        });
        let roots = Roots::new(roots.collect::<Result<_, _>>()?).map_err(WatchError::Inotify)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let new_fd = || eventfd(0, flags).map(Arc::new).map_err(|e| WatchError::Inotify(e.into()));
        let (wake, asked) = (new_fd()?, new_fd()?);
        let status = Arc::new(WatchStatus::default());
        let batch = Batch::new(options.switches, options.exclude.clone(), sink);
        let ignored_hook = Arc::clone(batch.ignored_hook());
        let context = WatchContext::new(roots, batch, options.debug, status.clone());
        let (choice, switches, interval) =
            (options.backend, options.switches, options.rescan_interval);
        let make: MakeBackend =
            Box::new(move |context| choose::make_backend(choice, context, &switches, interval));
        let reader =
            Reader::new(make, context, wake.clone(), asked.clone()).map_err(WatchError::Inotify)?;
        let backend = reader.backend_name();
        let thread =
            JoinedThread::start("watch", move || run(reader)).map_err(WatchError::Thread)?;
        let barrier = Barrier(asked);
        Ok(Self { wake, barrier, stop: Some(stop), _thread: thread, status, ignored_hook, backend })
    }

    /// The backend in use: `inotify` or `fanotify`.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// A handle to ask for barriers.
    pub fn barrier(&self) -> Barrier {
        self.barrier.clone()
    }

    /// The hook that is called for each ignored change.
    pub fn ignored_hook(&self) -> &Arc<IgnoredHook> {
        &self.ignored_hook
    }

    /// The thread's numbers for the status.
    pub fn status(&self) -> &Arc<WatchStatus> {
        &self.status
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Runs the reader until it is told to stop. After a panic events are lost, so the reader starts again and reports that
/// everything has to be compared.
fn run(mut reader: Reader) {
    let mut pause = Duration::ZERO;
    while catch_unwind(AssertUnwindSafe(|| reader.run())).is_err() {
        log::error!(
            "reading file system events has failed; starting again, everything is compared"
        );
        loop {
            if reader.is_stopped_within(pause) {
                return;
            }
            pause = (pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(10));
            match reader.reset() {
                Ok(()) => break,
                Err(error) => log::error!("cannot watch again: {error}; trying again"),
            }
        }
    }
}

fn set(counter: &AtomicUsize, value: usize) {
    counter.store(value, Ordering::Relaxed);
}
