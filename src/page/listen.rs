//! Opens the page's port: on the loopback interface, unless the configuration opens it to the network.
//! A failure is reported in one sentence and never stops the mirror.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use log::Level;

use super::hosts::Hosts;
use crate::config::{HostConfig, PageAccess};

/// Why there is no page.
#[derive(Debug)]
pub struct NoPage {
    /// The level of the log line.
    pub level: Level,
    /// What is wrong and what to do.
    pub text: String,
}

/// Opens the port.
///
/// # Errors
/// When the port is in use or may not be opened.
pub fn open(host: &HostConfig) -> Result<TcpListener, NoPage> {
    let address = address(host)?;
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| refused(host, address, &error))
}

/// The names under which the page answers.
pub fn hosts(host: &HostConfig) -> Hosts {
    match host.page {
        PageAccess::Network => {
            let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
            Hosts::loopback().with([host.ip.clone(), own])
        }
        PageAccess::Loopback | PageAccess::Off => Hosts::loopback(),
    }
}

fn address(host: &HostConfig) -> Result<SocketAddr, NoPage> {
    let bare = host.ip.trim_start_matches('[').trim_end_matches(']');
    let written = bare.parse::<IpAddr>().ok();
    if host.page != PageAccess::Network {
        // Old files may contain any address here, because sersync2 never opened a port.
        let loopback = written.filter(IpAddr::is_loopback);
        let ip = loopback.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        return Ok(SocketAddr::new(ip, host.port));
    }
    if let Some(ip) = written {
        return Ok(SocketAddr::new(ip, host.port));
    }
    let found = (bare, host.port).to_socket_addrs().map(|mut all| all.next());
    found.ok().flatten().ok_or_else(|| NoPage {
        level: Level::Warn,
        text: format!(
            "the status page is off: {bare} does not resolve to an address; write the address itself into <host hostip>"
        ),
    })
}

fn refused(host: &HostConfig, address: SocketAddr, error: &io::Error) -> NoPage {
    let wanted = host.page == PageAccess::Network;
    let level = if wanted { Level::Warn } else { Level::Info };
    let (ip, port) = (address.ip(), address.port());
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the status page of this instance is off: port {port} of {ip} is taken, as a rule by another instance; \
             give this one a port of its own in <host>, or switch the page off there with page=\"off\""
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the status page is off: a port below 1024 such as {port} needs root; \
             write a higher port into <host>"
        ),
        _ => format!("the status page is off: cannot listen on {address}: {error}; correct <host>"),
    };
    NoPage { level, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ip: &str, page: PageAccess) -> HostConfig {
        HostConfig { ip: ip.into(), port: 8008, page }
    }

    #[test]
    fn no_address_of_an_old_file_opens_a_port_to_the_network() {
        for ip in ["localhost", "0.0.0.0", "192.0.2.7", "[::]", "mirror.example.com"] {
            let address = address(&host(ip, PageAccess::Loopback)).unwrap();
            assert!(address.ip().is_loopback(), "{ip}: {address}");
        }
        let v6 = address(&host("[::1]", PageAccess::Loopback)).unwrap();
        assert_eq!(v6.to_string(), "[::1]:8008");
        let all = address(&host("0.0.0.0", PageAccess::Network)).unwrap();
        assert_eq!(all.to_string(), "0.0.0.0:8008");
    }
}
