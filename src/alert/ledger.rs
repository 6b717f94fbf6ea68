//! Decides when to report a problem: when it begins, as reminders while it lasts, and when it is over. Joins several
//! alerts into one message. Pure: time is an argument, and memory is bounded.

use std::collections::BTreeMap;

use super::condition::{Absence, AlertCondition, AlertKey, AlertKind};
use crate::ground::figures::duration;

/// How long alerts are collected before the first message, because one failed switch takes many remotes down within
/// seconds.
const GATHER_MS: u64 = 3_000;
/// The least time between two messages.
const PAUSE_MS: u64 = 60_000;
/// A problem is over only when it has been gone for this long. If it returns earlier, it is the same problem.
const CALM_MS: u64 = 30_000;
/// The maximum number of alerts in one message; the rest is counted.
pub const ALERTS_MAX: usize = 50;

/// The state of the problem of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertState {
    /// It has begun.
    Raised,
    /// It still lasts.
    Reminder,
    /// It is over.
    Over,
}

impl AlertState {
    /// Its name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Reminder => "reminder",
            Self::Over => "over",
        }
    }
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The kind of the problem.
    pub kind: AlertKind,
    /// Whether the problem begins, lasts or is over.
    pub state: AlertState,
    /// The remote or the watch path.
    pub subject: String,
    /// What happened, what it means, what to do.
    pub text: String,
    /// When the problem began.
    pub since_ms: u64,
}

/// The content of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertMessage {
    /// The worst first.
    pub alerts: Vec<Alert>,
    /// The number of further alerts.
    pub omitted: usize,
}

/// A problem that is reported, or waits to be.
#[derive(Debug)]
struct Known {
    condition: AlertCondition,
    /// When it was first reported.
    told_ms: Option<u64>,
    /// Since when it has been absent.
    gone_ms: Option<u64>,
    /// Why it is absent.
    absence: Absence,
}

/// All problems that are reported, or wait to be.
#[derive(Debug)]
pub struct AlertLedger {
    known: BTreeMap<AlertKey, Known>,
    waiting: BTreeMap<AlertKey, Alert>,
    /// When the next message may leave.
    not_before_ms: u64,
    remind_ms: Option<u64>,
}

impl AlertLedger {
    /// An empty ledger. 0 hours: no reminders.
    pub fn new(remind_hours: u32) -> Self {
        let remind_ms = Some(u64::from(remind_hours) * 3_600_000).filter(|ms| *ms > 0);
        Self { known: BTreeMap::new(), waiting: BTreeMap::new(), not_before_ms: 0, remind_ms }
    }

    /// Updates the ledger with the problems at `now_ms`. `absence` says why a problem is not among them.
    pub fn note(
        &mut self,
        found: BTreeMap<AlertKey, AlertCondition>,
        absence: impl Fn(&AlertKey) -> Absence,
        now_ms: u64,
    ) {
        for (key, known) in &mut self.known {
            known.absence = if found.contains_key(key) { Absence::Unknown } else { absence(key) };
            match known.absence {
                Absence::Over | Absence::Removed => known.gone_ms = known.gone_ms.or(Some(now_ms)),
                Absence::Unknown => known.gone_ms = None,
            }
        }
        for (key, condition) in found {
            self.seen(key, condition, now_ms);
        }
        self.settle(now_ms);
    }

    fn seen(&mut self, key: AlertKey, condition: AlertCondition, now_ms: u64) {
        if key.0.is_event() {
            let alert = alert(&key, AlertState::Raised, condition);
            self.wait(key, alert, now_ms);
            return;
        }
        let remind_ms = self.remind_ms;
        let Some(known) = self.known.get_mut(&key) else {
            let told_ms = Some(now_ms);
            let (gone_ms, absence) = (None, Absence::Unknown);
            let known = Known { condition: condition.clone(), told_ms, gone_ms, absence };
            self.known.insert(key.clone(), known);
            let alert = alert(&key, AlertState::Raised, condition);
            self.wait(key, alert, now_ms);
            return;
        };
        known.gone_ms = None;
        // The text contains a growing duration, so update it; the start time stays.
        known.condition.text.clone_from(&condition.text);
        let is_due = |told: u64| remind_ms.is_some_and(|pause| now_ms >= told + pause);
        if known.told_ms.is_some_and(is_due) {
            known.told_ms = Some(now_ms);
            let alert = alert(&key, AlertState::Reminder, known.condition.clone());
            self.wait(key, alert, now_ms);
        }
    }

