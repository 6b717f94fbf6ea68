//! The client side of the control socket: asks an instance; when there is no answer, one sentence says why.
//! Does not print.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Answer, Command, Response, VERSION, request_line};
use super::socket::connect_to;
use crate::state;

/// The maximum length of an answer, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// An instance that does not answer within this time hangs. The server's own limit for the main loop is shorter.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no socket.
    #[error("no sersync2 is running here: there is no control socket in {}", directory.display())]
    NotRunning {
        /// The state directory.
        directory: PathBuf,
    },
    /// An instance runs, but has not opened its socket yet.
    #[error(
        "{} is starting, or could not open its control socket: ask again, and see its log",
        process(*pid)
    )]
    Starts {
        /// Its process id.
        pid: Option<u32>,
    },
    /// There is a socket, but no process listens on it.
    #[error(
        "the sersync2 of {} is gone: it was killed or has crashed, and left its control socket; start it again",
        directory.display()
    )]
    Gone {
        /// The state directory.
        directory: PathBuf,
    },
    /// The instance runs but does not answer.
    #[error(
        "{} does not answer: it is stopped (SIGSTOP) or hangs; see its state in ps, and its log",
        process(*pid)
    )]
    Hangs {
        /// Its process id.
        pid: Option<u32>,
    },
    /// The instance belongs to another user.
    #[error("{} belongs to another user: ask as that user or as root", directory.display())]
    NotAllowed {
        /// The state directory.
        directory: PathBuf,
    },
    /// The response is not a valid answer.
    #[error("{} sent an answer that this sersync2 does not understand ({reason}): their versions differ; \
        use the same program for both, or restart the instance", process(*pid))]
    Foreign {
        /// Its process id.
        pid: Option<u32>,
        /// What is wrong with it.
        reason: String,
    },
    /// The instance ended before it answered.
    #[error("{} has ended before it answered", process(*pid))]
    Ended {
        /// Its process id.
        pid: Option<u32>,
    },
    /// A system call failed.
    #[error("cannot reach the instance of {}: {source}", directory.display())]
    Io {
        /// The state directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "this instance".into(), |pid| format!("process {pid}"))
}

/// A connection to an instance.
#[derive(Debug)]
pub struct Connection {
    directory: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the instance that holds this state directory.
    ///
    /// # Errors
    /// When there is none, or it belongs to another user.
    pub fn open(directory: &Path) -> Result<Self, CallError> {
        let directory = directory.to_path_buf();
        match connect_to(&directory) {
            Ok(stream) => Ok(Self { directory, stream: BufReader::new(stream) }),
            Err(error) => Err(match (error.kind(), state::holder_now(&directory)) {
                (ErrorKind::NotFound | ErrorKind::ConnectionRefused, Some(pid)) => {
                    CallError::Starts { pid: Some(pid) }
                }
                (ErrorKind::NotFound, None) => CallError::NotRunning { directory },
                (ErrorKind::ConnectionRefused, None) => CallError::Gone { directory },
                (ErrorKind::PermissionDenied, _) => CallError::NotAllowed { directory },
                (ErrorKind::WouldBlock, _) => CallError::Hangs { pid: state::holder(&directory) },
                _ => CallError::Io { directory, source: error },
            }),
        }
    }

    /// The process id of the instance.
    pub fn pid(&self) -> Option<u32> {
        state::holder(&self.directory)
    }

    /// Sends a command, and waits for the answer for at most `patience`.
    ///
    /// # Errors
    /// When there is no answer. [`Answer::Failed`] is an answer.
    pub fn call(
        &mut self,
        command: Command,
        patience: Option<Duration>,
    ) -> Result<Answer, CallError> {
        let asked = self.stream.get_mut().set_write_timeout(Some(PATIENCE));
        asked.and_then(|()| self.send(&request_line(command))).map_err(|e| self.error(e))?;
        self.next_answer(patience)
    }

    /// True when more data was read than was returned yet.
    pub fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// Waits for the next answer, for at most `patience`.
    ///
    /// # Errors
    /// When none arrives, or it is not valid.
    pub fn next_answer(&mut self, patience: Option<Duration>) -> Result<Answer, CallError> {
        let set = self.stream.get_mut().set_read_timeout(patience);
        let line = set.and_then(|()| self.read_line()).map_err(|error| self.error(error))?;
        let pid = self.pid();
        let response: Response = serde_json::from_slice(&line)
            .map_err(|error| CallError::Foreign { pid, reason: error.to_string() })?;
        if response.version != VERSION {
            let reason = format!("version {} and not {VERSION}", response.version);
            return Err(CallError::Foreign { pid, reason });
        }
        Ok(response.result)
    }

    /// Waits until the instance closes the connection, which it does when it ends; false after `patience`.
    pub fn wait_for_end(&mut self, patience: Duration) -> bool {
        let set = self.stream.get_mut().set_read_timeout(Some(patience));
        let mut rest = [0; 64];
        set.is_ok()
            && loop {
                match self.stream.read(&mut rest) {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break is_hangup(&error),
                }
            }
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        match self.stream.get_mut().write_all(line) {
            // The instance may have sent a reason before it closed the connection, so read on.
            Err(error) if is_hangup(&error) => Ok(()),
            other => other,
        }
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.stream).take(ANSWER_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    fn error(&self, error: io::Error) -> CallError {
        let pid = self.pid();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::Hangs { pid },
            ErrorKind::UnexpectedEof => CallError::Ended { pid },
            _ if is_hangup(&error) => CallError::Ended { pid },
            _ => CallError::Io { directory: self.directory.clone(), source: error },
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
