//! Starts the parts that report the state: page, status file, heartbeat, alerts; and feeds the event log.
//! If one of them fails, that is one line in the log, and the mirror goes on.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::alert::Alerts;
use crate::change::{RemoteId, RootId};
use crate::config::telling::AlertRule;
use crate::config::{self, Config};
use crate::engine::{PathFailure, Settled};
use crate::event_log::{EventLog, EventRecord, LoggedEvent};
use crate::ground::every::Every;
use crate::ground::lock::lock;
use crate::heartbeat::Heartbeat;
use crate::logging::Log;
use crate::page::{Page, PageSetup};
use crate::path::RelPath;
use crate::snapshot::{DeliveryKind, SnapshotReader};
use crate::status_file::StatusFile;

use super::deliveries::Kinds;
use super::notice::Names;
use super::statistics::Clock;

/// The running page, status file, heartbeat and alerts; dropping it ends them.
#[derive(Default)]
pub struct Tellers {
    _page: Option<Page>,
    _every: Vec<Every>,
    _alerts: Vec<Alerts>,
}

impl Tellers {
    /// Starts what the configuration asks for; `shown` is the configuration without secrets, and so many `overflows` were told.
    pub fn start(
        config: &Config,
        reader: &SnapshotReader,
        log: &Log,
        shown: &Arc<Mutex<String>>,
        overflows: u64,
    ) -> Self {
        let mut tellers = Self::default();
        let (of_log, shown) = (log.clone(), Arc::clone(shown));
        let config_shown = Box::new(move || lock(&shown).clone());
        let setup = PageSetup { config: config_shown, log: Box::new(move || of_log.warnings()) };
        tellers._page = Page::start(&config.host, reader.clone(), setup);
        let telling = &config.telling;
        if let Some(of) = &telling.status_file {
            let mut file = StatusFile::new(of.path.clone(), reader.clone());
            tellers.every("status-file", of.interval_s, move || file.write());
        }
        if let Some(of) = &telling.heartbeat {
            let mut heartbeat = Heartbeat::new(of, reader.clone());
            tellers.every("heartbeat", of.interval_s, move || heartbeat.beat());
        }
        for rule in &telling.alerts {
            match Alerts::start(rule, reader.clone(), overflows) {
                Ok(alerts) => tellers._alerts.push(alerts),
                Err(error) => {
                    log::warn!("an <alert> does not work: cannot start its thread: {error}")
                }
            }
        }
        tellers
    }

    fn every(&mut self, name: &str, interval_s: u32, tick: impl FnMut() + Send + 'static) {
        match Every::start(name, Duration::ZERO, Duration::from_secs(interval_s.into()), tick) {
            Ok(every) => self._every.push(every),
            Err(error) => log::warn!("the {name} does not work: cannot start its thread: {error}"),
        }
    }
}

/// The configuration without secrets: shows plugins by name and commands by their first word, because the rest may
/// contain tokens.
pub fn shown(config: &Config) -> String {
    let host = &config.host;
    let mirror = |mirror: &config::MirrorConfig| {
        let remote = |remote: &config::Remote| {
            json!({
                "destination": remote.destination.to_string(),
                "params": remote.options.params.join(" "),
                "password file": remote.options.password_file,
                "timeout": remote.options.timeout_s.map(|s| format!("{s} s")),
            })
        };
        let remotes: Vec<Value> = mirror.remotes.iter().map(remote).collect();
        json!({ "watch": mirror.watch.to_string_lossy(), "remotes": remotes })
    };
    let telling = &config.telling;
    let alert = |rule: &AlertRule| {
        json!({
            "command": rule.command.first(),
            "mail": rule.mail,
            "webhook": rule.webhook,
            "template": rule.template,
        })
    };
    let off = [
        ("delete", config.changes.delete),
        ("createFolder", config.changes.create_folder),
        ("createFile", config.changes.create_file),
        ("closeWrite", config.changes.close_write),
        ("moveFrom", config.changes.move_from),
        ("moveTo", config.changes.move_to),
        ("attrib", config.changes.attrib),
        ("modify", config.changes.modify),
    ];
    let off: Vec<&str> = off.iter().filter(|(_, on)| !on).map(|(name, _)| *name).collect();
    let value = json!({
        "page": { "access": host.page, "port": host.port },
        "watch paths": config.mirrors.iter().map(mirror).collect::<Vec<_>>(),
        "changes that do not count": off,
        "filter": {
            "excludes": config.filter.excludes,
            "dotfiles": config.filter.dotfiles,
            "editorFiles": config.filter.editor_files,
        },
        "fail log": {
            "path": config.fail_log.path.to_string_lossy(),
            "retry": format!("every {} min", config.fail_log.retry_minutes),
        },
        "scheduled full sync": config.crontab.as_ref().map(|it| format!("every {} min", it.minutes)),
        "deletions held back above": config.guard.max_delete_percent.map(|share| format!("{share} %")),
        "plugin": config.plugin.map(config::PluginName::name),
        "status file": telling.status_file.as_ref().map(|it| it.path.to_string_lossy()),
        "heartbeat": telling.heartbeat.as_ref().map(|it| &it.url),
        "alerts": telling.alerts.iter().map(alert).collect::<Vec<_>>(),
        "event log": telling.event_log.as_ref().map(|it| it.path.to_string_lossy()),
    });
    value.to_string()
}

