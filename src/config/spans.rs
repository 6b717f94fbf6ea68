//! Where in the file the values stand that `preflight` checks on the machine.

use crate::xml::text::Span;

/// The positions in the file of everything that `preflight` checks on the machine.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    /// The watch path of each mirror.
    pub watches: Vec<Span>,
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
}
