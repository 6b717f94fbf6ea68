//! Decodes bytes that the kernel's tables and rsync's output write as octal numbers: `\040`, `\#012`.
//! Does not encode.

/// Replaces each `mark` that three octal digits follow by the byte that they mean.
pub fn unescape(text: &[u8], mark: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = rest.strip_prefix(mark).and_then(split_byte);
        let (byte, after) = escaped.unwrap_or((first, behind));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn split_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_first_chunk::<3>()?;
    let [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7'] = digits else { return None };
    Some((((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_bytes_and_what_is_no_number_stays() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"mount\\040point\\134", b"\\", b"mount point\\"),
            (b"a\\#377\\#012", b"\\#", b"a\xff\n"),
            (b"\\#08\\", b"\\#", b"\\#08\\"),
            (b"\\+12\\400\\189", b"\\", b"\\+12\\400\\189"),
            (b"\\040", b"\\#", b"\\040"),
            (b"\\\\040", b"\\", b"\\ "),
        ];
        for (text, mark, bytes) in cases {
            assert_eq!(unescape(text, mark), bytes, "{}", text.escape_ascii());
        }
    }
}
