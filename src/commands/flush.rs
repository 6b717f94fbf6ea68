//! `sersync2 flush`: waits until every earlier change is on the remotes.
//! Asks the instance, which knows what is pending.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use super::instance::{Failed, Which, absolute, fail, heed, parse, parse_duration};
use crate::control::client::PATIENCE;
use crate::control::protocol::{Answer, Command, Missing};

/// Wait until everything that changed before now is on the remotes.
///
/// Includes what a script wrote right before: the kernel's queue is read first. Exit code: 0 all is delivered; 1 something is
/// missing after the timeout (it is printed), or the instance refuses; 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 flush", bin_name = "sersync2 flush")]
pub struct FlushArgs {
    #[command(flatten)]
    which: Which,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,

    /// Give up after this time; without it, wait as long as it takes
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// Print what is missing as JSON
    #[arg(long)]
    json: bool,

    /// Only these files and directories, with what is below them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: FlushArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match missing(&args) {
        Ok(missing) => tell(&args, &missing),
        Err(error) => fail(&error),
    }
}

fn missing(args: &FlushArgs) -> Result<Vec<Missing>, Failed> {
    let command = Command::Flush {
        remote: args.remote.clone(),
        paths: args.paths.iter().map(|path| absolute(path)).collect(),
        timeout_ms: args.timeout.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
    };
    let patience = args.timeout.map(|timeout| timeout + PATIENCE);
    match heed(args.which.connect()?.call(command, patience)?)? {
        Answer::Flushed { missing } => Ok(missing),
        _ => Err(Failed::wrong_answer()),
    }
}

fn tell(args: &FlushArgs, missing: &[Missing]) -> ExitCode {
    if args.json {
        println!("{:#}", json!({ "delivered": missing.is_empty(), "missing": missing }));
    }
    for at in missing.iter().filter(|_| !args.json) {
        let reason = at.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let paths = if at.paths == 1 { "path is" } else { "paths are" };
        eprintln!("{}: {} {paths} missing{reason}", at.remote, at.paths);
        at.first.iter().for_each(|path| eprintln!("  {path}"));
        if at.paths > at.first.len() as u64 && !at.first.is_empty() {
            eprintln!("  and {} more", at.paths - at.first.len() as u64);
        }
    }
    ExitCode::from(u8::from(!missing.is_empty()))
}
