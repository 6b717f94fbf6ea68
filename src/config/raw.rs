//! The elements and attributes of a configuration file: the only table of their names.
//! Moves misplaced elements to the right section. `check.rs` checks the values.

use crate::ground::words::quoted;
use crate::xml::parser::Element;
use crate::xml::report::{Problem, Problems};
use crate::xml::schema::{ElementKind, Node, SchemaWalk, find, find_home};

macro_rules! kind {
    ($id:ident, $name:literal, [$($key:literal),*], [$($child:ident),*] $(, $flag:ident)*) => {
        #[allow(clippy::needless_update, reason = "a kind may have every flag")]
        static $id: ElementKind = ElementKind {
            name: $name,
            attributes: &[$($key),*],
            children: &[$(&$child),*],
            $($flag: true,)*
            ..ElementKind::PLAIN
        };
    };
    ($id:ident, $name:literal, [$($key:literal),*]) => { kind!($id, $name, [$($key),*], []); };
}

kind!(HEAD, "head", ["version"], [HOST, DEBUG, FILE_SYSTEM, FILTER, INOTIFY, SERSYNC, PLUGIN]);
kind!(HOST, "host", ["hostip", "port", "page"]);
kind!(DEBUG, "debug", ["start"]);
kind!(FILE_SYSTEM, "fileSystem", ["xfs", "backend"]);
kind!(FILTER, "filter", ["start", "dotfiles", "editorFiles"], [EXCLUDE], safety);
kind!(EXCLUDE, "exclude", ["expression"], [], many, safety);
kind!(
    INOTIFY,
    "inotify",
    [],
    [DELETE, CREATE_FOLDER, CREATE_FILE, CLOSE_WRITE, MOVE_FROM, MOVE_TO, ATTRIB, MODIFY],
    safety
);
kind!(DELETE, "delete", ["start"], [], safety);
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
kind!(LOCAL_PATH, "localpath", ["watch"], [REMOTE, REMOTES], many);
kind!(
    REMOTE,
    "remote",
    ["ip", "name", "path", "user", "port", "ssh", "params", "timeout", "bwlimit"],
    [SESSION],
    many
);
kind!(
    REMOTES,
    "remotes",
    ["file", "command", "name", "user", "port", "ssh", "params", "timeout", "bwlimit"],
    [SESSION],
    many
);
kind!(RSYNC, "rsync", [], [PARAMS, AUTH, USER_PORT, TIMEOUT, SSH, SESSION]);
kind!(SESSION, "session", ["ready", "idle"]);
kind!(PARAMS, "commonParams", ["params"]);
kind!(AUTH, "auth", ["start", "users", "passwordfile"]);
kind!(USER_PORT, "userDefinedPort", ["start", "port"]);
kind!(TIMEOUT, "timeout", ["start", "time"]);
kind!(SSH, "ssh", ["start"]);
kind!(FAIL_LOG, "failLog", ["path", "timeToExecute"]);
kind!(CRONTAB, "crontab", ["start", "schedule"], [CRONTAB_FILTER]);
kind!(CRONTAB_FILTER, "crontabfilter", ["start"], [EXCLUDE], safety);
kind!(GUARD, "guard", ["maxDelete"], [], safety);
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
    many
);
kind!(EVENT_LOG, "eventLog", ["path", "format", "what"]);
kind!(PLUGIN, "plugin", ["start", "name"], [COMMAND_PARAM, INCLUDE_FILTER, PLUGIN_PATH], many);
kind!(COMMAND_PARAM, "param", ["prefix", "suffix", "ignoreError"]);
kind!(INCLUDE_FILTER, "filter", ["start"], [INCLUDE]);
kind!(INCLUDE, "include", ["expression"], [], many, safety);
kind!(PLUGIN_PATH, "localpath", ["watch"], [DEST_HOST, CDN_INFO, SEND_URL, REGEX_URL]);
kind!(DEST_HOST, "deshost", ["ip", "url", "port", "format"]);
kind!(CDN_INFO, "cdninfo", ["domainname", "port", "username", "passwd"]);
kind!(SEND_URL, "sendurl", ["base"]);
kind!(REGEX_URL, "regexurl", ["regex", "match"]);

/// Elements that only group others. A child of one is also accepted in another.
static CONTAINERS: [&ElementKind; 3] = [&HEAD, &SERSYNC, &RSYNC];

/// Elements that have no effect while all filters are off.
static EXPRESSIONS: [&ElementKind; 2] = [&EXCLUDE, &INCLUDE];

/// The root of all known elements; tests compare the example file and the manual with it.
pub fn known_elements() -> &'static ElementKind {
    &HEAD
}

