//! An expression that is searched for in a subject: the refreshCDN plugin's `<regexurl match>`.
//! It has the syntax of the filters, but it is not anchored.

use regex::bytes::Regex;

use super::{ExpressionError, RegexEngine, boost, fancy, plain};

/// An expression that may match anywhere in a subject.
#[derive(Debug)]
pub struct Search {
    text: String,
    engine: RegexEngine,
}

impl Search {
    /// Compiles `text`.
    ///
    /// # Errors
    /// What the engines do not support, with the reason.
    pub fn new(text: &str) -> Result<Self, ExpressionError> {
        let refused = |(reason, help): (String, String)| ExpressionError {
            expression: text.to_owned(),
            reason,
            help,
        };
        let translated = boost::translate(text).map_err(refused)?;
        let engine = if translated.needs_backtracking {
            fancy(&translated.pattern)
        } else {
            plain(&translated.pattern)
        };
        Ok(Self { text: text.to_owned(), engine: engine.map_err(refused)? })
    }

    /// The first group of the first match, and what follows the match; `None` when there is none.
    pub fn group_and_rest(&self, subject: &[u8]) -> Option<Vec<u8>> {
        let (group, end) = match &self.engine {
            RegexEngine::Plain { regex, .. } => in_plain(regex, subject)?,
            RegexEngine::Fancy { regex, .. } => self.in_fancy(regex, subject)?,
        };
        Some([group, &subject[end..]].concat())
    }

    fn in_fancy<'t>(
        &self,
        regex: &fancy_regex::Regex,
        subject: &'t [u8],
    ) -> Option<(&'t [u8], usize)> {
        match regex.captures(subject) {
            Ok(found) => {
                let found = found?;
                let group = found.get(1).map_or(0..0, |group| group.start()..group.end());
                Some((&subject[group], found.get(0)?.end()))
            }
            Err(error) => {
                let shown = String::from_utf8_lossy(subject);
                let shown = shown.escape_debug();
                log::warn!("the expression `{}` cannot be tried on {shown}: {error}", self.text);
                None
            }
        }
    }
}

fn in_plain<'t>(regex: &Regex, subject: &'t [u8]) -> Option<(&'t [u8], usize)> {
    let found = regex.captures(subject)?;
    let group = found.get(1).map_or(&b""[..], |group| group.as_bytes());
    Some((group, found.get(0)?.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_group_and_what_follows_the_match_are_kept() {
        let stock = "cms.xoyo.com/site([/a-zA-Z0-9]*).xoyo.com/images";
        for (expression, subject, tail) in [
            (stock, "/d/cms.xoyo.com/site/a/b.xoyo.com/images/c.png", Some("/a/b/c.png")),
            (stock, "/d/other/c.png", None),
            ("/www/[^/]*", "/www/site/a", Some("/a")),
            ("(x)?site", "/www/site/a", Some("/a")),
            (r"/(\w+)/(?=a)", "/www/site/a\n", Some("sitea\n")),
        ] {
            let found = Search::new(expression).unwrap().group_and_rest(subject.as_bytes());
            assert_eq!(found.as_deref(), tail.map(str::as_bytes), "{expression} {subject}");
        }
    }
}
