//! Ends rsync processes that outlived a killed sersync2: they would still deliver old data.
//! Identifies them by the state directory in their environment; only the holder of its lock may end them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::rsync::run::OWNER;

/// How long to wait for killed processes. They end at once, unless they wait for a disk or a network file system.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends every rsync that an earlier holder of the state directory `state` left running; returns how many there were.
pub fn end_orphans(state: &Path) -> usize {
    let owner = [OWNER.as_bytes(), b"=", state.as_os_str().as_bytes()].concat();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ended: Vec<OwnedFd> = pids.filter_map(|pid| end(pid, &owner)).collect();
    for process in &ended {
        let patience = Timespec::try_from(PATIENCE).ok();
        _ = poll(&mut [PollFd::new(process, PollFlags::IN)], patience.as_ref());
    }
    ended.len()
}

/// Ends the process if it is an rsync of this owner.
fn end(pid: i32, owner: &[u8]) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // If the signal is delivered, the process of the pidfd is still alive. So `pid` was not reused during these checks.
    let is_rsync = fs::read(format!("/proc/{pid}/comm")).ok()? == b"rsync\n";
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let is_ours = is_rsync && environment.split(|&byte| byte == 0).any(|word| word == owner);
    (is_ours && pidfd_send_signal(&process, Signal::KILL).is_ok()).then_some(process)
}
