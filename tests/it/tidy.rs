//! What a reviewer would otherwise check by eye: file headers, type names, paths in documents, `unsafe`, `unwrap`.
//! Checks only the text of the repository; it does not repeat the checks of the compiler and clippy.

mod layers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` (a directory of the repository) whose names end in `.extension`, as paths from the root.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn sources() -> Vec<PathBuf> {
    let found: Vec<_> =
        ["src", "tests", "benches", "fuzz"].iter().flat_map(|dir| files(dir, "rs")).collect();
    assert!(found.contains(&PathBuf::from("src/lib.rs")), "{found:?}");
    found
}

/// The lines of a source file before its inline tests, with their numbers, without comments.
fn code(text: &str) -> Vec<(usize, String)> {
    text.lines()
        .take_while(|line| !line.ends_with("mod tests {"))
        .map(|line| line.split("//").next().unwrap_or_default().to_owned())
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .collect()
}

/// The files of `src` that are part of the program, i.e. not modules for `#[cfg(test)]` alone.
fn program() -> Vec<PathBuf> {
    let all = files("src", "rs");
    let mut tests = Vec::new();
    for path in &all {
        let text = read(path);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1].strip_suffix(';').and_then(|line| line.split_once("mod "));
            tests.extend(name.map(|(_, name)| path.with_extension("").join(name)));
        }
    }
    let is_test = |path: &PathBuf| {
        let module = path.with_extension("");
        tests.iter().any(|test| module.starts_with(test))
    };
    all.into_iter().filter(|path| !is_test(path)).collect()
}

