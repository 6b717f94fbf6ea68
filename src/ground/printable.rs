//! Escapes characters of a name that must not be shown: those that move a cursor, ring a bell, or change the text's direction.
//! Escapes for people; the fail log quotes names for a shell.

use std::fmt::{self, Write};

/// True for control characters, invisible characters, and those that change how neighbouring characters are shown.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes `c`, escaped if it is unprintable.
pub fn write_char(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        c if c.is_control() => write!(out, "{}", c.escape_default()),
        c if is_unprintable(c) => write!(out, "{}", c.escape_unicode()),
        c => out.write_char(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_or_hides_text_is_escaped_and_what_people_write_is_not() {
        let mut shown = String::new();
        for c in "a\u{202e}b\u{1b}\u{7}\r\u{200b}é中 ".chars() {
            write_char(&mut shown, c).unwrap();
        }
        assert_eq!(shown, "a\\u{202e}b\\u{1b}\\u{7}\\r\\u{200b}é中 ");
    }
}
