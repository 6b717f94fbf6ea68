//! The log: one line per message, to standard error or to a file that can be reopened after rotation.
//! Never stops the program: a full disk or a stalled reader loses lines, and a later line says how many.

mod sink;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use env_logger::{Builder, Target};
use indicatif::MultiProgress;
use jiff::Zoned;
use log::{Level, LevelFilter};
use sink::LogSink;

use crate::ground::lock::lock;
use crate::ground::printable::write_char;

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error: the foreground.
    Stderr,
    /// A file that is appended to: the background, or `--log-file`.
    File(PathBuf),
}

/// What can go wrong with the log file.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be opened for appending.
    #[error("cannot open the log file {}: {source}; name another one with --log-file", path.display())]
    Open {
        /// The log file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a pipe or a socket.
    #[error("the log file {} is no regular file; name another one with --log-file", path.display())]
    Kind {
        /// The log file.
        path: PathBuf,
    },
    /// The process has a logger already.
    #[error("the log was started twice")]
    Twice,
}

/// The maximum number of warnings and errors that are kept.
const WARNINGS: usize = 200;

/// The running log. Clones share one destination.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Arc<Mutex<LogSink>>,
    /// The last warnings and errors, oldest first.
    warnings: Arc<Mutex<VecDeque<String>>>,
}

/// The default log file: in the state directory of the configuration; without one (a user without HOME) `/dev/null`.
pub fn default_file(state_dir: Option<&Path>) -> PathBuf {
    state_dir.map_or_else(|| "/dev/null".into(), |dir| dir.join("sersync2.log"))
}

/// Libraries whose debug levels show what a plugin sends, including addresses with tokens.
const TALKATIVE: [&str; 2] = ["ureq", "rustls"];

/// Starts the log; `level` applies unless the environment variable `RUST_LOG` says otherwise.
///
/// # Errors
/// When the file cannot be opened (a symbolic link is never followed), or the log runs already.
pub fn start(destination: LogTarget, level: LevelFilter) -> Result<Log, LogError> {
    let sink = Arc::new(Mutex::new(LogSink::open(destination)?));
    let log = Log { sink, warnings: Arc::default() };
    let memory = log.clone();
    // The level can be changed later, so the logger itself lets everything through unless `RUST_LOG` says otherwise.
    let is_told = std::env::var_os("RUST_LOG").is_some();
    Builder::new()
        .filter_level(if is_told { level } else { LevelFilter::Trace })
        .parse_default_env()
        .target(Target::Pipe(Box::new(log.clone())))
        .format(move |buffer, record| {
            if tells_secrets(record.level(), record.target()) {
                return Ok(());
            }
            let line = format_line(&Zoned::now(), record.level(), &record.args().to_string());
            if record.level() <= Level::Warn {
                memory.remember(&line);
            }
            buffer.write_all(line.as_bytes())
        })
        .try_init()
        .map_err(|_| LogError::Twice)?;
    if !is_told {
        set_level(level);
    }
    log_panics();
    Ok(log)
}

/// Changes the log level; what `RUST_LOG` excludes at the start stays excluded.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// False while the terminal of standard error is stopped: a write would wait for it.
pub fn is_stderr_writable() -> bool {
    sink::is_writable(io::stderr().as_fd(), sink::WriteWait::None)
}

/// Appends one line to the log file `path`, for a start that ends before its log runs.
///
/// # Errors
/// When it cannot be opened or written.
pub fn append_error(path: &Path, message: &str) -> io::Result<()> {
    let file = sink::open_file(path).map_err(io::Error::other)?;
    (&file).write_all(format_line(&Zoned::now(), Level::Error, message).as_bytes())
}

/// True for messages that may contain secrets, so that no `RUST_LOG` brings them into the log.
fn tells_secrets(level: Level, target: &str) -> bool {
    level > Level::Warn && TALKATIVE.iter().any(|library| target.starts_with(library))
}

/// Writes panics to the log, because standard error may lead nowhere.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error!("internal error: {panic}")));
}

impl Log {
    /// Reopens the log file, for log rotation; returns its path, or `None` if the log is standard error.
    ///
    /// # Errors
    /// When it cannot be opened: the old file stays in use.
    pub fn reopen(&self) -> Result<Option<PathBuf>, LogError> {
        let mut sink = self.sink();
        sink.reopen()?;
        Ok(sink.path().map(Path::to_path_buf))
    }

    /// Redirects standard output and error to the log file, now and after each reopening; does nothing without a log
    /// file.
    ///
    /// # Errors
    /// When the redirection fails.
    pub fn take_standard_streams(&self) -> Result<(), LogError> {
        self.sink().take_standard_streams()
    }

    /// Shares the terminal with progress bars: the log writes above them.
    pub fn share_terminal(&self, screen: MultiProgress) {
        self.sink().share_terminal(screen);
    }

    /// Ignores a panic of another thread: every change of the sink is one assignment, so the sink is always valid.
    fn sink(&self) -> MutexGuard<'_, LogSink> {
        lock(&self.sink)
    }

    /// The last warnings and errors, oldest first.
    pub fn warnings(&self) -> Vec<String> {
        self.remembered().iter().cloned().collect()
    }

    fn remember(&self, line: &str) {
        let mut lines = self.remembered();
        if lines.len() >= WARNINGS {
            lines.pop_front();
        }
        lines.push_back(line.trim_end().to_owned());
    }

    fn remembered(&self) -> MutexGuard<'_, VecDeque<String>> {
        lock(&self.warnings)
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink().write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats a line: local time, level, message. Escapes what could end the line or move a terminal's cursor, so that
/// a file name cannot forge a line.
fn format_line(now: &Zoned, level: Level, message: &str) -> String {
    let mut line = format!("{} {level:<5} ", now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"));
    for c in message.trim_end().chars() {
        // Writing to a String does not fail.
        _ = write_char(&mut line, c);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-11-21T17:00:00.123+08:00[Asia/Shanghai]".parse().unwrap()
    }

    #[test]
    fn a_line_has_local_time_level_and_message() {
        let line = format_line(&now(), Level::Info, "remote is up");
        assert_eq!(line, "2026-11-21T17:00:00.123+08:00 INFO  remote is up\n");
    }

    #[test]
    fn what_libraries_say_at_their_debug_levels_stays_out() {
        assert!(tells_secrets(Level::Debug, "ureq::run"));
        assert!(tells_secrets(Level::Info, "ureq_proto::client"));
        assert!(!tells_secrets(Level::Warn, "ureq::run"));
        assert!(!tells_secrets(Level::Trace, "sersync::plugin::http"));
    }

    #[test]
    fn no_message_can_forge_a_line_or_move_the_cursor() {
        let line = format_line(&now(), Level::Warn, "a\nERROR b\r\x1b[2K\u{85}\u{2028}c\t\0");
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.ends_with("WARN  a\\nERROR b\\r\\u{1b}[2K\\u{85}\\u{2028}c\\t\\u{0}\n"),
            "{line}"
        );
    }
}
