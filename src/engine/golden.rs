//! Runs the scripts of `tests/data/coalesce`: events at given times, and the actions that the engine answers them with.
//! `GOLDEN_UPDATE=1 cargo test golden` writes the answers into the scripts, to be read before they are committed.
//!
//! A script: settings (`workers 2`), then lines `SECONDS EVENT`, each followed by its `-> ACTION` lines. Deadlines that
//! pass between two events are events of their own (`deadline`). `a` is a path, `a/` its listing, `a//` its tree, `.` the
//! root; `old=>new` was moved. `[large]` and the like are the marks of an item.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::pending::{Item, Mark, Recheck};
use super::{
    Action, Deletions, Engine, EngineSetup, Event, Extraneous, FlushId, FullSyncCause, Job, JobId,
    JobReport, Notice, Now, PathFailure, Refusal, RemoteDeletions, UndoneMove, Verdict,
};
use crate::change::{Cause, Change, RemoteId, RootId, RootLoss, Scope, WatchEvent};
use crate::failure::{Failure, FailureKind};
use crate::path::RelPath;

const ROOT: RootId = RootId(0);

fn number<T: std::str::FromStr>(text: &str) -> T {
    let parsed = text.parse().ok();
    parsed.unwrap_or_else(|| panic!("{text:?} is no number"))
}

/// Reads an item, such as `a/b//[shard]`.
fn parse_item(text: &str) -> Item {
    let (text, flags) = text.split_once('[').unwrap_or((text, ""));
    let (name, scope) = match text.strip_suffix("//") {
        Some(name) => (name, Scope::Tree),
        None => match text.strip_suffix('/') {
            Some(name) => (name, Scope::Listing),
            None => (text, Scope::Entry),
        },
    };
    let name = if name == "." { "" } else { name };
    let mark = Mark {
        large: flags.contains("large"),
        shard: flags.contains("shard"),
        compare_content: flags.contains("compare_content"),
        additive: flags.contains("additive"),
        ..Mark::new(scope)
    };
    let path = RelPath::new(name.as_bytes()).unwrap();
    Item { path, mark }
}

fn show_item(item: &Item) -> String {
    let Item { path, mark } = item;
    let mut text = if path.is_root() { ".".to_owned() } else { path.to_string() };
    text += ["", "/", "//"][mark.scope as usize];
    let flags = [
        (mark.large, "large"),
        (mark.shard, "shard"),
        (mark.compare_content, "compare_content"),
        (item.only_adds(), "additive"),
        (mark.recheck == Recheck::Only, "recheck"),
        (mark.recheck == Recheck::Also, "recheck too"),
        (mark.recheck == Recheck::Confirm, "confirm"),
    ];
    let flags: Vec<_> = flags.iter().filter(|(on, _)| *on).map(|f| f.1).collect();
    if !flags.is_empty() {
        let _ = write!(text, "[{}]", flags.join(","));
    }
    text
}

fn show_items(items: &[Item]) -> String {
    match items {
        [first, .., last] if items.len() > 8 => {
            let (count, first, last) = (items.len(), show_item(first), show_item(last));
            format!("{count} paths, {first} .. {last}")
        }
        _ => items.iter().map(show_item).collect::<Vec<_>>().join(" "),
    }
}

fn parse_changes(words: &[&str]) -> Vec<Change> {
    let mut changes = Vec::new();
    for word in words {
        let (old, new) = match word.split_once("=>") {
            Some((old, new)) => (RelPath::new(old.as_bytes()), new),
            None => (None, *word),
        };
        changes.extend(old.clone().map(|old| Change::entry(old, Cause::MovedFrom)));
        let Item { path, mark } = parse_item(new);
        changes.push(Change {
            scope: mark.scope,
            moved_from: old,
            ..Change::entry(path, Cause::CloseWrite)
        });
    }
    changes
}

