//! Loads a configuration file into a [`Loaded`], or reports everything that is wrong with it.
//! Starts nothing. On request, `preflight.rs` checks what else this machine needs.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Config;
use super::check::{LoadOptions, check_config};
use super::preflight::{preflight, preflight_reports};
use super::raw::read_elements;
use super::spans::Spans;
use super::values::Values;
use crate::xml::parser::parse_elements;
use crate::xml::report::{Problem, Problems, Severity, render};
use crate::xml::text::{MAX_BYTES, SourceText};

/// A configuration that is valid.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What was read leniently, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The file, as the user named it.
    pub path: PathBuf,
    /// Its text, for messages.
    pub source: SourceText,
    /// Positions in the file, for `preflight`.
    pub spans: Spans,
}

impl Loaded {
    /// One line for the log per warning: `file:line:column: sentence`.
    pub fn warning_lines(&self) -> Vec<String> {
        self.warnings.iter().map(|problem| problem.line(&self.source)).collect()
    }
}

/// Why a configuration was not loaded; its text is complete and meant for the user.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}{help}")]
    Read {
        /// As the user named it.
        path: String,
        /// What the system said.
        source: std::io::Error,
        /// A clause that says what to do.
        help: &'static str,
    },
    /// The file is not text, or far too large.
    #[error("the configuration {path} cannot be used: {reason}")]
    NoText {
        /// As the user named it.
        path: String,
        /// A clause.
        reason: String,
    },
    /// The file holds errors.
    #[error("{report}{}", count(problems))]
    Invalid {
        /// Every problem with file, line, column, source line and mark.
        report: String,
        /// The problems as values.
        problems: Vec<Problem>,
        /// The errors, a line each, without the text of the file: it may hold secrets.
        lines: Vec<String>,
    },
}

impl LoadError {
    /// The same for a file that was loaded before: it need not be named.
    #[must_use]
    pub fn of_known_file(self) -> Self {
        match self {
            Self::Read { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::Read { path, source, help: "; put it back" }
            }
            error => error,
        }
    }

    /// The same for a log, which more people read than the file.
    pub fn log_lines(&self) -> Vec<String> {
        match self {
            Self::Invalid { lines, .. } => lines.clone(),
            error => vec![error.to_string()],
        }
    }
}

fn count(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    match errors {
        1 => "\n1 error; nothing was started".to_owned(),
        n => format!("\n{n} errors; nothing was started"),
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// Everything that is wrong with it, in one report.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, LoadError> {
    load_for(path, options, machine_of(options))
}

/// The severity of what the machine lacks.
#[derive(Clone, Copy, PartialEq)]
enum Machine {
    NotLookedAt,
    Told,
    Needed,
}

fn machine_of(options: &LoadOptions) -> Machine {
    if options.preflight { Machine::Needed } else { Machine::NotLookedAt }
}

fn load_for(path: &Path, options: &LoadOptions, machine: Machine) -> Result<Loaded, LoadError> {
    let name = path.display().to_string();
    let bytes = read_file(path).map_err(|error| match error {
        ReadError::Io(source) => {
            LoadError::Read { path: name.clone(), help: help_for(&source, machine), source }
        }
        ReadError::Refused(reason) => LoadError::NoText { path: name.clone(), reason },
    })?;
    read_bytes(&name, &bytes, options, machine)
}

/// Checks the text of a configuration that was already read; messages contain `name`.
///
/// # Errors
/// Everything that is wrong with it, in one report.
pub fn load_bytes(name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Loaded, LoadError> {
    read_bytes(name, bytes, options, machine_of(options))
}

fn read_bytes(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
    machine: Machine,
) -> Result<Loaded, LoadError> {
    let no_text = |reason| LoadError::NoText { path: name.to_owned(), reason };
    let source = SourceText::decode(name, bytes).map_err(no_text)?;
    read_source(source, options, machine)
}

/// Checks the text of `loaded` again: the lists of remotes that it names, and this machine, may have changed.
///
/// # Errors
/// What is wrong now, in one line.
pub fn load_again(loaded: &Loaded, options: &LoadOptions) -> Result<Loaded, String> {
    let again = read_source(loaded.source.clone(), options, machine_of(options));
    again.map_err(|error| error.log_lines().join("; "))
}

fn read_source(
    source: SourceText,
    options: &LoadOptions,
    machine: Machine,
) -> Result<Loaded, LoadError> {
    let path = PathBuf::from(&source.name);
    let mut problems = Problems::default();
    if let Some((encoding, place)) = source.guess() {
        let sentence = format!("the file is no UTF-8; it is read as {encoding}");
        let help = "save it as UTF-8 to be sure that names are read as you mean them";
        problems.push(Problem::warning(place, sentence).help(help));
    }
    let elements = parse_elements(&source.text, &mut problems);
    let damaged = problems.has_errors();
    let checked = read_elements(&elements, &mut problems).map(|raw| {
        let mut values = Values::new(&source);
        values.damaged = damaged;
        let checked = check_config(&raw, options, &mut values);
        problems.append(values.problems);
        match machine {
            Machine::Told => problems.append_unused(values.of_machine, ON_THIS_MACHINE),
            Machine::NotLookedAt | Machine::Needed => problems.append(values.of_machine),
        }
        match machine {
            Machine::NotLookedAt => {}
            Machine::Told => {
                problems.append_unused(preflight(&checked.0, &checked.1), ON_THIS_MACHINE);
                problems.append(preflight_reports(&checked.1));
            }
            Machine::Needed => problems.append(preflight(&checked.0, &checked.1)),
        }
        checked
    });
    let has_errors = problems.has_errors();
    let problems = problems.into_sorted();
    match checked {
        Some((config, spans)) if !has_errors => {
            Ok(Loaded { config, warnings: problems, path, source, spans })
        }
        _ => {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            let lines = errors.map(|problem| problem.line(&source)).collect();
            Err(LoadError::Invalid { report: render(&source, &problems), problems, lines })
        }
    }
}

/// What `--check` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Everything that is wrong, or what the configuration means.
    pub text: String,
    /// The verdict.
    pub verdict: CheckVerdict,
}

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    /// It would start.
    Valid,
    /// The file is good, but this machine lacks something: it would not start here.
    NotHere,
    /// The file is wrong, wherever it is used.
    Invalid,
}

