//! Translates Boost's Perl syntax to that of our engines, where the two differ in spelling or meaning.
//! Refuses what neither engine supports, with the reason; nothing changes its meaning silently.

mod class;

use std::iter::Peekable;
use std::str::Chars;

use crate::ground::words::quoted;
use crate::xml::text::SourceText;

/// An expression in our engines' syntax, without anchors.
pub struct Translated {
    /// ASCII only: other characters are escaped as bytes.
    pub pattern: String,
    /// True when it contains look-around, back-references or possessive forms.
    pub needs_backtracking: bool,
}

/// What is wrong, and what to do.
type Refusal = (String, String);

/// Writes the non-ASCII characters of `text` as the bytes that they have in the file, because names are bytes.
/// `text` must be a valid expression: then no such character is inside `[...]`.
pub fn in_bytes_of(source: &SourceText, text: &str) -> String {
    // Between \Q and \E, bytes cannot be escaped.
    if source.is_utf8() || text.contains(r"\Q") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut buffer = [0; 4];
            push_bytes(&mut out, &source.bytes_of(c.encode_utf8(&mut buffer)));
        }
    }
    out
}

/// Translates `text`.
pub fn translate(text: &str) -> Result<Translated, Refusal> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        out: String::with_capacity(text.len()),
        needs_backtracking: false,
        can_repeat: false,
    };
    while let Some(c) = reader.rest.next() {
        reader.take(c).map_err(|refusal| with_glob_hint(text, refusal))?;
    }
    Ok(Translated { pattern: reader.out, needs_backtracking: reader.needs_backtracking })
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    needs_backtracking: bool,
    /// True when the last item may be repeated.
    can_repeat: bool,
}

