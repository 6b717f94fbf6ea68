//! Every option of rsync is in the table that tells what it means for a mirror.
//! The options come from the installed rsync; if its manual page is missing, from a copy of the list in it.

use std::path::Path;
use std::process::Command;

use sersync::rsync::options::{Arity, OPTIONS, RsyncOption, find};

/// rsync 3.5.0's manual page as a list, for machines without manual pages.
const MANUAL: &str = include_str!("../data/rsync-manual-options.txt");

/// Letters with another meaning in the help and the daemon's part: `-h` alone is the help, and `-M` is the daemon's `--dparam`.
const OTHER_LETTERS: [(&str, char); 2] = [("help", 'h'), ("dparam", 'M')];

/// Named without its value in the daemon's part of the manual.
const VALUE_NOT_SHOWN: &str = "sockopts";

fn stdout_of(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The heads of the paragraphs in the installed manual page, or the copy of them.
fn manual() -> String {
    let page = "/usr/share/man/man1/rsync.1.gz";
    if !Path::new(page).exists() {
        return MANUAL.to_owned();
    }
    let text = stdout_of("gzip", &["-dc", page]).replace("\\-", "-");
    let heads = text.lines().filter_map(|line| line.strip_prefix(".IP \"\\fB"));
    // A row of the table about links names two options that do not belong together.
    let heads = heads.filter(|head| head.starts_with('-') && !head.contains("links\\ "));
    heads.map(|head| head.replace("\\fP", "").replace("\\fB", "") + "\n").collect()
}

/// The first column of the help.
fn help() -> String {
    let text = stdout_of("rsync", &["--help"]);
    let rows = text.lines().filter(|line| line.starts_with('-'));
    rows.map(|row| row.split("  ").next().unwrap_or(row).to_owned() + "\n").collect()
}

/// Finds the options of one line, such as `--block-size=SIZE, -B`, in the table; returns how many there are.
fn look_up(line: &str) -> usize {
    let words = line.split([',', ' ', '(', ')', '"']).filter(|word| word.len() > 1);
    let mut last: Option<&RsyncOption> = None;
    let mut found = 0;
    for word in words.filter(|word| word.starts_with('-') && *word != "--no-OPTION") {
        found += 1;
        let Some(long) = word.strip_prefix("--") else {
            let letter = word.chars().nth(1).unwrap();
            let own = OPTIONS.iter().find(|option| option.letter == Some(letter));
            assert!(own.is_some(), "-{letter} is not in the table: {line}");
            let other = last.is_some_and(|last| OTHER_LETTERS.contains(&(last.names[0], letter)));
            assert!(last.is_none() || other || last == own, "-{letter} is another option: {line}");
            continue;
        };
        let (name, has_value) = match long.split_once('=') {
            Some((name, _)) => (name, true),
            None => (long, false),
        };
        let known = find(name).unwrap_or_else(|| panic!("--{name} is not in the table: {line}"));
        let takes_value = known.arity == Arity::Value;
        assert!(takes_value == has_value || name == VALUE_NOT_SHOWN, "--{name}: {line}");
        last = OPTIONS.iter().find(|option| option.names.contains(&name));
    }
    found
}

#[test]
fn every_option_of_the_installed_help_and_manual_is_in_the_table() {
    for (what, text) in [("help", help()), ("manual", manual()), ("list", MANUAL.to_owned())] {
        let lines = text.lines().filter(|line| line.starts_with('-'));
        let found: usize = lines.map(look_up).sum();
        assert!(found > 200, "only {found} options were read from the {what}");
    }
}

#[test]
fn no_name_and_no_letter_is_in_the_table_twice() {
    let mut names: Vec<_> = OPTIONS.iter().flat_map(|option| option.names).collect();
    let mut letters: Vec<_> = OPTIONS.iter().filter_map(|option| option.letter).collect();
    let all = (names.len(), letters.len());
    names.sort();
    names.dedup();
    letters.sort_unstable();
    letters.dedup();
    assert_eq!((names.len(), letters.len()), all);
}
