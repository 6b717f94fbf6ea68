//! What a finished rsync run means: exit code and error lines become an [`Outcome`].
//! Pure; does not decide when to retry.

pub mod advice;
mod lines;
mod shortage;

use std::collections::HashSet;

use crate::failure::{Failure, FailureKind, Retry, code};
use crate::path::RelPath;
use advice::{advice, hint};
use lines::Line;
pub use lines::{EXCLUDED_ADVICE, EXCLUDED_THERE};
pub use shortage::{Lack, lacking};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ended by itself with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It made no progress for so many seconds, so we ended it.
    Stalled(u64),
    /// We ended it, because the program stops or the work is no longer needed.
    Killed,
    /// The watch root had been replaced by another directory; the run got no names.
    RootChanged,
    /// The local target directory had been replaced by another one; the run got no names.
    NoDestination,
    /// It reported success without having read all of its standard input.
    Deaf,
    /// It reported success, but may have failed to look up users and groups.
    AccountsChanged,
}

/// How rsync's error lines name the directories of both sides, and our login.
#[derive(Debug, Clone, Copy)]
pub struct RunPaths<'a> {
    /// The module or the path on the remote, for sentences.
    pub module: &'a str,
    /// `<auth users>`.
    pub user: Option<&'a str>,
    /// `<auth passwordfile>`.
    pub password_file: Option<&'a std::path::Path>,
    /// RSYNC_PROXY, if the run uses it.
    pub proxy: Option<&'a str>,
    /// The watch root without links, absolute.
    pub root: &'a [u8],
    /// [`crate::destination::Destination::directory`].
    pub remote_directory: &'a [u8],
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything the run was given is on the remote.
    Delivered,
    /// Everything but these paths is on the remote; each has rsync's message.
    Partial {
        /// What failed, as rsync names it. A directory may stand for its content, and a temporary file for its target.
        failed: Vec<(RelPath, String)>,
        /// Those of them in whose place a directory stands on the remote: this run may not delete it, or rules keep something in it.
        blocked: Vec<RelPath>,
        /// True when rsync deleted nothing because it could not read all of the source.
        deletions_skipped: bool,
    },
    /// Something failed, and rsync did not name the path: all paths stay pending.
    Kept {
        /// A clause for the log.
        reason: String,
    },
    /// Nothing is known to be delivered.
    Failed(Failure),
    /// The remote lacks this ability; the batch is sent again at once without it.
    Refused {
        /// What it lacks.
        ability: Ability,
        /// The option that it refuses.
        option: &'static str,
    },
    /// We ended the run.
    Stopped,
}

/// The watch root is not the directory that was watched.
pub fn root_changed() -> Failure {
    Failure::source("is not the directory it was: it was replaced, mounted over or unmounted")
}

/// One of [`super::Abilities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Abilities explain them")]
pub enum Ability {
    DeleteMissing,
    Nanoseconds,
    Checksum,
    IgnoreTimes,
    Force,
    DryRun,
    Moves,
    Delete,
    Relative,
}

/// sersync's own options, as refusals name them, and the ability that each needs.
const OURS: &[(&str, Ability)] = &[
    ("--delete-missing-args", Ability::DeleteMissing),
    ("--modify-window", Ability::Nanoseconds),
    ("-@-1", Ability::Nanoseconds),
    ("--checksum", Ability::Checksum),
    ("--ignore-times", Ability::IgnoreTimes),
    ("--force", Ability::Force),
    ("--dry-run", Ability::DryRun),
    ("--link-dest", Ability::Moves),
    ("--copy-dest", Ability::Moves),
    ("--fuzzy", Ability::Moves),
    ("--secluded-args", Ability::Moves),
    ("--protect-args", Ability::Moves),
    ("-s", Ability::Moves),
    ("--delete", Ability::Delete),
    ("--relative", Ability::Relative),
];

