//! Finds the problems in a snapshot, and words them for people.
//! Pure and without state: the ledger knows what is already reported.

use std::collections::BTreeMap;

use crate::config::telling::AlertRule;
use crate::ground::counted::{counted, paths};
use crate::ground::figures::duration;
use crate::snapshot::{Alarm, DeletionState, RemoteStatus, RootState, Snapshot, SyncState};

/// The kinds of problems that are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// A watch path is gone or cannot be read.
    SourceLost,
    /// Deletions wait for a confirmation.
    DeletionsHeld,
    /// A remote refuses user or password, or is not writable.
    Denied,
    /// A remote is down for too long.
    Down,
    /// Paths are in the fail log.
    FailLog,
    /// A change waits for too long.
    Lag,
    /// The kernel dropped events.
    Overflow,
    /// Directories cannot be watched.
    WatchLimit,
    /// The journal or the record cannot be written.
    State,
    /// Sent by `test-alert`.
    Test,
}

impl AlertKind {
    /// Its name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceLost => "source_lost",
            Self::DeletionsHeld => "deletions_held",
            Self::Denied => "denied",
            Self::Down => "remote_down",
            Self::FailLog => "fail_log",
            Self::Lag => "lag",
            Self::Overflow => "overflow",
            Self::WatchLimit => "watch_limit",
            Self::State => "state",
            Self::Test => "test",
        }
    }

    /// True for a single event, which has no duration.
    pub fn is_event(self) -> bool {
        matches!(self, Self::Overflow | Self::Test)
    }
}

/// Identifies a problem: its kind, and the remote or watch path.
pub type AlertKey = (AlertKind, String);

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertCondition {
    /// Since when, by the wall clock.
    pub since_ms: u64,
    /// What happened, what it means, what to do.
    pub text: String,
}

/// From which duration something counts as a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertThresholds {
    /// How long a remote may be down.
    pub down_ms: u64,
    /// How long a change may wait.
    pub lag_ms: u64,
}

impl AlertThresholds {
    /// The thresholds of a rule.
    pub fn of(rule: &AlertRule) -> Self {
        Self {
            down_ms: u64::from(rule.down_after_s) * 1_000,
            lag_ms: u64::from(rule.lag_above_s) * 1_000,
        }
    }
}

/// All current problems. So many overflows are `told` already.
pub fn conditions(
    told: u64,
    now: &Snapshot,
    limits: &AlertThresholds,
    now_ms: u64,
) -> BTreeMap<AlertKey, AlertCondition> {
    let mut found = BTreeMap::new();
    of_instance(told, now, now_ms, &mut found);
    of_roots(now, now_ms, &mut found);
    for (remote, name) in now.remotes.iter().zip(now.remote_names()) {
        of_remote(remote, &name, limits, now_ms, &mut found);
    }
    found
}

/// Why a problem that was found before is not found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It is over.
    Over,
    /// Nobody can tell now whether it is over.
    Unknown,
    /// What had it is not in the configuration any more.
    Removed,
}

/// Why the problem `key` is not among [`conditions`].
pub fn absence((kind, subject): &AlertKey, now: &Snapshot) -> Absence {
    match kind {
        AlertKind::Down | AlertKind::Denied | AlertKind::Lag | AlertKind::FailLog => {}
        AlertKind::SourceLost | AlertKind::DeletionsHeld => {
            let is_there = now.roots.iter().any(|root| root.path == *subject);
            return if is_there { Absence::Over } else { Absence::Removed };
        }
        _ => return Absence::Over,
    }
    let mut remotes = now.remotes.iter().zip(now.remote_names());
    let Some((remote, _)) = remotes.find(|(_, name)| name == subject) else {
        return Absence::Removed;
    };
    match remote.state {
        // What fails stays known.
        _ if *kind == AlertKind::FailLog => Absence::Over,
        SyncState::Up | SyncState::CatchingUp => Absence::Over,
        SyncState::Paused | SyncState::Down | SyncState::Unknown => Absence::Unknown,
    }
}

type Found = BTreeMap<AlertKey, AlertCondition>;

fn of_instance(told: u64, now: &Snapshot, now_ms: u64, found: &mut Found) {
    let of = &now.instance;
    let mut add = |kind, text: String| {
        found.insert((kind, of.config.clone()), AlertCondition { since_ms: now_ms, text });
    };
    if of.overflows > told {
        add(
            AlertKind::Overflow,
            "the kernel dropped events: everything below is compared; raise \
             fs.inotify.max_queued_events if this happens often"
                .to_owned(),
        );
    }
    if of.unwatched > 0 {
        let text = format!(
            "{} and compared every minute instead; the log names one and the cause: raise fs.inotify.max_user_watches, or \
             make it readable",
            counted(of.unwatched, "directory is not watched", "directories are not watched")
        );
        add(AlertKind::WatchLimit, text);
    }
    if of.state_dir.is_none() {
        add(
            AlertKind::State,
            "no state can be kept: what is pending is forgotten at exit; give the user a writable --state-dir"
                .to_owned(),
        );
    }
    if let Some(directory) = of.state_dir.as_ref().filter(|_| of.journal_incomplete) {
        let text = format!(
            "the journal in {directory} cannot be written: the mirror goes on, but its next start compares everything; make room \
             there, or see to it that this user may write"
        );
        add(AlertKind::State, text);
    }
}

