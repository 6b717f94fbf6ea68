//! Reads single values of a configuration into types: switches, numbers, hosts, paths, words.
//! Each refusal names the attribute, what was found and what was expected.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::host::{check_host, check_user};
use super::lists::ReadList;
use super::spans::ReportNeed;
use crate::filter::expression_of;
use crate::ground::words::{near_word, quoted};
use crate::rsync::options::SessionCounts;
use crate::xml::report::{Problem, Problems};
use crate::xml::schema::{Field, Node};
use crate::xml::text::{SourceText, Span};

/// How many sessions may be kept ready for a remote, and how many of them while nothing changes.
const READY_MAX: i64 = 16;
const IDLE_MAX: i64 = 4;

/// Reads values of one file.
pub struct Values<'a> {
    /// The file, for the bytes of names.
    pub source: &'a SourceText,
    /// The problems found so far.
    pub problems: Problems,
    /// What this machine lacks.
    pub of_machine: Problems,
    /// True when tags are broken, so that a missing element may only be unreadable.
    pub damaged: bool,
    /// Reads a list of remotes that is kept elsewhere.
    pub read_list: Option<ReadList>,
    /// The positions of the remotes that are directories of this machine.
    pub locals: Vec<Span>,
    /// What the attributes read so far need on this machine.
    pub needs: Vec<(Field, ReportNeed)>,
}

impl<'a> Values<'a> {
    /// A reader without problems.
    pub fn new(source: &'a SourceText) -> Self {
        let (problems, of_machine) = (Problems::default(), Problems::default());
        let (locals, needs) = (Vec::new(), Vec::new());
        Self { source, problems, of_machine, damaged: false, read_list: None, locals, needs }
    }

    /// Adds an error at `field`.
    pub fn refuse(&mut self, field: &Field, found: &str, help: &str) {
        let sentence = format!("{}: {found}", name_of(field));
        let problem = Problem::error(field.span.clone(), sentence);
        self.problems.push(problem.help(help));
    }

    /// Adds a warning at `field`.
    pub fn warn(&mut self, field: &Field, found: &str, help: &str) {
        let sentence = format!("{}: {found}", name_of(field));
        let problem = Problem::warning(field.span.clone(), sentence);
        self.problems.push(problem.help(help));
    }

    /// The `start` of an element; `absent` is its value when the element is not in the file.
    pub fn switch(&mut self, element: Option<&Node>, absent: bool) -> bool {
        let Some(element) = element else { return absent };
        let start = element.field("start");
        if start.text.is_none() && !element.is_bare() && !absent {
            let help = "write start=\"true\" to switch it on, start=\"false\" to keep it off";
            self.warn(&start, "the attribute is missing, so it is off", help);
        }
        self.truth(&start, absent)
    }

    /// `true` or `false`; `missing` when the attribute is not there.
    pub fn truth(&mut self, field: &Field, missing: bool) -> bool {
        let Some(text) = &field.text else {
            return missing;
        };
        let word = text.trim();
        match word {
            "true" => return true,
            "false" => return false,
            _ => {}
        }
        for (known, value) in [("true", true), ("false", false)] {
            if word.eq_ignore_ascii_case(known) {
                let found = format!("{} is read as {known}", quoted(text));
                self.warn(field, &found, "write it in small letters");
                return value;
            }
        }
        let near =
            near_word(word, ["true", "false"]).or(match word.to_ascii_lowercase().as_str() {
                "yes" | "on" | "1" | "y" | "t" => Some("true"),
                "no" | "off" | "0" | "n" | "f" => Some("false"),
                _ => None,
            });
        let help = match near {
            Some(near) => format!("did you mean {near}?"),
            None => "write true or false".to_owned(),
        };
        let found = format!("expected true or false, found {}", found(text));
        self.refuse(field, &found, &help);
        missing
    }

    /// One of `known` words; `missing` when the attribute is not there.
    pub fn one_of<T: Copy>(&mut self, field: &Field, known: &[(&str, T)], missing: T) -> T {
        let Some(text) = &field.text else {
            return missing;
        };
        let is_it = |(word, _): &&(&str, T)| word.eq_ignore_ascii_case(text.trim());
        if let Some((_, value)) = known.iter().find(is_it) {
            return *value;
        }
        let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
        let help = match near_word(text.trim(), words.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("write one of {}", words.join(", ")),
        };
        let found = format!("expected {}, found {}", words.join(" or "), found(text));
        self.refuse(field, &found, &help);
        missing
    }

