//! The plugins' names and definitions, read from the `<plugin>` elements.
//! A wrong definition that is not in use is silently omitted.

use std::path::PathBuf;

use super::raw::RawConfig;
use super::values::Values;
use crate::ground::words::{near_word, quoted};
use crate::xml::report::Problem;
use crate::xml::schema::{Field, Node};

/// Default port of the CDN's and the HTTP plugin's server.
const HTTP_PORT: u16 = 80;

/// The plugins by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the XML values")]
pub enum PluginName {
    Command,
    Socket,
    Http,
    RefreshCdn,
}

/// The plugin definitions that the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the XML values")]
pub struct PluginDefinitions {
    pub command: Option<CommandPlugin>,
    pub socket: Option<SocketPlugin>,
    pub http: Option<HttpPlugin>,
    pub refresh_cdn: Option<RefreshCdnPlugin>,
}

/// `<plugin name="command">`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandPlugin {
    /// Words before the path.
    pub prefix: Vec<String>,
    /// Words after the path.
    pub suffix: Vec<String>,
    /// True: the command's output and exit status are ignored.
    pub ignore_error: bool,
    /// Full-match expressions on the absolute path; empty: every path.
    pub includes: Vec<String>,
}

/// `<plugin name="socket">`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPlugin {
    /// Replaces the watch root when the plugin runs.
    pub watch: Option<PathBuf>,
    /// Host name or address.
    pub ip: String,
    /// TCP port.
    pub port: u16,
}

/// `<plugin name="http">`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPlugin {
    /// Replaces the watch root when the plugin runs.
    pub watch: Option<PathBuf>,
    /// `http://…` address, or a host name.
    pub url: String,
    /// TCP port.
    pub port: u16,
    /// `format="json"` instead of the form.
    pub json: bool,
}

/// `<plugin name="refreshCDN">`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshCdnPlugin {
    /// Replaces the watch root when the plugin runs.
    pub watch: Option<PathBuf>,
    /// `<cdninfo domainname>`.
    pub domain: String,
    /// `<cdninfo port>`.
    pub port: u16,
    /// `<cdninfo username>`.
    pub user: String,
    /// `<cdninfo passwd>`; never logged.
    pub password: String,
    /// `<sendurl base>`.
    pub base: String,
    /// `<regexurl regex="true" match>`.
    pub match_expression: Option<String>,
}

impl PluginName {
    /// All plugins, with their names in the file and after `-m`.
    pub const ALL: [(&'static str, PluginName); 4] = [
        ("refreshCDN", Self::RefreshCdn),
        ("socket", Self::Socket),
        ("http", Self::Http),
        ("command", Self::Command),
    ];

    /// The plugin of this name, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        let is_it = |(known, _): &&(&str, Self)| known.eq_ignore_ascii_case(name.trim());
        Self::ALL.iter().find(is_it).map(|(_, plugin)| *plugin)
    }

    /// Its name in the file and after `-m`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, plugin)| *plugin == self).map_or("", |(name, _)| name)
    }

    /// A help sentence for an unknown name.
    pub fn help_for(name: &str) -> String {
        match near_word(name, Self::ALL.map(|(known, _)| known)) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                let [others @ .., last] = Self::ALL.map(|(known, _)| known);
                format!("the plugins are {} and {last}", others.join(", "))
            }
        }
    }
}

impl PluginDefinitions {
    /// The plugin's own watch path, from its definition.
    pub fn watch(&self, name: PluginName) -> Option<PathBuf> {
        match name {
            PluginName::Command => None,
            PluginName::Socket => self.socket.as_ref().and_then(|p| p.watch.clone()),
            PluginName::Http => self.http.as_ref().and_then(|p| p.watch.clone()),
            PluginName::RefreshCdn => self.refresh_cdn.as_ref().and_then(|p| p.watch.clone()),
        }
    }

