//! The command line -> [`Args`]: sersync2's options, clustered or attached, and a few long ones of ours.
//! Pure: does not print, does not end the process, does not look at files.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::PluginName;
use crate::ground::words::near_word;

/// Worker threads at most; each may run one rsync.
const THREADS_MAX: usize = 1000;

/// The other commands; `commands.rs` runs them.
const COMMANDS_HELP: &str = "\
Commands for a running mirror; each has --help:
  sersync2 status             show the state of every instance on this machine
  sersync2 flush              wait until everything is delivered
  sersync2 sync-now           compare a tree with its copies now
  sersync2 retry              retry now what could not be delivered
  sersync2 pause, resume      stop sending for a while
  sersync2 confirm-deletions  delete what the guard holds back
  sersync2 log-level          change how much is logged
  sersync2 reload             read the configuration again
  sersync2 stop               stop the instance

Commands that need no running mirror:
  sersync2 doctor             check this machine and every remote; leaves nothing behind
  sersync2 explain            show whether a path is mirrored, and which rule decides
  sersync2 events             show changes as they happen; send nothing
  sersync2 verify             compare the copies with the tree
  sersync2 test-alert         send a test message through every <alert>
  sersync2 inotifywait, inotifywatch  the tools of inotify-tools
  sersync2 completions        print completions for bash, zsh or fish";

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "sersync2",
    bin_name = "sersync2",
    version,
    about = "Mirrors directories to rsync remotes in real time",
    args_override_self = true,
    after_help = COMMANDS_HELP,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub struct Args {
    /// Bring every remote up to date with a full sync at the start
    #[arg(short = 'r', long = "full-sync")]
    pub full_sync: bool,

    /// Run in the background; exit with 0 only when everything is watched
    #[arg(short = 'd', long = "daemon")]
    pub daemon: bool,

    /// Number of workers: rsync runs at once, not counting those that wait for their remotes
    #[arg(short = 'n', long = "threads", value_name = "N", default_value = "10")]
    #[arg(value_parser = parse_threads, allow_hyphen_values = true)]
    pub threads: usize,

    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    #[arg(allow_hyphen_values = true, action = clap::ArgAction::Append)]
    configs: Vec<PathBuf>,

    /// The last one that was given.
    #[arg(skip)]
    pub config: PathBuf,

    /// Run this plugin alone, without any sync: refreshCDN, socket, http or command
    #[arg(short = 'm', long = "plugin", value_name = "NAME", value_parser = parse_plugin)]
    pub plugin_alone: Option<PluginName>,

    /// Say everything that is wrong with this configuration, and start nothing
    #[arg(long = "check", value_name = "FILE")]
    pub check: Option<PathBuf>,

    /// Where the log goes when running in the background
    #[arg(long = "log-file", value_name = "PATH")]
    pub log_file: Option<PathBuf>,

    /// Where the journal and the recorded state are kept
    #[arg(long = "state-dir", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Do not look for what changed while sersync2 was not running
    #[arg(long = "no-catch-up")]
    pub no_catch_up: bool,

    /// Print this help
    #[arg(short = 'h', long = "help", action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// Words that belong to no option. sersync2 ignored them, such as the `2` of a mistyped `2&>1`.
    #[arg(hide = true)]
    pub ignored: Vec<OsString>,
}

impl Args {
    /// Arguments without effect, a sentence for each.
    pub fn warnings(&self) -> Vec<String> {
        let (_, unused) = self.configs.split_last().unwrap_or((&self.config, &[]));
        let unused = unused.iter().filter(|file| **file != self.config).map(|file| {
            format!(
                "-o is given more than once: {} is read, {} is not; start one sersync2 for each",
                self.config.display(),
                file.display()
            )
        });
        let ignored = self.ignored.iter().map(|word| {
            let word = word.display();
            format!("the word {word} belongs to no option and is ignored; a configuration is named with -o FILE")
        });
        unused.chain(ignored).collect()
    }
}

