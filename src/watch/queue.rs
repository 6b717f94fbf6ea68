//! Inotify's event queue: reads events, and tracks the position of each in the stream.
//! Knows no paths.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use inotify::{EventMask, Inotify};
use rustix::io::ioctl_fionread;

/// Room for what one read returns: some two thousand events.
const BUFFER_BYTES: usize = 64 * 1024;

/// The longest event: a name of 255 bytes.
const EVENT_BYTES_MAX: u64 = 16 + 256;

/// One event as the kernel gave it.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// The watch that it belongs to.
    pub wd: i32,
    /// What happened.
    pub mask: EventMask,
    /// Equal for the two halves of a rename.
    pub cookie: u32,
    /// Where it begins in the stream of all events, in bytes.
    pub position: u64,
    name: Range<usize>,
}

/// The queue, and the events of its last read.
pub struct Queue {
    inotify: Inotify,
    buffer: Vec<u8>,
    names: Vec<u8>,
    position: u64,
    was_full: bool,
}

impl Queue {
    /// An inotify instance of our own.
    ///
    /// # Errors
    /// When fs.inotify.max_user_instances or the limit on open files is used up.
    pub fn new() -> io::Result<Self> {
        Self::with_room(BUFFER_BYTES)
    }

    /// An inotify instance with room for so many bytes of events in one read.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_room(buffer_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::init()?,
            buffer: vec![0; buffer_bytes],
            names: Vec::new(),
            position: 0,
            was_full: false,
        })
    }

    /// The descriptor of the instance.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Reads the events in the queue, at most one buffer full. Does not wait.
    ///
    /// # Panics
    /// The crate panics on mask bits that it does not know; the events of this read are lost then.
    pub fn read(&mut self) -> io::Result<Vec<RawEvent>> {
        self.names.clear();
        self.was_full = false;
        let (begun, room) = (self.position, self.buffer.len() as u64);
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut read = Vec::new();
        for event in events {
            let name = event.name.map_or(&b""[..], |name| name.as_bytes());
            let start = self.names.len();
            self.names.extend_from_slice(name);
            read.push(RawEvent {
                wd: event.wd.get_watch_descriptor_id(),
                mask: event.mask,
                cookie: event.cookie,
                position: self.position,
                name: start..self.names.len(),
            });
            self.position += event_bytes(name.len());
        }
        self.was_full = self.position - begun + EVENT_BYTES_MAX > room;
        Ok(read)
    }

    /// True when the last read may have left events: the next one might not have fit into the buffer.
    pub fn was_full(&self) -> bool {
        self.was_full
    }

    /// The name in an event of the last read; empty when it is about the watched directory itself.
    pub fn name(&self, event: &RawEvent) -> &[u8] {
        self.names.get(event.name.clone()).unwrap_or_default()
    }

    /// True when `event` is a modification of a file, and `next` says that this file was closed.
    pub fn closes(&self, event: &RawEvent, next: &RawEvent) -> bool {
        event.mask == EventMask::MODIFY
            && next.mask == EventMask::CLOSE_WRITE
            && event.wd == next.wd
            && self.name(event) == self.name(next)
    }

    /// The position after the last event that was read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The position after everything that has happened until now.
    pub fn end(&self) -> u64 {
        self.position + ioctl_fionread(self.fd()).unwrap_or(u64::MAX / 2)
    }
}

/// The space that an event takes in the queue: the kernel pads the name and its NUL to 16 bytes.
fn event_bytes(name_len: usize) -> u64 {
    let padded = if name_len == 0 { 0 } else { (name_len + 1).next_multiple_of(16) };
    16 + padded as u64
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify::{WatchFlags, add_watch};

    use super::*;

    #[test]
    fn a_modification_belongs_to_the_close_right_behind_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut queue = Queue::new().unwrap();
        let mask = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        add_watch(queue.fd(), dir.path(), mask).unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "x").unwrap();
        let mut open = std::fs::File::create(&two).unwrap();
        std::io::Write::write_all(&mut open, b"x").unwrap();
        std::fs::write(&one, "y").unwrap();
        drop(open);
        let events = queue.read().unwrap();
        let closes: Vec<_> = events.windows(2).map(|two| queue.closes(&two[0], &two[1])).collect();
        // one: modified, closed; two: modified; one: modified, closed; two: closed.
        assert_eq!(closes, [true, false, false, true, false], "{events:?}");
    }

    #[test]
    fn positions_count_what_the_kernel_counts() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut queue = Queue::new().unwrap();
        add_watch(queue.fd(), dir.path(), WatchFlags::ALL_EVENTS).unwrap();
        for length in [1, 14, 15, 16, 31, 32, 255] {
            std::fs::write(dir.path().join("n".repeat(length)), "x").unwrap();
        }
        // An event about the directory itself has no name.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .unwrap();
        let end = queue.end();
        let events = queue.read().unwrap();
        assert_eq!((queue.end(), queue.position), (end, end));
        assert!(events.iter().any(|event| queue.name(event).is_empty()));
        assert!(events.iter().any(|event| queue.name(event).len() == 255));
    }
}
