//! `sersync2 reload`: a running instance reads its configuration again.
//! Only asks; the instance finds out what has changed.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::instance::{Failed, Which, fail, heed, parse};
use crate::control::protocol::{Answer, Command};

/// How long to wait for the answer: a list of remotes may come from a slow command.
const PATIENCE: Duration = Duration::from_secs(60);

/// Read the configuration again, and apply what has changed in it.
///
/// Remotes, their options, alerts, page, status file and times change at once: a new remote gets a full sync, a removed one gets
/// nothing more, and the others are not affected. For anything else, such as watch paths, `<filter>` or `<inotify>`, the mirror
/// restarts in the same process: it finishes what is in flight, keeps what is pending, and finds what changes meanwhile. Every
/// change is printed. A file with errors is refused, with line and column, and the old configuration stays in force.
///
/// Exit code: 0 done; 1 the file has errors; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 reload", bin_name = "sersync2 reload")]
pub struct ReloadArgs {
    #[command(flatten)]
    which: Which,

    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: ReloadArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match notes(&args) {
        Ok(notes) => {
            notes.iter().for_each(|note| println!("{note}"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn notes(args: &ReloadArgs) -> Result<Vec<String>, Failed> {
    let command = Command::Reload { dry_run: args.dry_run };
    match heed(args.which.connect()?.call(command, Some(PATIENCE))?)? {
        Answer::Done { notes } => Ok(notes),
        _ => Err(Failed::wrong_answer()),
    }
}