fn assert_none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn each_source_file_says_first_what_it_is_for() {
    let bad: Vec<String> = sources()
        .iter()
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| path.display().to_string())
        .collect();
    assert_none(&bad, "files that do not open with a `//!` sentence");
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let mut bad = Vec::new();
    for path in program() {
        for (number, line) in code(&read(&path)) {
            if [".unwrap()", ".expect(", "todo!(", "unimplemented!("]
                .iter()
                .any(|word| line.contains(word))
            {
                bad.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(&bad, "errors that are not handled");
}

#[test]
fn unsafe_code_lives_in_one_place() {
    let mut bad = Vec::new();
    for path in program() {
        let text = read(&path);
        if path.starts_with("src/sys") || path == Path::new("src/sys.rs") {
            let blocks = code(&text).iter().filter(|(_, line)| line.contains("unsafe {")).count();
            let reasons = text.matches("// SAFETY: ").count();
            assert!(
                reasons >= blocks,
                "{}: {blocks} unsafe blocks, {reasons} reasons",
                path.display()
            );
            continue;
        }
        for (number, line) in code(&text) {
            if line.contains("unsafe ")
                || line.contains("allow(unsafe")
                || line.contains("expect(unsafe")
            {
                bad.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(&bad, "`unsafe` outside src/sys.rs");
}

/// The words between backquotes and in links that look like paths of this repository.
fn named_paths(text: &str) -> Vec<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    quoted
        .chain(linked)
        .map(|word| word.split('#').next().unwrap_or_default().trim_end_matches('/'))
        .filter(|word| looks_like_a_path(word))
        .map(str::to_owned)
        .collect()
}

fn looks_like_a_path(word: &str) -> bool {
    const TOP: [&str; 9] = [
        "src/",
        "tests/",
        "docs/",
        "config/",
        "scripts/",
        "benches/",
        "fuzz/",
        "packaging/",
        ".ci/",
    ];
    const FILES: [&str; 6] = [
        "README.md",
        "README.zh-CN.md",
        "Makefile",
        "Cargo.toml",
        "confxml.example.xml",
        "LICENSE",
    ];
    let plain = !word.contains(|c: char| c.is_whitespace() || "*<>{}$…".contains(c));
    plain && (TOP.iter().any(|top| word.starts_with(top)) || FILES.contains(&word))
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut documents = files("docs", "md");
    documents.extend(["README.md", "README.zh-CN.md"].map(PathBuf::from));
    let mut bad = Vec::new();
    for document in documents {
        let beside = document.parent().unwrap_or(Path::new("")).to_owned();
        for path in named_paths(&read(&document)) {
            if !root().join(&path).exists() && !root().join(&beside).join(&path).exists() {
                bad.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert_none(&bad, "documents that name files which are not there");
}

/// The public types of a source file: `pub struct`, `pub enum`, `pub trait` and `pub type`.
fn public_types(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("pub")?;
        let rest =
            rest.strip_prefix("(super)").or_else(|| rest.strip_prefix("(crate)")).unwrap_or(rest);
        let (kind, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "type"].contains(&kind);
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        is_type.then(|| rest[..end].to_owned())
    };
    code(text).iter().filter_map(|(_, line)| name(line)).collect()
}

/// A reader has to know which type is meant without looking at the imports. Private types are exempt: their file explains them.
#[test]
fn each_public_type_has_a_name_of_its_own() {
    let mut files_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in program() {
        for name in public_types(&read(&path)) {
            files_of.entry(name).or_default().push(path.display().to_string());
        }
    }
    assert!(files_of.len() > 300, "{} types", files_of.len());
    let twice: Vec<String> = files_of
        .iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect();
    assert_none(&twice, "public types that share a name");
}

#[test]
fn public_types_of_every_kind_are_found() {
    let text = "pub struct A<'a> {\npub(super) enum B {\npub type C = u8;\npub(crate) trait D {}\nstruct E;\n\
        pub fn f() {}\npub struct F(u8);\n// pub struct G;\n";
    assert_eq!(public_types(text), ["A", "B", "C", "D", "F"]);
}

/// How many headings, table rows and code fences a page has.
fn shape(text: &str) -> [usize; 3] {
    ["#", "|", "```"].map(|mark| text.lines().filter(|line| line.starts_with(mark)).count())
}

#[test]
fn chinese_pages_have_the_headings_tables_and_code_blocks_of_the_english_ones() {
    let mut pages = files("docs", "md");
    pages.push(PathBuf::from("README.zh-CN.md"));
    let mut bad = Vec::new();
    let mut compared = 0;
    for page in pages {
        let Some(stem) = page.to_str().and_then(|name| name.strip_suffix(".zh-CN.md")) else {
            continue;
        };
        let english = shape(&read(Path::new(&format!("{stem}.md"))));
        let chinese = shape(&read(&page));
        compared += 1;
        if english != chinese {
            bad.push(format!("{}: {chinese:?}, but {english:?} in English", page.display()));
        }
    }
    assert!(compared >= 9, "{compared} pages");
    assert_none(
        &bad,
        "headings, table rows and code fences of a page and of its translation differ",
    );
}

#[test]
fn every_script_is_executable_and_stops_at_the_first_error() {
    use std::os::unix::fs::PermissionsExt;
    let mut scripts: Vec<PathBuf> = fs::read_dir(root().join("scripts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none())
        .collect();
    scripts.push(root().join(".ci/run"));
    for path in scripts {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nset -euo pipefail\n"), "{}", path.display());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{}", path.display());
    }
}

#[test]
fn paths_in_documents_are_recognised() {
    let text = "see `src/lib.rs`, [the rest](docs/X.md#a) and `cargo test`, `/etc/x`, `src/*.rs`";
    assert_eq!(named_paths(text), ["src/lib.rs", "docs/X.md"]);
}

/// The names of all tests.
fn tests() -> std::collections::HashSet<String> {
    let mut names = std::collections::HashSet::new();
    for file in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        let text = read(&file);
        let behind = text.split("#[test]").skip(1);
        let name = |text: &str| Some(text.split_once("fn ")?.1.split('(').next()?.to_owned());
        names.extend(behind.filter_map(name));
    }
    names
}

#[test]
fn every_test_that_the_compatibility_tables_name_exists() {
    let tests = tests();
    for document in ["docs/COMPAT.md", "docs/COMPAT.zh-CN.md"] {
        if !root().join(document).exists() {
            continue;
        }
        let text = read(Path::new(document));
        let words = text.split('`').skip(1).step_by(2);
        let is_test = |word: &&str| {
            word.matches('_').count() >= 2
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let named: Vec<&str> = words.filter(is_test).collect();
        assert!(named.len() > 50, "{document} names {} tests", named.len());
        let missing: Vec<String> = named
            .iter()
            .filter(|name| !tests.contains(**name))
            .map(|name| format!("{document}: {name}"))
            .collect();
        assert_none(&missing, "tests that are named and do not exist");
        // A row without a test proves nothing.
        let is_over =
            |line: &&str| ["## Two mirrors", "## 互相同步"].iter().any(|h| line.starts_with(h));
        for row in text.lines().take_while(|line| !is_over(line)) {
            let is_row = row.starts_with("| ") && !row.starts_with("| ---");
            let is_head = row.ends_with("| test |") || row.ends_with("| 测试 |");
            assert!(!is_row || is_head || row.contains("_"), "{document}: no test in {row}");
        }
    }
}
