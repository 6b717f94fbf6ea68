//! What a run that changes nothing says it would send or delete. Pure.
//! The run itself is planned in `plan.rs`.

use std::collections::HashSet;

use crate::path::RelPath;

/// The names that a preview says would be deleted; true stands for a directory.
pub fn deleted_names(output: &[u8]) -> Vec<(RelPath, bool)> {
    let lines = output.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"del. "));
    let name = |line: &[u8]| {
        let name = unescaped(line);
        let directory = name.strip_suffix(b"/");
        Some((RelPath::new(directory.unwrap_or(&name))?, directory.is_some()))
    };
    lines.filter_map(name).collect()
}

/// What the remote lacks, and what it has too much, of the paths that it was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// These would be sent, or set right in some other way.
    pub lacking: HashSet<RelPath>,
    /// These would be deleted.
    pub extraneous: HashSet<RelPath>,
}

/// What stands between the operation and the name: `>f.st......` and a blank.
const CHANGES: usize = 12;

impl Answer {
    /// Reads what a run says that changes nothing.
    pub fn read(output: &[u8]) -> Self {
        let names = |operation: &[u8]| {
            let lines = output.split(|&b| b == b'\n');
            let lines = lines.filter_map(|line| line.strip_prefix(operation)?.get(CHANGES..));
            let names = lines.map(unescaped);
            names.filter_map(|n| RelPath::new(n.strip_suffix(b"/").unwrap_or(&n))).collect()
        };
        Self { lacking: names(b"send "), extraneous: names(b"del. ") }
    }
}

/// rsync writes bytes that are not printable as `\#ooo`, in octal, and a backslash so where it would look like that.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'#', digits @ ..] => {
                let digits = digits.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
                digits.and_then(|digits| u8::from_str_radix(digits, 8).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[5..] } else { behind };
    }
    bytes
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
            b"sending list\nsend .d..t...... ./\nsend .f...p..... mode\nsend >f+++++++++ a\\#012\n\
                       send cd+++++++++ d/\ndel. *deleting   gone\n";
        let set = |names: &[&[u8]]| names.iter().filter_map(|n| RelPath::new(n)).collect();
        let expected =
            Answer { lacking: set(&[b".", b"mode", b"a\n", b"d"]), extraneous: set(&[b"gone"]) };
        assert_eq!(Answer::read(output), expected);
    }
}
