//! Tests of the filter: what the rules mean, and that rsync's patterns mean the same.

mod equality;

use super::*;

fn filter(expressions: &[&str]) -> Filter {
    let excludes = expressions.iter().map(|e| (*e).to_owned()).collect();
    let rules = FilterRules { excludes, ..FilterRules::default() };
    Filter::new(&rules).unwrap()
}

fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(text.as_ref()).unwrap()
}

/// True when the filter excludes `text` as a file.
fn file(filter: &Filter, text: &str) -> bool {
    filter.excludes(&path(text), false)
}

/// True when the filter excludes `text` as a directory.
fn dir(filter: &Filter, text: &str) -> bool {
    filter.excludes(&path(text), true)
}

fn patterns(expressions: &[&str]) -> Option<Vec<String>> {
    let rules = FilterRules {
        excludes: expressions.iter().map(|e| (*e).to_owned()).collect(),
        editor_files: true,
        ..FilterRules::default()
    };
    let translation = Filter::new(&rules).unwrap().to_rsync_patterns();
    let text = |p: &Vec<u8>| String::from_utf8_lossy(p).into_owned();
    translation.exact().then(|| translation.patterns.iter().map(text).collect())
}

#[test]
fn the_expression_for_one_file_in_the_documents_excludes_all_others() {
    for document in ["docs/MIGRATING.md", "docs/MIGRATING.zh-CN.md"] {
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = std::fs::read_to_string(place).unwrap();
        let line = text.lines().find(|line| line.contains(r"app\.conf$")).unwrap();
        let filter = filter(&[line.split('"').nth(1).unwrap()]);
        assert!(!file(&filter, "app.conf"), "{document}");
        assert!(file(&filter, "app.conf~") && file(&filter, "other") && dir(&filter, "sub"));
    }
}

#[test]
fn the_stock_expressions_mean_what_their_authors_meant() {
    let filter = filter(&[r"(.*)\.svn", r"(.*)\.gz", "^info/*", "^static/*"]);
    for excluded in ["a.gz", "d/e/a.gz", ".svn", "x/.svn/entries", "info", "info/a/b", "static/x"] {
        assert!(file(&filter, excluded), "{excluded}");
    }
    for kept in ["gz", "a.gzip", "infos", "a/info", "a/static/b", "a.gz2/b"] {
        assert!(!file(&filter, kept), "{kept}");
    }
}

#[test]
fn an_expression_must_match_the_whole_path_in_one_of_its_forms() {
    let by_name = filter(&["log.txt"]);
    assert!(file(&by_name, "log.txt") && file(&by_name, "logstxt"));
    assert!(!file(&by_name, "a/log.txt") && !file(&by_name, "log.txt.1"));
    let with_slash = filter(&["/sub/dir/name"]);
    assert!(file(&with_slash, "sub/dir/name") && file(&with_slash, "sub/dir/name/x"));
    let only_dir = filter(&["sub/dir/"]);
    assert!(dir(&only_dir, "sub/dir") && file(&only_dir, "sub/dir/x"));
    assert!(!file(&only_dir, "sub/dir"));
    let both = filter(&["/cache/"]);
    assert!(dir(&both, "cache") && !file(&both, "cache") && !dir(&both, "a/cache"));
}

#[test]
fn what_lies_below_an_excluded_directory_is_excluded() {
    let filter = filter(&["(.*)/cache"]);
    assert!(file(&filter, "a/cache/b/c") && file(&filter, "cache/b"));
    assert!(!filter.excludes_entry(&path("a/cache/b"), false));
    assert!(filter.excludes_entry(&path("a/cache"), true));
}

#[test]
fn the_root_is_never_excluded() {
    let filter = filter(&["(.*)", "/", ""]);
    assert!(!filter.excludes(&RelPath::root(), true));
    assert!(!filter.excludes_entry(&RelPath::root(), true));
}

#[test]
fn names_are_bytes() {
    let any = filter(&[r"a.b", r"(.*)\.日志"]);
    assert!(any.excludes(&path(b"a\xffb"), false));
    assert!(any.excludes(&path(b"a\nb"), false));
    assert!(file(&any, "x/y.日志"));
    let fancy = filter(&[r"(?!x).\xff+?b(?=.)\n"]);
    assert!(fancy.excludes(&path(b"\xfe\xff\xffb\n"), false));
}

