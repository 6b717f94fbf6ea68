//! One run in flight: writes its names, reads its messages, and aborts it when it makes no progress.
//! Wakes only when a pipe has data or room, the child ends, or it is time to check the progress.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Pid;

use super::{Ending, Limits, Need, Session};

/// How much of standard error is kept, in bytes: enough if every path of a batch fails.
const STDERR_MAX: usize = 1 << 20;

/// How much is read at a time, in bytes. Most runs say nothing.
const READ_BYTES: usize = 8 << 10;

/// The progress of a run is checked at least this often.
const LOOK: Duration = Duration::from_secs(2);

/// While the program stops, a run is aborted when it makes no progress for so long.
const STALL_HURRIED: Duration = Duration::from_secs(2);

/// When it is first checked what a run needs. On a fast network a small run has ended by then.
const SAMPLE_FIRST: Duration = Duration::from_millis(5);

/// When it is checked again what a waiting run needs. A working run is checked sooner, an old run less often.
const SAMPLE_WAITING: Duration = Duration::from_millis(250);

/// The stall limit grows at most by this factor if our own machine gives the run no processor time.
const STARVED_MAX: u32 = 20;

/// rsync prints this to standard output when it deletes nothing because it could not read all of the source
/// (rsync 3.5.0, generator.c, delete_in_dir; the same words since 2.6).
const DELETIONS_SKIPPED: &[u8] = b"IO error encountered -- skipping file deletion";

/// A process that opens a fifo without a writer sleeps in this kernel function.
const WAITS_FOR_A_WRITER: &str = "wait_for_partner";

/// What was read from the pipes.
pub(super) struct Fed {
    /// Set when the run was ended from here.
    pub(super) ending: Option<Ending>,
    pub(super) stderr: Vec<u8>,
    pub(super) truncated: bool,
    /// Standard output, as far as it is wanted; `None` when there was more of it.
    pub(super) output: Option<Vec<u8>>,
    /// The end of standard output so far: a message may arrive in two pieces.
    tail: Vec<u8>,
    /// True when the child closed its standard input early.
    pub(super) deaf: bool,
}

impl Fed {
    /// The result for a run that never got its names.
    pub(super) fn aborted(ending: Ending) -> Self {
        Self { ending: Some(ending), ..Self::begun() }
    }

    fn begun() -> Self {
        Self {
            ending: None,
            stderr: Vec::new(),
            truncated: false,
            output: Some(Vec::new()),
            tail: Vec::new(),
            deaf: false,
        }
    }

    /// Appends the message about skipped deletions on standard output to the errors.
    fn listen(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let mut windows = self.tail.windows(DELETIONS_SKIPPED.len());
        if windows.any(|window| window == DELETIONS_SKIPPED) {
            // rsync prints it once.
            self.tail.clear();
            return self.keep(&[b"\n", DELETIONS_SKIPPED, b"\n"].concat());
        }
        let known = self.tail.len().saturating_sub(DELETIONS_SKIPPED.len() - 1);
        self.tail.drain(..known);
    }

