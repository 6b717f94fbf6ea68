//! The operator's own filter rules, evaluated as rsync evaluates them (rsync 3.5.0, exclude.c).
//! Does not know rules in each directory: only an rsync that recurses reads those.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::path::RelPath;

/// The rules of `<commonParams>`, in order; the first that matches decides.
///
/// rsync applies rules to a listed name only, not to the directories above it. So a list has to omit names below an
/// excluded directory. Otherwise a batch would send what a full sync does not send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorRules {
    rules: Vec<Rule>,
    /// The names of the files that hold rules for their own directory.
    rule_files: Vec<Vec<u8>>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Without a slash at the end.
    pattern: Vec<u8>,
    includes: bool,
    /// It matches directories only.
    directories: bool,
    /// It matches what the pattern does not match.
    negated: bool,
    /// The pattern is matched against the absolute path.
    absolute: bool,
    /// It decides what is sent; a rule for the receiver alone does not.
    for_sender: bool,
}

/// How rules are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// A pattern, which may begin with `+ ` or `- `.
    Pattern { includes: bool },
    /// `--filter`: a letter or a word, modifiers, a pattern.
    Filter,
}

impl OperatorRules {
    /// Parses the filter options, each a name without dashes and a value. `read` returns the content of a file.
    pub fn parse<'a>(
        options: impl IntoIterator<Item = &'a (String, OsString)>,
        mut read: impl FnMut(&Path) -> Option<Vec<u8>>,
    ) -> Self {
        let mut rules = Self::default();
        for (name, value) in options {
            let syntax = match name.as_str() {
                "exclude" | "exclude-from" => Syntax::Pattern { includes: false },
                "include" | "include-from" => Syntax::Pattern { includes: true },
                _ => Syntax::Filter,
            };
            if name.ends_with("-from") {
                rules.add_file(value, syntax, &mut read);
            } else {
                rules.add(value.as_bytes(), syntax, &mut read);
            }
        }
        rules
    }

    /// Only the names of rule files; all other rules are dropped.
    #[must_use]
    pub fn only_rule_files(self) -> Self {
        Self { rules: Vec::new(), ..self }
    }

    /// True for a file that holds rules for its directory.
    pub fn is_rule_file(&self, path: &RelPath) -> bool {
        path.name().is_some_and(|name| self.rule_files.iter().any(|known| known == name))
    }

    /// True when there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The deepest part of `path` that rsync would send: `path` itself, or the parent of the topmost excluded directory.
    /// `root` is the watch root.
    pub fn visible(&self, root: &Path, path: &RelPath) -> RelPath {
        let mut above = Vec::new();
        let mut next = path.parent();
        while let Some(directory) = next.filter(|directory| !directory.is_root()) {
            next = directory.parent();
            above.push(directory);
        }
        let hidden = above.iter().rev().find(|directory| self.hides(root, directory, true));
        hidden.map_or_else(|| path.clone(), |hidden| hidden.parent().unwrap_or_default())
    }

    /// True when rsync does not send `path`, and does not enter it.
    pub fn hides(&self, root: &Path, path: &RelPath, is_dir: bool) -> bool {
        let sender = self.rules.iter().filter(|rule| rule.for_sender);
        let decides =
            |rule: &&Rule| rule.matches(root.as_os_str().as_bytes(), path.as_bytes(), is_dir);
        sender.into_iter().find(decides).is_some_and(|rule| !rule.includes)
    }

    fn add_file(
        &mut self,
        file: &OsStr,
        syntax: Syntax,
        read: &mut impl FnMut(&Path) -> Option<Vec<u8>>,
    ) {
        // If a file cannot be read, each run fails with its own message.
        let text = read(Path::new(file)).unwrap_or_default();
        for line in text.split(|&b| b == b'\n' || b == b'\r') {
            if !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b";") {
                self.add(line, syntax, read);
            }
        }
    }

    fn add(
        &mut self,
        text: &[u8],
        syntax: Syntax,
        read: &mut impl FnMut(&Path) -> Option<Vec<u8>>,
    ) {
        match syntax {
            Syntax::Pattern { includes } => match text {
                b"!" => self.rules.clear(),
                [b'-', b' ', pattern @ ..] => self.push(pattern, Rule::of(false)),
                [b'+', b' ', pattern @ ..] => self.push(pattern, Rule::of(true)),
                pattern => self.push(pattern, Rule::of(includes)),
            },
            Syntax::Filter => self.add_filter(text, read),
        }
    }

    fn add_filter(&mut self, text: &[u8], read: &mut impl FnMut(&Path) -> Option<Vec<u8>>) {
        let (kind, rest) = kind_of(text);
        let end = rest.iter().position(|&b| b == b' ' || b == b'_').unwrap_or(rest.len());
        let modifiers = rest[..end].strip_prefix(b",").unwrap_or(&rest[..end]);
        let pattern = rest.get(end + 1..).unwrap_or_default();
        let has = |modifier: u8| modifiers.contains(&modifier);
        let mut rule = Rule::of(matches!(kind, b'+' | b'S' | b'R'));
        rule.negated = has(b'!');
        rule.absolute = has(b'/');
        rule.for_sender = match kind {
            b'R' | b'P' => false,
            b'S' | b'H' => true,
            _ => has(b's') || !has(b'r'),
        };
        match kind {
            b'!' => self.rules.clear(),
            b'.' => {
                let plain = has(b'-') || has(b'+');
                let syntax = Syntax::Pattern { includes: has(b'+') };
                let syntax = if plain { syntax } else { Syntax::Filter };
                self.add_file(OsStr::from_bytes(pattern), syntax, read);
            }
            b'+' | b'-' | b'S' | b'H' | b'R' | b'P' => self.push(pattern, rule),
            b':' => {
                let name = pattern.strip_prefix(b"/").unwrap_or(pattern);
                let is_cvs = has(b'C') && name.is_empty();
                self.rule_files.push(if is_cvs { b".cvsignore".to_vec() } else { name.to_vec() });
            }
            _ => {}
        }
    }

    fn push(&mut self, pattern: &[u8], rule: Rule) {
        let bare = pattern.strip_suffix(b"/").filter(|bare| !bare.is_empty());
        let directories = bare.is_some();
        let pattern = bare.unwrap_or(pattern).to_vec();
        if !pattern.is_empty() {
            self.rules.push(Rule { pattern, directories, ..rule });
        }
    }
}

