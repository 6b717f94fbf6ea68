//! The health verdict for monitoring, with its reasons; `status`, `/healthz` and the heartbeat share it.
//! Pure: the thresholds are an argument.

use std::time::Duration;

use crate::ground::counted::{counted, paths};

use super::{DeletionState, RootState, Snapshot, SyncState};

/// The limits of a healthy mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthThresholds {
    /// How long a change may wait.
    pub max_age: Duration,
    /// How many paths may be pending for one remote; `None`: any number.
    pub max_pending: Option<u64>,
}

impl Default for HealthThresholds {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(60), max_pending: None }
    }
}

/// The severity; its numbers are the exit codes of `sersync2 status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is delivered, or will be soon.
    Ok = 0,
    /// Something is behind or failing, or paused, or waits for an operator.
    Behind = 1,
    /// A remote or a watch path is down.
    Down = 2,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The worst level of all reasons.
    pub level: Level,
    /// A sentence for each problem, the worst first.
    pub reasons: Vec<String>,
}

impl Snapshot {
    /// The verdict at `now_ms`, by these thresholds.
    pub fn health(&self, thresholds: &HealthThresholds, now_ms: u64) -> Health {
        let mut found = Vec::new();
        self.judge_instance(&mut found);
        self.judge_roots(&mut found);
        self.judge_remotes(thresholds, now_ms, &mut found);
        found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        let level = found.first().map_or(Level::Ok, |(level, _)| *level);
        Health { level, reasons: found.into_iter().map(|(_, reason)| reason).collect() }
    }

    fn judge_instance(&self, found: &mut Vec<(Level, String)>) {
        let of = &self.instance;
        if of.unwatched > 0 {
            let count =
                counted(of.unwatched, "directory is not watched", "directories are not watched");
            found.push((Level::Behind, format!("{count} and compared every minute instead")));
        }
        if of.journal_incomplete {
            let directory = of.state_dir.as_deref().unwrap_or("the state directory");
            let reason = format!(
                "what is pending cannot be written down: the next start compares everything; make room in {directory}"
            );
            found.push((Level::Behind, reason));
        }
    }

    fn judge_roots(&self, found: &mut Vec<(Level, String)>) {
        for root in &self.roots {
            if root.state == RootState::Lost {
                let path = &root.path;
                found.push((Level::Down, format!("watch path {path} is lost")));
            } else if let Some(alarm) = root.missing().first() {
                found.push((Level::Behind, alarm.text.clone()));
            }
            if root.deletions == DeletionState::Withheld {
                let path = &root.path;
                let command = "sersync2 confirm-deletions";
                let reason =
                    format!("deletions below {path} are held back; if they are meant: {command}");
                found.push((Level::Behind, reason));
            }
        }
    }

