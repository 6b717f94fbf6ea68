//! A thread that turns signals into calls. As PID 1 of a container, it also reaps orphans.
//! Otherwise SIGCHLD is not handled: the thread that waits for a child needs its exit status.

use std::fs;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals as Incoming};

use super::{ProcessError, failed};
use crate::ground::thread::JoinedThread;
use crate::sys;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: finish what is in flight and end. A second one: end at once.
    Stop,
    /// SIGHUP: reopen the log.
    Reopen,
    /// SIGUSR1: log what is pending. SIGUSR2 is ignored.
    Report,
}

/// How the process was started. This decides what an ignored signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By hand, by a supervisor or by `nohup`: ignored signals stay ignored, also in children.
    Foreground,
    /// With `-d`: an ignored signal was inherited by accident, so all signals are handled.
    Background,
}

/// The running signal thread; dropping it ends and joins the thread.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    _thread: JoinedThread,
}

/// Starts the signal thread, which calls `on_signal` for each signal. Rust's runtime ignores SIGPIPE before `main`, and resets it
/// in children.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub fn start_signals(
    mode: Mode,
    on_signal: impl Fn(Signal) + Send + 'static,
) -> Result<Signals, ProcessError> {
    let wanted = wanted_signals(mode, sys::is_ignored, getpid() == Pid::INIT);
    let mut incoming = Incoming::new(wanted).map_err(failed("install signal handlers"))?;
    let handle = incoming.handle();
    let thread = JoinedThread::start("signals", move || {
        for number in &mut incoming {
            match number {
                SIGCHLD => reap_orphans(),
                SIGHUP => on_signal(Signal::Reopen),
                SIGUSR1 => on_signal(Signal::Report),
                // Handled because its default action would end the program without a message.
                SIGUSR2 => {}
                _ => on_signal(Signal::Stop),
            }
        }
    })
    .map_err(failed("start the signal thread"))?;
    Ok(Signals { handle, _thread: thread })
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn wanted_signals(mode: Mode, is_ignored: impl Fn(i32) -> bool, is_init: bool) -> Vec<i32> {
    let mut wanted = vec![SIGTERM, SIGUSR1, SIGUSR2];
    for signal in [SIGINT, SIGHUP] {
        if mode == Mode::Background || !is_ignored(signal) {
            wanted.push(signal);
        }
    }
    if is_init {
        wanted.push(SIGCHLD);
    }
    wanted
}

/// Reaps every dead child of the *main* thread. The kernel gives orphans to the main thread of PID 1; our own children belong to the
/// threads that started them. So no thread loses an exit status, as long as the main thread starts no child itself.
fn reap_orphans() {
    let pid = getpid().as_raw_nonzero();
    // Without this file (an option of the kernel) the orphans stay as zombies, which is harmless.
    let Ok(children) = fs::read_to_string(format!("/proc/self/task/{pid}/children")) else {
        return;
    };
    for child in children.split_ascii_whitespace() {
        if let Some(child) = child.parse().ok().and_then(Pid::from_raw) {
            _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_nohup_ignores_stays_ignored_in_the_foreground() {
        let nohup = |signal| signal == SIGHUP;
        let hup = |signals: &[i32]| signals.contains(&SIGHUP);
        assert!(!hup(&wanted_signals(Mode::Foreground, nohup, false)));
        assert!(hup(&wanted_signals(Mode::Background, nohup, false)));
        assert!(hup(&wanted_signals(Mode::Foreground, |_| false, false)));
    }

    #[test]
    fn only_pid_1_looks_at_sigchld() {
        assert!(!wanted_signals(Mode::Foreground, |_| false, false).contains(&SIGCHLD));
        assert!(wanted_signals(Mode::Foreground, |_| false, true).contains(&SIGCHLD));
    }

    #[test]
    fn signals_arrive_as_calls_until_the_thread_is_dropped() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let signals = start_signals(Mode::Background, move |signal| {
            _ = sender.send(signal);
        })
        .unwrap();
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        let kinds = [(SIGHUP, Signal::Reopen), (SIGUSR1, Signal::Report), (SIGTERM, Signal::Stop)];
        for (number, expected) in kinds {
            signal_hook::low_level::raise(number).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(expected));
        }
        drop(signals);
        assert!(receiver.recv().is_err(), "the thread still holds its sender");
    }
}
