//! Turns a RawConfig into a Config, or reports everything that is wrong with it at once.
//! Does not touch the disk; `preflight.rs` does.

use std::path::PathBuf;

use super::lists::{ReadList, list_origins};
use super::mirrors::{
    check_destinations, check_local_paths, replace_watch, warn_of_nested_destinations, watch_alone,
};
use super::params::check_params;
use super::plugins::check_plugins;
use super::raw::RawConfig;
use super::spans::Spans;
use super::telling::{PageAccess, check_page, check_telling};
use super::values::Values;
use super::{
    ChangeSwitches, Config, Crontab, FailLogConfig, FilterRules, GuardConfig, HostConfig,
    MirrorConfig, PluginName, RsyncOptions, WatchBackend,
};
use crate::ground::absolute::absolute;
use crate::ground::words::quoted;
use crate::xml::schema::{Field, Node};
use crate::xml::text::Span;

/// What changes how a file is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// `-m NAME`: this plugin runs without any sync, so remotes are neither needed nor checked.
    pub plugin_alone: Option<PluginName>,
    /// Also looks for what the configuration needs on this machine: directories, password file, programs.
    pub preflight: bool,
    /// Reads a list of remotes that is kept elsewhere. Without it, the remotes of lists are unknown.
    pub read_list: Option<ReadList>,
}

/// Minutes between two full syncs when the file sets none, or 0; the same as sersync2's.
const CRONTAB_MINUTES: u32 = 600;

/// Minutes between two tries of the fail log when the file sets none.
const RETRY_MINUTES: u32 = 60;

/// The stock file's fail log.
const FAIL_LOG_PATH: &str = "/tmp/rsync_fail_log.sh";

/// Checks every value. Use the configuration only when `values.problems` holds no error.
pub fn check_config(
    raw: &RawConfig,
    options: &LoadOptions,
    values: &mut Values<'_>,
) -> (Config, Spans) {
    let mut spans = Spans { fail_log: fail_log_place(raw), ..Spans::default() };
    let alone = options.plugin_alone;
    let (plugin, plugins) = check_plugins(raw, alone, values);
    let changes = check_changes(raw, values);
    let section = match alone {
        None => Some(check_rsync(raw, &changes, &mut spans, values)),
        Some(_) => None,
    };
    values.read_list = options.read_list;
    let mut mirrors = check_local_paths(raw, alone, section.as_ref(), &mut spans, values);
    match (alone, plugin) {
        (Some(name), _) => {
            let own = watch_alone(raw, name, &plugins, &mut spans);
            mirrors = own.unwrap_or(mirrors);
        }
        (None, Some(name)) => replace_watch(raw, name, &mut mirrors, &mut spans, values),
        (None, None) => {}
    }
    anchor_password_files(&mut mirrors, &raw.rsync.part("auth"), values);
    warn_of_whole_paths(raw, &mirrors, values);
    check_destinations(&mirrors, &spans, changes.delete, values);
    if changes.delete {
        warn_of_nested_destinations(&mirrors, &spans, values);
    }
    let telling = check_telling(raw, &mirrors, values);
    spans.needs = std::mem::take(&mut values.needs);
    spans.locals = std::mem::take(&mut values.locals);
    let config = Config {
        host: check_host(raw, values),
        debug: values.switch(raw.head.child("debug"), false),
        backend: check_backend(raw, values),
        filter: check_filter(raw.head.child("filter"), &mut spans, values),
        changes,
        mirrors,
        lists: list_origins(raw, values),
        fail_log: check_fail_log(raw, values),
        crontab: raw.sersync.child("crontab").and_then(|e| check_crontab(e, values)),
        guard: check_guard(raw, values),
        telling,
        plugin,
        plugins,
    };
    (config, spans)
}

