//! The tables of tried expressions in docs/COMPAT.md and docs/COMPAT.zh-CN.md are true, row by row.

use std::fs;
use std::path::Path;

use sersync::config::FilterRules;
use sersync::filter::{Expression, Filter};
use sersync::path::RelPath;

/// The rows of the table whose heading begins with `first_cell`, as cells without their marks.
fn rows(page: &str, first_cell: &str, cells: usize) -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let behind = page.lines().skip_while(|line| !line.starts_with(first_cell));
    let table = behind.skip(2).take_while(|line| line.starts_with("| "));
    let rows: Vec<Vec<String>> = table.map(split).collect();
    assert!(rows.iter().all(|row| row.len() == cells), "{rows:?}");
    rows
}

/// The cells of one row; a bar inside a cell is written with a backslash.
fn split(line: &str) -> Vec<String> {
    let line = line.trim_matches('|').replace("\\|", "\0");
    let plain = |cell: &str| {
        let cell = cell.trim().replace('\0', "|");
        let marks = if cell.starts_with("``") { "``" } else { "`" };
        let inner = cell.strip_prefix(marks).and_then(|rest| rest.strip_suffix(marks));
        inner.map_or(cell.clone(), |inner| inner.trim().to_owned())
    };
    line.split('|').map(plain).collect()
}

#[test]
fn the_expressions_on_the_page_do_what_it_says() {
    for (page, head, yes, no) in [
        ("docs/COMPAT.md", "| expression | path |", "yes", "no"),
        ("docs/COMPAT.zh-CN.md", "| 表达式 | 路径 |", "是", "否"),
    ] {
        let rows = rows(page, head, 3);
        assert!(rows.len() >= 80, "{page}: {} rows", rows.len());
        for row in rows {
            assert!(row[2] == yes || row[2] == no, "{page}: {row:?}");
            let rules = FilterRules { excludes: vec![row[0].clone()], ..FilterRules::default() };
            let filter = Filter::new(&rules).unwrap_or_else(|error| panic!("{page}: {error}"));
            let is_dir = row[1].ends_with('/');
            let path = RelPath::new(row[1].trim_end_matches('/').as_bytes()).unwrap();
            assert_eq!(filter.excludes(&path, is_dir), row[2] == yes, "{page}: {row:?}");
        }
    }
}

#[test]
fn the_refusals_on_the_page_are_refused_for_that_reason() {
    for (page, head) in [
        ("docs/COMPAT.md", "| expression | the message says |"),
        ("docs/COMPAT.zh-CN.md", "| 表达式 | 提示中的字样 |"),
    ] {
        let rows = rows(page, head, 2);
        assert!(rows.len() >= 20, "{page}: {} rows", rows.len());
        for row in rows {
            let error = Expression::new(&row[0]).expect_err(&row[0]);
            let message = format!("{} {}", error.reason, error.help);
            assert!(message.contains(&row[1]), "{page}: {row:?}: {message}");
        }
    }
    let shell = Expression::new("*.php").unwrap_err();
    assert!(shell.help.contains(r"(.*)\.php"), "{}", shell.help);
}