/// The event log, with the names that it needs.
pub struct EventTeller {
    log: EventLog,
    roots: Vec<Arc<Path>>,
    remotes: Vec<Arc<str>>,
    roots_of_remotes: Vec<RootId>,
}

impl EventTeller {
    /// `None` if the configuration has no event log, or it cannot be started.
    pub fn start(config: &Config, names: &Names, roots_of_remotes: &[RootId]) -> Option<Self> {
        let of = config.telling.event_log.as_ref()?;
        let warn = |error| log::warn!("there is no event log: cannot start its thread: {error}");
        Some(Self {
            log: EventLog::start(of).map_err(warn).ok()?,
            roots: names.roots.iter().map(|root| Arc::from(root.as_path())).collect(),
            remotes: names.remotes.iter().map(|name| Arc::from(name.as_str())).collect(),
            roots_of_remotes: roots_of_remotes.to_vec(),
        })
    }

    /// Updates the names and roots of the remotes, by number.
    pub fn name_remotes(&mut self, names: &[String], roots: &[RootId]) {
        self.remotes = names.iter().map(|name| Arc::from(name.as_str())).collect();
        self.roots_of_remotes = roots.to_vec();
    }

    /// Reopens the file before the next line.
    pub fn reopen(&self) {
        self.log.reopen();
    }

    /// Logs the deliveries of a job.
    pub fn settled(&self, clock: Clock, settled: &Settled, root: RootId, kinds: &Kinds) {
        let took_us = settled.pending_since.map(|since| {
            u64::try_from(clock.now.saturating_sub(since).as_micros()).unwrap_or(u64::MAX)
        });
        for item in settled.delivered.iter().chain(&settled.withheld) {
            let event = match kinds.of(item) {
                DeliveryKind::Sent => LoggedEvent::Sent,
                DeliveryKind::Deleted => LoggedEvent::Deleted,
                DeliveryKind::Moved => LoggedEvent::Moved,
                DeliveryKind::Compared => LoggedEvent::Compared,
            };
            self.offer(
                clock,
                settled.remote,
                root,
                Entry { event, path: &item.path, took_us, failure: None },
            );
        }
    }

    /// Logs a path that rsync could not deliver this time.
    pub fn failed(&self, clock: Clock, remote: RemoteId, of: &PathFailure) {
        let Some(root) = self.roots_of_remotes.get(remote.0) else { return };
        let failure = Some((of.failure.code, of.failure.reason.clone()));
        let entry = Entry { event: LoggedEvent::Failed, path: &of.path, took_us: None, failure };
        self.offer(clock, remote, *root, entry);
    }

    fn offer(&self, clock: Clock, remote: RemoteId, root: RootId, entry: Entry<'_>) {
        let (Some(remote), Some(root)) = (self.remotes.get(remote.0), self.roots.get(root.0))
        else {
            return;
        };
        if !self.log.wants(entry.event) {
            return;
        }
        self.log.offer(EventRecord {
            at_ms: clock.wall_ms,
            event: entry.event,
            remote: Arc::clone(remote),
            root: Arc::clone(root),
            path: entry.path.clone(),
            took_us: entry.took_us,
            bytes: None,
            failure: entry.failure,
        });
    }
}

struct Entry<'a> {
    event: LoggedEvent,
    path: &'a RelPath,
    took_us: Option<u64>,
    failure: Option<(i32, String)>,
}
