//! Parses the inside of a start tag into attributes with positions, as leniently as sersync2's parser.
//! Does not know which attributes have a meaning.

use super::report::{Problem, Problems};
use super::text::Span;
use crate::ground::words::quoted;

/// The longest entity, from `&` to `;`.
const ENTITY_BYTES_MAX: usize = 16;

/// One `name="value"` of a start tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// As written.
    pub name: String,
    /// The position of the name.
    pub name_span: Span,
    /// Entities decoded; `None` when there is no `=`.
    pub value: Option<String>,
    /// The position of the value, without its quotation marks.
    pub value_span: Span,
}

/// Reads the attributes in `text[span]`.
pub fn parse_attributes(text: &str, span: Span, problems: &mut Problems) -> Vec<Attribute> {
    let mut scanner = Scanner { text, at: span.start, end: span.end, problems };
    let mut attributes = Vec::new();
    while let Some(attribute) = scanner.next_attribute() {
        attributes.push(attribute);
    }
    attributes
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    problems: &'a mut Problems,
}

impl Scanner<'_> {
    fn next_attribute(&mut self) -> Option<Attribute> {
        self.skip_to_name()?;
        let name_span = self.take_while(|c| !is_blank(c) && !is_equals(c) && quote_of(c).is_none());
        let name = self.text[name_span.clone()].to_owned();
        let after_name = self.at;
        self.take_while(is_blank);
        if !self.peek().is_some_and(is_equals) {
            self.at = after_name;
            return Some(Attribute { name, value: None, value_span: name_span.clone(), name_span });
        }
        self.step();
        self.take_while(is_blank);
        let value_span = self.value(&name);
        Some(Attribute {
            name,
            name_span,
            value: Some(self.decode_entities(value_span.clone())),
            value_span,
        })
    }

    /// Skips blanks, and with a warning anything that cannot begin a name.
    fn skip_to_name(&mut self) -> Option<()> {
        loop {
            self.take_while(is_blank);
            let c = self.peek()?;
            if c.is_alphanumeric() || c == '_' {
                return Some(());
            }
            let span = self.take_while(|c| !is_blank(c) && !c.is_alphanumeric() && c != '_');
            let found = quoted(&self.text[span.clone()]).to_string();
            self.problems
                .push(Problem::warning(span, format!("{found} between attributes is ignored")));
        }
    }

    /// The span of the value that begins here.
    fn value(&mut self, name: &str) -> Span {
        let Some(quote) = self.peek().and_then(quote_of) else {
            return self.bare_value(name);
        };
        let mark = self.at..self.at + self.step().map_or(0, char::len_utf8);
        let rest = &self.text[self.at..self.end];
        let close = rest.char_indices().find(|&(_, c)| quote.closes(c));
        let Some((len, closing)) = close else {
            let sentence = format!("the quotation mark before the value of {name} is never closed");
            self.problems.push(Problem::error(mark, sentence).label("opened here"));
            return self.take_while(|c| !is_blank(c));
        };
        let span = self.at..self.at + len;
        self.at = span.end + closing.len_utf8();
        self.check_marks(name, &mark, &span);
        span
    }

    /// A value without quotation marks ends at the next blank.
    fn bare_value(&mut self, name: &str) -> Span {
        let rest = &self.text[self.at..self.end];
        if let Some(len) = rest.strip_prefix("{{").and_then(|inner| inner.find("}}")) {
            // A template's placeholder may contain blanks; the check of the value refuses it.
            let start = self.at;
            self.at += "{{".len() + len + "}}".len();
            return start..self.at;
        }
        let span = self.take_while(|c| !is_blank(c));
        // The value may be a secret, so do not repeat it.
        let sentence =
            format!("the value of {name} has no quotation marks; it ends at the next blank");
        self.problems.push(
            Problem::warning(span.clone(), sentence)
                .help(format!("write {name}=\"...\" around it")),
        );
        span
    }

    /// Reports non-ASCII quotation marks, and a value that runs into the next attribute.
    fn check_marks(&mut self, name: &str, mark: &Span, value: &Span) {
        if !self.text[mark.start..self.at].replace(&self.text[value.clone()], "").is_ascii() {
            let sentence = format!("the value of {name} is in full-width quotation marks");
            self.problems.push(
                Problem::warning(mark.start..self.at, sentence)
                    .help("they are read as \"; write straight ones"),
            );
        }
        let glued = self.peek().is_some_and(|c| !is_blank(c));
        if glued && ends_like_an_attribute(&self.text[value.clone()]) {
            let sentence = format!("the quotation mark before the value of {name} is never closed");
            self.problems.push(Problem::error(mark.clone(), sentence).label("opened here"));
        } else if glued && self.text[value.clone()].ends_with('=') {
            let behind = self.text[self.at..self.end].split(is_blank).next().unwrap_or_default();
            let sentence = format!(
                "the value of {name} ends at this quotation mark, and {} is outside of it",
                quoted(behind.trim_end_matches('/'))
            );
            self.problems.push(
                Problem::error(value.end..self.at, sentence)
                    .help("inside of a value write ' or &quot; for a quotation mark"),
            );
        }
    }

    fn decode_entities(&mut self, span: Span) -> String {
        let raw = &self.text[span.clone()];
        let mut decoded = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(at) = rest.find('&') {
            decoded.push_str(&rest[..at]);
            rest = &rest[at..];
            let end = rest.bytes().take(ENTITY_BYTES_MAX).position(|byte| byte == b';');
            let known = end.and_then(|end| Some((entity(&rest[1..end])?, end + 1)));
            match known {
                Some((c, len)) => {
                    decoded.push(c);
                    rest = &rest[len..];
                }
                None => {
                    decoded.push('&');
                    rest = &rest[1..];
                    let start = span.end - rest.len() - 1;
                    self.problems.push(
                        Problem::warning(
                            start..start + 1,
                            "`&` begins no known entity; it is read as it stands",
                        )
                        .help("write &amp; for the character itself"),
                    );
                }
            }
        }
        decoded.push_str(rest);
        decoded
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..self.end].chars().next()
    }

    fn step(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> Span {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.step();
        }
        start..self.at
    }
}

