//! Knocks at a daemon that may be down: connects, and waits for its greeting. It starts no process, so it can be done often.
//! Does not learn what the daemon allows; only an rsync run can.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::Endpoint;
use super::exit::{lacking, silent};
use super::local::LocalDirectory;
use crate::destination::{DAEMON_PORT, Destination, Host};
use crate::failure::{Failure, FailureKind, code};

/// How long one knock may take in all. The kernel repeats an unanswered SYN after a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// rsync's exit codes for: no connection; no connection in time; no greeting in time.
const REFUSED: i32 = 10;
const UNREACHED: i32 = 35;
const SILENT: i32 = 30;

/// rsync's exit code for a missing directory.
const NO_DIRECTORY: i32 = 3;

/// The result of a knock that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// A daemon greets, or the directory is the right one.
    Greeted,
    /// A knock proves nothing here; only an rsync run can.
    Unsure,
}

impl Endpoint {
    /// Knocks at the remote's daemon. Fails only when it is certain that nobody answers. Nothing is certain if rsync uses a
    /// shell, a proxy or an address of its own, or if the name cannot be resolved.
    ///
    /// # Errors
    /// Nothing accepts the connection, or no greeting comes.
    pub fn knock(&self) -> Result<Knock, Failure> {
        match &self.destination {
            Destination::Daemon { host, .. } => self.knock_at_daemon(host),
            Destination::Ssh { .. } => Ok(Knock::Unsure),
            Destination::Local { .. } => self.knock_at_directory(),
        }
    }

    fn knock_at_directory(&self) -> Result<Knock, Failure> {
        match self.local.as_ref().map(LocalDirectory::open) {
            Some(Err(reason)) => Err(silent(NO_DIRECTORY, reason)),
            Some(Ok(_)) | None => Ok(Knock::Greeted),
        }
    }

    /// The host and port to which rsync connects by itself; `None` if a shell, a proxy or an option decides.
    pub fn direct_connection(&self) -> Option<(&str, u16)> {
        let Destination::Daemon { host, .. } = &self.destination else { return None };
        let proxied =
            ["RSYNC_PROXY", "RSYNC_CONNECT_PROG"].iter().any(|v| std::env::var_os(v).is_some());
        let differs = self.params.connects_elsewhere || self.params.has_sockopts;
        let is_direct = !proxied && !differs && self.remote_shell().is_none();
        is_direct.then(|| (host.address(), host.port.unwrap_or(DAEMON_PORT)))
    }

    fn knock_at_daemon(&self, host: &Host) -> Result<Knock, Failure> {
        let Some((_, port)) = self.direct_connection() else {
            return Ok(Knock::Unsure);
        };
        let Ok(addresses) = (host.address(), port).to_socket_addrs() else {
            return Ok(Knock::Unsure);
        };
        knock_at(&addresses.collect::<Vec<_>>(), PATIENCE)
    }
}

fn knock_at(addresses: &[SocketAddr], patience: Duration) -> Result<Knock, Failure> {
    let end = now() + patience;
    let mut last = Ok(Knock::Unsure);
    for (done, address) in addresses.iter().enumerate() {
        let share = (end - now().min(end)) / (addresses.len() - done) as u32;
        last = knock_one(*address, share.max(Duration::from_millis(100)));
        if last.is_ok() {
            return last;
        }
    }
    last
}

/// A daemon's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its line, such as `@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4`.
    pub line: String,
    /// How long the connection took to be made: one round trip.
    pub round_trip: Duration,
}

/// Connects, and reads the greeting.
///
/// # Errors
/// Nothing accepts the connection, or no greeting comes.
pub fn read_greeting(address: SocketAddr) -> Result<Greeting, Failure> {
    const LINE_MAX: u64 = 1024;
    let start = now();
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            silent(SILENT, format!("{address} accepts connections and says nothing"))
        }
        _ => silent(REFUSED, format!("{address}: {}", words(&error))),
    };
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(refused)?;
    let round_trip = start.elapsed();
    stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_MAX)).read_until(b'\n', &mut line).map_err(refused)?;
    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
    Ok(Greeting { line, round_trip })
}

