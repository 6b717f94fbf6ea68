//! All `unsafe` code of the program, behind safe functions.
//! Decides nothing: each function does one thing that the system offers.

pub mod fanotify;
pub mod lease;
pub mod memory;
pub mod posix;

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use daemonize::{Daemonize, Outcome, Stdio};
use rustix::fs::Mode;
use rustix::process::umask;

/// Which of the two processes returned from [`fork_into_background`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that was started; its child continues without it.
    Parent,
    /// The process in the background: own session, no terminal, standard input from /dev/null.
    Child,
}

/// Goes to the background. The working directory, umask, standard output and error do not change.
///
/// # Errors
/// When a second thread is already running (its locks would stay locked for ever in the child), or when the
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

/// The file mode creation mask. Reading it requires setting it, so call this before there are other threads.
fn current_umask() -> Mode {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask
}

/// Makes the command run in a session of its own, without a terminal, as the leader of its process group.
#[expect(unsafe_code, reason = "only the child itself can make its session")]
pub fn lead_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let setsid = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec the child makes one system call, and allocates nothing.
    unsafe { command.pre_exec(setsid) };
}

/// Makes the kernel kill the command when the thread that starts it ends, as it does when this program is killed.
#[expect(unsafe_code, reason = "only the child itself can ask for that")]
pub fn end_with_starter(command: &mut std::process::Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let ask = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: between fork and exec the child makes one system call, and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// Lets only this command inherit the descriptor. The descriptor must stay open until the command runs.
#[expect(unsafe_code, reason = "only the child itself can keep its descriptors")]
pub fn inherit(command: &mut std::process::Command, descriptor: RawFd) {
    use std::os::unix::process::CommandExt;
    let keep = move || {
        // SAFETY: the caller keeps the descriptor open until the child runs.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the child makes one system call, and allocates nothing.
    unsafe { command.pre_exec(keep) };
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

/// Undoes what some launchers pass on: an ignored SIGCHLD (children would leave no exit status) and blocked signals
/// (SIGTERM would never arrive).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_two_threads_does_not_fork() {
        // The test harness runs each test in a second thread, so this must fail.
        assert!(fork_into_background().is_err());
    }

    #[test]
    fn sigpipe_is_ignored_and_sigchld_is_not() {
        restore_signal_defaults();
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGCHLD));
    }
}
