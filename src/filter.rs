//! The compiled rules for what is neither sent nor deleted. Pure: they use paths, never the disk.
//! Expressions match bytes. `boost.rs` reads their syntax; `patterns.rs` translates them to rsync patterns.

mod boost;
mod bytes;
mod patterns;
mod search;

use std::sync::atomic::{AtomicBool, Ordering};

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

pub use patterns::Translation;
pub use search::Search;

use crate::path::RelPath;
use crate::xml::text::SourceText;

/// The most steps that one expression with look-around may take for one path.
const BACKTRACKS_MAX: usize = 100_000;

/// `<filter>`: the rules as written; [`Filter`] compiles them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRules {
    /// Perl-style expressions that must match a whole path (docs/COMPAT.md). Empty when `start="false"`.
    pub excludes: Vec<String>,
    /// False: every name beginning with a dot is ignored, as sersync2 did. Default true.
    pub dotfiles: bool,
    /// True: editors' temporary names are mirrored too. Default false.
    pub editor_files: bool,
}

impl Default for FilterRules {
    fn default() -> Self {
        Self { excludes: Vec::new(), dotfiles: true, editor_files: false }
    }
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression `{expression}` is refused: {reason}")]
pub struct ExpressionError {
    /// As written.
    pub expression: String,
    /// A clause: what is wrong.
    pub reason: String,
    /// A clause: what to do.
    pub help: String,
}

/// How to treat a path for which an expression takes too many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// As a match. For exclusions: the path is neither sent nor deleted, so nothing is destroyed.
    Matches,
    /// As no match. For inclusions: nothing is run by mistake.
    MatchesNot,
}

impl Undecided {
    fn consequence(self) -> &'static str {
        match self {
            Self::Matches => "such paths count as excluded",
            Self::MatchesNot => "such paths count as not included",
        }
    }
}

/// One expression that must match a whole subject.
#[derive(Debug)]
pub struct Expression {
    text: String,
    engine: RegexEngine,
}

#[derive(Debug)]
enum RegexEngine {
    /// Linear time, no look-around.
    Plain { regex: Regex, pattern: String },
    /// Look-around, back-references, possessive forms; bounded by [`BACKTRACKS_MAX`].
    Fancy { regex: Box<fancy_regex::Regex>, gave_up: AtomicBool },
}

impl Expression {
    /// Compiles `text`: Boost's Perl syntax, as far as the engines support it.
    ///
    /// # Errors
    /// What the engines do not support, with the reason.
    pub fn new(text: &str) -> Result<Self, ExpressionError> {
        let refused = |(reason, help): (String, String)| ExpressionError {
            expression: text.to_owned(),
            reason,
            help,
        };
        let translated = boost::translate(text).map_err(refused)?;
        let pattern = format!(r"\A(?:{})\z", translated.pattern);
        let engine = if translated.needs_backtracking {
            fancy(&pattern).map_err(refused)?
        } else {
            plain(&pattern).map_err(refused)?
        };
        Ok(Self { text: text.to_owned(), engine })
    }

    /// True when the expression matches the whole of `subject`. `undecided` is used if matching takes too many steps; that is
    /// logged once.
    pub fn matches(&self, subject: &[u8], undecided: Undecided) -> bool {
        match &self.engine {
            RegexEngine::Plain { regex, .. } => regex.is_match(subject),
            RegexEngine::Fancy { regex, gave_up } => regex.is_match(subject).unwrap_or_else(|_| {
                if !gave_up.swap(true, Ordering::Relaxed) {
                    log::error!(
                        "the expression `{}` takes too many steps for {}; {}; simplify it",
                        self.text,
                        String::from_utf8_lossy(subject).escape_debug(),
                        undecided.consequence(),
                    );
                }
                undecided == Undecided::Matches
            }),
        }
    }

    /// The pattern of the plain engine; `None` for the other engine.
    fn plain_pattern(&self) -> Option<&str> {
        match &self.engine {
            RegexEngine::Plain { pattern, .. } => Some(pattern),
            RegexEngine::Fancy { .. } => None,
        }
    }
}

