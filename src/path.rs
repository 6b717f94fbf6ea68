//! Checked byte paths below a watch root: what the pending set, the journal and rsync's lists hold.
//! Does not touch the disk, and knows nothing of encodings: names are bytes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::ground::printable::write_char;

/// A path relative to a watch root, `a/b/c`; the empty path is the root itself.
///
/// Invariant: no empty component, no `.` or `..`, no leading or trailing slash, no NUL.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The watch root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks `bytes`; `None` if they are not a canonical relative path.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::root());
        }
        bytes.split(|&b| b == b'/').all(is_name).then(|| Self(bytes.into()))
    }

    /// True for the watch root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's bytes, without leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the top down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The path one level up; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// The path of `name` in this directory; `None` if `name` is not a single component.
    pub fn join(&self, name: &[u8]) -> Option<RelPath> {
        if !is_name(name) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Some(Self(bytes.into()))
    }

    /// True when this path is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &RelPath) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(ancestor.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// A key for file systems that ignore case: equal for paths that are the same there.
    pub fn folded(&self) -> Vec<u8> {
        let mut folded = Vec::new();
        fold(&self.0, &mut folded);
        folded
    }

    /// The absolute path below `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(OsStr::from_bytes(&self.0)) }
    }
}

/// Replaces the content of `folded` by the name in lower case.
pub fn fold(name: &[u8], folded: &mut Vec<u8>) {
    folded.clear();
    if name.is_ascii() {
        folded.extend_from_slice(name);
        folded.make_ascii_lowercase();
    } else {
        folded.extend_from_slice(String::from_utf8_lossy(name).to_lowercase().as_bytes());
    }
}

/// The items of `sorted` that are at or below `top`; `sorted` has to begin at `top`. Paths below `top` follow it, mixed with
/// others that have the same first bytes.
pub fn within<'a, T: 'a>(
    sorted: impl Iterator<Item = T> + 'a,
    top: &'a RelPath,
    path: impl Fn(&T) -> &RelPath + Copy + 'a,
) -> impl Iterator<Item = T> + 'a {
    sorted
        .take_while(move |item| path(item).as_bytes().starts_with(top.as_bytes()))
        .filter(move |item| path(item).is_within(top))
}

/// True for a valid path component.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// For logs: bytes that are not printable UTF-8 are escaped, so that a name cannot forge a log line.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("./");
        }
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                write_char(f, c)?;
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_canonical_paths_are_accepted() {
        for bad in ["/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "a\0b"] {
            assert_eq!(RelPath::new(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(path("").is_root());
        assert_eq!(path("a/b/c").components().count(), 3);
    }

    #[test]
    fn parents_lead_to_the_root() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
    }

    #[test]
    fn within_means_whole_components() {
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert!(path("ab").is_within(&RelPath::root()));
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let path = RelPath::root().join(b"x\nERROR \xff").unwrap();
        assert_eq!(path.to_string(), "x\\nERROR \\xff");
        let path = RelPath::root().join("gpj.\u{202e}exe\x1b[2K".as_bytes()).unwrap();
        assert_eq!(path.to_string(), "gpj.\\u{202e}exe\\u{1b}[2K");
    }
}
