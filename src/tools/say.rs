//! Writes a tool's messages to standard error or syslog. Events do not go through here.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::sys::posix::{error_text, write_syslog};

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// To standard error.
    StandardError,
    /// To syslog.
    Syslog,
}

impl Messages {
    /// Writes the concatenated pieces as one message, unchanged.
    pub fn say(self, pieces: &[&[u8]]) {
        let message = pieces.concat();
        match self {
            // If standard error cannot be written, there is no other way to report it.
            Messages::StandardError => _ = std::io::stderr().write_all(&message),
            Messages::Syslog => {
                if let Ok(message) = CString::new(message) {
                    write_syslog(&message);
                }
            }
        }
    }
}

/// Writes the concatenated pieces to standard error, as one message.
pub fn complain(pieces: &[&[u8]]) {
    Messages::StandardError.say(pieces);
}

/// The C library's text for an error.
pub fn text_of(errno: Errno) -> Vec<u8> {
    error_text(errno.raw_os_error()).into_bytes()
}

/// The bytes of a path.
pub fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
