//! Reads `<commonParams params>`: the operator's options for every rsync run.
//! `rsync/options.rs` knows what each option means; this file reports errors and warnings with their position.

use super::raw::RawConfig;
use super::values::Values;
use crate::ground::words::{near_word, quoted};
use crate::rsync::options::OPTIONS;
use crate::rsync::params::{Params, Remark, RemarkKind};
use crate::xml::report::Problem;
use crate::xml::schema::Field;

/// The words of `<commonParams>`; none when the element is missing.
pub fn check_params(raw: &RawConfig, values: &mut Values<'_>) -> Vec<String> {
    let written = raw.rsync.child("commonParams").map(|element| element.field("params"));
    let is_empty = |field: &Field| field.text.as_ref().is_none_or(|text| text.trim().is_empty());
    let Some(field) = written.as_ref().filter(|field| !is_empty(field)) else {
        if values.damaged {
            return Vec::new();
        }
        let span = written.map_or(raw.sersync.span.clone(), |field| field.span);
        let sentence =
            "no <commonParams params>: rsync gets no options, and keeps neither times nor modes";
        values.problems.push(
            Problem::warning(span, sentence).help(
                "write <commonParams params=\"-artuz\"/> into <rsync>, as the stock file does",
            ),
        );
        return Vec::new();
    };
    read_words(field, values)
}

/// The words of one attribute.
pub fn read_words(field: &Field, values: &mut Values<'_>) -> Vec<String> {
    let words = values.words(field);
    let words = expand_braces(words, field, values);
    check_words(&words, field, values);
    words
}

/// Expands `--exclude={a,b}` into two words, as the shells did that sersync2 ran.
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

/// Reports every word that does not simply pass.
fn check_words(words: &[String], field: &Field, values: &mut Values<'_>) {
    for Remark { word: shown, kind } in Params::parse(words).remarks {
        let word = quoted(&shown);
        match kind {
            RemarkKind::Refused(reason) => {
                let found = format!("the option {shown} cannot stand here: {reason}");
                values.refuse(field, &found, "remove it");
            }
            RemarkKind::LeftOut(reason) => {
                values.warn(field, &format!("{shown} is left out: {reason}"), "remove it");
            }
            RemarkKind::Differs(how) => {
                values.warn(field, &format!("{shown} {how}"), "docs/RECEIVERS.md explains it");
            }
            RemarkKind::NoOption => {
                let found =
                    format!("{word} is no option; rsync would take it for a file or a remote");
                values.refuse(field, &found, help_for_no_option(&shown));
            }
            RemarkKind::NoValue => {
                let found = format!("the option {word} needs a value");
                values.refuse(field, &found, "write it behind the option");
            }
            RemarkKind::Unknown => {
                let found =
                    format!("rsync 3.5.0 has no option {word}; it stands in every run as written");
                values.warn(field, &found, &help_for_unknown(&shown));
            }
        }
    }
}

/// The dashes and signs that word processors, web pages and Chinese keyboards put in place of `-`.
const OTHER_DASHES: [char; 6] =
    ['\u{2010}', '\u{2011}', '\u{2013}', '\u{2014}', '\u{2212}', '\u{ff0d}'];

fn help_for_no_option(word: &str) -> &'static str {
    match word.starts_with(OTHER_DASHES) {
        true => "its dash is not the - of the keyboard, but that of a web page; type - or --",
        false => "write options only; quote a value that holds blanks",
    }
}

fn help_for_unknown(word: &str) -> String {
    let known = OPTIONS.iter().flat_map(|option| option.names).copied();
    match near_word(word.trim_start_matches('-'), known) {
        Some(near) => format!("did you mean --{near}?"),
        None => "remove it, unless the rsync of this machine has it".to_owned(),
    }
}
