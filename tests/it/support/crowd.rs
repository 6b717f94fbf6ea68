//! Other clients of a daemon, which hold its connections.
//! They speak just enough of the protocol to count towards `max connections`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

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

/// A client that comes and leaves. True when the daemon had room for it; by then the daemon no longer counts it.
pub fn visit(port: u16, module: &str) -> bool {
    let Some(mut stream) = enter(port, module) else { return false };
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    true
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
