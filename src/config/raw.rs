//! The configuration file as written: every element and attribute that we know, with its place.
//! The only file that knows their names; does not judge values, which `check.rs` does.

mod types;

use super::report::{Problem, Problems, quoted};
use super::schema::{Field, Kind, Node, find, find_home, walk};
use super::xml::Element;
pub use types::*;

macro_rules! kind {
    ($id:ident, $name:literal, [$($key:literal),*], [$($child:ident),*], many: $many:literal) => {
        static $id: Kind = Kind {
            name: $name,
            attributes: &[$($key),*],
            children: &[$(&$child),*],
            many: $many,
        };
    };
    ($id:ident, $name:literal, [$($key:literal),*]) => { kind!($id, $name, [$($key),*], []); };
    ($id:ident, $name:literal, [$($key:literal),*], [$($child:ident),*]) => {
        kind!($id, $name, [$($key),*], [$($child),*], many: false);
    };
}

kind!(HEAD, "head", ["version"], [HOST, DEBUG, FILE_SYSTEM, FILTER, INOTIFY, SERSYNC, PLUGIN]);
kind!(HOST, "host", ["hostip", "port", "page"]);
kind!(DEBUG, "debug", ["start"]);
kind!(FILE_SYSTEM, "fileSystem", ["xfs", "backend"]);
kind!(FILTER, "filter", ["start", "dotfiles", "editorFiles"], [EXCLUDE]);
kind!(EXCLUDE, "exclude", ["expression"], [], many: true);
kind!(
    INOTIFY,
    "inotify",
    [],
    [DELETE, CREATE_FOLDER, CREATE_FILE, CLOSE_WRITE, MOVE_FROM, MOVE_TO, ATTRIB, MODIFY]
);
kind!(DELETE, "delete", ["start"]);
kind!(CREATE_FOLDER, "createFolder", ["start"]);
kind!(CREATE_FILE, "createFile", ["start"]);
kind!(CLOSE_WRITE, "closeWrite", ["start"]);
kind!(MOVE_FROM, "moveFrom", ["start"]);
kind!(MOVE_TO, "moveTo", ["start"]);
kind!(ATTRIB, "attrib", ["start"]);
kind!(MODIFY, "modify", ["start"]);
kind!(
    SERSYNC,
    "sersync",
    [],
    [LOCAL_PATH, RSYNC, FAIL_LOG, CRONTAB, GUARD, STATUS_FILE, HEARTBEAT, ALERT, EVENT_LOG, PLUGIN]
);
kind!(LOCAL_PATH, "localpath", ["watch"], [REMOTE], many: true);
kind!(
    REMOTE,
    "remote",
    ["ip", "name", "path", "user", "port", "ssh", "params", "timeout", "bwlimit"],
    [],
    many: true
);
kind!(RSYNC, "rsync", [], [PARAMS, AUTH, USER_PORT, TIMEOUT, SSH]);
kind!(PARAMS, "commonParams", ["params"]);
kind!(AUTH, "auth", ["start", "users", "passwordfile"]);
kind!(USER_PORT, "userDefinedPort", ["start", "port"]);
kind!(TIMEOUT, "timeout", ["start", "time"]);
kind!(SSH, "ssh", ["start"]);
kind!(FAIL_LOG, "failLog", ["path", "timeToExecute"]);
kind!(CRONTAB, "crontab", ["start", "schedule"], [CRONTAB_FILTER]);
kind!(CRONTAB_FILTER, "crontabfilter", ["start"], [EXCLUDE]);
kind!(GUARD, "guard", ["maxDelete"]);
kind!(STATUS_FILE, "statusFile", ["path", "interval"]);
kind!(HEARTBEAT, "heartbeat", ["url", "failUrl", "interval"]);
kind!(
    ALERT,
    "alert",
    [
        "start",
        "command",
        "mail",
        "webhook",
        "template",
        "secret",
        "chat",
        "downAfter",
        "lagAbove",
        "remindHours"
    ],
    [],
    many: true
);
kind!(EVENT_LOG, "eventLog", ["path", "format", "what"]);
kind!(PLUGIN, "plugin", ["start", "name"], [COMMAND_PARAM, INCLUDE_FILTER, PLUGIN_PATH], many: true);
kind!(COMMAND_PARAM, "param", ["prefix", "suffix", "ignoreError"]);
kind!(INCLUDE_FILTER, "filter", ["start"], [INCLUDE]);
kind!(INCLUDE, "include", ["expression"], [], many: true);
kind!(PLUGIN_PATH, "localpath", ["watch"], [DEST_HOST, CDN_INFO, SEND_URL, REGEX_URL]);
kind!(DEST_HOST, "deshost", ["ip", "url", "port", "format"]);
kind!(CDN_INFO, "cdninfo", ["domainname", "port", "username", "passwd"]);
kind!(SEND_URL, "sendurl", ["base"]);
kind!(REGEX_URL, "regexurl", ["regex", "match"]);