fn plain(pattern: &str) -> Result<RegexEngine, (String, String)> {
    let mut builder = RegexBuilder::new(pattern);
    // Boost: `.` matches a line feed, `^` and `$` match at one, and everything is bytes.
    builder.unicode(false).dot_matches_new_line(true).multi_line(true);
    match builder.build() {
        Ok(regex) => Ok(RegexEngine::Plain { regex, pattern: pattern.to_owned() }),
        Err(error) => Err(last_words(&error.to_string())),
    }
}

fn fancy(pattern: &str) -> Result<RegexEngine, (String, String)> {
    let mut builder = fancy_regex::RegexBuilder::new(pattern);
    builder
        .bytes_mode(fancy_regex::BytesMode::Ascii)
        .dot_matches_new_line(true)
        .multi_line(true)
        .backtrack_limit(BACKTRACKS_MAX);
    match builder.build() {
        Ok(regex) => {
            Ok(RegexEngine::Fancy { regex: Box::new(regex), gave_up: AtomicBool::new(false) })
        }
        Err(error) => Err(last_words(&error.to_string())),
    }
}

/// The engines' error messages have several lines; the last one tells what is wrong.
fn last_words(message: &str) -> (String, String) {
    let last = message.lines().last().unwrap_or(message).trim();
    let reason = last.trim_start_matches("error: ").to_owned();
    (reason, "correct the expression".to_owned())
}

/// Checks an expression of a configuration file, and returns it in the encoding of that file.
///
/// # Errors
/// What the engines do not support, with the reason.
pub fn expression_of(source: &SourceText, text: &str) -> Result<String, ExpressionError> {
    Expression::new(text)?;
    let expression = boost::in_bytes_of(source, text);
    Expression::new(&expression)?;
    Ok(expression)
}

/// All rules of one configuration, compiled.
#[derive(Debug)]
pub struct Filter {
    expressions: Vec<Expression>,
    /// The expressions without look-around, combined for speed.
    plain: RegexSet,
    has_fancy: bool,
    dotfiles: bool,
    editor_files: bool,
}

/// A rule that excludes a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The expression with this index.
    Expression(usize),
    /// Editors' temporary names are excluded.
    EditorName,
    /// Names that begin with a dot are excluded.
    Dotfile,
}

impl Filter {
    /// Compiles the rules.
    ///
    /// # Errors
    /// The first expression that cannot be used.
    pub fn new(rules: &FilterRules) -> Result<Self, ExpressionError> {
        let compiled: Result<Vec<_>, _> =
            rules.excludes.iter().map(|e| Expression::new(e)).collect();
        let expressions = compiled?;
        let patterns = expressions.iter().filter_map(Expression::plain_pattern);
        let plain = RegexSetBuilder::new(patterns)
            .unicode(false)
            .dot_matches_new_line(true)
            .multi_line(true)
            .build()
            .map_err(|error| ExpressionError {
                expression: rules.excludes.join(" "),
                reason: last_words(&error.to_string()).0,
                help: "use fewer or shorter expressions".to_owned(),
            })?;
        Ok(Self {
            has_fancy: expressions.iter().any(|e| e.plain_pattern().is_none()),
            expressions,
            plain,
            dotfiles: rules.dotfiles,
            editor_files: rules.editor_files,
        })
    }

    /// True when the path or one of its ancestors is excluded. The root never is.
    /// `is_dir` tells whether the path itself is a directory; ancestors are.
    pub fn excludes(&self, path: &RelPath, is_dir: bool) -> bool {
        if path.components().any(|name| self.excludes_name(name)) {
            return true;
        }
        if self.expressions.is_empty() || path.is_root() {
            return false;
        }
        let framed = frame(path);
        let ends = framed.iter().enumerate().skip(1);
        let ends = ends.filter(|&(_, &b)| b == b'/').map(|(at, _)| at);
        ends.into_iter().any(|end| {
            let is_dir = is_dir || end + 1 < framed.len();
            self.matches_framed(&framed[..=end], is_dir)
        })
    }

    /// The rule that excludes the path, and what it excludes: the path itself or its topmost excluded directory.
    pub fn deciding_rule(&self, path: &RelPath, is_dir: bool) -> Option<(RelPath, Rule)> {
        let mut at = RelPath::root();
        for name in path.components() {
            at = at.join(name)?;
            let rule = self.deciding_entry_rule(&at, is_dir || at != *path);
            if let Some(rule) = rule {
                return Some((at, rule));
            }
        }
        None
    }

