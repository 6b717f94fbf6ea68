//! `inotifywatch`: counts events and prints a table, with the options, the output and the exit codes of inotify-tools.
//! docs/TOOLS.md lists the intended differences.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::pipe;

use crate::sys::posix::end_on_closed_pipes;
use crate::tools::events;
use crate::tools::getopt::{self, Argument, LongOption, Options};
use crate::tools::operands::Operands;
use crate::tools::output::Output;
use crate::tools::say::{Messages, complain, text_of};
use crate::tools::shared::{
    Depth, Expressions, Family, Overflows, Refused, complain_of_init, option_order, parse_events,
    parse_timeout, set_once, set_up, take_options,
};
use crate::tools::watching::{FileEvent, Gone, Next, Watching};

const fn long(name: &'static str, argument: Argument, id: char) -> LongOption {
    LongOption { name, argument, id }
}

const OPTIONS: Options = Options {
    short: "hrPa:d:zve:t:IFS",
    long: &[
        long("help", Argument::None, 'h'),
        long("event", Argument::Required, 'e'),
        long("timeout", Argument::Required, 't'),
        long("verbose", Argument::None, 'v'),
        long("zero", Argument::None, 'z'),
        long("ascending", Argument::Required, 'a'),
        long("descending", Argument::Required, 'd'),
        long("recursive", Argument::None, 'r'),
        long("inotify", Argument::None, 'I'),
        long("fanotify", Argument::None, 'F'),
        long("filesystem", Argument::None, 'S'),
        long("no-dereference", Argument::None, 'P'),
        long("fromfile", Argument::Required, '@'),
        long("exclude", Argument::Required, '1'),
        long("excludei", Argument::Required, '2'),
        long("include", Argument::Required, '3'),
        long("includei", Argument::Required, '4'),
    ],
};

/// The columns of the table: event, heading, width.
const COLUMNS: [(u32, &str, usize); 13] = [
    (libc::IN_ACCESS, "access", 6),
    (libc::IN_MODIFY, "modify", 6),
    (libc::IN_ATTRIB, "attrib", 6),
    (libc::IN_CLOSE_WRITE, "close_write", 11),
    (libc::IN_CLOSE_NOWRITE, "close_nowrite", 13),
    (libc::IN_OPEN, "open", 4),
    (libc::IN_MOVED_FROM, "moved_from", 10),
    (libc::IN_MOVED_TO, "moved_to", 8),
    (libc::IN_MOVE_SELF, "move_self", 9),
    (libc::IN_CREATE, "create", 6),
    (libc::IN_DELETE, "delete", 6),
    (libc::IN_DELETE_SELF, "delete_self", 11),
    (libc::IN_UNMOUNT, "unmount", 7),
];

/// The events that show how a watched tree changes.
const STRUCTURE: u32 = libc::IN_CREATE | libc::IN_MOVE | libc::IN_MOVE_SELF;

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Total,
    Column(usize),
}

/// Which rows come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

/// Whether rows and columns of zeros are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Hidden,
    Shown,
}

/// What the command line asks for.
struct Settings {
    events: u32,
    timeout: u32,
    is_verbose: bool,
    zeros: Zeros,
    key: Key,
    /// The event to sort by; zero for the total.
    sorted_by: u32,
    direction: Direction,
    has_ascending: bool,
    is_recursive: bool,
    keeps_links: bool,
    list: Option<OsString>,
    expressions: Expressions,
    operands: Vec<OsString>,
}

/// Runs the tool; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    end_on_closed_pipes();
    match Settings::read(&words).and_then(|settings| settings.run(Family::of(&words))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused) => ExitCode::FAILURE,
    }
}

impl Settings {
    fn read(words: &[OsString]) -> Result<Self, Refused> {
        let family = Family::of(words);
        let (options, operands) = getopt::read(words, &OPTIONS, option_order());
        let mut settings = Self {
            events: 0,
            timeout: 0,
            is_verbose: false,
            zeros: Zeros::Hidden,
            key: Key::Total,
            sorted_by: 0,
            direction: Direction::Descending,
            has_ascending: false,
            is_recursive: false,
            keeps_links: false,
            list: None,
            expressions: Expressions::default(),
            operands,
        };
        let taken = take_options(options, |id, argument| settings.take(family, id, argument))?;
        settings.check()?;
        taken.map(|()| settings)
    }

