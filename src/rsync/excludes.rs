//! What is neither sent nor deleted, as rsync's rules. Pure.
//! Does not know where the patterns come from.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Patterns in rsync's own language, anchored at the watch root where they begin with a slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excludes {
    /// What the operator excludes. On the remote, a directory that contains such a name stays too.
    pub kept: Vec<Vec<u8>>,
    /// Names that are deleted together with their directory.
    pub perishable: Vec<Vec<u8>>,
}

impl Excludes {
    /// These patterns, with the patterns of `more` added.
    #[must_use]
    pub fn with(&self, patterns: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut more = self.clone();
        more.kept.extend(patterns);
        more
    }

    /// True when the patterns mean the same in every directory.
    pub fn hold_anywhere(&self) -> bool {
        let is_name = |pattern: &Vec<u8>| {
            !pattern.strip_suffix(b"/").unwrap_or(pattern).contains(&b'/')
                && !pattern.windows(2).any(|pair| pair == b"**")
        };
        self.kept.iter().chain(&self.perishable).all(is_name)
    }

    /// The rules for standard input, each ended by NUL. They apply even with the operator's `--delete-excluded`.
    pub fn rules(&self) -> Vec<u8> {
        let rule = |modifiers: &[u8], pattern: &[u8]| [modifiers, b" ", pattern, b"\0"].concat();
        let kept = self.kept.iter().flat_map(|pattern| rule(b"-sr", pattern));
        // Where a file takes the place of a directory, rsync asks the rules about the directory's content only.
        let directories = self.kept.iter().filter(|pattern| pattern.ends_with(b"/"));
        let content = directories.flat_map(|pattern| rule(b"-r", &[pattern, &b"**"[..]].concat()));
        kept.chain(content)
            .chain(self.perishable.iter().flat_map(|pattern| rule(b"-srp", pattern)))
            .collect()
    }

    /// The rules as options, for commands that people repeat by hand.
    pub fn words(&self) -> impl Iterator<Item = OsString> {
        let word = |pattern: &Vec<u8>| OsString::from_vec([b"--exclude=", &pattern[..]].concat());
        self.kept.iter().chain(&self.perishable).map(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_anywhere_and_places_do_not() {
        let excludes = |pattern: &str| Excludes::default().with([pattern.as_bytes().to_vec()]);
        for name in ["*.log", "cache/", "[#]*#"] {
            assert!(excludes(name).hold_anywhere(), "{name}");
        }
        for place in ["/info", "a/b", "**x"] {
            assert!(!excludes(place).hold_anywhere(), "{place}");
        }
    }

    #[test]
    fn an_excluded_directory_keeps_its_content_where_a_file_takes_its_place() {
        let excludes = Excludes::default().with([b"/cache/".to_vec(), b"*.log".to_vec()]);
        assert_eq!(excludes.rules(), b"-sr /cache/\0-sr *.log\0-r /cache/**\0");
    }

    #[test]
    fn perishable_names_say_so() {
        let mut excludes = Excludes::default().with([b"*.log".to_vec()]);
        excludes.perishable.push(b"*~".to_vec());
        assert_eq!(excludes.rules(), b"-sr *.log\0-srp *~\0");
        assert_eq!(
            excludes.words().collect::<Vec<_>>(),
            ["--exclude=*.log", "--exclude=*~"].map(OsString::from)
        );
    }
}
