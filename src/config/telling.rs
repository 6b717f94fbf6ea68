//! The elements that report the mirror's state: `<statusFile>`, `<heartbeat>`, `<alert>`, `<eventLog>`, and access to the page.
//! Checks only the values; the first use shows whether an address answers.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::MirrorConfig;
use super::raw::RawConfig;
use super::spans::ReportNeed;
use super::values::{Values, is_within};
use crate::ground::words::{near_word, quoted};
use crate::secret::Secret;
use crate::xml::schema::{Field, Node};

/// Seconds between two writes of the status file when the configuration sets none.
const STATUS_INTERVAL_S: u32 = 10;
/// Seconds between two heartbeats.
const HEARTBEAT_INTERVAL_S: u32 = 60;
/// Seconds that a remote may be down before an alert.
const DOWN_AFTER_S: u32 = 60;
/// Seconds that a change may wait before an alert.
const LAG_ABOVE_S: u32 = 300;
/// Hours between two reminders.
const REMIND_HOURS: u32 = 6;
/// A day: the longest sensible interval.
const DAY_S: i64 = 86_400;

/// Who may see the status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageAccess {
    /// Nobody: no port is opened.
    Off,
    /// This machine, whatever `hostip` says.
    #[default]
    Loopback,
    /// Everybody who reaches `hostip`.
    Network,
}

/// Everything that reports the mirror's state to others. By default nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telling {
    /// `<statusFile>`.
    pub status_file: Option<StatusFileConfig>,
    /// `<heartbeat>`.
    pub heartbeat: Option<HeartbeatConfig>,
    /// Each `<alert start="true">`.
    pub alerts: Vec<AlertRule>,
    /// `<eventLog>`.
    pub event_log: Option<EventLogConfig>,
}

/// `<statusFile path interval>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusFileConfig {
    /// The file that is written anew each time.
    pub path: PathBuf,
    /// Seconds between two writes or requests.
    pub interval_s: u32,
}

/// `<heartbeat url interval failUrl>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Requested as long as all is well.
    pub url: Secret,
    /// Requested when something is wrong; `None`: `url` with `/fail`.
    pub fail_url: Option<Secret>,
    /// Seconds between two writes or requests.
    pub interval_s: u32,
}

/// `<alert start="true">`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    /// The program to run, and its arguments; empty: none.
    pub command: Vec<String>,
    /// The recipients of mail through the system's sendmail; empty: none.
    pub mail: Vec<String>,
    /// The address that JSON is posted to.
    pub webhook: Option<Secret>,
    /// The form of that JSON.
    pub template: Template,
    /// Signs what is posted (DingTalk, Feishu).
    pub secret: Option<Secret>,
    /// The chat that gets it (Telegram).
    pub chat: Option<String>,
    /// Alert when a remote has been down for so many seconds.
    pub down_after_s: u32,
    /// Alert when a change has waited for so many seconds.
    pub lag_above_s: u32,
    /// Hours between two reminders; 0: none.
    pub remind_hours: u32,
}

/// The form of the JSON that a webhook gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named after the services")]
pub enum Template {
    /// Our own: every alert with its fields.
    #[default]
    Json,
    DingTalk,
    Feishu,
    WeCom,
    Slack,
    Telegram,
}

impl Template {
    /// All templates, with their names in the file.
    pub const ALL: [(&'static str, Template); 6] = [
        ("json", Self::Json),
        ("dingtalk", Self::DingTalk),
        ("feishu", Self::Feishu),
        ("wecom", Self::WeCom),
        ("slack", Self::Slack),
        ("telegram", Self::Telegram),
    ];
}

/// `<eventLog path format what>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLogConfig {
    /// The file that lines are appended to.
    pub path: PathBuf,
    /// The format of a line.
    pub format: EventFormat,
    /// Which events get a line.
    pub what: EventKinds,
}

/// The format of a line of the event log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the XML values")]
pub enum EventFormat {
    #[default]
    Text,
    Json,
}

/// Which events get a line in the event log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the XML values")]
pub struct EventKinds {
    pub deliveries: bool,
    pub deletions: bool,
    pub moves: bool,
    pub errors: bool,
}

