//! Shared by `inotifywait` and `inotifywatch`: options, their checks, and the set-up of watches.
//! Prints error messages, but no events.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::sys::posix::{Case, ExtendedRegex};
use crate::tools::events;
use crate::tools::getopt::{Order, Word};
use crate::tools::say::{Messages, complain, text_of};
use crate::tools::watching::{EventFilter, Watching};

/// Help for the options that only the `fsnotify` tools document; the `inotify` tools accept and ignore them.
const FANOTIFY_HELP: &str = "\t-I|--inotify\tWatch with inotify.\n\
    \t-F|--fanotify\tWatch with fanotify.\n\
    \t-S|--filesystem\tWatch entire filesystem with fanotify.\n";

/// The program ends with an error, which was already printed.
pub struct Refused;

/// Passes each option to `take`, and reports each invalid one. The inner error says that some option was invalid;
/// the outer one is that of `take`.
pub fn take_options(
    options: Vec<Word>,
    mut take: impl FnMut(char, OsString) -> Result<(), Refused>,
) -> Result<Result<(), Refused>, Refused> {
    let mut taken = Ok(());
    for option in options {
        match option {
            Word::Fault(message) => {
                complain(&[&message]);
                taken = Err(Refused);
            }
            Word::Option(id, argument) => take(id, argument.unwrap_or_default())?,
        }
    }
    Ok(taken)
}

/// The family of names under which a tool was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `inotifywait`, `inotifywatch`.
    Inotify,
    /// `fsnotifywait`, `fsnotifywatch`.
    Fsnotify,
}

impl Family {
    /// The family of the name in `words`, which starts with the program's name.
    pub fn of(words: &[OsString]) -> Self {
        let name = words.first().and_then(|name| Path::new(name).file_name());
        match name.is_some_and(|name| name.as_bytes().starts_with(b"fs")) {
            true => Family::Fsnotify,
            false => Family::Inotify,
        }
    }

    /// The prefix of the tools' names: `inotify` or `fsnotify`.
    pub fn prefix(self) -> &'static str {
        match self {
            Family::Inotify => "inotify",
            Family::Fsnotify => "fsnotify",
        }
    }

    /// Writes a help text for this family to standard output.
    pub fn print_help(self, text: &str, tool: &str) {
        let fanotify = if self == Family::Fsnotify { FANOTIFY_HELP } else { "" };
        let text = text
            .replace("@TOOL@", &format!("{}{tool}", self.prefix()))
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .replace("@FANOTIFY@", fanotify);
        print!("{text}");
    }

    /// Reports that this implementation of the tool cannot use fanotify.
    pub fn refuse_fanotify(self, tool: &str) {
        let tool = format!("{}{tool}", self.prefix());
        complain(&[
            tool.as_bytes(),
            b": this program watches with inotify only; leave out -F and -S, or use the tool of inotify-tools\n",
        ]);
    }
}

/// The regular expressions of the command line.
#[derive(Debug, Default)]
pub struct Expressions {
    /// `--exclude`
    pub exclude: Option<OsString>,
    /// `--excludei`
    pub excludei: Option<OsString>,
    /// `--include`
    pub include: Option<OsString>,
    /// `--includei`
    pub includei: Option<OsString>,
}

impl Expressions {
    /// Checks that at most one of them is given.
    ///
    /// # Errors
    /// When there are two; the error is already printed.
    pub fn check(&self) -> Result<(), Refused> {
        let excludes = (self.exclude.is_some(), self.excludei.is_some());
        let includes = (self.include.is_some(), self.includei.is_some());
        let message: &[u8] = match (excludes, includes) {
            ((true, true), _) => b"--exclude and --excludei cannot both be specified.\n",
            (_, (true, true)) => b"--include and --includei cannot both be specified.\n",
            ((false, false), _) | (_, (false, false)) => return Ok(()),
            _ => b"include and exclude regexp cannot both be specified.\n",
        };
        complain(&[message]);
        Err(Refused)
    }

    /// Compiles the one that is given.
    ///
    /// # Errors
    /// When it is not a valid expression; the error is already printed.
    pub fn compile(&self) -> Result<Option<EventFilter>, Refused> {
        let excludes = [(&self.exclude, Case::Sensitive), (&self.excludei, Case::Insensitive)];
        let includes = [(&self.include, Case::Sensitive), (&self.includei, Case::Insensitive)];
        for (pattern, case) in excludes {
            if let Some(pattern) = pattern {
                return compile(pattern, case, "exclude")
                    .map(|regex| Some(EventFilter::Exclude(regex)));
            }
        }
        for (pattern, case) in includes {
            if let Some(pattern) = pattern {
                return compile(pattern, case, "include")
                    .map(|regex| Some(EventFilter::Include(regex)));
            }
        }
        Ok(None)
    }
}

fn compile(pattern: &OsStr, case: Case, option: &str) -> Result<ExtendedRegex, Refused> {
    let pattern = CString::new(pattern.as_bytes()).map_err(|_| Refused)?;
    ExtendedRegex::new(&pattern, case).ok_or_else(|| {
        complain(&[b"Error in `", option.as_bytes(), b"' regular expression.\n"]);
        Refused
    })
}