    fn keep_output(&mut self, bytes: &[u8], max: usize) {
        let Some(output) = &mut self.output else { return };
        if output.len() + bytes.len() <= max {
            output.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.output = None;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = STDERR_MAX.saturating_sub(self.stderr.len()).min(bytes.len());
        self.stderr.extend_from_slice(&bytes[..room]);
        self.truncated |= room < bytes.len();
    }
}

/// Feeds and reads until the child has ended or stalls. Leaves reaping to the caller. `needs` is called from time to time
/// with what the run needs.
pub(super) fn feed(
    session: &mut Session,
    input: &[u8],
    limits: Limits,
    needs: &mut dyn FnMut(Need),
) -> Fed {
    let mut fed = Fed::begun();
    let mut pipes = Pipes::of(session, input);
    let mut progress = Progress::start(session.pid(), limits.stall);
    let mut sample_at = SAMPLE_FIRST;
    let has_helpers = session.spec.has_helpers();
    loop {
        if session.killer.is_hurried() {
            progress.hurry();
        }
        let pause = progress.pause().min(sample_at.saturating_sub(progress.age()));
        let woken = match wait(session, &pipes, pause) {
            Ok(woken) => woken,
            Err(error) => {
                fed.keep(format!("cannot wait for rsync: {error}").as_bytes());
                fed.ending = Some(Ending::Killed);
                return fed;
            }
        };
        let moved = pipes.write() | pipes.read(&mut fed, limits.output_max);
        if woken.ended {
            // What the child wrote before it ended is still in the pipes.
            while pipes.read(&mut fed, limits.output_max) {}
            fed.deaf = pipes.deaf || !pipes.rest.is_empty();
            return fed;
        }
        let age = progress.age();
        if age >= sample_at {
            let need = need_of(session.pid(), has_helpers);
            needs(need);
            let pause = if need == Need::Remote { age.max(SAMPLE_WAITING) } else { age };
            sample_at = age + pause.min(LOOK);
        }
        if let Some(ending) = progress.given_up(moved) {
            fed.ending = Some(ending);
            return fed;
        }
    }
}

struct Woken {
    ended: bool,
}

fn wait(session: &Session, pipes: &Pipes, pause: Duration) -> rustix::io::Result<Woken> {
    let mut fds = vec![PollFd::new(&session.pidfd, PollFlags::IN)];
    fds.extend(pipes.stdin.iter().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
    fds.extend(pipes.stdout.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    fds.extend(pipes.stderr.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    match poll(&mut fds, Timespec::try_from(pause).ok().as_ref()) {
        Ok(_) => Ok(Woken { ended: !fds[0].revents().is_empty() }),
        Err(rustix::io::Errno::INTR) => Ok(Woken { ended: false }),
        Err(error) => Err(error),
    }
}

/// The three pipes; each is `None` once closed.
struct Pipes<'a> {
    stdin: Option<std::process::ChildStdin>,
    stdout: Option<std::process::ChildStdout>,
    stderr: Option<std::process::ChildStderr>,
    rest: &'a [u8],
    deaf: bool,
}

impl<'a> Pipes<'a> {
    fn of(session: &mut Session, input: &'a [u8]) -> Self {
        let child = &mut session.child;
        let mut pipes = Self {
            stdin: child.stdin.take().filter(|pipe| is_made_nonblocking(pipe.as_fd())),
            stdout: child.stdout.take().filter(|pipe| is_made_nonblocking(pipe.as_fd())),
            stderr: child.stderr.take().filter(|pipe| is_made_nonblocking(pipe.as_fd())),
            rest: input,
            deaf: false,
        };
        // Most lists fit into the pipe, so they are written before the first wait.
        pipes.write();
        pipes
    }

    /// Writes what the pipe accepts; true when it accepted something. Closes it after the last byte.
    fn write(&mut self) -> bool {
        let Some(stdin) = &mut self.stdin else {
            return false;
        };
        let before = self.rest.len();
        while !self.rest.is_empty() {
            match stdin.write(self.rest) {
                Ok(written) => self.rest = &self.rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.rest.len() < before;
                }
                // The child has closed its end; its exit status will say why.
                Err(_) => {
                    self.deaf = true;
                    self.rest = &[];
                }
            }
        }
        self.stdin = None;
        true
    }

    /// Reads once from each pipe; true when it read something.
    fn read(&mut self, fed: &mut Fed, output_max: usize) -> bool {
        let mut buffer = [0; READ_BYTES];
        let stdout = read_once(&mut self.stdout, &mut buffer);
        fed.keep_output(&buffer[..stdout], output_max);
        fed.listen(&buffer[..stdout]);
        let bytes = read_once(&mut self.stderr, &mut buffer);
        fed.keep(&buffer[..bytes]);
        stdout > 0 || bytes > 0
    }
}

/// Reads once and returns the number of bytes. Closes the pipe at its end.
fn read_once<P: Read>(pipe: &mut Option<P>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else {
        return 0;
    };
    match open.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(bytes) => return bytes,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
    0
}

fn is_made_nonblocking(pipe: BorrowedFd<'_>) -> bool {
    fcntl_getfl(pipe).is_ok_and(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK).is_ok())
}

/// When a run last made progress: a pipe moved, or the kernel counted bytes for its processes.
struct Progress {
    pid: u32,
    stall: Duration,
    started: Instant,
    moved: Instant,
    looked: Instant,
    counted: Option<u64>,
    is_hurried: bool,
}

impl Progress {
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that waits for a child reads the clock"
    )]
    fn start(pid: u32, stall: Duration) -> Self {
        let now = Instant::now();
        Self { pid, stall, started: now, moved: now, looked: now, counted: None, is_hurried: false }
    }

    /// How long the run has had its names.
    fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Nobody waits for a run that stands still any more.
    fn hurry(&mut self) {
        self.is_hurried = true;
        self.stall = self.stall.min(STALL_HURRIED);
    }

    /// How long to wait before the processes' counters are looked at again.
    fn pause(&self) -> Duration {
        (self.stall / 4).clamp(Duration::from_millis(50), LOOK)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that waits for a child reads the clock"
    )]
    fn given_up(&mut self, pipe_moved: bool) -> Option<Ending> {
        let now = Instant::now();
        if pipe_moved {
            self.moved = now;
            return None;
        }
        if now - self.looked < self.pause() {
            return None;
        }
        self.looked = now;
        if waits_for_a_writer(self.pid) {
            // The remote is not at fault: the next run sends the fifo as a fifo.
            return Some(Ending::Killed);
        }
        let counted = bytes_moved(self.pid);
        // Where the counters cannot be read, only rsync's own --timeout ends a run.
        if counted.is_none() || counted != self.counted {
            self.counted = counted;
            self.moved = now;
        }
        // A run that gets a tenth of the processor time it needs is slowed down by this machine, not by the remote.
        let stands_still = now - self.moved >= self.stall;
        if self.is_hurried {
            return stands_still.then_some(Ending::Killed);
        }
        let is_over =
            stands_still && now - self.moved >= self.stall * starvation(processor_times(self.pid));
        is_over.then_some(Ending::Stalled(self.stall.as_secs()))
    }
}