fn parse_report(words: &[&str]) -> JobReport {
    let mut report = JobReport::done();
    let (mut failed, mut unconfirmed) = (false, false);
    for word in words {
        match *word {
            "failed" => failed = true,
            "unconfirmed" => unconfirmed = true,
            "refuses-deletions" => report.remote_deletions = RemoteDeletions::Refused,
            "makes-deletions" => report.remote_deletions = RemoteDeletions::Made,
            path if unconfirmed => report.unconfirmed.push(parse_item(path).path),
            // So many files below a directory, as `storm` makes them.
            storm if failed && storm.contains('*') => {
                let (below, count) = storm.split_once('*').unwrap_or_default();
                report.failed.extend((0..number::<u32>(count)).map(|i| {
                    let path = parse_item(&format!("{below}/f{i:05}")).path;
                    let words = format!("mkstemp \"/{path}.x\" failed: Permission denied (13)");
                    PathFailure::new(path, words)
                }));
            }
            "returned" => failed = false,
            undone if undone.contains("=>") => {
                let (old, new) = undone.split_once("=>").unwrap_or_default();
                let (new, old) = (parse_item(new).path, parse_item(old).path);
                report.undone.push(UndoneMove { new, old });
            }
            path if failed => {
                let path = parse_item(path).path;
                report.failed.push(PathFailure::new(path, "permission denied"));
            }

            item => report.returned.push(parse_item(item)),
        }
    }
    report
}

