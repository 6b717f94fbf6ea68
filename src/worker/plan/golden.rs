//! Runs the scripts of `tests/data/plan`: a job, a look at the disk, what is known of the remote, and the rsync runs that follow.
//! `GOLDEN_UPDATE=1 cargo test golden` writes the runs into the scripts; review them before you commit.
//!
//! [`Script::read`] defines the lines. `a` is a path, `a/` a directory or a listing, `a//` a tree, `.` the root.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::executor::{Effects, Executor, RunResult};
use super::super::moves::{Move, Moved};
use super::step::{Entry, Run};
use super::*;
use crate::change::{RemoteId, RootId};
use crate::destination::{Destination, Host};
use crate::engine::{JobId, UndoneMove};
use crate::rsync::options::RsyncOptions;
use crate::rsync::{Basis, RunKind};

/// What has been read of a script so far.
struct Script {
    params: Vec<String>,
    deletes: bool,
    abilities: Abilities,
    patterns: Vec<Vec<u8>>,
    hidden: Option<String>,
    crontab: Vec<Vec<u8>>,
    job: Job,
    now: Duration,
    known: Known,
    looks: Looks,
    world: World,
}

/// Disk and remote as the script describes them.
#[derive(Default)]
struct World {
    /// rsync cannot read something below these.
    unreadable: BTreeSet<RelPath>,
    /// rsync cannot deliver these.
    fails: Vec<(RelPath, String)>,
    /// The remote has directories in the place of these, which a run without rules does not delete.
    blocked: BTreeSet<RelPath>,
    /// Those of them that hold something that the rules keep.
    kept: BTreeSet<RelPath>,
    /// Only the remote has these.
    extraneous: Vec<Entry>,
    /// These vanish after the look.
    vanished: Vec<RelPath>,
    /// What is on disk.
    disk: Vec<Entry>,
    /// Previews are incomplete.
    mute: bool,
    hidden: Option<String>,
    transcript: String,
}

fn path(text: &str) -> RelPath {
    let text = text.trim_end_matches('/');
    RelPath::new(if text == "." { b"" } else { text.as_bytes() }).unwrap()
}

fn seconds(text: &str) -> Duration {
    let seconds: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?} is no time"));
    Duration::from_micros((seconds * 1e6).round() as u64)
}

fn version(modified: &str, size: &str) -> Version {
    let modified = seconds(modified);
    let stamp = Stamp { modified, size: size.parse().unwrap() };
    Version { stamp, changed: modified, inode: 1 }
}

