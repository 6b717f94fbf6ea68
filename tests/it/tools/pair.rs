//! Two equal trees: the original tool watches one, ours the other, and both get the same operations.
//! Holds no tests.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::ioctl_fionread;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open,
};

use crate::support::{TestDir, wait_until};

/// An operation on a tree while the tools are watching.
pub type Operation = Box<dyn Fn(&Path)>;

/// What a tool has printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Result {
    pub stdout: String,
    pub stderr: String,
    /// Exit code, or the signal that ended it.
    pub end: (Option<i32>, Option<i32>),
}

/// A tool that runs.
pub struct Tool {
    child: Child,
    dir: PathBuf,
}

/// The two trees.
pub struct Pair {
    dir: TestDir,
}

/// The names of the two directories: the original's and ours.
const SIDES: [&str; 2] = ["theirs", "ours"];

/// A directory with symbolic links to our program, named like the tools.
pub fn bin(dir: &TestDir) -> PathBuf {
    let bin = dir.dir("bin");
    for name in ["inotifywait", "inotifywatch", "fsnotifywait", "fsnotifywatch"] {
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sersync2"), link).unwrap();
        }
    }
    bin
}

impl Pair {
    /// Two directories, each made by `make`.
    pub fn new(make: impl Fn(&Path)) -> Self {
        keep_files_to_this_thread();
        let dir = TestDir::new();
        bin(&dir);
        for side in SIDES {
            make(&dir.dir(side));
        }
        Self { dir }
    }

    /// The command of one side, in its directory, prefixed by `wrapper`.
    fn command(&self, side: &str, wrapper: &[&str], tool: &str, arguments: &[&str]) -> Command {
        let path = match side {
            "theirs" => PathBuf::from("/usr/bin").join(tool),
            _ => self.dir.join("bin").join(tool),
        };
        let mut command = match wrapper {
            [] => {
                let mut command = Command::new(path);
                command.arg0(tool);
                command
            }
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(path);
                command
            }
        };
        command.args(arguments).current_dir(self.dir.join(side)).env_remove("POSIXLY_CORRECT");
        command
    }

    fn start(&self, side: &str, mut command: Command, input: &str) -> Tool {
        let dir = self.dir.join(side);
        fs::write(self.dir.join(format!("{side}.in")), input).unwrap();
        let open = |end: &str| File::create(self.dir.join(format!("{side}.{end}"))).unwrap();
        let child = command
            .stdin(File::open(self.dir.join(format!("{side}.in"))).unwrap())
            .stdout(Stdio::from(open("out")))
            .stderr(Stdio::from(open("err")))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; install inotify-tools"));
        Tool { child, dir }
    }

    /// Runs both to their end, without touching anything.
    pub fn run(&self, tool: &str, arguments: &[&str], input: &str) -> [Result; 2] {
        self.run_wrapped(&[], tool, arguments, input)
    }

    /// [`Self::run`] with a prefix of the command, such as `unshare`.
    pub fn run_wrapped(
        &self,
        wrapper: &[&str],
        tool: &str,
        arguments: &[&str],
        input: &str,
    ) -> [Result; 2] {
        SIDES.map(|side| {
            let command = self.command(side, wrapper, tool, arguments);
            self.result(side, self.start(side, command, input))
        })
    }

    /// Starts both tools, does each operation on both trees, and ends the tools with the signal if they are still running.
    pub fn watch(
        &self,
        tool: &str,
        arguments: &[&str],
        operations: &[Operation],
        end: Signal,
    ) -> [Result; 2] {
        let mut tools = SIDES.map(|side| {
            let command = self.command(side, &[], tool, arguments);
            self.start(side, command, "")
        });
        tools.iter_mut().for_each(Tool::wait_until_idle);
        for operation in operations {
            for tool in &mut tools {
                operation(&tool.dir);
                tool.wait_until_idle();
            }
        }
        let [theirs, ours] = tools;
        [("theirs", theirs), ("ours", ours)].map(|(side, mut tool)| {
            tool.end(end);
            self.result(side, tool)
        })
    }

    fn result(&self, side: &str, mut tool: Tool) -> Result {
        let status = tool.child.wait().unwrap();
        let read = |end: &str| {
            let bytes = fs::read(self.dir.join(format!("{side}.{end}"))).unwrap();
            String::from_utf8_lossy(&bytes).replace(&*self.dir.join(side).to_string_lossy(), "DIR")
        };
        let end = (status.code(), status.signal());
        Result { stdout: plain(&read("out")), stderr: read("err"), end }
    }
}

impl Tool {
    /// Waits until the tool has read every event and waits for more, or has ended.
    fn wait_until_idle(&mut self) {
        wait_until("the tool waits for events", || {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            // Check the queue first: a tool that is being woken still seems to sleep.
            if !self.has_read_everything() {
                return false;
            }
            // select, poll, pselect6, ppoll on x86-64; pselect6, ppoll on arm64.
            let call = fs::read_to_string(format!("/proc/{}/syscall", self.child.id()));
            let call = call.unwrap_or_default();
            ["23 ", "7 ", "270 ", "271 ", "72 ", "73 "].iter().any(|wait| call.starts_with(wait))
        });
    }

    /// True when no event waits in the kernel's queues of the tool.
    fn has_read_everything(&self) -> bool {
        let pid = Pid::from_child(&self.child);
        // The tool may end at any moment.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let inotify = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let is_inotify = target.as_os_str() == "anon_inode:inotify";
            is_inotify.then(|| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())?
        };
        let mut queues = fds.into_iter().flatten().flatten().filter_map(inotify);
        queues.all(|queue| ioctl_fionread(&queue).is_ok_and(|bytes| bytes == 0))
    }

    fn end(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Gives this thread its own descriptor table. Otherwise a program that another thread starts would keep this thread's files open until
/// its exec, and their close events would come late.
#[expect(unsafe_code, reason = "the kernel's call has no safe form")]
fn keep_files_to_this_thread() {
    // SAFETY: the thread keeps a copy of every descriptor, so each that is owned here stays valid. No descriptor that it
    // opens later is passed to another thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.unwrap();
}

/// Removes what differs by chance. The cookies of renames are numbered, and equal consecutive lines become one, because the kernel
/// merges equal unread events.
fn plain(text: &str) -> String {
    let mut cookies: Vec<&str> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for line in text.split_inclusive(['\n', '\0']) {
        let line = match line.split_once("cookie=").and_then(|(a, b)| Some((a, b.split_once(';')?)))
        {
            Some((before, (cookie, after))) if cookie != "0" => {
                let known = cookies.iter().position(|known| *known == cookie);
                let number = known.unwrap_or(cookies.len());
                if known.is_none() {
                    cookies.push(cookie);
                }
                format!("{before}cookie=#{number};{after}")
            }
            _ => line.to_owned(),
        };
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

/// Asserts that both did the same.
pub fn assert_same(what: &str, [theirs, ours]: [Result; 2]) {
    assert!(
        theirs == ours,
        "{what}\n--- theirs {:?}\n{}{}\n--- ours {:?}\n{}{}",
        theirs.end,
        theirs.stdout,
        theirs.stderr,
        ours.end,
        ours.stdout,
        ours.stderr
    );
}
