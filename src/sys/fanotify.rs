//! The system calls of fanotify and file handles, which no crate offers safely, and the parsing of the events.
//! Knows no paths: a directory is identified by the kernel's file handle.

#![expect(unsafe_code, reason = "fanotify and file handles are in no safe crate")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{
    FAN_CLASS_NOTIF, FAN_CLOEXEC, FAN_EVENT_INFO_TYPE_DFID_NAME, FAN_EVENT_INFO_TYPE_NEW_DFID_NAME,
    FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, FAN_EVENT_ON_CHILD, FAN_MARK_ADD, FAN_MARK_EVICTABLE,
    FAN_MARK_FILESYSTEM, FAN_MARK_FLUSH, FAN_MARK_IGNORE_SURV, FAN_NONBLOCK, FAN_ONDIR,
    FAN_REPORT_DFID_NAME, FAN_UNLIMITED_QUEUE,
};

/// Bytes before an event's information records: `struct fanotify_event_metadata`.
const METADATA_BYTES: usize = 24;

/// Bytes before the handle itself: type, padding, length, file system, the handle's length and type.
const INFO_HEAD_BYTES: usize = 20;

/// The longest handle that the kernel gives.
const HANDLE_BYTES_MAX: usize = 128;

/// A directory and a name in it, from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirAndName<'a> {
    /// File system, length, type and content of the directory's handle.
    pub dir: &'a [u8],
    /// `.` for the directory itself.
    pub name: &'a [u8],
}

/// One event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct FanEvent<'a> {
    /// `FAN_*` bits; several when events on one name were merged.
    pub mask: u64,
    /// Where it happened; for a rename the old name.
    pub at: Option<DirAndName<'a>>,
    /// For a rename the new name.
    pub to: Option<DirAndName<'a>>,
}

