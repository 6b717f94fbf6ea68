//! docs/RELIABILITY.md against the tests: no row without a test, no test that does not exist.
//! Does not judge what the rows say.

use std::fs;
use std::path::Path;

/// The rows of all tables of the page, without heads and rules.
fn rows(page: &str) -> Vec<&str> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: &str| line.starts_with("| ---");
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_head = lines.get(index + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !is_head {
            rows.push(*line);
        }
    }
    rows
}

/// The problem with the test that a row names as `FILE`: `TEST`; `None` when the test exists.
fn problem(root: &Path, row: &str) -> Option<String> {
    let cell = row.trim_end_matches('|').rsplit('|').next()?.trim();
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let [file, test] = named[..] else {
        return Some(format!("no test: {row}"));
    };
    let text = fs::read_to_string(root.join(file)).unwrap_or_default();
    let exists =
        ["", "    "].iter().any(|indent| text.contains(&format!("]\n{indent}fn {test}()")));
    (!exists).then(|| format!("there is no test {test} in {file}"))
}

#[test]
fn every_fault_of_the_page_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/RELIABILITY.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 40, "{} rows", rows.len());
    let problems: Vec<String> = rows.iter().filter_map(|row| problem(root, row)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // The Chinese page names the same tests in the same order.
    let chinese = fs::read_to_string(root.join("docs/RELIABILITY.zh-CN.md")).unwrap();
    let test = |row: &str| row.trim_end_matches('|').rsplit('|').next().map(str::to_owned);
    let tests = |page: &str| self::rows(page).into_iter().map(test).collect::<Vec<_>>();
    assert_eq!(tests(&page), tests(&chinese));
    assert!(problem(root, "| a | b | c |").is_some());
    assert!(problem(root, "| a | b | `tests/it/faults/table.rs`: `no_such_test` |").is_some());
}
