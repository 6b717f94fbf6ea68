//! Reads `<remote>` into destinations, each with its own options or those of `<rsync>`.
//! Does not touch the disk.

use std::collections::HashSet;
use std::path::Path;

use super::Remote;
use super::check::RsyncSection;
use super::lists::check_list;
use super::params::read_words;
use super::values::{Values, is_within};
use crate::destination::{Destination, Host};
use crate::ground::words::quoted;
use crate::rsync::options::RsyncOptions;
use crate::xml::report::Problem;
use crate::xml::schema::{Field, Node};

/// All remotes of one watch path, each destination once.
pub fn check_remotes(
    local: &Node,
    watch: Option<&Path>,
    section: &RsyncSection,
    values: &mut Values<'_>,
) -> Vec<Remote> {
    let has_remotes = ["remote", "remotes"].iter().any(|name| local.child(name).is_some());
    if !has_remotes && !values.damaged {
        values.problems.push(
            Problem::error(local.span.clone(), "no remote: this <localpath> holds no <remote>")
                .label("expected in here")
                .help(
                    "add <remote ip=\"host\" name=\"module\"/>, or run a plugin alone with -m NAME",
                ),
        );
    }
    let mut remotes: Vec<Remote> = Vec::new();
    let mut seen = HashSet::new();
    for remote in local.all("remote") {
        let destination = if remote.written("path").is_some() {
            check_local(remote, watch, values)
        } else {
            check_host(remote, section, values)
        };
        let Some(destination) = destination else { continue };
        let options = check_options(remote, &destination, &section.options, values);
        if !seen.insert(destination.key()) {
            let sentence = format!("the remote {destination} stands here twice");
            let problem = Problem::warning(remote.span.clone(), sentence);
            values.problems.push(problem.help("it gets every change once; remove one of them"));
            continue;
        }
        let is_local = matches!(destination, Destination::Local { .. });
        values.locals.extend((is_local && watch.is_some()).then(|| remote.field("path").span));
        remotes.push(Remote { destination, options });
    }
    for list in local.all("remotes") {
        // A listed remote that the file or another list already names is the same remote.
        remotes.extend(
            check_list(list, section, values)
                .into_iter()
                .filter(|remote| seen.insert(remote.destination.key())),
        );
    }
    remotes
}

/// The options of `<rsync>`, overridden by those of the remote.
pub(super) fn check_options(
    remote: &Node,
    destination: &Destination,
    common: &RsyncOptions,
    values: &mut Values<'_>,
) -> RsyncOptions {
    let is_daemon = matches!(destination, Destination::Daemon { .. });
    RsyncOptions {
        params: match remote.written("params") {
            Some(field) => read_words(&field, values),
            None => common.params.clone(),
        },
        password_file: common.password_file.clone().filter(|_| is_daemon),
        timeout_s: remote
            .written("timeout")
            .and_then(|field| values.seconds(&field))
            .or(common.timeout_s),
        bwlimit: remote.written("bwlimit").and_then(|field| values.rate(&field)),
        sessions: values.sessions(remote.child("session")).or(common.sessions),
        deletes: common.deletes,
    }
}

/// `<remote path>`: a directory of this machine.
fn check_local(
    remote: &Node,
    watch: Option<&Path>,
    values: &mut Values<'_>,
) -> Option<Destination> {
    for field in
        ["ip", "name", "user", "port", "ssh"].into_iter().filter_map(|key| remote.written(key))
    {
        let found =
            "path names a directory of this machine, so nothing else can say where the remote is";
        values.refuse(&field, found, &format!("remove {}, or path", field.key));
    }
    let field = remote.field("path");
    let path = values.absolute_path(&field, "the directory that gets the copy")?;
    let shown = quoted(&path.to_string_lossy()).to_string();
    let within = watch.and_then(|watch| {
        if is_within(&path, watch) {
            Some("lies in its own watch path: it would be copied into itself")
        } else if is_within(watch, &path) {
            Some("holds its own watch path: a full sync would delete what is watched")
        } else {
            None
        }
    });
    if let Some(within) = within {
        let help = "name a directory outside of what is watched";
        values.refuse(&field, &format!("{shown} {within}"), help);
        return None;
    }
    Some(Destination::Local { path })
}

