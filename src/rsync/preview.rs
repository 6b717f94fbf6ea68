//! Reads the output of a dry run: what rsync would send or delete.
//! Pure; `plan.rs` plans the run.

use std::collections::HashSet;

use crate::ground::octal::unescape;
use crate::path::RelPath;
use crate::rsync::RSYNC_ESCAPE;

/// The names that would be deleted according to a preview; true means a directory.
pub fn deleted_names(output: &[u8]) -> Vec<(RelPath, bool)> {
    let lines = output.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"del. "));
    let name = |line: &[u8]| {
        let name = unescape(line, RSYNC_ESCAPE);
        let directory = name.strip_suffix(b"/");
        Some((RelPath::new(directory.unwrap_or(&name))?, directory.is_some()))
    };
    lines.filter_map(name).collect()
}

/// Which of the requested paths the remote has. The default is an empty answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PreviewAnswer {
    /// The remote has exactly these.
    pub same: HashSet<RelPath>,
    /// These would be deleted.
    pub extraneous: HashSet<RelPath>,
    /// The output was understood: paths that it does not name would not be deleted.
    pub is_readable: bool,
}

/// The length of the part before the name: `>f.st......` and a blank.
const CHANGES: usize = 12;

/// The position of the changes, after the first two letters. This part is blank when nothing would be changed.
const DIFFERENCES: std::ops::Range<usize> = 2..11;

impl PreviewAnswer {
    /// Parses the output of a dry run. A missing path proves nothing: rsync may omit it for many reasons.
    pub fn read(output: &[u8]) -> Self {
        let mut answer = Self::default();
        for line in output.split(|&b| b == b'\n') {
            let (is_sent, said) = match (line.strip_prefix(b"send "), line.strip_prefix(b"del. ")) {
                (Some(said), _) => (true, said),
                (_, Some(said)) => (false, said),
                _ => continue,
            };
            let (Some(differences), Some(name)) = (said.get(DIFFERENCES), said.get(CHANGES..))
            else {
                continue;
            };
            answer.is_readable = true;
            let name = unescape(name, RSYNC_ESCAPE);
            let Some(path) = RelPath::new(name.strip_suffix(b"/").unwrap_or(&name)) else {
                continue;
            };
            if !is_sent {
                answer.extraneous.insert(path);
            } else if differences.iter().all(|&b| b == b' ') {
                answer.same.insert(path);
            }
        }
        answer
    }

    /// True unless the remote is known not to have what is to be deleted.
    pub fn may_have(&self, path: &RelPath) -> bool {
        !self.is_readable || self.extraneous.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_preview_are_read_byte_by_byte() {
        let output = b"sending list\ndel. a/\\#377x\ndel. d/\nsend del. y\ndel. b\\#134#012\\\n";
        let named = |text: &[u8], dir| (RelPath::new(text).unwrap(), dir);
        let expected = [named(b"a/\xffx", false), named(b"d", true), named(b"b\\#012\\", false)];
        assert_eq!(deleted_names(output), expected);
    }

    #[test]
    fn an_answer_names_what_would_be_changed_and_what_deleted() {
        let output =
            b"sending list\nsend .d          ./\nsend .f...p..... mode\nsend >f+++++++++ new\n\
                       send .f          a\\#012\nsend .d          d/\ndel. *deleting   gone\n";
        let set = |names: &[&[u8]]| names.iter().filter_map(|n| RelPath::new(n)).collect();
        let expected = PreviewAnswer {
            same: set(&[b".", b"a\n", b"d"]),
            extraneous: set(&[b"gone"]),
            is_readable: true,
        };
        assert_eq!(PreviewAnswer::read(output), expected);
    }

    #[test]
    fn an_answer_that_says_nothing_proves_nothing() {
        for output in [b"".as_slice(), b"sending incremental file list\n", b"send a\ndel. b\n"] {
            let answer = PreviewAnswer::read(output);
            assert_eq!(answer, PreviewAnswer::default());
            assert!(answer.may_have(&RelPath::new(b"gone").unwrap_or_default()));
        }
    }
}