/// The elements that only group others; what belongs into one is understood in another, too.
static CONTAINERS: [&Kind; 3] = [&HEAD, &SERSYNC, &RSYNC];

/// The root of all that may stand in a file; tests hold the example and the manual against it.
pub fn known_elements() -> &'static Kind {
    &HEAD
}

/// Reads the elements of a file. `None` when there is nothing that could be a configuration.
pub fn read_elements(elements: &[Element], problems: &mut Problems) -> Option<RawConfig> {
    let root = choose_root(elements, problems)?;
    let mut strays = Vec::new();
    let mut head = if root.name.eq_ignore_ascii_case(SERSYNC.name) {
        let inner = walk(root, &SERSYNC, &CONTAINERS, &mut strays, problems);
        let mut head = Node::absent(&HEAD, root.span.clone());
        head.adopt(vec![inner], problems);
        head
    } else {
        walk(root, &HEAD, &CONTAINERS, &mut strays, problems)
    };
    let mut sersync = take(&head, &SERSYNC);
    let mut rsync = take(&sersync, &RSYNC);
    for stray in strays {
        settle(stray, &mut head, &mut sersync, &mut rsync, problems);
    }
    Some(extract(&head, &sersync, &rsync))
}

/// The root element: `<head>`, or the first one that holds something we know.
fn choose_root<'a>(elements: &'a [Element], problems: &mut Problems) -> Option<&'a Element> {
    let is_head = |e: &&Element| e.name.eq_ignore_ascii_case(HEAD.name);
    let knows = |e: &&Element| e.children.iter().any(|c| find_home(&CONTAINERS, &c.name).is_some());
    let root = elements.iter().find(is_head).or_else(|| elements.iter().find(knows));
    let Some(root) = root else {
        let span = elements.first().map_or(0..0, |e| e.span.clone());
        problems.push(
            Problem::error(
                span,
                "this is no sersync configuration: the root element <head> is missing",
            )
            .help("start from confxml.example.xml"),
        );
        return None;
    };
    if root.name != HEAD.name {
        let sentence =
            format!("the root element is {}; it is read as <{}>", quoted(&root.name), HEAD.name);
        problems.push(
            Problem::warning(root.name_span.clone(), sentence)
                .help("put everything into <head>...</head>"),
        );
    }
    for other in elements.iter().filter(|e| !std::ptr::eq(*e, root)) {
        let sentence =
            format!("{} stands outside of <{}> and is ignored", quoted(&other.name), root.name);
        problems.push(Problem::warning(other.name_span.clone(), sentence));
    }
    Some(root)
}

/// The child of this kind, or an empty one.
fn take(parent: &Node, kind: &'static Kind) -> Node {
    let found = parent.child(kind.name).cloned();
    found.unwrap_or_else(|| Node::absent(kind, parent.span.clone()))
}

