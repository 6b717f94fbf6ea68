//! Translates expressions to rsync patterns, for runs that recurse.
//! Returns no pattern if the two would differ for even one path. The caller then lists the paths one by one.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::bytes::Bytes;

/// An expression that needs more patterns is not translated.
const PATTERNS_MAX: usize = 64;

/// The rules as rsync patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translation {
    /// For `--exclude=`, anchored at the transfer root where they begin with a slash.
    pub patterns: Vec<Vec<u8>>,
    /// Editors' temporary names: nothing is lost when they are deleted with their directory.
    pub perishable: Vec<Vec<u8>>,
    /// Indexes of the expressions without a pattern.
    pub untranslated: Vec<usize>,
}

impl Translation {
    /// True when the patterns exclude exactly what the filter excludes.
    pub fn exact(&self) -> bool {
        self.untranslated.is_empty()
    }

    /// All patterns.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns.iter().chain(&self.perishable).map(Vec::as_slice)
    }

    /// Adds those patterns that are new.
    pub(super) fn add(&mut self, patterns: Vec<Vec<u8>>) {
        for pattern in patterns {
            if !self.patterns.contains(&pattern) {
                self.patterns.push(pattern);
            }
        }
    }
}

/// The patterns of one anchored expression; `None` if no patterns are equivalent.
pub fn translate(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let hir = ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true)
        .multi_line(true)
        .build()
        .parse(pattern)
        .ok()?;
    let mut words = Vec::new();
    for word in expand(&hir)? {
        if let Anchors::Kept(word) = drop_anchors(word)? {
            split_slashes(word, &mut words)?;
        }
    }
    // The subjects of a path are `p`, `/p`, and for a directory `p/` and `/p/`.
    let mut any = words.clone();
    words.iter().for_each(|word| without_leading_slash(word, &mut any));
    let mut dirs = Vec::new();
    any.iter().for_each(|word| without_trailing_slash(word, &mut dirs));
    let any = tidy(any);
    let mut dirs = tidy(dirs);
    dirs.retain(|word| !any.contains(word));
    let below = |word: &Word| {
        let covered = |other: &Word| {
            word.len() > other.len() && word.starts_with(other) && word[other.len()] == SLASH
        };
        any.iter().any(covered) || dirs.iter().any(covered)
    };
    let kept =
        |words: &[Word]| words.iter().filter(|word| !below(word)).cloned().collect::<Vec<_>>();
    let mut patterns = written(kept(&any), b"");
    patterns.extend(written(kept(&dirs), b"/"));
    (patterns.len() <= PATTERNS_MAX).then_some(patterns)
}

/// One piece of an expression without alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    One(Bytes),
    Star(Bytes),
    Start,
    End,
}

type Word = Vec<Piece>;

const SLASH: Piece = Piece::One(Bytes([1 | 1 << b'/', 0, 0, 0]));
const ANY_STAR: Piece = Piece::Star(Bytes::ALL);

/// All alternatives of an expression; `None` when there are too many, or when a part has no pattern.
fn expand(hir: &Hir) -> Option<Vec<Word>> {
    let words = match hir.kind() {
        HirKind::Empty => vec![vec![]],
        HirKind::Literal(literal) => {
            let one = |&byte: &u8| Piece::One(Bytes::of([(byte, byte)].into_iter()));
            vec![literal.0.iter().map(one).collect()]
        }
        HirKind::Class(class) => vec![vec![Piece::One(bytes_of(class)?)]],
        HirKind::Look(Look::Start | Look::StartLF) => vec![vec![Piece::Start]],
        HirKind::Look(Look::End | Look::EndLF) => vec![vec![Piece::End]],
        HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => expand_repetition(repetition)?,
        HirKind::Capture(capture) => expand(&capture.sub)?,
        HirKind::Concat(parts) => {
            let mut words = vec![vec![]];
            for part in parts {
                words = product(&words, &expand(part)?)?;
            }
            words
        }
        HirKind::Alternation(parts) => {
            let mut words = Vec::new();
            for part in parts {
                words.extend(expand(part)?);
            }
            words
        }
    };
    (words.len() <= PATTERNS_MAX).then_some(words)
}