/// Bytes that a run has sent: what its first process wrote. rsync's `--stats` tells the same, but a receiver may refuse
/// one more option. Child processes are not counted, because ssh writes the same bytes again. The process may have ended.
pub(super) fn bytes_sent(pid: Pid) -> u64 {
    let pid = pid.as_raw_nonzero();
    let counters = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/io"));
    let counters = counters.unwrap_or_default();
    let written = counters.lines().find_map(|line| line.strip_prefix("wchar:"));
    written.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Bytes read and written so far by a process and its descendants; `None` when the kernel does not tell.
fn bytes_moved(pid: u32) -> Option<u64> {
    let counters = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let mut sum: u64 = counters
        .lines()
        .filter(|line| line.starts_with("rchar:") || line.starts_with("wchar:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .fold(0, u64::wrapping_add);
    for child in children(pid) {
        sum = sum.wrapping_add(bytes_moved(child).unwrap_or(0));
    }
    Some(sum)
}

/// True when rsync opens a fifo that was a file when the list was made. It would wait for ever, and no `--timeout` helps.
fn waits_for_a_writer(pid: u32) -> bool {
    let place = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    place == WAITS_FOR_A_WRITER || children(pid).into_iter().any(waits_for_a_writer)
}

/// What a process needs at this moment, with its descendants if it has some.
fn need_of(pid: u32, has_descendants: bool) -> Need {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may contain parentheses itself. The state follows it.
    let state = stat.iter().rposition(|&b| b == b')').and_then(|at| stat.get(at + 2));
    let child_works = |child| need_of(child, true) == Need::Processor;
    let works = matches!(state, Some(b'R' | b'D'))
        || has_descendants && children(pid).into_iter().any(child_works);
    if works { Need::Processor } else { Need::Remote }
}

/// How long a process and its descendants have had a processor, and how long they have waited for one.
fn processor_times(pid: u32) -> (Duration, Duration) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let mut words = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
    let mut next = || Duration::from_nanos(words.next().unwrap_or(0));
    let own = (next(), next());
    let below = children(pid).into_iter().map(processor_times);
    below.fold(own, |sum, child| (sum.0 + child.0, sum.1 + child.1))
}

/// How many times longer something takes than on an otherwise idle machine.
fn starvation((had, waited): (Duration, Duration)) -> u32 {
    let times = waited.as_nanos() / had.as_nanos().max(1_000_000);
    1 + u32::try_from(times).unwrap_or(STARVED_MAX).min(STARVED_MAX - 1)
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_our_own_machine_starves_may_stand_still_longer() {
        let ms = Duration::from_millis;
        assert_eq!(starvation((ms(20), ms(1))), 1);
        assert_eq!(starvation((ms(20), ms(200))), 11);
        assert_eq!(starvation((ms(0), ms(0))), 1, "where the kernel does not tell");
        assert_eq!(starvation((ms(1), ms(1_000_000))), STARVED_MAX);
    }

    #[test]
    fn a_process_that_sleeps_needs_no_processor() {
        let mut sleeper = crate_sleeper();
        let (pid, mut tries) = (sleeper.id(), 0);
        while need_of(pid, true) != Need::Remote {
            tries += 1;
            assert!(tries < 1_000_000, "it never sleeps");
        }
        assert!(processor_times(pid).0 > Duration::ZERO);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "a child that waits is what is tested")]
    fn crate_sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn what_is_said_of_deletions_is_heard_in_pieces_and_among_other_words() {
        let words = [b"a/file\n".as_slice(), DELETIONS_SKIPPED, b"\nb/file\n"].concat();
        let kept = [b"\n", DELETIONS_SKIPPED, b"\n"].concat();
        for cut in 0..=words.len() {
            let mut fed = Fed::begun();
            fed.listen(&words[..cut]);
            fed.listen(&words[cut..]);
            assert_eq!(fed.stderr, kept, "cut at {cut}");
        }
        let mut fed = Fed::begun();
        words.iter().for_each(|byte| fed.listen(std::slice::from_ref(byte)));
        assert_eq!(fed.stderr, kept);
        let mut fed = Fed::begun();
        fed.listen(&DELETIONS_SKIPPED[1..]);
        assert_eq!(fed.stderr, b"");
    }
}
