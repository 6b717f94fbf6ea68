//! The commands beside the mirror itself, such as `sersync2 status`: finds the one that is meant and runs it.
//! A new command is one line of [`COMMANDS`]; anything that is no command is the mirror's own command line.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use crate::daemon;
use crate::tools::{explain, inotifywait, inotifywatch, live};

/// A command of its own.
struct Command {
    /// Its name: the first word after `sersync2`, or the name by which the binary is called.
    name: &'static str,
    /// Runs it with its words; the first one is its name.
    run: fn(Vec<OsString>) -> ExitCode,
}

/// Every command, in the order in which `sersync2 --help` lists them.
const COMMANDS: &[Command] = &[
    Command { name: "inotifywait", run: inotifywait::run },
    Command { name: "inotifywatch", run: inotifywatch::run },
    Command { name: "fsnotifywait", run: inotifywait::run },
    Command { name: "fsnotifywatch", run: inotifywatch::run },
    Command { name: "explain", run: explain::run },
    Command { name: "events", run: live::run },
];

/// Runs the program with these words, its own name first.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let called = words.first().and_then(|name| Path::new(name).file_name());
    if let Some(command) = called.and_then(find) {
        return (command.run)(words);
    }
    match words.get(1).and_then(|word| find(word)) {
        Some(command) => (command.run)(words.split_off(1)),
        None => daemon::run(words),
    }
}

fn find(name: &OsStr) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| name == command.name)
}
