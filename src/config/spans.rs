//! Where in the file the values stand that `preflight` checks on the machine.

use std::path::PathBuf;

use crate::secret::Secret;
use crate::xml::schema::Field;
use crate::xml::text::Span;

/// The positions in the file of everything that `preflight` checks on the machine.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    /// The watch path of each mirror.
    pub watches: Vec<Span>,
    /// The `<remote path>` of each remote that is a directory of this machine, in the order of the file.
    pub locals: Vec<Span>,
    /// `<auth passwordfile>` when it is used.
    pub password_file: Option<Span>,
    /// `<ssh start>` when it is on.
    pub ssh: Option<Span>,
    /// `<commonParams params>`.
    pub params: Span,
    /// The expressions of `<filter>`, in the order of [`FilterRules::excludes`](super::FilterRules::excludes).
    pub excludes: Vec<Span>,
    /// `<failLog path>`.
    pub fail_log: Span,
    /// What alerts, heartbeat, status file, event log and lists of remotes use.
    pub needs: Vec<(Field, ReportNeed)>,
}

/// What an attribute needs on this machine. The mirror starts without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportNeed {
    /// A file that can be written there.
    File(PathBuf),
    /// A program, by its name or path.
    Program(String),
    /// The system's sendmail.
    Sendmail,
    /// A secret that can be read.
    Secret(Secret),
}
