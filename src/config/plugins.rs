//! The `<plugin>` elements -> which plugin runs, and the definitions.
//! A definition that is not in use may be wrong; it is then left out without a word.

use super::raw::{RawConfig, RawPlugin, RawPluginStart};
use super::report::{Problem, near_word, quoted};
use super::values::Values;
use super::{CommandPlugin, HttpPlugin, PluginName, Plugins, RefreshCdnPlugin, SocketPlugin};

/// Default port of the CDN's and the HTTP plugin's server.
const HTTP_PORT: u16 = 80;

impl PluginName {
    /// All plugins with the names they have in the file and behind `-m`.
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

    /// Its name in the file and behind `-m`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, plugin)| *plugin == self).map_or("", |(name, _)| name)
    }

    /// A help sentence for a name that is none.
    pub fn help_for(name: &str) -> String {
        match near_word(name, Self::ALL.map(|(known, _)| known)) {
            Some(near) => format!("did you mean {near}?"),
            None => "the plugins are refreshCDN, socket, http and command".to_owned(),
        }
    }
}

/// Which plugin runs after a change was delivered, and all definitions that can be used.
/// `alone` is the plugin named by `-m`.
pub fn check_plugins(
    raw: &RawConfig,
    alone: Option<PluginName>,
    values: &mut Values<'_>,
) -> (Option<PluginName>, Plugins) {
    let mut started = None;
    for start in &raw.plugin_starts {
        match check_start(start, values) {
            Some(name) if started.is_none() => started = Some(name),
            Some(_) if alone.is_none() => {
                let found = "a plugin is started already; this one is not";
                values.warn(
                    &start.name,
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

fn check_start(start: &RawPluginStart, values: &mut Values<'_>) -> Option<PluginName> {
    if !values.switch(Some(&start.switch), false) {
        return None;
    }
    let name = values.text(&start.name, "a plugin's name")?;
    let plugin = PluginName::parse(&name);
    if plugin.is_none() {
        let found = format!("there is no plugin {}", quoted(&name));
        values.refuse(&start.name, &found, &PluginName::help_for(&name));
    }
    plugin
}

fn missing_definition(raw: &RawConfig, name: PluginName, alone: bool, values: &mut Values<'_>) {
    let name = name.name();
    let sentence = format!("the plugin {name} has no definition <plugin name=\"{name}\">");
    let help = "copy the definition from confxml.example.xml";
    let start = raw.plugin_starts.first().map_or(raw.root.clone(), |start| start.name.span.clone());
    values.problems.push(match alone {
        true => Problem::error(raw.root.clone(), sentence).help(help),
        false => Problem::warning(start, format!("{sentence}; it does nothing")).help(help),
    });
}

/// The first definition of this plugin.
pub fn find_definition(raw: &RawConfig, name: PluginName) -> Option<&RawPlugin> {
    let name_of = |plugin: &RawPlugin| plugin.name.text.as_deref().and_then(PluginName::parse);
    raw.plugins.iter().find(|plugin| name_of(plugin) == Some(name))
}

fn check_definitions(
    raw: &RawConfig,
    in_use: Option<PluginName>,
    values: &mut Values<'_>,
) -> Plugins {
    let mut plugins = Plugins::default();
    let mut defined = Vec::new();
    for definition in &raw.plugins {
        let Some(name) = definition.name.text.as_deref() else {
            values.warn(&definition.name, "a plugin without a name is ignored", "name it");
            continue;
        };
        let Some(plugin) = PluginName::parse(name) else {
            let found =
                format!("the definition of {} is ignored: there is no such plugin", quoted(name));
            values.warn(&definition.name, &found, &PluginName::help_for(name));
            continue;
        };
        if defined.contains(&plugin) {
            let found = format!("{} is defined a second time; the first one counts", plugin.name());
            values.warn(&definition.name, &found, "remove one of them");
            continue;
        }
        defined.push(plugin);
        let mut scratch = Values::new(values.source);
        check_definition(definition, plugin, &mut plugins, &mut scratch);
        if in_use == Some(plugin) {
            values.problems.append(scratch.problems);
        } else if scratch.problems.has_errors() {
            remove(plugin, &mut plugins);
        }
    }
    plugins
}

fn remove(plugin: PluginName, plugins: &mut Plugins) {
    match plugin {
        PluginName::Command => plugins.command = None,
        PluginName::Socket => plugins.socket = None,
        PluginName::Http => plugins.http = None,
        PluginName::RefreshCdn => plugins.refresh_cdn = None,
    }
}

fn check_definition(
    raw: &RawPlugin,
    plugin: PluginName,
    plugins: &mut Plugins,
    values: &mut Values<'_>,
) {
    match plugin {
        PluginName::Command => plugins.command = check_command(raw, values),
        PluginName::Socket => plugins.socket = check_socket(raw, values),
        PluginName::Http => plugins.http = check_http(raw, values),
        PluginName::RefreshCdn => plugins.refresh_cdn = check_refresh_cdn(raw, values),
    }
}

fn check_command(raw: &RawPlugin, values: &mut Values<'_>) -> Option<CommandPlugin> {
    values.text(&raw.prefix, "the command to run")?;
    let prefix = values.words(&raw.prefix);
    let suffix = values.words(&raw.suffix);
    let ignore_error = values.truth(&raw.ignore_error, false);
    let filtered = values.switch(raw.include_switch.as_ref(), false);
    let mut includes = Vec::new();
    for field in raw.includes.iter().filter(|_| filtered) {
        includes.extend(values.expression(field));
    }
    Some(CommandPlugin { prefix, suffix, ignore_error, includes })
}

/// The plugin's own watch path; it may be missing.
fn check_watch(raw: &RawPlugin, values: &mut Values<'_>) -> Option<std::path::PathBuf> {
    raw.watch.text.as_ref()?;
    values.absolute_path(&raw.watch, "the directory to watch")
}

fn check_socket(raw: &RawPlugin, values: &mut Values<'_>) -> Option<SocketPlugin> {
    let watch = check_watch(raw, values);
    let ip = values.host(&raw.host_ip);
    let port = values.port(&raw.host_port);
    Some(SocketPlugin { watch, ip: ip?, port: port? })
}

fn check_http(raw: &RawPlugin, values: &mut Values<'_>) -> Option<HttpPlugin> {
    let watch = check_watch(raw, values);
    let url_field = if raw.host_url.text.is_some() { &raw.host_url } else { &raw.host_ip };
    let url = values.text(url_field, "an http address or a host name");
    if let Some(url) = &url
        && (url.starts_with('-') || url.contains(char::is_whitespace))
    {
        let found = format!("{} is no http address", quoted(url));
        values.refuse(url_field, &found, "write it as http://host/path");
    }
    let port = match &raw.host_port.text {
        Some(_) => values.port(&raw.host_port),
        None => Some(HTTP_PORT),
    };
    let json = values.one_of(&raw.host_format, &[("form", false), ("json", true)], false);
    Some(HttpPlugin { watch, url: url?, port: port?, json })
}

fn check_refresh_cdn(raw: &RawPlugin, values: &mut Values<'_>) -> Option<RefreshCdnPlugin> {
    let watch = check_watch(raw, values);
    let domain = values.host(&raw.cdn_domain);
    let port = match &raw.cdn_port.text {
        Some(_) => values.port(&raw.cdn_port),
        None => Some(HTTP_PORT),
    };
    let base = values.text(&raw.base, "the address that stands for the watch path");
    let expression = match values.truth(&raw.regex, false) {
        true => values
            .text(&raw.regex_match, "a regular expression")
            .and_then(|_| values.expression(&raw.regex_match)),
        false => None,
    };
    Some(RefreshCdnPlugin {
        watch,
        domain: domain?,
        port: port?,
        user: raw.cdn_user.text.clone().unwrap_or_default(),
        password: raw.cdn_password.text.clone().unwrap_or_default(),
        base: base?,
        match_expression: expression,
    })
}
