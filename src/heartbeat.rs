//! `<heartbeat>`: reports to an outside service at intervals that all is well; the service alerts when reports stop.
//! Keeps no history: a heartbeat that was not delivered is not sent later.

use std::time::Duration;

use crate::complaint::Complaint;
use crate::config::telling;
use crate::ground::time::wall_ms;
use crate::secret::Secret;
use crate::snapshot::SnapshotReader;
use crate::snapshot::health::{HealthThresholds, Level};
use crate::web::Web;

/// How long the main loop may take for a snapshot.
const PATIENCE: Duration = Duration::from_secs(5);

/// The maximum number of reasons that are sent, because the service shows only some lines.
const REASONS: usize = 20;

/// The addresses, and the source of snapshots.
#[derive(Debug)]
pub struct Heartbeat {
    url: Secret,
    fail_url: Option<Secret>,
    reader: SnapshotReader,
    web: Web,
    complaint: Complaint,
}

impl Heartbeat {
    /// Sends nothing yet.
    pub fn new(config: &telling::HeartbeatConfig, reader: SnapshotReader) -> Self {
        Self {
            url: config.url.clone(),
            fail_url: config.fail_url.clone(),
            reader,
            web: Web::default(),
            complaint: Complaint::about("heartbeat"),
        }
    }

    /// Sends the current state.
    pub fn beat(&mut self) {
        let outcome = match self.reasons() {
            None => self.url.read().and_then(|url| self.web.get(&url)),
            Some(reasons) => self.fail_address().and_then(|url| {
                self.web.post(&url, "text/plain; charset=utf-8", &reasons).map(|_| ())
            }),
        };
        self.complaint.note(outcome);
    }

    /// The current problems; `None` when all is well.
    fn reasons(&self) -> Option<String> {
        let snapshot = match self.reader.now(PATIENCE) {
            Ok(snapshot) => snapshot,
            Err(error) => return Some(error.to_string()),
        };
        let health = snapshot.health(&HealthThresholds::default(), wall_ms());
        (health.level > Level::Ok)
            .then(|| health.reasons.iter().take(REASONS).cloned().collect::<Vec<_>>().join("\n"))
    }

    fn fail_address(&self) -> Result<String, String> {
        match &self.fail_url {
            Some(url) => url.read(),
            None => Ok(fail_address(&self.url.read()?)),
        }
    }
}

/// Appends `/fail` to the path, as Healthchecks expects it.
fn fail_address(url: &str) -> String {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, q)| (path, Some(q)));
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("{}/fail{query}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_goes_to_the_address_that_healthchecks_has_for_it() {
        assert_eq!(fail_address("https://hc-ping.com/u-u-i-d"), "https://hc-ping.com/u-u-i-d/fail");
        assert_eq!(fail_address("http://h/x/?a=1"), "http://h/x/fail?a=1");
    }
}