fn bytes(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

impl Script {
    fn new() -> Self {
        let job = Job {
            id: JobId(0),
            remote: RemoteId(0),
            root: RootId(0),
            kind: JobKind::Batch,
            items: Vec::new(),
            moves: Vec::new(),
            deletes_below: true,
        };
        Self {
            params: vec!["-artuz".into()],
            deletes: true,
            abilities: Abilities::ALL,
            patterns: Vec::new(),
            hidden: None,
            crontab: Vec::new(),
            job,
            now: Duration::from_secs(1_000),
            known: Known::default(),
            looks: Looks::default(),
            world: World::default(),
        }
    }

    /// Reads one line.
    fn read(&mut self, words: &[&str]) {
        match words {
            ["params", params @ ..] => {
                self.params = params.iter().map(ToString::to_string).collect();
            }
            ["nothing", "is", "deleted"] => self.deletes = false,
            ["an", "old", "receiver"] => self.abilities = Abilities::NONE,
            ["a", "receiver", "without", "delete-missing-args"] => {
                self.abilities.delete_missing = false;
            }
            ["a", "receiver", "that", "refuses", "deletions"] => self.abilities.delete = false,
            ["exclude", patterns @ ..] => self.patterns = bytes(patterns),
            // An expression that rsync's patterns cannot express.
            ["exclude-by-expression", end] => self.hidden = Some((*end).to_owned()),
            ["crontabfilter", patterns @ ..] => self.crontab = bytes(patterns),
            ["job", kind] => {
                self.job.kind = match *kind {
                    "batch" => JobKind::Batch,
                    "large" => JobKind::Large,
                    "trees" => JobKind::Trees(FullSyncFilter::Off),
                    "scheduled" => JobKind::Trees(FullSyncFilter::Crontab),
                    other => panic!("what is job {other:?}?"),
                }
            }
            ["deletions", "are", "withheld"] => self.job.deletes_below = false,
            ["content", "may", "differ", name] => {
                let mark = Mark { compare_content: true, ..Mark::new(Scope::Tree) };
                self.job.items.push(Item { path: path(name), mark });
            }
            ["sent", name, modified, size, "at", now] => {
                let stamp = version(modified, size).stamp;
                let granularity = self.granularity();
                self.known.remember(&path(name), stamp, seconds(now), granularity);
            }
            ["delivered", name, modified, size] => {
                let sent = vec![(path(name), version(modified, size))];
                self.known.delivered(&Looks::default(), sent);
            }
            ["unreadable", name] => drop(self.world.unreadable.insert(path(name))),
            ["fails", name, reason @ ..] => {
                self.world.fails.push((path(name), reason.join(" ")));
            }
            ["a", "directory", "is", "there", "at", name] => {
                self.world.blocked.insert(path(name));
            }
            ["rules", "keep", "something", "there", "at", name] => {
                self.world.blocked.insert(path(name));
                self.world.kept.insert(path(name));
            }
            ["only", "there", names @ ..] => self.world.extraneous.extend(entries(names)),
            ["disk", names @ ..] => self.world.disk.extend(entries(names)),
            ["vanishes", name] => self.world.vanished.push(path(name)),
            ["previews", "fail"] => self.world.mute = true,
            ["after", "the", "moves", seen @ ..] => see(&mut self.looks.after_moves, seen),
            ["below", "trees", seen @ ..] => see(&mut self.looks.below_trees, seen),
            seen => see(&mut self.looks.first, seen),
        }
    }

    fn endpoint(&self) -> Endpoint {
        let host = Host { name: "192.0.2.1".into(), ..Host::default() };
        let destination = Destination::Daemon { host, module: "www".into() };
        let (params, deletes) = (self.params.clone(), self.deletes);
        let options = RsyncOptions { params, deletes, ..RsyncOptions::default() };
        self.rules().guard(Endpoint::new(Path::new("/srv/www"), &destination, &options))
    }

    fn granularity(&self) -> Granularity {
        let exact = self.endpoint().compares_nanoseconds(self.abilities);
        if exact { Granularity::Nanoseconds } else { Granularity::Seconds }
    }

    fn rules(&self) -> Rules {
        let hidden = self.hidden.clone();
        let exclude =
            move |path: &RelPath, _| hidden.as_ref().is_some_and(|end| is_hidden(path, end));
        Rules {
            exclude: Arc::new(exclude),
            patterns: Excludes { kept: self.patterns.clone(), perishable: Vec::new() },
            coverage: if self.hidden.is_some() { Coverage::Partial } else { Coverage::Whole },
            crontab: self.crontab.clone(),
        }
    }

    /// Makes a plan, runs it in the script's world, and describes what happened.
    fn run(mut self) -> String {
        let (endpoint, rules) = (self.endpoint(), self.rules());
        let (abilities, known, now) = (self.abilities, &self.known, self.now);
        let facts = Facts { endpoint: &endpoint, rules: &rules, abilities, known, now };
        let plan = plan(&self.job, &self.looks, facts);
        self.world.hidden = self.hidden.clone();
        let mut executor = Executor {
            rules: &rules,
            absent_way: facts.way(Presence::Absent),
            making_way: plan.making_way,
            effects: &mut self.world,
            failed: plan.failed,
            returned: Vec::new(),
            undone: Vec::new(),
        };
        match executor.execute(plan.steps) {
            Ok(()) => {}
        }
        let (failed, undone, returned) = (executor.failed, executor.undone, executor.returned);
        let mut text = self.world.transcript;
        for item in plan.returned.into_iter().chain(returned) {
            let _ = writeln!(text, "-> another job: {}", show(&item.path, item.mark.scope));
        }
        for failure in failed {
            let _ = writeln!(text, "-> failed: {}: {}", failure.path, failure.failure.reason);
        }
        for UndoneMove { new, old } in undone {
            let _ = writeln!(text, "-> {new} has gone, {old} is left alone");
        }
        if !plan.open.is_empty() {
            let open = join(plan.open.iter());
            let _ = writeln!(text, "-> others may go on below: {open}");
        }
        if text.is_empty() { "-> nothing\n".into() } else { text }
    }
}

fn is_hidden(path: &RelPath, end: &str) -> bool {
    path.as_bytes().ends_with(end.as_bytes())
}

fn entries(names: &[&str]) -> Vec<Entry> {
    names.iter().map(|name| (path(name), name.ends_with('/'))).collect()
}

/// Reads one line of a look at the disk.
fn see(look: &mut Look, words: &[&str]) {
    match words {
        ["file", name, modified, size, more @ ..] => {
            let mut entry = Present::plain(path(name), Presence::Other);
            entry.version = Some(version(modified, size));
            match more {
                [] => {}
                ["moved", "here"] => entry.moved = Some(Mover::Somebody),
                ["received", "here"] => entry.moved = Some(Mover::Receiver),
                ["content", "may", "differ"] => entry.compare_content = true,
                ["linked"] => entry.is_linked = true,
                ["once", "more"] => entry.recheck = Recheck::Only,
                ["to", "confirm"] => entry.recheck = Recheck::Confirm,
                _ => panic!("what is {more:?}?"),
            }
            look.present.push(entry);
        }
        ["dir", name] => look.present.push(Present::plain(path(name), Presence::Directory)),
        ["link", name] => look.present.push(Present::plain(path(name), Presence::Other)),
        ["gone", name] => {
            if name.ends_with('/') {
                look.absent_dirs.insert(path(name));
            }
            look.absent.insert(path(name));
        }
        ["compare", names @ ..] => {
            for name in names {
                let list = if name.ends_with("//") { &mut look.trees } else { &mut look.listings };
                list.push(path(name));
            }
        }
        ["long", name] => drop(look.long_trees.insert(path(name))),
        ["moved", old, new] => {
            let what = match (old.ends_with("//"), new.ends_with('/')) {
                (true, _) => Moved::ReplacedDirectory,
                (_, true) => Moved::Directory,
                _ => Moved::File(1 << 30),
            };
            look.moves.push(Move { new: path(new), old: path(old), what });
        }
        _ => panic!("what is {words:?}?"),
    }
}

fn show(path: &RelPath, scope: Scope) -> String {
    let name = if path.is_root() { ".".into() } else { path.to_string() };
    name + ["", "/", "//"][scope as usize]
}

fn join<'a>(paths: impl Iterator<Item = &'a RelPath>) -> String {
    paths.map(|path| show(path, Scope::Entry)).collect::<Vec<_>>().join(" ")
}

