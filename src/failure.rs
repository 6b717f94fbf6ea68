//! Why something could not be delivered: one value from rsync's exit to the operator's message, and a table of the kinds.
//! Knows neither rsync's messages nor remotes.

use std::time::Duration;

use log::Level;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// The remote does not answer.
    Away,
    /// The remote already serves as many clients as it allows.
    Busy,
    /// The remote answers, but accepts nothing until an operator changes something there.
    Denied,
    /// rsync rejects its options.
    Options,
    /// A bug in this program.
    Fault,
    /// This machine lacks processes, memory or open files.
    Shortage,
    /// The watch root is lost or was replaced.
    Source,
    /// Only some paths failed; the rest was delivered.
    Path,
}

/// Something that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// rsync's exit code, or the matching code if rsync did not run.
    pub code: i32,
    /// What exactly, as a clause for the operator.
    pub reason: String,
    /// What the operator should do; `None` if the advice of the kind suffices.
    pub advice: Option<String>,
    /// How the next try is scheduled; `None`: as the kind says.
    pub retry: Option<Retry>,
}

/// What to do when a remote refuses deletions.
pub const DELETIONS_REFUSED_ADVICE: &str = "take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/>";

/// Exit codes of rsync that this program uses itself.
pub mod code {
    /// A file could not be read or written, or the directory of the run could not be made.
    pub const FILE_IO: i32 = 11;
    /// An internal error.
    pub const DIAGNOSTICS: i32 = 13;
    /// A process or a pipe could not be created.
    pub const IPC: i32 = 14;
    /// The daemon refused to start the transfer.
    pub const STARTING: i32 = 5;
    /// Some paths were not delivered.
    pub const PARTIAL: i32 = 23;
    /// rsync was ended by a signal, so there is no exit code.
    pub const UNKNOWN: i32 = -1;
}

/// What a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One remote.
    Remote,
    /// This program, in a job for one remote.
    Program,
    /// This machine, and so all remotes.
    Machine,
    /// A watch root, and so all its remotes.
    Root,
}

/// How the next try is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// About every second, without limit, because a try costs almost nothing (`rsync/knock.rs`).
    Often,
    /// Soon at first, later every minute, because a try is a transfer, or a line in the remote's log.
    Rarely,
    /// Few times even at first, because machines ban who fails to log in again and again (fail2ban).
    Sparingly,
}

impl Retry {
    /// Shortest and longest pause between two tries.
    pub fn pauses(self) -> (Duration, Duration) {
        let longest = match self {
            Self::Often => Duration::from_millis(1200),
            Self::Rarely | Self::Sparingly => Duration::from_secs(60),
        };
        let shortest = match self {
            Self::Often | Self::Rarely => Duration::from_secs(1),
            Self::Sparingly => Duration::from_secs(3),
        };
        (shortest, longest)
    }

    /// The pause between two tries is the length of the outage divided by this, within the limits of [`pauses`](Self::pauses).
    pub fn divisor(self) -> u32 {
        match self {
            Self::Often | Self::Rarely => 32,
            Self::Sparingly => 2,
        }
    }
}

/// Everything that differs between the kinds of failures.
#[derive(Debug)]
pub struct Policy {
    /// What it concerns.
    pub subject: Subject,
    /// When it is retried.
    pub retry: Retry,
    /// How grave it is in the log.
    pub level: Level,
    /// The kind in one word, for machine-readable output.
    pub word: &'static str,
    /// The message. `{who}` is the remote or the root, `{reason}` the reason, `{kept}` how many changes are kept.
    pub said: &'static str,
    /// The message at the end. `{after}` is how many seconds it lasted, `{sent}` how many changes are sent now.
    pub over: &'static str,
    /// What the operator should do, unless the failure has its own advice.
    pub advice: &'static str,
}

