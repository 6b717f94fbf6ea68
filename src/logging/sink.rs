//! Writes the log's lines to standard error, or to a file that can be reopened.
//! Never blocks or fails: it counts lines that cannot be written, and logs the count later.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use indicatif::MultiProgress;
use jiff::Zoned;
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::{LogError, LogTarget, format_line};

/// How long one line may wait for a slow reader of standard error, in nanoseconds. After a lost line, no line waits until a write
/// succeeds.
const PATIENCE_NS: i64 = 20_000_000;

/// How long a write may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteWait {
    /// [`PATIENCE_NS`].
    Short,
    /// Not at all.
    None,
}

/// The destination of the lines, and the number of lost lines.
#[derive(Debug)]
pub(super) struct LogSink {
    path: Option<PathBuf>,
    /// `None`: standard error.
    file: Option<File>,
    holds_streams: bool,
    lines_lost: u64,
    /// Progress bars on the same terminal.
    screen: Option<MultiProgress>,
    /// The last line was written only in part, so the next one must begin with a newline.
    torn: bool,
}

impl LogSink {
    pub(super) fn open(destination: LogTarget) -> Result<Self, LogError> {
        let path = match destination {
            LogTarget::Stderr => None,
            LogTarget::File(path) => Some(path),
        };
        Ok(Self {
            file: path.as_deref().map(open_file).transpose()?,
            path,
            holds_streams: false,
            lines_lost: 0,
            screen: None,
            torn: false,
        })
    }

    pub(super) fn reopen(&mut self) -> Result<(), LogError> {
        if let Some(path) = &self.path {
            self.file = Some(open_file(path)?);
        }
        self.redirect()
    }

    pub(super) fn take_standard_streams(&mut self) -> Result<(), LogError> {
        self.holds_streams = true;
        self.redirect()
    }

    fn redirect(&self) -> Result<(), LogError> {
        let (true, Some(file), Some(path)) = (self.holds_streams, &self.file, &self.path) else {
            return Ok(());
        };
        rustix::stdio::dup2_stdout(file)
            .and_then(|()| rustix::stdio::dup2_stderr(file))
            .map_err(|e| LogError::Open { path: path.clone(), source: e.into() })
    }

    /// The log file; `None`: standard error.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(super) fn write_line(&mut self, line: &[u8]) {
        let mut text = Vec::new();
        if self.torn {
            text.push(b'\n');
        }
        if self.lines_lost > 0 {
            let lost =
                format!("{} log lines before this one could not be written", self.lines_lost);
            text.extend(format_line(&Zoned::now(), Level::Warn, &lost).bytes());
        }
        text.extend_from_slice(line);
        if self.write_beside_screen(&text) {
            self.lines_lost = 0;
            self.torn = false;
        } else {
            self.lines_lost += 1;
        }
    }

    pub(super) fn share_terminal(&mut self, screen: MultiProgress) {
        self.screen = Some(screen);
    }

    /// As `write_all`; redraws the progress bars below the text.
    fn write_beside_screen(&mut self, text: &[u8]) -> bool {
        let screen = self.screen.clone().filter(|_| self.file.is_none());
        // Removing the bars would wait while the terminal is stopped.
        match screen.filter(|_| is_writable(io::stderr().as_fd(), WriteWait::None)) {
            Some(screen) => screen.suspend(|| self.write_all(text)),
            None => self.write_all(text),
        }
    }

    /// True when everything was written.
    fn write_all(&mut self, mut text: &[u8]) -> bool {
        let stderr = io::stderr();
        let patience = if self.lines_lost == 0 { WriteWait::Short } else { WriteWait::None };
        while !text.is_empty() {
            let fd = self.file.as_ref().map_or(stderr.as_fd(), File::as_fd);
            if !is_writable(fd, patience) {
                return false;
            }
            match rustix::io::write(fd, text) {
                Ok(0) => return false,
                Ok(written) => {
                    text = &text[written..];
                    self.torn = !text.is_empty();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// True when a write will not block: a regular file always, a pipe or terminal only while it is read.
pub(super) fn is_writable(fd: BorrowedFd<'_>, patience: WriteWait) -> bool {
    let tv_nsec = if patience == WriteWait::Short { PATIENCE_NS } else { 0 };
    let patience = Timespec { tv_sec: 0, tv_nsec };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&patience)), Ok(n) if n > 0)
}

/// Opens for appending, with mode 0640, never through a symbolic link. Creates missing directories.
pub(super) fn open_file(path: &Path) -> Result<File, LogError> {
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // Without NONBLOCK, opening a pipe that nobody reads would block for ever.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path)
    };
    let opened = open().or_else(|e| match path.parent() {
        Some(parent) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
            open()
        }
        _ => Err(e),
    });
    let kind = opened.and_then(|file| Ok((file.metadata()?.file_type(), file)));
    match kind {
        Ok((kind, file)) if kind.is_file() || kind.is_char_device() => Ok(file),
        Ok(_) => Err(LogError::Kind { path: path.into() }),
        Err(e) => Err(LogError::Open { path: path.into(), source: explain_link(e) }),
    }
}

/// The kernel's message for a symbolic link is "too many levels of symbolic links".
fn explain_link(e: io::Error) -> io::Error {
    if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return io::Error::other("it is a symbolic link");
    }
    e
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn file_sink(path: &Path) -> LogSink {
        LogSink::open(LogTarget::File(path.into())).unwrap()
    }

    #[test]
    fn after_rotation_lines_go_to_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = file_sink(&path);
        log.write_line(b"one\n");
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        log.write_line(b"two\n");
        log.reopen().unwrap();
        log.write_line(b"three\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn when_reopening_fails_the_old_file_stays_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = file_sink(&path);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        log.write_line(b"one\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "one\n");
    }

    #[test]
    fn the_file_is_private_and_its_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/one/log");
        file_sink(&path);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path) & !0o640, 0);
        assert_eq!(mode(path.parent().unwrap()) & !0o750, 0);
    }

    #[test]
    fn a_symbolic_link_or_a_pipe_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("passwd");
        let link = dir.path().join("log");
        fs::write(&target, "").unwrap();
        symlink(&target, &link).unwrap();
        let refusal = open_file(&link).unwrap_err().to_string();
        assert!(refusal.contains("symbolic link"), "{refusal}");
        assert!(open_file(dir.path()).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(open_file(&pipe).is_err());
    }

    #[test]
    fn lines_lost_on_a_full_disk_are_counted_when_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = file_sink(&path);
        log.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        log.write_line(b"lost\n");
        log.write_line(b"lost too\n");
        log.reopen().unwrap();
        log.write_line(b"found\n");
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("WARN  2 log lines before this one could not be written\nfound\n"),
            "{text}"
        );
        log.write_line(b"more\n");
        assert!(fs::read_to_string(&path).unwrap().ends_with("found\nmore\n"));
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_block() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut log = file_sink(&dir.path().join("log"));
        log.file = Some(File::from(writer));
        for _ in 0..20_000 {
            log.write_line(b"a line of the log that nobody reads\n");
        }
        assert!(log.lines_lost > 10_000);
        drop(reader);
        log.write_line(b"the reader is gone\n");
    }
}