    /// Applies one option.
    fn take(&mut self, family: Family, id: char, argument: OsString) -> Result<(), Refused> {
        match id {
            'h' => {
                family.print_help(include_str!("help/watch.txt"), "watch");
                return Err(Refused);
            }
            'v' => self.is_verbose = true,
            'z' => self.zeros = Zeros::Shown,
            'r' => self.is_recursive = true,
            'F' | 'S' if family == Family::Fsnotify => {
                family.refuse_fanotify("watch");
                return Err(Refused);
            }
            'P' => self.keeps_links = true,
            '1' => self.expressions.exclude = Some(argument),
            '2' => self.expressions.excludei = Some(argument),
            '3' => self.expressions.include = Some(argument),
            '4' => self.expressions.includei = Some(argument),
            '@' => set_once(&mut self.list, argument, "--fromfile")?,
            't' => self.timeout = parse_timeout(&argument)?,
            'e' => self.events |= parse_events(&argument)?,
            'a' => self.sort_ascending(&argument)?,
            'd' => self.sort_descending(&argument)?,
            _ => {}
        }
        Ok(())
    }

    fn sort_ascending(&mut self, name: &OsStr) -> Result<(), Refused> {
        if self.has_ascending {
            return refuse_second_key();
        }
        let name = name.as_bytes();
        for (group, advice) in
            [("move", "`moved_from' or `moved_to'"), ("close", "`close_write' or `close_nowrite'")]
        {
            if name.eq_ignore_ascii_case(group.as_bytes()) {
                let text = format!("Cannot sort by `{group}' event; please use {advice}.\n");
                complain(&[text.as_bytes()]);
                return Err(Refused);
            }
        }
        self.sorted_by = parse_key(name)?;
        self.key = key_of(self.sorted_by, name)?;
        self.direction = Direction::Ascending;
        self.has_ascending = true;
        Ok(())
    }