/// sersync2 never used `<host>`, so an address that cannot be bound is only a warning.
fn check_host(raw: &RawConfig, values: &mut Values<'_>) -> HostConfig {
    let mut host =
        HostConfig { ip: "localhost".to_owned(), port: 8008, page: PageAccess::Loopback };
    let Some(element) = raw.head.child("host") else { return host };
    if let Some(field) = element.written("hostip") {
        let mut scratch = Values::new(values.source);
        if let Some(ip) = scratch.host(&field) {
            host.ip = ip;
        }
        values.problems.append_unused(scratch.problems, "localhost is taken instead");
    }
    if let Some(field) = element.written("port") {
        host.port = values.port(&field).unwrap_or(host.port);
    }
    host.page = check_page(&element.field("page"), values);
    host
}

fn check_backend(raw: &RawConfig, values: &mut Values<'_>) -> WatchBackend {
    let element = raw.head.part("fileSystem");
    values.truth(&element.field("xfs"), false);
    let known = [
        ("auto", WatchBackend::Auto),
        ("inotify", WatchBackend::Inotify),
        ("fanotify", WatchBackend::Fanotify),
    ];
    values.one_of(&element.field("backend"), &known, WatchBackend::Auto)
}

fn check_filter(element: Option<&Node>, spans: &mut Spans, values: &mut Values<'_>) -> FilterRules {
    let mut rules = FilterRules::default();
    let Some(element) = element else { return rules };
    rules.dotfiles = values.truth(&element.field("dotfiles"), true);
    rules.editor_files = values.truth(&element.field("editorFiles"), false);
    if !values.switch(Some(element), false) {
        return rules;
    }
    for exclude in element.all("exclude") {
        let field = exclude.field("expression");
        if let Some(expression) = values.expression(&field) {
            rules.excludes.push(expression);
            spans.excludes.push(field.span);
        }
    }
    rules
}

/// An expression that names the watch path matches nothing, because it sees the path below it. Who wrote it believes
/// that these files stay here.
fn warn_of_whole_paths(raw: &RawConfig, mirrors: &[MirrorConfig], values: &mut Values<'_>) {
    let filter = raw.head.part("filter");
    let is_on =
        filter.field("start").text.is_some_and(|start| start.trim().eq_ignore_ascii_case("true"));
    for exclude in filter.all("exclude").filter(|_| is_on) {
        let field = exclude.field("expression");
        let Some(text) = &field.text else { continue };
        let (anchor, path) = match text.strip_prefix('^') {
            Some(path) => ("^", path),
            None => ("", text.as_str()),
        };
        let below = mirrors.iter().find_map(|mirror| {
            path.strip_prefix(&*mirror.watch.to_string_lossy())?.strip_prefix('/')
        });
        if let Some(below) = below.filter(|below| !below.is_empty()) {
            let found = format!(
                "{} names the watch path, but it is compared with the path below it and matches nothing",
                quoted(text)
            );
            values.warn(&field, &found, &format!("write {anchor}{below}"));
        }
    }
}

fn check_changes(raw: &RawConfig, values: &mut Values<'_>) -> ChangeSwitches {
    let default = ChangeSwitches::default();
    let inotify = raw.head.part("inotify");
    let mut switch = |name, absent| values.switch(inotify.child(name), absent);
    let changes = ChangeSwitches {
        delete: switch("delete", default.delete),
        create_folder: switch("createFolder", default.create_folder),
        create_file: switch("createFile", default.create_file),
        close_write: switch("closeWrite", default.close_write),
        move_from: switch("moveFrom", default.move_from),
        move_to: switch("moveTo", default.move_to),
        attrib: switch("attrib", default.attrib),
        modify: switch("modify", default.modify),
    };
    if !changes.close_write && !changes.modify {
        let field = inotify.part("closeWrite").field("start");
        let found = "<modify> is off too, so new content of a file is not sent before a full sync";
        values.warn(&field, found, "switch on one of them");
    }
    changes
}

/// `<rsync>`: the settings for all remotes.
pub struct RsyncSection {
    /// How rsync is run.
    pub options: RsyncOptions,
    /// `<auth users>`.
    pub user: Option<String>,
    /// `<userDefinedPort>`: the daemon's port, or ssh's.
    pub port: Option<u16>,
    /// `<ssh start="true">`.
    pub ssh: bool,
}