/// A run as a sentence.
fn sentence(run: &Run) -> String {
    let names = join(run.names.iter());
    let content = |compares: bool| if compares { ", comparing contents" } else { "" };
    match &run.kind {
        RunKind::Batch { ignore_times } | RunKind::LongBatch { ignore_times, .. } => {
            format!("by name{}: {names}", content(*ignore_times))
        }
        RunKind::Confirmation => format!("by name, in a session that connects now: {names}"),
        RunKind::Replacement => format!("by name, replacing newer copies: {names}"),
        RunKind::Fallback { ignore_times } => {
            format!("by patterns{}: {}", content(*ignore_times), input_of(run))
        }
        RunKind::GuardedDeletion => format!("deletion by rules: {}", input_of(run)),
        RunKind::Listing { deletes, .. } => {
            let deletes = if *deletes { "" } else { ", deleting nothing" };
            format!("listings{deletes}: {names}{}", rules_of(run))
        }
        RunKind::Trees { checksum, deletes, at_once, .. } => {
            let deletes = if *deletes { "" } else { ", deleting nothing" };
            let pieces = if *at_once { "" } else { ", piece by piece" };
            let content = content(*checksum);
            format!("trees{content}{deletes}{pieces}: {names}{}", rules_of(run))
        }
        RunKind::Extraneous { scope, .. } => {
            let what = if *scope == Scope::Tree { "trees" } else { "listings" };
            format!("only deletions in {what}: {names}{}", rules_of(run))
        }
        RunKind::MoveDirectory { old, new, checksum, basis } => {
            let copies = if *basis == Basis::Copies { ", as copies" } else { "" };
            format!("directory {new} from {old}{copies}{}{}", content(*checksum), rules_of(run))
        }
        RunKind::MoveFile { old, new } => format!("file {new} from {old}"),
        RunKind::Probe | RunKind::CleanTemp => panic!("no plan has {:?}", run.kind),
    }
}