    fn deciding_entry_rule(&self, path: &RelPath, is_dir: bool) -> Option<Rule> {
        let name = path.name()?;
        if !self.editor_files && is_editor_name(name) {
            return Some(Rule::EditorName);
        }
        if !self.dotfiles && name.starts_with(b".") {
            return Some(Rule::Dotfile);
        }
        let framed = frame(path);
        let end = framed.len() - 1;
        let subjects: &[&[u8]] = match is_dir {
            true => &[&framed[1..end], &framed[..end], &framed[1..], &framed],
            false => &[&framed[1..end], &framed[..end]],
        };
        let matches = |e: &Expression| subjects.iter().any(|s| e.matches(s, Undecided::Matches));
        self.expressions.iter().position(matches).map(Rule::Expression)
    }

    /// Like [`Filter::excludes`], for a path whose parent is not excluded, as in a walk.
    pub fn excludes_entry(&self, path: &RelPath, is_dir: bool) -> bool {
        let Some(name) = path.name() else {
            return false;
        };
        self.excludes_name(name)
            || (!self.expressions.is_empty() && self.matches_framed(&frame(path), is_dir))
    }

    /// The rules as rsync `--exclude` patterns, and the rules without a pattern.
    pub fn to_rsync_patterns(&self) -> Translation {
        let mut translation = Translation::default();
        for (index, expression) in self.expressions.iter().enumerate() {
            match expression.plain_pattern().and_then(patterns::translate) {
                Some(patterns) => translation.add(patterns),
                None => translation.untranslated.push(index),
            }
        }
        if !self.editor_files {
            translation.perishable.extend(EDITOR_PATTERNS.map(Vec::from));
        }
        if !self.dotfiles {
            translation.add(vec![b".*".to_vec()]);
        }
        translation
    }

    /// The expressions that have no rsync pattern.
    pub fn inexpressible(&self) -> Vec<&str> {
        let untranslated = self.to_rsync_patterns().untranslated;
        untranslated.into_iter().map(|index| self.expressions[index].text.as_str()).collect()
    }

    /// True when a rule for single names excludes `name`.
    fn excludes_name(&self, name: &[u8]) -> bool {
        (!self.editor_files && is_editor_name(name)) || (!self.dotfiles && name.starts_with(b"."))
    }

    /// Matches a path against the expressions. `framed` is `/path/`; the four forms of a path are slices of it.
    fn matches_framed(&self, framed: &[u8], is_dir: bool) -> bool {
        let end = framed.len() - 1;
        self.matches(&framed[1..end])
            || self.matches(&framed[..end])
            || (is_dir && (self.matches(&framed[1..]) || self.matches(framed)))
    }

    fn matches(&self, subject: &[u8]) -> bool {
        let fancy = || self.expressions.iter().filter(|e| e.plain_pattern().is_none());
        self.plain.is_match(subject)
            || (self.has_fancy && fancy().any(|e| e.matches(subject, Undecided::Matches)))
    }
}

/// The path with a slash at both ends: `/path/`.
fn frame(path: &RelPath) -> Vec<u8> {
    let mut framed = Vec::with_capacity(path.as_bytes().len() + 2);
    framed.push(b'/');
    framed.extend_from_slice(path.as_bytes());
    framed.push(b'/');
    framed
}

/// Editors' temporary names as rsync patterns; `is_editor_name` matches the same names.
/// The first byte of the last pattern is in brackets, because `#` begins a comment in rsync's pattern files.
const EDITOR_PATTERNS: [&[u8]; 7] =
    [b"*~", b".*.swp", b".*.swx", b".*.swo", b".*.swpx", b".#*", b"[#]*#"];

fn is_editor_name(name: &[u8]) -> bool {
    let swap = |suffix: &[u8]| name.len() > suffix.len() && name.ends_with(suffix);
    match name.first() {
        _ if name.ends_with(b"~") => true,
        Some(b'.') => {
            name.starts_with(b".#")
                || [b".swp", b".swx", b".swo"].iter().any(|s| swap(*s))
                || swap(b".swpx")
        }
        Some(b'#') => name.len() > 1 && name.ends_with(b"#"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