    /// The trimmed text; refused when it is missing or empty, or holds a placeholder.
    pub fn text(&mut self, field: &Field, expected: &str) -> Option<String> {
        self.text_without(field, expected, placeholder)
    }

    /// The words of a command; refused when they are missing. Braces and angle brackets may be part of them.
    pub fn command(&mut self, field: &Field, expected: &str) -> Option<Vec<String>> {
        self.text_without(field, expected, template_mark)?;
        Some(self.split(field))
    }

    fn text_without(
        &mut self,
        field: &Field,
        expected: &str,
        placeholder: fn(&str) -> Option<String>,
    ) -> Option<String> {
        let Some(text) = &field.text else {
            let found = format!("the attribute is missing; expected {expected}");
            self.refuse(field, &found, &format!("add {}=\"...\"", field.key));
            return None;
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            let found = format!("it is empty; expected {expected}");
            self.refuse(field, &found, &format!("write {expected} between the quotation marks"));
            return None;
        }
        if let Some(mark) = placeholder(trimmed) {
            // The values may be secrets, so do not repeat them.
            let found = format!("it holds {mark}, a placeholder that was never filled in");
            self.refuse(field, &found, &format!("write {expected}"));
            return None;
        }
        if let Some(c) = trimmed.chars().find(|c| c.is_control()) {
            let found = format!("it holds the control character {}", c.escape_default());
            self.refuse(field, &found, &format!("write {expected}"));
            return None;
        }
        if trimmed.len() != text.len() {
            self.warn(field, "blanks around the value are dropped", "remove them");
        }
        Some(trimmed.to_owned())
    }

    /// False, and refused, for letters outside of ASCII in a file that is not UTF-8: they would be handed on as UTF-8.
    pub fn is_as_meant(&mut self, field: &Field, text: &str) -> bool {
        if self.source.is_utf8() || text.is_ascii() {
            return true;
        }
        let found = "its letters would be handed on as UTF-8, but the file is of another encoding";
        self.refuse(field, found, "save the file as UTF-8, or use ASCII letters here");
        false
    }

