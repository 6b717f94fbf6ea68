//! Finds out whether a process has a file open for writing, with a lease that is released at once.
//! Waits for nothing, and leaves no lease behind.

#![expect(unsafe_code, reason = "leases are in no safe crate")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The command that sets the signal for a broken lease. Its number is the same on all our platforms; the libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// True when some process has the file open for writing. `file` must be open for reading only.
///
/// # Errors
/// EACCES for files of others without CAP_LEASE; EINVAL where the file system has no leases.
pub fn has_writer(file: BorrowedFd<'_>) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // If a process opens the file during the lease, the kernel sends a signal. Choose one that is ignored.
    // SAFETY: the descriptor is open; the commands take numbers.
    let result = unsafe {
        match libc::fcntl(fd, F_SETSIG, libc::SIGURG) {
            0 => libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK),
            failed => failed,
        }
    };
    if result == 0 {
        // SAFETY: as above. It fails only when there is no lease any more.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return Ok(false);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_writer_is_seen_as_long_as_it_holds_the_file_open() {
        let writer = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(writer.path()).unwrap();
        assert!(has_writer(file.as_fd()).unwrap());
        let path = writer.into_temp_path();
        assert!(!has_writer(file.as_fd()).unwrap());
        assert!(!has_writer(file.as_fd()).unwrap(), "no lease was left");
        File::options().write(true).open(&path).unwrap();
    }
}
