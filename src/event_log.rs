//! `<eventLog>`: one line for each delivery, deletion, move and failure, written by its own thread.
//! Never delays the mirror: lines that cannot be written are dropped, counted and reported.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::json;

use crate::config::telling::{self, EventFormat, EventKinds};
use crate::ground::thread::JoinedThread;
use crate::path::RelPath;

/// The maximum number of records that wait for the disk; one more is dropped.
const QUEUE: usize = 10_000;
/// The maximum number of lines in one write.
const TOGETHER: usize = 500;
/// The group may read it, because monitoring often does; others have no access.
const MODE: u32 = 0o640;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedEvent {
    /// It was sent.
    Sent,
    /// It was deleted on the remote.
    Deleted,
    /// It was created from the copy at its old name.
    Moved,
    /// A whole tree was compared.
    Compared,
    /// rsync could not deliver it.
    Failed,
}

impl LoggedEvent {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Deleted => "deleted",
            Self::Moved => "moved",
            Self::Compared => "compared",
            Self::Failed => "failed",
        }
    }

    fn is_wanted(self, kinds: EventKinds) -> bool {
        match self {
            Self::Sent | Self::Compared => kinds.deliveries,
            Self::Deleted => kinds.deletions,
            Self::Moved => kinds.moves,
            Self::Failed => kinds.errors,
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub event: LoggedEvent,
    /// The remote.
    pub remote: Arc<str>,
    /// The watch path.
    pub root: Arc<Path>,
    /// The path below the watch path.
    pub path: RelPath,
    /// Time from the change to the delivery; `None` if no change was seen.
    pub took_us: Option<u64>,
    /// The size of the sent file; `None` if unknown, or if nothing was sent.
    pub bytes: Option<u64>,
    /// rsync's exit code and message; `None` on success.
    pub failure: Option<(i32, String)>,
}

/// The running event log. Dropping it writes the waiting records and ends the thread.
#[derive(Debug)]
pub struct EventLog {
    what: EventKinds,
    queue: Sender<EventRecord>,
    shared: Arc<Shared>,
    _thread: JoinedThread,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    lost: AtomicU64,
}

impl EventLog {
    /// Opens the file and starts the thread. If that fails, it is retried at each record.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: &telling::EventLogConfig) -> io::Result<Self> {
        let (queue, records) = bounded(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            path: config.path.clone(),
            format: config.format,
            what: config.what,
            file: None,
            shared: Arc::clone(&shared),
            lost: 0,
            complained: false,
        };
        let thread = JoinedThread::start("event-log", move || writer.run(&records))?;
        Ok(Self { what: config.what, queue, shared, _thread: thread })
    }

    /// True when the configuration wants records of this event.
    pub fn wants(&self, event: LoggedEvent) -> bool {
        event.is_wanted(self.what)
    }

    /// Queues a record; never blocks.
    pub fn offer(&self, record: EventRecord) {
        if !self.wants(record.event) {
            return;
        }
        if self.queue.try_send(record).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reopens the file before the next line, for log rotation.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }
}

struct Writer {
    path: PathBuf,
    format: EventFormat,
    what: EventKinds,
    file: Option<File>,
    shared: Arc<Shared>,
    /// Lines that were lost since the last successful write.
    lost: u64,
    complained: bool,
}