    /// A whole number from `min` to `max`.
    pub fn number(&mut self, field: &Field, expected: &str, min: i64, max: i64) -> Option<i64> {
        let text = self.text(field, expected)?;
        match text.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                let found = format!("expected {expected}, found {}", quoted(&text));
                let help = match min {
                    // Zero and negative numbers mean the default.
                    ..0 => "write the number alone, such as 60".to_owned(),
                    _ => format!("write a number from {min} to {max}"),
                };
                self.refuse(field, &found, &help);
                None
            }
        }
    }

    /// A TCP port.
    pub fn port(&mut self, field: &Field) -> Option<u16> {
        let number = self.number(field, "a port number", 1, i64::from(u16::MAX))?;
        u16::try_from(number).ok()
    }

    /// A number of seconds.
    pub fn seconds(&mut self, field: &Field) -> Option<u32> {
        let number = self.number(field, "a number of seconds", 0, i64::from(i32::MAX))?;
        u32::try_from(number).ok()
    }

    /// `<session>`: how many sessions are connected; each costs memory on both sides.
    pub fn sessions(&mut self, session: Option<&Node>) -> SessionCounts {
        const EXPECTED: &str = "a number of sessions";
        let Some(session) = session else { return SessionCounts::default() };
        let idle = session.written("idle");
        let ready = session.written("ready").or(idle.is_none().then(|| session.field("ready")));
        let ready = ready.and_then(|field| self.number(&field, EXPECTED, 0, READY_MAX));
        let idle = idle.and_then(|field| {
            self.number(&field, EXPECTED, 0, ready.unwrap_or(IDLE_MAX).min(IDLE_MAX))
        });
        let count = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
        SessionCounts { ready: count(ready), idle: count(idle) }
    }

    /// A rate as rsync's `--bwlimit` takes it: `500`, `1.5m`, `0`.
    pub fn rate(&mut self, field: &Field) -> Option<String> {
        let text = self.text(field, "a rate such as 500 (KiB a second) or 1.5m")?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text[digits.len()..].to_ascii_lowercase();
        let is_number =
            digits.parse::<f64>().is_ok() && digits.starts_with(|c: char| c.is_ascii_digit());
        let units = ["", "b", "k", "kb", "kib", "m", "mb", "mib", "g", "gb", "gib"];
        if is_number && units.contains(&unit.as_str()) {
            return Some(text);
        }
        let found = format!("{} is no rate", quoted(&text));
        self.refuse(
            field,
            &found,
            "write KiB a second, such as 500, or a unit behind it, such as 1.5m",
        );
        None
    }

    /// A path in the bytes of the file, without repeated or trailing slashes; refused when it holds `..`.
    pub fn path(&mut self, field: &Field, expected: &str) -> Option<PathBuf> {
        let text = self.text(field, expected)?;
        if let Some(name) = variable(&text) {
            let found = format!(
                "{} holds {}, a placeholder that was never filled in",
                quoted(&text),
                quoted(name)
            );
            self.refuse(field, &found, &format!("write {expected}"));
            return None;
        }
        let path = PathBuf::from(std::ffi::OsString::from_vec(self.source.bytes_of(&text)));
        if path.components().any(|part| part.as_os_str() == "..") {
            let found = format!("{} holds `..`", quoted(&text));
            self.refuse(field, &found, "write the path without it");
            return None;
        }
        // Rebuilt from its components, which drops `//`, `/./` and a trailing slash.
        Some(path.components().collect())
    }

    /// A path that begins with a slash.
    pub fn absolute_path(&mut self, field: &Field, expected: &str) -> Option<PathBuf> {
        let path = self.path(field, expected)?;
        if path.is_absolute() {
            return Some(path);
        }
        let shown = path.to_string_lossy();
        let found = format!("{} is no absolute path", quoted(&shown));
        let help = if path.starts_with("~") {
            "`~` means nothing here; write the directory's full path".to_owned()
        } else {
            "write it from the root on, beginning with /".to_owned()
        };
        self.refuse(field, &found, &help);
        None
    }

    /// A host name or address.
    pub fn host(&mut self, field: &Field) -> Option<String> {
        let text = self.text(field, "a host name or an IP address")?;
        self.checked_host(field, &text, check_host(&text))
    }

    /// A host name or address, perhaps with a leading `user@`.
    pub fn host_with_user(&mut self, field: &Field) -> Option<(Option<String>, String)> {
        let text = self.text(field, "a host name or an IP address")?;
        let Some((user, host)) = text.rsplit_once('@') else {
            return self.checked_host(field, &text, check_host(&text)).map(|host| (None, host));
        };
        let checked = check_user(user).and_then(|()| check_host(host));
        self.checked_host(field, &text, checked).map(|host| (Some(user.to_owned()), host))
    }

    fn checked_host(
        &mut self,
        field: &Field,
        text: &str,
        checked: Result<String, String>,
    ) -> Option<String> {
        checked
            .inspect_err(|reason| {
                let found = format!("{} is no host name or IP address: {reason}", quoted(text));
                self.refuse(field, &found, "write a name such as backup.example.com, or 192.0.2.7");
            })
            .ok()
    }

    /// A user name of the remote.
    pub fn user(&mut self, field: &Field) -> Option<String> {
        let text = self.text(field, "a user name")?;
        if let Err(reason) = check_user(&text) {
            let found = format!("{} is no user name: {reason}", quoted(&text));
            self.refuse(field, &found, "write the name alone");
            return None;
        }
        Some(text)
    }

    /// Refuses an expression that is not in its attribute, such as `<exclude>(.*)\.log</exclude>`: the operator believes that
    /// these files stay here.
    pub fn refuse_unwritten(&mut self, field: &Field, what_follows: &str) {
        let behind = self.source.text.get(field.span.end..).unwrap_or_default();
        let text = &behind[..behind.find('<').unwrap_or(0)];
        let meant = if text.trim().is_empty() { "..." } else { text.trim() };
        let sentence =
            format!("{}: the attribute is missing, so it {what_follows}", name_of(field));
        let help = format!("write <{} {}=\"{meant}\"/>", field.element, field.key);
        let end = field.span.end + text.len();
        let problem = Problem::error(field.span.clone(), sentence).help(help);
        self.problems.push_torn(problem, end);
    }

    /// Notes that the program of a command is needed on this machine.
    pub fn needs_program(&mut self, field: &Field, command: &[String]) {
        let need = command.first().map(|program| ReportNeed::Program(program.clone()));
        self.needs.extend(need.map(|need| (field.clone(), need)));
    }

    /// A regular expression; `None` when it is empty, missing or refused.
    pub fn expression(&mut self, field: &Field) -> Option<String> {
        if field.text.is_none() {
            self.refuse_unwritten(field, "matches nothing");
            return None;
        }
        let Some(text) = field.text.as_ref().filter(|text| !text.is_empty()) else {
            let help = "write a Perl-style expression, or remove the element";
            self.warn(field, "it is empty and matches nothing", help);
            return None;
        };
        match expression_of(self.source, text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                let found = format!("{} is refused: {}", quoted(text), error.reason);
                self.refuse(field, &found, &error.help);
                None
            }
        }
    }

    /// Words as a shell would split them; nothing is expanded. Empty when the attribute is missing.
    pub fn words(&mut self, field: &Field) -> Vec<String> {
        let Some(text) = &field.text else {
            return Vec::new();
        };
        if let Some(mark) = placeholder(text).filter(|mark| !mark.contains(',')) {
            let found = format!("it holds {mark}, a placeholder that was never filled in");
            self.refuse(field, &found, "write the words themselves");
            return Vec::new();
        }
        self.split(field)
    }

    /// Splits words as a shell would.
    fn split(&mut self, field: &Field) -> Vec<String> {
        let Some(text) = &field.text else { return Vec::new() };
        if !self.is_as_meant(field, text) {
            return Vec::new();
        }
        let words = shlex::split(text).unwrap_or_else(|| {
            let found = "a quotation mark is never closed";
            self.refuse(field, found, "close it, or put a backslash before it");
            Vec::new()
        });
        if text.contains(['$', '`']) {
            let found = "no shell reads this: `$` and back quotes stand for themselves";
            self.warn(field, found, "write the value out");
        }
        words
    }
}

