//! `inotifywait`: waits for events and prints them, with the options, the output and the exit codes of inotify-tools.
//! docs/TOOLS.md lists the intended differences.

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::sys::posix::{end_on_closed_pipes, open_syslog};
use crate::sys::{Side, fork_into_background};
use crate::tools::events;
use crate::tools::format::{EventLayout, Format};
use crate::tools::getopt::{self, Argument, LongOption, Options};
use crate::tools::operands::Operands;
use crate::tools::output::Output;
use crate::tools::say::{Messages, bytes_of, complain, text_of};
use crate::tools::shared::{
    Depth, Expressions, Family, Overflows, Refused, complain_of_init, option_order, parse_events,
    parse_timeout, set_once, set_up, take_options,
};
use crate::tools::watching::{Gone, Next, Watching};

/// Nothing happened within `--timeout`.
const TIMED_OUT: u8 = 2;

const fn long(name: &'static str, argument: Argument, id: char) -> LongOption {
    LongOption { name, argument, id }
}

const OPTIONS: Options = Options {
    short: "mrhcdsPqt:fo:e:IFS",
    long: &[
        long("help", Argument::None, 'h'),
        long("event", Argument::Required, 'e'),
        long("monitor", Argument::None, 'm'),
        long("quiet", Argument::None, 'q'),
        long("timeout", Argument::Required, 't'),
        long("filename", Argument::None, 'f'),
        long("recursive", Argument::None, 'r'),
        long("inotify", Argument::None, 'I'),
        long("fanotify", Argument::None, 'F'),
        long("filesystem", Argument::None, 'S'),
        long("csv", Argument::None, 'c'),
        long("daemon", Argument::None, 'd'),
        long("syslog", Argument::None, 's'),
        long("no-dereference", Argument::None, 'P'),
        long("format", Argument::Required, '%'),
        long("no-newline", Argument::None, '0'),
        long("timefmt", Argument::Required, 'T'),
        long("fromfile", Argument::Required, '@'),
        long("outfile", Argument::Required, 'o'),
        long("exclude", Argument::Required, '1'),
        long("excludei", Argument::Required, '2'),
        long("include", Argument::Required, '3'),
        long("includei", Argument::Required, '4'),
    ],
};

/// What the command line asks for.
#[derive(Default)]
struct Settings {
    events: u32,
    is_monitor: bool,
    quiet: u32,
    timeout: u32,
    is_recursive: bool,
    is_csv: bool,
    is_daemon: bool,
    uses_syslog: bool,
    keeps_links: bool,
    format: Option<OsString>,
    has_no_newline: bool,
    time_format: Option<OsString>,
    list: Option<OsString>,
    output: Option<OsString>,
    expressions: Expressions,
    repeated: Vec<&'static str>,
    operands: Vec<OsString>,
}

/// What ended the program.
enum End {
    Event,
    Unasked,
    Timeout,
    /// This is the parent process; its child continues in the background.
    Background,
}

/// Runs the tool; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    end_on_closed_pipes();
    match Settings::read(&words).and_then(|settings| settings.run(Family::of(&words))) {
        Ok(End::Event | End::Background) => ExitCode::SUCCESS,
        Ok(End::Timeout) => ExitCode::from(TIMED_OUT),
        Ok(End::Unasked) | Err(Refused) => ExitCode::FAILURE,
    }
}

impl Settings {
    fn read(words: &[OsString]) -> Result<Self, Refused> {
        let family = Family::of(words);
        let (options, operands) = getopt::read(words, &OPTIONS, option_order());
        let mut settings = Self { operands, ..Self::default() };
        let taken = take_options(options, |id, argument| settings.take(family, id, argument))?;
        settings.check()?;
        taken.map(|()| settings)
    }

