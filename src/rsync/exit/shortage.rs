//! Resources that this machine may lack for a run, and what to do about each.
//! Knows the kernel's numbers and rsync's words; decides nothing.

use std::io;

use rustix::io::Errno;

use crate::failure::Failure;

/// Something that this machine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    what: &'static str,
    advice: &'static str,
}

impl Lack {
    /// The failure that it caused.
    pub fn failure(self, undone: &str) -> Failure {
        Failure::shortage(format!("{undone}: {}", self.what)).advising(self.advice)
    }
}

const FILES: Lack = Lack {
    what: "too many open files",
    advice: "raise their limit (LimitNOFILE= of the service, ulimit -n)",
};
const PROCESSES: Lack = Lack {
    what: "no more processes may be started",
    advice: "raise their limit (TasksMax= and LimitNPROC= of the service, ulimit -u)",
};
const MEMORY: Lack = Lack {
    what: "out of memory",
    advice: "raise the limit (MemoryMax= of the service, ulimit -v) or give the machine more",
};

/// What this machine lacks when the kernel returns `error`; `None` for other errors.
pub fn lacking(error: &io::Error) -> Option<Lack> {
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(FILES),
        Errno::AGAIN => Some(PROCESSES),
        Errno::NOMEM => Some(MEMORY),
        _ => None,
    }
}

/// What our own rsync lacked, by its exit code and message; `None` for other errors and for what the remote lacked.
pub(super) fn lacked(text: &str, code: i32) -> Option<Lack> {
    let here = |line: &&str| !line.contains("[Receiver") && !line.contains("[receiver");
    let here = |words: &str| text.lines().filter(here).any(|line| line.contains(words));
    match code {
        14 if here("fork") && here("(11)") => Some(PROCESSES),
        22 if here("out of memory") => Some(MEMORY),
        127 if here("rsync: error while loading shared libraries") => Some(MEMORY),
        _ if here("(24)") && here("socket") => Some(FILES),
        _ => None,
    }
}
