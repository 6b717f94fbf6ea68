//! The command plugin: runs `prefix PATH suffix` for each event, without a shell; the path is one argument.
//! Does not read the command's output, which goes to our own output, or nowhere with ignoreError.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Child, ExitStatus, Stdio};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::actor::{Deliver, PluginFailure, PluginSuccess, StopSignal};
use super::{PathTest, PluginError, PluginEvent};
use crate::config::CommandPlugin;

/// The time between SIGTERM and SIGKILL for a command.
const TERM_WAIT: Duration = Duration::from_secs(1);

/// inotify's events with the names that inotifywait prints.
const EVENT_NAMES: [(u32, &str); 8] = [
    (0x1, "ACCESS"),
    (0x2, "MODIFY"),
    (0x4, "ATTRIB"),
    (0x8, "CLOSE_WRITE"),
    (0x40, "MOVED_FROM"),
    (0x80, "MOVED_TO"),
    (0x100, "CREATE"),
    (0x200, "DELETE"),
];

/// The command plugin's side of [`Deliver`].
pub(super) struct CommandDelivery {
    config: CommandPlugin,
    program: String,
    include: PathTest,
    limit: Duration,
}

impl CommandDelivery {
    pub(super) fn new(
        config: CommandPlugin,
        include: PathTest,
        limit: Duration,
    ) -> Result<Self, PluginError> {
        let program = config.prefix.first().filter(|word| !word.is_empty());
        let program = program.ok_or(PluginError::NoProgram)?.clone();
        Ok(Self { config, program, include, limit })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place besides rsync/run.rs that starts a program"
    )]
    fn plan(&self, event: &PluginEvent) -> process::Command {
        let path = event.absolute();
        let mut command = process::Command::new(&self.program);
        command
            .args(self.config.prefix.iter().skip(1))
            .arg(&path)
            .args(&self.config.suffix)
            .env("SERSYNC_EVENT", event_names(event.mask))
            .env("SERSYNC_PATH", &path)
            .env("SERSYNC_ISDIR", if event.is_dir { "1" } else { "0" })
            .env("SERSYNC_REMOTES", event.remotes.join(" "))
            .stdin(Stdio::null())
            .process_group(0);
        if self.config.ignore_error {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command
    }

    fn start(&self, event: &PluginEvent) -> Result<Child, PluginFailure> {
        self.plan(event).spawn().map_err(|error| {
            let reason = format!("cannot start {}: {error}; check its prefix", self.program);
            match error.kind() {
                // The path causes this error, not the program, so do not retry.
                io::ErrorKind::ArgumentListTooLong | io::ErrorKind::InvalidInput => {
                    PluginFailure::Refused(reason)
                }
                _ => PluginFailure::Unreachable(reason),
            }
        })
    }
}

impl Deliver for CommandDelivery {
    fn deliver(
        &mut self,
        event: &PluginEvent,
        stop: &StopSignal,
    ) -> Result<PluginSuccess, PluginFailure> {
        if !(self.include)(event.absolute().as_os_str().as_bytes()) {
            return Ok(PluginSuccess::Skipped);
        }
        let child = Running::watch(self.start(event)?).map_err(|error| {
            PluginFailure::Unreachable(format!("cannot watch a command: {error}"))
        })?;
        let status = select! {
            recv(child.ended) -> _ => child.reap(),
            recv(stop) -> _ => {
                child.end();
                return Err(PluginFailure::Stopped);
            }
            default(self.limit) => {
                child.end();
                let seconds = self.limit.as_secs_f32();
                return Err(PluginFailure::Refused(format!(
                    "{} was ended because it ran longer than {seconds} s", self.program
                )));
            }
        };
        match status {
            Some(status) if !status.success() && !self.config.ignore_error => {
                Err(PluginFailure::Refused(format!("{} {}", self.program, ended_how(status))))
            }
            _ => Ok(PluginSuccess::Done),
        }
    }
}

/// A child in its own process group, and the notification of its end.
struct Running {
    child: Child,
    group: Option<Pid>,
    ended: Receiver<()>,
}

impl Running {
    /// Waits for the end on a thread, without reaping: so the group's id is not reused before [`Running::reap`].
    /// Needs no pidfd, so it works on kernels before 5.3 too.
    fn watch(mut child: Child) -> io::Result<Self> {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (tell, ended) = bounded(1);
        let waiter =
            Builder::new().name("plugin-wait".into()).stack_size(64 * 1024).spawn(move || {
                if let Some(pid) = group {
                    wait_for_end(pid);
                }
                drop(tell);
            });
        if let Err(error) = waiter {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { child, group, ended })
    }

    /// The exit status; `None` if another part has reaped the process (as process 1 we reap everything).
    fn reap(mut self) -> Option<ExitStatus> {
        self.child.wait().ok()
    }

    /// Ends the whole group: sends SIGTERM, and SIGKILL a second later or as soon as its leader is gone.
    fn end(self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = self.ended.recv_timeout(TERM_WAIT);
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.reap();
    }
}

fn wait_for_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}

fn ended_how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

/// The names in `mask`, joined by commas; `FOUND` for an entry that was found by listing.
fn event_names(mask: u32) -> OsString {
    let names: Vec<&str> =
        EVENT_NAMES.iter().filter(|(bit, _)| mask & bit != 0).map(|&(_, name)| name).collect();
    if names.is_empty() {
        return "FOUND".into();
    }
    names.join(",").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_called_what_inotifywait_calls_them() {
        for (mask, name) in [
            (0x8, "CLOSE_WRITE"),
            (0x100 | 0x4000_0000, "CREATE"),
            (0x8 | 0x2, "MODIFY,CLOSE_WRITE"),
            (0, "FOUND"),
        ] {
            assert_eq!(event_names(mask), name);
        }
    }

    #[test]
    fn prefix_without_a_program_is_refused() {
        for prefix in [vec![], vec![String::new()]] {
            let config = CommandPlugin { prefix, ..CommandPlugin::default() };
            let command = CommandDelivery::new(config, Box::new(|_| true), Duration::from_secs(1));
            assert!(matches!(command, Err(PluginError::NoProgram)));
        }
    }
}