/// The letter of a `--filter` rule (it may be written as a word) and the rest of the rule.
fn kind_of(text: &[u8]) -> (u8, &[u8]) {
    const WORDS: [(&[u8], u8); 9] = [
        (b"clear", b'!'),
        (b"dir-merge", b':'),
        (b"exclude", b'-'),
        (b"hide", b'H'),
        (b"include", b'+'),
        (b"merge", b'.'),
        (b"protect", b'P'),
        (b"risk", b'R'),
        (b"show", b'S'),
    ];
    let ends = |rest: &&[u8]| rest.first().is_none_or(|b| b" _,".contains(b));
    let word = WORDS.iter().find_map(|(word, letter)| {
        text.strip_prefix(*word).filter(ends).map(|rest| (*letter, rest))
    });
    word.unwrap_or_else(|| text.split_first().map_or((b'?', text), |(kind, rest)| (*kind, rest)))
}

impl Rule {
    fn of(includes: bool) -> Self {
        Self {
            pattern: Vec::new(),
            includes,
            directories: false,
            negated: false,
            absolute: false,
            for_sender: true,
        }
    }

    fn matches(&self, root: &[u8], path: &[u8], is_dir: bool) -> bool {
        if self.directories && !is_dir {
            return self.negated;
        }
        self.fits(root, path, is_dir) != self.negated
    }

