//! `sersync2 pause` and `resume`: send nothing for a while, and lose nothing.
//! A pause for a command lasts as long as the connection, so it ends even if the command or this program is killed.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Parser;

use super::instance::{Failed, Which, ask_and_tell, fail, heed, parse, parse_duration};
use crate::control::client::PATIENCE;
use crate::control::protocol::Command;

/// The exit code of a shell for a command that cannot be started.
const CANNOT_START: u8 = 127;

/// Send nothing for a while; changes are kept and sent afterwards.
///
/// A restart of the instance ends every pause.
///
/// Exit code: 0 paused; with a command, that of the command; 1 the instance refuses; 3 not running, or no answer;
/// 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 pause", bin_name = "sersync2 pause")]
pub struct PauseArgs {
    #[command(flatten)]
    which: Which,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,

    /// Resume automatically after this time
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, conflicts_with = "command")]
    length: Option<Duration>,

    /// Run this command, and resume when it ends, however it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// End a pause, and send what was kept.
///
/// Exit code: 0 done; 1 the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 resume", bin_name = "sersync2 resume")]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,
}

/// Runs `pause`.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: PauseArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.command.is_empty() {
        let for_ms = args.length.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        let command = Command::Pause { remote: args.remote, for_ms, while_connected: false };
        return ask_and_tell(&args.which, command);
    }
    run_paused(&args).unwrap_or_else(|error| fail(&error))
}

/// Runs `resume`.
pub fn resume(words: Vec<OsString>) -> ExitCode {
    match parse::<ResumeArgs>(words) {
        Ok(args) => ask_and_tell(&args.which, Command::Resume { remote: args.remote }),
        Err(code) => code,
    }
}

fn run_paused(args: &PauseArgs) -> Result<ExitCode, Failed> {
    let mut connection = args.which.connect()?;
    let pause = Command::Pause { remote: args.remote.clone(), for_ms: None, while_connected: true };
    heed(connection.call(pause, Some(PATIENCE))?)?;
    let no_command = || Failed::Usage("there is no command".into());
    let (program, words) = args.command.split_first().ok_or_else(no_command)?;
    let ended = start(program, words);
    // This ends the pause, so it must come after the command's end.
    drop(connection);
    match ended {
        Ok(status) => Ok(code_of(status)),
        Err(error) => {
            eprintln!("cannot run {}: {error}; the mirror goes on", program.display());
            Ok(ExitCode::from(CANNOT_START))
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own command, unchanged and without a shell"
)]
fn start(program: &OsString, words: &[OsString]) -> std::io::Result<ExitStatus> {
    std::process::Command::new(program).args(words).status()
}

/// The exit code as in a shell: 128 plus the signal for a killed command.
fn code_of(status: ExitStatus) -> ExitCode {
    let killed = || 128 + status.signal().unwrap_or(0);
    ExitCode::from(u8::try_from(status.code().unwrap_or_else(killed)).unwrap_or(u8::MAX))
}