/// The elements of a file, each in the section where it belongs.
#[derive(Debug)]
pub struct RawConfig {
    /// `<head>`, or the root element that replaces it.
    pub head: Node,
    /// `<sersync>`.
    pub sersync: Node,
    /// `<rsync>`.
    pub rsync: Node,
}

impl RawConfig {
    /// Every `<plugin>` in `<sersync>`, or anywhere with `start`.
    pub fn plugin_starts(&self) -> impl Iterator<Item = &Node> {
        let outer = self.head.all(PLUGIN.name).filter(|n| n.field("start").text.is_some());
        self.sersync.all(PLUGIN.name).chain(outer)
    }

    /// Every `<plugin>` in `<head>` without `start`, or anywhere with content.
    pub fn plugin_definitions(&self) -> impl Iterator<Item = &Node> {
        let holds = |n: &Node| PLUGIN.children.iter().any(|kind| n.child(kind.name).is_some());
        let defines = move |n: &&Node| holds(n) || n.field("start").text.is_none();
        let inner = self.sersync.all(PLUGIN.name).filter(move |n| holds(n));
        self.head.all(PLUGIN.name).filter(defines).chain(inner)
    }
}

/// Reads the elements of a file. `None` when there is nothing that could be a configuration.
pub fn read_elements(elements: &[Element], problems: &mut Problems) -> Option<RawConfig> {
    let root = choose_root(elements, problems)?;
    let is_on = elements.iter().any(has_filter_on);
    let idle: &'static [&'static ElementKind] = if is_on { &[] } else { &EXPRESSIONS };
    let mut walk = SchemaWalk { containers: &CONTAINERS, idle, strays: Vec::new(), problems };
    let (mut head, strays) = if root.name.eq_ignore_ascii_case(SERSYNC.name) {
        let inner = walk.walk(root, &SERSYNC);
        let strays = walk.strays;
        let mut head = Node::absent(&HEAD, root.span.clone());
        head.adopt(vec![inner], problems);
        (head, strays)
    } else {
        (walk.walk(root, &HEAD), walk.strays)
    };
    let mut sersync = head.part(SERSYNC.name);
    let mut rsync = sersync.part(RSYNC.name);
    for stray in strays {
        settle(stray, &mut head, &mut sersync, &mut rsync, problems);
    }
    Some(RawConfig { head, sersync, rsync })
}

/// True when expressions have an effect: a filter in or below `element` is switched on.
fn has_filter_on(element: &Element) -> bool {
    let is_filter =
        [&FILTER, &CRONTAB_FILTER].iter().any(|k| k.name.eq_ignore_ascii_case(&element.name));
    let is_on = element.attributes.iter().any(|attribute| {
        let value = attribute.value.as_deref().unwrap_or_default();
        attribute.name.eq_ignore_ascii_case("start") && value.trim().eq_ignore_ascii_case("true")
    });
    (is_filter && is_on) || element.children.iter().any(has_filter_on)
}

/// The root element: `<head>`, or the first one with a known child.
fn choose_root<'a>(elements: &'a [Element], problems: &mut Problems) -> Option<&'a Element> {
    let is_head = |e: &&Element| e.name.eq_ignore_ascii_case(HEAD.name);
    let knows = |e: &&Element| e.children.iter().any(|c| find_home(&CONTAINERS, &c.name).is_some());
    let head = elements.iter().find(is_head);
    // Everything outside the root element is ignored, even a switch for deletions.
    let settings =
        |e: &&Element| e.name != PLUGIN.name && find_home(&CONTAINERS, &e.name).is_some();
    if head.is_none() && elements.iter().filter(settings).count() > 1 {
        let names: Vec<_> =
            elements.iter().filter(settings).map(|e| format!("<{}>", e.name)).collect();
        let sentence = format!("the root element <head> is missing around {}", names.join(", "));
        let span = elements.iter().find(settings).map_or(0..0, |e| e.name_span.clone());
        problems.push(Problem::error(span, sentence).help("put everything into <head>...</head>"));
        return None;
    }
    let root = head.or_else(|| elements.iter().find(knows));
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
    let mut lost = Vec::new();
    for other in elements.iter().filter(|e| !std::ptr::eq(*e, root)) {
        let sentence =
            format!("{} stands outside of <{}> and is ignored", quoted(&other.name), root.name);
        let span = other.name_span.clone();
        match settings(&other) {
            true => lost
                .push(Problem::error(span, sentence).help(format!("move it into <{}>", root.name))),
            false => problems.push(Problem::warning(span, sentence)),
        }
    }
    if !lost.is_empty() {
        // Report only these problems: everything else that is missing follows from them.
        lost.into_iter().for_each(|problem| problems.push(problem));
        return None;
    }
    Some(root)
}

/// Moves a misplaced element to the section where it belongs.
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