/// A group that reports directories by handle, with names, without a limit on its queue.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, EINVAL on kernels before 5.9.
pub fn init() -> io::Result<OwnedFd> {
    let flags =
        FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_REPORT_DFID_NAME;
    // SAFETY: takes two numbers; gives a new descriptor or -1.
    let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks for these events on the whole file system that holds the open directory.
///
/// # Errors
/// EOPNOTSUPP, ENODEV or EXDEV when the file system has no handles or no number; EINVAL when the kernel is too old
/// for one of the events.
pub fn mark_filesystem(group: BorrowedFd<'_>, dir: &OwnedFd, mask: u64) -> io::Result<()> {
    let flags = FAN_MARK_ADD | FAN_MARK_FILESYSTEM;
    let (group, dir) = (group.as_raw_fd(), dir.as_raw_fd());
    // SAFETY: both descriptors are open; a null path means the directory itself.
    let result = unsafe { libc::fanotify_mark(group, flags, mask, dir, std::ptr::null()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ignores these events in the directory (an `O_PATH` descriptor is enough), until [`hear_all`] or until the kernel
/// reclaims the memory.
///
/// # Errors
/// EINVAL on kernels before 6.0; ENOSPC when `fs.fanotify.max_user_marks` is used up.
pub fn ignore_in(group: BorrowedFd<'_>, dir: &OwnedFd, mask: u64) -> io::Result<()> {
    let flags = FAN_MARK_ADD | FAN_MARK_IGNORE_SURV | FAN_MARK_EVICTABLE;
    let mask = mask | FAN_EVENT_ON_CHILD | FAN_ONDIR;
    let (group, dir) = (group.as_raw_fd(), dir.as_raw_fd());
    // SAFETY: both descriptors are open, and the path is a constant that ends with NUL.
    let result = unsafe { libc::fanotify_mark(group, flags, mask, dir, c".".as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends all ignoring by [`ignore_in`].
///
/// # Errors
/// None that is known.
pub fn hear_all(group: BorrowedFd<'_>) -> io::Result<()> {
    let group = group.as_raw_fd();
    // SAFETY: the descriptor is open; the call uses neither directory nor path.
    let result =
        unsafe { libc::fanotify_mark(group, FAN_MARK_FLUSH, 0, libc::AT_FDCWD, std::ptr::null()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens the directory of an event with `O_PATH`, in the mount of `mount`.
///
/// # Errors
/// ESTALE when it is deleted; EPERM without CAP_DAC_READ_SEARCH.
pub fn open_dir(mount: &OwnedFd, dir: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C, align(4))]
    struct Handle([u8; 8 + HANDLE_BYTES_MAX]);
    let wanted = dir.get(8..).filter(|handle| handle.len() <= 8 + HANDLE_BYTES_MAX);
    let wanted = wanted.ok_or(io::ErrorKind::InvalidData)?;
    let mut handle = Handle([0; 8 + HANDLE_BYTES_MAX]);
    handle.0[..wanted.len()].copy_from_slice(wanted);
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the buffer is aligned, starts with the two numbers of `struct file_handle`, and is as long as the
    // first of them may say; the kernel checks it against its own limit of 128.
    let fd = unsafe {
        libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut handle).cast(), flags)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Parses the events of one read; ends at the first one that it does not understand.
pub fn parse(mut bytes: &[u8]) -> impl Iterator<Item = FanEvent<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let event = bytes.get(..length)?;
        let metadata_length = u16_at(event, 6)? as usize;
        if metadata_length < METADATA_BYTES {
            return None;
        }
        let mask = u64::from_ne_bytes(event.get(8..16)?.try_into().ok()?);
        let mut parsed = FanEvent { mask, ..FanEvent::default() };
        let mut rest = event.get(metadata_length..)?;
        while let Some(length) = u16_at(rest, 2).map(usize::from).filter(|length| *length >= 4) {
            let info = rest.get(..length)?;
            match info[0] {
                FAN_EVENT_INFO_TYPE_DFID_NAME | FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => {
                    parsed.at = parse_dir_and_name(info);
                }
                FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => parsed.to = parse_dir_and_name(info),
                _ => {}
            }
            rest = &rest[length..];
        }
        bytes = &bytes[event.len()..];
        Some(parsed)
    })
}

fn parse_dir_and_name(info: &[u8]) -> Option<DirAndName<'_>> {
    let handle_bytes = u32_at(info, 12)? as usize;
    let dir = info.get(4..INFO_HEAD_BYTES.checked_add(handle_bytes)?)?;
    let name = info.get(INFO_HEAD_BYTES + handle_bytes..)?;
    let end = name.iter().position(|&b| b == 0)?;
    Some(DirAndName { dir, name: &name[..end] })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An information record: file system 1, a handle of four bytes.
    fn info(kind: u8, name: &[u8]) -> Vec<u8> {
        let length = (24 + name.len() + 1).next_multiple_of(4);
        let mut bytes = vec![kind, 0];
        bytes.extend((length as u16).to_ne_bytes());
        bytes.extend(1u64.to_ne_bytes());
        bytes.extend(4u32.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(b"dirH");
        bytes.extend(name);
        bytes.resize(length, 0);
        bytes
    }

    fn event(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut bytes = ((METADATA_BYTES + infos.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend((METADATA_BYTES as u16).to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend([0xff; 8]);
        bytes.extend(infos);
        bytes
    }

    #[test]
    fn a_rename_has_two_names() {
        let infos = [
            info(FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, b"old"),
            info(FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, b"newer"),
        ];
        let bytes = [event(1, &infos), event(2, &infos[..1])].concat();
        let events: Vec<_> = parse(&bytes).collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].at.unwrap().name, b"old");
        assert_eq!(events[0].to.unwrap().name, b"newer");
        assert_eq!(events[0].at.unwrap().dir.len(), 20);
        assert_eq!((events[1].mask, events[1].to), (2, None));
    }

    #[test]
    fn a_torn_read_ends_the_events() {
        let bytes = event(1, &[info(FAN_EVENT_INFO_TYPE_DFID_NAME, b"name")]);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]).count(), 0, "{length} bytes");
        }
    }
}
