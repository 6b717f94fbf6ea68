//! Decodes a configuration file: UTF-8 (with or without byte-order mark), otherwise GBK.
//! Ignores the encoding in the XML declaration, because it is often wrong in legacy files.

use std::iter::once;
use std::ops::Range;

use encoding_rs::{Encoding, GBK, UTF_8, WINDOWS_1252};

/// Byte range in [`SourceText::text`].
pub type Span = Range<usize>;

/// A configuration has a few kilobytes; a larger file is a mistake.
pub const MAX_BYTES: u64 = 1 << 20;

/// The text of one configuration file.
#[derive(Debug, Clone)]
pub struct SourceText {
    /// The path as the user wrote it, for messages.
    pub name: String,
    /// The whole text, decoded.
    pub text: String,
    /// Where each line begins, so that the line of a problem is found without counting from the top.
    lines: Vec<usize>,
    encoding: &'static Encoding,
}

impl SourceText {
    /// Decodes `bytes`.
    ///
    /// # Errors
    /// A sentence that tells why the bytes are not text.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, String> {
        refuse_what_is_no_text(bytes)?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (text, encoding) = decode(bytes);
        let name = name.to_owned();
        let lines = once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Ok(Self { name, text, lines, encoding })
    }

    /// The encoding and the first character that depends on it, if the encoding had to be guessed.
    pub fn guess(&self) -> Option<(&'static str, Span)> {
        (!self.is_utf8()).then(|| (self.encoding.name(), first_beyond_ascii(&self.text)))
    }

    /// Line and column of a byte offset, both from 1; columns count characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The bytes that `text` had in the file, as needed for names on disk.
    pub fn bytes_of(&self, text: &str) -> Vec<u8> {
        self.encoding.encode(text).0.into_owned()
    }

    /// True when `bytes_of` changes nothing.
    pub fn is_utf8(&self) -> bool {
        self.encoding == UTF_8
    }

    /// The largest character boundary not above `offset`.
    pub fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn refuse_what_is_no_text(bytes: &[u8]) -> Result<(), String> {
    let utf16 = bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || bytes.starts_with(b"<\0")
        || bytes.starts_with(b"\0<");
    if utf16 {
        return Err("it is UTF-16 text; save it as UTF-8".to_owned());
    }
    if bytes.contains(&0) {
        return Err("it is no text (it holds zero bytes); expected an XML file".to_owned());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty; expected an XML file".to_owned());
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> (String, &'static Encoding) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), UTF_8);
    }
    if let Some(text) = GBK.decode_without_bom_handling_and_without_replacement(bytes) {
        return (text.into_owned(), GBK);
    }
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
    (text.into_owned(), WINDOWS_1252)
}

fn first_beyond_ascii(text: &str) -> Span {
    let start = text.find(|c: char| !c.is_ascii()).unwrap_or(0);
    let len = text[start..].chars().next().map_or(0, char::len_utf8);
    start..start + len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> SourceText {
        SourceText::decode("x.xml", bytes).unwrap()
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let source = decoded("\u{feff}<head/>".as_bytes());
        assert_eq!(source.text, "<head/>");
        assert!(source.guess().is_none());
    }

    #[test]
    fn gbk_is_guessed_and_its_bytes_come_back() {
        let bytes = b"<head/>\n# \xb1\xb8\xb7\xdd";
        let source = decoded(bytes);
        assert!(source.text.ends_with("备份"));
        assert_eq!(source.bytes_of("备份"), b"\xb1\xb8\xb7\xdd");
        let (encoding, place) = source.guess().unwrap();
        assert_eq!(encoding, "GBK");
        assert_eq!(source.line_column(place.start), (2, 3));
    }

    #[test]
    fn latin_bytes_that_are_no_gbk_are_still_read() {
        let source = decoded(b"<head/># caf\xe9 ");
        assert!(source.text.ends_with("café "));
        assert_eq!(source.guess().unwrap().0, "windows-1252");
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_reason() {
        let refused = |bytes: &[u8]| SourceText::decode("x.xml", bytes).unwrap_err();
        assert!(refused(b"\xff\xfe<\0h\0").contains("UTF-16"));
        assert!(refused(b"<\0h\0").contains("UTF-16"));
        assert!(refused(b"\x7fELF\x02\0").contains("no text"));
        assert!(refused(b"").contains("empty"));
        assert!(refused(b" \r\n").contains("empty"));
    }

    #[test]
    fn columns_count_characters() {
        let source = decoded("ab\n中文x".as_bytes());
        assert_eq!(source.line_column(source.text.len() - 1), (2, 3));
    }

    #[test]
    fn a_line_ends_with_its_line_end() {
        let source = decoded(b"ab\n\nc\n");
        let places: Vec<_> = (0..=6).map(|offset| source.line_column(offset)).collect();
        assert_eq!(places, [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2), (4, 1)]);
        assert_eq!(source.line_column(99), (4, 1));
    }
}