/// The process should end with this text and exit code instead of running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndEarly {
    /// 0 for help and version, 1 for a mistake, as in sersync2; 2 for a word that is no command.
    pub code: u8,
    /// For standard output when `code` is 0, else for standard error.
    pub text: String,
}

/// Reads the command line, the program's name first. `commands` are the names of the other commands.
///
/// # Errors
/// Help, version or an error: text and exit code.
pub fn parse_args(
    words: impl IntoIterator<Item = OsString>,
    commands: &[&str],
) -> Result<Args, EndEarly> {
    let end = |error: clap::Error| EndEarly {
        code: match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
            _ => 1,
        },
        text: sentence(&error),
    };
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = command();
    let matches = command.try_get_matches_from_mut(&words).map_err(end)?;
    let mut args = Args::from_arg_matches(&matches).map_err(end)?;
    args.config = args.configs.last().cloned().unwrap_or_default();
    let first = words.get(1).filter(|first| args.ignored.first() == Some(first));
    if let Some(first) = first {
        return Err(no_command(&first.to_string_lossy(), commands));
    }
    let near =
        |word: &&OsString| near_word(&word.to_string_lossy(), commands.iter().copied()).is_some();
    match args.ignored.iter().find(near) {
        Some(word) => Err(misplaced_command(&word.to_string_lossy())),
        None => Ok(args),
    }
}

/// The first word is no option and no command: whoever wrote it did not mean to start a mirror.
fn no_command(word: &str, commands: &[&str]) -> EndEarly {
    let meant = match near_word(word, commands.iter().copied()) {
        Some(near) => format!("did you mean sersync2 {near}?"),
        None if word.ends_with(".xml") => format!("did you mean sersync2 -o {word}?"),
        None => "expected a command, or options such as -r -d -o FILE;".to_owned(),
    };
    let text =
        format!("error: there is no command {word}; {meant} sersync2 -h shows all of them\n");
    EndEarly { code: 2, text }
}

/// Other words behind options are ignored, as in sersync2; but not one that looks like a command.
fn misplaced_command(word: &str) -> EndEarly {
    let text = format!(
        "error: a command stands directly behind the program's name, and {word} does not; nothing was started\n"
    );
    EndEarly { code: 2, text }
}

/// The command line's description, for completions and the manual page.
pub fn command() -> clap::Command {
    Args::command()
}