    /// Ends the problems that have been gone for long enough.
    fn settle(&mut self, now_ms: u64) {
        let is_over = |known: &Known| known.gone_ms.is_some_and(|at| now_ms >= at + CALM_MS);
        let over: Vec<AlertKey> = self
            .known
            .iter()
            .filter(|(_, known)| is_over(known))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            let Some(known) = self.known.remove(&key) else { continue };
            if self.waiting.get(&key).is_some_and(|alert| alert.state == AlertState::Raised) {
                // The beginning is not reported yet: report beginning and end as one alert.
                self.waiting.remove(&key);
            }
            let lasted = known.gone_ms.unwrap_or(now_ms).saturating_sub(known.condition.since_ms);
            let lasted = duration(lasted / 1_000);
            let text = match known.absence {
                Absence::Removed => format!(
                    "{} is not in the configuration any more (it had this problem for {lasted})",
                    key.1
                ),
                _ => format!("{} (over after {lasted})", over_words(&key)),
            };
            let condition = AlertCondition { text, ..known.condition };
            let alert = alert(&key, AlertState::Over, condition);
            self.wait(key, alert, now_ms);
        }
    }

    fn wait(&mut self, key: AlertKey, alert: Alert, now_ms: u64) {
        if self.waiting.is_empty() {
            self.not_before_ms = self.not_before_ms.max(now_ms + GATHER_MS);
        }
        self.waiting.insert(key, alert);
    }

    /// What is due now, as one message.
    pub fn due(&mut self, now_ms: u64) -> Option<AlertMessage> {
        if self.waiting.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        self.not_before_ms = now_ms + PAUSE_MS;
        // The keys are ordered by severity.
        let mut alerts: Vec<Alert> = std::mem::take(&mut self.waiting).into_values().collect();
        alerts.sort_by_key(|alert| alert.state == AlertState::Over);
        let omitted = alerts.len().saturating_sub(ALERTS_MAX);
        alerts.truncate(ALERTS_MAX);
        Some(AlertMessage { alerts, omitted })
    }

    /// True while something is due later.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.known.is_empty()
    }
}

fn alert(key: &AlertKey, state: AlertState, condition: AlertCondition) -> Alert {
    let (kind, subject) = key.clone();
    Alert { kind, state, subject, text: condition.text, since_ms: condition.since_ms }
}