    /// Applies one option.
    fn take(&mut self, family: Family, id: char, argument: OsString) -> Result<(), Refused> {
        match id {
            'h' => {
                family.print_help(include_str!("help/wait.txt"), "wait");
                return Err(Refused);
            }
            'm' => self.is_monitor = true,
            'q' => self.quiet += 1,
            'r' => self.is_recursive = true,
            'F' | 'S' if family == Family::Fsnotify => {
                family.refuse_fanotify("wait");
                return Err(Refused);
            }
            'c' => self.is_csv = true,
            'd' => (self.is_daemon, self.is_monitor, self.uses_syslog) = (true, true, true),
            's' => self.uses_syslog = true,
            'P' => self.keeps_links = true,
            'f' => {
                complain(&[
                    b"The '--filename' option no longer exists.  The option it enabled in \
                    earlier\nversions of inotifywait is now turned on by default.\n",
                ]);
                return Err(Refused);
            }
            '%' => self.format = Some(argument),
            '0' => self.has_no_newline = true,
            'T' => self.time_format = Some(argument),
            '1' => {
                self.repeated.extend(self.expressions.exclude.is_some().then_some("--exclude"));
                self.expressions.exclude = Some(argument);
            }
            '2' => {
                self.repeated.extend(self.expressions.excludei.is_some().then_some("--excludei"));
                self.expressions.excludei = Some(argument);
            }
            '3' => self.expressions.include = Some(argument),
            '4' => self.expressions.includei = Some(argument),
            '@' => set_once(&mut self.list, argument, "--fromfile")?,
            'o' => set_once(&mut self.output, argument, "--outfile")?,
            't' => self.timeout = parse_timeout(&argument)?,
            'e' => self.events |= parse_events(&argument)?,
            _ => {}
        }
        Ok(())
    }

    /// Rejects options that exclude each other.
    fn check(&mut self) -> Result<(), Refused> {
        self.expressions.check()?;
        let asks_time =
            self.format.as_ref().is_some_and(|f| f.as_bytes().windows(2).any(|two| two == b"%T"));
        let message: &[u8] = if self.format.is_some() && self.is_csv {
            b"-c and --format cannot both be specified.\n"
        } else if self.format.is_none() && self.has_no_newline {
            b"--no-newline cannot be specified without --format.\n"
        } else if self.format.is_none() && self.time_format.is_some() {
            b"--timefmt cannot be specified without --format.\n"
        } else if asks_time && self.time_format.is_none() {
            b"%T is in --format string, but --timefmt was not specified.\n"
        } else if self.is_daemon && self.output.is_none() {
            b"-o must be specified with -d.\n"
        } else {
            self.warn_of_repeated();
            return Ok(());
        };
        complain(&[message]);
        Err(Refused)
    }

    fn warn_of_repeated(&self) {
        for option in ["--exclude", "--excludei"] {
            if self.repeated.contains(&option) {
                let rest = b": only the last option will be taken into consideration.\n";
                complain(&[option.as_bytes(), rest]);
            }
        }
    }

    fn messages(&self) -> Messages {
        if self.uses_syslog { Messages::Syslog } else { Messages::StandardError }
    }

    fn layout(&self) -> Result<EventLayout, Refused> {
        let Some(format) = &self.format else {
            return Ok(if self.is_csv { EventLayout::Csv } else { EventLayout::Default });
        };
        let mut format = format.as_bytes().to_vec();
        if !self.has_no_newline {
            format.push(b'\n');
        }
        let time = self.time_format.as_ref().map(|time| time.as_bytes()).unwrap_or_default();
        let time = CString::new(time).map_err(|_| Refused)?;
        Format::parse(&format, time).map(EventLayout::Format).ok_or_else(|| {
            complain(&[b"Something is wrong with your format string.\n"]);
            Refused
        })
    }

    /// The events that are printed, and those that the kernel is asked for.
    fn masks(&self) -> (u32, u32) {
        let told = if self.events == 0 { events::ALL } else { self.events };
        let mut asked = told;
        if self.follows() {
            asked |= libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
        }
        if self.keeps_links {
            asked |= libc::IN_DONT_FOLLOW;
        }
        (told, asked)
    }

    /// True when the watches must follow directories that are created, moved or deleted.
    fn follows(&self) -> bool {
        self.is_monitor && self.is_recursive
    }

    fn run(self, family: Family) -> Result<End, Refused> {
        let mut watching = Watching::new(Gone::Forgotten).map_err(|error| {
            complain_of_init(&error);
            Refused
        })?;
        watching.set_filter(self.expressions.compile()?);
        let layout = self.layout()?;
        let operands = Operands::gather(&self.operands, self.list.as_deref());
        if operands.watched.is_empty() {
            complain(&[b"No files specified to watch!\n"]);
            return Err(Refused);
        }
        if self.redirect()? == Side::Parent {
            return Ok(End::Background);
        }
        if self.uses_syslog {
            open_syslog(c"inotifywait");
        }
        self.establish(&mut watching, operands)?;
        let tool = format!("{}wait", family.prefix());
        Waiting { told: self.masks().0, asked: self.masks().1, settings: self, watching, tool }
            .run(&layout)
    }