fn bytes_of(class: &Class) -> Option<Bytes> {
    match class {
        Class::Bytes(class) => {
            Some(Bytes::of(class.iter().map(|range| (range.start(), range.end()))))
        }
        Class::Unicode(class) => {
            let ascii = class.iter().all(|range| range.end().is_ascii());
            ascii.then(|| {
                Bytes::of(class.iter().map(|range| (range.start() as u8, range.end() as u8)))
            })
        }
    }
}

fn product(heads: &[Word], tails: &[Word]) -> Option<Vec<Word>> {
    if heads.len() * tails.len() > PATTERNS_MAX {
        return None;
    }
    let joined =
        heads.iter().flat_map(|head| tails.iter().map(|tail| [head.as_slice(), tail].concat()));
    Some(joined.collect())
}

fn expand_repetition(repetition: &Repetition) -> Option<Vec<Word>> {
    const COPIES_MAX: u32 = 16;
    let once = expand(&repetition.sub)?;
    let mut words = vec![vec![]];
    if repetition.min > COPIES_MAX {
        return None;
    }
    for _ in 0..repetition.min {
        words = product(&words, &once)?;
    }
    let Some(max) = repetition.max else {
        return match once.as_slice() {
            [word] => match word.as_slice() {
                [Piece::One(bytes) | Piece::Star(bytes)] => {
                    product(&words, &[vec![Piece::Star(*bytes)]])
                }
                _ => None,
            },
            _ => None,
        };
    };
    let mut all = words.clone();
    for _ in repetition.min..max.min(repetition.min + COPIES_MAX + 1) {
        words = product(&words, &once)?;
        all.extend(words.clone());
    }
    (max - repetition.min <= COPIES_MAX).then_some(all)
}

enum Anchors {
    Kept(Word),
    /// An anchor is at a position where it can never match.
    Impossible,
}

/// Removes anchors at the ends, which add nothing. An anchor in the middle can only match at a line feed.
fn drop_anchors(mut word: Word) -> Option<Anchors> {
    while word.first() == Some(&Piece::Start) {
        word.remove(0);
    }
    while word.last() == Some(&Piece::End) {
        word.pop();
    }
    let no_line_feed = |piece: &Piece| matches!(piece, Piece::One(bytes) if !bytes.has(b'\n'));
    for (at, piece) in word.iter().enumerate() {
        let impossible = match piece {
            Piece::Start => at > 0 && no_line_feed(&word[at - 1]),
            Piece::End => word.get(at + 1).is_some_and(no_line_feed),
            _ => continue,
        };
        return impossible.then_some(Anchors::Impossible);
    }
    Some(Anchors::Kept(word))
}

/// Splits pieces that match a slash and other bytes, because rsync's `?` and `[]` never match a slash.
fn split_slashes(word: Word, words: &mut Vec<Word>) -> Option<()> {
    let mut split: Vec<Word> = vec![vec![]];
    for piece in word {
        let choices: Vec<Word> = match piece {
            // An empty class: nothing matches.
            Piece::One(bytes) if bytes.members().next().is_none() => return Some(()),
            Piece::One(bytes) if bytes.single() == Some(b'/') => vec![vec![SLASH]],
            Piece::One(bytes) if bytes.has(b'/') => {
                vec![vec![Piece::One(bytes.without_slash())], vec![SLASH]]
            }
            // No path holds two slashes in a row.
            Piece::Star(bytes) if bytes.single() == Some(b'/') => vec![vec![], vec![SLASH]],
            Piece::Star(bytes) if bytes != Bytes::ALL && bytes != Bytes::ALL.without_slash() => {
                return None;
            }
            piece => vec![vec![piece]],
        };
        split = product(&split, &choices)?;
    }
    words.extend(split);
    Some(())
}

/// The words that begin with a slash, without that slash.
fn without_leading_slash(word: &[Piece], out: &mut Vec<Word>) {
    for (at, piece) in word.iter().enumerate() {
        match piece {
            Piece::Star(bytes) => {
                if bytes.has(b'/') {
                    out.push(word[at..].to_vec());
                }
            }
            piece if *piece == SLASH => return out.push(word[at + 1..].to_vec()),
            _ => return,
        }
    }
}

