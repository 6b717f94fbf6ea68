//! The watch thread's loop: waits for events, for changes of the roots and for the order to stop.
//! Does not interpret events, and does not know which backend it drives.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::change::{RootId, WatchEvent};
use crate::watch::context::{Backend, ReadOutcome, WatchContext};
use crate::watch::set;
use crate::watch::stream::Stream;

/// Makes the backend; called again after a failure.
pub type MakeBackend = Box<dyn FnMut(&WatchContext) -> std::io::Result<Box<dyn Backend>> + Send>;

/// The state of the watch thread.
pub struct Reader {
    backend: Box<dyn Backend>,
    make_backend: MakeBackend,
    context: WatchContext,
    wake: Arc<OwnedFd>,
    /// Readable when a barrier is asked for.
    asked: Arc<OwnedFd>,
    /// A barrier was asked for and is not reached yet.
    owes_answer: bool,
    stream: Stream,
    in_overflow: bool,
    has_failed: bool,
    /// The roots that were reported as ready.
    ready: BTreeSet<RootId>,
}

/// What ended a wait.
#[derive(Default)]
struct Woken {
    stop: bool,
    asked: bool,
    /// Something changed on or beside a path that leads to a root.
    ways: bool,
    mounts: bool,
    events: bool,
}

impl Woken {
    fn is_question_only(&self) -> bool {
        self.asked && !(self.ways || self.mounts || self.events)
    }
}

impl Reader {
    /// A reader that is ready to [`run`](Self::run); it watches nothing yet.
    ///
    /// # Errors
    /// When the kernel does not give us what the backend needs.
    pub fn new(
        mut make_backend: MakeBackend,
        context: WatchContext,
        wake: Arc<OwnedFd>,
        asked: Arc<OwnedFd>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            backend: make_backend(&context)?,
            make_backend,
            context,
            wake,
            asked,
            owes_answer: false,
            stream: Stream::default(),
            in_overflow: false,
            has_failed: false,
            ready: BTreeSet::new(),
        })
    }

    /// Forgets everything after a failure, so that [`run`](Self::run) can begin again.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn reset(&mut self) -> std::io::Result<()> {
        self.has_failed = true;
        self.backend = (self.make_backend)(&self.context)?;
        Ok(())
    }

    /// Which backend it is.
    pub fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    /// True when the order to stop comes within `limit`.
    pub fn is_stopped_within(&self, limit: Duration) -> bool {
        let timeout = Timespec::try_from(limit).ok();
        poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], timeout.as_ref()).is_ok_and(|n| n > 0)
    }

    /// Watches everything, then reads events until told to stop.
    pub fn run(&mut self) {
        self.begin();
        while self.take_turn() {}
    }

    /// Watches everything.
    pub(super) fn begin(&mut self) {
        for root in self.context.roots_there() {
            let directories = self.context.watch_root(root, &mut *self.backend);
            self.backend.tick(&mut self.context);
            if self.has_failed {
                self.context.batch.send(WatchEvent::Overflow { root });
            }
            // The start waits for each root once.
            if self.ready.insert(root) {
                self.context.batch.send(WatchEvent::Ready { root, directories });
            }
        }
        self.context.check_roots(&mut *self.backend);
        // Answer a barrier from before a failure: everything is compared anyway.
        self.answer();
        crate::sys::memory::release_unused();
    }

    /// Waits for something and handles it; false when told to stop.
    pub(super) fn take_turn(&mut self) -> bool {
        let woken = self.wait();
        if woken.stop {
            return false;
        }
        if woken.asked {
            // The barrier covers everything before this moment.
            _ = rustix::io::read(&self.asked, &mut [0; 8]);
            self.owes_answer = true;
        }
        if woken.is_question_only() && self.backend.keeps_back() {
            // The barrier does not shorten the wait for the second half of a move.
            return true;
        }
        if woken.mounts || woken.ways && self.context.roots.hear() {
            self.context.check_roots(&mut *self.backend);
        }
        if woken.events {
            self.read();
        } else {
            self.in_overflow = false;
        }
        self.backend.tick(&mut self.context);
        self.context.settle_due();
        self.context.batch.forget_old();
        if woken.events && self.backend.is_mid_move() {
            self.context.batch.flush_but_half_a_move();
        } else {
            self.context.batch.flush();
        }
        let is_through = !woken.events || !self.backend.was_full();
        if is_through && !self.backend.keeps_back() && self.context.batch.is_empty() {
            self.answer();
        }
        set(&self.context.status.directories, self.backend.directories());
        true
    }

    fn answer(&mut self) {
        if std::mem::take(&mut self.owes_answer) {
            self.context.settle_all();
            self.context.batch.send(WatchEvent::BarrierReached);
        }
    }

    fn read(&mut self) {
        self.context.batch.note_read();
        let outcome = self.backend.read(&mut self.context);
        self.context.settle_unsure();
        self.context.settle_modified();
        if outcome == ReadOutcome::Overflow {
            self.resync();
        }
    }

    fn wait(&mut self) -> Woken {
        // Only the order to stop ends a rest. Waiting for the queue or for the paths to the roots would end it at once.
        if let Some(rest) = self.backend.rest().max(self.stream.rest())
            && self.is_stopped_within(rest)
        {
            return Woken { stop: true, ..Woken::default() };
        }
        let begun = now();
        let woken = self.wait_for_news();
        if woken.events {
            self.stream.note(begun.elapsed());
        }
        woken
    }

    fn wait_for_news(&self) -> Woken {
        let roots = &self.context.roots;
        let mut fds = vec![
            PollFd::new(&self.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(roots.sentinel(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.backend.fd(), PollFlags::IN),
            PollFd::new(&self.asked, PollFlags::IN),
        ];
        let with_mounts = fds.len();
        fds.extend(roots.mount_table().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::PRI)));
        // Answer a barrier as soon as the queue is empty.
        let is_waited_for = self.owes_answer && !self.backend.keeps_back();
        let due = [self.backend.timeout(), self.context.timeout()].into_iter().flatten().min();
        let timeout = is_waited_for.then_some(Duration::ZERO).or(due);
        let timeout = timeout.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted or failed poll sets no flags, so nothing is ready.
        let _ = poll(&mut fds, timeout.as_ref());
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Woken {
            stop: is_ready(&fds[0]),
            ways: is_ready(&fds[1]),
            events: is_ready(&fds[2]),
            asked: is_ready(&fds[3]),
            mounts: fds[with_mounts..].iter().any(is_ready),
        }
    }

    /// After lost events: updates all watches first, then reports that anything may differ.
    fn resync(&mut self) {
        let count = self.context.status.overflows.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.in_overflow {
            log::warn!(
                "file system events were lost (overflow number {count}); everything is compared"
            );
        }
        self.in_overflow = true;
        self.context.check_roots(&mut *self.backend);
        for root in self.context.roots_there() {
            self.context.watch_root(root, &mut *self.backend);
            self.context.batch.send(WatchEvent::Overflow { root });
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread waits: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}
