//! Writes a snapshot file, listing by listing.
//! Does not know where the listings come from.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::format::{FRAME_LEN, Listing, RecordHeader, encode_listing};
use crate::seal;

/// A snapshot that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    frame: Vec<u8>,
    start: usize,
}

impl Writer {
    /// Starts the file.
    pub fn create(path: &Path, header: &RecordHeader) -> io::Result<Self> {
        // Create a new file instead of truncating the old one: an earlier process may still write to that.
        super::merge::remove(path)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        file.write_all(&header.encode())?;
        let mut frame = Vec::new();
        let start = seal::begin(&mut frame);
        Ok(Self { file, frame, start })
    }

    /// Adds a listing; listings must be sorted.
    pub fn write(&mut self, listing: &Listing) -> io::Result<()> {
        // An empty directory needs no frame: its parent's listing names it. Each part of a long listing repeats the directory.
        for part in listing.entries.chunks(1024) {
            encode_listing(&mut self.frame, &listing.dir, part);
            if self.frame.len() >= FRAME_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        seal::close(&mut self.frame, self.start);
        self.file.write_all(&self.frame)?;
        self.frame.clear();
        self.start = seal::begin(&mut self.frame);
        Ok(())
    }

    /// Ends the file and makes it durable.
    pub fn finish(mut self) -> io::Result<()> {
        if self.frame.len() > seal::HEAD_LEN {
            self.flush()?;
        }
        // An empty frame marks the snapshot as complete.
        self.flush()?;
        self.file.sync_all()
    }
}