impl Writer {
    fn run(mut self, records: &Receiver<EventRecord>) {
        // Create the file now, so that the operator sees it before the first event.
        let opened = self.open();
        self.note(opened, 0);
        while let Ok(first) = records.recv() {
            let mut lines = String::new();
            let mut count = 0;
            let more = records.try_iter().take(TOGETHER - 1);
            for record in std::iter::once(first).chain(more).map(look_up) {
                if record.event.is_wanted(self.what) {
                    self.format.write(&record, &mut lines);
                    count += 1;
                }
            }
            let written = self.append(&lines);
            self.note(written, count);
        }
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        if self.shared.reopen.swap(false, Ordering::AcqRel) {
            self.file = None;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let before = file.metadata()?.len();
        file.write_all(lines.as_bytes()).inspect_err(|_| {
            // Remove a partial line, which would be misleading.
            _ = file.set_len(before);
        })
    }

    fn open(&mut self) -> io::Result<()> {
        // A FIFO without a reader must not hold this thread for ever.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = flags.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(MODE).custom_flags(flags);
        let file = options.open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        self.file = Some(file);
        Ok(())
    }

    /// Logs once that lines are lost; when writing works again, logs how many.
    fn note(&mut self, written: io::Result<()>, count: u64) {
        let path = self.path.display();
        self.lost += self.shared.lost.swap(0, Ordering::Relaxed);
        match written {
            Ok(()) if self.lost > 0 => {
                log::warn!(
                    "event log {path}: {} lines were lost; the mirror was not affected",
                    self.lost
                );
                (self.lost, self.complained) = (0, false);
            }
            Ok(()) => self.complained = false,
            Err(error) => {
                self.lost += count;
                self.file = None;
                if !std::mem::replace(&mut self.complained, true) {
                    log::warn!(
                        "event log {path}: cannot write: {error}; its lines are lost until this is fixed, \
                        and the mirror goes on"
                    );
                }
            }
        }
    }
}

/// Adds the size of the delivered file; a file that is gone by now gets none.
fn look_up(mut record: EventRecord) -> EventRecord {
    if record.bytes.is_none() && matches!(record.event, LoggedEvent::Sent | LoggedEvent::Moved) {
        let found = std::fs::symlink_metadata(record.path.below(&record.root));
        record.bytes = found.ok().filter(|found| found.is_file()).map(|found| found.len());
    }
    record
}

/// The format of a line.
trait Format {
    fn write(self, record: &EventRecord, into: &mut String);
}

impl Format for EventFormat {
    fn write(self, record: &EventRecord, into: &mut String) {
        match self {
            Self::Text => text_line(record, into),
            Self::Json => json_line(record, into),
        }
    }
}

/// Formats a record as text. The path comes last, because only it may contain blanks.
fn text_line(record: &EventRecord, line: &mut String) {
    let bytes = record.bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
    let took = record.took_us.map_or("-".to_owned(), |us| format!("{:.3}s", us as f64 / 1e6));
    let outcome =
        record.failure.as_ref().map_or("ok".to_owned(), |(code, _)| format!("code={code}"));
    let (time, event, path) = (time(record.at_ms), record.event.name(), shown(record));
    let remote = escaped(&record.remote).replace(' ', "\\u{20}");
    _ = write!(line, "{time} {event} {remote} {outcome} bytes={bytes} took={took} {path}");
    if let Some((_, reason)) = &record.failure {
        _ = write!(line, ": {}", escaped(reason));
    }
    line.push('\n');
}

fn json_line(record: &EventRecord, line: &mut String) {
    let mut value = json!({
        "time": time(record.at_ms),
        "event": record.event.name(),
        "remote": &*record.remote,
        "outcome": if record.failure.is_none() { "ok" } else { "failed" },
        "root": record.root.to_string_lossy(),
        "path": escaped(&record.path.to_string()),
        "bytes": record.bytes,
        "took_us": record.took_us,
    });
    if let Some((code, reason)) = &record.failure {
        value["code"] = (*code).into();
        value["reason"] = reason.as_str().into();
    }
    // Serde's JSON has no line breaks.
    _ = writeln!(line, "{value}");
}

/// The absolute path, escaped so that it cannot begin a line or move a terminal's cursor.
fn shown(record: &EventRecord) -> String {
    let root = escaped(&record.root.to_string_lossy());
    match record.path.is_root() {
        true => format!("{root}/"),
        false => format!("{root}/{}", escaped(&record.path.to_string())),
    }
}

/// Escapes control characters and line separators.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                _ = write!(safe, "{}", c.escape_unicode());
            }
            c if c.is_control() => _ = write!(safe, "{}", c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

fn time(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let zoned: Zoned = timestamp.unwrap_or_default().to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &[u8], event: LoggedEvent) -> EventRecord {
        EventRecord {
            at_ms: 1_700_000_000_123,
            event,
            remote: "192.0.2.20::www".into(),
            root: Path::new("/data/www").into(),
            path: RelPath::new(path).unwrap(),
            took_us: Some(12_345),
            bytes: Some(1_024),
            failure: None,
        }
    }

    fn config(path: PathBuf, format: EventFormat) -> telling::EventLogConfig {
        telling::EventLogConfig { path, format, what: EventKinds::ALL }
    }

    #[test]
    fn a_line_says_when_what_where_and_how_long() {
        let mut line = String::new();
        text_line(&record(b"a b.txt", LoggedEvent::Sent), &mut line);
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "sent 192.0.2.20::www ok bytes=1024 took=0.012s /data/www/a b.txt\n");
        line.clear();
        let failure = Some((23, "Permission denied (13)".to_owned()));
        text_line(
            &EventRecord {
                failure,
                took_us: None,
                bytes: None,
                ..record(b"x", LoggedEvent::Failed)
            },
            &mut line,
        );
        assert!(line.ends_with(
            "failed 192.0.2.20::www code=23 bytes=- took=- /data/www/x: Permission denied (13)\n"
        ));
    }

    #[test]
    fn no_name_forges_a_line() {
        let names: [&[u8]; 5] = [
            b"a\n2026-01-01T00:00:00.000+00:00 deleted x",
            b"\r\x1b[2J",
            b"\xff\xfe\n",
            "\u{2028}\u{202e}\u{85}".as_bytes(),
            b"\"}\n{\"event\":\"deleted\"",
        ];
        for name in names {
            for format in [EventFormat::Text, EventFormat::Json] {
                let mut line = String::new();
                format.write(&record(name, LoggedEvent::Sent), &mut line);
                assert_eq!(line.matches('\n').count(), 1, "{line}");
                assert!(!line.trim_end().contains(|c: char| c.is_control()), "{line:?}");
            }
        }
    }

    #[test]
    fn only_what_is_wanted_is_written_and_a_new_file_follows_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let what = EventKinds { deletions: true, ..EventKinds::default() };
        let config = telling::EventLogConfig { what, ..config(path.clone(), EventFormat::Json) };
        let log = EventLog::start(&config).unwrap();
        log.offer(record(b"sent", LoggedEvent::Sent));
        log.offer(record(b"first", LoggedEvent::Deleted));
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("first") && !text.contains("sent\""), "{text}");
        let log = EventLog::start(&config).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen();
        log.offer(record(b"second", LoggedEvent::Deleted));
        drop(log);
        assert!(std::fs::read_to_string(&path).unwrap().contains("second"));
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_lines_and_nothing_else() {
        let log = EventLog::start(&config("/dev/full".into(), EventFormat::Text)).unwrap();
        for _ in 0..QUEUE + 10 {
            log.offer(record(b"x", LoggedEvent::Sent));
        }
        drop(log);
    }
}
