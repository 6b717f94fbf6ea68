//! Finds watch paths whose copies share a module, although their hosts are written differently.
//! `--check` compares the text alone, because it asks no name service.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};

use super::report::Finding;
use crate::config::{MirrorConfig, Remote};
use crate::destination::{DAEMON_PORT, Destination};

/// A finding if the remote of another watch path leads to the same module of the same machine.
pub fn examine(
    mirrors: &[MirrorConfig],
    mirror: &MirrorConfig,
    remote: &Remote,
) -> Option<Finding> {
    let (module, addresses) = place(remote)?;
    let is_same = |other: &Remote| {
        place(other).is_some_and(|(name, at)| name == module && !at.is_disjoint(&addresses))
    };
    let mut others = mirrors.iter().filter(|other| other.watch != mirror.watch);
    let other = others.find(|other| other.remotes.iter().any(is_same))?;
    let text = format!("{} goes to the same module of the same machine", other.watch.display());
    Some(match remote.options.deletes {
        true => Finding::error(
            "place",
            text,
            "a full sync of one deletes the files of the other: give each watch path a module of its own",
        ),
        false => Finding::warning(
            "place",
            text,
            "files of one name overwrite each other: give each watch path a module of its own",
        ),
    })
}

/// The module, and the addresses of its daemon. `None` if it is no module, or its host cannot be resolved.
fn place(remote: &Remote) -> Option<(&str, HashSet<SocketAddr>)> {
    let Destination::Daemon { host, module } = &remote.destination else { return None };
    let addresses = (host.address(), host.port.unwrap_or(DAEMON_PORT)).to_socket_addrs().ok()?;
    Some((module, addresses.collect()))
}