impl EventKinds {
    const NAMES: [&'static str; 4] = ["deliveries", "deletions", "moves", "errors"];

    /// Everything.
    pub const ALL: Self = Self { deliveries: true, deletions: true, moves: true, errors: true };

    fn add(&mut self, name: &str) -> bool {
        match name {
            "deliveries" => self.deliveries = true,
            "deletions" => self.deletions = true,
            "moves" => self.moves = true,
            "errors" => self.errors = true,
            _ => return false,
        }
        true
    }
}

/// `<host page>`.
pub fn check_page(field: &Field, values: &mut Values<'_>) -> PageAccess {
    let known = [
        ("loopback", PageAccess::Loopback),
        ("off", PageAccess::Off),
        ("network", PageAccess::Network),
    ];
    values.one_of(field, &known, PageAccess::Loopback)
}

/// Checks the elements in `<sersync>` that report the mirror's state.
pub fn check_telling(
    raw: &RawConfig,
    mirrors: &[MirrorConfig],
    values: &mut Values<'_>,
) -> Telling {
    let child = |name| raw.sersync.child(name);
    Telling {
        status_file: child("statusFile").and_then(|e| check_status_file(e, mirrors, values)),
        heartbeat: child("heartbeat").and_then(|e| check_heartbeat(e, values)),
        alerts: raw.sersync.all("alert").filter_map(|e| check_alert(e, values)).collect(),
        event_log: child("eventLog").and_then(|e| check_event_log(e, mirrors, values)),
    }
}

fn check_status_file(
    element: &Node,
    mirrors: &[MirrorConfig],
    values: &mut Values<'_>,
) -> Option<StatusFileConfig> {
    let path = outside(&element.field("path"), "the path of the status file", mirrors, values);
    let interval_s = seconds(&element.field("interval"), STATUS_INTERVAL_S, values);
    Some(StatusFileConfig { path: path?, interval_s })
}

fn check_heartbeat(element: &Node, values: &mut Values<'_>) -> Option<HeartbeatConfig> {
    let url = address(&element.field("url"), values);
    let fail_url = element.written("failUrl").and_then(|field| address(&field, values));
    let interval_s = seconds(&element.field("interval"), HEARTBEAT_INTERVAL_S, values);
    Some(HeartbeatConfig { url: url?, fail_url, interval_s })
}

fn check_alert(element: &Node, values: &mut Values<'_>) -> Option<AlertRule> {
    if !values.switch(Some(element), false) {
        return None;
    }
    let command = element.written("command").and_then(|field| {
        let words = values.command(&field, "a command")?;
        values.needs_program(&field, &words);
        Some(words)
    });
    let rule = AlertRule {
        command: command.unwrap_or_default(),
        mail: check_mail(&element.field("mail"), values),
        webhook: element.written("webhook").and_then(|field| address(&field, values)),
        template: values.one_of(&element.field("template"), &Template::ALL, Template::Json),
        secret: check_secret(&element.field("secret"), values),
        chat: element.written("chat").and_then(|field| values.text(&field, "the id of a chat")),
        down_after_s: seconds_or_none(&element.field("downAfter"), DOWN_AFTER_S, values),
        lag_above_s: seconds(&element.field("lagAbove"), LAG_ABOVE_S, values),
        remind_hours: hours(&element.field("remindHours"), values),
    };
    if !["command", "mail", "webhook"].into_iter().any(|key| element.written(key).is_some()) {
        let found = "the alert reaches nobody";
        values.refuse(&element.field("start"), found, "add command=, mail= or webhook=");
    }
    if rule.template == Template::Telegram && rule.chat.is_none() {
        let help = "add chat=\"...\", the id of the chat that the bot writes to";
        values.refuse(&element.field("template"), "Telegram has to be told which chat", help);
    }
    let is_signed = matches!(rule.template, Template::DingTalk | Template::Feishu);
    if rule.secret.is_some() && !is_signed {
        let found = "it signs what DingTalk and Feishu get, and is not used here";
        values.warn(&element.field("secret"), found, "remove it, or correct template=");
    }
    Some(rule)
}

/// Addresses separated by commas; each becomes an argument of sendmail.
fn check_mail(field: &Field, values: &mut Values<'_>) -> Vec<String> {
    if field.text.is_none() {
        return Vec::new();
    }
    let Some(text) = values.text(field, "a mail address") else { return Vec::new() };
    let addresses: Vec<String> = text.split(',').map(|word| word.trim().to_owned()).collect();
    let is_wrong = |address: &&String| {
        address.is_empty() || address.starts_with('-') || address.contains(char::is_whitespace)
    };
    if let Some(wrong) = addresses.iter().find(is_wrong) {
        let found = format!("{} is no mail address", quoted(wrong));
        values.refuse(field, &found, "write addresses with a comma between them");
    }
    values.needs.push((field.clone(), ReportNeed::Sendmail));
    addresses
}

/// A secret, which must not be in the configuration file itself: people copy that file into tickets.
fn check_secret(field: &Field, values: &mut Values<'_>) -> Option<Secret> {
    field.text.as_ref()?;
    let text = values.text(field, "file:/PATH or env:NAME")?;
    let secret = Secret::parse(&text);
    if let Secret::Written(_) = secret {
        let help = "write file:/PATH or env:NAME, and put the secret there";
        values.refuse(field, "a secret does not belong into this file", help);
        return None;
    }
    values.needs.push((field.clone(), ReportNeed::Secret(secret.clone())));
    Some(secret)
}

/// An http or https address, or the name of the file or variable that holds it.
fn address(field: &Field, values: &mut Values<'_>) -> Option<Secret> {
    let text = values.text(field, "an https address, file:/PATH or env:NAME")?;
    let secret = Secret::parse(&text);
    if let Secret::Written(url) = &secret {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_one = rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
        });
        if !is_one {
            let help = "begin it with https:// or http://; or write file:/PATH or env:NAME";
            values.refuse(field, "this is no http address", help);
            return None;
        }
    }
    values.needs.push((field.clone(), ReportNeed::Secret(secret.clone())));
    Some(secret)
}

