//! systemd's watchdog (`WatchdogSec=`): tells systemd again and again that the main loop answers, so that it restarts one that hangs.
//! Does nothing unless systemd asks for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::complaint::Complaint;
use crate::ground::every::Every;
use crate::ground::lock::lock;
use crate::process;
use crate::snapshot::SnapshotReader;
use crate::snapshot::reader::NoSnapshot;

/// How long the main loop may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many signs of life systemd gets in its interval; one may come late.
const SIGNS: u32 = 3;

/// The main loop that is watched. Lives as long as the process, because a reload may start another mirror in it.
#[derive(Default)]
pub struct Watchdog {
    /// `None` while no mirror runs: one that starts may take long to watch its directories.
    watched: Arc<Mutex<Option<SnapshotReader>>>,
    _every: Option<Every>,
}

impl Watchdog {
    /// Starts the thread if systemd wants signs of life.
    pub fn start() -> Self {
        let Some(interval) = process::watchdog_interval() else { return Self::default() };
        let watched: Arc<Mutex<Option<SnapshotReader>>> = Arc::default();
        let (asked, mut complaint) = (Arc::clone(&watched), Complaint::about("watchdog"));
        let every = Every::start("watchdog", Duration::ZERO, interval / SIGNS, move || {
            let reader = lock(&asked).clone();
            let outcome = examine(reader.as_ref());
            if outcome.is_ok() {
                process::tell_alive();
            }
            complaint.note(outcome);
        });
        let warn = |error| {
            log::warn!(
                "systemd's watchdog gets no sign of life and will end this process: cannot start its thread: {error}"
            );
        };
        Self { watched, _every: every.map_err(warn).ok() }
    }

    /// Watches the main loop that answers this reader.
    pub fn watch(&self, reader: SnapshotReader) {
        *lock(&self.watched) = Some(reader);
    }

    /// Watches nothing until the next mirror runs.
    pub fn rest(&self) {
        *lock(&self.watched) = None;
    }
}

fn examine(reader: Option<&SnapshotReader>) -> Result<(), String> {
    match reader.map(|reader| reader.now(PATIENCE)) {
        Some(Err(NoSnapshot::Silent)) => Err(
            "the main loop does not answer; if that lasts, systemd ends this process and starts it again"
                .into(),
        ),
        None | Some(Ok(_) | Err(NoSnapshot::Ended)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_main_loop_that_hangs_gives_no_sign_of_life() {
        let hangs = SnapshotReader::new(|_| Err(NoSnapshot::Silent));
        let ends = SnapshotReader::new(|_| Err(NoSnapshot::Ended));
        let answers = SnapshotReader::new(|mut request| {
            (request.receive)(&Arc::default());
            Ok(())
        });
        assert!(examine(Some(&hangs)).is_err());
        assert!(examine(Some(&ends)).is_ok() && examine(Some(&answers)).is_ok());
        assert!(examine(None).is_ok());
    }
}