/// An attribute as messages name it: `<timeout time>`.
pub fn name_of(field: &Field) -> String {
    format!("<{} {}>", field.element, field.key)
}

fn found(text: &str) -> String {
    match text.trim() {
        "" => "nothing".to_owned(),
        _ => quoted(text).to_string(),
    }
}

/// A placeholder in `text` that was copied from a template or a manual.
pub fn placeholder(text: &str) -> Option<String> {
    mark_of(text, &[("{{", "}}"), ("{%", "%}"), ("${", "}"), ("<", ">"), ("{", "}"), ("%(", ")")])
}

/// The first mark of a template.
fn template_mark(text: &str) -> Option<String> {
    mark_of(text, &[("{{", "}}"), ("{%", "%}"), ("${", "}")])
}

fn mark_of(text: &str, pairs: &[(&str, &str)]) -> Option<String> {
    for (open, close) in pairs {
        let Some(start) = text.find(open) else {
            continue;
        };
        let Some(len) = text[start + open.len()..].find(close) else {
            continue;
        };
        if len > 0 {
            let end = start + open.len() + len + close.len();
            return Some(quoted(&text[start..end]).to_string());
        }
    }
    None
}

/// The first `$NAME` in `text`; no shell expands it here.
fn variable(text: &str) -> Option<&str> {
    text.match_indices('$').find_map(|(start, _)| {
        let behind = &text[start + 1..];
        let len = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &behind[..len.unwrap_or(behind.len())];
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        begins_well.then(|| &text[start..start + 1 + name.len()])
    })
}

/// True when `inner` is `outer` or lies below it.
pub fn is_within(inner: &Path, outer: &Path) -> bool {
    inner.starts_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_behind_other_dollars() {
        assert_eq!(variable("/srv/a$/b$5/$name/$x"), Some("$name"));
        assert_eq!(variable("$HOME"), Some("$HOME"));
        assert_eq!(variable("/price/5$/$$/é$"), None);
    }
}
