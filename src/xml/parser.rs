//! Parses text into a small tree of elements with positions, as tolerant as sersync2's reader, but with warnings.
//! Does not know which elements exist. Everything that it skips becomes a problem with its position.

use quick_xml::Reader;
use quick_xml::errors::{Error as XmlError, SyntaxError};
use quick_xml::events::Event;

use super::attributes::{Attribute, parse_attributes};
use super::report::{Problem, Problems, Severity};
use super::text::Span;
use super::text_between::note_text;
use crate::ground::words::{near_word, quoted};

/// A file with deeper nesting is not a configuration.
const DEPTH_MAX: usize = 64;

/// After this many broken tags the rest of the file is ignored.
const BROKEN_MAX: usize = 50;

/// One element of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// As written.
    pub name: String,
    /// The name within the start tag.
    pub name_span: Span,
    /// The whole start tag.
    pub span: Span,
    /// In the order of the file, repeated ones too.
    pub attributes: Vec<Attribute>,
    /// In the order of the file.
    pub children: Vec<Element>,
    /// True when its end tag is missing, so that what follows it was read as its content.
    pub is_unclosed: bool,
    /// Its end tag, if it is misspelt; that is already a problem.
    pub misspelt_end: Option<Span>,
}

/// Parses `text`; reports broken parts and skips them.
pub fn parse_elements(text: &str, problems: &mut Problems) -> Vec<Element> {
    let mut parser = Parser {
        text,
        problems,
        at: 0,
        open: Vec::new(),
        roots: Vec::new(),
        texts: Vec::new(),
        broken: 0,
        runaway: None,
        is_torn: false,
    };
    while parser.step() {}
    parser.finish()
}

struct Parser<'a> {
    text: &'a str,
    problems: &'a mut Problems,
    at: usize,
    open: Vec<Element>,
    roots: Vec<Element>,
    texts: Vec<Span>,
    broken: usize,
    /// The last comment without its own end: the end of a later comment closed it.
    runaway: Option<Problem>,
    /// True when tags do not match after such a comment: it swallowed one of them.
    is_torn: bool,
}

impl<'a> Parser<'a> {
    /// Reads the next piece of the text; false at the end of the text.
    fn step(&mut self) -> bool {
        let text = self.text;
        let start = self.at;
        if self.broken > BROKEN_MAX {
            let sentence = "the rest of the file is not readable as XML";
            self.problems.push(Problem::error(start..start + 1, sentence));
            self.at = text.len();
            return false;
        }
        if opens_nothing(&text[start..]) {
            self.take_as_text(start);
            return true;
        }
        let mut reader = Reader::from_str(&text[start..]);
        let config = reader.config_mut();
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        config.allow_dangling_amp = true;
        let event = reader.read_event();
        // Each piece has its own reader, so that reading can continue anywhere after a broken tag.
        self.at = start + usize::try_from(reader.buffer_position()).unwrap_or(text.len() - start);
        let span = start..self.at;
        match event {
            Ok(Event::Eof) => return false,
            Ok(Event::Start(_) | Event::Empty(_)) => self.start_tag(span),
            Ok(Event::End(end)) => self.end_tag(&end, span),
            Ok(Event::Comment(_)) => self.comment(&span),
            Ok(Event::Text(_) | Event::GeneralRef(_) | Event::CData(_)) => self.texts.push(span),
            Ok(Event::DocType(_)) => {
                self.problems.push(Problem::warning(span, "the document type is ignored"))
            }
            Ok(Event::Decl(_) | Event::PI(_)) => {}
            Err(error) => return self.recover(start, &error),
        }
        true
    }

    fn start_tag(&mut self, span: Span) {
        let tag = &self.text[span.clone()];
        if let Some(len) = swallowed(tag) {
            return self.broken_tag(span.start, len);
        }
        let inner_end = if tag.ends_with("/>") { 2 } else { 1 };
        self.element(span.clone(), span.end - inner_end, inner_end == 2);
    }

