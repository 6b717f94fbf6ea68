//! The mirrors that are compared: how each is configured, started, known to be ready, and ended.
//! Measures nothing.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Serialize;

use super::rig::{Reach, Rig};
use super::{proc, rest, until};
use crate::support::mirror::Setup;

/// A program that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tool {
    /// This program.
    Sersync,
    /// `rsync -a`, started by hand when the changes are complete.
    Rsync,
    /// lsyncd with `delay = 0`.
    Lsyncd,
    /// The usual shell loop with `inotifywait`.
    Loop,
}

impl Tool {
    /// The mirrors that can be started here.
    pub fn mirrors(others: bool) -> Vec<Self> {
        let mut mirrors = vec![Self::Sersync];
        if others && is_installed("lsyncd") {
            mirrors.push(Self::Lsyncd);
        }
        if others && is_installed("inotifywait") {
            mirrors.push(Self::Loop);
        }
        mirrors
    }

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sersync => "sersync2",
            Self::Rsync => "rsync -a",
            Self::Lsyncd => "lsyncd",
            Self::Loop => "inotifywait",
        }
    }
}

fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

/// Additional settings for the start of a mirror.
#[derive(Default)]
pub struct More {
    /// Arguments of the command line.
    pub args: Vec<String>,
    /// These modules instead of the one remote `data` (for lsyncd as well), as `NAME` or `IP::NAME`.
    pub modules: Vec<String>,
    /// Further elements for `<head>` and for `<rsync>`.
    pub head: String,
    pub rsync: &'static str,
    /// Environment of the program.
    pub env: Vec<(&'static str, &'static str)>,
    /// The backend for changes; empty: sersync2 chooses.
    pub backend: &'static str,
}

/// A running mirror; ended when dropped.
pub struct Running {
    /// Which tool it is.
    pub tool: Tool,
    child: Child,
    log: std::path::PathBuf,
}

impl Running {
    /// Starts `tool` and waits until it has mirrored a first file, which is removed again.
    pub fn start(tool: Tool, rig: &Rig) -> io::Result<Self> {
        let running = Self::launch(tool, rig, &More::default())?;
        running.prove(rig)?;
        Ok(running)
    }

    /// Starts `tool` and returns at once.
    pub fn launch(tool: Tool, rig: &Rig, more: &More) -> io::Result<Self> {
        let mut command = match tool {
            Tool::Sersync => sersync(rig, more),
            Tool::Lsyncd => lsyncd(rig, more),
            Tool::Loop => script(rig),
            Tool::Rsync => return Err(io::Error::other("rsync is no mirror")),
        };
        let log = rig.dir.join(format!("{}.log", tool.name()));
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        Ok(Self { tool, child: command.spawn()?, log })
    }

    /// Waits until a test file has arrived and its deletion too.
    pub fn prove(&self, rig: &Rig) -> io::Result<()> {
        let (here, there) = (rig.source.join("first contact"), rig.remote().join("first contact"));
        let mut tries = 0;
        let arrived = until(Instant::now(), LIMIT, Duration::from_millis(5), || {
            // The script misses changes until its watches are set, and does not report when that is. So write again.
            if tries % 60 == 0 {
                _ = fs::write(&here, "x");
            }
            tries += 1;
            there.exists()
        });
        if arrived.is_none() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            return Err(io::Error::other(format!("{} mirrors nothing: {log}", self.tool.name())));
        }
        rest(SETTLE_MS);
        fs::remove_file(&here)?;
        until(Instant::now(), LIMIT, Duration::from_millis(5), || !there.exists());
        rest(SETTLE_MS);
        Ok(())
    }

    /// Waits until its log contains `text`; returns the time since `start`.
    pub fn says(&self, text: &str, start: Instant, limit: Duration) -> Option<Duration> {
        until(start, limit, Duration::from_millis(1), || {
            fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
        })
    }

    /// How often its log contains `text`.
    pub fn says_how_often(&self, text: &str) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches(text).count()
    }

    /// Ends it with SIGTERM; returns how long that takes.
    pub fn stop(&mut self, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        let pid = Pid::from_raw(self.child.id().cast_signed())?;
        let mut ended = || self.child.try_wait().is_ok_and(|status| status.is_some());
        if !ended() {
            _ = kill_process(pid, Signal::TERM);
        }
        until(start, limit, Duration::from_millis(1), ended)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far of everything it has started, itself included.
    pub fn cpu(&self) -> Duration {
        proc::cpu(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) else { return };
        self.stop(Duration::from_secs(3));
        _ = kill_process_group(pid, Signal::KILL);
        _ = self.child.wait();
    }
}

/// How long a mirror may take for anything.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How long rsync may take to end after a change has arrived.
pub const SETTLE_MS: u64 = 300;

fn sersync(rig: &Rig, more: &More) -> Command {
    let mut setup = Setup { params: "-a".into(), port: rig.port(), ..Setup::to(&rig.daemon) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    if let Some(sshd) = &rig.sshd {
        setup.ssh = true;
        setup.remotes = vec![("127.0.0.1".into(), rig.remote().display().to_string())];
        command.env("PATH", sshd.path_variable());
    }
    if !more.modules.is_empty() {
        let parts = more.modules.iter().map(|it| it.split_once("::").unwrap_or(("127.0.0.1", it)));
        setup.remotes = parts.map(|(ip, name)| (ip.into(), name.into())).collect();
    }
    setup.rsync = more.rsync.into();
    setup.head = more.head.clone();
    if !more.backend.is_empty() {
        setup.head += &format!("<fileSystem backend=\"{}\"/>", more.backend);
    }
    let xml = setup.xml(&rig.source, &rig.dir.join("failed.sh"));
    command.arg("-o").arg(rig.dir.file("confxml.xml", xml));
    command.arg("--state-dir").arg(rig.dir.join("state")).args(&more.args);
    command.envs(more.env.iter().copied());
    command
}

fn lsyncd(rig: &Rig, more: &More) -> Command {
    let shell = rig.remote_shell().map_or_else(String::new, |shell| format!(", rsh = \"{shell}\""));
    let mut config = "settings { nodaemon = true, insist = true }\n".to_owned();
    let module = |name: &String| format!("rsync://127.0.0.1:{}/{name}/", rig.port());
    let mut targets: Vec<_> = more.modules.iter().map(module).collect();
    if targets.is_empty() {
        targets.push(rig.destination());
    }
    for target in targets {
        let source = rig.source.display();
        _ = write!(
            config,
            "sync {{ default.rsync, source = \"{source}\", target = \"{target}\", delay = 0,\n\
             rsync = {{ archive = true{shell} }} }}\n",
        );
    }
    let mut command = Command::new("lsyncd");
    command.arg(rig.dir.file("lsyncd.lua", config));
    command
}

fn script(rig: &Rig) -> Command {
    let shell = match (rig.reach, rig.remote_shell()) {
        (Reach::Ssh, Some(shell)) => format!("-e '{shell}' "),
        _ => String::new(),
    };
    let source = rig.source.display();
    let text = format!(
        "#!/bin/bash\nwhile inotifywait -qq -r -e close_write,create,delete,move,attrib '{source}'; do\n\
         \x20   rsync -a --delete {shell}'{source}/' '{}'\ndone\n",
        rig.destination(),
    );
    let mut command = Command::new("bash");
    command.arg(rig.dir.file("loop.sh", text));
    command
}