impl Reader<'_> {
    fn take(&mut self, c: char) -> Result<(), Refusal> {
        let mut repeatable = true;
        match c {
            '\\' => repeatable = self.escape()?,
            '[' => self.class()?,
            '(' => {
                self.open()?;
                repeatable = false;
            }
            '*' | '+' | '?' | '{' => {
                self.repeat(c)?;
                repeatable = false;
            }
            '|' | '^' | '$' => {
                self.out.push(c);
                repeatable = false;
            }
            '.' | ')' => self.out.push(c),
            _ => self.literal(c),
        }
        self.can_repeat = repeatable;
        Ok(())
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || matches!(c, '/' | '_') {
            self.out.push(c);
        } else if c.is_ascii() {
            push_byte(&mut self.out, c as u8);
        } else {
            let mut buffer = [0; 4];
            push_bytes(&mut self.out, c.encode_utf8(&mut buffer).as_bytes());
        }
    }

    /// Reads what follows a backslash outside a class; true when it may be repeated.
    fn escape(&mut self) -> Result<bool, Refusal> {
        let Some(c) = self.rest.next() else {
            return refuse("it ends with a lone backslash", "write \\\\ for the character itself");
        };
        match c {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => self.out.extend(['\\', c]),
            'b' | 'B' | 'A' | 'z' => {
                self.out.extend(['\\', c]);
                return Ok(false);
            }
            '<' => return self.zero_width(r"\b{start}"),
            '>' => return self.zero_width(r"\b{end}"),
            '`' => return self.zero_width(r"\A"),
            '\'' => return self.zero_width(r"\z"),
            'Q' => self.quote(),
            'E' => {}
            '1'..='9' => {
                self.needs_backtracking = true;
                self.out.extend(['\\', c]);
            }
            'k' | 'g' => {
                self.needs_backtracking = true;
                self.out.extend(['\\', c]);
                self.copy_name()?;
            }
            _ => match class_escape(c) {
                Some(items) => self.out.push_str(&format!("[{items}]")),
                None => match self.byte_escape(c)? {
                    Some(byte) => push_byte(&mut self.out, byte),
                    None if !c.is_ascii() => self.literal(c),
                    None => {
                        let found = format!("{} is not supported", quoted(&format!("\\{c}")));
                        return refuse(&found, "write it another way");
                    }
                },
            },
        }
        Ok(true)
    }

    fn zero_width(&mut self, text: &str) -> Result<bool, Refusal> {
        self.out.push_str(text);
        Ok(false)
    }

    /// Reads `\Q...\E`: everything in between is literal.
    fn quote(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            self.literal(c);
        }
    }

    /// Copies the name or number of a back-reference: `{name}`, `<name>`, `'name'` or digits.
    fn copy_name(&mut self) -> Result<(), Refusal> {
        let close = match self.rest.peek() {
            Some('{') => '}',
            Some('<') => '>',
            _ => return refuse("a back-reference has no name", "write \\1 or \\k<name>"),
        };
        for c in self.rest.by_ref() {
            let c = match c {
                '{' => '<',
                '}' => '>',
                c => c,
            };
            self.out.push(c);
            if c == '>' || c == close {
                return Ok(());
            }
        }
        refuse("the name of a back-reference is not closed", "write \\1 or \\k<name>")
    }

    /// The byte that an escape stands for, if it stands for one.
    fn byte_escape(&mut self, c: char) -> Result<Option<u8>, Refusal> {
        Ok(Some(match c {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            'f' => 0x0c,
            'a' => 0x07,
            'e' => 0x1b,
            '0' => self.digits(8, 3)?,
            'x' => self.hexadecimal()?,
            'c' => match self.rest.next() {
                Some(c) if c.is_ascii() => c as u8 & 0x1f,
                _ => return refuse("\\c needs a letter", "write \\xHH"),
            },
            c if c.is_ascii_punctuation() || c == ' ' => c as u8,
            _ => return Ok(None),
        }))
    }

    fn hexadecimal(&mut self) -> Result<u8, Refusal> {
        if self.rest.peek() != Some(&'{') {
            return self.digits(16, 2);
        }
        self.rest.next();
        let value = self.digits(16, 8);
        match self.rest.next() {
            Some('}') => value,
            _ => refuse("\\x{ is not closed or above FF", "write the bytes as \\xHH"),
        }
    }

    fn digits(&mut self, radix: u32, count: usize) -> Result<u8, Refusal> {
        let mut value: u32 = 0;
        let mut seen = 0;
        while seen < count
            && let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(radix))
        {
            value = value.saturating_mul(radix).saturating_add(digit);
            self.rest.next();
            seen += 1;
        }
        match u8::try_from(value) {
            Ok(0) => refuse("it names the zero byte, which no path holds", "remove it"),
            Ok(byte) => Ok(byte),
            Err(_) => {
                refuse("it names a character above FF; paths are bytes", "write the bytes as \\xHH")
            }
        }
    }

    /// Reads `(` and what may follow it.
    fn open(&mut self) -> Result<(), Refusal> {
        if self.rest.peek() != Some(&'?') {
            self.out.push('(');
            return Ok(());
        }
        self.rest.next();
        let head: String = self.rest.clone().take(2).collect();
        let refused =
            |what: &str| refuse(&format!("{what} is not supported"), "write it another way");
        match head.chars().next() {
            Some('#') => {
                while self.rest.next_if(|&c| c != ')').is_some() {}
                self.rest.next();
            }
            Some(':') => self.open_as("(?:", 1),
            Some('=' | '!' | '>') => {
                self.needs_backtracking = true;
                self.open_as(&format!("(?{}", &head[..1]), 1);
            }
            Some('<') if matches!(head.chars().nth(1), Some('=' | '!')) => {
                self.needs_backtracking = true;
                self.open_as(&format!("(?{head}"), 2);
            }
            Some('<') => self.open_as("(?P<", 1),
            Some('P') if head == "P<" => self.open_as("(?P<", 2),
            Some('\'') => {
                self.open_as("(?P<", 1);
                let name: String = self.rest.by_ref().take_while(|&c| c != '\'').collect();
                self.out.push_str(&name);
                self.out.push('>');
            }
            Some('|') => return refused("the branch reset (?|"),
            Some('(') => return refused("a condition (?("),
            Some('R' | '&' | 'P' | '+' | '0'..='9') => return refused("recursion"),
            _ => return self.flags(),
        }
        Ok(())
    }

    fn open_as(&mut self, text: &str, taken: usize) {
        self.out.push_str(text);
        self.rest.by_ref().take(taken).for_each(drop);
        if text.ends_with('<') {
            self.out.extend(self.rest.by_ref().take_while(|&c| c != '>'));
            self.out.push('>');
        }
    }

    /// Reads flags that Boost and our engines know: `(?i)`, `(?i-s:`.
    fn flags(&mut self) -> Result<(), Refusal> {
        self.out.push_str("(?");
        for c in self.rest.by_ref() {
            match c {
                'i' | 'm' | 's' | '-' => self.out.push(c),
                ':' | ')' => {
                    self.out.push(c);
                    return Ok(());
                }
                _ => {
                    let found = format!("{} is not supported", quoted(&format!("(?{c}")));
                    return refuse(&found, "of the flags only i, m and s can be used");
                }
            }
        }
        refuse("(? is not closed", "write \\( for the character itself")
    }

    /// Reads `*`, `+`, `?` or `{n,m}`, and the suffix that makes it lazy or possessive.
    fn repeat(&mut self, c: char) -> Result<(), Refusal> {
        if !self.can_repeat {
            let found = format!("{} has nothing to repeat", quoted(&c.to_string()));
            return refuse(&found, &format!("write \\{c} for the character itself"));
        }
        self.out.push(c);
        if c == '{' {
            self.bounds()?;
        }
        match self.rest.peek() {
            Some('?') => {
                self.rest.next();
                self.out.push('?');
            }
            Some('+') => {
                self.rest.next();
                self.out.push('+');
                self.needs_backtracking = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn bounds(&mut self) -> Result<(), Refusal> {
        let bounds: String = self.rest.by_ref().take_while(|&c| c != '}').collect();
        let (low, high) = bounds.split_once(',').unwrap_or((&bounds, "0"));
        let is_number = |text: &str| text.parse::<u16>().is_ok();
        if !is_number(low) || !(high.is_empty() || is_number(high)) {
            let found = format!("{} is no repetition", quoted(&format!("{{{bounds}")));
            return refuse(&found, "write {n}, {n,} or {n,m}, or \\{ for the character itself");
        }
        self.out.push_str(&bounds);
        self.out.push('}');
        Ok(())
    }
}

/// Boost's one-letter classes that our engines do not have.
fn class_escape(c: char) -> Option<&'static str> {
    Some(match c {
        'h' => r"\t\x20",
        'H' => r"^\t\x20",
        'v' => r"\n\x0b\x0c\r",
        'V' => r"^\n\x0b\x0c\r",
        'l' => "a-z",
        'L' => "^a-z",
        'u' => "A-Z",
        'U' => "^A-Z",
        _ => return None,
    })
}

fn push_byte(out: &mut String, byte: u8) {
    out.push_str(&format!("\\x{byte:02x}"));
}

/// Writes a character of several bytes as a group, so that a repetition applies to all of them.
fn push_bytes(out: &mut String, bytes: &[u8]) {
    out.push_str("(?:");
    bytes.iter().for_each(|&byte| push_byte(out, byte));
    out.push(')');
}

fn refuse<T>(reason: &str, help: &str) -> Result<T, Refusal> {
    Err((reason.to_owned(), help.to_owned()))
}

/// Adds a hint to the refusal of a glob such as `*.php`: here an expression is needed.
fn with_glob_hint(text: &str, refusal: Refusal) -> Refusal {
    match text.strip_prefix('*') {
        Some(rest)
            if rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) =>
        {
            let help =
                format!("this is a regular expression; write (.*){}", rest.replace('.', "\\."));
            (refusal.0, help)
        }
        _ => refusal,
    }
}