/// The abilities, each with an option that needs it.
pub fn abilities_and_options() -> impl Iterator<Item = (Ability, &'static str)> {
    OURS.iter().map(|(option, ability)| (*ability, *option))
}

/// What a refusal says besides the name of the option.
const REFUSALS: &[&str] = &[
    "unknown option",
    "configured to refuse",
    // Printed by rrsync, which restricts an ssh key to one directory.
    "has been disabled on this server",
    "do not use .. in",
];

/// Judges a run by its ending and its standard error. `truncated`: not all of standard error was kept.
pub fn judge(ending: Ending, stderr: &[u8], truncated: bool, places: &RunPaths) -> Outcome {
    let code = match ending {
        Ending::Killed => return Outcome::Stopped,
        Ending::RootChanged => return Outcome::Failed(root_changed()),
        Ending::NoDestination => {
            let reason = "the directory was unmounted, mounted over or replaced".into();
            return away(code::UNKNOWN, reason);
        }
        Ending::AccountsChanged => {
            let reason = "users or groups of this machine were changed while rsync ran".into();
            return Outcome::Kept { reason };
        }
        Ending::Deaf => {
            let reason = "rsync ended without reading what it had to do".into();
            return Outcome::Kept { reason };
        }
        Ending::Stalled(seconds) => {
            let reason = format!("no progress for {seconds} s");
            return away(code::UNKNOWN, reason);
        }
        Ending::Signal(signal) => {
            let reason = format!("rsync was ended by signal {signal}");
            return away(code::UNKNOWN, reason);
        }
        // The receiver prints the limit as a warning, and the client reports success.
        Ending::Code(0 | 24) if is_limited(stderr) => return limited(),
        Ending::Code(0 | 24) => return Outcome::Delivered,
        Ending::Code(code) => code,
    };
    let text = String::from_utf8_lossy(stderr);
    // Do not search code 23 for other messages: these lines name paths, and a path may look like any message.
    // A file system that is full or read-only may be one inside the copy, so only the named paths have failed.
    if code == 23 {
        return partial(stderr, truncated, places);
    }
    if matches!(code, 1 | 2 | 4 | 10 | 12)
        && let Some((option, ability)) = refused_ability(&text)
    {
        return Outcome::Refused { ability, option };
    }
    if let Some(failure) = full_house(&text) {
        return Outcome::Failed(failure);
    }
    if let Some(lacked) = shortage::lacked(&text, code) {
        return Outcome::Failed(lacked.failure("cannot run rsync"));
    }
    let denied = |reason: String, advice: String| {
        Outcome::Failed(Failure::new(FailureKind::Denied, code, reason).advising(advice))
    };
    if let Some(option) = refused_option(&text) {
        let reason = format!("refuses {option}, which stands in <commonParams>");
        let advice = "take it out there, or out of \"refuse options\" in its rsyncd.conf";
        return denied(reason, advice.into());
    }
    if let Some(words) = hook_words(&text) {
        let advice = "it runs for each session: <session ready=\"0\"/> starts one only when there is something to send";
        return denied(format!("has a hook that refuses us: {words}"), advice.into());
    }
    if let Some((reason, advice)) = advice(&text, code, places) {
        let failure = Failure::new(FailureKind::Denied, code, reason).advising(advice);
        return Outcome::Failed(match advice::is_login(&text) {
            true => failure.retried(Retry::Sparingly),
            false => failure,
        });
    }
    let reason = reason(&text, code);
    if is_full(&text) {
        return denied(format!("{NO_ROOM}: {reason}"), "look at its disk".into());
    }
    if let (5 | 10 | 12 | 35, Some(proxy)) = (code, places.proxy) {
        let advice = format!(
            "everything goes through RSYNC_PROXY={proxy}: look at that proxy, or unset the variable"
        );
        return Outcome::Failed(Failure::new(FailureKind::Away, code, reason).advising(advice));
    }
    match code {
        25 => limited(),
        3 | 5 | 10..=14 | 23 | 19..=22 | 30 | 35 | 126 | 127 | 255 => away(code, reason),
        _ => {
            let reason = format!("{reason} (exit code {code})");
            Outcome::Failed(Failure::new(FailureKind::Options, code, reason))
        }
    }
}

