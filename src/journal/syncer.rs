//! The thread that makes the journal durable: at most one fdatasync in flight, always of the newest state.
//! Does not write. Written data survives the end of the process; fdatasync protects it against a power failure.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::ground::lock::{lock, wait};
use crate::ground::thread::JoinedThread;

/// Handle of the thread; dropping it finishes all requests and joins the thread.
#[derive(Debug)]
pub struct Syncer {
    shared: Arc<Shared>,
    _thread: JoinedThread,
}

/// A complete new journal that will replace the old one.
#[derive(Debug)]
pub struct Promotion {
    /// The new file.
    pub file: Arc<File>,
    /// Its name now.
    pub from: PathBuf,
    /// The journal's name.
    pub to: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    /// Signalled when a request arrives or is done.
    changed: Condvar,
    /// Called after each sync, on the thread.
    after_sync: Mutex<AfterSync>,
}

/// What is called after each sync.
#[derive(Default)]
struct AfterSync(Option<Box<dyn FnMut() + Send>>);

impl std::fmt::Debug for AfterSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AfterSync").field(&self.0.is_some()).finish()
    }
}

#[derive(Debug, Default)]
struct Work {
    sync: Option<Arc<File>>,
    promotion: Option<Promotion>,
    promoted: Option<io::Result<()>>,
    failure: Option<io::Error>,
    busy: bool,
    stop: bool,
    /// How often a journal was made durable.
    syncs: u64,
}

impl Syncer {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let thread = JoinedThread::start("journal-sync", move || worker.run())?;
        Ok(Self { shared, _thread: thread })
    }

    /// Requests that the present content of `file` be made durable; returns at once.
    pub fn sync(&self, file: &Arc<File>) {
        self.shared.lock().sync = Some(Arc::clone(file));
        self.shared.changed.notify_all();
    }

    /// Requests that a new journal be made durable and replace the old one; returns at once.
    pub fn promote(&self, promotion: Promotion) {
        self.shared.lock().promotion = Some(promotion);
        self.shared.changed.notify_all();
    }

    /// Takes the result of the last promotion, if it has ended since the last call.
    pub fn take_promoted(&self) -> Option<io::Result<()>> {
        self.shared.lock().promoted.take()
    }

    /// Takes the error of an fdatasync that failed since the last call.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.shared.lock().failure.take()
    }

    /// How often something was made durable so far.
    #[cfg(test)]
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// From now on `call` runs on the thread after each sync. It must not wait for the journal's owner.
    pub fn after_each_sync(&self, call: impl FnMut() + Send + 'static) {
        *lock(&self.shared.after_sync) = AfterSync(Some(Box::new(call)));
    }

    /// Waits until all requests are done.
    pub fn finish(&self) {
        let mut work = self.shared.lock();
        while work.busy || work.sync.is_some() || work.promotion.is_some() {
            work = self.shared.wait(work);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }

    fn wait<'a>(&self, work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        wait(&self.changed, work)
    }

    fn run(&self) {
        let mut work = self.lock();
        loop {
            work.busy = false;
            self.changed.notify_all();
            while work.sync.is_none() && work.promotion.is_none() {
                if work.stop {
                    return;
                }
                work = self.wait(work);
            }
            work.busy = true;
            let (sync, promotion) = (work.sync.take(), work.promotion.take());
            drop(work);
            let failure = sync.and_then(|file| file.sync_data().err());
            let promoted = promotion.map(Promotion::carry_out);
            if let Some(call) = &mut lock(&self.after_sync).0 {
                call();
            }
            work = self.lock();
            work.syncs += 1;
            work.failure = failure.or(work.failure.take());
            work.promoted = promoted.or(work.promoted.take());
        }
    }
}

impl Promotion {
    /// Makes the new file durable *before* it gets the journal's name, so that no power failure leaves an incomplete journal
    /// there.
    pub fn carry_out(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.from, &self.to)?;
        let dir = self.to.parent().ok_or(io::ErrorKind::NotFound)?;
        File::open(dir)?.sync_all()
    }
}
