//! `sersync2 explain`: whether a path is mirrored, which rule decides, and the rsync command for each remote.
//! Changes nothing, here or on a remote.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::change::Scope;
use crate::config::load::Loaded;
use crate::config::{self, LoadOptions, MirrorConfig, ReadList};
use crate::filter::{Filter, Rule};
use crate::ground::absolute::absolute;
use crate::path::RelPath;
use crate::process::print;
use crate::remote_list;
use crate::rsync::excludes::Excludes;
use crate::rsync::exit::{Ending, Outcome};
use crate::rsync::input::exact_patterns;
use crate::rsync::params::Params;
use crate::rsync::run::{Limits, Session};
use crate::rsync::{Endpoint, Presence, RunSpec, include_words, quoted};
use crate::tools::rule_words::words_for;

/// At least one path is not mirrored.
const NOT_MIRRORED: u8 = 1;

/// The question could not be answered: the configuration cannot be used.
const NO_ANSWER: u8 = 3;

/// The stall limit of a dry run of rsync.
const STALL: Duration = Duration::from_secs(30);

/// The most output that is kept of a dry run of rsync.
const OUTPUT_MAX: usize = 1 << 20;

/// Show whether each path is mirrored, and which rule decides.
///
/// Exit code: 0 all are mirrored; 1 at least one is not; 3 the configuration cannot be used; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "explain", bin_name = "sersync2 explain")]
pub struct ExplainArgs {
    #[command(flatten)]
    instance: InstanceWords,

    /// Also ask each remote how its copy differs; changes nothing there
    #[arg(long)]
    ask_remote: bool,

    /// Files and directories, which need not exist
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Why a path is not mirrored.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// A rule of `<filter>` excludes it or a directory above it.
    Filter { at: RelPath, rule: Rule },
    /// rsync excludes it because of the operator's options.
    Params { because: Vec<u8> },
    /// It does not exist, and deletions are switched off.
    DeleteOff,
}

/// Options that find the configuration and its running instance.
#[derive(Debug, Clone, clap::Args)]
pub struct InstanceWords {
    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    pub config: PathBuf,

    /// The directory that the instance was started with
    #[arg(long = "state-dir", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Asks the running instance for the state of a path. `None`: no instance answers.
pub type AskInstance = dyn Fn(&InstanceWords, &Path) -> Option<Stands>;

/// The state of a path at each remote: the remote's name, and a clause for people.
pub type Stands = Vec<(String, String)>;

/// Runs the command.
pub fn run(args: &ExplainArgs, ask: &AskInstance) -> ExitCode {
    let read_list = Some(remote_list::read_without_commands as ReadList);
    let options = LoadOptions { read_list, ..LoadOptions::default() };
    let loaded = match config::load(&args.instance.config, &options) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(NO_ANSWER);
        }
    };
    let ask = |path: &Path| ask(&args.instance, path);
    match Explainer::new(&loaded, args.ask_remote, &ask) {
        Ok(explainer) => explainer.explain_all(&args.paths),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(NO_ANSWER)
        }
    }
}

/// What is needed to explain paths.
struct Explainer<'a> {
    loaded: &'a Loaded,
    filter: Filter,
    excludes: Excludes,
    /// Expressions that rsync has no pattern for.
    inexpressible: Vec<String>,
    asks_remotes: bool,
    ask_instance: &'a dyn Fn(&Path) -> Option<Stands>,
}

impl<'a> Explainer<'a> {
    fn new(
        loaded: &'a Loaded,
        asks_remotes: bool,
        ask_instance: &'a dyn Fn(&Path) -> Option<Stands>,
    ) -> Result<Self, crate::filter::ExpressionError> {
        let filter = Filter::new(&loaded.config.filter)?;
        let patterns = filter.to_rsync_patterns();
        let excludes = Excludes { kept: patterns.patterns, perishable: patterns.perishable };
        let inexpressible = filter.inexpressible().into_iter().map(str::to_owned).collect();
        Ok(Self { loaded, filter, excludes, inexpressible, asks_remotes, ask_instance })
    }

    fn explain_all(&self, paths: &[PathBuf]) -> ExitCode {
        let mut all_mirrored = true;
        for path in paths {
            let mut out = Vec::new();
            all_mirrored &= self.explain(path, &mut out);
            print(&out);
        }
        if all_mirrored { ExitCode::SUCCESS } else { ExitCode::from(NOT_MIRRORED) }
    }

