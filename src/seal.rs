//! Frames with length and checksum, so that a reader can tell a torn last write from damage.
//! Does not know the content of the frames.

/// Length, its complement, checksum.
pub const HEAD_LEN: usize = 12;

/// Why there is no further frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFrame {
    /// The bytes end here, between two frames.
    End,
    /// The last write was cut short.
    Torn,
    /// The bytes are not a frame of ours.
    Damaged,
}

/// Splits the first frame off `bytes`: its payload, and the length of the whole frame.
pub fn open(bytes: &[u8]) -> Result<(&[u8], usize), NoFrame> {
    if bytes.is_empty() {
        return Err(NoFrame::End);
    }
    let Some((head, rest)) = bytes.split_first_chunk() else {
        return Err(NoFrame::Torn);
    };
    let Some(len) = payload_len(head) else {
        // A file that grew without its data (power failure) ends in zeros.
        let zeros = bytes.iter().all(|&b| b == 0);
        return Err(if zeros { NoFrame::Torn } else { NoFrame::Damaged });
    };
    let payload = rest.get(..len).ok_or(NoFrame::Torn)?;
    if !is_intact(head, payload) {
        return Err(NoFrame::Damaged);
    }
    Ok((payload, HEAD_LEN + len))
}

/// The payload length in a frame's head; `None` when the head is invalid.
pub fn payload_len(head: &[u8; HEAD_LEN]) -> Option<usize> {
    let len = word(head, 0);
    (word(head, 4) == !len).then_some(len as usize)
}

/// True when `payload` matches the head's checksum.
pub fn is_intact(head: &[u8; HEAD_LEN], payload: &[u8]) -> bool {
    crc32(payload) == word(head, 8)
}

fn word(head: &[u8; HEAD_LEN], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// Reserves space for a frame's head at the end of `out`; append the payload after it.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_LEN]);
    start
}

/// Fills in the head of the frame that began at `start`.
pub fn close(out: &mut [u8], start: usize) {
    let payload = start + HEAD_LEN;
    let len = (out.len() - payload) as u32;
    let sum = crc32(&out[payload..]);
    for (at, word) in [len, !len, sum].into_iter().enumerate() {
        out[start + 4 * at..start + 4 * at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The CRC-32 of zip and Ethernet.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut word = i as u32;
            let mut bit = 0;
            while bit < 8 {
                word = (word >> 1) ^ (0xedb8_8320 & (word & 1).wrapping_neg());
                bit += 1;
            }
            table[i] = word;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, &b| (sum >> 8) ^ TABLE[usize::from(sum as u8 ^ b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn cut_zeroed_and_damaged_frames_are_told_apart() {
        let mut bytes = Vec::new();
        let start = begin(&mut bytes);
        bytes.extend_from_slice(b"payload");
        close(&mut bytes, start);
        assert_eq!(open(&bytes), Ok((&b"payload"[..], bytes.len())));
        assert_eq!(open(&bytes[..0]), Err(NoFrame::End));
        for len in 1..bytes.len() {
            assert_eq!(open(&bytes[..len]), Err(NoFrame::Torn), "{len}");
        }
        assert_eq!(open(&[0; 100]), Err(NoFrame::Torn));
        bytes[HEAD_LEN] ^= 1;
        assert_eq!(open(&bytes), Err(NoFrame::Damaged));
    }
}