    fn remove(&mut self, name: PluginName) {
        match name {
            PluginName::Command => self.command = None,
            PluginName::Socket => self.socket = None,
            PluginName::Http => self.http = None,
            PluginName::RefreshCdn => self.refresh_cdn = None,
        }
    }
}

/// Which plugin runs after a change was delivered, and all definitions that can be used.
/// `alone` is the plugin named by `-m`.
pub fn check_plugins(
    raw: &RawConfig,
    alone: Option<PluginName>,
    values: &mut Values<'_>,
) -> (Option<PluginName>, PluginDefinitions) {
    let mut started = None;
    for start in raw.plugin_starts() {
        match check_start(start, values) {
            Some(name) if started.is_none() => started = Some(name),
            Some(_) if alone.is_none() => {
                let found = "a plugin is started already; this one is not";
                values.warn(
                    &start.field("name"),
                    found,
                    "start one plugin, and others with -m in their own process",
                );
            }
            _ => {}
        }
    }
    if alone.is_some() {
        started = None;
    }
    let in_use = alone.or(started);
    let plugins = check_definitions(raw, in_use, values);
    if let Some(name) = in_use
        && find_definition(raw, name).is_none()
    {
        missing_definition(raw, name, alone.is_some(), values);
        started = None;
    }
    (started, plugins)
}

fn check_start(start: &Node, values: &mut Values<'_>) -> Option<PluginName> {
    if !values.switch(Some(start), false) {
        return None;
    }
    let field = start.field("name");
    let name = values.text(&field, "a plugin's name")?;
    let plugin = PluginName::parse(&name);
    if plugin.is_none() {
        let found = format!("there is no plugin {}", quoted(&name));
        values.refuse(&field, &found, &PluginName::help_for(&name));
    }
    plugin
}

fn missing_definition(raw: &RawConfig, name: PluginName, alone: bool, values: &mut Values<'_>) {
    let name = name.name();
    let sentence = format!("the plugin {name} has no definition <plugin name=\"{name}\">");
    let help = "copy the definition from confxml.example.xml";
    let root = raw.head.span.clone();
    let start = raw.plugin_starts().next().map_or(root.clone(), |start| start.field("name").span);
    values.problems.push(match alone {
        true => Problem::error(root, sentence).help(help),
        false => Problem::warning(start, format!("{sentence}; it does nothing")).help(help),
    });
}

/// The first definition of this plugin.
pub fn find_definition(raw: &RawConfig, name: PluginName) -> Option<&Node> {
    let name_of = |plugin: &Node| plugin.field("name").text.as_deref().and_then(PluginName::parse);
    raw.plugin_definitions().find(|plugin| name_of(plugin) == Some(name))
}

/// The watch path of a definition.
pub fn watch_of(plugin: &Node) -> Field {
    plugin.part("localpath").field("watch")
}

fn check_definitions(
    raw: &RawConfig,
    in_use: Option<PluginName>,
    values: &mut Values<'_>,
) -> PluginDefinitions {
    let mut plugins = PluginDefinitions::default();
    let mut defined = Vec::new();
    for definition in raw.plugin_definitions() {
        let field = definition.field("name");
        let Some(name) = field.text.as_deref() else {
            values.warn(&field, "a plugin without a name is ignored", "name it");
            continue;
        };
        let Some(plugin) = PluginName::parse(name) else {
            let found =
                format!("the definition of {} is ignored: there is no such plugin", quoted(name));
            values.warn(&field, &found, &PluginName::help_for(name));
            continue;
        };
        if defined.contains(&plugin) {
            let found = format!("{} is defined a second time; the first one counts", plugin.name());
            values.warn(&field, &found, "remove one of them");
            continue;
        }
        defined.push(plugin);
        let mut scratch = Values::new(values.source);
        check_definition(definition, plugin, &mut plugins, &mut scratch);
        if in_use == Some(plugin) {
            values.problems.append(scratch.problems);
        } else if scratch.problems.has_errors() {
            plugins.remove(plugin);
        }
    }
    plugins
}