    /// Writes the explanation to `out`. True when some watch path mirrors the path.
    fn explain(&self, path: &Path, out: &mut Vec<u8>) -> bool {
        let places = self.places(path);
        if places.is_empty() {
            line(out, 0, &[&quoted(path.as_os_str()), b": not mirrored"]);
            let name = self.loaded.source.name.as_bytes();
            line(
                out,
                1,
                &[b"no <localpath watch> of ", name, b" is above it; the watch paths are:"],
            );
            for mirror in &self.loaded.config.mirrors {
                line(out, 2, &[&quoted(mirror.watch.as_os_str())]);
            }
            return false;
        }
        let mut is_mirrored = false;
        for (mirror, below) in places {
            is_mirrored |= self.explain_below(path, mirror, &below, out);
        }
        is_mirrored
    }

    /// The watch paths that contain the path, and its relative path in each.
    fn places(&self, path: &Path) -> Vec<(&'a MirrorConfig, RelPath)> {
        let named = absolute(path);
        // Do not resolve the last name: a symbolic link is mirrored as a link.
        let real = match (named.parent().map(Path::canonicalize), named.file_name()) {
            (Some(Ok(parent)), Some(name)) => parent.join(name),
            _ => named.clone(),
        };
        let place = |mirror: &'a MirrorConfig| {
            let roots = [Some(mirror.watch.clone()), mirror.watch.canonicalize().ok()];
            let below = |root: &PathBuf| {
                let below =
                    [&named, &real].into_iter().find_map(|path| path.strip_prefix(root).ok())?;
                RelPath::new(below.as_os_str().as_bytes())
            };
            roots.iter().flatten().find_map(below).map(|below| (mirror, below))
        };
        self.loaded.config.mirrors.iter().filter_map(place).collect()
    }

    fn explain_below(
        &self,
        path: &Path,
        mirror: &MirrorConfig,
        below: &RelPath,
        out: &mut Vec<u8>,
    ) -> bool {
        let presence = Presence::of(&below.below(&mirror.watch));
        let obstacle = self.obstacle(mirror, below, presence);
        let verdict: &[u8] = if obstacle.is_none() { b": mirrored" } else { b": not mirrored" };
        line(out, 0, &[&quoted(path.as_os_str()), verdict]);
        line(out, 1, &[b"watch path: ", &quoted(mirror.watch.as_os_str())]);
        line(
            out,
            1,
            &[
                b"on the disk: ",
                match presence {
                    Presence::Directory => b"a directory",
                    Presence::Other => b"a file, a link or something else that is no directory",
                    Presence::Absent => b"nothing; what a remote has under this name is deleted",
                },
            ],
        );
        if let Some(obstacle) = &obstacle {
            line(out, 1, &[b"because: ", &self.why(obstacle)]);
            return false;
        }
        let stands = (self.ask_instance)(&below.below(&mirror.watch)).unwrap_or_default();
        for remote in &mirror.remotes {
            let endpoint = Endpoint::new(&mirror.watch, &remote.destination, &remote.options);
            line(out, 1, &[b"remote ", endpoint.destination().to_string().as_bytes()]);
            // Such a command would send, or delete on the remote, what the filter excludes below the path.
            let reaches_below = presence != Presence::Other && !self.inexpressible.is_empty();
            let presence = if reaches_below { Presence::Other } else { presence };
            let plan = |endpoint: &Endpoint| {
                endpoint.plan_by_hand(below, presence, &self.excludes, Scope::Tree)
            };
            match self.inexpressible.first().filter(|_| reaches_below) {
                Some(expression) => line(
                    out,
                    2,
                    &[
                        b"command: none does the same, because rsync has no pattern for the expression ",
                        expression.as_bytes(),
                        b"; `sersync2 sync-now` compares this path",
                    ],
                ),
                None => line(out, 2, &[b"command: ", &plan(&endpoint).shell_line()]),
            }
            let name = endpoint.destination().to_string();
            for (_, clause) in stands.iter().filter(|(remote, _)| *remote == name) {
                line(out, 2, &[b"now: ", clause.as_bytes()]);
            }
            if self.asks_remotes {
                line(out, 2, &[b"its copy: ", &ask(&endpoint, plan(&endpoint.comparing()), below)]);
            }
        }
        true
    }

    /// Why the path is not mirrored; `None` when it is.
    fn obstacle(
        &self,
        mirror: &MirrorConfig,
        below: &RelPath,
        presence: Presence,
    ) -> Option<Obstacle> {
        let is_dir = presence == Presence::Directory;
        if let Some((at, rule)) = self.filter.deciding_rule(below, is_dir) {
            return Some(Obstacle::Filter { at, rule });
        }
        if presence == Presence::Absent {
            return (!self.loaded.config.changes.delete).then_some(Obstacle::DeleteOff);
        }
        let mut remotes = mirror.remotes.iter();
        let because = remotes
            .find_map(|remote| left_out_by_params(&mirror.watch, &remote.options.params, below))?;
        Some(Obstacle::Params { because })
    }

    fn why(&self, obstacle: &Obstacle) -> Vec<u8> {
        match obstacle {
            Obstacle::Filter { at, rule } => words_for(self.loaded, at, *rule).into_bytes(),
            Obstacle::Params { because } => because.clone(),
            Obstacle::DeleteOff => {
                b"it is gone, and <delete start=\"false\"/> keeps deletions from the remotes"
                    .to_vec()
            }
        }
    }
}