fn check_event_log(
    element: &Node,
    mirrors: &[MirrorConfig],
    values: &mut Values<'_>,
) -> Option<EventLogConfig> {
    let path = outside(&element.field("path"), "the path of the event log", mirrors, values);
    let known = [("text", EventFormat::Text), ("json", EventFormat::Json)];
    let format = values.one_of(&element.field("format"), &known, EventFormat::Text);
    let what = check_kinds(&element.field("what"), values);
    Some(EventLogConfig { path: path?, format, what })
}

fn check_kinds(field: &Field, values: &mut Values<'_>) -> EventKinds {
    if field.text.is_none() {
        return EventKinds::ALL;
    }
    let mut kinds = EventKinds::default();
    let Some(text) = values.text(field, "deliveries, deletions, moves or errors") else {
        return EventKinds::ALL;
    };
    for name in text.split(',').map(str::trim) {
        if !kinds.add(name) {
            let found = format!("{} is nothing that is logged", quoted(name));
            let help = match near_word(name, EventKinds::NAMES) {
                Some(near) => format!("did you mean {near}?"),
                None => "write one or more of deliveries,deletions,moves,errors".to_owned(),
            };
            values.refuse(field, &found, &help);
        }
    }
    kinds
}

/// A file that must not be inside a watch path: each write would be a change, and its delivery would cause another write.
fn outside(
    field: &Field,
    expected: &str,
    mirrors: &[MirrorConfig],
    values: &mut Values<'_>,
) -> Option<PathBuf> {
    let path = values.absolute_path(field, expected)?;
    let within = |mirror: &&MirrorConfig| is_within(&path, &mirror.watch);
    if let Some(mirror) = mirrors.iter().find(within) {
        let found = format!(
            "it lies in the watch path {}, so writing it would be a change that is mirrored",
            shown(&mirror.watch)
        );
        values.refuse(field, &found, "write a path outside of what is mirrored");
        return None;
    }
    values.needs.push((field.clone(), ReportNeed::File(path.clone())));
    Some(path)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn seconds(field: &Field, missing: u32, values: &mut Values<'_>) -> u32 {
    number(field, "a number of seconds", (1, DAY_S), missing, values)
}

fn seconds_or_none(field: &Field, missing: u32, values: &mut Values<'_>) -> u32 {
    number(field, "a number of seconds", (0, DAY_S), missing, values)
}

fn hours(field: &Field, values: &mut Values<'_>) -> u32 {
    number(field, "a number of hours, 0 for no reminders", (0, 10_000), REMIND_HOURS, values)
}

fn number(
    field: &Field,
    expected: &str,
    (min, max): (i64, i64),
    missing: u32,
    values: &mut Values<'_>,
) -> u32 {
    if field.text.is_none() {
        return missing;
    }
    let number = values.number(field, expected, min, max);
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(missing)
}
