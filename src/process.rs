//! The process around the mirror: background mode with a reliable exit code of the parent, and messages to systemd.
//! Knows nothing of configurations or remotes. `process/signals.rs` handles signals; `process/orphans.rs` ends what a killed instance left.

pub mod orphans;
pub mod signals;
pub mod syslog;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use sd_notify::NotifyState;

use crate::ground::limits::raise_open_files;
use crate::logging::{Log, LogError};
use crate::sys::{self, Side};

/// What the child of `-d` writes first when it is ready; anything else is the reason of its failure.
const READY: u8 = 0;

/// What can go wrong around the mirror.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system refuses a pipe, a process or a signal handler.
    #[error("cannot {verb}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Standard output and error cannot be redirected to the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The parent of `-d` was ended before the mirror was ready, so its caller has given up.
    #[error("the process that started sersync2 was ended while it waited for the watches")]
    ParentGone,
}

/// Which process continues after [`start_background`].
#[derive(Debug)]
pub enum Background {
    /// The parent: it only has to end with this code.
    Parent(ExitCode),
    /// The child: it is the mirror.
    Child(Readiness),
}

/// Resets what a launcher may have changed: signals, and the limit on open files.
/// Call it first, before any thread or child is started.
pub fn prepare() {
    sys::restore_signal_defaults();
    // Ignore a failure: large trees need watches, not open files.
    _ = raise_open_files();
}

/// Goes to the background, before the first thread. The parent prints `announcement`, waits for the child's
/// result, and ends with its exit code; a reason goes to standard error.
///
/// The child keeps the working directory, the umask, and standard output and error until it is ready.
///
/// # Errors
/// When the system refuses a pipe or a process, or when another thread is already running.
pub fn start_background(announcement: &[u8], log_file: &Path) -> Result<Background, ProcessError> {
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()))?;
    // Otherwise both processes would print what is still in the buffer.
    _ = io::stdout().flush();
    match sys::fork_into_background().map_err(failed("go to the background"))? {
        Side::Child => {
            drop(reader);
            Ok(Background::Child(Readiness(Some(File::from(writer)))))
        }
        Side::Parent => {
            drop(writer);
            print(announcement);
            Ok(Background::Parent(wait_for_child(reader, log_file)))
        }
    }
}

/// Prints lines of the banner. A closed terminal or pipe is not an error.
pub fn print(text: &[u8]) {
    let mut out = io::stdout().lock();
    _ = out.write_all(text).and_then(|()| out.flush());
}

/// Blocks until the child is ready, has failed, or is dead.
fn wait_for_child(pipe: OwnedFd, log_file: &Path) -> ExitCode {
    // A terminal that closes now must not make the start fail. A handler that only sets a flag keeps this process alive.
    let flag = Arc::new(AtomicBool::new(false));
    _ = signal_hook::flag::register(signal_hook::consts::SIGHUP, flag);
    match read_answer(File::from(pipe)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildFailure::Reason(mut reason)) => {
            reason.push(b'\n');
            _ = io::stderr().write_all(&reason);
            ExitCode::FAILURE
        }
        Err(ChildFailure::Silence) => {
            let log = log_file.display();
            _ = writeln!(
                io::stderr(),
                "sersync2 ended in the background before its watches stood; its log: {log}"
            );
            ExitCode::FAILURE
        }
    }
}

/// Why the child of `-d` is not ready.
#[derive(Debug, PartialEq, Eq)]
enum ChildFailure {
    /// The child's own message.
    Reason(Vec<u8>),
    /// It died without a message.
    Silence,
}

/// Reads the child's message until the child closes its end of the pipe or dies.
fn read_answer(mut pipe: impl Read) -> Result<(), ChildFailure> {
    let mut answer = Vec::new();
    // After an error the answer is not `READY`.
    _ = pipe.read_to_end(&mut answer);
    match answer.as_slice() {
        [READY] => Ok(()),
        [] => Err(ChildFailure::Silence),
        _ => Err(ChildFailure::Reason(answer)),
    }
}

/// Reports that the mirror is ready. If it is dropped before that, the parent of `-d` sees a failure.
#[derive(Debug)]
pub struct Readiness(Option<File>);

impl Readiness {
    /// For the foreground: there is no parent to report to, only systemd.
    pub fn foreground() -> Self {
        Self(None)
    }

    /// True in the child of `-d`.
    pub fn is_background(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that the configuration is valid and all watches are set. In the background, standard output and error are redirected to
    /// `log`, and the parent exits with 0. systemd is notified.
    ///
    /// # Errors
    /// [`ProcessError::ParentGone`] when the caller of the parent has given up. The mirror must then end; otherwise a second attempt would
    /// start another one.
    pub fn ready(self, log: &Log) -> Result<(), ProcessError> {
        if let Some(mut pipe) = self.0 {
            log.take_standard_streams()?;
            pipe.write_all(&[READY]).map_err(|_| ProcessError::ParentGone)?;
        }
        // With -d the main process is not the one that systemd started.
        tell_systemd(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
        Ok(())
    }

    /// Reports that the start failed. In the background the parent prints `reason`; in the foreground this function does.
    pub fn failed(self, reason: &str) {
        match self.0 {
            Some(mut pipe) => _ = pipe.write_all(reason.as_bytes()),
            None => _ = writeln!(io::stderr(), "{reason}"),
        }
    }
}

/// How often systemd wants a sign of life; `None`: it wants none.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Gives systemd's watchdog a sign of life.
pub fn tell_alive() {
    tell_systemd(&[NotifyState::Watchdog]);
}

/// Notifies systemd that the mirror is stopping.
pub fn tell_stopping() {
    tell_systemd(&[NotifyState::Stopping]);
}

/// Notifies systemd. Does nothing without systemd (no `NOTIFY_SOCKET`), and ignores errors.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd about the state of the service: {e}");
    }
}

fn failed(verb: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::System { verb, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> (File, Readiness) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (File::from(reader), Readiness(Some(File::from(writer))))
    }

    #[test]
    fn the_parent_hears_the_reason_of_the_failure() {
        let (pipe, readiness) = child();
        readiness.failed("watch path /www does not exist");
        let reason = b"watch path /www does not exist".to_vec();
        assert_eq!(read_answer(pipe), Err(ChildFailure::Reason(reason)));
    }

    #[test]
    fn the_parent_notices_a_child_that_dies_without_a_word() {
        let (pipe, readiness) = child();
        drop(readiness);
        assert_eq!(read_answer(pipe), Err(ChildFailure::Silence));
    }

    #[test]
    fn only_a_child_that_is_ready_makes_the_parent_succeed() {
        let (pipe, readiness) = child();
        readiness.0.unwrap().write_all(&[READY]).unwrap();
        assert_eq!(read_answer(pipe), Ok(()));
    }
}
