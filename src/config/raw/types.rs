//! What `raw.rs` reads: the elements of a file as plain data, each attribute with its place.
//! Holds no behaviour.

use crate::config::schema::Field;
use crate::config::text::Span;

/// A whole file. What is `None` is not in it.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML elements and attributes")]
pub struct RawConfig {
    /// Start tag of the root: the place of what is missing altogether.
    pub root: Span,
    /// Start tag of the part in which watch paths stand.
    pub section: Span,
    pub host: Option<RawHost>,
    pub debug: Option<RawSwitch>,
    pub xfs: Option<Field>,
    pub backend: Option<Field>,
    pub filter: Option<RawFilter>,
    pub changes: RawChanges,
    pub local_paths: Vec<RawLocalPath>,
    pub params: Option<Field>,
    pub auth: Option<RawAuth>,
    pub port: Option<RawSwitched>,
    pub timeout: Option<RawSwitched>,
    pub ssh: Option<RawSwitch>,
    pub fail_log: Option<RawFailLog>,
    pub crontab: Option<RawCrontab>,
    pub max_delete: Option<Field>,
    /// What tells others how the mirror is.
    pub telling: RawTelling,
    /// `<plugin start name/>` inside `<sersync>`.
    pub plugin_starts: Vec<RawPluginStart>,
    /// `<plugin name>` with its definition.
    pub plugins: Vec<RawPlugin>,
}

/// An element with `start` alone.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawSwitch {
    pub start: Field,
    /// True when there are other attributes or children, so that a missing `start` is worth a word.
    pub holds_more: bool,
}

/// An element with `start` and one value.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawSwitched {
    pub switch: RawSwitch,
    pub value: Field,
}

/// `<host>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawHost {
    pub ip: Field,
    pub port: Field,
    pub page: Field,
}

/// `<filter>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawFilter {
    pub switch: RawSwitch,
    pub dotfiles: Field,
    pub editor_files: Field,
    pub excludes: Vec<Field>,
}

/// `<inotify>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML elements")]
pub struct RawChanges {
    pub delete: Option<RawSwitch>,
    pub create_folder: Option<RawSwitch>,
    pub create_file: Option<RawSwitch>,
    pub close_write: Option<RawSwitch>,
    pub move_from: Option<RawSwitch>,
    pub move_to: Option<RawSwitch>,
    pub attrib: Option<RawSwitch>,
    pub modify: Option<RawSwitch>,
}

/// `<localpath>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawLocalPath {
    pub span: Span,
    pub watch: Field,
    pub remotes: Vec<RawRemote>,
}

/// `<remote>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawRemote {
    pub span: Span,
    pub ip: Field,
    pub name: Field,
    pub path: Field,
    pub user: Field,
    pub port: Field,
    pub ssh: Field,
    pub params: Field,
    pub timeout: Field,
    pub bwlimit: Field,
}

/// `<auth>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawAuth {
    pub switch: RawSwitch,
    pub users: Field,
    pub password_file: Field,
}

/// `<failLog>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawFailLog {
    pub path: Field,
    pub minutes: Field,
}

/// `<crontab>` with its filter.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawCrontab {
    pub switch: RawSwitch,
    pub schedule: Field,
    pub filter: Option<RawSwitch>,
    pub excludes: Vec<Field>,
}

/// `<plugin start name>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawPluginStart {
    pub switch: RawSwitch,
    pub name: Field,
}

/// One `<plugin name>` definition; which parts mean something depends on the name.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawPlugin {
    pub span: Span,
    pub name: Field,
    pub prefix: Field,
    pub suffix: Field,
    pub ignore_error: Field,
    pub include_switch: Option<RawSwitch>,
    pub includes: Vec<Field>,
    pub watch: Field,
    pub host_ip: Field,
    pub host_url: Field,
    pub host_port: Field,
    pub host_format: Field,
    pub cdn_domain: Field,
    pub cdn_port: Field,
    pub cdn_user: Field,
    pub cdn_password: Field,
    pub base: Field,
    pub regex: Field,
    pub regex_match: Field,
}

/// The elements that tell others how the mirror is.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML elements")]
pub struct RawTelling {
    pub status_file: Option<RawStatusFile>,
    pub heartbeat: Option<RawHeartbeat>,
    pub alerts: Vec<RawAlert>,
    pub event_log: Option<RawEventLog>,
}

/// `<statusFile>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawStatusFile {
    pub path: Field,
    pub interval: Field,
}

/// `<heartbeat>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawHeartbeat {
    pub url: Field,
    pub fail_url: Field,
    pub interval: Field,
}

/// `<alert>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawAlert {
    pub switch: RawSwitch,
    pub command: Field,
    pub mail: Field,
    pub webhook: Field,
    pub template: Field,
    pub secret: Field,
    pub chat: Field,
    pub down_after: Field,
    pub lag_above: Field,
    pub remind_hours: Field,
}

/// `<eventLog>`.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after the XML attributes")]
pub struct RawEventLog {
    pub path: Field,
    pub format: Field,
    pub what: Field,
}
