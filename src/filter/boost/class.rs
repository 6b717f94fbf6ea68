//! Translates Boost's `[...]` to a class that our engines read the same way.
//! The class is rewritten byte by byte, because the engines give `&&`, `--` and `[` in it other meanings.

use super::{Reader, Refusal, class_escape, push_byte, refuse};
use crate::ground::words::quoted;

impl Reader<'_> {
    /// Reads `[...]` after its `[`.
    pub(super) fn class(&mut self) -> Result<(), Refusal> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = self.rest.next() else {
                return refuse(
                    "a [ is never closed",
                    "close it with ], or write \\[ for the character itself",
                );
            };
            if c == ']' && !first {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            let Some(low) = self.class_item(c)? else {
                continue;
            };
            self.range(low)?;
        }
    }

    /// Reads one member of a class: a single byte, or `None` when it was already written.
    fn class_item(&mut self, c: char) -> Result<Option<u8>, Refusal> {
        match c {
            '\\' => {
                let Some(c) = self.rest.next() else {
                    return refuse("a [ is never closed", "close it with ]");
                };
                match c {
                    'd' | 'D' | 's' | 'S' | 'w' | 'W' => self.out.extend(['\\', c]),
                    'b' => return Ok(Some(0x08)),
                    _ => match class_escape(c).filter(|items| !items.starts_with('^')) {
                        Some(items) => self.out.push_str(items),
                        None => match self.byte_escape(c)? {
                            Some(byte) => return Ok(Some(byte)),
                            None => {
                                let found = format!(
                                    "{} in [...] is not supported",
                                    quoted(&format!("\\{c}"))
                                );
                                return refuse(&found, "write it another way");
                            }
                        },
                    },
                }
                Ok(None)
            }
            '[' if matches!(self.rest.peek(), Some(':' | '.' | '=')) => {
                self.named_class().map(|()| None)
            }
            c if c.is_ascii() => Ok(Some(c as u8)),
            c => {
                let found = format!(
                    "{} stands in [...], where only single bytes can",
                    quoted(&c.to_string())
                );
                refuse(&found, "write an alternative, such as (?:a|b)")
            }
        }
    }

    /// Writes `low` alone, or the range that begins with it.
    fn range(&mut self, low: u8) -> Result<(), Refusal> {
        push_byte(&mut self.out, low);
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.next(), None | Some(']')) {
            return Ok(());
        }
        self.rest.next();
        let c = self.rest.next().unwrap_or(']');
        let mark = self.out.len();
        match self.class_item(c)? {
            Some(high) if high >= low => {
                self.out.push('-');
                push_byte(&mut self.out, high);
                Ok(())
            }
            Some(_) => refuse("a range in [...] runs backwards", "write the lower end first"),
            None => {
                self.out.truncate(mark);
                refuse(
                    "a range in [...] ends in a class",
                    "write - last in [...] for the character itself",
                )
            }
        }
    }

    /// Reads `[:name:]` inside a class, after its `[`.
    fn named_class(&mut self) -> Result<(), Refusal> {
        let kind = self.rest.next().unwrap_or(':');
        let name: String = self.rest.by_ref().take_while(|&c| c != kind).collect();
        let closed = self.rest.next_if_eq(&']').is_some();
        let items = match name.as_str() {
            _ if kind != ':' || !closed => None,
            "d" => Some("0-9"),
            "s" => Some(r"\s"),
            "w" | "word" => Some(r"\w"),
            "l" => Some("a-z"),
            "u" => Some("A-Z"),
            "h" => Some(r"\t\x20"),
            "v" => Some(r"\n\x0b\x0c\r"),
            "alnum" | "alpha" | "blank" | "cntrl" | "digit" | "graph" | "lower" | "print"
            | "punct" | "space" | "upper" | "xdigit" => {
                self.out.push_str(&format!("[:{name}:]"));
                return Ok(());
            }
            _ => None,
        };
        match items {
            Some(items) => {
                self.out.push_str(items);
                Ok(())
            }
            None => {
                let found =
                    format!("{} is no character class", quoted(&format!("[{kind}{name}{kind}]")));
                refuse(&found, "use one such as [:alpha:] or [:digit:]")
            }
        }
    }
}
