//! Other clients of a daemon, which take its connections and keep them.
//! They speak just enough of the protocol to be counted by `max connections`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::wait_until;

/// Clients that hold a connection each, until they are dropped.
pub struct Crowd {
    _held: Vec<TcpStream>,
}

impl Crowd {
    /// Takes `count` connections to `module` of the daemon at `port`; waits for those that others still have.
    pub fn take(port: u16, module: &str, count: usize) -> Self {
        let mut held = Vec::new();
        wait_until("the crowd has taken its connections", || {
            held.extend(enter(port, module));
            held.len() == count
        });
        Self { _held: held }
    }
}

/// A connection that the daemon counts as one to `module`; `None` when it has no room.
fn enter(port: u16, module: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(super::LIMIT)).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    lines.next().filter(|line| line.starts_with("@RSYNCD:"))?;
    write!(stream, "@RSYNCD: 31.0\n{module}\n").ok()?;
    // Behind this the daemon waits for the client's words.
    lines.next().filter(|line| line == "@RSYNCD: OK").map(|_| stream)
}