fn check_rsync(
    raw: &RawConfig,
    changes: &ChangeSwitches,
    spans: &mut Spans,
    values: &mut Values<'_>,
) -> RsyncSection {
    let rsync = &raw.rsync;
    let ssh = values.switch(rsync.child("ssh"), false);
    spans.ssh = rsync.child("ssh").filter(|_| ssh).map(|element| element.field("start").span);
    let params = rsync.child("commonParams").map(|element| element.field("params").span);
    spans.params = params.unwrap_or(raw.sersync.span.clone());
    let (user, password_file) = check_auth(raw, ssh, spans, values);
    let options = RsyncOptions {
        params: check_params(raw, values),
        password_file,
        timeout_s: switched(rsync.child("timeout"), "time", values, Values::seconds),
        sessions: values.sessions(rsync.child("session")),
        deletes: changes.delete,
        // The other options exist on <remote> only.
        ..RsyncOptions::default()
    };
    let port = switched(rsync.child("userDefinedPort"), "port", values, Values::port);
    RsyncSection { options, user, port, ssh }
}

/// The value of an element with a switch; checked only when the switch is on.
fn switched<'a, T>(
    element: Option<&Node>,
    key: &'static str,
    values: &mut Values<'a>,
    read: impl Fn(&mut Values<'a>, &Field) -> Option<T>,
) -> Option<T> {
    let on = values.switch(element, false);
    element.filter(|_| on).and_then(|element| read(values, &element.field(key)))
}

/// The user, and the password file as written.
fn check_auth(
    raw: &RawConfig,
    ssh: bool,
    spans: &mut Spans,
    values: &mut Values<'_>,
) -> (Option<String>, Option<PathBuf>) {
    let Some(auth) = raw.rsync.child("auth") else { return (None, None) };
    if !values.switch(Some(auth), false) {
        return (None, None);
    }
    let users = auth.field("users");
    let user = values.user(&users);
    let written = auth.field("passwordfile");
    let is_needed = asks_for_password(raw, ssh, values);
    let file = is_needed.then(|| values.path(&written, "the path of a password file")).flatten();
    if file.is_some() {
        spans.password_file = Some(written.span);
    }
    let mut remotes = raw.sersync.all("localpath").flat_map(|local| local.all("remote"));
    if remotes.any(|remote| remote.field("ip").text.is_some_and(|ip| ip.contains('@'))) {
        let found = "a remote names its user as well, in front of @";
        values.refuse(&users, found, "write the user in one place only");
    }
    (user, file)
}

/// True when at least one remote is an rsync daemon: only daemons use `passwordfile`. Each remote may set `ssh` itself.
fn asks_for_password(raw: &RawConfig, ssh: bool, values: &Values<'_>) -> bool {
    // The check of the remote reports errors in the attribute.
    let mut scratch = Values::new(values.source);
    let mut is_daemon = |node: &Node| !scratch.truth(&node.field("ssh"), ssh);
    let locals = || raw.sersync.all("localpath");
    let lists = || locals().flat_map(|local| local.all("remotes"));
    let remotes = || locals().flat_map(|local| local.all("remote"));
    if remotes().chain(lists()).next().is_none() {
        return !ssh;
    }
    let has_daemon = remotes().any(|remote| remote.written("path").is_none() && is_daemon(remote));
    has_daemon || lists().any(is_daemon)
}

