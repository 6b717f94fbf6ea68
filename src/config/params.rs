//! `<commonParams params>` -> the words that every rsync run gets.
//! Refuses what would make a run do something else than mirror.

use super::raw::RawConfig;
use super::report::{Problem, quoted};
use super::schema::Field;
use super::values::Values;

/// Long options of rsync whose value may be the next word.
const LONG_WITH_VALUE: [&str; 48] = [
    "address",
    "backup-dir",
    "block-size",
    "bwlimit",
    "cc",
    "checksum-choice",
    "checksum-seed",
    "chmod",
    "chown",
    "compare-dest",
    "compress-choice",
    "compress-level",
    "compress-threads",
    "contimeout",
    "copy-as",
    "copy-dest",
    "debug",
    "early-input",
    "exclude",
    "exclude-from",
    "filter",
    "groupmap",
    "iconv",
    "include",
    "include-from",
    "info",
    "link-dest",
    "log-file",
    "log-file-format",
    "log-format",
    "max-alloc",
    "max-delete",
    "max-size",
    "min-size",
    "modify-window",
    "out-format",
    "outbuf",
    "partial-dir",
    "port",
    "protocol",
    "remote-option",
    "rsh",
    "rsync-path",
    "skip-compress",
    "sockopts",
    "suffix",
    "temp-dir",
    "timeout",
];

/// Long options with a value that are given in other places of the file, too.
const MORE_WITH_VALUE: [&str; 5] = ["usermap", "zc", "zl", "stop-after", "stop-at"];

/// Short options of rsync that take a value.
const SHORT_WITH_VALUE: &str = "BefMT@";

/// Options with which a run transfers nothing, or something else.
const REFUSED: [(&str, &str); 12] = [
    ("dry-run", "rsync would transfer nothing"),
    ("list-only", "rsync would transfer nothing"),
    ("daemon", "rsync would become a server"),
    ("server", "it is rsync's own, internal option"),
    ("sender", "it is rsync's own, internal option"),
    ("files-from", "the names of what changed are given by us"),
    ("password-file", "it belongs into <auth passwordfile>"),
    ("help", "rsync would transfer nothing"),
    ("version", "rsync would transfer nothing"),
    ("write-batch", "it records a run for later; it is no mirror"),
    ("only-write-batch", "rsync would transfer nothing"),
    ("read-batch", "it replays another run"),
];

/// The words of `<commonParams>`; none when the element is missing.
pub fn check_params(raw: &RawConfig, values: &mut Values<'_>) -> Vec<String> {
    let field = raw
        .params
        .as_ref()
        .filter(|field| field.text.as_ref().is_some_and(|text| !text.trim().is_empty()));
    let Some(field) = field else {
        if values.damaged {
            return Vec::new();
        }
        let span = raw.params.as_ref().map_or(raw.section.clone(), |field| field.span.clone());
        let sentence =
            "no <commonParams params>: rsync gets no options, and keeps neither times nor modes";
        values.problems.push(
            Problem::warning(span, sentence).help(
                "write <commonParams params=\"-artuz\"/> into <rsync>, as the stock file does",
            ),
        );
        return Vec::new();
    };
    let words = values.words(field);
    let words = expand_braces(words, field, values);
    check_words(&words, field, values);
    words
}

/// `--exclude={a,b}`, which the shells that sersync2 ran turned into two words.
fn expand_braces(words: Vec<String>, field: &Field, values: &mut Values<'_>) -> Vec<String> {
    let mut expanded = Vec::new();
    for word in words {
        let parts = word.find('{').and_then(|open| {
            let close = open + word[open..].find('}')?;
            let inner = &word[open + 1..close];
            let part = |one: &str| format!("{}{one}{}", &word[..open], &word[close + 1..]);
            inner.contains(',').then(|| inner.split(',').map(part).collect::<Vec<_>>())
        });
        match parts {
            Some(parts) => {
                let found = format!("{} is read as {}", quoted(&word), quoted(&parts.join(" ")));
                values.warn(field, &found, "write the words one by one");
                expanded.extend(parts);
            }
            None => expanded.push(word),
        }
    }
    expanded
}

fn check_words(words: &[String], field: &Field, values: &mut Values<'_>) {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let takes_next = if let Some(long) = word.strip_prefix("--") {
            check_long(long, field, values)
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            check_short(word, letters, field, values)
        } else {
            let found = format!(
                "{} is no option; rsync would take it for a file or a remote",
                quoted(word)
            );
            values.refuse(field, &found, "write options only; quote a value that holds blanks");
            false
        };
        if takes_next && words.next().is_none() {
            let found = format!("the option {} needs a value", quoted(word));
            values.refuse(field, &found, "write it behind the option");
        }
    }
}

/// True when the next word is this option's value.
fn check_long(option: &str, field: &Field, values: &mut Values<'_>) -> bool {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    if name.is_empty() {
        let found = "`--` ends rsync's options; what is added behind it would be taken for files";
        values.refuse(field, found, "remove it");
        return false;
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        let found = format!("the option --{name} cannot stand here: {reason}");
        values.refuse(field, &found, "remove it");
    }
    if matches!(name, "remove-source-files" | "remove-sent-files") {
        let found =
            format!("--{name} is left out: it would delete what was sent from the watch path");
        values.warn(field, &found, "remove it");
    }
    let known = LONG_WITH_VALUE.iter().chain(&MORE_WITH_VALUE);
    value.is_none() && known.into_iter().any(|known| *known == name)
}

fn check_short(word: &str, letters: &str, field: &Field, values: &mut Values<'_>) -> bool {
    for (at, letter) in letters.char_indices() {
        if SHORT_WITH_VALUE.contains(letter) {
            return at + letter.len_utf8() == letters.len();
        }
        if letter == 'n' {
            let found = format!("the n in {} makes rsync transfer nothing", quoted(word));
            values.refuse(field, &found, "remove it");
        }
        if !letter.is_ascii_alphanumeric() {
            let found = format!(
                "{} in {} is no option of rsync",
                quoted(&letter.to_string()),
                quoted(word)
            );
            values.refuse(field, &found, "write - and letters, such as -artuz");
            return false;
        }
    }
    false
}
