//! Reads a list of remotes that is kept outside of the configuration: a file, or what a command prints.
//! Does not know what the lines mean; `config/lists.rs` does.

mod watch;

pub use watch::ListWatch;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::config::ListOrigin;
use crate::sys::lease;

/// A list is a few kilobytes; what is larger than this was named by mistake.
const BYTES_MAX: u64 = 1 << 20;

/// What a command has said on standard error is shown up to here.
const COMPLAINT_BYTES: u64 = 300;

/// How long a command may run. `sersync2 reload` waits longer.
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

/// Reads a list if it is a file: for checks that start nothing.
///
/// # Errors
/// What is wrong, as a clause.
pub fn read_without_commands(origin: &ListOrigin) -> Result<Option<Vec<u8>>, String> {
    match origin {
        ListOrigin::File(path) => read_file(path).map(Some),
        ListOrigin::Command(_) => Ok(None),
    }
}

/// The whole file, which nobody writes meanwhile.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    // A pipe or a device would keep whoever opens it waiting.
    let found = std::fs::metadata(path).map_err(cannot)?;
    if !found.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let before = file.metadata().map_err(cannot)?;
    let bytes = read_up_to(&file, BYTES_MAX).map_err(cannot)?;
    let after = file.metadata().map_err(cannot)?;
    // Where nobody can say who writes, the times still tell of a change.
    let is_written = lease::has_writer(file.as_fd()).unwrap_or(false);
    if is_written || stamp(&before) != stamp(&after) {
        return Err("somebody writes it just now; it is read when it is closed".to_owned());
    }
    check_length(bytes)
}

fn stamp(found: &Metadata) -> (u64, i64, i64) {
    (found.len(), found.mtime(), found.mtime_nsec())
}

/// One byte more than allowed tells a list of the limit from a longer one.
fn read_up_to(stream: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_length(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match bytes.len() as u64 <= BYTES_MAX {
        true => Ok(bytes),
        false => {
            Err(format!("it is longer than {} KB, which no list of remotes is", BYTES_MAX >> 10))
        }
    }
}

/// What a command prints, if it succeeds in time. It runs without a shell.
fn run(words: &[String], limit: Duration) -> Result<Vec<u8>, String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let mut child = command(program, arguments).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the program is not there".to_owned(),
        _ => format!("it cannot be started: {error}"),
    })?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let kill = || group.map(|group| kill_process_group(group, Signal::KILL));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (tell, ended) = bounded::<io::Result<(ExitStatus, Vec<u8>)>>(1);
    // Nobody joins these threads: a grandchild that has left the group may hold their pipes open.
    let waits = Builder::new().name("list-command".into()).spawn(move || {
        let printed = stdout.map_or(Ok(Vec::new()), |stdout| read_up_to(stdout, BYTES_MAX));
        // What prints more than it may is ended by a closed pipe, or by its time.
        let ended = printed.and_then(|printed| Ok((child.wait()?, printed)));
        // Fails only when nobody waits any more.
        _ = tell.send(ended);
    });
    let complaint = waits.and_then(|_| stderr.map(first_bytes).transpose());
    let complaint = complaint.map_err(|error| {
        kill();
        format!("it cannot be watched: {error}")
    })?;
    match ended.recv_timeout(limit) {
        Ok(Ok((status, printed))) if status.success() => check_length(printed),
        Ok(Ok((status, _))) => {
            let complaint =
                complaint.and_then(|said| said.recv_timeout(Duration::from_secs(1)).ok());
            let complaint = complaint.unwrap_or_default();
            let line = complaint.lines().find(|line| !line.trim().is_empty());
            let said =
                line.map_or_else(String::new, |line| format!(", after saying: {}", line.trim()));
            Err(format!("it failed ({status}){said}"))
        }
        Ok(Err(error)) => Err(format!("it cannot be watched: {error}")),
        Err(_) => {
            kill();
            Err(format!("it was ended because it ran longer than {} s", limit.as_secs_f32()))
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program that an operator names for his list of remotes"
)]
fn command(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    command
}

/// The beginning of a stream as text; the rest is read and dropped, so that nobody waits for room.
fn first_bytes(mut stream: impl Read + Send + 'static) -> io::Result<Receiver<String>> {
    let (tell, said) = bounded(1);
    Builder::new().name("list-command".into()).spawn(move || {
        let mut bytes = Vec::new();
        _ = stream.by_ref().take(COMPLAINT_BYTES).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        _ = tell.send(text);
        _ = io::copy(&mut stream, &mut io::sink());
    })?;
    Ok(said)
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
