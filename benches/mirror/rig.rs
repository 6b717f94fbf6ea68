//! A source, a remote, and the connection between them; functions that fill and compare the trees.
//! Starts no mirror.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::proc;
use super::wire::Wire;
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::sshd::Sshd;
use crate::support::{TestDir, tree};

/// The connection to the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A daemon on this machine, without socket options.
    Loopback,
    /// The daemon behind a forwarder that counts bytes.
    Counted,
    /// The daemon behind a forwarder with a round trip of 40 ms.
    RoundTrip,
    /// A real sshd on this machine.
    Ssh,
}

/// Source, remote and the connection between them.
pub struct Rig {
    /// How the remote is reached.
    pub reach: Reach,
    /// The remote.
    pub daemon: Rsyncd,
    /// Its sshd, for [`Reach::Ssh`].
    pub sshd: Option<Sshd>,
    /// Contains the source and the mirror's other files.
    pub dir: TestDir,
    /// The watched directory.
    pub source: PathBuf,
    wire: Option<Wire>,
    /// Further modules of the daemon.
    pub modules: Vec<PathBuf>,
}

impl Rig {
    /// An empty source and an empty remote.
    pub fn new(reach: Reach) -> io::Result<Self> {
        Self::with_modules(reach, 0)
    }

    /// An empty source and an empty remote with `count` further modules `m0`, `m1`, ...
    pub fn with_modules(reach: Reach, count: usize) -> io::Result<Self> {
        let dir = TestDir::new();
        let source = dir.dir("source");
        let modules: Vec<PathBuf> = (0..count).map(|n| dir.dir(format!("modules/m{n}"))).collect();
        let lines = modules.iter().enumerate();
        let module = lines
            .map(|(n, path)| format!("\n[m{n}]\npath = {}\nread only = no\n", path.display()))
            .collect();
        let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
        let wire = match reach {
            Reach::Counted => Some(Wire::start(daemon.port, Duration::ZERO)?),
            Reach::RoundTrip => Some(Wire::start(daemon.port, Duration::from_millis(40))?),
            Reach::Loopback | Reach::Ssh => None,
        };
        let sshd = (reach == Reach::Ssh).then(Sshd::start);
        Ok(Self { reach, daemon, sshd, dir, source, wire, modules })
    }

    /// The directory of the copy.
    pub fn remote(&self) -> &Path {
        &self.daemon.data
    }

    /// The port that leads to the daemon, or to sshd.
    pub fn port(&self) -> u16 {
        let direct = self.sshd.as_ref().map_or(self.daemon.port, |sshd| sshd.port);
        self.wire.as_ref().map_or(direct, |wire| wire.port)
    }

    /// The destination as rsync names it.
    pub fn destination(&self) -> String {
        match self.reach {
            Reach::Ssh => format!("127.0.0.1:{}/", self.remote().display()),
            _ => format!("rsync://127.0.0.1:{}/data/", self.port()),
        }
    }

    /// The remote shell, if one is used.
    pub fn remote_shell(&self) -> Option<String> {
        self.sshd.as_ref().map(|sshd| format!("{}/ssh -p {}", sshd.bin().display(), sshd.port))
    }

    /// Bytes that have passed so far, both ways.
    pub fn wire_bytes(&self) -> u64 {
        self.wire.as_ref().map_or(0, Wire::bytes)
    }

    /// Makes the remote equal to the source without any network.
    pub fn equalise(&self) -> io::Result<()> {
        let mut source = self.source.clone().into_os_string();
        source.push("/");
        run(Command::new("rsync").args(["-a", "--delete"]).arg(source).arg(self.remote()))
    }

    /// `rsync -a` of the whole source by hand: how long it takes and what processor time it needs.
    pub fn by_hand(&self, more: &[&str]) -> io::Result<(Duration, Duration)> {
        let mut command = self.rsync(more);
        command.arg("./").arg(self.destination());
        let (cpu, start) = (proc::cpu_of_waited(), Instant::now());
        run(&mut command)?;
        Ok((start.elapsed(), proc::cpu_of_waited() - cpu))
    }

    /// `rsync -a` in the source, without source and destination arguments.
    pub fn rsync(&self, more: &[&str]) -> Command {
        let mut command = Command::new("rsync");
        command.arg("-a").args(more).current_dir(&self.source).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(shell) = self.remote_shell() {
            command.args(["-e", &shell]);
        }
        command
    }

    /// True when both trees hold the same entries with the same modes and sizes.
    pub fn is_equal(&self) -> bool {
        tree(&self.source) == tree(self.remote())
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    // Code 24: something vanished during the run.
    if status.success() || status.code() == Some(24) {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?} failed: {status}")))
}

/// Writes `files` files of `size` bytes into `dirs` directories below `root`, one after the other.
pub fn fill(root: &Path, dirs: usize, files: usize, size: usize) -> io::Result<()> {
    let content = vec![b'x'; size];
    for dir in 0..dirs {
        let dir_path = root.join(format!("dir{dir:04}"));
        fs::create_dir_all(&dir_path)?;
        for file in (dir..files).step_by(dirs) {
            fs::write(dir_path.join(format!("file{file:06}")), &content)?;
        }
    }
    Ok(())
}

/// Makes `count` directories, a hundred in each except on the last level.
pub fn many_directories(root: &Path, count: usize) -> io::Result<()> {
    for n in 0..count {
        let path = root.join(format!("{:03}/{:02}", n / 10_000, n / 100 % 100));
        fs::create_dir_all(path.join(format!("directory{:02}", n % 100)))?;
    }
    Ok(())
}

/// How many entries are below `dir`; it must be cheap, because it is called often.
pub fn entries(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // rsync's temporary files do not count.
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(b".");
        count += usize::from(!unfinished);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count += entries(&entry.path());
        }
    }
    count
}
