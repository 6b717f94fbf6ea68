//! Reads a list of remotes outside of the configuration: a file, or the output of a command.
//! Does not know what the lines mean; `config/lists.rs` does.

mod watch;

pub use watch::ListWatch;

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Pid;

use crate::config::ListOrigin;
use crate::ground::lock::lock;
use crate::ground::program::{self, Ended, kill_group, read_up_to};
use crate::sys::{self, lease};

/// The maximum size of a list: a list has a few kilobytes, so a larger file is a mistake.
const BYTES_MAX: u64 = 1 << 20;

/// The time limit of a command; `sersync2 reload` waits longer than this.
const RUN_TIME: Duration = Duration::from_secs(30);

/// Reads a list, by running its command if it has one.
///
/// # Errors
/// What is wrong, as a clause.
pub fn read(origin: &ListOrigin) -> Result<Option<Vec<u8>>, String> {
    match origin {
        ListOrigin::File(path) => read_file(path).map(Some),
        ListOrigin::Command(words) => run(words, RUN_TIME).map(Some),
    }
}

/// Reads a list if it is a file, for checks that must not start a command.
///
/// # Errors
/// What is wrong, as a clause.
pub fn read_without_commands(origin: &ListOrigin) -> Result<Option<Vec<u8>>, String> {
    match origin {
        ListOrigin::File(path) => read_file(path).map(Some),
        ListOrigin::Command(_) => Ok(None),
    }
}

/// Reads the whole file; fails if it is being written.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    // Do not open a pipe or a device, which could block.
    let found = std::fs::metadata(path).map_err(cannot)?;
    if !found.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let before = file.metadata().map_err(cannot)?;
    let bytes = read_up_to(&file, BYTES_MAX).map_err(cannot)?;
    let after = file.metadata().map_err(cannot)?;
    // If the kernel cannot say whether there is a writer, the file times still show a change.
    let is_written = lease::has_writer(file.as_fd()).unwrap_or(false);
    if is_written || stamp(&before) != stamp(&after) {
        return Err("somebody writes it just now; it is read when it is closed".to_owned());
    }
    check_length(bytes)
}

fn stamp(found: &Metadata) -> (u64, i64, i64) {
    (found.len(), found.mtime(), found.mtime_nsec())
}

fn check_length(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match bytes.len() as u64 <= BYTES_MAX {
        true => Ok(bytes),
        false => {
            Err(format!("it is longer than {} KB, which no list of remotes is", BYTES_MAX >> 10))
        }
    }
}

/// The process groups of running commands; `None` when the program is ending.
static RUNNING: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

/// Ends running commands with everything that they have started, and starts no more. Call it at the program's end.
pub fn end_commands() {
    let groups = lock(&RUNNING).take();
    groups.into_iter().flatten().for_each(|group| kill_group(Some(group)));
}

/// A command is running; dropping this says that it has ended.
struct Noted(Option<Pid>);

impl Noted {
    fn start(command: Command) -> Result<(Self, program::Started), String> {
        // Hold the lock until the group is noted, so that `end_commands` misses none.
        let mut running = lock(&RUNNING);
        let groups = running.as_mut().ok_or("sersync2 is ending")?;
        let started = program::start(command).map_err(|error| format!("the program {error}"))?;
        groups.extend(started.group());
        Ok((Self(started.group()), started))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        lock(&RUNNING).iter_mut().for_each(|groups| groups.retain(|group| Some(*group) != self.0));
    }
}

/// Runs a command without a shell; returns its output, if it succeeds in time.
fn run(words: &[String], limit: Duration) -> Result<Vec<u8>, String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let (_noted, started) = Noted::start(command(program, arguments))?;
    let ended = started.finish(String::new(), BYTES_MAX, limit);
    let Ended { status, printed, complaint } =
        ended.map_err(|error| format!("the program {error}"))?;
    if status.success() {
        return check_length(printed);
    }
    let said = complaint.map_or_else(String::new, |line| format!(", after saying: {line}"));
    Err(format!("it failed ({status}){said}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program that an operator names for his list of remotes"
)]
fn command(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // `end_commands` does not run when this program is killed.
    sys::end_with_starter(&mut command);
    command
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn run_words(words: &[&str]) -> Result<Vec<u8>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        run(&words, Duration::from_secs(20))
    }

    #[test]
    fn a_command_runs_without_a_shell_and_its_output_counts_only_if_it_succeeds() {
        assert_eq!(run_words(&["printf", "%s\\n", "$HOME; x"]).unwrap(), b"$HOME; x\n");
        let failed = run_words(&["ls", "/nothing at all"]).unwrap_err();
        assert!(failed.starts_with("it failed (exit status: "), "{failed}");
        assert!(failed.contains("/nothing at all"), "{failed}");
        assert_eq!(run_words(&["/nothing"]).unwrap_err(), "the program is not there");
        let endless = run_words(&["yes"]).unwrap_err();
        assert!(endless.contains("failed") || endless.contains("longer"), "{endless}");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let words = ["sleep", "1000"].map(String::from);
        let late = run(&words, Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("ran longer than 0.05 s"), "{late}");
    }

    #[test]
    fn a_file_is_read_when_nobody_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        assert!(read_file(&path).unwrap_err().contains("cannot be read"));
        assert!(read_file(dir.path()).unwrap_err().contains("no regular file"));
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"a\n").unwrap();
        assert!(read_file(&path).unwrap_err().contains("somebody writes it"));
        drop(writer);
        assert_eq!(read_file(&path).unwrap(), b"a\n");
        std::fs::write(&path, vec![b'\n'; (BYTES_MAX + 1) as usize]).unwrap();
        assert!(read_file(&path).unwrap_err().contains("longer than 1024 KB"));
    }
}