/// The events that `-e` names.
///
/// # Errors
/// When a name is unknown; the error is already printed.
pub fn parse_events(list: &OsStr) -> Result<u32, Refused> {
    events::parse(list.as_bytes()).ok_or_else(|| {
        complain(&[
            b"'",
            list.as_bytes(),
            b"' is not a valid event!  Run with the '--help' option to see a list of events.\n",
        ]);
        Refused
    })
}

/// The seconds given with `-t`; zero means no limit. As in the original, a negative number becomes a very large one.
///
/// # Errors
/// When it is not a number; the error is already printed.
pub fn parse_timeout(text: &OsStr) -> Result<u32, Refused> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        complain(&[
            b"The provided value is not a valid timeout value.\nPlease specify a long int value.\n",
        ]);
        return Err(Refused);
    }
    let number = std::str::from_utf8(bytes.trim_ascii_start()).unwrap_or_default();
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let length = digits.bytes().take_while(u8::is_ascii_digit).count();
    let is_number = length > 0 && length == digits.len();
    match number.parse::<i64>() {
        // The original keeps the lower 32 bits.
        Ok(seconds) if is_number => return Ok(seconds as u32),
        Err(_) if length > 18 => {
            let text = text_of(Errno::RANGE);
            complain(&[
                b"Something went wrong with the timeout value you provided.\n",
                &text,
                b"\n",
            ]);
        }
        _ => complain(&[
            b"'",
            bytes,
            b"' is not a valid timeout value.\nPlease specify a long int value.\n",
        ]),
    }
    Err(Refused)
}

/// Sets an option that may be given only once.
///
/// # Errors
/// When it was given before; the error is already printed.
pub fn set_once(
    value: &mut Option<OsString>,
    argument: OsString,
    name: &str,
) -> Result<(), Refused> {
    if value.is_some() {
        complain(&[b"Multiple ", name.as_bytes(), b" options given.\n"]);
        return Err(Refused);
    }
    *value = Some(argument);
    Ok(())
}

/// Where options are allowed, as the environment (`POSIXLY_CORRECT`) says.
pub fn option_order() -> Order {
    match std::env::var_os("POSIXLY_CORRECT") {
        Some(_) => Order::OptionsFirst,
        None => Order::Any,
    }
}

/// Whether the content of a directory is watched, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the operand itself.
    Named,
    /// Directories with everything below them.
    Tree,
}

/// Watches one operand.
///
/// # Errors
/// When it cannot be watched; the error is already printed, as `failed` and the name.
pub fn set_up(
    watching: &mut Watching,
    path: &[u8],
    depth: Depth,
    failed: &str,
    messages: Messages,
) -> Result<(), Refused> {
    let result = match depth {
        Depth::Named => watching.add(path),
        Depth::Tree => watching.add_tree(path),
    };
    let Err(errno) = result else { return Ok(()) };
    if errno == Errno::NOSPC {
        messages.say(&[b"Failed to watch ", path, b"; upper limit on inotify watches reached!\n"]);
        messages.say(&[b"Please increase the amount of inotify watches allowed per user via \
            `/proc/sys/fs/inotify/max_user_watches'.\n"]);
    } else {
        messages.say(&[failed.as_bytes(), b" ", path, b": ", &text_of(errno), b"\n"]);
    }
    Err(Refused)
}

/// Reports that the kernel refuses an inotify instance.
pub fn complain_of_init(error: &std::io::Error) {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    complain(&[b"Couldn't initialize inotify: ", &text_of(errno), b"\n"]);
    if errno == Errno::MFILE {
        complain(&[b"Try increasing the value of /proc/sys/fs/inotify/max_user_instances\n"]);
    }
}

/// Counts overflows of the kernel's queue; reports the 1st, 2nd, 4th, 8th and so on, so as not to flood the log.
#[derive(Debug, Default)]
pub struct Overflows(u64);

impl Overflows {
    /// Counts and reports the event if it is an overflow.
    pub fn note(&mut self, mask: u32, tool: &str, messages: Messages) {
        if mask & libc::IN_Q_OVERFLOW == 0 {
            return;
        }
        self.0 += 1;
        if self.0.is_power_of_two() {
            let times = self.0;
            let text = format!(
                "{tool}: the kernel's queue was full ({times} times so far): events are lost. \
                 Increase /proc/sys/fs/inotify/max_queued_events\n"
            );
            messages.say(&[text.as_bytes()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_by_strtol() {
        let read = |text: &str| parse_timeout(OsStr::new(text)).ok();
        assert_eq!(read("5"), Some(5));
        assert_eq!(read(" +7"), Some(7));
        assert_eq!(read("-1"), Some(u32::MAX));
        assert_eq!(read("4294967297"), Some(1));
        for wrong in ["", "5 ", "x", "1.5", "99999999999999999999", "- 1"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
