//! `<alert>`: tells people when a problem begins, reminds them every few hours, and tells them when it is over.
//! Derives everything from snapshots, on its own thread, so it cannot delay the mirror.

pub mod condition;
pub mod ledger;
pub mod message;
mod send;
pub mod template;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::complaint::Complaint;
use crate::config::telling::AlertRule;
use crate::ground::lock::lock;
use crate::ground::time::wall_ms;
use crate::snapshot::reader::NoSnapshot;
use crate::snapshot::{Instance, Snapshot, SnapshotReader};
use condition::{AlertThresholds, absence, conditions};
use ledger::AlertLedger;
use message::Message;
use send::Channels;

/// The pause between two snapshots.
const PAUSE: Duration = Duration::from_secs(2);
/// How often the duration of a problem is checked that may become an alert.
const RECHECK: Duration = Duration::from_secs(5);
/// How long the end of the program waits for the thread.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How long the main loop may take for a snapshot.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running alerts of one `<alert>`; dropping it ends the thread.
#[derive(Debug)]
pub struct Alerts {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    /// The latest snapshot; it replaces an unread older one.
    latest: Mutex<Option<Arc<Snapshot>>>,
    stop: AtomicBool,
    news: Sender<()>,
}

impl Shared {
    fn put(&self, snapshot: &Arc<Snapshot>) -> bool {
        *lock(&self.latest) = Some(Arc::clone(snapshot));
        // If the channel is full, the thread is already notified.
        _ = self.news.try_send(());
        !self.stop.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Arc<Snapshot>> {
        lock(&self.latest).take()
    }
}

impl Alerts {
    /// Starts the thread. It asks for snapshots itself, so the main loop need not run yet. `overflows` is how often the kernel has
    /// dropped events before: that was told.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(rule: &AlertRule, reader: SnapshotReader, overflows: u64) -> io::Result<Self> {
        let (news, heard) = bounded(1);
        let shared =
            Arc::new(Shared { latest: Mutex::default(), stop: AtomicBool::new(false), news });
        let actor = Actor {
            limits: AlertThresholds::of(rule),
            ledger: AlertLedger::new(rule.remind_hours),
            channels: Channels::new(rule),
            reader,
            shared: Arc::clone(&shared),
            heard,
            before: None,
            overflows,
        };
        let (alive, ended) = bounded(0);
        std::thread::Builder::new().name("alerts".into()).spawn(move || {
            // Dropped even if the thread panics; the handle waits for that.
            let _alive = alive;
            actor.run();
        })?;
        Ok(Self { shared, ended })
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        _ = self.shared.news.try_send(());
        // Do not wait longer: a message may still be in transit, but nothing depends on it.
        _ = self.ended.recv_timeout(END_PATIENCE);
    }
}

struct Actor {
    limits: AlertThresholds,
    ledger: AlertLedger,
    channels: Channels,
    reader: SnapshotReader,
    shared: Arc<Shared>,
    heard: Receiver<()>,
    before: Option<Arc<Snapshot>>,
    /// So many overflows are told.
    overflows: u64,
}

impl Actor {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let shared = Arc::clone(&shared);
            match self.reader.follow(PAUSE, move |snapshot| shared.put(snapshot)) {
                Ok(()) => break,
                Err(NoSnapshot::Ended) => return,
                // It has much to do at its start.
                Err(NoSnapshot::Silent) if self.wait(Some(RECHECK)) => {}
                Err(NoSnapshot::Silent) => return,
            }
        }
        let mut wait = None;
        while self.wait(wait) {
            if let Some(snapshot) = self.snapshot() {
                self.look(&snapshot);
                self.before = Some(snapshot);
            }
            wait = self.next_look();
        }
    }

    /// Waits for a new snapshot, at most this long; false when the thread must end.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let heard = match at_most {
            Some(time) => self.heard.recv_timeout(time),
            None => self.heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        heard != Err(RecvTimeoutError::Disconnected) && !self.shared.stop.load(Ordering::Acquire)
    }

    /// The latest snapshot, or a new one if only time has passed.
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.take().or_else(|| self.reader.now(PATIENCE).ok())
    }

    fn look(&mut self, snapshot: &Snapshot) {
        let now = wall_ms();
        let found = conditions(self.overflows, snapshot, &self.limits, now);
        self.overflows = snapshot.instance.overflows;
        self.ledger.note(found, |key| absence(key, snapshot), now);
        self.channels.work(now);
        if let Some(alerts) = self.ledger.due(now) {
            self.channels.send(&Message::new(&snapshot.instance, alerts, now));
        }
    }

    /// When to look again; `None` if nothing can become an alert by time alone.
    fn next_look(&self) -> Option<Duration> {
        let may_last = self.before.as_ref().is_some_and(|snapshot| {
            let is_behind = |remote: &crate::snapshot::RemoteStatus| {
                remote.down.is_some() || remote.oldest_pending_ms.is_some()
            };
            snapshot.remotes.iter().any(is_behind)
        });
        (may_last || self.ledger.is_busy() || self.channels.is_busy()).then_some(RECHECK)
    }
}

/// Sends a test over every channel of a rule; returns each channel with its result.
pub fn send_test(rule: &AlertRule, instance: &Instance) -> Vec<(String, Result<(), String>)> {
    let alert = ledger::Alert {
        kind: condition::AlertKind::Test,
        state: ledger::AlertState::Raised,
        subject: instance.config.clone(),
        text: "this is a test: sersync sends its alerts here".to_owned(),
        since_ms: wall_ms(),
    };
    let alerts = ledger::AlertMessage { alerts: vec![alert], omitted: 0 };
    Channels::new(rule).try_each(&Message::new(instance, alerts, wall_ms()))
}

/// Reports the failure of a channel once.
fn complaint(channel: &str) -> Complaint {
    Complaint::about(format!("alert by {channel}"))
}