/// sersync2 ran rsync in the watch path, so a relative password file is relative to it.
fn anchor_password_files(mirrors: &mut [MirrorConfig], auth: &Node, values: &mut Values<'_>) {
    let Some(watch) = mirrors.first().map(|mirror| mirror.watch.clone()) else { return };
    let remotes = mirrors.iter_mut().flat_map(|mirror| &mut mirror.remotes);
    let files = remotes.filter_map(|remote| remote.options.password_file.as_mut());
    let mut anchored = None;
    for file in files.filter(|file| file.is_relative()) {
        *file = watch.join(&*file);
        anchored = Some(file.display().to_string());
    }
    if let Some(shown) = anchored {
        let found = format!("it is relative and is looked for in the watch path: {shown}");
        let help = "write an absolute path, outside of what is mirrored";
        values.warn(&auth.field("passwordfile"), &found, help);
    }
}

fn fail_log_place(raw: &RawConfig) -> Span {
    raw.sersync.part("failLog").field("path").span
}

fn check_fail_log(raw: &RawConfig, values: &mut Values<'_>) -> FailLogConfig {
    let mut fail_log =
        FailLogConfig { path: PathBuf::from(FAIL_LOG_PATH), retry_minutes: RETRY_MINUTES };
    let element = raw.sersync.part("failLog");
    let path = element.written("path").and_then(|f| values.path(&f, "the path of the fail log"));
    if let Some(path) = path {
        // sersync2 opened a relative path in the directory that it was started in.
        fail_log.path = absolute(&path);
    }
    fail_log.retry_minutes = minutes(&element.field("timeToExecute"), RETRY_MINUTES, values);
    fail_log
}

/// Minutes; zero and negative numbers mean `default`, as in sersync2.
fn minutes(field: &Field, default: u32, values: &mut Values<'_>) -> u32 {
    if field.text.is_none() {
        return default;
    }
    let limit = i64::from(i32::MAX);
    match values.number(field, "a number of minutes", -limit, limit) {
        Some(number) if number > 0 => u32::try_from(number).unwrap_or(default),
        Some(number) => {
            let found = format!("{number} is read as {default} minutes");
            values.warn(field, &found, "write the number of minutes");
            default
        }
        None => default,
    }
}

fn check_crontab(element: &Node, values: &mut Values<'_>) -> Option<Crontab> {
    if !values.switch(Some(element), false) {
        return None;
    }
    let minutes = minutes(&element.field("schedule"), CRONTAB_MINUTES, values);
    let mut crontab = Crontab { minutes, excludes: Vec::new() };
    let filter = element.child("crontabfilter");
    if !values.switch(filter, false) {
        return Some(crontab);
    }
    for exclude in filter.into_iter().flat_map(|filter| filter.all("exclude")) {
        let field = &exclude.field("expression");
        if field.text.is_none() {
            values.refuse_unwritten(field, "excludes nothing");
            continue;
        }
        let Some(text) = field.text.clone().filter(|text| !text.trim().is_empty()) else {
            values.warn(field, "it is empty and excludes nothing", "write an rsync pattern");
            continue;
        };
        if text.contains(".*)") || text.contains("\\.") {
            let found = format!(
                "{} looks like a regular expression, but it is an rsync pattern",
                quoted(&text)
            );
            values.warn(field, &found, "write it as for rsync --exclude, such as *.log");
        }
        crontab.excludes.push(values.source.bytes_of(&text));
    }
    Some(crontab)
}

fn check_guard(raw: &RawConfig, values: &mut Values<'_>) -> GuardConfig {
    let Some(field) = &raw.sersync.child("guard").map(|guard| guard.field("maxDelete")) else {
        return GuardConfig::default();
    };
    let Some(text) = values.text(field, "a share such as 50%, or off") else {
        return GuardConfig::default();
    };
    if text.eq_ignore_ascii_case("off") {
        return GuardConfig { max_delete_percent: None };
    }
    let share = text.trim_end_matches('%').trim().parse::<u8>();
    match share.ok().filter(|share| (1..=100).contains(share)) {
        Some(share) => GuardConfig { max_delete_percent: Some(share).filter(|&share| share < 100) },
        None => {
            let found = format!("expected a share such as 50%, or off, found {}", quoted(&text));
            values.refuse(field, &found, "write a number from 1 to 100 and %");
            GuardConfig::default()
        }
    }
}
