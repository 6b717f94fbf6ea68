//! Finds a program by its name, and runs a command until it ends or takes too long.
//! Uses no shell. The caller makes the command.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where to look for sendmail: first in `PATH`, then in the usual places.
pub const SENDMAILS: [&str; 3] = ["sendmail", "/usr/sbin/sendmail", "/usr/lib/sendmail"];

/// How many bytes of a program's standard error are kept.
const COMPLAINT_BYTES: u64 = 300;

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, if its standard output is a pipe. One byte more than allowed means that there was more.
    pub printed: Vec<u8>,
    /// The first line of its standard error if it failed and that stream is a pipe.
    pub complaint: Option<String>,
}

/// Why a program did not end by itself. Each is a clause whose subject is the program.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such file.
    #[error("is not there")]
    NotThere,
    /// The system refuses to start it.
    #[error("cannot be started: {0}")]
    NotStarted(io::Error),
    /// The system refuses a thread, or its output cannot be read.
    #[error("cannot be watched: {0}")]
    NotWatched(io::Error),
    /// It took too long and was killed.
    #[error("was ended because it ran longer than {} s", .0.as_secs_f32())]
    TooLong(Duration),
}

/// A program that was started in a process group of its own.
#[derive(Debug)]
pub struct Started(Child);

/// Starts a program in a process group of its own, and waits for its end: [`start`] and [`Started::finish`].
///
/// # Errors
/// It did not end by itself.
pub fn run(
    command: Command,
    input: String,
    printed_max: u64,
    limit: Duration,
) -> Result<Ended, RunError> {
    start(command)?.finish(input, printed_max, limit)
}

/// Starts a program in a process group of its own.
///
/// # Errors
/// It cannot be started.
pub fn start(mut command: Command) -> Result<Started, RunError> {
    let started = command.process_group(0).spawn();
    started.map(Started).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RunError::NotThere,
        _ => RunError::NotStarted(error),
    })
}

impl Started {
    /// Its process group: the program and what it has started.
    pub fn group(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits for its end, and kills its group if it runs longer than `limit`. Streams that are pipes are served: the program gets
    /// `input`, and at most `printed_max` bytes of its output are kept.
    ///
    /// # Errors
    /// It did not end by itself.
    pub fn finish(
        self,
        input: String,
        printed_max: u64,
        limit: Duration,
    ) -> Result<Ended, RunError> {
        let group = self.group();
        wait(self.0, input, printed_max, limit).inspect_err(|_| kill_group(group))
    }
}

/// Ends all processes of a group.
pub fn kill_group(group: Option<Pid>) {
    if let Some(group) = group {
        // Fails only when they have ended.
        _ = kill_process_group(group, Signal::KILL);
    }
}

fn wait(
    mut child: Child,
    input: String,
    printed_max: u64,
    limit: Duration,
) -> Result<Ended, RunError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (tell, ended) = bounded::<io::Result<(ExitStatus, Vec<u8>)>>(1);
    // Do not join these threads: a grandchild that has left the group may hold their pipes open.
    let waits = Builder::new().name("program".into()).spawn(move || {
        if let Some(mut stdin) = stdin {
            // Ignore errors: a program need not read its input.
            _ = stdin.write_all(input.as_bytes());
        }
        let printed = stdout.map_or(Ok(Vec::new()), |stdout| read_up_to(stdout, printed_max));
        // A program that prints too much is ended by the closed pipe or by the time limit.
        let ended = printed.and_then(|printed| Ok((child.wait()?, printed)));
        // Fails only when the caller does not wait any more.
        _ = tell.send(ended);
    });
    let complaint = waits.and_then(|_| stderr.map(first_bytes).transpose());
    let complaint = complaint.map_err(RunError::NotWatched)?;
    match ended.recv_timeout(limit) {
        Ok(Ok((status, printed))) => {
            let complaint = complaint.filter(|_| !status.success());
            let complaint =
                complaint.and_then(|said| said.recv_timeout(Duration::from_secs(1)).ok());
            let first_line = |said: String| {
                said.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
            };
            Ok(Ended { status, printed, complaint: complaint.and_then(first_line) })
        }
        Ok(Err(error)) => Err(RunError::NotWatched(error)),
        Err(_) => Err(RunError::TooLong(limit)),
    }
}

/// Reads at most one byte more than the limit, which tells a longer stream from one of exactly that length.
///
/// # Errors
/// It cannot be read.
pub fn read_up_to(stream: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The beginning of a stream as text. The rest is read and dropped, so that the writer never blocks.
fn first_bytes(mut stream: impl Read + Send + 'static) -> io::Result<Receiver<String>> {
    let (tell, said) = bounded(1);
    Builder::new().name("program".into()).spawn(move || {
        let mut bytes = Vec::new();
        _ = stream.by_ref().take(COMPLAINT_BYTES).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        _ = tell.send(text);
        _ = io::copy(&mut stream, &mut io::sink());
    })?;
    Ok(said)
}

/// True when the file is a program and no script.
pub fn is_elf(file: &Path) -> bool {
    let mut head = [0; 4];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"\x7fELF"
}

/// The executable `name` in the directories of `PATH`, or in the usual ones if `PATH` is not set.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let candidates = std::env::split_paths(&path).map(|dir| dir.join(name));
    let is_executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    };
    candidates.into_iter().find(is_executable)
}
