//! `<remotes file>` and `<remotes command>`: a list of remotes outside the configuration, one per line.
//! Does not read it; the caller that loads a configuration supplies a function for that.

use std::fmt;
use std::path::PathBuf;

use super::Remote;
use super::check::RsyncSection;
use super::raw::RawConfig;
use super::remotes::{check_name, check_options, check_way};
use super::values::Values;
use crate::xml::report::{Problem, Severity};
use crate::xml::schema::{Field, Node};
use crate::xml::text::{SourceText, Span};

/// A list with more lines is not a list of remotes.
const REMOTES_MAX: usize = 10_000;

/// Where a list of remotes comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListOrigin {
    /// An absolute path.
    File(PathBuf),
    /// A program and its arguments; it prints the list.
    Command(Vec<String>),
}

impl fmt::Display for ListOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            // Its arguments may hold a token.
            Self::Command(words) => {
                write!(f, "the command {}", words.first().map_or("", String::as_str))
            }
        }
    }
}

/// Reads a list; `None`: it is not read now. The error tells what is wrong with it.
pub type ReadList = fn(&ListOrigin) -> Result<Option<Vec<u8>>, String>;

/// All lists of the file.
pub fn list_origins(raw: &RawConfig, values: &Values<'_>) -> Vec<ListOrigin> {
    // Its problems are reported where its remotes are read.
    let mut scratch = Values::new(values.source);
    let lists = raw.sersync.all("localpath").flat_map(|local| local.all("remotes"));
    lists.filter_map(|list| check_origin(list, &mut scratch)).map(|(origin, _)| origin).collect()
}

/// Where the list comes from, and the position in the file that names it.
fn check_origin(list: &Node, values: &mut Values<'_>) -> Option<(ListOrigin, Span)> {
    match (list.written("file"), list.written("command")) {
        (Some(_), Some(command)) => {
            values.refuse(&command, "the list comes from a file already", "remove file or command");
            None
        }
        (Some(file), None) => {
            let path = values.absolute_path(&file, "the file that lists the remotes")?;
            Some((ListOrigin::File(path), file.span))
        }
        (None, Some(command)) => {
            let words = values.command(&command, "a command that prints the remotes")?;
            values.needs_program(&command, &words);
            (!words.is_empty()).then_some((ListOrigin::Command(words), command.span))
        }
        (None, None) => {
            let help = "add file=\"/etc/sersync/web.list\" or command=\"...\"";
            values.refuse(&list.field("file"), "nothing says where the list is", help);
            None
        }
    }
}

/// The remotes of one list.
pub(super) fn check_list(
    list: &Node,
    section: &RsyncSection,
    values: &mut Values<'_>,
) -> Vec<Remote> {
    let Some((origin, span)) = check_origin(list, values) else { return Vec::new() };
    let way = check_way(list, section, values);
    let common_name = list.written("name").and_then(|field| check_name(&field, way.ssh, values));
    // They are checked even if the list is not read, and once for all its remotes: every remote of it is reached alike.
    let (nobody, field) = ((None, "list".into()), list.field("name"));
    let like = way.to(nobody, "list".into(), &field, values);
    let options = like.map(|like| check_options(list, &like, &section.options, values));
    let refuse = |values: &mut Values<'_>, reason: String| {
        let sentence = format!("the list of remotes cannot be used: {reason}");
        values.of_machine.push(Problem::error(span.clone(), sentence));
        Vec::new()
    };
    let read = values.read_list.map(|read| read(&origin));
    let source = match read {
        None | Some(Ok(None)) => return Vec::new(),
        Some(Ok(Some(bytes))) => match read_source(&origin, &bytes) {
            Ok(source) => source,
            Err(reason) => return refuse(values, format!("{origin}: {reason}")),
        },
        Some(Err(reason)) => return refuse(values, format!("{origin}: {reason}")),
    };
    let mut of_list = Values::new(&source);
    let mut remotes: Vec<Remote> = Vec::new();
    for line in lines(&source) {
        let name = match (line.name.text.is_some(), &common_name) {
            (false, Some(name)) => Some(name.clone()),
            (true, _) => check_name(&line.name, way.ssh, &mut of_list),
            (false, None) => {
                let found = "the line names no module or path, and <remotes> has no name=";
                of_list.refuse(&line.name, found, "write it behind the host, with a blank between");
                None
            }
        };
        let host = of_list.host_with_user(&line.ip);
        let Some((host, name)) = host.zip(name) else { continue };
        let Some(destination) = way.to(host, name, &line.ip, &mut of_list) else { continue };
        remotes.extend(options.clone().map(|options| Remote { destination, options }));
    }
    let problems = of_list.problems.into_sorted();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.iter().partition(|problem| problem.severity == Severity::Error);
    if let Some(first) = errors.first() {
        let more = match errors.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        return refuse(values, format!("{}{more}", first.line(&source)));
    }
    if let Some(first) = warnings.first() {
        values.problems.push(Problem::warning(span.clone(), first.line(&source)));
    }
    match remotes.len() {
        0 => refuse(values, format!("{origin}: it names no remote")),
        many if many > REMOTES_MAX => refuse(
            values,
            format!("{origin}: it names {many} remotes; {REMOTES_MAX} are the limit"),
        ),
        _ => remotes,
    }
}

/// The text of a list. It must end with a newline; otherwise it may have been cut.
fn read_source(origin: &ListOrigin, bytes: &[u8]) -> Result<SourceText, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("it names no remote".to_owned());
    }
    if !bytes.ends_with(b"\n") {
        let reason = "its last line does not end with a newline, so it may be written only in part";
        return Err(reason.to_owned());
    }
    SourceText::decode(&origin.to_string(), bytes)
}