    fn sort_descending(&mut self, name: &OsStr) -> Result<(), Refused> {
        if self.has_ascending {
            return refuse_second_key();
        }
        let name = name.as_bytes();
        let event = parse_key(name)?;
        self.direction = Direction::Descending;
        self.sorted_by = event;
        self.key = key_of(event, name)?;
        if event == 0 && !name.eq_ignore_ascii_case(b"total") {
            // As in the original: an empty name sorts by the total, ascending.
            self.direction = Direction::Ascending;
        }
        if event == libc::IN_ACCESS {
            // As in the original, which uses -1 for both.
            (self.key, self.sorted_by) = (Key::Total, 0);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Refused> {
        if self.sorted_by != 0 && self.sorted_by & self.told() == 0 {
            complain(&[b"Can't sort by an event which isn't being watched for!\n"]);
            return Err(Refused);
        }
        self.expressions.check()
    }

    /// The events that are counted.
    fn told(&self) -> u32 {
        if self.events == 0 { events::ALL } else { self.events }
    }

    fn run(self, family: Family) -> Result<(), Refused> {
        let filter = self.expressions.compile()?;
        let mut watching = Watching::new(Gone::Kept).map_err(|error| {
            complain_of_init(&error);
            Refused
        })?;
        watching.set_filter(filter);
        let operands = Operands::gather(&self.operands, self.list.as_deref());
        if operands.watched.is_empty() {
            complain(&[b"No files specified to watch!\n"]);
            return Err(Refused);
        }
        let signals = Incoming::new().map_err(|error| {
            complain(&[format!("cannot handle signals: {error}\n").as_bytes()]);
            Refused
        })?;
        self.establish(&mut watching, operands, &signals)?;
        let tool = format!("{}watch", family.prefix());
        Counting { settings: self, watching, counts: HashMap::new(), signals, tool }.run()
    }

    fn establish(
        &self,
        watching: &mut Watching,
        operands: Operands,
        signals: &Incoming,
    ) -> Result<(), Refused> {
        complain(&[b"Establishing watches...\n"]);
        let mut mask = self.told();
        if self.is_recursive {
            mask |= STRUCTURE;
        }
        if self.keeps_links {
            mask |= libc::IN_DONT_FOLLOW;
        }
        watching.set_scope(mask, operands.excluded);
        let depth = if self.is_recursive { Depth::Tree } else { Depth::Named };
        for path in &operands.watched {
            if self.is_recursive && self.is_verbose {
                complain(&[b"Setting up watch(es) on ", path, b"\n"]);
            }
            set_up(watching, path, depth, "Failed to watch", Messages::StandardError)?;
            if self.is_recursive && self.is_verbose {
                complain(&[b"OK, ", path, b" is now being watched.\n"]);
            }
            signals.check_impatience()?;
        }
        if self.is_verbose {
            complain(&[format!("Total of {} watches.\n", watching.len()).as_bytes()]);
        }
        complain(&[b"Finished establishing watches, now collecting statistics.\n"]);
        if self.timeout != 0 && self.is_verbose {
            let text = format!("Will listen for events for {} seconds.\n", self.timeout);
            complain(&[text.as_bytes()]);
        }
        Ok(())
    }
}

fn refuse_second_key<T>() -> Result<T, Refused> {
    complain(&[b"Please specify -a or -d once only!\n"]);
    Err(Refused)
}

/// The events of a sort key; zero for the total.
fn parse_key(name: &[u8]) -> Result<u32, Refused> {
    if name.eq_ignore_ascii_case(b"total") {
        return Ok(0);
    }
    events::parse(name).map_or_else(|| refuse_key(name), Ok)
}

/// The column of one event. Several events are not a key; the original crashes on them.
fn key_of(event: u32, name: &[u8]) -> Result<Key, Refused> {
    let unwatchable = libc::IN_Q_OVERFLOW | libc::IN_IGNORED | libc::IN_ISDIR | libc::IN_ONESHOT;
    match COLUMNS.iter().position(|(bits, _, _)| *bits == event) {
        Some(column) => Ok(Key::Column(column)),
        // A later check reports that no such event is watched.
        None if event == 0 || event & unwatchable == event => Ok(Key::Total),
        None => refuse_key(name),
    }
}

fn refuse_key<T>(name: &[u8]) -> Result<T, Refused> {
    complain(&[b"'", name, b"' is not a valid key for sorting!\n"]);
    Err(Refused)
}

/// The signals that the tool handles.
struct Incoming {
    signals: std::cell::RefCell<Signals>,
    /// Readable when a signal has arrived.
    wake: UnixStream,
}

/// What the user asks for by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    None,
    Print,
    End,
}

impl Incoming {
    fn new() -> std::io::Result<Self> {
        let wanted = [SIGINT, SIGHUP, SIGTERM, SIGUSR1];
        let signals = std::cell::RefCell::new(Signals::new(wanted)?);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in wanted {
            pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Self { signals, wake })
    }

    /// The request of the signals that arrived since the last call.
    fn take(&self) -> Request {
        let mut bytes = [0; 64];
        // This only empties the socket; `signals` says which signals arrived.
        _ = rustix::io::read(&self.wake, &mut bytes);
        let mut request = Request::None;
        for signal in self.signals.borrow_mut().pending() {
            match signal {
                SIGUSR1 if request == Request::None => request = Request::Print,
                SIGUSR1 => {}
                _ => request = Request::End,
            }
        }
        request
    }

    /// A signal during the set-up of the watches ends the tool, as there is nothing to print yet.
    fn check_impatience(&self) -> Result<(), Refused> {
        if self.take() != Request::End {
            return Ok(());
        }
        complain(&[
            b"No statistics collected, asked to abort before all watches could be established.\n",
        ]);
        Err(Refused)
    }
}

/// The counts of one watch.
#[derive(Debug, Clone, Default)]
struct Counts {
    total: u32,
    columns: [u32; COLUMNS.len()],
}

impl Counts {
    fn add(&mut self, mask: u32) {
        self.total += 1;
        for (count, (bits, _, _)) in self.columns.iter_mut().zip(COLUMNS) {
            *count += u32::from(mask & bits != 0);
        }
    }

