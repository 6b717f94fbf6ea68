//! The kernel's counters of a process and its descendants: processor time, memory, wake-ups.
//! Reads /proc only.

use std::fs;
use std::time::Duration;

use crate::support::children_of;

/// /proc shows processor time in hundredths of a second, whatever the kernel's tick is.
const TICK_MS: u64 = 10;

/// The counters of a process tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Resident memory of the process itself, in kB.
    pub rss_kb: u64,
    /// Resident memory of the process and its descendants, in kB.
    pub rss_all_kb: u64,
    /// Threads of the process.
    pub threads: u64,
    /// Open files of the process.
    pub open_files: u64,
    /// How many descendants it has.
    pub children: u64,
}

/// Processor time of a process, of its live descendants and of those it has waited for.
pub fn cpu(pid: u32) -> Duration {
    let all = [pid].into_iter().chain(children_of(pid));
    Duration::from_millis(all.map(|pid| ticks(pid, 0..4)).sum::<u64>() * TICK_MS)
}

/// Processor time of the children that this program has waited for.
pub fn cpu_of_waited() -> Duration {
    Duration::from_millis(ticks(std::process::id(), 2..4) * TICK_MS)
}

/// utime, stime, cutime and cstime are fields 14 to 17; the name in field 2 may hold blanks and parentheses.
fn ticks(pid: u32, which: std::ops::Range<usize>) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let times = rest.split_whitespace().skip(11).take(4).map(|word| word.parse().unwrap_or(0));
    times.skip(which.start).take(which.len()).sum()
}

/// Memory, threads and files now.
pub fn count(pid: u32) -> Counted {
    let children = children_of(pid);
    let rss_kb = field(pid, "VmRSS:");
    Counted {
        rss_kb,
        rss_all_kb: rss_kb + children.iter().map(|child| field(*child, "VmRSS:")).sum::<u64>(),
        threads: field(pid, "Threads:"),
        open_files: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64),
        children: children.len() as u64,
    }
}

/// How often the threads of a process and its descendants were scheduled so far.
pub fn wake_ups(pid: u32) -> u64 {
    [pid].into_iter().chain(children_of(pid)).map(wake_ups_of).sum()
}

fn wake_ups_of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default())
        .map(|status| value(&status, "voluntary_ctxt_switches:"))
        .sum()
}

fn field(pid: u32, name: &str) -> u64 {
    value(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), name)
}

fn value(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