/// Finds the word of `<commonParams>` that excludes the path, by dry runs of rsync against an empty directory.
/// `None` when rsync would send the path, or cannot be run.
fn left_out_by_params(root: &Path, params: &[String], path: &RelPath) -> Option<Vec<u8>> {
    let empty = tempfile::tempdir().ok()?;
    let nowhere = empty.path().as_os_str();
    let (is_sent, said) = would_send(root, params, path, nowhere)?;
    if is_sent {
        return None;
    }
    for fewer in with_one_less(params) {
        let (words, without) = fewer;
        if would_send(root, &words, path, nowhere).is_some_and(|(is_sent, _)| is_sent) {
            let word = quoted(OsStr::new(&without));
            return Some(
                [b"rsync leaves it out; the option of <commonParams> that decides is ", &word[..]]
                    .concat(),
            );
        }
    }
    let said = if said.is_empty() { b"no single option decides".to_vec() } else { said };
    Some([b"rsync leaves it out with the options of <commonParams>: ", &said[..]].concat())
}

/// Every variant of the words that lacks one word (with its value) or one letter; and what it lacks.
fn with_one_less(params: &[String]) -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    for (at, word) in params.iter().enumerate().filter(|(_, word)| word.starts_with('-')) {
        let takes_next = params.get(at + 1).is_some_and(|next| !next.starts_with('-'));
        let mut fewer = params.to_vec();
        let removed: Vec<String> = fewer.drain(at..at + 1 + usize::from(takes_next)).collect();
        all.push((fewer, removed.join(" ")));
        let letters = word.strip_prefix('-').filter(|letters| !letters.starts_with('-'));
        for (letter_at, letter) in letters.unwrap_or_default().char_indices() {
            let mut fewer = params.to_vec();
            fewer[at].remove(1 + letter_at);
            if fewer[at].len() > 1 {
                all.push((fewer, format!("-{letter}")));
            }
        }
    }
    all
}

/// Whether rsync would send the path to an empty directory, and rsync's messages.
fn would_send(
    root: &Path,
    params: &[String],
    path: &RelPath,
    nowhere: &OsStr,
) -> Option<(bool, Vec<u8>)> {
    let mut args = Params::parse(params).kept;
    args.extend(["-n", "-r", "--out-format=@%n"].map(OsString::from));
    // The content of the directory does not matter here.
    args.extend(include_words(&exact_patterns([path])));
    args.extend(["--exclude=*".into(), "--".into(), "./".into(), nowhere.to_owned()]);
    let spec =
        RunSpec { args, root: root.to_path_buf(), local: None, owner: None, confinement: None };
    let report = run_dry(&spec)?;
    if !matches!(report.0, Ending::Code(0 | 23 | 24)) {
        return None;
    }
    let lines = report.1.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let (sent, said): (Vec<&[u8]>, Vec<&[u8]>) = lines.partition(|line| line.starts_with(b"@"));
    let names = sent.iter().filter(|line| ***line != *b"@./").count();
    Some((names >= path.components().count(), said.join(&b' ')))
}