fn knock_one(address: SocketAddr, patience: Duration) -> Result<Knock, Failure> {
    let end = now() + patience;
    let mut stream = match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => stream,
        // This machine lacks something, for example a descriptor. A run reports that and is retried.
        Err(error) if lacking(&error).is_some() => return Ok(Knock::Unsure),
        Err(error) => {
            let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
            let number = if timed_out { UNREACHED } else { REFUSED };
            let reason = format!("failed to connect to {address}: {}", words(&error));
            return Err(silent(number, reason));
        }
    };
    let rest = (end - now().min(end)).max(Duration::from_millis(100));
    // Without a time limit the read could wait for ever, so leave it to an rsync run.
    if stream.set_read_timeout(Some(rest)).is_err() {
        return Ok(Knock::Unsure);
    }
    match read_answer(&mut stream) {
        Ok(Answering::Daemon) => Ok(Knock::Greeted),
        Ok(Answering::Other) => {
            let reason = format!("has no rsync daemon at {address}, something else answers");
            let failure = Failure::new(FailureKind::Denied, code::STARTING, reason);
            Err(failure.advising("correct <userDefinedPort> or the remote's ip"))
        }
        Ok(Answering::Nothing) => {
            Err(silent(REFUSED, format!("{address} closes the connection without a greeting")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(silent(SILENT, format!("{address} accepts connections and says nothing")))
        }
        Err(error) => Err(silent(REFUSED, format!("{address}: {}", words(&error)))),
    }
}

/// What answers on a port.
#[derive(Debug, PartialEq, Eq)]
enum Answering {
    Daemon,
    Other,
    Nothing,
}

/// How every rsync daemon begins.
const GREETING: &[u8] = b"@RSYNCD:";

/// Retries an interrupted read, which says nothing about the daemon. SIGSTOP and SIGCONT interrupt a read even without
/// a signal handler: signal(7).
fn read_answer(stream: &mut impl Read) -> std::io::Result<Answering> {
    let (mut said, mut buffer) = (0, [0; GREETING.len()]);
    while said < GREETING.len() {
        match stream.read(&mut buffer[said..]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) if said == 0 => return Ok(Answering::Nothing),
            Ok(0) => return Ok(Answering::Other),
            Ok(bytes) => said += bytes,
            Err(error) => return Err(error),
        }
        if buffer[..said] != GREETING[..said] {
            return Ok(Answering::Other);
        }
    }
    Ok(Answering::Daemon)
}

/// The kernel's message without the number that Rust adds.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a knock is limited by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn only_an_rsync_daemon_greets_as_one() {
        for (said, expected) in [
            ("@RSYNCD: 31.0\n", Answering::Daemon),
            ("SSH-2.0-OpenSSH_9.2\r\n", Answering::Other),
            ("@RSY", Answering::Other),
            ("", Answering::Nothing),
        ] {
            assert_eq!(read_answer(&mut said.as_bytes()).unwrap(), expected, "{said:?}");
        }
    }

    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn who_greets_is_there_and_who_refuses_or_is_silent_is_not() {
        let (greeting, there) = listener();
        let greeter = std::thread::Builder::new().spawn(move || {
            let (mut client, _) = greeting.accept().unwrap();
            client.write_all(b"@RSYNCD: 32.0\n").unwrap();
        });
        let (_silent, mute) = listener();
        let (gone, nowhere) = listener();
        drop(gone);
        let code = |addresses: &[SocketAddr]| knock_at(addresses, SHORT).unwrap_err().code;
        assert_eq!(code(&[nowhere]), REFUSED);
        assert_eq!(code(&[mute]), SILENT);
        assert_eq!(knock_at(&[nowhere, there], Duration::from_secs(20)), Ok(Knock::Greeted));
        greeter.unwrap().join().unwrap();
    }
}