fn over_words((kind, subject): &AlertKey) -> String {
    match kind {
        AlertKind::Down => format!("remote {subject} is back"),
        AlertKind::Denied => format!("remote {subject} accepts us again"),
        AlertKind::FailLog => {
            format!("remote {subject}: every path of the fail log is delivered")
        }
        AlertKind::Lag => format!("remote {subject} has caught up"),
        AlertKind::SourceLost => format!("watch path {subject} is back as a whole"),
        AlertKind::DeletionsHeld => format!("deletions below {subject} are no longer held back"),
        AlertKind::WatchLimit => "every directory is watched again".to_owned(),
        AlertKind::State => "state can be kept again".to_owned(),
        AlertKind::Overflow | AlertKind::Test => subject.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> BTreeMap<AlertKey, AlertCondition> {
        let condition = |name: &&str| {
            let condition = AlertCondition { since_ms: 0, text: format!("{name} is down") };
            ((AlertKind::Down, name.to_string()), condition)
        };
        names.iter().map(condition).collect()
    }

    /// Runs a script; returns each message as `state subject` words.
    fn run(ledger: &mut AlertLedger, script: &[(u64, &[&str])]) -> Vec<Vec<String>> {
        let mut said = Vec::new();
        for (seconds, names) in script {
            ledger.note(found(names), |_| Absence::Over, seconds * 1_000);
            if let Some(due) = ledger.due(seconds * 1_000) {
                let words = |alert: &Alert| format!("{} {}", alert.state.name(), alert.subject);
                said.push(due.alerts.iter().map(words).collect());
            }
        }
        said
    }

    #[test]
    fn a_trouble_is_told_once_and_its_end_once() {
        let script: [(u64, &[&str]); 7] = [
            (100, &["a"]),
            (104, &["a"]),
            (200, &["a"]),
            (1_000, &["a"]),
            (1_010, &[]),
            (1_041, &[]),
            (1_045, &[]),
        ];
        assert_eq!(run(&mut AlertLedger::new(6), &script), [vec!["raised a"], vec!["over a"]]);
    }

    #[test]
    fn many_at_once_are_one_message_and_what_comes_soon_after_another() {
        let script: [(u64, &[&str]); 5] = [
            (100, &["a"]),
            (102, &["a", "b", "c"]),
            (104, &["a", "b", "c"]),
            (110, &["a", "b", "c", "d"]),
            (170, &["a", "b", "c", "d"]),
        ];
        let said = run(&mut AlertLedger::new(6), &script);
        assert_eq!(said, [vec!["raised a", "raised b", "raised c"], vec!["raised d"]]);
    }

    #[test]
    fn what_lasts_is_told_again_after_the_hours_that_were_asked_for() {
        let hour = 3_600;
        let script: [(u64, &[&str]); 6] = [
            (0, &["a"]),
            (5, &["a"]),
            (2 * hour - 1, &["a"]),
            (2 * hour, &["a"]),
            (2 * hour + 5, &["a"]),
            (4 * hour + 10, &["a"]),
        ];
        let mut ledger = AlertLedger::new(2);
        assert_eq!(run(&mut ledger, &script), [vec!["raised a"], vec!["reminder a"]]);
        let never = run(&mut AlertLedger::new(0), &script);
        assert_eq!(never, [vec!["raised a"]]);
    }

    #[test]
    fn what_flaps_is_one_trouble() {
        let mut script: Vec<(u64, &[&str])> = Vec::new();
        for n in 0..100 {
            script.push((100 + n * 20, &["a"]));
            script.push((110 + n * 20, &[]));
        }
        assert_eq!(run(&mut AlertLedger::new(6), &script), [vec!["raised a"]]);
    }

    #[test]
    fn what_nobody_can_judge_is_not_over_and_what_is_removed_is_not_back() {
        let mut ledger = AlertLedger::new(6);
        let told = |ledger: &mut AlertLedger, absence, seconds: u64| {
            ledger.note(BTreeMap::new(), |_| absence, seconds * 1_000);
            ledger.due(seconds * 1_000).map(|message| message.alerts[0].text.clone())
        };
        ledger.note(found(&["a"]), |_| Absence::Over, 0);
        assert!(ledger.due(5_000).is_some());
        for seconds in [100, 200, 10_000] {
            assert_eq!(told(&mut ledger, Absence::Unknown, seconds), None);
        }
        assert_eq!(told(&mut ledger, Absence::Removed, 10_010), None);
        assert_eq!(told(&mut ledger, Absence::Removed, 10_041), None);
        let text = told(&mut ledger, Absence::Removed, 10_045).unwrap();
        assert!(text.starts_with("a is not in the configuration any more"), "{text}");
    }

    #[test]
    fn a_message_is_bounded_and_says_how_much_it_leaves_out() {
        let names: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut ledger = AlertLedger::new(6);
        ledger.note(found(&names), |_| Absence::Over, 0);
        let due = ledger.due(10_000).unwrap();
        assert_eq!((due.alerts.len(), due.omitted), (ALERTS_MAX, 200 - ALERTS_MAX));
    }
}
