//! The content of one message: sentences for people, JSON for programs.
//! Does not know the chat services; `template.rs` formats the sentences for each of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::ledger::{Alert, AlertMessage, AlertState};
use crate::snapshot::Instance;

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// This machine's name.
    pub host: String,
    /// The configuration file, which identifies the instance.
    pub config: String,
    /// The alerts.
    pub due: AlertMessage,
    /// When it was created.
    pub at_ms: u64,
}

impl Message {
    /// A message of this instance.
    pub fn new(instance: &Instance, due: AlertMessage, at_ms: u64) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host: clean(&host), config: clean(&instance.config), due, at_ms }
    }

    /// One line with the most important alert.
    pub fn subject(&self) -> String {
        let alerts = &self.due.alerts;
        let first = alerts.first().map_or("", |alert| alert.text.as_str());
        let more = (alerts.len() + self.due.omitted).saturating_sub(1);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        let first: String = clean(first).chars().take(120).collect();
        format!("sersync on {}: {first}{more}", self.host)
    }

    /// The whole message as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("sersync on {} ({})\n", self.host, self.config);
        for alert in &self.due.alerts {
            _ = writeln!(text, "{} {}", sign(alert), clean(&alert.text));
        }
        if self.due.omitted > 0 {
            _ = writeln!(text, "and {} more: sersync2 status shows all", self.due.omitted);
        }
        text
    }

    /// The whole message as JSON.
    pub fn json(&self) -> Value {
        let alert = |alert: &Alert| {
            json!({
                "kind": alert.kind.name(),
                "state": alert.state.name(),
                "subject": alert.subject,
                "text": alert.text,
                "since_ms": alert.since_ms,
            })
        };
        let alerts: Vec<Value> = self.due.alerts.iter().map(alert).collect();
        json!({
            "version": 1,
            "host": self.host,
            "config": self.config,
            "at_ms": self.at_ms,
            "summary": self.subject(),
            "alerts": alerts,
            "omitted": self.due.omitted,
        })
    }
}

fn sign(alert: &Alert) -> &'static str {
    match alert.state {
        AlertState::Raised => "[ALERT]",
        AlertState::Reminder => "[STILL]",
        AlertState::Over => "[OK]",
    }
}

/// Replaces control characters: a line break could begin a new header of a mail.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::condition::AlertKind;

    #[test]
    fn no_name_begins_a_line_of_its_own() {
        let alert = Alert {
            kind: AlertKind::FailLog,
            state: AlertState::Raised,
            subject: "h::m".into(),
            text: "a\nTo: root\r\nb cannot be delivered".into(),
            since_ms: 0,
        };
        let due = AlertMessage { alerts: vec![alert.clone(), alert], omitted: 3 };
        let message = Message::new(&Instance::default(), due, 0);
        assert!(!message.subject().contains('\n') && message.subject().ends_with("(and 4 more)"));
        assert_eq!(message.text().lines().count(), 4);
        assert_eq!(message.json()["alerts"][0]["kind"], "fail_log");
    }
}
