//! Shared by the commands for a running mirror: common options, the choice of the instance, and exit codes.
//! Does not know what a command does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::control::client::{CallError, Connection, PATIENCE};
use crate::control::instances;
use crate::control::protocol::{Answer, Command, write_path};
use crate::ground;
use crate::state::{self, StateBases};

/// Exit code: the instance refuses, or the request was not fulfilled.
const REFUSED: u8 = 1;

/// Exit code: wrong usage.
pub const USAGE: u8 = 64;

/// Exit code: no instance runs, or it does not answer.
pub const NOT_RUNNING: u8 = 3;

/// Why a command fails; each holds a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The command line is wrong or ambiguous.
    #[error("{0}")]
    Usage(String),
    /// No instance runs, or it does not answer.
    #[error("{0}")]
    NotRunning(String),
    /// The instance refuses.
    #[error("{0}")]
    Refused(String),
}

impl Failed {
    /// The instance sent an answer of another type than the command expects.
    pub fn wrong_answer() -> Self {
        Self::NotRunning(
            "the running sersync2 sent an answer that does not fit this command, so it is unknown what it has done: \
             it is of another version than this program; restart it, or ask with the program that it was started from"
                .into(),
        )
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NotRunning(_) => NOT_RUNNING,
            Self::Refused(_) => REFUSED,
        }
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self::NotRunning(error.to_string())
    }
}

/// Options that choose the instance.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// The configuration of the instance; without it, the only one that runs
    #[arg(short = 'o', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The directory that the instance was started with
    #[arg(long = "state-dir", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl Which {
    /// The directories that may hold state.
    pub fn places(&self) -> StateBases {
        StateBases::of_this_process(self.state_dir.clone())
    }

    /// The state directory for the `-o` option; `None` without the option.
    pub fn named(&self) -> Option<Result<PathBuf, String>> {
        let config = self.config.as_ref()?;
        let there = self.of_config(config);
        Some(there)
    }

    /// Finds the state directory of a configuration. An instance that was started with another `--state-dir` is found by
    /// asking all running instances for their configuration.
    fn of_config(&self, config: &Path) -> Result<PathBuf, String> {
        let directory = match state::directory_of(config, &self.places()) {
            Ok(directory) => directory,
            // The file was moved away or removed: its instance still runs.
            Err(error) => return self.running_of(config).ok_or_else(|| error.to_string()),
        };
        if self.state_dir.is_some() || crate::control::socket::connect_to(&directory).is_ok() {
            return Ok(directory);
        }
        let name = directory.file_name().map(ToOwned::to_owned);
        let same = |found: &PathBuf| found.file_name() == name.as_deref();
        let running = instances::find_all(&self.places()).into_iter().find(same);
        Ok(running.unwrap_or(directory))
    }

    /// The state directory of a running instance of a configuration file that is gone.
    fn running_of(&self, config: &Path) -> Option<PathBuf> {
        let config = ground::absolute::absolute(config);
        let is_its = |directory: &PathBuf| state::config_of(directory).as_ref() == Some(&config);
        instances::find_all(&self.places()).into_iter().find(is_its)
    }

    /// The state directory of the chosen instance.
    ///
    /// # Errors
    /// When none runs, or several run and none is chosen.
    pub fn one(&self) -> Result<PathBuf, Failed> {
        if let Some(named) = self.named() {
            return named.map_err(Failed::Usage);
        }
        let mut running: Vec<PathBuf> = instances::find_all(&self.places());
        running.retain(|directory| {
            !matches!(
                Connection::open(directory),
                Err(CallError::NotAllowed { .. } | CallError::Gone { .. })
            )
        });
        match running.as_slice() {
            [] => Err(Failed::NotRunning(
                "no sersync2 is running on this machine; name its configuration with -o FILE"
                    .into(),
            )),
            [one] => Ok(one.clone()),
            several => {
                let several: Vec<String> = several
                    .iter()
                    .map(|directory| {
                        let config = state::config_of(directory);
                        format!("\n  -o {}", config.as_ref().unwrap_or(directory).display())
                    })
                    .collect();
                Err(Failed::Usage(format!(
                    "several instances are running; say which one with:{}",
                    several.concat()
                )))
            }
        }
    }

    /// Connects to the chosen instance.
    ///
    /// # Errors
    /// When there is none, or it refuses the connection.
    pub fn connect(&self) -> Result<Connection, Failed> {
        Ok(Connection::open(&self.one()?)?)
    }
}

/// Parses the words of a command, its name first.
///
/// # Errors
/// The exit code; the help or the error message is already printed.
pub fn parse<T: Parser>(words: Vec<OsString>) -> Result<T, ExitCode> {
    T::try_parse_from(words).map_err(|error| {
        // If the output is closed, nobody can be told.
        _ = error.print();
        ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
    })
}

/// A path as the instance expects it: absolute, and as text.
pub fn absolute(path: &Path) -> String {
    write_path(&ground::absolute::absolute(path))
}

/// Sends a command to the chosen instance.
///
/// # Errors
/// When there is no answer, or the instance refuses.
pub fn ask(which: &Which, command: Command) -> Result<Answer, Failed> {
    heed(which.connect()?.call(command, Some(PATIENCE))?)
}

/// Turns a refusal into an error.
///
/// # Errors
/// When the instance refuses.
pub fn heed(answer: Answer) -> Result<Answer, Failed> {
    match answer {
        Answer::Failed { kind, message } => Err(match kind.as_str() {
            "refused" | "unknown" | "malformed" => Failed::Refused(message),
            _ => Failed::NotRunning(message),
        }),
        answer => Ok(answer),
    }
}

/// Sends a command, prints the notes of the answer, and returns the exit code.
pub fn ask_and_tell(which: &Which, command: Command) -> ExitCode {
    match ask(which, command) {
        Ok(Answer::Done { notes }) => {
            notes.iter().for_each(|note| println!("{note}"));
            ExitCode::SUCCESS
        }
        Ok(_) => fail(&Failed::wrong_answer()),
        Err(error) => fail(&error),
    }
}

/// Prints the error and returns its exit code.
pub fn fail(error: &Failed) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(error.exit_code())
}

/// Parses `90`, `90s`, `5m`, `2h` or `1d`.
///
/// # Errors
/// A clause that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a time such as 90, 90s, 5m, 2h or 1d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("2h"), Ok(7200));
        for wrong in ["", "h", "-1", "1w", "1.5h", "99999999999999999999"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