/// clap's message, except for an unknown option, where clap's advice does not help.
fn sentence(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let unknown =
        text(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    let Some(option) = unknown else { return error.to_string() };
    let hint = match text(ContextKind::SuggestedArg) {
        Some(near) => format!("did you mean {near}? "),
        None => String::new(),
    };
    format!("error: there is no option {option}; {hint}sersync2 -h shows all of them\n")
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.trim().parse::<usize>().ok();
    threads
        .filter(|threads| (1..=THREADS_MAX).contains(threads))
        .ok_or_else(|| format!("expected a number of threads from 1 to {THREADS_MAX}"))
}

fn parse_plugin(text: &str) -> Result<PluginName, String> {
    PluginName::parse(text).ok_or_else(|| PluginName::help_for(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, EndEarly> {
        parse_args(line.split(' ').map(OsString::from), &["status", "stop", "inotifywait"])
    }

    fn refused(line: &str) -> String {
        let end = parse(line).unwrap_err();
        assert_eq!(end.code, 1, "{line}");
        end.text
    }

    #[test]
    fn nothing_said_means_the_defaults_of_sersync2() {
        let args = parse("sersync2").unwrap();
        assert!(!args.full_sync && !args.daemon && !args.no_catch_up);
        assert_eq!(args.threads, 10);
        assert_eq!(args.config, PathBuf::from("confxml.xml"));
        assert_eq!(args.plugin_alone, None);
    }

    #[test]
    fn clustered_attached_and_long_forms_mean_the_same() {
        let expected = parse("sersync2 -r -d -n 5 -o /a/b.xml").unwrap();
        for line in [
            "sersync2 -rdn5 -o/a/b.xml",
            "sersync2 -dro /a/b.xml -n5",
            "sersync2 -rdn 5 -o=/a/b.xml",
            "sersync2 --full-sync --daemon --threads=5 --config /a/b.xml",
            "other-name -o /a/b.xml -n 5 -r -d",
        ] {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
        let expected = parse("sersync2 -m http -o a.xml").unwrap();
        for line in ["sersync2 -mhttp -oa.xml", "sersync2 -oa.xml --plugin=http"] {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_option_wins() {
        let args = parse("sersync2 -r -r -n 3 -n 4 -o a -o b -m socket -m command").unwrap();
        assert_eq!((args.threads, &args.config), (4, &PathBuf::from("b")));
        assert_eq!(args.plugin_alone, Some(PluginName::Command));
        let warnings = args.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("b is read, a is not"), "{warnings:?}");
    }

    #[test]
    fn help_and_version_end_with_zero() {
        for line in ["sersync2 -h", "sersync2 --help", "sersync2 -rh"] {
            let end = parse(line).unwrap_err();
            assert_eq!(end.code, 0);
            assert!(end.text.contains("-o"), "{}", end.text);
        }
        assert_eq!(parse("sersync2 --version").unwrap_err().code, 0);
    }

    #[test]
    fn an_unknown_option_ends_with_one_and_is_named() {
        for line in ["sersync2 -x", "sersync2 -rx"] {
            let text = refused(line);
            assert_eq!(text, "error: there is no option -x; sersync2 -h shows all of them\n");
        }
        assert!(
            refused("sersync2 --deamon").contains("no option --deamon; did you mean --daemon?")
        );
        assert!(refused("sersync2 -o").contains("--config"));
    }

    #[test]
    fn a_number_of_threads_out_of_range_is_refused_in_a_sentence() {
        for line in ["-n 0", "-n -3", "-n x", "-n 1001", "-n 99999999999999999999", "-n 1.5"] {
            let text = refused(&format!("sersync2 {line}"));
            assert!(text.contains("from 1 to 1000"), "{text}");
        }
    }

    #[test]
    fn a_plugin_is_checked_by_its_name() {
        let args = parse("sersync2 -m refreshCDN").unwrap();
        assert_eq!(args.plugin_alone, Some(PluginName::RefreshCdn));
        assert!(refused("sersync2 -m comand").contains("did you mean command?"));
        assert!(refused("sersync2 -m x").contains("refreshCDN, socket, http and command"));
    }

    #[test]
    fn a_word_that_is_no_command_starts_no_mirror() {
        for (line, words) in [
            ("sersync2 stauts", "no command stauts; did you mean sersync2 status?"),
            (
                "sersync2 foo",
                "no command foo; expected a command, or options such as -r -d -o FILE",
            ),
            ("sersync2 a.xml", "did you mean sersync2 -o a.xml?"),
            ("sersync2 foo -r -d", "no command foo"),
            ("sersync2 -o a.xml status", "directly behind the program's name, and status does not"),
            ("sersync2 -d -o a.xml stpo", "and stpo does not"),
        ] {
            let end = parse(line).unwrap_err();
            assert!(end.code == 2 && end.text.contains(words), "{line}: {end:?}");
        }
    }

    #[test]
    fn words_without_option_are_kept_for_a_warning() {
        let args = parse("sersync2 -r -o a.xml 2").unwrap();
        assert_eq!(args.ignored, [OsString::from("2")]);
        let warnings = args.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("the word 2 belongs to no option"));
        assert!(parse("sersync2 -r -o a.xml -o a.xml").unwrap().warnings().is_empty());
        assert!(parse("sersync2").unwrap().warnings().is_empty());
    }
}
