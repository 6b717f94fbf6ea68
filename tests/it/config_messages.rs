//! The messages about mistakes of the first five minutes: one message per cause, which tells what to do.
//! `GOLDEN_UPDATE=1 cargo test --test it config_messages` writes the reports; review them before you commit.

use std::fs;
use std::path::Path;

use sersync::config::{LoadOptions, load_bytes};
use sersync::xml::report::render;

/// Everything that is reported about a file.
fn report(name: &str, text: &str) -> String {
    match load_bytes(name, text.as_bytes(), &LoadOptions::default()) {
        Ok(loaded) => format!("{}\nloaded\n", render(&loaded.source, &loaded.warnings)),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn mistakes_of_the_first_five_minutes_are_told_as_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/first-minutes");
    let is_update = std::env::var_os("GOLDEN_UPDATE").is_some();
    let mut count = 0;
    let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|end| end == "xml")) {
        let text = fs::read_to_string(&file).unwrap();
        let told = report("confxml.xml", &text);
        let expected = file.with_extension("txt");
        if is_update {
            fs::write(&expected, &told).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(told, expected, "{}", file.display());
        count += 1;
    }
    assert!(count >= 17, "{count} files in {}", dir.display());
}

/// None of these may start a mirror that deletes although the file forbids it, or sends what the file excludes.
#[test]
fn a_safety_switch_that_cannot_be_obeyed_is_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/first-minutes");
    for name in [
        "a_misspelt_switch_for_deletions",
        "a_switch_for_deletions_that_lost_its_blank",
        "a_misspelt_attribute_of_the_switch_for_deletions",
        "a_switch_for_deletions_outside_of_inotify",
        "a_misspelt_section_of_switches",
        "a_filter_that_is_closed_before_its_expressions",
        "an_expression_that_lost_its_blank",
        "an_expression_that_is_written_as_text",
        "an_include_in_the_filter",
        "a_file_without_head",
        "a_section_behind_the_end_of_head",
    ] {
        let text = fs::read(dir.join(name).with_extension("xml")).unwrap();
        let loaded = load_bytes(name, &text, &LoadOptions::default());
        let report = loaded.map(|loaded| loaded.config).expect_err(name).to_string();
        assert!(report.contains("\n1 error; nothing was started"), "{report}");
        assert!(!report.contains("warning"), "{report}");
    }
}
