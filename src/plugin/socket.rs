//! The socket plugin: one TCP connection per event, with the absolute path as its only content.
//! Does not read an answer, and adds no newline: the end of the connection ends the path.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::PluginEvent;
use super::actor::{Deliver, PluginFailure, PluginSuccess, StopSignal};
use crate::config::SocketPlugin;

/// The socket plugin's side of [`Deliver`].
pub(super) struct Socket {
    config: SocketPlugin,
    limit: Duration,
}

impl Socket {
    pub(super) fn new(config: SocketPlugin, limit: Duration) -> Self {
        Self { config, limit }
    }
}

impl Deliver for Socket {
    fn deliver(
        &mut self,
        event: &PluginEvent,
        _stop: &StopSignal,
    ) -> Result<PluginSuccess, PluginFailure> {
        let SocketPlugin { ip, port, .. } = &self.config;
        let mut stream = connect(ip, *port, self.limit)?;
        stream
            .write_all(event.absolute().as_os_str().as_bytes())
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .map_err(|error| {
                PluginFailure::Refused(format!("{ip}:{port} did not accept the path: {error}"))
            })?;
        Ok(PluginSuccess::Done)
    }
}

/// Connects to the first address of `host` that answers within `limit`, which also applies to each read and write.
pub(super) fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, PluginFailure> {
    open(host, port, limit).map_err(|error| {
        PluginFailure::Unreachable(format!("cannot connect to {host}:{port}: {error}"))
    })
}

fn open(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    // The configuration writes IPv6 addresses in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