    fn fits(&self, root: &[u8], path: &[u8], is_dir: bool) -> bool {
        let pattern = self.pattern.as_slice();
        let is_wild = pattern.iter().any(|b| b"*?[".contains(b));
        let has_stars = is_wild && pattern.windows(2).any(|pair| pair == b"**");
        let slashes = pattern.iter().filter(|&&b| b == b'/').count();
        let mut text = Vec::new();
        if slashes == 0 && !has_stars {
            text.extend_from_slice(path.rsplit(|&b| b == b'/').next().unwrap_or(path));
        } else if self.absolute {
            let root = root.strip_prefix(b"/").unwrap_or(root);
            text.extend_from_slice(&[root, b"/", path].concat());
        } else if has_stars && pattern.starts_with(b"**") {
            text.extend_from_slice(&[b"/", path].concat());
        } else {
            text.extend_from_slice(path);
        }
        // `dir/***` matches the directory, too.
        if is_dir && has_stars && pattern.ends_with(b"***") {
            text.push(b'/');
        }
        let equal = |pattern: &[u8], text: &[u8]| match is_wild {
            true => is_like(pattern, text),
            false => pattern == text,
        };
        match pattern.strip_prefix(b"/") {
            Some(anchored) => equal(anchored, &text),
            None if has_stars && !pattern.starts_with(b"**") => {
                let after_slash = (0..text.len()).filter(|&at| at == 0 || text[at - 1] == b'/');
                after_slash.into_iter().any(|at| equal(pattern, &text[at..]))
            }
            None if slashes > 0 && !has_stars => {
                last_parts(&text, slashes + 1).is_some_and(|text| equal(pattern, text))
            }
            None => equal(pattern, &text),
        }
    }
}

/// The last `count` parts of a path; `None` when it has fewer.
fn last_parts(path: &[u8], count: usize) -> Option<&[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, b)| **b == b'/');
    match slashes.map(|(at, _)| at).nth(count - 1) {
        Some(at) => Some(&path[at + 1..]),
        None => (path.iter().filter(|&&b| b == b'/').count() + 1 == count).then_some(path),
    }
}

/// rsync's wildmatch: `*` and `?` stop at a slash, `**` does not.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    match first {
        b'*' => {
            let crosses = rest.first() == Some(&b'*');
            let stars = rest.iter().take_while(|&&b| b == b'*').count();
            let rest = &rest[stars..];
            let reach = text.iter().position(|&b| b == b'/' && !crosses).unwrap_or(text.len());
            (0..=reach).any(|at| is_like(rest, &text[at..]))
        }
        b'?' => text.first().is_some_and(|&b| b != b'/') && is_like(rest, &text[1..]),
        b'[' => {
            let Some((&byte, behind)) = text.split_first() else { return false };
            let matched = in_class(rest, byte).filter(|_| byte != b'/');
            matched.is_some_and(|rest| is_like(rest, behind))
        }
        b'\\' if !rest.is_empty() => {
            text.first() == rest.first() && is_like(&rest[1..], &text[1..])
        }
        byte => text.first() == Some(&byte) && is_like(rest, &text[1..]),
    }
}

/// The rest after a class `[…]` that contains `byte`; `None` if it does not, or has no end.
fn in_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let negated = matches!(class.first(), Some(b'!' | b'^'));
    let mut rest = if negated { &class[1..] } else { class };
    let (mut found, mut before, mut is_first) = (false, None, true);
    loop {
        let (&b, behind) = rest.split_first()?;
        rest = behind;
        match b {
            b']' if !is_first => return (found != negated).then_some(rest),
            b'-' if before.is_some() && rest.first().is_some_and(|&end| end != b']') => {
                let (end, behind) = literal(rest)?;
                found |= before.is_some_and(|start| (start..=end).contains(&byte));
                (rest, before) = (behind, None);
            }
            b'[' if rest.first() == Some(&b':') => {
                let end = rest.windows(2).position(|pair| pair == b":]")?;
                found |= is_of_class(&rest[1..end], byte);
                (rest, before) = (&rest[end + 2..], None);
            }
            b'\\' => {
                let (&escaped, behind) = rest.split_first()?;
                found |= escaped == byte;
                (rest, before) = (behind, Some(escaped));
            }
            b => {
                found |= b == byte;
                before = Some(b);
            }
        }
        is_first = false;
    }
}

