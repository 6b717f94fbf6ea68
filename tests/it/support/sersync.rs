//! The real `sersync2` with a configuration, a state directory and a source of its own, ended when dropped.
//! Finds its processes by the configuration's path, as operators do; never touches another instance.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::rsyncd::Rsyncd;
use super::{LIMIT, TestDir, is_running, wait_until};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sersync2");

/// A source directory and the configuration that mirrors it.
pub struct Installation {
    /// Contains all files of this instance.
    pub dir: TestDir,
    /// The watched directory.
    pub source: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
}

impl Installation {
    /// A mirror of a new directory to the module `data` of `remote`, configured by `confxml.xml`.
    pub fn new(remote: &Rsyncd) -> Self {
        Self::named("confxml.xml", remote)
    }

    /// A mirror of a new directory to the module `data` of `remote`, with a configuration file called `name`.
    pub fn named(name: &str, remote: &Rsyncd) -> Self {
        Self::with_remote(name, remote.port, r#"name="data""#, "")
    }

    /// A mirror whose `<remote>` has `name` (an attribute) and whose `<rsync>` holds `extra` elements.
    pub fn with_remote(file: &str, port: u16, name: &str, extra: &str) -> Self {
        let dir = TestDir::new();
        let source = dir.dir("source");
        let text = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<head version="2.5">
    <host hostip="localhost" port="8008"></host>
    <sersync>
        <localpath watch="{source}">
            <remote ip="127.0.0.1" {name}/>
        </localpath>
        <rsync>
            <commonParams params="-artuz"/>
            <userDefinedPort start="true" port="{port}"/>
            {extra}
        </rsync>
        <failLog path="{fail_log}" timeToExecute="60"/>
    </sersync>
</head>
"#,
            source = source.display(),
            fail_log = dir.join("fail.sh").display(),
        );
        let config = dir.file(file, text);
        Self { dir, source, config }
    }

    /// Where the log goes in the background.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("sersync2.log")
    }

    /// `options`, followed by the options that separate this instance from all others.
    pub fn arguments(&self, options: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = options.iter().map(ToString::to_string).collect();
        all.extend(["--state-dir".into(), self.dir.join("state").display().to_string()]);
        all.extend(["--log-file".into(), self.log_file().display().to_string()]);
        all
    }

    /// `program ARGUMENTS…`, not started yet. The working directory is that of the configuration.
    pub fn command(&self, program: impl AsRef<OsStr>, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(self.arguments(options)).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs with `-d` and `-o` and waits for the parent; fails when a process keeps the parent's output open.
    pub fn run_background(&self) -> Output {
        let config = self.config.to_str().unwrap();
        self.command(PROGRAM, &["-d", "-o", config]).output().unwrap()
    }

    /// Starts in the foreground with `options` and waits until all watches are set.
    pub fn start(&self, options: &[&str]) -> Foreground {
        let mut given = options.to_vec();
        given.extend(["-o", self.config.to_str().unwrap()]);
        self.start_command(&mut self.command(PROGRAM, &given))
    }

    /// Starts `command`, which becomes or starts the program, and waits until all watches are set.
    pub fn start_command(&self, command: &mut Command) -> Foreground {
        let output = self.dir.join("output");
        let file = File::create(&output).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let mut foreground = Foreground { child, output };
        wait_until("the watches stand", || {
            let ended = foreground.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", foreground.output());
            foreground.output().contains("watch path is: ")
        });
        foreground
    }

    /// The processes that an operator finds by the configuration's path.
    pub fn pids(&self) -> Vec<u32> {
        let needle = self.config.as_os_str().as_bytes();
        let file_name = self.config.file_name().unwrap().as_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let here =
                || fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.dir.path());
            let mut words = line.split(|&b| b == 0);
            let mut program = words.next().unwrap_or_default().rsplit(|&b| b == b'/');
            let ours = program.next().is_some_and(|name| name.starts_with(b"sersync"));
            let named = words.any(|word| word == needle || (word == file_name && here()));
            if ours && named && is_running(pid) {
                found.push(pid);
            }
        }
        found
    }

    /// The one process of this configuration. A child looks like its parent until its exec, so this waits. If a second process stays, the
    /// test fails.
    pub fn pid(&self) -> u32 {
        let mut pids = Vec::new();
        wait_until("there is one line in ps for this configuration", || {
            pids = self.pids();
            pids.len() == 1
        });
        pids[0]
    }

    /// Sends `signal` to the one process of this configuration.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Writes a file into the source and waits until the remote has it.
    pub fn assert_mirrors(&self, remote: &Rsyncd, name: &str) {
        fs::write(self.source.join(name), name).unwrap();
        super::wait_for_content(&remote.at(name), name);
    }

    /// What the log file holds.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for pid in self.pids() {
            let children = super::children_of(pid);
            super::kill(pid);
            children.into_iter().for_each(super::kill);
        }
    }
}

/// A child of the test; killed when dropped.
pub struct Foreground {
    /// The process.
    pub child: Child,
    output: PathBuf,
}

impl Foreground {
    /// What it has written to standard output and error so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits for its end and returns the exit code; `None` when a signal killed it.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        let start = Instant::now();
        while status.is_none() {
            assert!(
                start.elapsed() < LIMIT,
                "the process does not end; it said:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(1));
            status = self.child.try_wait().unwrap();
        }
        status.unwrap().code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let children = super::children_of(self.child.id());
            let _ = self.child.kill();
            let _ = self.child.wait();
            children.into_iter().for_each(super::kill);
        }
    }
}

/// True when this test may create namespaces, i.e. is root with all capabilities.
pub fn can_make_namespaces() -> bool {
    Command::new("unshare")
        .args(["--pid", "--mount", "--fork", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The name of a process, as `killall` and `ps -C` see it.
pub fn process_name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Where an open file of a process leads.
pub fn open_file(pid: u32, fd: u32) -> PathBuf {
    fs::read_link(Path::new("/proc").join(format!("{pid}/fd/{fd}"))).unwrap()
}