impl CheckVerdict {
    /// The exit code of `--check`.
    pub fn code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::NotHere => 2,
        }
    }
}

/// Appended to a problem that only this machine has.
const ON_THIS_MACHINE: &str = "on this machine";

/// Checks the file at `path`; starts nothing. Reports what this machine lacks as warnings,
/// because a configuration is often checked on another machine than the one that uses it.
pub fn check_file(path: &Path, options: &LoadOptions) -> CheckReport {
    let loaded = match load_for(path, options, Machine::Told) {
        Ok(loaded) => loaded,
        Err(error) => {
            return CheckReport { text: format!("{error}\n"), verdict: CheckVerdict::Invalid };
        }
    };
    let mut text = render(&loaded.source, &loaded.warnings);
    if !text.is_empty() {
        text.push('\n');
    }
    let lacks = |problem: &Problem| problem.message.ends_with(&format!("({ON_THIS_MACHINE})"));
    let verdict = match loaded.warnings.iter().any(lacks) {
        true => CheckVerdict::NotHere,
        false => CheckVerdict::Valid,
    };
    let sentence = match verdict {
        CheckVerdict::NotHere => "the file is well formed, but here it would not start: see above",
        CheckVerdict::Valid | CheckVerdict::Invalid => "the configuration is valid",
    };
    text.push_str(&format!("{}: {sentence}\n", path.display()));
    for mirror in &loaded.config.mirrors {
        text.push_str(&format!("watch {}\n", mirror.watch.display()));
        for remote in &mirror.remotes {
            text.push_str(&format!("  to {}\n", remote.destination));
        }
    }
    for list in &loaded.config.lists {
        text.push_str(&format!("remotes from {list}\n"));
    }
    if let Some(plugin) = options.plugin_alone.or(loaded.config.plugin) {
        text.push_str(&format!("plugin {}\n", plugin.name()));
    }
    CheckReport { text, verdict }
}

enum ReadError {
    Io(std::io::Error),
    Refused(String),
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let meta = std::fs::metadata(path).map_err(ReadError::Io)?;
    if meta.is_dir() {
        return Err(ReadError::Refused("it is a directory; name the XML file in it".to_owned()));
    }
    if !meta.is_file() && !path.starts_with("/dev/fd") && !path.starts_with("/proc/self/fd") {
        return Err(ReadError::Refused("it is no regular file".to_owned()));
    }
    let file = std::fs::File::open(path).map_err(ReadError::Io)?;
    let mut bytes = Vec::new();
    // Read one byte more than allowed, to distinguish a file at the limit from a larger one.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > MAX_BYTES {
        let kib = MAX_BYTES / 1024;
        return Err(ReadError::Refused(format!(
            "it is larger than {kib} KiB; is it the right file?"
        )));
    }
    Ok(bytes)
}

fn help_for(error: &std::io::Error, machine: Machine) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound if machine == Machine::Told => "; is its name right?",
        std::io::ErrorKind::NotFound => "; name the file with -o FILE",
        std::io::ErrorKind::PermissionDenied => "; make it readable for this user",
        _ => "",
    }
}
