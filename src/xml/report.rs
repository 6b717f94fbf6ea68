//! Problems with positions, and their text for people: line, column, source line, mark, suggestion.
//! Does not print; the caller decides where the text goes.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::text::{SourceText, Span};

/// Most problems in a report; a file with more is not a configuration.
const SHOWN_MAX: usize = 50;

/// Of a longer source line, only the position is shown.
const LINE_BYTES_MAX: usize = 400;

/// Whether a problem prevents the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// The file is still used.
    Warning,
}

/// One thing that is wrong with a configuration, or was read leniently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it prevents the start.
    pub severity: Severity,
    /// What was found and what was expected, in one sentence.
    pub message: String,
    /// Where; `None` when it concerns the file as a whole.
    pub span: Option<Span>,
    /// Short text at the mark.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem that stops the start.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message.into())
    }

    /// Something that was read leniently.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message.into())
    }

    fn new(severity: Severity, span: Span, message: String) -> Self {
        Self { severity, message, span: Some(span), label: None, help: None }
    }

    /// Adds the text at the mark.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// One line for a log: `file:line:column: message; help`.
    pub fn line(&self, source: &SourceText) -> String {
        let mut line = place(self, source);
        line.push_str(": ");
        line.push_str(&self.message);
        if let Some(help) = &self.help {
            line.push_str("; ");
            line.push_str(help);
        }
        line
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    /// Broken tags: one problem each is enough.
    broken: Vec<Span>,
}

impl Problems {
    /// Adds one problem.
    pub fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Adds the problem of a broken tag. Other problems inside the tag are its consequences and are not shown.
    pub fn push_broken(&mut self, problem: Problem) {
        self.broken.extend(problem.span.clone());
        self.list.push(problem);
    }

    /// Adds a problem that broke the structure of the file. Problems up to `end` are its consequences and are not shown.
    pub fn push_torn(&mut self, problem: Problem, end: usize) {
        self.broken.extend(problem.span.as_ref().map(|span| span.start..end));
        self.list.push(problem);
    }

    /// Removes the problem at exactly this place, because another one is its cause.
    pub fn forget(&mut self, span: &Span) {
        self.list.retain(|problem| problem.span.as_ref() != Some(span));
    }

    /// Adds all problems of `other`.
    pub fn append(&mut self, other: Problems) {
        self.list.extend(other.list);
        self.broken.extend(other.broken);
    }

    /// Adds the problems of a part that is not in use, as warnings: they must not stop the start.
    pub fn append_unused(&mut self, other: Problems, why: &str) {
        self.list.extend(other.list.into_iter().map(|mut problem| {
            if problem.severity == Severity::Error {
                problem.message = format!("{} ({why})", problem.message);
                problem.severity = Severity::Warning;
            }
            problem
        }));
    }

    /// True when something stops the start.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| p.severity == Severity::Error)
    }

    /// All problems in the order of the file.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        let start = |p: &Problem| p.span.as_ref().map_or(0, |span| span.start);
        self.list.sort_by_key(start);
        self.list.dedup_by(|b, a| a.span == b.span && a.message == b.message);
        self.broken.sort_by_key(|span| span.start);
        let mut broken = self.broken.into_iter().peekable();
        let mut is_shown = false;
        // Broken tags do not overlap, so one pass is enough.
        self.list.retain(|problem| {
            let Some(at) = problem.span.as_ref().map(|span| span.start) else {
                return true;
            };
            while broken.next_if(|tag| tag.end <= at).is_some() {
                is_shown = false;
            }
            // The sort is stable, so the first problem in a tag is the tag's own. The others are its consequences.
            let follows = broken.peek().is_some_and(|tag| tag.contains(&at));
            !follows || !std::mem::replace(&mut is_shown, true)
        });
        self.list
    }
}

/// The full report: every problem with its position, the source line and the mark.
pub fn render(source: &SourceText, problems: &[Problem]) -> String {
    let mut report = Rendered::default();
    for problem in problems.iter().take(SHOWN_MAX) {
        report.add(&render_one(source, problem));
    }
    if problems.len() > SHOWN_MAX {
        report.add(&format!("... and {} more", problems.len() - SHOWN_MAX));
    }
    report.0
}

#[derive(Default)]
struct Rendered(String);

impl Rendered {
    fn add(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(text);
        self.0.push('\n');
    }
}

fn render_one(source: &SourceText, problem: &Problem) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(problem.message.as_str());
    let mut group = match &problem.span {
        Some(span) => match line_around(source, span) {
            Some((line, start, mark)) => {
                let mark = AnnotationKind::Primary.span(mark);
                let mark = mark.label(problem.label.as_deref());
                let snippet = Snippet::source(line).line_start(start).path(source.name.as_str());
                title.element(snippet.annotation(mark))
            }
            None => {
                let (line, column) = source.line_column(span.start);
                let origin = Origin::path(source.name.as_str()).line(line);
                title.element(origin.char_column(column))
            }
        },
        None => title.element(Origin::path(source.name.as_str())),
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Renderer::plain().render(&[group])
}

/// The line that `span` begins on, its number, and the span within it.
fn line_around<'a>(source: &'a SourceText, span: &Span) -> Option<(&'a str, usize, Span)> {
    let text = &source.text;
    let start = source.floor(span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let end = span.end.clamp(start, line_start + line.len().max(start - line_start));
    if line.len() > LINE_BYTES_MAX || start - line_start > line.len() {
        return None;
    }
    let end = source.floor(end);
    let number = source.line_column(start).0;
    Some((line, number, start - line_start..end - line_start))
}

fn place(problem: &Problem, source: &SourceText) -> String {
    match &problem.span {
        Some(span) => {
            let (line, column) = source.line_column(span.start);
            format!("{}:{line}:{column}", source.name)
        }
        None => source.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_shows_file_line_column_the_line_and_a_mark() {
        let text = "<head>\n\t<debug start=\"flase\"/>\n</head>";
        let source = SourceText::decode("conf.xml", text.as_bytes()).unwrap();
        let at = text.find("flase").unwrap();
        let problem = Problem::error(at..at + 5, "found `flase`").help("did you mean `false`?");
        let report = render(&source, std::slice::from_ref(&problem));
        assert!(report.contains("error: found `flase`"), "{report}");
        assert!(report.contains("conf.xml:2:16"), "{report}");
        assert!(report.contains("<debug start=\"flase\"/>"), "{report}");
        assert!(report.contains("^^^^^"), "{report}");
        assert!(report.contains("help: did you mean `false`?"), "{report}");
        assert!(problem.line(&source).starts_with("conf.xml:2:16: found"));
    }

    #[test]
    fn a_mark_at_the_very_end_or_over_many_lines_is_shown() {
        let text = "<head>\r\n<a\r\nb";
        let source = SourceText::decode("c.xml", text.as_bytes()).unwrap();
        for span in [text.len()..text.len(), 8..text.len(), 7..9, 6..7, 10..99] {
            assert!(render(&source, &[Problem::error(span, "x")]).contains("c.xml:"));
        }
    }

    #[test]
    fn a_broken_tag_is_one_problem_and_hides_no_other() {
        let mut problems = Problems::default();
        for start in [12, 2, 4, 11, 20, 10] {
            problems.push(Problem::warning(start..start + 1, "in a value"));
        }
        problems.push_broken(Problem::error(10..15, "a tag"));
        problems.push_broken(Problem::error(2..6, "another tag"));
        let told: Vec<_> = problems.into_sorted().into_iter().map(|p| p.span.unwrap()).collect();
        assert_eq!(told, [2..3, 10..11, 20..21]);
    }
}