fn of_roots(now: &Snapshot, now_ms: u64, found: &mut Found) {
    for root in &now.roots {
        let since_ms = root.alarms.iter().map(|alarm| alarm.since_ms).min().unwrap_or(now_ms);
        let said = |alarms: &[Alarm], otherwise: &str| {
            alarms.last().map_or(otherwise.to_owned(), |alarm| alarm.text.clone())
        };
        if root.state == RootState::Lost || !root.missing().is_empty() {
            let otherwise =
                "it is gone or cannot be read: nothing is sent or deleted until it is back";
            let text = said(root.missing(), otherwise);
            let text = format!("watch path {}: {text}", root.path);
            found.insert(
                (AlertKind::SourceLost, root.path.clone()),
                AlertCondition { since_ms, text },
            );
        }
        if root.deletions == DeletionState::Withheld {
            let otherwise =
                "too much vanished at once: deletions are held back until you confirm them";
            let text = said(&root.alarms, otherwise);
            let text = format!("watch path {}: {text}", root.path);
            found.insert(
                (AlertKind::DeletionsHeld, root.path.clone()),
                AlertCondition { since_ms, text },
            );
        }
    }
}

fn of_remote(
    remote: &RemoteStatus,
    name: &str,
    limits: &AlertThresholds,
    now_ms: u64,
    found: &mut Found,
) {
    let pending = counted(remote.pending, "path is", "paths are");
    let mut add = |kind, since_ms, text| {
        found.insert((kind, name.to_owned()), AlertCondition { since_ms, text });
    };
    if let (SyncState::Down, Some(down)) = (remote.state, &remote.down) {
        let words = format!("{}; {}", down.reason, down.what_to_do);
        let lasts = now_ms.saturating_sub(down.since_ms);
        if down.kind == "denied" {
            // This does not end by itself, so report it at once.
            let text = format!("remote {name} {words}; {pending} pending");
            add(AlertKind::Denied, down.since_ms, text);
        } else if lasts >= limits.down_ms {
            let text = format!(
                "remote {name} is down for {}: {words}; {pending} pending",
                duration(lasts / 1_000)
            );
            add(AlertKind::Down, down.since_ms, text);
        }
    } else if remote.lag_ms(now_ms) >= limits.lag_ms && remote.state != SyncState::Paused {
        let text = format!(
            "remote {name} is behind: a change waits for {}; {pending} pending",
            duration(remote.lag_ms(now_ms) / 1_000)
        );
        add(AlertKind::Lag, remote.oldest_pending_ms.unwrap_or(now_ms), text);
    }
    if remote.failing_paths.iter().any(|path| path.logged) {
        let first = remote.failing_paths.iter().find(|path| path.logged);
        let example = first
            .map_or(String::new(), |path| format!(", {} among them: {}", path.path, path.reason));
        let text = format!(
            "remote {name}: {} cannot be delivered{example}; see the fail log; sersync retries",
            paths(remote.failing)
        );
        add(AlertKind::FailLog, now_ms, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Down, FailingPath, Instance, RootStatus};

    const NOW: u64 = 1_000_000_000;

    fn kinds(before: Option<&Snapshot>, now: &Snapshot) -> Vec<AlertKind> {
        let limits = AlertThresholds { down_ms: 60_000, lag_ms: 300_000 };
        let told = before.map_or(0, |before| before.instance.overflows);
        conditions(told, now, &limits, NOW).into_keys().map(|(kind, _)| kind).collect()
    }

    fn instance() -> Instance {
        Instance { state_dir: Some("/s".into()), config: "/c".into(), ..Instance::default() }
    }

    fn with(remote: RemoteStatus) -> Snapshot {
        Snapshot { remotes: vec![remote], instance: instance(), ..Snapshot::default() }
    }

    fn down(kind: &str, ago_s: u64) -> RemoteStatus {
        let down = Down { since_ms: NOW - ago_s * 1_000, kind: kind.into(), ..Down::default() };
        RemoteStatus { state: SyncState::Down, down: Some(down), ..RemoteStatus::default() }
    }

    #[test]
    fn each_trouble_of_a_remote_is_one_condition_once_it_lasts() {
        let waits = |ago_s: u64, state| RemoteStatus {
            oldest_pending_ms: Some(NOW - ago_s * 1_000),
            state,
            ..RemoteStatus::default()
        };
        let path = |logged| FailingPath { logged, ..FailingPath::default() };
        let fails = |logged| RemoteStatus {
            failing: 1,
            failing_paths: vec![path(logged)],
            state: SyncState::Up,
            ..RemoteStatus::default()
        };
        let table = [
            ("a short outage", down("away", 59), vec![]),
            ("an outage", down("away", 60), vec![AlertKind::Down]),
            ("a wrong password", down("denied", 0), vec![AlertKind::Denied]),
            ("a wait", waits(299, SyncState::Up), vec![]),
            ("a long wait", waits(300, SyncState::Up), vec![AlertKind::Lag]),
            ("a pause", waits(3_000, SyncState::Paused), vec![]),
            ("a path that is retried", fails(false), vec![]),
            ("a path in the fail log", fails(true), vec![AlertKind::FailLog]),
        ];
        for (what, remote, expected) in table {
            assert_eq!(kinds(None, &with(remote)), expected, "{what}");
        }
    }

    #[test]
    fn a_trouble_is_over_only_when_its_remote_works() {
        let of = |state| RemoteStatus { name: "r".into(), state, ..RemoteStatus::default() };
        let why = |kind, state| absence(&(kind, "r".into()), &with(of(state)));
        for kind in [AlertKind::Down, AlertKind::Denied, AlertKind::Lag] {
            assert_eq!(why(kind, SyncState::Up), Absence::Over);
            assert_eq!(why(kind, SyncState::CatchingUp), Absence::Over);
            for state in [SyncState::Paused, SyncState::Down, SyncState::Unknown] {
                assert_eq!(why(kind, state), Absence::Unknown, "{kind:?} {state:?}");
            }
        }
        assert_eq!(why(AlertKind::FailLog, SyncState::Paused), Absence::Over);
        let other = absence(&(AlertKind::Down, "other".into()), &with(of(SyncState::Up)));
        assert_eq!(other, Absence::Removed);
    }

    #[test]
    fn two_remotes_of_one_name_have_a_trouble_each() {
        let mut first = down("away", 600);
        first.name = "h::m".into();
        let second = RemoteStatus { id: 1, ..first.clone() };
        let snapshot = Snapshot { remotes: vec![first, second], ..Snapshot::default() };
        let limits = AlertThresholds { down_ms: 60_000, lag_ms: 300_000 };
        let found = conditions(0, &snapshot, &limits, NOW);
        let of: Vec<_> = found.into_keys().filter(|(kind, _)| *kind == AlertKind::Down).collect();
        assert_eq!(of.iter().map(|(_, name)| name).collect::<Vec<_>>(), ["h::m", "h::m (1)"]);
    }

    #[test]
    fn an_outage_is_not_told_as_a_wait_too() {
        let mut remote = down("away", 600);
        remote.oldest_pending_ms = Some(NOW - 600_000);
        assert_eq!(kinds(None, &with(remote)), [AlertKind::Down]);
    }

    #[test]
    fn troubles_of_the_machine_are_conditions() {
        let of = |change: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = with(RemoteStatus::default());
            snapshot.roots = vec![RootStatus { path: "/w".into(), ..RootStatus::default() }];
            change(&mut snapshot);
            kinds(None, &snapshot)
        };
        assert_eq!(of(&|_| {}), []);
        assert_eq!(of(&|it| it.instance.unwatched = 3), [AlertKind::WatchLimit]);
        assert_eq!(of(&|it| it.instance.state_dir = None), [AlertKind::State]);
        assert_eq!(of(&|it| it.instance.journal_incomplete = true), [AlertKind::State]);
        assert_eq!(of(&|it| it.roots[0].state = RootState::Lost), [AlertKind::SourceLost]);
        let withheld = DeletionState::Withheld;
        assert_eq!(of(&|it| it.roots[0].deletions = withheld), [AlertKind::DeletionsHeld]);
    }

    #[test]
    fn an_overflow_is_told_when_it_happens_and_not_again() {
        let before = with(RemoteStatus::default());
        let mut after = before.clone();
        after.instance.overflows = 1;
        assert_eq!(kinds(Some(&before), &after), [AlertKind::Overflow]);
        assert_eq!(kinds(Some(&after), &after), []);
    }

    #[test]
    fn the_words_of_an_alarm_are_those_of_the_log() {
        let alarm = Alarm { since_ms: 7, text: "the disk is not mounted; mount it".into() };
        let root = RootStatus {
            path: "/w".into(),
            state: RootState::Lost,
            alarms: vec![alarm],
            ..RootStatus::default()
        };
        let snapshot = Snapshot { roots: vec![root], instance: instance(), ..Snapshot::default() };
        let limits = AlertThresholds { down_ms: 0, lag_ms: 1 };
        let found = conditions(0, &snapshot, &limits, NOW);
        let condition = &found[&(AlertKind::SourceLost, "/w".to_owned())];
        assert_eq!(condition.since_ms, 7);
        assert_eq!(condition.text, "watch path /w: the disk is not mounted; mount it");
    }
}