/// Begins the reason of a failure of a full disk.
const NO_ROOM: &str = "cannot store anything";

/// True when a run ended because the remote's disk has no room for a file.
pub fn lacks_room(failure: &Failure) -> bool {
    failure.reason.starts_with(NO_ROOM)
}

/// True when the operator's `--max-delete` stopped the receiver's deletions.
fn is_limited(stderr: &[u8]) -> bool {
    let words = b"Deletions stopped due to --max-delete";
    stderr.split(|&b| b == b'\n').any(|line| line.starts_with(words))
}

fn limited() -> Outcome {
    let reason = "--max-delete in <commonParams> has stopped the deletions of this run";
    Outcome::Kept { reason: reason.into() }
}

fn away(code: i32, reason: String) -> Outcome {
    Outcome::Failed(silent(code, reason))
}

/// The remote does not answer. The failure contains advice if rsync's message is a known one.
pub fn silent(code: i32, reason: String) -> Failure {
    let hint = hint(&reason);
    let failure = Failure::new(FailureKind::Away, code, reason);
    match hint {
        Some(hint) => failure.advising(hint),
        None => failure,
    }
}

/// The option that the receiver (or our own rsync) refuses, and the ability that it lacks.
fn refused_ability(text: &str) -> Option<(&'static str, Ability)> {
    if text.contains("invalid file mode 00") || text.contains("invalid path from sender") {
        return Some(("--delete-missing-args", Ability::DeleteMissing));
    }
    // rrsync accepts only digits for a time window, and does not name the option.
    if text.contains("rrsync error: invalid rsync-command syntax or options") {
        return Some(("--modify-window", Ability::Nanoseconds));
    }
    let mut refusals =
        text.lines().filter(|line| REFUSALS.iter().any(|words| line.contains(words)));
    refusals.find_map(|line| {
        let words = || line.split([' ', ':', '(', ')', '=']);
        OURS.iter().find(|(option, _)| words().any(|word| word == *option)).copied()
    })
}

