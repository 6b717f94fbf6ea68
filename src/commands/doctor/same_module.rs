//! Finds watch paths whose copies share a module, although their hosts are written differently.
//! `--check` compares the text alone, because it asks no name service.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};

use super::report::Finding;
use crate::config::{MirrorConfig, Remote};
use crate::destination::{DAEMON_PORT, Destination, Host};

/// A finding if the remote of another watch path leads to the same module of the same machine.
pub fn examine(
    mirrors: &[MirrorConfig],
    mirror: &MirrorConfig,
    remote: &Remote,
) -> Option<Finding> {
    const CHECK: &str = "same module";
    let Destination::Daemon { host, module } = &remote.destination else { return None };
    // The module is compared first: the name service is asked only where it decides.
    let mut own = None;
    let mut is_same = |other: &Host| {
        let own = own.get_or_insert_with(|| addresses(host));
        !addresses(other).is_disjoint(own)
    };
    let mut others = mirrors.iter().filter(|other| other.watch != mirror.watch);
    let other = others.find(|other| {
        other.remotes.iter().filter_map(|remote| host_of(remote, module)).any(&mut is_same)
    })?;
    let text = format!("{} goes to the same module of the same machine", other.watch.display());
    Some(match remote.options.deletes {
        true => Finding::error(
            CHECK,
            text,
            "a full sync of one deletes the files of the other: give each watch path a module of its own",
        ),
        false => Finding::warning(
            CHECK,
            text,
            "files of one name overwrite each other: give each watch path a module of its own",
        ),
    })
}

/// The host of a remote that is a module of this name.
fn host_of<'a>(remote: &'a Remote, name: &str) -> Option<&'a Host> {
    match &remote.destination {
        Destination::Daemon { host, module } if module == name => Some(host),
        _ => None,
    }
}

/// The addresses of the daemon; none if the host cannot be resolved.
fn addresses(host: &Host) -> HashSet<SocketAddr> {
    let found = (host.address(), host.port.unwrap_or(DAEMON_PORT)).to_socket_addrs();
    found.into_iter().flatten().collect()
}
