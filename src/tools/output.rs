//! Buffers standard output: writes large pieces, and flushes before the tool waits.

use std::io;

use rustix::stdio::stdout;

/// The buffer is flushed when it has this size.
const BYTES_MAX: usize = 64 * 1024;

/// Output that is not written yet.
#[derive(Default)]
pub struct Output(Vec<u8>);

impl Output {
    /// The buffer, to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Flushes when the buffer is large.
    ///
    /// # Errors
    /// The error of the write, such as a full disk.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        if self.0.len() < BYTES_MAX { Ok(()) } else { self.flush() }
    }

    /// Writes the whole buffer.
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