/// The kind of quotation mark that opened a value.
#[derive(Clone, Copy, PartialEq)]
enum Quote {
    Double,
    Single,
    WideDouble,
    WideSingle,
}

impl Quote {
    /// True when `c` closes the value. An editor may have replaced a straight closing mark by a full-width one.
    fn closes(self, c: char) -> bool {
        match self {
            Self::Double => matches!(c, '"' | '”' | '＂'),
            Self::Single => matches!(c, '\'' | '’' | '＇'),
            Self::WideDouble => matches!(c, '"' | '“' | '”' | '＂'),
            Self::WideSingle => matches!(c, '\'' | '‘' | '’' | '＇'),
        }
    }
}

fn quote_of(c: char) -> Option<Quote> {
    match c {
        '"' => Some(Quote::Double),
        '\'' => Some(Quote::Single),
        '“' | '”' | '＂' => Some(Quote::WideDouble),
        '‘' | '’' | '＇' => Some(Quote::WideSingle),
        _ => None,
    }
}

fn is_blank(c: char) -> bool {
    c.is_whitespace()
}

fn is_equals(c: char) -> bool {
    matches!(c, '=' | '＝')
}

/// True for a value whose closing mark was probably forgotten: `127.0.0.1 name=`.
fn ends_like_an_attribute(value: &str) -> bool {
    let Some(before) = value.trim_end().strip_suffix('=') else {
        return false;
    };
    let name_len = before.chars().rev().take_while(|c| c.is_alphanumeric()).count();
    name_len > 0 && before.chars().rev().nth(name_len).is_some_and(is_blank)
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32).filter(|&c| c != '\0')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes as `name=value` words, and the problems.
    fn read(text: &str) -> (String, Vec<Problem>) {
        let mut problems = Problems::default();
        let attributes = parse_attributes(text, 0..text.len(), &mut problems);
        let words = attributes.iter().map(|a| match &a.value {
            Some(value) => format!("{}={value}", a.name),
            None => a.name.clone(),
        });
        (words.collect::<Vec<_>>().join(" "), problems.into_sorted())
    }

    #[test]
    fn good_attributes_are_read_without_a_word() {
        for text in [
            r#"ip="1.2.3.4" name="a""#,
            r#"ip='1.2.3.4' name="a""#,
            r#" ip = "1.2.3.4"name="a""#,
            "ip\t=\r\n\t'1.2.3.4'\u{3000}name='a'",
        ] {
            assert_eq!(read(text), ("ip=1.2.3.4 name=a".into(), vec![]), "{text}");
        }
    }

    #[test]
    fn lenient_forms_are_read_with_a_warning() {
        for text in [
            "ip=1.2.3.4 name=a",
            "ip=“1.2.3.4” name=＂a＂",
            "ip=\"1.2.3.4” name=\"a\"",
            "ip=”1.2.3.4“ name=‘a’",
            "ip＝\"1.2.3.4\", name=\"a\"",
        ] {
            let (words, problems) = read(text);
            assert_eq!(words, "ip=1.2.3.4 name=a", "{text}");
            assert!(!problems.is_empty(), "{text}");
            assert!(problems.iter().all(|p| p.severity == crate::xml::report::Severity::Warning));
        }
    }

    #[test]
    fn a_forgotten_mark_is_an_error_at_its_place() {
        for text in [r#"ip="1.2.3.4 name="a""#, r#"ip="1.2.3.4"#, "ip='1.2.3.4"] {
            let (_, problems) = read(text);
            let error = problems.iter().find(|p| p.label.is_some()).unwrap();
            assert_eq!(error.span, Some(3..4), "{text}");
        }
    }

    #[test]
    fn entities_are_decoded_and_a_lone_ampersand_stays() {
        let (words, problems) = read(r#"a="&lt;&amp;&#65;&#x4E2d;&quot;" b="x&y; & &#0;""#);
        assert_eq!(words, "a=<&A中\" b=x&y; & &#0;");
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn a_name_without_value_is_kept_as_such() {
        assert_eq!(read("start name='x'").0, "start name=x");
    }
}