fn input_of(run: &Run) -> String {
    String::from_utf8_lossy(&run.input).split_terminator('\0').collect::<Vec<_>>().join(", ")
}

fn rules_of(run: &Run) -> String {
    if run.input.is_empty() { String::new() } else { format!(" except {}", input_of(run)) }
}

impl Effects for World {
    type Error = Infallible;

    fn run(&mut self, run: &Run) -> Result<RunResult, Infallible> {
        let _ = writeln!(self.transcript, "-> {}", sentence(run));
        let is_met = |path: &RelPath| {
            run.names.iter().any(|name| path.is_within(name) || name.is_within(path))
        };
        let stays = |path: &&RelPath| !run.kind.has_rules() || self.kept.contains(*path);
        let blocked = self.blocked.iter().filter(|path| is_met(path)).filter(stays);
        let blocked: Vec<_> = blocked.cloned().collect();
        let block = |path: &RelPath| (path.clone(), "could not make way".to_owned());
        let fails = self.fails.iter().filter(|(path, _)| is_met(path)).cloned();
        Ok(RunResult {
            failed: fails.chain(blocked.iter().map(block)).collect(),
            blocked,
            all_failed: None,
            deletions_skipped: self.unreadable.iter().any(is_met),
        })
    }

    fn preview(&mut self, run: &Run) -> Result<Result<Vec<Entry>, RunResult>, Infallible> {
        let _ = writeln!(self.transcript, "-> preview of {}", sentence(run));
        if self.mute {
            let all_failed = Some("too much to delete".into());
            return Ok(Err(RunResult { all_failed, ..RunResult::default() }));
        }
        let is_met = |path: &RelPath| run.names.iter().any(|name| path.is_within(name));
        Ok(Ok(self.extraneous.iter().filter(|(path, _)| is_met(path)).cloned().collect()))
    }

    fn stands(&mut self, path: &RelPath) -> bool {
        !self.vanished.contains(path)
    }

    fn list(&mut self, dirs: &[RelPath], scope: Scope) -> Result<Vec<Entry>, Self::Error> {
        let is_met = |path: &RelPath| match scope {
            Scope::Tree => dirs.iter().any(|dir| path.is_within(dir)),
            _ => path.parent().is_some_and(|parent| dirs.contains(&parent)),
        };
        let excluded =
            |path: &RelPath| self.hidden.as_ref().is_some_and(|end| is_hidden(path, end));
        let below_excluded = |path: &RelPath| {
            let mut above = path.parent();
            while let Some(parent) = above {
                if excluded(&parent) {
                    return true;
                }
                above = parent.parent();
            }
            false
        };
        let met = self.disk.iter().filter(|(path, _)| is_met(path) && !below_excluded(path));
        Ok(met.cloned().collect())
    }
}

fn run_script(text: &str) -> String {
    let mut script = Script::new();
    let mut head = String::new();
    for line in text.lines().filter(|line| !line.starts_with("->")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() && !line.starts_with('#') {
            script.read(&words);
        }
        let _ = writeln!(head, "{line}");
    }
    head + &script.run()
}

#[test]
fn jobs_are_planned_as_the_golden_scripts_say() {
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plan");
    let is_update = std::env::var_os("GOLDEN_UPDATE").is_some();
    let mut scripts = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let transcript = run_script(&text);
        if is_update {
            std::fs::write(&path, &transcript).unwrap();
        }
        assert!(
            text == transcript || is_update,
            "{}: the job is planned otherwise:\n{transcript}",
            path.display()
        );
        scripts += 1;
    }
    assert!(scripts >= 20, "only {scripts} scripts in {}", dir.display());
}
