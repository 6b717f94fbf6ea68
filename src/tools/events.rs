//! The names of inotify's events, as inotify-tools reads and writes them.
//! Does not know watches.

/// Every event that a watch can ask for.
pub const ALL: u32 = libc::IN_ALL_EVENTS;

/// The names in output, in the order of inotify-tools.
const WRITTEN: [(u32, &str); 18] = [
    (libc::IN_ACCESS, "ACCESS"),
    (libc::IN_MODIFY, "MODIFY"),
    (libc::IN_ATTRIB, "ATTRIB"),
    (libc::IN_CLOSE_WRITE, "CLOSE_WRITE"),
    (libc::IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"),
    (libc::IN_OPEN, "OPEN"),
    (libc::IN_MOVED_FROM, "MOVED_FROM"),
    (libc::IN_MOVED_TO, "MOVED_TO"),
    (libc::IN_CREATE, "CREATE"),
    (libc::IN_DELETE, "DELETE"),
    (libc::IN_DELETE_SELF, "DELETE_SELF"),
    (libc::IN_UNMOUNT, "UNMOUNT"),
    (libc::IN_Q_OVERFLOW, "Q_OVERFLOW"),
    (libc::IN_IGNORED, "IGNORED"),
    (libc::IN_CLOSE, "CLOSE"),
    (libc::IN_MOVE_SELF, "MOVE_SELF"),
    (libc::IN_ISDIR, "ISDIR"),
    (libc::IN_ONESHOT, "ONESHOT"),
];

/// Names that are accepted as input but never written.
const READ_ONLY: [(u32, &str); 2] = [(libc::IN_MOVE, "MOVE"), (ALL, "ALL_EVENTS")];

/// The events that a list such as `modify,Close_Write` names; `None` when a name is unknown.
///
/// As in inotify-tools, an empty name or a trailing comma makes the whole list empty.
pub fn parse(list: &[u8]) -> Option<u32> {
    let mut events = 0;
    for name in list.split(|&byte| byte == b',') {
        if name.is_empty() {
            return Some(0);
        }
        events |= parse_one(name)?;
    }
    Some(events)
}

fn parse_one(name: &[u8]) -> Option<u32> {
    let same = |(_, known): &&(u32, &str)| known.as_bytes().eq_ignore_ascii_case(name);
    WRITTEN.iter().chain(&READ_ONLY).find(same).map(|(bits, _)| *bits)
}

/// Appends the names of the events in `mask`, with `separator` between them.
pub fn write(out: &mut Vec<u8>, mask: u32, separator: u8) {
    let start = out.len();
    for (_, name) in WRITTEN.iter().filter(|(bits, _)| mask & bits != 0) {
        if out.len() > start {
            out.push(separator);
        }
        out.extend_from_slice(name.as_bytes());
    }
    if out.len() == start {
        out.extend_from_slice(format!("0x{mask:08x}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mask: u32) -> String {
        let mut out = Vec::new();
        write(&mut out, mask, b',');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_close_is_written_with_its_general_name() {
        assert_eq!(written(libc::IN_CLOSE_WRITE), "CLOSE_WRITE,CLOSE");
        assert_eq!(written(libc::IN_CREATE | libc::IN_ISDIR), "CREATE,ISDIR");
        assert_eq!(written(0), "0x00000000");
    }

    #[test]
    fn lists_are_read_as_the_original_reads_them() {
        assert_eq!(parse(b"modify,CLOSE_write"), Some(libc::IN_MODIFY | libc::IN_CLOSE_WRITE));
        assert_eq!(parse(b"move"), Some(libc::IN_MOVED_FROM | libc::IN_MOVED_TO));
        assert_eq!(parse(b"modify,"), Some(0));
        assert_eq!(parse(b"modify,,open"), Some(0));
        assert_eq!(parse(b""), Some(0));
        assert_eq!(parse(b"modify,nothing"), None);
    }
}