fn parse_event(text: &str) -> Event {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ended =
        |job: &str, verdict| Event::JobDone(JobId(number(job)), JobReport::nothing(verdict));
    let reason = "as the script says".to_owned();
    let failed = |job: &str, kind, code| {
        ended(job, Verdict::Failed(Failure::new(kind, code, "as the script says")))
    };
    match words.as_slice() {
        ["changed", paths @ ..] => Event::Watch(WatchEvent::changed(ROOT, parse_changes(paths))),
        ["gone", path] => {
            let change = Change::entry(parse_item(path).path, Cause::Delete);
            Event::Watch(WatchEvent::changed(ROOT, vec![change]))
        }
        // So many files below a directory.
        ["storm", count, below] => {
            let names: Vec<String> =
                (0..number::<u32>(count)).map(|i| format!("{below}/f{i:05}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Event::Watch(WatchEvent::changed(ROOT, parse_changes(&names)))
        }
        ["opened", job, paths @ ..] => {
            let paths = paths.iter().map(|path| parse_item(path).path).collect();
            Event::JobOpened(JobId(number(job)), paths)
        }
        ["waits", job] => Event::JobWaits(JobId(number(job))),
        ["works", job] => Event::JobWorks(JobId(number(job))),
        ["done", job, rest @ ..] => Event::JobDone(JobId(number(job)), parse_report(rest)),
        ["down", job] => failed(job, FailureKind::Away, 12),
        ["denied", job] => failed(job, FailureKind::Denied, 5),
        ["shortage", job] => failed(job, FailureKind::Shortage, 14),
        ["stopped", job] => ended(job, Verdict::Stopped),
        ["misconfigured", job] => failed(job, FailureKind::Options, 1),
        ["fault", job] => failed(job, FailureKind::Fault, 13),
        ["unhealthy", job] => failed(job, FailureKind::Source, 0),
        ["overflow"] => Event::Watch(WatchEvent::Overflow { root: ROOT }),
        ["root", "lost"] => {
            Event::Watch(WatchEvent::RootLost { root: ROOT, loss: RootLoss::Gone(reason) })
        }
        ["mount", "lost", path] => {
            let path = parse_item(path).path;
            Event::Watch(WatchEvent::SubtreeLost { root: ROOT, path, reason })
        }
        ["mount", "back", path] => {
            let path = parse_item(path).path;
            Event::Watch(WatchEvent::SubtreeBack { root: ROOT, path })
        }
        ["root", "back"] => Event::Watch(WatchEvent::RootBack { root: ROOT, replaced: false }),
        ["full", "sync", "start"] => Event::FullSync(FullSyncCause::Start),
        ["full", "sync", "schedule"] => Event::FullSync(FullSyncCause::Schedule),
        ["deletions", "allowed"] => Event::Deletions(ROOT, Deletions::Allowed),
        ["deletions", "undecided"] => Event::Deletions(ROOT, Deletions::Undecided),
        ["deletions", "withheld"] => Event::Deletions(ROOT, Deletions::Withheld),
        ["restored", "absent", items @ ..] => {
            let items = items.iter().map(|item| parse_item(item)).collect();
            Event::RestoredAbsent(RemoteId(0), items)
        }
        ["restored", items @ ..] => {
            Event::Restored(RemoteId(0), items.iter().map(|item| parse_item(item)).collect())
        }
        ["retry", "fail", "log"] => Event::RetryFailLog,
        ["remind"] => Event::Remind,
        ["attrib", path] => {
            let path = parse_item(path).path;
            let change = Change { is_dir: true, ..Change::entry(path, Cause::Attrib) };
            Event::Watch(WatchEvent::changed(ROOT, vec![change]))
        }
        ["retry"] => Event::Retry(RemoteId(0)),
        ["compare", path] => Event::Compare(RemoteId(0), parse_item(path).path),
        ["pause"] => Event::Pause(RemoteId(0)),
        ["resume"] => Event::Resume(RemoteId(0)),
        ["flush", id, within @ ..] => {
            let within = within.iter().map(|path| parse_item(path).path).collect();
            Event::Flush(FlushId(number(id)), vec![(RemoteId(0), within)])
        }
        ["stop"] => Event::Stop,
        other => panic!("no such event: {other:?}"),
    }
}

fn show_job(job: &Job) -> String {
    let mut text = format!("run {} for remote {}: ", job.id.0, job.remote.0);
    text += &format!("{:?} {}", job.kind, show_items(&job.items)).to_lowercase();
    if !job.deletes_below && !job.items.is_empty() {
        text += " without deletions";
    }
    for (new, old) in &job.moves {
        let _ = write!(text, ", {new} was {old}");
    }
    text.trim_end().to_owned()
}

fn show_notice(notice: &Notice) -> String {
    match notice {
        Notice::Failed { remote, failure, pending, .. } => {
            format!("remote {}: {}, {pending} pending", remote.0, failure.kind.policy().word)
        }
        Notice::Over { remote, kind, after, pending, .. } => {
            let word = kind.policy().word;
            format!("remote {}: {word} is over after {after:.2?}, {pending} pending", remote.0)
        }
        Notice::StillDown { remote, failure, lasts, next_try, pending, .. } => {
            let word = failure.kind.policy().word;
            format!(
                "remote {}: still {word} after {lasts:.0?}, next try in {next_try:.1?}, {pending} pending",
                remote.0
            )
        }
        Notice::PathsFailed { refusal, next_try, .. } => {
            let Refusal { directory, paths, example, .. } = refusal;
            let example = &example.path;
            format!("{paths} of {directory} failed, {example} for one, next try in {next_try:.1?}")
        }
        other => format!("{other:?}"),
    }
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Run(job) => show_job(job),
        Action::CloseSessions(remote) => format!("close the sessions of remote {}", remote.0),
        Action::ReduceSessions(remote) => format!("reduce the sessions of remote {}", remote.0),
        Action::Abort(remote) => format!("abort what is in flight for remote {}", remote.0),
        Action::Settled(settled) => {
            let mut text = format!("settled {}", settled.job.0);
            for (what, items) in [
                ("delivered", &settled.delivered),
                ("withheld", &settled.withheld),
                ("rechecked", &settled.rechecked),
                ("returned", &settled.returned),
                ("divided", &settled.divided),
            ] {
                if !items.is_empty() {
                    let _ = write!(text, ", {what} {}", show_items(items));
                }
            }
            text
        }
        Action::FailLogChanged => "fail log changed".to_owned(),
        Action::Flushed(id) => format!("flushed {}", id.0),
        Action::Notify(notice) => format!("notify: {}", show_notice(notice)),
        Action::Finished => "finished".to_owned(),
    }
}

/// A script being run, and its transcript.
struct Script {
    engine: Engine,
    now: Now,
    transcript: String,
}

impl Script {
    fn event(&mut self, name: &str, event: Event) {
        let actions = self.engine.handle(self.now, event);
        if actions.is_empty() && name == "deadline" {
            return;
        }
        let _ = writeln!(self.transcript, "{:.3} {name}", self.now.as_secs_f64());
        for action in &actions {
            let _ = writeln!(self.transcript, "    -> {}", show_action(action));
        }
    }

    /// What the status says of failing paths.
    fn look(&mut self, at: &str) {
        let _ = writeln!(self.transcript, "{at} look");
        for (path, _, due) in self.engine.failing(RemoteId(0)) {
            let next = match due {
                Some(due) => format!("next try in {:.1?}", due.saturating_sub(self.now)),
                None => "being tried".to_owned(),
            };
            let _ = writeln!(self.transcript, "    -> failing: {path}, {next}");
        }
    }

    fn pass_time(&mut self, until: Now) {
        while let Some(deadline) = self.engine.next_deadline().filter(|at| *at < until) {
            self.now = self.now.max(deadline);
            self.event("deadline", Event::DeadlineReached);
            let next = self.engine.next_deadline();
            assert!(
                next.is_none_or(|next| next > self.now),
                "the deadline stands still at {:?}:\n{}",
                self.now,
                self.transcript
            );
        }
        self.now = until;
    }
}

fn run_script(text: &str) -> String {
    let mut setup = EngineSetup {
        remotes: vec![ROOT],
        workers: 10,
        pending_max: 1_000_000,
        unrecorded: Extraneous::Deleted,
    };
    let mut script: Option<Script> = None;
    let mut head = String::new();
    for line in text.lines() {
        let is_answer = line.trim_start().starts_with("->") || line.ends_with(" deadline");
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &mut script) {
            _ if is_answer => continue,
            ([], Some(script)) => script.transcript.push('\n'),
            ([first, ..], Some(script)) if first.starts_with('#') => {
                let _ = writeln!(script.transcript, "{line}");
            }
            ([at, event @ ..], Some(script)) if at.starts_with(|c: char| c.is_ascii_digit()) => {
                script.pass_time(Duration::from_micros((number::<f64>(at) * 1e6).round() as u64));
                match event {
                    ["look"] => script.look(at),
                    ["end"] => {
                        let _ = writeln!(script.transcript, "{at} end");
                    }
                    _ => script.event(&event.join(" "), parse_event(&event.join(" "))),
                }
            }
            (["workers", count], None) => setup.workers = number(count),
            (["remotes", count], None) => setup.remotes = vec![ROOT; number(count)],
            (["pending", count], None) => setup.pending_max = number(count),
            (["without", "-r"], None) => setup.unrecorded = Extraneous::Kept,
            (["begin"], None) => {
                script = Some(Script {
                    engine: Engine::new(setup.clone()),
                    now: Duration::ZERO,
                    transcript: std::mem::take(&mut head) + "begin\n",
                });
                continue;
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "what is {line:?}?"),
        }
        if script.is_none() {
            let _ = writeln!(head, "{line}");
        }
    }
    script.map_or(head, |script| script.transcript)
}

#[test]
fn the_engine_answers_as_the_golden_scripts_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/coalesce");
    let mut scripts = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let transcript = run_script(&text);
        if std::env::var_os("GOLDEN_UPDATE").is_some() {
            std::fs::write(&path, &transcript).unwrap();
        }
        let mut lines = text.lines().zip(transcript.lines());
        let differs = lines.position(|(a, b)| a != b);
        let at = differs.unwrap_or(text.lines().count().min(transcript.lines().count()));
        assert!(
            text == transcript || std::env::var_os("GOLDEN_UPDATE").is_some(),
            "{}:{}: the engine answers otherwise; its transcript:\n{transcript}",
            path.display(),
            at + 1
        );
        scripts += 1;
    }
    assert!(scripts >= 15, "only {scripts} scripts in {}", dir.display());
}
