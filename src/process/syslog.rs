//! Sends a line to the system's log, for failures when nobody reads our own output.
//! It is one datagram; without a log daemon it is lost.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use jiff::Zoned;

/// Where log daemons listen.
const SOCKET: &str = "/dev/log";

/// Facility `daemon`, severity `err`.
const PRIORITY: u8 = 3 * 8 + 3;

/// Sends `message` to the system's log, if there is one.
pub fn send(message: &str) {
    // There is nowhere left to report an error.
    _ = send_to(SOCKET.as_ref(), &Zoned::now(), message);
}

fn send_to(socket: &Path, now: &Zoned, message: &str) -> std::io::Result<()> {
    let (time, pid) = (now.strftime("%b %e %H:%M:%S"), std::process::id());
    let sender = UnixDatagram::unbound()?;
    // A log daemon that does not read must not block the start.
    sender.set_nonblocking(true)?;
    for line in message.lines().filter(|line| !line.trim().is_empty()) {
        let datagram = format!("<{PRIORITY}>{time} sersync2[{pid}]: {line}");
        sender.send_to(datagram.as_bytes(), socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_daemon_hears_who_speaks_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("log");
        let daemon = UnixDatagram::bind(&socket).unwrap();
        let now = "2026-11-09T17:00:00+00:00[UTC]".parse().unwrap();
        send_to(&socket, &now, "cannot start: served already\n").unwrap();
        let mut datagram = [0; 1024];
        let len = daemon.recv(&mut datagram).unwrap();
        let text = String::from_utf8_lossy(&datagram[..len]).into_owned();
        let pid = std::process::id();
        assert_eq!(
            text,
            format!("<27>Nov  9 17:00:00 sersync2[{pid}]: cannot start: served already")
        );
        assert!(send_to(&dir.path().join("nobody"), &now, "x").is_err());
    }
}
