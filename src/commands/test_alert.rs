//! `sersync2 test-alert`: sends a test over every channel of the configuration's alerts, and prints each result.
//! Needs no running instance, and sends only to the recipients in the file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::instance::parse;
use crate::alert::send_test;
use crate::config::{LoadOptions, load};
use crate::ground::absolute::absolute;
use crate::process::print;
use crate::snapshot::Instance;

/// Exit code: the configuration cannot be used, or has no alert.
const UNUSABLE: u8 = 3;

/// Send a test message over every channel of the `<alert>` elements of a configuration.
///
/// Exit code: 0 all were sent; 1 at least one was not; 3 the configuration cannot be used, or has no alert; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 test-alert", bin_name = "sersync2 test-alert")]
pub struct TestAlertArgs {
    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    config: PathBuf,
}

/// Runs the command; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let options: TestAlertArgs = match parse(words) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match send(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(UNUSABLE)
        }
    }
}

/// True when every channel succeeded.
fn send(options: &TestAlertArgs) -> Result<bool, String> {
    let loaded = load(&options.config, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let rules = &loaded.config.telling.alerts;
    if rules.is_empty() {
        return Err(format!(
            "{} has no <alert start=\"true\">; docs/CONFIG.md shows how to write one",
            options.config.display()
        ));
    }
    let config = absolute(&options.config);
    let instance = Instance { config: config.display().to_string(), ..Instance::default() };
    let outcomes: Vec<_> = rules.iter().flat_map(|rule| send_test(rule, &instance)).collect();
    let line = |(way, outcome): &(String, Result<(), String>)| match outcome {
        Ok(()) => format!("ok      {way}\n"),
        Err(reason) => format!("failed  {way}: {reason}\n"),
    };
    print(outcomes.iter().map(line).collect::<String>().as_bytes());
    Ok(outcomes.iter().all(|(_, outcome)| outcome.is_ok()))
}