fn literal(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', b, rest @ ..] | [b, rest @ ..] => Some((*b, rest)),
        [] => None,
    }
}

fn is_of_class(class: &[u8], byte: u8) -> bool {
    match class {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => byte == b' ' || byte == b'\t',
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[&str]) -> OperatorRules {
        let option = |word: &&str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.into())
        };
        let options: Vec<_> = words.iter().map(option).collect();
        let file = |_: &Path| Some(b"# a comment\n- cache/\n+ kept\nx.o\n".to_vec());
        OperatorRules::parse(&options, file)
    }

    fn visible(words: &[&str], path: &str) -> String {
        let path = RelPath::new(path.as_bytes()).unwrap();
        let seen = rules(words).visible(Path::new("/srv/www"), &path);
        String::from_utf8(seen.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_stands_below_an_excluded_directory_is_not_visible() {
        for (rule, path, expected) in [
            ("exclude=cache/", "a/cache/x", "a"),
            ("exclude=cache", "cache/d/x", ""),
            ("exclude=/cache", "cache/x", ""),
            ("exclude=/cache", "a/cache/x", "a/cache/x"),
            ("filter=- cache/", "a/b/cache/x/y", "a/b"),
            ("filter=exclude,s cache/", "cache/x", ""),
            ("filter=-,r cache/", "cache/x", "cache/x"),
            ("filter=hide cache/", "cache/x", ""),
            ("filter=protect cache/", "cache/x", "cache/x"),
            ("exclude-from=list", "cache/x", ""),
            ("filter=merge,- list", "cache/x", ""),
            ("exclude=a/*", "a/b/c", "a"),
            ("exclude=a/*/c", "a/b/c/d", "a/b"),
            ("exclude=a/**", "z/a/b/c", "z/a"),
            ("exclude=/a/***", "a/b/c", ""),
            ("exclude=**/cache", "d/cache/x", "d"),
            ("exclude=*.o", "x.o", "x.o"),
            ("filter=-! */", "a/b", "a/b"),
        ] {
            assert_eq!(visible(&[rule], path), expected, "{rule} {path}");
        }
        let both = ["include=/keep/cache/", "exclude=cache/"];
        assert_eq!(visible(&both, "keep/cache/x"), "keep/cache/x");
        assert_eq!(visible(&both, "d/cache/x"), "d");
    }

    #[test]
    fn files_that_hold_rules_for_their_directory_are_known_by_name() {
        let words = ["filter=: /.rsync-filter", "filter=dir-merge,- .rules", "filter=:C"];
        let rules = rules(&words).only_rule_files();
        for (path, expected) in [
            (".rsync-filter", true),
            ("a/.rules", true),
            ("a/b/.cvsignore", true),
            ("a/rules", false),
        ] {
            assert_eq!(
                rules.is_rule_file(&RelPath::new(path.as_bytes()).unwrap()),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn a_clearing_rule_forgets_those_before_it() {
        assert_eq!(visible(&["exclude=cache", "exclude=!"], "cache/x"), "cache/x");
        assert_eq!(visible(&["exclude=cache", "filter=clear"], "cache/x"), "cache/x");
    }

    #[test]
    fn wildcards_match_as_in_rsync() {
        for (pattern, text, expected) in [
            ("*.c", "x.c", true),
            ("*.c", "d/x.c", false),
            ("**.c", "d/x.c", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[[:digit:]]", "7", true),
            (r"\*", "*", true),
            (r"[\]]", "]", true),
            ("[a", "a", false),
            ("a*b*c", "axxbyyc", true),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