    fn judge_remotes(
        &self,
        thresholds: &HealthThresholds,
        now_ms: u64,
        found: &mut Vec<(Level, String)>,
    ) {
        for remote in &self.remotes {
            let name = &remote.name;
            match (remote.state, &remote.down) {
                (SyncState::Down, Some(down)) => {
                    found.push((Level::Down, format!("{name} is down: {}", down.reason)));
                }
                (SyncState::Down, None) => found.push((Level::Down, format!("{name} is down"))),
                (SyncState::Paused, _) => {
                    found.push((Level::Behind, format!("{name} is paused")));
                }
                _ => {}
            }
            if remote.refuses_deletions {
                let reason = format!("{name} refuses deletions: what is deleted here stays there");
                found.push((Level::Behind, reason));
            }
            if remote.failing > 0 {
                let reason = format!("{name}: {} cannot be delivered", paths(remote.failing));
                found.push((Level::Behind, reason));
            }
            let age = Duration::from_millis(remote.lag_ms(now_ms));
            if age > thresholds.max_age && remote.state != SyncState::Down {
                let reason = format!("{name} is behind: a change waits for {} s", age.as_secs());
                found.push((Level::Behind, reason));
            }
            if thresholds.max_pending.is_some_and(|max| remote.pending > max) {
                let pending = counted(remote.pending, "path is", "paths are");
                found.push((Level::Behind, format!("{name}: {pending} pending")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Alarm, Down, RemoteStatus, RootStatus};

    fn remote(state: SyncState) -> RemoteStatus {
        RemoteStatus { name: "h::m".into(), state, ..RemoteStatus::default() }
    }

    fn level(remote: RemoteStatus) -> Level {
        let snapshot = Snapshot { remotes: vec![remote], ..Snapshot::default() };
        snapshot.health(&HealthThresholds::default(), 100_000).level
    }

    #[test]
    fn how_much_may_wait_is_up_to_the_caller() {
        let waits = RemoteStatus { pending: 3, ..remote(SyncState::Up) };
        let snapshot = Snapshot { remotes: vec![waits], ..Snapshot::default() };
        let judged = |max_pending| {
            let thresholds = HealthThresholds { max_pending, ..HealthThresholds::default() };
            snapshot.health(&thresholds, 0).level
        };
        assert_eq!(
            [judged(None), judged(Some(3)), judged(Some(2))],
            [Level::Ok, Level::Ok, Level::Behind]
        );
    }

    #[test]
    fn the_worst_decides_and_stands_first() {
        let down = Down { reason: "it does not answer".into(), ..Down::default() };
        let failing = RemoteStatus { failing: 2, ..remote(SyncState::Up) };
        let away = RemoteStatus { down: Some(down), ..remote(SyncState::Down) };
        let snapshot = Snapshot { remotes: vec![failing, away], ..Snapshot::default() };
        let health = snapshot.health(&HealthThresholds::default(), 0);
        assert_eq!(health.level, Level::Down);
        assert_eq!(health.reasons[0], "h::m is down: it does not answer");
        assert_eq!(health.reasons[1], "h::m: 2 paths cannot be delivered");
    }

    #[test]
    fn what_is_pending_is_no_fault_before_it_is_too_old() {
        let waits =
            |since| RemoteStatus { oldest_pending_ms: Some(since), ..remote(SyncState::Up) };
        assert_eq!(level(waits(40_000)), Level::Ok);
        assert_eq!(level(waits(39_000)), Level::Behind);
        assert_eq!(level(remote(SyncState::Paused)), Level::Behind);
        assert_eq!(level(remote(SyncState::Unknown)), Level::Ok);
    }

    #[test]
    fn what_this_machine_lacks_is_not_called_well() {
        let level = |change: fn(&mut Snapshot)| {
            let mut snapshot = Snapshot::default();
            change(&mut snapshot);
            snapshot.health(&HealthThresholds::default(), 0).level
        };
        assert_eq!(level(|_| {}), Level::Ok);
        assert_eq!(level(|it| it.instance.unwatched = 1), Level::Behind);
        assert_eq!(level(|it| it.instance.journal_incomplete = true), Level::Behind);
    }

    #[test]
    fn a_file_system_that_is_missing_below_a_watch_path_is_not_called_well() {
        let alarm = |text: &str| Alarm { since_ms: 0, text: text.into() };
        let held = (DeletionState::Withheld, vec![alarm("held")]);
        let gone = (DeletionState::Allowed, vec![alarm("gone")]);
        let both = (DeletionState::Withheld, vec![alarm("gone"), alarm("held")]);
        let reasons = |(deletions, alarms)| {
            let root = RootStatus { path: "/w".into(), deletions, alarms, ..RootStatus::default() };
            let snapshot = Snapshot { roots: vec![root], ..Snapshot::default() };
            let health = snapshot.health(&HealthThresholds::default(), 0);
            assert_eq!(health.level, Level::Behind);
            health.reasons
        };
        assert!(reasons(held).iter().all(|reason| reason.starts_with("deletions below /w")));
        assert_eq!(reasons(gone), ["gone"]);
        assert_eq!(reasons(both)[0], "gone");
    }

    #[test]
    fn a_lost_root_is_down_and_withheld_deletions_wait_for_an_operator() {
        let root = |state, deletions| {
            let root = RootStatus { path: "/w".into(), state, deletions, ..RootStatus::default() };
            let snapshot = Snapshot { roots: vec![root], ..Snapshot::default() };
            snapshot.health(&HealthThresholds::default(), 0).level
        };
        assert_eq!(root(RootState::Lost, DeletionState::Allowed), Level::Down);
        assert_eq!(root(RootState::Watched, DeletionState::Withheld), Level::Behind);
        assert_eq!(root(RootState::Watched, DeletionState::Undecided), Level::Ok);
    }
}