/// Runs rsync; returns how it ended, and its standard output.
fn run_dry(spec: &RunSpec) -> Option<(Ending, Vec<u8>)> {
    let session = Session::start(spec, None).ok()?;
    let report = session.feed(b"", Limits { stall: STALL, output_max: OUTPUT_MAX });
    Some((report.ending, report.output.unwrap_or_default()))
}

/// How the copy on the remote differs, as a dry run reports it.
fn ask(endpoint: &Endpoint, mut run: RunSpec, path: &RelPath) -> Vec<u8> {
    run.args.splice(0..0, ["-n", "-i", "--out-format=@%i %n"].map(OsString::from));
    let session = match Session::start(&run, None) {
        Ok(session) => session,
        Err(error) => return format!("cannot be asked: {error}").into_bytes(),
    };
    let report = session.feed(b"", Limits { stall: STALL, output_max: OUTPUT_MAX });
    match report.judge(endpoint) {
        Outcome::Delivered | Outcome::Partial { .. } | Outcome::Kept { .. } => {}
        _ => {
            let said = String::from_utf8_lossy(&report.stderr).trim().replace('\n', "; ");
            return format!("cannot be asked: {said}").into_bytes();
        }
    }
    let output = report.output.unwrap_or_default();
    let lines = output.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"@"));
    let name = as_rsync_writes(path.as_bytes());
    let differences: Vec<&[u8]> = lines
        .filter(|line| line.get(12..).is_some_and(|of| of.starts_with(&name) || name.is_empty()))
        .collect();
    match differences.as_slice() {
        [] => b"equal".to_vec(),
        [one] => difference(one).into_bytes(),
        [first, rest @ ..] => {
            format!("{}, and {} more below it", difference(first), rest.len()).into_bytes()
        }
    }
}

/// A name as rsync prints it: bytes outside printable ASCII are octal escapes.
fn as_rsync_writes(name: &[u8]) -> Vec<u8> {
    let is_octal = |byte: &u8| byte.is_ascii_digit();
    let mut written = Vec::new();
    for (at, &byte) in name.iter().enumerate() {
        let after = name.get(at + 1..at + 5).unwrap_or_default();
        let looks_escaped =
            byte == b'\\' && after.starts_with(b"#") && after[1..].iter().all(is_octal);
        if (b' '..=b'~').contains(&byte) && !looks_escaped {
            written.push(byte);
        } else {
            written.extend_from_slice(format!("\\#{byte:03o}").as_bytes());
        }
    }
    written
}

/// rsync's itemized change (eleven letters) in words.
fn difference(itemized: &[u8]) -> String {
    if itemized.starts_with(b"*deleting") {
        return "differs: it is there, and would be deleted".into();
    }
    let letters = itemized.get(2..11).unwrap_or_default();
    if letters.contains(&b'+') {
        return "missing".into();
    }
    let kinds = [
        (b'c', "content"),
        (b's', "size"),
        (b't', "time"),
        (b'T', "time"),
        (b'p', "mode"),
        (b'o', "owner"),
        (b'g', "group"),
        (b'a', "ACL"),
        (b'x', "extended attributes"),
    ];
    let found = kinds.iter().filter(|(letter, _)| letters.contains(letter)).map(|(_, kind)| *kind);
    let found: Vec<&str> = found.collect();
    if found.is_empty() { "differs".into() } else { format!("differs: {}", found.join(", ")) }
}

fn line(out: &mut Vec<u8>, depth: usize, pieces: &[&[u8]]) {
    out.extend_from_slice(&b"    ".repeat(depth));
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_option_less_at_a_time() {
        let params = ["-ax", "--exclude", "*.log"].map(String::from);
        let left: Vec<String> =
            with_one_less(&params).into_iter().map(|(_, without)| without).collect();
        assert_eq!(left, ["-ax", "-a", "-x", "--exclude *.log"]);
    }

    #[test]
    fn names_are_compared_as_rsync_writes_them() {
        assert_eq!(as_rsync_writes(b"a \\ b\n\xff"), br"a \ b\#012\#377");
        assert_eq!(as_rsync_writes(br"a\#012"), br"a\#134#012");
    }

    #[test]
    fn itemized_differences_are_said_in_words() {
        assert_eq!(difference(b"<f+++++++++ new"), "missing");
        assert_eq!(difference(b"<f.st...... f"), "differs: size, time");
        assert_eq!(difference(b".f...p..... f"), "differs: mode");
        assert_eq!(difference(b"*deleting   f"), "differs: it is there, and would be deleted");
    }
}
