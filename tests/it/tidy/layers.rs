//! Imports run down the layers that docs/ARCHITECTURE.md names, and never in a circle.
//! Reads the paths that begin with `crate::` or `super::`; it cannot see paths that macros make.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{assert_none, code, program, read};

/// The parts of the table as module paths (`rsync::options`), each with its layer; 0 is the lowest one.
fn layers() -> BTreeMap<String, usize> {
    let document = read(Path::new("docs/ARCHITECTURE.md"));
    let table = document.split("| layer | parts |").nth(1).expect("no table of layers");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 4, "{rows:?}");
    let mut parts = BTreeMap::new();
    for (layer, row) in rows.iter().rev().enumerate() {
        for file in row.split('`').skip(1).step_by(2) {
            assert!(parts.insert(module(Path::new(file)), layer).is_none(), "{file} stands twice");
        }
    }
    parts
}

/// `src/rsync/options.rs` -> `rsync::options`.
fn module(file: &Path) -> String {
    let inner = file.strip_prefix("src").unwrap().with_extension("");
    inner.to_str().unwrap().replace('/', "::")
}

/// The part that a module path, or a path to something in a module, belongs to: the longest name that fits.
fn part_of<'a>(path: &str, parts: &'a BTreeMap<String, usize>) -> Option<&'a str> {
    let is_in = |part: &&String| {
        path.strip_prefix(part.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    parts.keys().filter(is_in).max_by_key(|part| part.len()).map(String::as_str)
}

/// The module paths that `text`, the code of the module `module`, names.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let begins = |at: usize| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    };
    for (at, _) in text.match_indices("crate::").filter(|(at, _)| begins(*at)) {
        found.extend(names(&text[at + "crate::".len()..]));
    }
    for (at, _) in text.match_indices("super::").filter(|(at, _)| begins(*at)) {
        let (mut home, mut rest) = (module, &text[at..]);
        while let Some(after) = rest.strip_prefix("super::") {
            home = home.rsplit_once("::").map_or("", |(outer, _)| outer);
            rest = after;
        }
        let below = |name: String| if home.is_empty() { name } else { format!("{home}::{name}") };
        found.extend(names(rest).into_iter().map(below));
    }
    found
}

/// `a::b::C` -> itself; `{a, b::C}` -> `a` and `b::C`; `a::{b, C}` -> `a::b` and `a::C`.
fn names(text: &str) -> Vec<String> {
    let len = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let (head, rest) = text.split_at(len.unwrap_or(text.len()));
    let Some(inner) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
        return vec![head.trim_end_matches(':').to_owned()];
    };
    inner.split(',').map(|name| format!("{head}{}", name.trim())).collect()
}

/// Which parts import which, each with a file that does so.
fn arrows(parts: &BTreeMap<String, usize>) -> BTreeMap<(&str, &str), PathBuf> {
    let mut arrows = BTreeMap::new();
    let mut homeless = Vec::new();
    for file in program() {
        let module = module(&file);
        let Some(from) = part_of(&module, parts) else {
            homeless.push(file.display().to_string());
            continue;
        };
        let text: Vec<String> = code(&read(&file)).into_iter().map(|(_, line)| line).collect();
        for import in imports(&module, &text.join("\n")) {
            if let Some(to) = part_of(&import, parts).filter(|to| *to != from) {
                arrows.insert((from, to), file.clone());
            }
        }
    }
    homeless.retain(|file| !["src/lib.rs", "src/main.rs"].contains(&file.as_str()));
    assert_none(&homeless, "files that no layer of docs/ARCHITECTURE.md names");
    arrows
}

#[test]
fn no_arrow_runs_up_the_layers() {
    let parts = layers();
    let up: Vec<String> = arrows(&parts)
        .into_iter()
        .filter(|((from, to), _)| parts[*to] > parts[*from])
        .map(|((from, to), file)| format!("{from} imports {to} in {}", file.display()))
        .collect();
    assert_none(&up, "imports that run up the layers of docs/ARCHITECTURE.md");
}

#[test]
fn no_parts_import_each_other_in_a_circle() {
    let parts = layers();
    let mut arrows = arrows(&parts);
    // Remove parts that import none of the remaining ones: they are in no circle.
    loop {
        let importing: BTreeSet<&str> = arrows.keys().map(|(from, _)| *from).collect();
        let before = arrows.len();
        arrows.retain(|(_, to), _| importing.contains(to));
        if arrows.len() == before {
            break;
        }
    }
    let left: Vec<String> = arrows
        .into_iter()
        .map(|((from, to), file)| format!("{from} imports {to} in {}", file.display()))
        .collect();
    assert_none(&left, "parts that lie in a circle or lead into one");
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let text = "use crate::{banner, sys};\nuse crate::a::b::{C, d::E};\nuse super::super::f::G;\n\
                use super::h;\nlet x = crate::i::j();\nuse outcrate::k;";
    let found = imports("m::n", text);
    let expected = ["a::b::C", "a::b::d::E", "banner", "f::G", "i::j", "m::h", "sys"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}
