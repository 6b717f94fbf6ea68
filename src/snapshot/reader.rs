//! Gets snapshots from the main loop, which builds one only on request.
//! A reader cannot delay a change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::Snapshot;

/// Receives a snapshot; false when it wants no more. The main loop calls it, so it must return at once.
pub type Receive = Box<dyn FnMut(&Arc<Snapshot>) -> bool + Send>;

/// Passes a request to the main loop.
type Ask = dyn Fn(SnapshotRequest) -> Result<(), NoSnapshot> + Send + Sync;

/// A request for snapshots.
pub struct SnapshotRequest {
    /// Gets the first snapshot at once, and more as long as it returns true.
    pub receive: Receive,
    /// The minimum time between two snapshots. A further one comes only after a change.
    pub pause: Duration,
}

impl fmt::Debug for SnapshotRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("pause", &self.pause).finish_non_exhaustive()
    }
}

/// Why there is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSnapshot {
    /// The main loop is busy, or hangs.
    #[error("the main loop does not answer")]
    Silent,
    /// The program is ending.
    #[error("the mirror is ending")]
    Ended,
}

/// Gets snapshots of the running mirror; cheap to clone.
#[derive(Clone)]
pub struct SnapshotReader {
    ask: Arc<Ask>,
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader").finish_non_exhaustive()
    }
}

impl SnapshotReader {
    /// `ask` passes a request to the main loop, and waits no longer than the caller may.
    pub fn new(
        ask: impl Fn(SnapshotRequest) -> Result<(), NoSnapshot> + Send + Sync + 'static,
    ) -> Self {
        Self { ask: Arc::new(ask) }
    }

    /// The current state; waits for the main loop at most `patience`.
    ///
    /// # Errors
    /// When the main loop does not answer in time, or has ended.
    pub fn now(&self, patience: Duration) -> Result<Arc<Snapshot>, NoSnapshot> {
        let (sender, answer) = bounded(1);
        let receive = Box::new(move |snapshot: &Arc<Snapshot>| {
            _ = sender.try_send(Arc::clone(snapshot));
            false
        });
        (self.ask)(SnapshotRequest { receive, pause: Duration::ZERO })?;
        answer.recv_timeout(patience).map_err(|error| match error {
            crossbeam_channel::RecvTimeoutError::Timeout => NoSnapshot::Silent,
            crossbeam_channel::RecvTimeoutError::Disconnected => NoSnapshot::Ended,
        })
    }

    /// Calls `receive` with the current state, and again after changes, until it returns false. For a thread that polls:
    /// `receive` stores the snapshot for the thread and wakes it.
    ///
    /// # Errors
    /// When the main loop does not accept the request, or has ended.
    pub fn follow(
        &self,
        pause: Duration,
        receive: impl FnMut(&Arc<Snapshot>) -> bool + Send + 'static,
    ) -> Result<(), NoSnapshot> {
        (self.ask)(SnapshotRequest { receive: Box::new(receive), pause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_loop_that_is_silent_or_gone_is_told_apart() {
        let patience = Duration::from_millis(10);
        let gone = SnapshotReader::new(|_| Err(NoSnapshot::Ended));
        assert_eq!(gone.now(patience), Err(NoSnapshot::Ended));
        let drops = SnapshotReader::new(|_| Ok(()));
        assert_eq!(drops.now(patience), Err(NoSnapshot::Ended));
        let kept = std::sync::Mutex::new(Vec::new());
        let silent = SnapshotReader::new(move |request| {
            kept.lock().unwrap().push(request);
            Ok(())
        });
        assert_eq!(silent.now(patience), Err(NoSnapshot::Silent));
    }

    #[test]
    fn who_asks_once_gets_one_answer() {
        let reader = SnapshotReader::new(|mut request| {
            let more = (request.receive)(&Arc::new(Snapshot::default()));
            assert!(!more);
            Ok(())
        });
        let answer = reader.now(Duration::from_secs(1)).map(|it| (*it).clone());
        assert_eq!(answer, Ok(Snapshot::default()));
    }
}