struct Line {
    ip: Field,
    /// Has no text when the line names only a host.
    name: Field,
}

/// Lines of the form `HOST` or `HOST NAME`; `#` begins a comment.
fn lines(source: &SourceText) -> impl Iterator<Item = Line> {
    let mut at = 0;
    source.text.split_inclusive('\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let words = line.trim_end();
        let host = words.trim_start();
        let host_at = start + words.len() - host.len();
        let (host, name) = host.split_once(char::is_whitespace).unwrap_or((host, ""));
        let name = name.trim_start();
        let end = start + words.len();
        let field = |key, text: &str, span: Span| Field {
            element: "remotes",
            key,
            text: (!text.is_empty()).then(|| text.to_owned()),
            span,
        };
        let ip = field("ip", host, host_at..host_at + host.len());
        let name_span = if name.is_empty() { host_at..end } else { end - name.len()..end };
        let name = field("name", name, name_span);
        (!host.is_empty()).then_some(Line { ip, name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_bytes};

    fn load(attributes: &str, read_list: ReadList) -> Result<(Vec<String>, Vec<String>), String> {
        let text = format!(
            "<head version=\"2.5\"><sersync><localpath watch=\"/w\"><remote ip=\"a\" name=\"m\"/>\
             <remotes {attributes}/></localpath><rsync><commonParams params=\"-a\"/></rsync></sersync></head>"
        );
        let options = LoadOptions { read_list: Some(read_list), ..LoadOptions::default() };
        let loaded = load_bytes("c.xml", text.as_bytes(), &options).map_err(|e| e.to_string())?;
        let remotes = loaded.config.mirrors[0].remotes.iter();
        let remotes = remotes.map(|remote| remote.destination.url()).collect();
        Ok((remotes, loaded.warning_lines()))
    }

    const FILE: &str = "file=\"/etc/web.list\" name=\"www\" port=\"8730\"";

    #[test]
    fn the_options_of_a_list_are_checked_even_if_it_is_not_read() {
        let unread = |_: &ListOrigin| Ok(None);
        let of = |wrong: &str| load(&format!("command=\"/bin/true\" name=\"www\" {wrong}"), unread);
        assert!(of("timeout=\"60\"").is_ok());
        for wrong in ["timeout=\"abc\"", "bwlimit=\"fast\"", "params=\"--dry-run\""] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_line_is_a_host_with_or_without_a_name_and_the_element_says_the_rest() {
        let list = |_: &ListOrigin| {
            let text = "# web\n\nb # the first\n\tbob@c  other module \n[2001:db8::1] x\r\na m\n";
            Ok(Some(text.as_bytes().to_vec()))
        };
        let (remotes, warnings) = load(FILE, list).unwrap();
        let expected = [
            "rsync://a/m",
            "rsync://b:8730/www",
            "rsync://bob@c:8730/other module",
            "rsync://[2001:db8::1]:8730/x",
            "rsync://a:8730/m",
        ];
        assert_eq!(remotes, expected, "{warnings:?}");
    }

    #[test]
    fn a_list_that_is_empty_torn_wrong_or_unreadable_is_an_error_with_its_line() {
        let refused = |list: ReadList| load(FILE, list).unwrap_err();
        let cases: [(ReadList, &str); 7] = [
            (|_| Ok(Some(Vec::new())), "/etc/web.list: it names no remote"),
            (|_| Ok(Some(b"# none\n".to_vec())), "/etc/web.list: it names no remote"),
            (|_| Ok(Some(b"192.0.2.2".to_vec())), "/etc/web.list: its last line does not end with"),
            (|_| Ok(Some(b"b\nc\n-e m\n".to_vec())), "/etc/web.list:3:1: "),
            (|_| Ok(Some(b"b /m\nc -x\n".to_vec())), "/etc/web.list:2:3: "),
            (|_| Ok(Some(b"b\0\n".to_vec())), "/etc/web.list: "),
            (|_| Err("cannot be read".into()), "/etc/web.list: cannot be read"),
        ];
        for (list, words) in cases {
            let report = refused(list);
            assert!(report.contains(words), "no {words:?} in {report}");
            assert!(report.contains("<remotes file="), "{report}");
        }
        let unnamed = load("file=\"/l\"", |_| Ok(Some(b"b\n".to_vec()))).unwrap_err();
        assert!(unnamed.contains("/l:1:1: ") && unnamed.contains("has no name="), "{unnamed}");
    }

    #[test]
    fn a_list_comes_from_one_place_and_is_not_read_where_nobody_says_how() {
        let never: ReadList = |_| Err("it was read".into());
        for attributes in ["name=\"m\"", "file=\"l\"", "file=\"/l\" command=\"x\"", "command=\"\""]
        {
            let refused = load(attributes, never).unwrap_err();
            assert!(!refused.contains("it was read"), "{attributes}: {refused}");
        }
        let unread: ReadList = |_| Ok(None);
        assert_eq!(load(FILE, unread).unwrap().0, ["rsync://a/m"]);
        let of_command: ReadList = |origin| match origin {
            ListOrigin::Command(words) if *words == ["hosts", "-g", "a b"] => {
                Ok(Some(b"h\n".to_vec()))
            }
            other => Err(format!("{other:?}")),
        };
        let command = "command=\"hosts -g 'a b'\" name=\"m\"";
        assert_eq!(load(command, of_command).unwrap().0, ["rsync://a/m", "rsync://h/m"]);
    }
}