/// Puts an element that stood in the wrong place where it belongs.
fn settle(
    stray: Node,
    head: &mut Node,
    sersync: &mut Node,
    rsync: &mut Node,
    problems: &mut Problems,
) {
    let name = stray.kind.name;
    if name == RSYNC.name {
        rsync.adopt(stray.into_children(), problems);
    } else if name == SERSYNC.name {
        sersync.adopt(stray.into_children(), problems);
    } else if find(RSYNC.children, name).is_some() {
        rsync.adopt(vec![stray], problems);
    } else if find(HEAD.children, name).is_some() {
        head.adopt(vec![stray], problems);
    } else {
        sersync.adopt(vec![stray], problems);
    }
}

fn extract(head: &Node, sersync: &Node, rsync: &Node) -> RawConfig {
    let inotify = take(head, &INOTIFY);
    let on = |name| inotify.child(name).map(switch);
    let file_system = head.child(FILE_SYSTEM.name);
    RawConfig {
        root: head.span.clone(),
        section: sersync.span.clone(),
        host: head.child(HOST.name).map(|n| RawHost {
            ip: n.field("hostip"),
            port: n.field("port"),
            page: n.field("page"),
        }),
        debug: head.child(DEBUG.name).map(switch),
        xfs: file_system.map(|n| n.field("xfs")),
        backend: file_system.map(|n| n.field("backend")),
        filter: head.child(FILTER.name).map(filter),
        changes: RawChanges {
            delete: on(DELETE.name),
            create_folder: on(CREATE_FOLDER.name),
            create_file: on(CREATE_FILE.name),
            close_write: on(CLOSE_WRITE.name),
            move_from: on(MOVE_FROM.name),
            move_to: on(MOVE_TO.name),
            attrib: on(ATTRIB.name),
            modify: on(MODIFY.name),
        },
        local_paths: sersync.all(LOCAL_PATH.name).map(local_path).collect(),
        params: rsync.child(PARAMS.name).map(|n| n.field("params")),
        auth: rsync.child(AUTH.name).map(|n| RawAuth {
            switch: switch(n),
            users: n.field("users"),
            password_file: n.field("passwordfile"),
        }),
        port: rsync.child(USER_PORT.name).map(|n| switched(n, "port")),
        timeout: rsync.child(TIMEOUT.name).map(|n| switched(n, "time")),
        ssh: rsync.child(SSH.name).map(switch),
        fail_log: sersync
            .child(FAIL_LOG.name)
            .map(|n| RawFailLog { path: n.field("path"), minutes: n.field("timeToExecute") }),
        crontab: sersync.child(CRONTAB.name).map(crontab),
        max_delete: sersync.child(GUARD.name).map(|n| n.field("maxDelete")),
        telling: telling(sersync),
        plugin_starts: plugin_starts(head, sersync),
        plugins: plugin_definitions(head, sersync),
    }
}

fn telling(sersync: &Node) -> RawTelling {
    let alert = |n: &Node| RawAlert {
        switch: switch(n),
        command: n.field("command"),
        mail: n.field("mail"),
        webhook: n.field("webhook"),
        template: n.field("template"),
        secret: n.field("secret"),
        chat: n.field("chat"),
        down_after: n.field("downAfter"),
        lag_above: n.field("lagAbove"),
        remind_hours: n.field("remindHours"),
    };
    RawTelling {
        status_file: sersync
            .child(STATUS_FILE.name)
            .map(|n| RawStatusFile { path: n.field("path"), interval: n.field("interval") }),
        heartbeat: sersync.child(HEARTBEAT.name).map(|n| RawHeartbeat {
            url: n.field("url"),
            fail_url: n.field("failUrl"),
            interval: n.field("interval"),
        }),
        alerts: sersync.all(ALERT.name).map(alert).collect(),
        event_log: sersync.child(EVENT_LOG.name).map(|n| RawEventLog {
            path: n.field("path"),
            format: n.field("format"),
            what: n.field("what"),
        }),
    }
}

