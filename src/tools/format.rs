//! Formats one event: the default line, CSV, or the user's `--format`.
//! Neither reads events nor prints anything.

use std::ffi::CString;

use crate::sys::posix::strftime;
use crate::tools::events;

/// The longest format that inotify-tools accepts.
const FORMAT_BYTES_MAX: usize = 4096;

/// One event, with the name of its watch.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence<'a> {
    /// The watched file or directory, spelled as given; a directory ends with a slash.
    pub watch: &'a [u8],
    /// The name in the watched directory; empty when the event is about the watched file itself.
    pub name: &'a [u8],
    /// What happened: `IN_*` bits.
    pub mask: u32,
    /// Equal for the two halves of a rename.
    pub cookie: u32,
}

/// How events are written.
#[derive(Debug)]
pub enum EventLayout {
    /// `watch EVENTS name`.
    Default,
    /// Comma-separated values.
    Csv,
    /// The layout given with `--format`.
    Format(Format),
}

impl EventLayout {
    /// Appends the event; `seconds` is the time, since the epoch.
    pub fn write(&self, out: &mut Vec<u8>, occurrence: &Occurrence<'_>, seconds: i64) {
        match self {
            EventLayout::Default => {
                out.extend_from_slice(occurrence.watch);
                out.push(b' ');
                events::write(out, occurrence.mask, b',');
                out.push(b' ');
                out.extend_from_slice(occurrence.name);
                out.push(b'\n');
            }
            EventLayout::Csv => write_csv(out, occurrence),
            EventLayout::Format(format) => _ = format.write(out, occurrence, seconds),
        }
    }
}

/// A piece of a format.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Watch,
    Name,
    Cookie,
    /// The names of the events, separated by this byte.
    Events(u8),
    Time,
    /// A lone `%` at the end of the format: inotify-tools then prints nothing for any event.
    Nothing,
}

/// A parsed `--format`.
#[derive(Debug)]
pub struct Format {
    pieces: Vec<Piece>,
    time: CString,
}

impl Format {
    /// Parses a format; `time` is the format of `%T`. `None` when the format is empty, too long, or prints nothing for
    /// an event without names.
    pub fn parse(format: &[u8], time: CString) -> Option<Self> {
        if format.is_empty() || format.len() > FORMAT_BYTES_MAX {
            return None;
        }
        let format = Self { pieces: parse_pieces(format), time };
        let nameless = Occurrence { watch: b"", name: b"", mask: events::ALL, cookie: 0 };
        let mut out = Vec::new();
        let written = format.write(&mut out, &nameless, 0);
        (written == Written::Nothing || !out.is_empty()).then_some(format)
    }

    fn write(&self, out: &mut Vec<u8>, occurrence: &Occurrence<'_>, seconds: i64) -> Written {
        let start = out.len();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Watch => out.extend_from_slice(occurrence.watch),
                Piece::Name => out.extend_from_slice(occurrence.name),
                Piece::Cookie => {
                    out.extend_from_slice(format!("{:x}", occurrence.cookie).as_bytes());
                }
                Piece::Events(separator) => events::write(out, occurrence.mask, *separator),
                Piece::Time => match strftime(&self.time, seconds) {
                    Some(time) => out.extend_from_slice(&time),
                    None => {
                        out.truncate(start);
                        return Written::Nothing;
                    }
                },
                Piece::Nothing => {
                    out.truncate(start);
                    return Written::Nothing;
                }
            }
        }
        Written::All
    }
}

/// Whether an event was written.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    All,
    /// The format is invalid; as in inotify-tools, nothing was written.
    Nothing,
}

fn parse_pieces(format: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some((&byte, after)) = rest.split_first() {
        let (piece, after) = match (byte, after) {
            (b'%', []) => (Piece::Nothing, after),
            (b'%', [letter, after @ ..]) => parse_directive(*letter, after),
            _ => (Piece::Text(vec![byte]), after),
        };
        match (pieces.last_mut(), piece) {
            (Some(Piece::Text(text)), Piece::Text(more)) => text.extend(more),
            (_, piece) => pieces.push(piece),
        }
        rest = after;
    }
    pieces
}

/// The meaning of `%` with this letter, and the rest of the format.
fn parse_directive(letter: u8, after: &[u8]) -> (Piece, &[u8]) {
    let piece = match (letter, after) {
        (b'%', _) => Piece::Text(vec![b'%']),
        (b'0', _) => Piece::Text(vec![0]),
        (b'n', _) => Piece::Text(vec![b'\n']),
        (b'w', _) => Piece::Watch,
        (b'f', _) => Piece::Name,
        (b'c', _) => Piece::Cookie,
        (b'e', _) => Piece::Events(b','),
        (b'T', _) => Piece::Time,
        (separator, [b'e', after @ ..]) => return (Piece::Events(separator), after),
        (other, _) => Piece::Text(vec![b'%', other]),
    };
    (piece, after)
}

fn write_csv(out: &mut Vec<u8>, occurrence: &Occurrence<'_>) {
    if !occurrence.watch.is_empty() {
        write_csv_field(out, occurrence.watch);
        out.push(b',');
    }
    let mut names = Vec::new();
    events::write(&mut names, occurrence.mask, b',');
    write_csv_field(out, &names);
    out.push(b',');
    write_csv_field(out, occurrence.name);
    out.push(b'\n');
}

/// Appends a field. Quotes it if it contains a comma, a quote or a newline, or begins or ends with a blank.
fn write_csv_field(out: &mut Vec<u8>, field: &[u8]) {
    let special = |byte: &u8| matches!(byte, b'"' | b',' | b'\n');
    let needs_quotes =
        field.iter().any(special) || field.first() == Some(&b' ') || field.last() == Some(&b' ');
    if !needs_quotes {
        return out.extend_from_slice(field);
    }
    out.push(b'"');
    for &byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Occurrence<'_> =
        Occurrence { watch: b"d/", name: b"a \"b\"", mask: libc::IN_CLOSE_WRITE, cookie: 0x1f };

    fn formatted(format: &str) -> Option<String> {
        let format = Format::parse(format.as_bytes(), c"%Y".into())?;
        let mut out = Vec::new();
        EventLayout::Format(format).write(&mut out, &WRITE, 86_400);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_directive_has_its_text() {
        let all = formatted("%w|%f|%e|%:e|%c|%T|%%|%n|%0|%x").unwrap();
        assert_eq!(all, "d/|a \"b\"|CLOSE_WRITE,CLOSE|CLOSE_WRITE:CLOSE|1f|1970|%|\n|\0|%x");
    }

    #[test]
    fn a_format_that_writes_nothing_is_refused() {
        for refused in ["", "%w", "%f%w"] {
            assert_eq!(formatted(refused), None, "{refused}");
        }
        assert_eq!(formatted(&"x".repeat(FORMAT_BYTES_MAX + 1)), None);
        assert_eq!(formatted("%w%0").unwrap(), "d/\0");
        assert_eq!(formatted("abc%").unwrap(), "");
    }

    #[test]
    fn csv_quotes_only_where_it_must() {
        let mut out = Vec::new();
        EventLayout::Csv.write(&mut out, &WRITE, 0);
        assert_eq!(out, b"d/,\"CLOSE_WRITE,CLOSE\",\"a \"\"b\"\"\"\n");
    }
}