    fn establish(&self, watching: &mut Watching, operands: Operands) -> Result<(), Refused> {
        let messages = self.messages();
        if self.quiet == 0 {
            messages.say(&[match self.is_recursive {
                true => {
                    b"Setting up watches.  Beware: since -r was given, this may take a while!\n"
                        as &[u8]
                }
                false => b"Setting up watches.\n",
            }]);
        }
        let depth = if self.is_recursive { Depth::Tree } else { Depth::Named };
        watching.set_scope(self.masks().1, operands.excluded);
        for path in &operands.watched {
            set_up(watching, path, depth, "Couldn't watch", messages)?;
        }
        if self.quiet == 0 {
            messages.say(&[b"Watches established.\n"]);
        }
        Ok(())
    }

    /// Goes to the background and redirects standard output to a file, if the options ask for it.
    fn redirect(&self) -> Result<Side, Refused> {
        let Some(output) = &self.output else { return Ok(Side::Child) };
        if !self.is_daemon {
            self.redirect_output(output)?;
            return Ok(Side::Child);
        }
        let file = std::fs::canonicalize(output).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            complain(&[&text_of(errno), b": ", output.as_bytes(), b"\n"]);
            Refused
        })?;
        let side = fork_into_background().map_err(|_| {
            complain(&[b"Failed to daemonize!\n"]);
            Refused
        })?;
        if side == Side::Child {
            self.redirect_output(file.as_os_str())?;
            if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
                // If this fails, messages go where they went before.
                _ = rustix::stdio::dup2_stderr(&null);
            }
        }
        Ok(side)
    }

    fn redirect_output(&self, file: &std::ffi::OsStr) -> Result<(), Refused> {
        let open = || -> io::Result<File> {
            OpenOptions::new().append(true).create(true).mode(0o600).open(file)
        };
        let redirected = open().and_then(|file| Ok(rustix::stdio::dup2_stdout(&file)?));
        redirected.map_err(|_| {
            complain(&[b"Failed to open output file ", bytes_of(file.as_ref()), b"\n"]);
            Refused
        })
    }
}

/// The running tool.
struct Waiting {
    settings: Settings,
    told: u32,
    asked: u32,
    watching: Watching,
    tool: String,
}

impl Waiting {
    fn run(mut self, layout: &EventLayout) -> Result<End, Refused> {
        let limit = match self.settings.timeout {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        };
        let (mut output, mut overflows) = (Output::default(), Overflows::default());
        let messages = self.settings.messages();
        loop {
            if !self.watching.has_read() {
                self.flush(&mut output)?;
            }
            let event = match self.watching.next(limit, None) {
                Ok(Next::Event(event)) => event,
                Ok(Next::Timeout | Next::Other) => return Ok(End::Timeout),
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    messages.say(&[&text_of(errno), b"\n"]);
                    return Err(Refused);
                }
            };
            overflows.note(event.mask, &self.tool, messages);
            let is_told = self.settings.quiet < 2 && event.mask & self.told != 0;
            if is_told && !event.is_filtered {
                let seconds = clock_gettime(ClockId::Realtime).tv_sec;
                layout.write(output.buffer(), &self.watching.occurrence(&event), seconds);
                output.flush_if_large().or_else(|error| self.fail_to_write(&error))?;
            }
            if self.settings.follows() {
                self.follow(&event);
            }
            self.watching.forget_ended(&event);
            if !self.settings.is_monitor && !event.is_filtered {
                self.flush(&mut output)?;
                let is_asked = event.mask & self.asked != 0;
                return Ok(if is_asked { End::Event } else { End::Unasked });
            }
        }
    }

    fn follow(&mut self, event: &crate::tools::watching::FileEvent) {
        if let Err((path, errno)) = self.watching.follow(event) {
            let text = text_of(errno);
            let pieces: [&[u8]; 5] = [b"Couldn't watch new directory ", &path, b": ", &text, b"\n"];
            self.settings.messages().say(&pieces);
        }
    }

    fn flush(&self, output: &mut Output) -> Result<(), Refused> {
        output.flush().or_else(|error| self.fail_to_write(&error))
    }

    /// Ends the tool when events cannot be written: to drop them silently would mislead its user.
    fn fail_to_write(&self, error: &io::Error) -> Result<(), Refused> {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let text = text_of(errno);
        let pieces = [self.tool.as_bytes(), b": cannot write events: ", &text, b"\n"];
        self.settings.messages().say(&pieces);
        Err(Refused)
    }
}
