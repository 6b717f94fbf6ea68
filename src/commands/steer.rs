//! The commands that send one request to a running mirror: `sync-now`, `retry`, `confirm-deletions`, `log-level`, `stop`.
//! They print the answer and decide nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::instance::{Failed, Which, absolute, ask_and_tell, fail, heed, parse, parse_duration};
use crate::control::client::PATIENCE;
use crate::control::protocol::Command;

/// Compare a tree with its copies now, and make them equal.
///
/// Returns at once; `sersync2 flush` waits for the end.
///
/// Exit code: 0 begun; 1 the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 sync-now", bin_name = "sersync2 sync-now")]
pub struct SyncNow {
    #[command(flatten)]
    which: Which,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,

    /// Only this file or directory, with everything below it; default: everything
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

/// Retry now what could not be delivered, and remotes that are down.
///
/// Exit code: 0 begun; 1 the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 retry", bin_name = "sersync2 retry")]
pub struct RetryArgs {
    #[command(flatten)]
    which: Which,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,
}

/// Carry out deletions that the guard holds back because too much vanished at once.
///
/// Look at the watch path first: is everything there that should be?
///
/// Exit code: 0 done; 1 the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 confirm-deletions", bin_name = "sersync2 confirm-deletions")]
pub struct ConfirmDeletions {
    #[command(flatten)]
    which: Which,
}

/// Change the log level of a running instance, until its next start.
///
/// Exit code: 0 done; 1 the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 log-level", bin_name = "sersync2 log-level")]
pub struct LogLevel {
    #[command(flatten)]
    which: Which,

    /// error, warn, info, debug or trace
    #[arg(value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    level: String,
}

/// Stop a running instance: it finishes what is in flight, and keeps what is pending for the next start.
///
/// Exit code: 0 it has ended; 1 it has not ended within the timeout, or refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 stop", bin_name = "sersync2 stop")]
pub struct StopCommand {
    #[command(flatten)]
    which: Which,

    /// How long to wait for its end
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = parse_duration)]
    timeout: Duration,
}

/// Runs `sync-now`.
pub fn sync_now(words: Vec<OsString>) -> ExitCode {
    run(words, |args: SyncNow| {
        let path = args.path.as_deref().map(absolute);
        ask_and_tell(&args.which, Command::SyncNow { remote: args.remote, path })
    })
}

/// Runs `retry`.
pub fn retry(words: Vec<OsString>) -> ExitCode {
    run(words, |args: RetryArgs| ask_and_tell(&args.which, Command::Retry { remote: args.remote }))
}

/// Runs `confirm-deletions`.
pub fn confirm_deletions(words: Vec<OsString>) -> ExitCode {
    run(words, |args: ConfirmDeletions| ask_and_tell(&args.which, Command::ConfirmDeletions))
}

/// Runs `log-level`.
pub fn log_level(words: Vec<OsString>) -> ExitCode {
    run(words, |args: LogLevel| ask_and_tell(&args.which, Command::LogLevel { level: args.level }))
}

/// Runs `stop`.
pub fn stop(words: Vec<OsString>) -> ExitCode {
    run(words, |args: StopCommand| stop_and_wait(&args).unwrap_or_else(|error| fail(&error)))
}

fn stop_and_wait(args: &StopCommand) -> Result<ExitCode, Failed> {
    let mut connection = args.which.connect()?;
    heed(connection.call(Command::Stop, Some(PATIENCE))?)?;
    if connection.wait_for_end(args.timeout) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("the instance is stopping, but has not finished what is in flight yet");
    Ok(ExitCode::FAILURE)
}

fn run<T: Parser>(words: Vec<OsString>, with: impl FnOnce(T) -> ExitCode) -> ExitCode {
    match parse(words) {
        Ok(args) => with(args),
        Err(code) => code,
    }
}
