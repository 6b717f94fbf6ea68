//! The commands, such as `sersync2 status`: finds the command in the words and runs it.
//! A new command is one line of `COMMANDS`. Words without a command are the mirror's own command line.

mod completions;
mod doctor;
mod events;
mod explain;
mod flush;
pub mod instance;
mod pause;
mod reload;
mod status;
mod steer;
mod test_alert;
mod verify;

use std::ffi::{CString, OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::daemon;
use crate::tools::{inotifywait, inotifywatch};

/// A command.
struct Command {
    /// Its name: the first word after `sersync2`, or the name under which the binary is called.
    name: &'static str,
    /// Runs it with its words, its name first.
    run: fn(Vec<OsString>) -> ExitCode,
    /// Describes its words, for completions; `None` for a tool with the options of another program.
    words: Option<fn() -> clap::Command>,
}

/// Every command.
const COMMANDS: &[Command] = &[
    Command { name: "inotifywait", run: inotifywait::run, words: None },
    Command { name: "inotifywatch", run: inotifywatch::run, words: None },
    Command { name: "fsnotifywait", run: inotifywait::run, words: None },
    Command { name: "fsnotifywatch", run: inotifywatch::run, words: None },
    Command { name: "explain", run: explain::run, words: Some(explain::ExplainArgs::command) },
    Command { name: "events", run: events::run, words: Some(events::EventsArgs::command) },
    Command { name: "status", run: status::run, words: Some(status::StatusArgs::command) },
    Command { name: "flush", run: flush::run, words: Some(flush::FlushArgs::command) },
    Command { name: "sync-now", run: steer::sync_now, words: Some(steer::SyncNow::command) },
    Command { name: "retry", run: steer::retry, words: Some(steer::RetryArgs::command) },
    Command { name: "pause", run: pause::run, words: Some(pause::PauseArgs::command) },
    Command { name: "resume", run: pause::resume, words: Some(pause::ResumeArgs::command) },
    Command {
        name: "confirm-deletions",
        run: steer::confirm_deletions,
        words: Some(steer::ConfirmDeletions::command),
    },
    Command { name: "log-level", run: steer::log_level, words: Some(steer::LogLevel::command) },
    Command { name: "reload", run: reload::run, words: Some(reload::ReloadArgs::command) },
    Command { name: "stop", run: steer::stop, words: Some(steer::StopCommand::command) },
    Command {
        name: "test-alert",
        run: test_alert::run,
        words: Some(test_alert::TestAlertArgs::command),
    },
    Command { name: "verify", run: verify::run, words: Some(verify::VerifyArgs::command) },
    Command { name: "doctor", run: doctor::run, words: Some(doctor::DoctorArgs::command) },
    Command {
        name: "completions",
        run: completions::run,
        words: Some(completions::CompletionsArgs::command),
    },
];

/// Runs the program with these words, its own name first.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let called = words.first().and_then(|name| Path::new(name).file_name());
    if let Some(command) = called.and_then(find) {
        return (command.run)(words);
    }
    match words.get(1).and_then(|word| find(word)) {
        Some(command) => {
            set_process_name(command.name);
            (command.run)(words.split_off(1))
        }
        None => {
            let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
            daemon::run(words, &names)
        }
    }
}

/// Names the process after its command, so that `pkill -HUP -x sersync2` (log rotation, watchdogs) means mirrors only.
fn set_process_name(command: &str) {
    // The kernel keeps 15 bytes. Without a name of its own, a command works all the same.
    if let Ok(name) = CString::new(format!("sersync2-{command}")) {
        _ = rustix::thread::set_name(&name);
    }
}

fn find(name: &OsStr) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| name == command.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_command() {
        let help = crate::args::command().render_long_help().to_string();
        let listed: Vec<&str> = help.split([' ', ',', '\n']).collect();
        // fsnotifywait and fsnotifywatch are other names of inotifywait and inotifywatch.
        let names = COMMANDS.iter().map(|command| command.name);
        for name in names.filter(|name| !["fsnotifywait", "fsnotifywatch"].contains(name)) {
            assert!(listed.contains(&name), "{name} is missing in\n{help}");
        }
        COMMANDS
            .iter()
            .filter_map(|command| command.words)
            .for_each(|words| words().debug_assert());
    }
}
