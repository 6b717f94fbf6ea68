//! How a copy differs from the tree: the run that compares them, and its output read line by line.
//! The run changes nothing unless it is asked to repair.

use super::excludes::Excludes;
use super::{Endpoint, Presence, RunSpec};
use crate::change::Scope;
use crate::ground::octal::unescape;
use crate::path::RelPath;
use crate::rsync::RSYNC_ESCAPE;

/// How a path and its copy differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// The remote does not have it.
    Missing,
    /// Only the remote has it.
    Extraneous,
    /// Its size or its bytes.
    Content,
    /// The time of its last change.
    Time,
    /// Its permissions, or an ACL or extended attribute.
    Mode,
    /// Its user or group.
    Owner,
}

impl Aspect {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extraneous => "extraneous",
            Self::Content => "content",
            Self::Time => "time",
            Self::Mode => "mode",
            Self::Owner => "owner",
        }
    }
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Below the watch path.
    pub path: RelPath,
    /// True for a directory.
    pub is_directory: bool,
    /// How they differ.
    pub aspects: Vec<Aspect>,
}

/// What a verification does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// How files are compared.
    pub comparison: Comparison,
    /// Whether anything is changed.
    pub effect: Effect,
}

/// How files are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// By size and time.
    Quick,
    /// By their bytes, all of which are read on both sides.
    Checksum,
}

/// Whether a verification changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only reports.
    Nothing,
    /// What differs is made equal.
    Repair,
}

/// Marks the lines with a difference; rsync may print other lines too.
const MARK: &str = "diff ";

impl Endpoint {
    /// The run that compares `path` and all below it with its copy.
    pub fn plan_verification(
        &self,
        path: &RelPath,
        presence: Presence,
        excludes: &Excludes,
        verification: Verification,
    ) -> RunSpec {
        let mut spec = self.comparing().plan_by_hand(path, presence, excludes, Scope::Tree);
        let format = format!("--out-format={MARK}%i %n");
        let mut words = vec![format.as_str()];
        words.extend((verification.effect == Effect::Nothing).then_some("--dry-run"));
        words.extend((verification.comparison == Comparison::Checksum).then_some("--checksum"));
        spec.insert(&words);
        spec
    }
}

/// Reads the output of such a run.
pub fn read_differences(output: &[u8]) -> Vec<Difference> {
    output.split(|byte| *byte == b'\n').filter_map(read_difference).collect()
}

/// `>f.st...... name`, or `*deleting   name`.
fn read_difference(line: &[u8]) -> Option<Difference> {
    let line = line.strip_prefix(MARK.as_bytes())?;
    let (changes, name) = (line.get(..11)?, unescape(line.get(12..)?, RSYNC_ESCAPE));
    let is_directory = name.ends_with(b"/") || changes.get(1) == Some(&b'd');
    let name = name.strip_suffix(b"/").unwrap_or(&name);
    let path = match name.strip_prefix(b"./").unwrap_or(name) {
        b"." | b"" => RelPath::root(),
        name => RelPath::new(name)?,
    };
    let aspects = aspects_of(changes);
    (!aspects.is_empty()).then_some(Difference { path, is_directory, aspects })
}

fn aspects_of(changes: &[u8]) -> Vec<Aspect> {
    if changes.starts_with(b"*deleting") {
        return vec![Aspect::Extraneous];
    }
    let letters = changes.get(2..).unwrap_or_default();
    if letters.contains(&b'+') {
        return vec![Aspect::Missing];
    }
    let mut aspects: Vec<Aspect> = letters
        .iter()
        .filter_map(|letter| match letter {
            b'c' | b's' => Some(Aspect::Content),
            b't' | b'T' => Some(Aspect::Time),
            b'p' | b'a' | b'x' => Some(Aspect::Mode),
            b'o' | b'g' => Some(Aspect::Owner),
            _ => None,
        })
        .collect();
    aspects.sort();
    aspects.dedup();
    aspects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let found = read_differences(line.as_bytes());
        let show = |it: &Difference| {
            let aspects: Vec<&str> = it.aspects.iter().map(|aspect| aspect.word()).collect();
            format!("{} {}", it.path, aspects.join(","))
        };
        found.iter().map(show).collect::<Vec<_>>().join(";")
    }

    #[test]
    fn each_letter_of_rsyncs_answer_has_its_word() {
        for (line, expected) in [
            ("diff >f+++++++++ a/b", "a/b missing"),
            ("diff <f.st...... a", "a content,time"),
            ("diff >fc........ a", "a content"),
            ("diff .f...p..... a", "a mode"),
            ("diff .f....og... a", "a owner"),
            ("diff .d..t...... d/", "d time"),
            ("diff .d..t...... ./", "./ time"),
            ("diff cLc.T...... l", "l content,time"),
            ("diff *deleting   x/y", "x/y extraneous"),
            ("diff .f          a", ""),
            ("sending incremental file list", ""),
            ("diff short", ""),
            ("diff >f+++++++++ ../out", ""),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
        assert_eq!(read("diff >f+++++++++ a\\#012b"), "a\\nb missing");
    }
}