fn without_trailing_slash(word: &[Piece], out: &mut Vec<Word>) {
    for (at, piece) in word.iter().enumerate().rev() {
        match piece {
            Piece::Star(bytes) => {
                if bytes.has(b'/') {
                    out.push(word[..=at].to_vec());
                }
            }
            piece if *piece == SLASH => return out.push(word[..at].to_vec()),
            _ => return,
        }
    }
}

/// Merges adjacent stars, and drops duplicates and words that no path can match.
fn tidy(words: Vec<Word>) -> Vec<Word> {
    let mut tidied: Vec<Word> = Vec::new();
    for word in words {
        let mut short: Word = Vec::with_capacity(word.len());
        for piece in word {
            match (short.last_mut(), piece) {
                (Some(Piece::Star(last)), Piece::Star(bytes)) => {
                    if bytes == Bytes::ALL {
                        *last = bytes;
                    }
                }
                _ => short.push(piece),
            }
        }
        let double = short.windows(2).any(|pair| pair == [SLASH, SLASH]);
        let outer = short.first() == Some(&SLASH) || short.last() == Some(&SLASH);
        if !short.is_empty() && !double && !outer && !tidied.contains(&short) {
            tidied.push(short);
        }
    }
    tidied
}

/// The words as patterns. `X` and `**/X` together become the unanchored `X`; `**x` becomes the name `*x`.
fn written(words: Vec<Word>, suffix: &[u8]) -> Vec<Vec<u8>> {
    let is_name =
        |word: &[Piece]| !word.is_empty() && !word.contains(&SLASH) && !word.contains(&ANY_STAR);
    let anywhere = |name: &[Piece]| [&[ANY_STAR, SLASH], name].concat();
    let mut patterns: Vec<Vec<u8>> = Vec::new();
    for word in &words {
        let (name, star) = match word.as_slice() {
            [ANY_STAR, SLASH, name @ ..] if is_name(name) && words.iter().any(|w| w == name) => {
                (Some(name), false)
            }
            [ANY_STAR, rest @ ..] if is_name(rest) => (Some(rest), true),
            name if is_name(name) && words.contains(&anywhere(name)) => (Some(name), false),
            _ => (None, false),
        };
        let pattern = match name {
            Some(name) if star => [b"*", glob(name, true).as_slice(), suffix].concat(),
            Some(name) if is_safe_unanchored(name) => {
                [glob(name, false).as_slice(), suffix].concat()
            }
            _ => [b"/", glob(word, false).as_slice(), suffix].concat(),
        };
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    patterns
}

/// rsync gives patterns that begin with `- `, `+ `, `!`, `#` or `;` another meaning.
fn is_safe_unanchored(name: &[Piece]) -> bool {
    match name.first() {
        Some(Piece::One(bytes)) => match bytes.single() {
            Some(byte) => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'),
            None => true,
        },
        _ => true,
    }
}

/// The word as a glob. `in_wild`: the word is already next to a wildcard.
fn glob(word: &[Piece], in_wild: bool) -> Vec<u8> {
    let special = |byte: u8| matches!(byte, b'*' | b'?' | b'[');
    let is_wild = |piece: &Piece| match piece {
        Piece::One(bytes) => bytes.single().is_none_or(special),
        _ => true,
    };
    // In a pattern without wildcards, rsync reads a backslash as an ordinary character.
    let wild = in_wild || word.iter().any(is_wild);
    let mut out = Vec::with_capacity(word.len());
    for piece in word {
        match piece {
            Piece::One(bytes) => match bytes.single() {
                // Use brackets, because rsync searches a pattern for `**` without reading escapes.
                Some(byte) if special(byte) => out.extend([b'[', byte, b']']),
                Some(b'\\') if wild => out.extend(b"\\\\"),
                Some(byte) => out.push(byte),
                None => out.extend(class(*bytes)),
            },
            Piece::Star(bytes) if *bytes == Bytes::ALL => out.extend(b"**"),
            _ => out.push(b'*'),
        }
    }
    out
}

fn class(bytes: Bytes) -> Vec<u8> {
    if bytes == Bytes::ALL.without_slash() {
        return b"?".to_vec();
    }
    let many = bytes.members().count() > 128;
    let mut out = if many { b"[!".to_vec() } else { b"[".to_vec() };
    for byte in (1..=255u8).filter(|&byte| byte != b'/' && bytes.has(byte) != many) {
        if byte.is_ascii_punctuation() {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b']');
    out
}
