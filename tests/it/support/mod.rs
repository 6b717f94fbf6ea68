//! The basis of all integration tests: a directory of their own, a real rsync daemon, a real sshd, and waiting for conditions.
//! Contains no tests, and never sleeps for a fixed time.
#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests start programs and look at the clock")]

pub mod crowd;
pub mod forwarder;
pub mod mirror;
pub mod ntfs;
pub mod rsyncd;
pub mod same;
pub mod sersync;
pub mod sshd;
pub mod storm;
pub mod tmpfs;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails.
pub const LIMIT: Duration = Duration::from_secs(40);

/// A temporary directory with the helpers that tests need; removed when dropped.
pub struct TestDir(tempfile::TempDir);

impl TestDir {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("sersync-").tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The absolute path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a directory (with parents) and returns its path.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file (making its parents) and returns its path.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

/// Reports that a test is skipped, and why. If `SERSYNC_NO_SKIPS` is set, this fails the test. `make test` sets it for root, because
/// root can install everything that a test needs.
#[track_caller]
pub fn skipped(reason: impl std::fmt::Display) {
    let may_skip = std::env::var_os("SERSYNC_NO_SKIPS").is_none_or(|value| value.is_empty());
    assert!(may_skip, "not run: {reason}; `make test SERSYNC_NO_SKIPS=` leaves such tests out");
    eprintln!("skipped: {reason}");
}

/// Reports a skip because of a missing program that `make test` does not install: its package starts a service or is large.
pub fn not_installed(program: &str) {
    eprintln!("skipped: {program} is not installed");
}

/// Waits until `condition` holds; panics with `what` after [`LIMIT`].
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_within(what, LIMIT, condition);
}

/// [`wait_until`] with another limit.
pub fn wait_until_within(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a file holds exactly `content`.
pub fn wait_for_content(path: &Path, content: impl AsRef<[u8]>) {
    let content = content.as_ref();
    wait_until(&format!("{} holds the expected bytes", path.display()), || {
        fs::read(path).is_ok_and(|found| found == content)
    });
}

/// A port of 127.0.0.1 that was free a moment ago. If it is taken when you use it, try another one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The tree below `root`, one line per entry: kind, mode, path, and size or link target. Equal trees have equal lines; times are
/// not included.
pub fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    collect(root, root, &mut lines);
    lines.sort();
    lines
}

fn collect(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        let name = path.strip_prefix(root).unwrap();
        let kind = meta.file_type();
        let mode = meta.mode() & 0o7777;
        lines.push(if kind.is_dir() {
            format!("d {mode:o} {name:?}")
        } else if kind.is_symlink() {
            format!("l {name:?} -> {:?}", fs::read_link(&path).unwrap_or_default())
        } else if kind.is_file() {
            format!("f {mode:o} {name:?} {}", meta.len())
        } else if kind.is_fifo() {
            format!("p {mode:o} {name:?}")
        } else {
            format!("o {mode:o} {name:?}")
        });
        if kind.is_dir() {
            collect(root, &path, lines);
        }
    }
}

/// The descendants of `pid`, deepest last.
pub fn children_of(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in list.split_whitespace().filter_map(|word| word.parse().ok()) {
                all.push(child);
                open.push(child);
            }
        }
    }
    all
}

/// Kills one process that the test (or its daemon) started.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// True when the process exists and is no zombie.
pub fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
    })
}

/// Runs a test that needs its own process, through a command such as `unshare`.
#[expect(clippy::disallowed_methods, reason = "the test runs itself")]
pub fn run_alone(test: &str, through: &[&str]) {
    let output = std::process::Command::new(through[0])
        .args(&through[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let text = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{text}");
}

/// Incompressible bytes without equal blocks; `seed` must not be 0.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.take(bytes / 8).flat_map(u64::to_le_bytes).collect()
}