    /// Makes an element of the tag in `span`, whose attributes end at `inner_end`.
    fn element(&mut self, span: Span, inner_end: usize, closed: bool) {
        let inner = &self.text[span.start + 1..inner_end];
        let name_len = inner
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '=' | '"' | '\''))
            .unwrap_or(inner.len());
        let name_span = span.start + 1..span.start + 1 + name_len;
        let attributes = parse_attributes(self.text, name_span.end..inner_end, self.problems);
        let element = Element {
            name: self.text[name_span.clone()].to_owned(),
            name_span,
            span,
            attributes,
            children: Vec::new(),
            is_unclosed: false,
            misspelt_end: None,
        };
        if closed || self.open.len() >= DEPTH_MAX {
            self.place(element);
        } else {
            self.open.push(element);
        }
    }

    fn place(&mut self, element: Element) {
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.roots.push(element),
        }
    }

    fn end_tag(&mut self, name: &str, span: Span) {
        let name = name.trim();
        let is_it = |element: &Element| element.name.eq_ignore_ascii_case(name);
        let Some(depth) = self.open.iter().rposition(is_it) else {
            return self.stray_end(name, span);
        };
        while self.open.len() > depth + 1 {
            self.close_unclosed(&format!("</{name}>"));
        }
        self.close_top();
    }

    /// Handles an end tag that matches no open element. A misspelt one closes the element that it resembles.
    fn stray_end(&mut self, name: &str, span: Span) {
        let top = self.open.last().map(|element| element.name.clone());
        let found = quoted(&self.text[span.clone()]).to_string();
        // `<deletestart="false"></delete>`: the start tag is already reported as an unknown element.
        let is_glued = |element: &Element| {
            let begins = element.name.get(..name.len()).unwrap_or_default();
            !name.is_empty()
                && begins.eq_ignore_ascii_case(name)
                && self.text[element.name_span.end..].starts_with('=')
        };
        if self.open.last().is_some_and(is_glued) {
            return self.close_top();
        }
        match top.filter(|top| near_word(name, [top.as_str()]).is_some()) {
            Some(top) => {
                let sentence = format!("{found} closes nothing; it is read as </{top}>");
                self.problems.push(Problem::warning(span.clone(), sentence));
                if let Some(element) = self.open.last_mut() {
                    element.misspelt_end = Some(span);
                }
                self.close_top();
            }
            None if self.runaway.is_some() => self.is_torn = true,
            None => self.problems.push(
                Problem::error(span, format!("{found} closes an element that is not open"))
                    .help("remove it, or add the start tag that belongs to it"),
            ),
        }
    }

    fn close_top(&mut self) {
        if let Some(element) = self.open.pop() {
            self.place(element);
        }
    }

    fn close_unclosed(&mut self, before: &str) {
        self.is_torn |= self.runaway.is_some();
        if let Some(element) = self.open.last_mut().filter(|_| self.runaway.is_none()) {
            element.is_unclosed = true;
            let name = &element.name;
            let sentence = format!("<{name}> is not closed before {before}");
            self.problems.push(
                Problem::error(element.span.clone(), sentence)
                    .label("opened here")
                    .help(format!("end it with </{name}>, or write /> at the end of the tag")),
            );
        }
        self.close_top();
    }

    fn comment(&mut self, span: &Span) {
        let Some(inner) = self.text[span.clone()][4..].find("<!--") else {
            return;
        };
        let inner = span.start + 4 + inner;
        let lost = &self.text[span.start + 4..inner];
        let sentence = if lost.contains('<') {
            let lost = quoted(lost[lost.find('<').unwrap_or(0)..].trim()).to_string();
            let end = self.line_of(span.end);
            format!(
                "a comment is not closed before the next one begins: {lost} is part of it and is ignored; \
                 it ends in line {end}"
            )
        } else {
            "a comment begins inside a comment; the first --> ends both".to_owned()
        };
        let problem = Problem::warning(span.start..span.start + 4, sentence)
            .label("the comment begins here")
            .help("close it with --> if what follows should count");
        if let Some(earlier) = self.runaway.replace(problem) {
            self.problems.push(earlier);
        }
    }

    /// The line number of `offset`.
    fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// Reports what quick-xml cannot read and continues after it; false if that is impossible.
    fn recover(&mut self, start: usize, error: &XmlError) -> bool {
        let rest = &self.text[start..];
        let unclosed = match error {
            XmlError::Syntax(SyntaxError::UnclosedComment) => Some("comment"),
            XmlError::Syntax(SyntaxError::UnclosedCData) => Some("CDATA section"),
            XmlError::Syntax(SyntaxError::UnclosedPI | SyntaxError::UnclosedXmlDecl) => Some("<?"),
            XmlError::Syntax(SyntaxError::UnclosedDoctype) => Some("document type"),
            _ => None,
        };
        if let Some(what) = unclosed {
            let sentence = format!("this {what} is never closed: all that follows it is lost");
            self.problems.push(
                Problem::error(start..start + rest.len().min(4), sentence).label("opened here"),
            );
            self.at = self.text.len();
            return false;
        }
        if rest.starts_with("</") || rest[1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            let len = swallowed(rest).unwrap_or(rest.len());
            self.broken_tag(start, len);
        } else {
            self.broken += 1;
            self.take_as_text(start);
        }
        true
    }

    /// Handles a tag without an end: uses its first `len` bytes and continues after them.
    fn broken_tag(&mut self, start: usize, len: usize) {
        let tag = &self.text[start..start + len];
        self.at = start + len;
        if let Some(name) = tag.strip_prefix("</") {
            self.no_end(start, tag, "the closing >");
            return self.end_tag(name.trim_end_matches('>'), start..start + len);
        }
        let odd = tag.matches('"').count() % 2 == 1 || tag.matches('\'').count() % 2 == 1;
        let inner = tag.trim_end().trim_end_matches('>');
        let (inner, closed) = match inner.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (inner, false),
        };
        let before = std::mem::take(self.problems);
        self.element(start..start + len, start + inner.len(), closed);
        let own = std::mem::replace(self.problems, before);
        if odd && tag.ends_with('>') && !own.has_errors() {
            // A full-width mark closed the value; the attribute reader has reported it.
            self.problems.append(own);
        } else {
            let what = if odd { "a quotation mark" } else { "the closing >" };
            self.no_end(start, tag, what);
        }
    }

    fn no_end(&mut self, start: usize, tag: &str, what: &str) {
        self.broken += 1;
        let shown = quoted(tag.lines().next().unwrap_or("").trim_end()).to_string();
        let span = start..start + tag.trim_end().len();
        self.problems.push_broken(
            Problem::error(span, format!("in the tag {shown} {what} is missing"))
                .label("this tag has no end"),
        );
    }

    fn take_as_text(&mut self, start: usize) {
        self.at = start + 1;
        self.texts.push(start..start + 1);
    }

    fn finish(mut self) -> Vec<Element> {
        let end = self.text.trim_end().len();
        self.is_torn |= self.runaway.is_some() && !self.open.is_empty();
        if !self.open.is_empty() && self.runaway.is_none() {
            let names: Vec<_> = self.open.iter().map(|e| format!("<{}>", e.name)).collect();
            let start = self.open[0].span.clone();
            let (names, what) = match names.len() {
                1 => (names.join(""), "is"),
                _ => (names.join(", "), "are"),
            };
            self.problems.push(
                Problem::error(
                    end.saturating_sub(1)..end,
                    format!("the file ends here, but {names} {what} not closed"),
                )
                .label("end of the file")
                .help(format!(
                    "is the file cut off? the outermost one was opened in line {}",
                    self.line_of(start.start)
                )),
            );
        }
        while !self.open.is_empty() {
            self.close_top();
        }
        if let Some(mut comment) = self.runaway.take() {
            match self.is_torn {
                true => {
                    comment.severity = Severity::Error;
                    self.problems.push_torn(comment, self.text.len());
                }
                false => self.problems.push(comment),
            }
        }
        note_text(self.text, &self.texts, self.problems);
        self.roots
    }
}

/// True for a `<` that opens no tag, such as in the remark `# a < b`.
fn opens_nothing(rest: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/' | '!' | '?');
    rest.strip_prefix('<').is_some_and(|inner| !inner.starts_with(begins))
}

/// The length of the first tag in `tag`, if it holds more than one because of a missing quotation mark.
fn swallowed(tag: &str) -> Option<usize> {
    let next = tag[1..].find('<').map(|at| at + 1);
    let line = tag.find('\n');
    let close = tag.find('>').map(|at| at + 1);
    let ran_over = match next {
        Some(next) => {
            line.is_some_and(|line| line < next)
                || close.is_some_and(|close| {
                    tag[close..next.max(close)].trim().is_empty() && close <= next
                })
        }
        None => !tag.ends_with('>'),
    };
    if !ran_over {
        return None;
    }
    [next, close, line.filter(|_| next.is_none() && close.is_none())]
        .into_iter()
        .flatten()
        .min()
        .or(Some(tag.len()))
}

#[cfg(test)]
mod tests;
