//! Standard output for events: written in large pieces, and never later than the next wait.

use std::io;

use rustix::stdio::stdout;

/// So much is collected at most.
const BYTES_MAX: usize = 64 * 1024;

/// What is to be written.
#[derive(Default)]
pub struct Output(Vec<u8>);

impl Output {
    /// For appending.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Writes when much has come together.
    ///
    /// # Errors
    /// What the kernel says, a full disk for example.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        if self.0.len() < BYTES_MAX { Ok(()) } else { self.flush() }
    }

    /// Writes everything.
    ///
    /// # Errors
    /// As for [`flush_if_large`](Self::flush_if_large).
    pub fn flush(&mut self) -> io::Result<()> {
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            match rustix::io::write(stdout(), rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.0.clear();
        Ok(())
    }
}
