//! The real rsync, given the filter's patterns, sees exactly the paths that the filter keeps.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use sersync::config::FilterRules;
use sersync::filter::Filter;
use sersync::path::RelPath;

/// Sets of expressions that patterns can express.
const RULES: [&[&str]; 9] = [
    &[],
    &[r"(.*)\.svn", r"(.*)\.gz", "^info/*", "^static/*"],
    &[r".*\.log$", "^dir/.*", "(.*)/cache/(.*)"],
    &["a.b", "dir/sub/", "/static/x"],
    &[r"(^|.*/)node_modules(/.*|$)", r"(?i)(.*)\.jpe?g"],
    &[r"[^/]*\.gz", r"dir/[^/]+\.log"],
    &[r"(.*)\*(.*)", r"(.*)\\(.*)", r"(.*)\[x\]"],
    &["(.*)/- x", "(.*)/#(.*)", "(.*)[;!](.*)"],
    &["(.*)a", ".b(.*)", "(.*)/[a-d][a-i]?r/..g"],
];

/// The directories; each contains every file.
const DIRS: [&str; 12] = [
    "",
    "info",
    "static",
    "dir",
    "dir/sub",
    "cache",
    "dir/cache",
    "node_modules",
    "dir/node_modules",
    "a.gz",
    "dir/info",
    "x.svn",
];
const FILES: [&[u8]; 22] = [
    b"a",
    b"a.b",
    b"a.gz",
    b"b.log",
    b"x",
    b"- x",
    b"#a",
    b"#a#",
    b";a",
    b"!",
    b"a*b",
    b"a\\b",
    b"a\\*",
    b"[x]",
    b"p.JPG",
    b"p.jpeg",
    b"a~",
    b".f.swp",
    b".#l",
    b".svn",
    b"\xff\xfe.gz",
    b"new\nline.log",
];

#[expect(clippy::disallowed_methods, reason = "the test asks the real rsync")]
fn rsync(args: &[&OsStr]) {
    let output = Command::new("rsync").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn walk(root: &Path, below: &RelPath, found: &mut BTreeSet<Vec<u8>>) {
    for entry in std::fs::read_dir(below.below(root)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name().as_bytes()).unwrap();
        found.insert(path.as_bytes().to_vec());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        }
    }
}

fn tree(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    walk(root, &RelPath::root(), &mut found);
    found
}

#[test]
fn rsync_with_our_patterns_copies_what_the_filter_keeps() {
    let source = tempfile::tempdir().unwrap();
    for dir in DIRS {
        std::fs::create_dir_all(source.path().join(dir)).unwrap();
    }
    for dir in DIRS.map(|dir| source.path().join(dir)) {
        for name in FILES {
            // A name that is already a directory stays one.
            let _ = std::fs::File::create_new(dir.join(OsStr::from_bytes(name)));
        }
    }
    let all = tree(source.path());
    assert!(all.len() > 200);
    for (rules, dotfiles) in RULES.iter().flat_map(|rules| [(rules, true), (rules, false)]) {
        let excludes = rules.iter().map(|e| (*e).to_owned()).collect();
        let filter =
            Filter::new(&FilterRules { excludes, dotfiles, editor_files: !dotfiles }).unwrap();
        let translation = filter.to_rsync_patterns();
        assert!(translation.exact(), "{rules:?}");
        let target = tempfile::tempdir().unwrap();
        let patterns: Vec<Vec<u8>> =
            translation.all().map(|p| [b"--exclude=", p].concat()).collect();
        let from = format!("{}/", source.path().display());
        let mut args = vec![OsStr::new("-r"), OsStr::new(&from), target.path().as_os_str()];
        args.extend(patterns.iter().map(|p| OsStr::from_bytes(p)));
        rsync(&args);
        let is_dir = |path: &RelPath| path.below(source.path()).is_dir();
        let kept: BTreeSet<Vec<u8>> = all
            .iter()
            .filter_map(|bytes| RelPath::new(bytes))
            .filter(|path| !filter.excludes(path, is_dir(path)))
            .map(|path| path.as_bytes().to_vec())
            .collect();
        let copied = tree(target.path());
        let differing: Vec<_> =
            kept.symmetric_difference(&copied).map(|p| String::from_utf8_lossy(p)).collect();
        assert!(differing.is_empty(), "{rules:?}: {differing:?}");
    }
}
