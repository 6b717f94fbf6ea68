//! Property tests: the filter and its patterns exclude the same paths, for every expression and path.

use proptest::prelude::*;

use super::*;

/// rsync's `wildmatch`: `**` crosses slashes, nothing else does.
fn wildmatch(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| wildmatch(rest, &text[at..])),
        [b'*', rest @ ..] => {
            let end = text.iter().position(|&b| b == b'/').unwrap_or(text.len());
            (0..=end).any(|at| wildmatch(rest, &text[at..]))
        }
        [b'?', rest @ ..] => matches!(text, [c, tail @ ..] if *c != b'/' && wildmatch(rest, tail)),
        [b'[', rest @ ..] => {
            let [c, tail @ ..] = text else { return false };
            let negated = rest.first() == Some(&b'!');
            let mut rest = if negated { &rest[1..] } else { rest };
            let mut found = false;
            while let [member, more @ ..] = rest {
                rest = more;
                match member {
                    b']' => break,
                    b'\\' => {
                        found |= rest[0] == *c;
                        rest = &rest[1..];
                    }
                    member => found |= member == c,
                }
            }
            found != negated && *c != b'/' && wildmatch(rest, tail)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            matches!(text, [c, tail @ ..] if c == literal && wildmatch(rest, tail))
        }
    }
}

/// rsync's rules for one `--exclude` pattern, without its ancestors.
fn rsync_matches(pattern: &[u8], path: &[u8], is_dir: bool) -> bool {
    let (pattern, only_dir) = match pattern.strip_suffix(b"/") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    if only_dir && !is_dir {
        return false;
    }
    let wild = pattern.iter().any(|b| b"*?[".contains(b));
    let compare = |pattern: &[u8], text: &[u8]| match wild {
        true => wildmatch(pattern, text),
        false => pattern == text,
    };
    match pattern.strip_prefix(b"/") {
        Some(anchored) => compare(anchored, path),
        None => {
            assert!(!pattern.contains(&b'/') && !pattern.windows(2).any(|w| w == b"**"));
            let start = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
            compare(pattern, &path[start..])
        }
    }
}

/// True when the path or one of its ancestors matches a pattern.
fn rsync_excludes(patterns: &[Vec<u8>], path: &RelPath, is_dir: bool) -> bool {
    let matches = |pattern: &Vec<u8>| rsync_matches(pattern, path.as_bytes(), is_dir);
    let above = path.parent().filter(|parent| !parent.is_root());
    patterns.iter().any(matches)
        || above.is_some_and(|parent| rsync_excludes(patterns, &parent, true))
}

/// Pieces of expressions that patterns can express.
fn piece() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a", "b", "/", r"\.", ".", ".*", "(.*)", "[^/]*", "[^/]", "[ab]", "/*", "^", "$", ".+",
        "a?", "(a|b/)", "(/a)?", "-", r"\*", r"\\", "x", "(?:a/b|)", "[^a]", "(^|/)", "(/|$)",
    ])
    .prop_map(str::to_owned)
}

fn some_path() -> impl Strategy<Value = RelPath> {
    let name = prop::sample::select(vec![
        "a", "b", "ab", "a.b", "x", "aa", "*", "\\", "-", "a\n", "..b", "xa", "ba", "\u{7f}",
    ]);
    prop::collection::vec(name, 1..5).prop_map(|names| path(names.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn patterns_exclude_exactly_what_the_expression_excludes(
        pieces in prop::collection::vec(piece(), 1..6),
        paths in prop::collection::vec((some_path(), any::<bool>()), 8),
    ) {
        let expression = pieces.concat();
        let rules = FilterRules { excludes: vec![expression.clone()], ..FilterRules::default() };
        // Not every sequence of pieces is a valid expression.
        let Ok(filter) = Filter::new(&rules) else { return Ok(()) };
        let translation = filter.to_rsync_patterns();
        if translation.exact() {
            for (path, is_dir) in paths {
                let shown: Vec<_> = translation.all().map(String::from_utf8_lossy).collect();
                prop_assert_eq!(
                    filter.excludes(&path, is_dir),
                    rsync_excludes(&translation.all().map(Vec::from).collect::<Vec<_>>(), &path, is_dir),
                    "{} {:?} {} {:?}", expression, path, is_dir, shown
                );
            }
        }
    }

    #[test]
    fn a_walk_that_prunes_sees_what_the_filter_keeps(
        pieces in prop::collection::vec(piece(), 1..6),
        path in some_path(),
        is_dir in any::<bool>(),
    ) {
        let rules = FilterRules { excludes: vec![pieces.concat()], ..FilterRules::default() };
        let Ok(filter) = Filter::new(&rules) else { return Ok(()) };
        let mut pruned = filter.excludes_entry(&path, is_dir);
        let mut at = path.parent();
        while let Some(ancestor) = at {
            pruned |= filter.excludes_entry(&ancestor, true);
            at = ancestor.parent();
        }
        prop_assert_eq!(filter.excludes(&path, is_dir), pruned);
    }

    #[test]
    fn no_expression_makes_the_filter_panic(expression in "\\PC{0,30}", bytes in prop::collection::vec(1u8..=255, 1..20)) {
        if let Ok(compiled) = Expression::new(&expression) {
            compiled.matches(&bytes, crate::filter::Undecided::Matches);
        }
    }
}
