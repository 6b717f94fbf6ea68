//! The refreshCDN plugin's `errorlog.txt`: one line per answer, as in sersync2.
//! Its size is bounded. It follows no link and is not readable by others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The size at which the file is renamed to `errorlog.txt.1` and a new one is started.
const SIZE_MAX: u64 = 1024 * 1024;

/// An error log. Opens the file for each line, so the file may be moved away at any time.
pub(super) struct ErrorLog {
    path: PathBuf,
    size_max: u64,
    complained: bool,
}

impl ErrorLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, size_max: SIZE_MAX, complained: false }
    }

    /// Appends `line` and a newline. A write error is logged once.
    pub(super) fn append(&mut self, line: &str) {
        match self.write(line) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                let path = self.path.display();
                log::warn!("plugin refreshCDN: cannot write the answers to {path}: {error}");
            }
            Err(_) => {}
        }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        let mut file = open(&self.path)?;
        if file.metadata()?.len() + line.len() as u64 >= self.size_max {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            file = open(&self.path)?;
        }
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// Opens a regular file without further hard links for appending; anything else in its place is an error.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::other("it is not a regular file, or has several hard links"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_bounded_and_the_last_lines_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("errorlog.txt");
        let mut log = ErrorLog::new(path.clone());
        log.size_max = 100;
        for number in 0..100 {
            log.append(&format!("answer {number}"));
        }
        let old = fs::metadata(dir.path().join("errorlog.txt.1")).unwrap();
        assert!(old.len() <= 100 && fs::metadata(&path).unwrap().len() <= 100);
        assert!(fs::read_to_string(&path).unwrap().ends_with("answer 99\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn hard_link_or_fifo_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        fs::hard_link(&other, dir.path().join("errorlog.txt")).unwrap();
        let mut log = ErrorLog::new(dir.path().join("errorlog.txt"));
        log.append("answer");
        assert!(log.complained);
        assert_eq!(fs::read(other).unwrap(), b"");
    }
}
