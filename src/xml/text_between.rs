//! Text between elements: remarks, stray ends of comments, template language.
//! Such text has no effect. The problems report what an operator may have meant.

use super::report::{Problem, Problems};
use super::text::Span;
use crate::ground::words::quoted;

/// Marks of template languages: a file that contains them was never rendered.
const TEMPLATE_MARKS: [&str; 5] = ["{{", "{%", "<%", "${", "{#"];

/// Reports the pieces of text at `spans`, line by line.
pub fn note_text(text: &str, spans: &[Span], problems: &mut Problems) {
    let mut remarks: Vec<Span> = Vec::new();
    for line in joined(spans).iter().flat_map(|span| lines(text, span)) {
        let found = &text[line.clone()];
        if TEMPLATE_MARKS.iter().any(|mark| found.contains(mark)) && !found.starts_with("# ") {
            problems.push(template(found, line));
        } else if is_like_an_element(found) {
            let sentence = format!("{} is no element as it stands, and is ignored", quoted(found));
            problems.push(
                Problem::warning(line, sentence)
                    .help("if it should count, write < directly in front of its name"),
            );
        } else if let Some(name) = element_behind(text, &line).filter(|_| is_remark_mark(found)) {
            let sentence =
                format!("{} does not switch off <{name}> behind it, which is read", quoted(found));
            problems.push(
                Problem::warning(line, sentence)
                    .help("to switch it off, write <!-- in front of it and --> behind it"),
            );
        } else if found == "-->" {
            problems.push(
                Problem::warning(line, "this --> closes no comment and is ignored")
                    .help("the comment before it ended at the first -->"),
            );
        } else {
            remarks.push(line);
        }
    }
    if let Some(first) = remarks.first() {
        let sentence = match remarks.len() {
            1 => format!("the text {} between elements is ignored", quoted(&text[first.clone()])),
            n => format!("{n} lines of text between elements are ignored; this is the first"),
        };
        problems.push(
            Problem::warning(first.clone(), sentence).help("write remarks as <!-- remark -->"),
        );
    }
}

/// True for `#`, `//` and the like, which begin a comment in other languages.
fn is_remark_mark(found: &str) -> bool {
    !found.contains('<') && ["#", "//", ";", "--"].iter().any(|mark| found.starts_with(mark))
}

/// The name of the element whose start tag follows a piece of text on the same line.
fn element_behind<'a>(text: &'a str, piece: &Span) -> Option<&'a str> {
    let tag = text[piece.end..].trim_start_matches([' ', '\t']).strip_prefix('<')?;
    let len = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
    Some(&tag[..len]).filter(|name| !name.is_empty())
}

/// True for an element whose `<` is missing or followed by a blank: `delete start="true"/>`.
fn is_like_an_element(found: &str) -> bool {
    let name = found.trim_start_matches('<').trim_start();
    let len = name.find(|c: char| !c.is_ascii_alphanumeric());
    len.is_some_and(|len| len > 0 && name[len..].starts_with(' '))
        && name.ends_with('>')
        && name.contains("=\"")
}

fn template(found: &str, span: Span) -> Problem {
    Problem::error(span, format!("the template text {} was never filled in", quoted(found)))
        .help("render the template, or write the file by hand")
}

/// Merges adjacent pieces.
fn joined(spans: &[Span]) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => joined.push(span.clone()),
        }
    }
    joined
}

/// The non-blank lines of a piece, trimmed.
fn lines(text: &str, span: &Span) -> Vec<Span> {
    let mut start = span.start;
    let mut found = Vec::new();
    for line in text[span.clone()].split_inclusive('\n') {
        let trimmed = line.trim();
        if !trimmed.is_empty() {
            let at = start + line.find(trimmed).unwrap_or(0);
            found.push(at..at + trimmed.len());
        }
        start += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(text: &str) -> Vec<Problem> {
        let mut problems = Problems::default();
        note_text(text, std::slice::from_ref(&(0..text.len())), &mut problems);
        problems.into_sorted()
    }

    #[test]
    fn blanks_are_nothing() {
        assert_eq!(noted(" \r\n\t"), vec![]);
    }

    #[test]
    fn remarks_are_one_warning() {
        let problems = noted("# one\n  # two\n");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].span, Some(0..5));
    }

    #[test]
    fn an_element_without_its_bracket_is_told_apart_from_a_remark() {
        for text in ["delete start=\"false\"/>", "< delete start=\"false\" />"] {
            assert!(noted(text)[0].message.contains("is no element"), "{text}");
        }
        assert!(noted("# see <a b=\"c\">")[0].message.contains("ignored"));
    }

    #[test]
    fn an_unrendered_template_is_an_error() {
        let problems = noted("{% for host in hosts %}");
        assert_eq!(problems[0].severity, crate::xml::report::Severity::Error);
    }
}