const KINDS: [(FailureKind, Policy); 8] = [
    (
        FailureKind::Away,
        Policy {
            subject: Subject::Remote,
            retry: Retry::Often,
            level: Level::Error,
            word: "away",
            said: "remote {who} is down: {reason}; {kept} sent when it is back",
            over: "remote {who} is back after {after} s; {sent}",
            advice: "look whether the machine runs, and whether its rsync daemon or sshd listens",
        },
    ),
    (
        FailureKind::Busy,
        Policy {
            subject: Subject::Remote,
            retry: Retry::Often,
            // It may be busy with clients of its own.
            level: Level::Warn,
            word: "busy",
            said: "remote {who} {reason}; {kept} sent as soon as it has a free connection",
            over: "remote {who} is back after {after} s; {sent}",
            advice: "raise \"max connections\" in its rsyncd.conf",
        },
    ),
    (
        FailureKind::Denied,
        Policy {
            subject: Subject::Remote,
            retry: Retry::Rarely,
            level: Level::Error,
            word: "denied",
            said: "remote {who} {reason}; {kept} sent when that is fixed",
            over: "remote {who} is back after {after} s; {sent}",
            advice: "fix that on the remote",
        },
    ),
    (
        FailureKind::Options,
        Policy {
            subject: Subject::Remote,
            retry: Retry::Rarely,
            level: Level::Error,
            word: "options",
            said: "rsync refuses its options for remote {who}: {reason}; correct <commonParams> or the remote's rsync, the changes are kept",
            over: "remote {who} is back after {after} s; {sent}",
            advice: "correct <commonParams>, or update the remote's rsync",
        },
    ),
    (
        FailureKind::Fault,
        Policy {
            subject: Subject::Program,
            retry: Retry::Rarely,
            level: Level::Error,
            word: "fault",
            said: "a fault in sersync itself, in a job for remote {who}: {reason}; please report it with the `internal error` above \
                   it in the log; {kept} tried again",
            over: "remote {who}: the job in which sersync failed has succeeded; please report the fault all the same",
            advice: "report it with the `internal error` in the log",
        },
    ),
    (
        FailureKind::Shortage,
        Policy {
            subject: Subject::Machine,
            retry: Retry::Often,
            level: Level::Error,
            word: "shortage",
            said: "{reason}; what changes is kept, and sent when rsync can be started",
            over: "rsync can be started again: what waited is on its way",
            advice: "give this machine more memory, processes or open files",
        },
    ),
    (
        FailureKind::Source,
        Policy {
            subject: Subject::Root,
            retry: Retry::Rarely,
            level: Level::Error,
            word: "source",
            said: "ALARM: watch path {who}: {reason}; nothing is sent or deleted until it is as before",
            over: "watch path {who} can be read again: what waited is on its way",
            advice: "look at the watch path",
        },
    ),
    (
        FailureKind::Path,
        Policy {
            subject: Subject::Remote,
            retry: Retry::Rarely,
            level: Level::Error,
            word: "path",
            said: "{who} could not be sent: {reason}",
            over: "",
            advice: "look at the owner, the mode and the attributes of the path and its directory, here and on the remote",
        },
    ),
];

/// The policy of every kind.
#[cfg(test)]
pub fn policies() -> impl Iterator<Item = &'static Policy> {
    KINDS.iter().map(|(_, policy)| policy)
}

impl FailureKind {
    /// How this kind is retried and reported.
    pub fn policy(self) -> &'static Policy {
        &KINDS[self as usize].1
    }

    /// True when the remote is to blame, so that any other path would fail too.
    pub fn is_remotes(self) -> bool {
        matches!(self, Self::Away | Self::Busy | Self::Denied)
    }

    /// True when a run may have been aborted in the middle, and left something unfinished on the remote.
    pub fn may_cut(self) -> bool {
        matches!(self, Self::Away | Self::Denied | Self::Shortage)
    }

    /// Its bit in a set of kinds.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, _)| *kind)
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, code: i32, reason: impl Into<String>) -> Self {
        Self { kind, code, reason: reason.into(), advice: None, retry: None }
    }

    /// The same failure with its own advice.
    #[must_use]
    pub fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// What the operator should do.
    pub fn what_to_do(&self) -> &str {
        self.advice.as_deref().unwrap_or(self.kind.policy().advice)
    }

    /// The same failure, tried again in its own way.
    #[must_use]
    pub fn retried(self, retry: Retry) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// How the next try is scheduled.
    pub fn retry(&self) -> Retry {
        self.retry.unwrap_or(self.kind.policy().retry)
    }

    /// The reason as one clause, with the failure's own advice if it has one.
    pub fn clause(&self) -> String {
        let Self { kind, reason, .. } = self;
        match &self.advice {
            None => reason.clone(),
            Some(advice) if reason.contains(": ") && *kind == FailureKind::Denied => {
                format!("{reason}; {advice}")
            }
            Some(advice) if *kind == FailureKind::Away => format!("{reason} ({advice})"),
            Some(advice) => format!("{reason}: {advice}"),
        }
    }

    /// The reason without file names, so that failures with the same cause are equal.
    pub fn cause(&self) -> &str {
        match self.reason.rsplit_once("failed: ") {
            Some((_, cause)) => cause,
            None => self.reason.split([':', '"']).next().unwrap_or_default().trim_end(),
        }
    }

    /// This machine lacks something that a run needs.
    pub fn shortage(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Shortage, code::IPC, reason)
    }

    /// The watch root is lost or was replaced.
    pub fn source(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Source, 0, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_row_and_every_sentence_says_what_failed_and_what_becomes_of_the_changes()
     {
        for (index, kind) in FailureKind::all().enumerate() {
            let policy = kind.policy();
            assert_eq!((kind as usize, KINDS[index].0), (index, kind));
            assert!(policy.said.contains("{reason}"), "{kind:?}");
            let names_it = policy.said.contains("{who}") || policy.subject == Subject::Machine;
            assert!(names_it && !policy.advice.is_empty(), "{kind:?}");
            let kept = ["{kept}", "kept", "nothing is sent"];
            let is_path = kind == FailureKind::Path;
            assert!(is_path || kept.iter().any(|words| policy.said.contains(words)), "{kind:?}");
            assert!(is_path || !policy.over.is_empty(), "{kind:?}");
        }
    }
}