#[test]
fn expressions_of_a_gbk_file_match_gbk_names() {
    let bytes = b"<a/> \xc8\xd5\xd6\xbe";
    let source = SourceText::decode("x.xml", bytes).unwrap();
    let expression = expression_of(&source, "日志+").unwrap();
    let filter = filter(&[expression.as_str()]);
    assert!(filter.excludes(&path(b"\xc8\xd5\xd6\xbe\xd6\xbe"), false));
    assert!(!file(&filter, "日志"));
    assert!(expression_of(&source, "[日]").is_err());
}

#[test]
fn editors_temporary_names_are_excluded_until_switched_on() {
    let filter = filter(&[]);
    for name in ["a~", "d/.a.swp", ".a.swx", ".a.swo", ".a.swpx", ".#a", "#a#", "~/x"] {
        assert!(file(&filter, name), "{name}");
    }
    for name in ["4913", ".swp", "a.swp", ".a.b.XyZ123", "#", "#a", ".env.backup", "a~b", ".a"] {
        assert!(!file(&filter, name), "{name}");
    }
    let on = FilterRules { editor_files: true, ..FilterRules::default() };
    assert!(!file(&Filter::new(&on).unwrap(), "a~"));
}

#[test]
fn dotfiles_are_ordinary_until_switched_off() {
    assert!(!file(&filter(&[]), "a/.env"));
    let rules = FilterRules { dotfiles: false, ..FilterRules::default() };
    let off = Filter::new(&rules).unwrap();
    assert!(file(&off, ".env") && file(&off, "a/.git/config") && !file(&off, "a.b"));
}

#[test]
fn the_syntax_of_boost_is_carried() {
    for (expression, matching, other) in [
        (r"a++b", "aab", "b"),
        (r"(?!x)[a-z]+", "abc", "xbc"),
        (r"(a|b)\1", "bb", "ab"),
        (r"(?<c>a|b)\k<c>", "aa", "ab"),
        (r"(?>a+)b", "aab", "aa"),
        (r"(?<=a)b|ab(?<!b)c?|(?#remark)ok", "ok", "nb"),
        (r"\Qa.b\E.", "a.bc", "axbc"),
        (r"[[:digit:]]+[[:d:]]", "12", "1"),
        (r"[]a]+", "]a]", "b"),
        (r"[a&&b]+", "a&b", "c"),
        (r"[a[b]+", "[ab", "c"),
        (r"[+--a]+x", "a-x", "bx"),
        (r"[\w.-]+@\d{2,3}", "a-b.c@12", "a b@12"),
        (r"\l+\u", "abC", "abc"),
        (r"[^\l]", "A", "a"),
        (r"\<ab\>", "ab", "abc"),
        (r"\`ab\'", "ab", "b"),
        (r"\x41\x{42}\0103\cA?", "ABC", "AB"),
        (r"(?i)jpe?g", "JpG", "png"),
        (r"a\/b\-c", "a/b-c", "ab-c"),
        (r"^a$", "a", "b"),
        (r"a]b}", "a]b}", "ab"),
        ("a b#c", "a b#c", "ab"),
    ] {
        let filter = filter(&[expression]);
        assert!(file(&filter, matching), "{expression} and {matching}");
        assert!(!file(&filter, other), "{expression} and {other}");
    }
}

