//! Every `unsafe` of the program, wrapped so that callers need none, and the kernel's limits.
//! Decides nothing: each function does one thing that the system offers.

pub mod fanotify;
pub mod lease;
pub mod memory;
pub mod posix;

use std::fs;
use std::io;
use std::path::Path;

use daemonize::{Daemonize, Outcome, Stdio};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// The limits of inotify that sersync2 has always set: file below /proc/sys, value.
pub const INOTIFY_LIMITS: [(&str, u64); 2] = [
    ("/proc/sys/fs/inotify/max_user_watches", 50_000_000),
    ("/proc/sys/fs/inotify/max_queued_events", 327_679),
];

/// Which of the two processes returned from [`fork_into_background`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that was started; its child runs on without it.
    Parent,
    /// The process in the background: own session, no terminal, standard input from /dev/null.
    Child,
}

/// Goes to the background: working directory, umask, standard output and error stay as they are.
///
/// # Errors
/// When a second thread runs already (its locks would stay locked for ever in the child), or when the
/// system refuses to fork.
#[expect(unsafe_code, reason = "forking is unsafe while other threads run; this is checked first")]
pub fn fork_into_background() -> io::Result<Side> {
    // Without /proc the threads cannot be counted; `main` calls this before it starts any.
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::other("another thread runs already"));
    }
    let daemonize =
        Daemonize::new().umask(current_umask().bits()).stdout(Stdio::keep()).stderr(Stdio::keep());
    // SAFETY: this is the only thread, so no lock is held by a thread that the child will not have.
    match unsafe { daemonize.execute() } {
        Outcome::Parent(Ok(_)) => Ok(Side::Parent),
        Outcome::Child(Ok(_)) => Ok(Side::Child),
        Outcome::Parent(Err(e)) | Outcome::Child(Err(e)) => Err(io::Error::other(e.to_string())),
    }
}

/// The file mode creation mask; reading it means setting it, so only the first thread may.
fn current_umask() -> Mode {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask
}

/// True when `signal` is ignored at this moment, as `nohup` arranges for SIGHUP.
#[expect(unsafe_code, reason = "the disposition of a signal cannot be asked for in any other way")]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value of that plain C structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and `action` outlives the call that fills it.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Undoes what some launchers hand down: an ignored SIGCHLD (children would leave no exit status) and
/// blocked signals (SIGTERM would never arrive).
#[expect(unsafe_code, reason = "dispositions and the signal mask have no safe interface")]
pub fn restore_signal_defaults() {
    // SAFETY: SIG_DFL installs no code of ours; the set is initialised by sigemptyset before its use.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Raises the number in `file` (a limit below /proc/sys) to `wanted`; never lowers it. True when it was raised.
///
/// # Errors
/// When the file cannot be read or written, as in most containers and for ordinary users.
pub fn raise_kernel_limit(file: &Path, wanted: u64) -> io::Result<bool> {
    let text = fs::read_to_string(file)?;
    let current: u64 = text.trim().parse().map_err(io::Error::other)?;
    if current >= wanted {
        return Ok(false);
    }
    // Not `fs::write`: a limit is never created, and truncating means nothing below /proc.
    let mut target = fs::OpenOptions::new().write(true).open(file)?;
    io::Write::write_all(&mut target, format!("{wanted}\n").as_bytes())?;
    Ok(true)
}

/// Raises the number of files that this process may hold open as far as it may without privileges.
///
/// # Errors
/// When the system refuses; the old limit holds then.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_low_limit_is_raised() {
        let file = limit("8192\n");
        assert!(raise_kernel_limit(file.path(), 50_000_000).unwrap());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "50000000\n");
    }

    #[test]
    fn a_high_limit_is_never_lowered() {
        let file = limit("99000000\n");
        assert!(!raise_kernel_limit(file.path(), 50_000_000).unwrap());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "99000000\n");
    }

    #[test]
    fn a_limit_that_is_not_there_is_an_error_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("max_user_watches");
        assert!(raise_kernel_limit(&file, 1).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn a_process_with_two_threads_does_not_fork() {
        // The test harness itself runs each test in a second thread.
        assert!(fork_into_background().is_err());
    }

    #[test]
    fn sigpipe_is_ignored_and_sigchld_is_not() {
        restore_signal_defaults();
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGCHLD));
    }
}