/// The message of a daemon's `pre-xfer exec` or `early exec` that refuses a client.
fn hook_words(text: &str) -> Option<String> {
    let mut lines = text.lines().map(|line| line.trim().trim_start_matches("@ERROR: "));
    let first = lines.find(|line| {
        line.starts_with("pre-xfer exec returned failure") || line.starts_with("early exec failed")
    })?;
    let own =
        lines.take_while(|line| !line.starts_with("rsync error:") && !line.starts_with("rsync: "));
    let words = [first].into_iter().chain(own).filter(|line| !line.is_empty()).take(5);
    let words = words.collect::<Vec<_>>().join(" ");
    Some(words.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// The operator's option that a daemon or rrsync refuses.
fn refused_option(text: &str) -> Option<&str> {
    let after = ["configured to refuse ", "rrsync error: option "];
    let rest = after.iter().find_map(|words| text.split_once(words)).map(|(_, rest)| rest)?;
    let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
    rest[..end].split(" has been").next()
}

/// The failure of a remote without a free connection, as a daemon or rrsync reports it.
fn full_house(text: &str) -> Option<Failure> {
    let new = |kind, reason, advice: &str| {
        Some(Failure::new(kind, code::STARTING, reason).advising(advice))
    };
    if text.contains("Another instance of rrsync is already accessing") {
        let advice = "rrsync allows one at a time, -no-lock allows more";
        return new(FailureKind::Busy, "serves another rsync", advice);
    }
    let (_, rest) = text.split_once("@ERROR: max connections (")?;
    if rest.starts_with('-') {
        let advice = "\"max connections\" in its rsyncd.conf is negative, 0 means no limit";
        return new(FailureKind::Denied, "is closed", advice);
    }
    let reason = "serves as many clients as its `max connections` allows";
    new(FailureKind::Busy, reason, "raise it, 0 means no limit")
}

/// How many clients a remote serves at a time, if it refused one for that reason.
pub fn places_allowed(stderr: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(stderr);
    if text.contains("Another instance of rrsync is already accessing") {
        return Some(1);
    }
    let (_, rest) = text.split_once("@ERROR: max connections (")?;
    rest.split(')').next()?.parse().ok()
}

/// True when the receiver's file system is full. The kernel's error number is at the end of a line.
fn is_full(text: &str) -> bool {
    let full = |line: &str| {
        let ends = ["(28)", "(122)", "(30)"].iter().any(|number| line.ends_with(number));
        ends && !line.contains("[sender]")
    };
    text.lines().any(full)
}

/// The most informative line, without rsync's decoration.
fn reason(text: &str, code: i32) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let full = lines().find(|line| is_full(line));
    let telling = lines().find(|line| {
        // ssh prints this when the shared connection has no room and it makes one of its own.
        let is_about_sharing = line.starts_with("ControlSocket ") || line.starts_with("mux_client");
        !is_about_sharing
            && !line.starts_with("rsync error:")
            && !line.contains("connection unexpectedly closed")
    });
    let Some(line) = full.or(telling).or_else(|| lines().next()) else {
        return format!("rsync ended with code {code}");
    };
    let line = line.trim_start_matches("@ERROR: ");
    let line = line.strip_prefix("rsync: ").unwrap_or(line);
    let bare = line
        .split_once("] ")
        .filter(|(role, _)| role.starts_with('['))
        .map_or(line, |(_, rest)| rest);
    bare.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Code 23: the paths in the error lines have failed; all others are delivered.
fn partial(stderr: &[u8], truncated: bool, places: &RunPaths) -> Outcome {
    let mut failed: Vec<(RelPath, String)> = Vec::new();
    let mut named = HashSet::new();
    let (mut blocked, mut in_the_way) = (Vec::new(), Vec::new());
    let mut unknown = None;
    let mut deletions_skipped = false;
    let mut harmless = false;
    let mut lines = stderr.split(|&b| b == b'\n').peekable();
    // A login shell may print something before rsync starts on the remote.
    while lines.next_if(|line| lines::is_shell_noise(line, places)).is_some() {}
    for line in lines {
        match lines::read(line, places) {
            Line::Nothing => {}
            Line::Harmless => harmless = true,
            Line::DeletionsSkipped => deletions_skipped = true,
            Line::Failed(path, _) | Line::Blocked(path, _) if named.contains(&path) => {}
            Line::Failed(path, words) => {
                named.insert(path.clone());
                failed.push((path, words));
            }
            Line::Blocked(path, words) => {
                named.insert(path.clone());
                blocked.push(path.clone());
                in_the_way.push((path, words));
            }
            Line::Unknown(words) => unknown = unknown.or(Some(words)),
        }
    }
    if let Some(reason) = unknown {
        return Outcome::Kept { reason };
    }
    if truncated {
        return Outcome::Kept { reason: "more errors than can be remembered".into() };
    }
    // If something in the directory could not be deleted, that is the reason.
    blocked.retain(|path| !failed.iter().any(|(known, _)| known.is_within(path)));
    failed.append(&mut in_the_way);
    match (failed.is_empty(), harmless) {
        (true, true) if !deletions_skipped => Outcome::Delivered,
        (true, _) => Outcome::Kept { reason: "some files could not be transferred".into() },
        (false, _) => Outcome::Partial { failed, blocked, deletions_skipped },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: RunPaths<'static> = RunPaths {
        module: "m",
        user: Some("bob"),
        password_file: None,
        proxy: None,
        root: b"/srv/www",
        remote_directory: b"",
    };

    /// The outcome in the words of the data file.
    fn described(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Delivered => "delivered".into(),
            Outcome::Partial { failed, blocked, deletions_skipped } => {
                let mut words: Vec<_> = failed.iter().map(|(path, _)| path.to_string()).collect();
                words.sort();
                let kind = match deletions_skipped {
                    true => "skipped",
                    false if blocked.is_empty() => "partial",
                    false => "blocked",
                };
                format!("{kind} {}", words.join(" "))
            }
            Outcome::Kept { reason } => format!("kept {reason}"),
            Outcome::Failed(failure) => {
                format!("{} {}", failure.kind.policy().word, failure.clause())
            }
            Outcome::Refused { ability, .. } => format!("refused {ability:?}"),
            Outcome::Stopped => "ended".into(),
        }
    }

    #[test]
    fn what_real_daemons_answered_is_understood() {
        let data = include_str!("../../tests/data/rsync-errors.txt");
        let mut cases = 0;
        for case in data.split("\n== ").skip(1) {
            let (head, text) = case.split_once('\n').unwrap();
            let mut fields = head.split(" | ");
            let (name, code) = (fields.next().unwrap(), fields.next().unwrap().parse().unwrap());
            let expected = fields.next().unwrap();
            let found = described(&judge(Ending::Code(code), text.as_bytes(), false, &PLACES));
            let (kind, words) = expected.split_once(' ').unwrap_or((expected, ""));
            let exact = matches!(kind, "partial" | "blocked" | "skipped" | "refused" | "delivered");
            let right = if exact {
                found == expected
            } else {
                found.starts_with(kind) && found.contains(words)
            };
            assert!(right, "{name}: expected {expected:?}, found {found:?}");
            cases += 1;
        }
        assert!(cases > 35, "only {cases} cases were read");
    }

    #[test]
    fn forgotten_errors_keep_everything() {
        let text = b"rsync: [receiver] open \"/a/f\" (in m) failed: Operation not permitted (1)\n";
        let outcome = judge(Ending::Code(23), text, true, &PLACES);
        assert!(matches!(outcome, Outcome::Kept { .. }), "{outcome:?}");
    }

    #[test]
    fn names_are_found_below_a_module_directory_and_with_ssh() {
        let failed = |directory: &'static str, shown: &str| {
            let places = RunPaths { remote_directory: directory.as_bytes(), ..PLACES };
            let text = format!(
                "rsync: [receiver] open \"{shown}\" (in m) failed: Permission denied (13)\n"
            );
            described(&judge(Ending::Code(23), text.as_bytes(), false, &places))
        };
        assert_eq!(failed("/sub", "/sub/a/f"), "partial a/f");
        assert!(failed("/sub", "/other/a/f").starts_with("kept"));
        assert_eq!(failed("/tmp/www", "/tmp/www/a/f"), "partial a/f");
        assert_eq!(failed("www", "/home/u/www/a/f"), "partial a/f");
    }

    #[test]
    fn a_file_name_is_never_taken_for_a_message() {
        let name = "x: No space left on device (28) @ERROR: auth failed: invalid file mode 00";
        let text =
            format!("rsync: [receiver] open \"/{name}\" (in m) failed: Permission denied (13)\n");
        let found = described(&judge(Ending::Code(23), text.as_bytes(), false, &PLACES));
        assert_eq!(found, format!("partial {name}"));
    }

    #[test]
    fn a_dead_proxy_is_named() {
        let text =
            b"rsync: [sender] failed to connect to 10.0.0.9 (10.0.0.9): Connection refused (111)\n";
        let places = RunPaths { proxy: Some("10.0.0.9:3128"), ..PLACES };
        let found = described(&judge(Ending::Code(10), text, false, &places));
        assert!(
            found.starts_with("away") && found.contains("RSYNC_PROXY=10.0.0.9:3128"),
            "{found}"
        );
    }

    #[test]
    fn a_message_never_forges_a_log_line() {
        let outcome = judge(Ending::Code(12), b"x\x1b[2J\rERROR y\n", false, &PLACES);
        assert_eq!(described(&outcome), "away x[2JERROR y");
    }
}