#[test]
fn what_cannot_be_carried_is_refused_with_a_reason() {
    for (expression, word) in [
        ("*.php", r"(.*)\.php"),
        ("(a", "unclosed"),
        ("a)", "unopened"),
        ("[a", "never closed"),
        ("a**", "nothing to repeat"),
        ("a{x}", "no repetition"),
        ("a{2}{3}", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        (r"a\", "backslash"),
        (r"\pL", "not supported"),
        (r"\X", "not supported"),
        (r"\Ka", "not supported"),
        ("(?R)", "recursion"),
        ("(?|a|b)", "branch reset"),
        ("(?x)a", "(?x"),
        ("[[.a.]]", "no character class"),
        ("[[:foo:]]", "no character class"),
        ("[日志]", "single bytes"),
        ("[z-a]", "backwards"),
        (r"[a-\d]", "range"),
        (r"\x{4e2d}", "FF"),
        (r"\x00", "zero"),
        (r"(a)\2", ""),
        ("((((a{99}){99}){99}){99})", ""),
    ] {
        let error = Expression::new(expression).unwrap_err();
        let text = format!("{} {}", error.reason, error.help);
        assert!(text.contains(word), "{expression}: {text}");
    }
}

#[test]
fn endless_backtracking_counts_as_excluded() {
    let filter = filter(&[r"(?=a)(?:(a|aa)+)+\1b"]);
    assert!(file(&filter, &"a".repeat(200)));
    assert!(!file(&filter, "c"));
}

#[test]
fn what_endless_backtracking_means_is_the_callers_choice() {
    let expression = Expression::new(r"(?=a)(?:(a|aa)+)+\1b").unwrap();
    let subject = "a".repeat(200);
    assert!(expression.matches(subject.as_bytes(), Undecided::Matches));
    assert!(!expression.matches(subject.as_bytes(), Undecided::MatchesNot));
}

#[test]
fn expressions_become_the_patterns_an_operator_would_write() {
    for (expression, expected) in [
        (r"(.*)\.svn", vec!["*.svn"]),
        (r".*\.log$", vec!["*.log"]),
        ("^info/*", vec!["/info"]),
        ("^dir/.*", vec!["/dir/"]),
        ("(.*)/cache/(.*)", vec!["cache/"]),
        ("(.*)/cache", vec!["cache"]),
        ("log.txt", vec!["/log?txt", "/log/txt"]),
        (r"log\.txt", vec!["/log.txt"]),
        ("/a/b", vec!["/a/b"]),
        ("a/b/", vec!["/a/b/"]),
        (r"(.*)\.(gz|zip)", vec!["*.gz", "*.zip"]),
        (r"(?i)(.*)\.jpg", vec!["*.[Jj][Pp][Gg]"]),
        (r"[^/]*\.tmp", vec!["/*.tmp"]),
        (r"(^|.*/)node_modules(/.*|$)", vec!["node_modules"]),
        (r"a\*b\\", vec![r"/a[*]b\\"]),
        (r"a\\b", vec![r"/a\b"]),
        ("-x", vec!["/-x"]),
        ("(.*)/- x", vec!["/**/- x", "/- x"]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(patterns(&[expression]), Some(expected), "{expression}");
    }
}

#[test]
fn what_patterns_cannot_say_is_named() {
    for expression in [r"\w+", "a*", "(ab)*", r"\bx", "(?!a)b", "(.*)[0-9]+x", "a{40}b{1,40}"] {
        assert_eq!(patterns(&[expression]), None, "{expression}");
    }
    let rules =
        FilterRules { excludes: vec![r"(.*)\.gz".into(), r"\w+".into()], ..FilterRules::default() };
    let translation = Filter::new(&rules).unwrap().to_rsync_patterns();
    assert_eq!(translation.untranslated, [1]);
    assert!(translation.patterns.contains(&b"*.gz".to_vec()));
}

#[test]
fn the_rule_that_decides_is_named_with_what_it_holds_for() {
    let rules = FilterRules {
        excludes: vec![r"(.*)\.tmp".into(), "cache/".into()],
        ..FilterRules::default()
    };
    let filter = Filter::new(&rules).unwrap();
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    let decide = |text: &str| filter.deciding_rule(&path(text), false);
    assert_eq!(decide("a/x.tmp"), Some((path("a/x.tmp"), Rule::Expression(0))));
    assert_eq!(decide("cache/deep/x"), Some((path("cache"), Rule::Expression(1))));
    assert_eq!(decide("a/x~"), Some((path("a/x~"), Rule::EditorName)));
    assert_eq!(decide("cache"), None);
    for text in ["a/x.tmp", "cache/deep/x", "a/x~", "cache", "a/b"] {
        assert_eq!(decide(text).is_some(), filter.excludes(&path(text), false), "{text}");
    }
}