/// `<remote ip name>`: a daemon's module, or a path behind ssh.
fn check_host(
    remote: &Node,
    section: &RsyncSection,
    values: &mut Values<'_>,
) -> Option<Destination> {
    let way = check_way(remote, section, values);
    let host = values.host_with_user(&remote.field("ip"));
    let name = check_name(&remote.field("name"), way.ssh, values);
    let (host, name) = (host?, name?);
    way.to(host, name, &remote.field("user"), values)
}

/// How to reach the remotes that one element names.
pub(super) struct RemoteAccess {
    pub ssh: bool,
    /// The user that the element itself names.
    user: Option<String>,
    /// The user that `<rsync>` names.
    common_user: Option<String>,
    port: Option<u16>,
}

/// Reads the attributes that tell how a remote is reached.
pub(super) fn check_way(
    remote: &Node,
    section: &RsyncSection,
    values: &mut Values<'_>,
) -> RemoteAccess {
    let ssh = values.truth(&remote.field("ssh"), section.ssh);
    let user = remote.written("user").and_then(|field| values.user(&field));
    let port = remote.written("port").and_then(|field| values.port(&field));
    let port = port.or(section.port.filter(|_| ssh == section.ssh));
    RemoteAccess { ssh, user, common_user: section.user.clone(), port }
}

impl RemoteAccess {
    /// The destination for a host, perhaps with a user before it. Problems with the user are reported at `field`.
    pub(super) fn to(
        &self,
        (in_front, host): (Option<String>, String),
        name: String,
        field: &Field,
        values: &mut Values<'_>,
    ) -> Option<Destination> {
        if in_front.is_some() && self.user.is_some() {
            let found = "the remote names its user as well, in front of @";
            values.refuse(field, found, "write the user in one place only");
        }
        let user = self.user.clone().or(in_front).or(self.common_user.clone());
        let host = Host { user, name: host, port: self.port };
        Some(match self.ssh {
            true => Destination::Ssh { host, path: name },
            false => Destination::Daemon { host, module: name },
        })
    }
}

pub(super) fn check_name(field: &Field, ssh: bool, values: &mut Values<'_>) -> Option<String> {
    let expected = if ssh { "a path on the remote" } else { "the name of an rsync module" };
    let name = values.text(field, expected)?;
    if !values.is_as_meant(field, &name) {
        return None;
    }
    if name.starts_with('-') {
        let found = format!("{} begins with `-`, as an option does", quoted(&name));
        values.refuse(field, &found, &format!("write {expected}"));
        return None;
    }
    if let Some(module) = name.strip_prefix("::") {
        let found =
            format!("{} begins with colons, which are written by the program", quoted(&name));
        values.refuse(field, &found, &format!("write name=\"{module}\""));
        return None;
    }
    if let Some(module) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        let found = format!("{} has the brackets of rsyncd.conf", quoted(&name));
        values.warn(field, &found, &format!("write name=\"{module}\""));
    }
    if !ssh && name.starts_with('/') {
        let found =
            format!("{} is a path, but an rsync daemon expects a module's name", quoted(&name));
        let help = "write the module's name from rsyncd.conf, or switch on <ssh start=\"true\"/>";
        values.warn(field, &found, help);
    }
    if ssh && !name.starts_with(['/', '~']) {
        let found = format!("{} means ~/{name} on the remote, because ssh is on", quoted(&name));
        let help =
            "write a path that begins with /, or switch off <ssh> if it is a daemon's module";
        values.warn(field, &found, help);
    }
    Some(name)
}
