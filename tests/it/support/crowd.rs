//! Other clients of a daemon, which hold its connections.
//! They speak just enough of the protocol to count towards `max connections`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::wait_until;

/// Clients that hold a connection each, until they are dropped.
pub struct Crowd {
    _held: Vec<TcpStream>,
}

impl Crowd {
    /// Takes `count` connections to `module` of the daemon at `port`; waits until they are free.
    pub fn take(port: u16, module: &str, count: usize) -> Self {
        let mut held = Vec::new();
        wait_until("the crowd has taken its connections", || {
            held.extend(enter(port, module));
            held.len() == count
        });
        Self { _held: held }
    }
}

/// A connection that the daemon counts for `module`; `None` when it has no room.
fn enter(port: u16, module: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(super::LIMIT)).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    lines.next().filter(|line| line.starts_with("@RSYNCD:"))?;
    write!(stream, "@RSYNCD: 31.0\n{module}\n").ok()?;
    // After this line the daemon waits for the client's arguments.
    lines.next().filter(|line| line == "@RSYNCD: OK").map(|_| stream)
}