    fn by(&self, key: Key) -> u32 {
        match key {
            Key::Total => self.total,
            Key::Column(column) => self.columns[column],
        }
    }
}

/// The running tool.
struct Counting {
    settings: Settings,
    watching: Watching,
    counts: HashMap<i32, Counts>,
    signals: Incoming,
    tool: String,
}

impl Counting {
    fn run(mut self) -> Result<(), Refused> {
        let end = match self.settings.timeout {
            0 => None,
            seconds => now().checked_add(Duration::from_secs(seconds.into())),
        };
        let mut overflows = Overflows::default();
        loop {
            let left = end.map(|end| end.saturating_duration_since(now()));
            if left == Some(Duration::ZERO) {
                return self.print();
            }
            match self.watching.next(left, Some(self.signals.wake.as_fd())) {
                Ok(Next::Event(event)) => {
                    overflows.note(event.mask, &self.tool, Messages::StandardError);
                    self.count(&event);
                }
                Ok(Next::Timeout) => return self.print(),
                Ok(Next::Other) => match self.signals.take() {
                    Request::None => {}
                    Request::Print => {
                        self.print()?;
                        let mut newline = Output::default();
                        newline.buffer().push(b'\n');
                        flush(&mut newline)?;
                    }
                    Request::End => return self.print(),
                },
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    complain(&[&text_of(errno), b"\n"]);
                    return Err(Refused);
                }
            }
        }
    }

    fn count(&mut self, event: &FileEvent) {
        let is_for_us_only = event.mask & STRUCTURE != 0 && event.mask & self.settings.told() == 0;
        if !event.is_filtered && !is_for_us_only && event.wd >= 0 {
            self.counts.entry(event.wd).or_default().add(event.mask);
        }
        if self.settings.is_recursive
            && let Err((path, errno)) = self.watching.follow(event)
        {
            let text = text_of(errno);
            complain(&[b"Couldn't watch new directory ", &path, b": ", &text, b"\n"]);
        }
        self.watching.forget_ended(event);
    }

    fn print(&self) -> Result<(), Refused> {
        let mut totals = Counts::default();
        for counts in self.counts.values() {
            totals.total += counts.total;
            for (total, count) in totals.columns.iter_mut().zip(counts.columns) {
                *total += count;
            }
        }
        if totals.total == 0 {
            complain(&[b"No events occurred.\n"]);
            return Ok(());
        }
        let told = self.settings.told();
        let is_shown = |column: &usize| {
            COLUMNS[*column].0 & told != 0
                && (self.settings.zeros == Zeros::Shown || totals.columns[*column] != 0)
        };
        let shown: Vec<usize> = (0..COLUMNS.len()).filter(is_shown).collect();
        let mut output = Output::default();
        let out = output.buffer();
        out.extend_from_slice(b"total  ");
        shown.iter().for_each(|&column| {
            out.extend_from_slice(format!("{}  ", COLUMNS[column].1).as_bytes());
        });
        out.extend_from_slice(b"filename\n");
        for (name, counts) in self.rows() {
            out.extend_from_slice(format!("{:<5}  ", counts.total).as_bytes());
            for &column in &shown {
                let (width, count) = (COLUMNS[column].2, counts.columns[column]);
                out.extend_from_slice(format!("{count:<width$}  ").as_bytes());
            }
            out.extend_from_slice(name);
            out.push(b'\n');
        }
        flush(&mut output)
    }

    /// The rows that are printed, in their order.
    fn rows(&self) -> Vec<(&[u8], Counts)> {
        let mut rows: Vec<(u32, &[u8], Counts)> = self
            .watching
            .watches()
            .map(|(wd, name, rank)| (rank, name, self.counts.get(&wd).cloned().unwrap_or_default()))
            .filter(|(_, _, counts)| self.settings.zeros == Zeros::Shown || counts.total != 0)
            .collect();
        let key = self.settings.key;
        match self.settings.direction {
            Direction::Ascending => rows.sort_by_key(|(rank, _, counts)| (counts.by(key), *rank)),
            Direction::Descending => {
                rows.sort_by_key(|(rank, _, counts)| (Reverse(counts.by(key)), *rank));
            }
        }
        rows.into_iter().map(|(_, name, counts)| (name, counts)).collect()
    }
}

fn flush(output: &mut Output) -> Result<(), Refused> {
    output.flush().map_err(|error| {
        complain(&[format!("cannot write the table: {error}\n").as_bytes()]);
        Refused
    })
}

#[expect(clippy::disallowed_methods, reason = "the tool waits: it reads the clock for its limit")]
fn now() -> Instant {
    Instant::now()
}