fn check_definition(
    definition: &Node,
    plugin: PluginName,
    plugins: &mut PluginDefinitions,
    values: &mut Values<'_>,
) {
    match plugin {
        PluginName::Command => plugins.command = check_command(definition, values),
        PluginName::Socket => plugins.socket = check_socket(definition, values),
        PluginName::Http => plugins.http = check_http(definition, values),
        PluginName::RefreshCdn => plugins.refresh_cdn = check_refresh_cdn(definition, values),
    }
}

fn check_command(plugin: &Node, values: &mut Values<'_>) -> Option<CommandPlugin> {
    let param = plugin.part("param");
    let prefix = param.field("prefix");
    let prefix = values.command(&prefix, "the command to run")?;
    let suffix = param.field("suffix");
    let is_written = suffix.text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let suffix = if is_written { values.command(&suffix, "words")? } else { Vec::new() };
    let ignore_error = values.truth(&param.field("ignoreError"), false);
    let filter = plugin.child("filter");
    let filtered = values.switch(filter, false);
    let mut includes = Vec::new();
    for include in filter.filter(|_| filtered).into_iter().flat_map(|filter| filter.all("include"))
    {
        includes.extend(values.expression(&include.field("expression")));
    }
    Some(CommandPlugin { prefix, suffix, ignore_error, includes })
}

/// The plugin's own watch path; it may be missing.
fn check_watch(plugin: &Node, values: &mut Values<'_>) -> Option<PathBuf> {
    let watch = watch_of(plugin);
    watch.text.as_ref()?;
    values.absolute_path(&watch, "the directory to watch")
}

fn check_socket(plugin: &Node, values: &mut Values<'_>) -> Option<SocketPlugin> {
    let watch = check_watch(plugin, values);
    let host = plugin.part("localpath").part("deshost");
    let ip = values.host(&host.field("ip"));
    let port = values.port(&host.field("port"));
    Some(SocketPlugin { watch, ip: ip?, port: port? })
}

fn check_http(plugin: &Node, values: &mut Values<'_>) -> Option<HttpPlugin> {
    let watch = check_watch(plugin, values);
    let host = plugin.part("localpath").part("deshost");
    let url_field = host.written("url").unwrap_or_else(|| host.field("ip"));
    let url = values.text(&url_field, "an http address or a host name");
    if let Some(url) = &url
        && (url.starts_with('-') || url.contains(char::is_whitespace))
    {
        let found = format!("{} is no http address", quoted(url));
        values.refuse(&url_field, &found, "write it as http://host/path");
    }
    let port = match host.written("port") {
        Some(field) => values.port(&field),
        None => Some(HTTP_PORT),
    };
    let json = values.one_of(&host.field("format"), &[("form", false), ("json", true)], false);
    Some(HttpPlugin { watch, url: url?, port: port?, json })
}

fn check_refresh_cdn(plugin: &Node, values: &mut Values<'_>) -> Option<RefreshCdnPlugin> {
    let watch = check_watch(plugin, values);
    let path = plugin.part("localpath");
    let cdn = path.part("cdninfo");
    let regex = path.part("regexurl");
    let domain = values.host(&cdn.field("domainname"));
    let port = match cdn.written("port") {
        Some(field) => values.port(&field),
        None => Some(HTTP_PORT),
    };
    let base = values
        .text(&path.part("sendurl").field("base"), "the address that stands for the watch path");
    let expression = match values.truth(&regex.field("regex"), false) {
        // Braces and angle brackets have their own meaning in an expression.
        true if regex.field("match").text.is_some_and(|text| !text.trim().is_empty()) => {
            values.expression(&regex.field("match"))
        }
        true => values.text(&regex.field("match"), "a regular expression"),
        false => None,
    };
    Some(RefreshCdnPlugin {
        watch,
        domain: domain?,
        port: port?,
        user: cdn.field("username").text.unwrap_or_default(),
        password: cdn.field("passwd").text.unwrap_or_default(),
        base: base?,
        match_expression: expression,
    })
}