fn switch(node: &Node) -> RawSwitch {
    RawSwitch { start: node.field("start"), holds_more: !node.is_bare() }
}

fn switched(node: &Node, key: &'static str) -> RawSwitched {
    RawSwitched { switch: switch(node), value: node.field(key) }
}

fn filter(node: &Node) -> RawFilter {
    RawFilter {
        switch: switch(node),
        dotfiles: node.field("dotfiles"),
        editor_files: node.field("editorFiles"),
        excludes: expressions(node, EXCLUDE.name),
    }
}

fn expressions(node: &Node, name: &'static str) -> Vec<Field> {
    node.all(name).map(|n| n.field("expression")).collect()
}

fn local_path(node: &Node) -> RawLocalPath {
    let remote = |n: &Node| RawRemote {
        span: n.span.clone(),
        ip: n.field("ip"),
        name: n.field("name"),
        path: n.field("path"),
        user: n.field("user"),
        port: n.field("port"),
        ssh: n.field("ssh"),
        params: n.field("params"),
        timeout: n.field("timeout"),
        bwlimit: n.field("bwlimit"),
    };
    RawLocalPath {
        span: node.span.clone(),
        watch: node.field("watch"),
        remotes: node.all(REMOTE.name).map(remote).collect(),
    }
}

fn crontab(node: &Node) -> RawCrontab {
    let filter = node.child(CRONTAB_FILTER.name);
    RawCrontab {
        switch: switch(node),
        schedule: node.field("schedule"),
        filter: filter.map(switch),
        excludes: filter.map(|n| expressions(n, EXCLUDE.name)).unwrap_or_default(),
    }
}

/// A `<plugin>` in `<sersync>`, or one anywhere that says `start`.
fn plugin_starts(head: &Node, sersync: &Node) -> Vec<RawPluginStart> {
    let inner = sersync.all(PLUGIN.name);
    let outer = head.all(PLUGIN.name).filter(|n| n.field("start").text.is_some());
    let start = |n: &Node| RawPluginStart { switch: switch(n), name: n.field("name") };
    inner.chain(outer).map(start).collect()
}

/// A `<plugin>` in `<head>` without `start`, or one anywhere that holds something.
fn plugin_definitions(head: &Node, sersync: &Node) -> Vec<RawPlugin> {
    let holds = |n: &&Node| PLUGIN.children.iter().any(|kind| n.child(kind.name).is_some());
    let outer = head.all(PLUGIN.name).filter(move |n| holds(n) || n.field("start").text.is_none());
    let inner = sersync.all(PLUGIN.name).filter(holds);
    outer.chain(inner).map(plugin).collect()
}

fn plugin(node: &Node) -> RawPlugin {
    let param = take(node, &COMMAND_PARAM);
    let filter = node.child(INCLUDE_FILTER.name);
    let path = take(node, &PLUGIN_PATH);
    let host = take(&path, &DEST_HOST);
    let cdn = take(&path, &CDN_INFO);
    let regex = take(&path, &REGEX_URL);
    RawPlugin {
        span: node.span.clone(),
        name: node.field("name"),
        prefix: param.field("prefix"),
        suffix: param.field("suffix"),
        ignore_error: param.field("ignoreError"),
        include_switch: filter.map(switch),
        includes: filter.map(|n| expressions(n, INCLUDE.name)).unwrap_or_default(),
        watch: path.field("watch"),
        host_ip: host.field("ip"),
        host_url: host.field("url"),
        host_port: host.field("port"),
        host_format: host.field("format"),
        cdn_domain: cdn.field("domainname"),
        cdn_port: cdn.field("port"),
        cdn_user: cdn.field("username"),
        cdn_password: cdn.field("passwd"),
        base: take(&path, &SEND_URL).field("base"),
        regex: regex.field("regex"),
        regex_match: regex.field("match"),
    }
}
