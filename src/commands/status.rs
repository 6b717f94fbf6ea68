//! `sersync2 status`: whether it is running, what is behind, since when, why, and what to do.
//! Reads snapshots and prints them; `snapshot/health.rs` makes the verdict.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::event::{Timespec, poll};
use serde_json::{Value, json};

use super::instance::{NOT_RUNNING, USAGE, Which, parse, parse_duration};
use crate::control::client::{CallError, Connection, PATIENCE};
use crate::control::instances;
use crate::control::protocol::{Answer, Command};
use crate::failure::DELETIONS_REFUSED_ADVICE;
use crate::failure::code::UNKNOWN;
use crate::ground::counted::{counted, paths};
use crate::ground::time::ago;
use crate::snapshot::health::{Health, HealthThresholds, Level};
use crate::snapshot::{
    DeletionState, FailingPath, RemoteStatus, RootState, RootStatus, Snapshot, SyncState,
};

/// Show the state of the mirrors on this machine.
///
/// Exit code: 0 all is well; 1 something is behind, failing, paused or waits for you; 2 a remote or a watch path is down;
/// 3 not running, or no answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 status", bin_name = "sersync2 status")]
pub struct StatusArgs {
    #[command(flatten)]
    which: Which,

    /// Print JSON: the snapshots (docs/CONTROL.md) and the verdict
    #[arg(long)]
    json: bool,

    /// Print the state again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,

    /// How long a change may wait before its remote is behind
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = parse_duration)]
    max_age: Duration,

    /// How many paths may be pending for a remote before it is behind
    #[arg(long, value_name = "N")]
    max_pending: Option<u64>,
}

/// How many reasons the last line repeats. Each stands at its remote or watch path, too.
const REASONS: usize = 2;

/// The answer of one instance.
struct Told {
    directory: PathBuf,
    snapshot: Result<Snapshot, CallError>,
    health: Health,
}

impl Told {
    fn exit_code(&self) -> u8 {
        if self.snapshot.is_err() { NOT_RUNNING } else { self.health.level as u8 }
    }
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: StatusArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    loop {
        let (text, code) = match told(&args) {
            Ok(all) => (show(&args, &all), all.iter().map(Told::exit_code).max()),
            Err(message) => {
                eprintln!("{message}");
                return ExitCode::from(USAGE);
            }
        };
        let clear = if args.watch && io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        let printed = io::stdout().write_all(format!("{clear}{text}").as_bytes());
        if !args.watch || printed.is_err() {
            return ExitCode::from(code.unwrap_or(NOT_RUNNING));
        }
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // Sleep: only the time matters here.
        _ = poll(&mut [], Some(&second));
    }
}

/// Asks the chosen instances; fails if the chosen configuration has none.
fn told(args: &StatusArgs) -> Result<Vec<Told>, String> {
    let thresholds = HealthThresholds { max_age: args.max_age, max_pending: args.max_pending };
    let (directories, is_named) = match args.which.named() {
        Some(named) => (vec![named?], true),
        None => (instances::find_all(&args.which.places()), false),
    };
    let told = directories.into_iter().map(|directory| {
        let snapshot = snapshot_of(&directory);
        let health = match &snapshot {
            Ok(snapshot) => snapshot.health(&thresholds, snapshot.taken_ms),
            Err(error) => Health { level: Level::Down, reasons: vec![error.to_string()] },
        };
        Told { directory, snapshot, health }
    });
    // Ignore instances of other users and sockets of other programs, unless the operator chose them.
    let is_meant = |told: &Told| match &told.snapshot {
        Err(CallError::NotAllowed { .. } | CallError::Foreign { pid: None, .. }) => is_named,
        _ => true,
    };
    Ok(told.filter(is_meant).collect())
}

fn snapshot_of(directory: &Path) -> Result<Snapshot, CallError> {
    let mut connection = Connection::open(directory)?;
    let pid = connection.pid();
    match connection.call(Command::Status, Some(PATIENCE))? {
        Answer::Status { snapshot } => Ok(*snapshot),
        Answer::Failed { kind, .. } if kind == "silent" => Err(CallError::Hangs { pid }),
        Answer::Failed { kind, .. } if kind == "starting" => Err(CallError::Starts { pid }),
        Answer::Failed { kind, .. } if kind == "ended" => Err(CallError::Ended { pid }),
        Answer::Failed { kind, .. } if kind == "refused" => {
            Err(CallError::NotAllowed { directory: directory.to_path_buf() })
        }
        Answer::Failed { message, .. } => Err(CallError::Foreign { pid, reason: message }),
        _ => Err(CallError::Foreign { pid, reason: "expected a status".into() }),
    }
}

fn show(args: &StatusArgs, all: &[Told]) -> String {
    if args.json {
        let instances: Vec<Value> = all.iter().map(to_json).collect();
        let code = all.iter().map(Told::exit_code).max().unwrap_or(NOT_RUNNING);
        return format!("{:#}\n", json!({ "exit_code": code, "instances": instances }));
    }
    if all.is_empty() {
        return "no sersync2 is running on this machine\n".into();
    }
    let width = terminal_width();
    let all: Vec<String> = all
        .iter()
        .map(|told| match &told.snapshot {
            Ok(snapshot) => text(snapshot, &told.health, width),
            Err(error) => format!("{error}\n"),
        })
        .collect();
    all.join("\n")
}

fn to_json(told: &Told) -> Value {
    let mut value = json!({
        "state_dir": told.directory.display().to_string(),
        "exit_code": told.exit_code(),
        "reasons": told.health.reasons,
    });
    match &told.snapshot {
        Ok(snapshot) => value["snapshot"] = json!(snapshot),
        Err(error) => value["error"] = error.to_string().into(),
    }
    value
}

/// The width of the terminal; none if the output goes elsewhere, and is not cut.
fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    // A pseudo-terminal that nobody has sized is 0 columns wide.
    let width = size.map_or(0, |size| usize::from(size.ws_col));
    if width == 0 { usize::MAX } else { width }
}

/// One instance as text for people, in lines of `width` characters if possible.
fn text(snapshot: &Snapshot, health: &Health, width: usize) -> String {
    let instance = &snapshot.instance;
    let up = ago(snapshot.taken_ms, instance.started_ms);
    let mut text = format!("{}  (process {}, up {up}", instance.config, instance.pid);
    text += if instance.stopping { ", stopping)\n" } else { ")\n" };
    if instance.journal_incomplete {
        text += "  STATE CANNOT BE WRITTEN: the next start compares everything, and may miss deletions that wait now\n";
        let directory = instance.state_dir.as_deref().unwrap_or("the state directory");
        let _ = writeln!(
            text,
            "      do:  make room in {directory}, or see to it that this user may write there; then it mends itself"
        );
    }
    if instance.unwatched > 0 {
        let count = counted(instance.unwatched, "DIRECTORY IS", "DIRECTORIES ARE");
        let _ = writeln!(
            text,
            "  {count} NOT WATCHED, and compared every minute: the log names one and the cause"
        );
    }
    for (index, root) in snapshot.roots.iter().enumerate() {
        text += &root_text(root, snapshot);
        let remotes = snapshot.remotes.iter().filter(|remote| remote.root == index as u64);
        let remotes: Vec<&RemoteStatus> = remotes.collect();
        text += &remotes_text(&remotes, snapshot.taken_ms, width);
    }
    let is_syncing = snapshot.remotes.iter().any(|remote| remote.full_sync.is_some());
    let verdict = match health.level {
        Level::Ok if is_syncing => "all is well so far; a full sync is running",
        Level::Ok => "all is well",
        Level::Behind => "NOT ALL IS WELL",
        Level::Down => "DOWN",
    };
    text += verdict;
    for (index, reason) in health.reasons.iter().take(REASONS).enumerate() {
        text += if index == 0 { ": " } else { "; " };
        text += reason;
    }
    let more = health.reasons.len().saturating_sub(REASONS);
    if more > 0 {
        let _ = write!(text, "; and {more} more, see above");
    }
    text + "\n"
}

fn root_text(root: &RootStatus, snapshot: &Snapshot) -> String {
    let watched = match root.state {
        RootState::Lost => "LOST: nothing is sent or deleted until it is back".to_owned(),
        RootState::Watched => format!("watched by {}", snapshot.instance.backend),
    };
    let deletions = match root.deletions {
        DeletionState::Allowed => "",
        DeletionState::Undecided => "; deletions wait until it is known what is gone",
        DeletionState::Withheld => {
            "; DELETIONS HELD BACK: look at the watch path; if all of it is meant: sersync2 confirm-deletions"
        }
    };
    let mut text = format!("  {}  {watched}{deletions}\n", root.path);
    for alarm in &root.alarms {
        let since = ago(snapshot.taken_ms, alarm.since_ms);
        let _ = writeln!(text, "      ALARM for {since}: {}", alarm.text);
    }
    text
}

/// The columns of the table that go first when the terminal is narrow.
const LESS_IMPORTANT: [&str; 5] = ["ready sessions", "rate", "p99", "p50", "oldest"];

fn remotes_text(remotes: &[&RemoteStatus], now_ms: u64, width: usize) -> String {
    let head = [
        "remote",
        "state",
        "pending",
        "oldest",
        "last delivery",
        "p50",
        "p99",
        "rate",
        "ready sessions",
        "full sync",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(remotes.iter().map(|remote| row(remote, now_ms)));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut shown: Vec<usize> = (0..head.len()).collect();
    if remotes.iter().all(|remote| remote.last_full_sync_ms.is_none()) {
        shown.retain(|column| head[*column] != "full sync");
    }
    for name in LESS_IMPORTANT {
        let needed: usize = shown.iter().map(|column| widths[*column] + 2).sum();
        if needed + 2 > width {
            shown.retain(|column| head[*column] != name);
        }
    }
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = shown.iter().map(|&column| format!("{:<1$}", row[column], widths[column]));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "    {}", line.trim_end());
        if let Some(remote) = index.checked_sub(1).and_then(|index| remotes.get(index)) {
            text += &details(remote, now_ms);
        }
    }
    text
}

fn row(remote: &RemoteStatus, now_ms: u64) -> [String; 10] {
    let latency = |of: fn(&crate::snapshot::Latency) -> u64| {
        remote.latency.as_ref().map_or_else(|| "-".into(), |latency| micros(of(latency)))
    };
    let state = match (remote.state, &remote.down) {
        (SyncState::Up, _) => "up".to_owned(),
        (SyncState::CatchingUp, _) => "catching up".into(),
        (SyncState::Paused, _) => "PAUSED".into(),
        (SyncState::Unknown, _) => "not contacted yet".into(),
        (SyncState::Down, None) => "DOWN".into(),
        (SyncState::Down, Some(down)) => format!("DOWN {}", ago(now_ms, down.since_ms)),
    };
    let since = |at: Option<u64>| at.map_or_else(|| "-".into(), |at| ago(now_ms, at));
    let was =
        |at: Option<u64>| at.map_or_else(|| "-".into(), |at| format!("{} ago", ago(now_ms, at)));
    [
        remote.name.clone(),
        state,
        remote.pending.to_string(),
        since(remote.oldest_pending_ms),
        was(remote.last_delivery_ms),
        latency(|it| it.p50_us),
        latency(|it| it.p99_us),
        format!("{:.1}/s", remote.paths_per_second),
        remote.sessions.to_string(),
        was(remote.last_full_sync_ms),
    ]
}

/// The lines below the row of a remote: outage, pause, full sync, failing paths.
fn details(remote: &RemoteStatus, now_ms: u64) -> String {
    let mut text = String::new();
    if let Some(down) = &remote.down {
        let next = match down.next_try_ms {
            Some(at) if at > now_ms => again_in(at, now_ms),
            _ => "one is under way".into(),
        };
        let code = match down.code {
            0 | UNKNOWN => String::new(),
            code => format!("rsync exit code {code}; "),
        };
        let tries = counted(down.tries, "try", "tries");
        let _ = writeln!(text, "        why: {} ({code}{tries}, {next})", down.reason);
        let _ = writeln!(text, "        do:  {}", down.what_to_do);
    }
    if remote.state == SyncState::Paused {
        let until = remote.paused_until_ms.map(|at| format!("for {} more", ago(at, now_ms)));
        let until = until.unwrap_or_else(|| "until: sersync2 resume".into());
        let _ = writeln!(text, "        paused {until}; changes are kept");
    }
    if let Some(sync) = &remote.full_sync {
        let since = ago(now_ms, sync.since_ms);
        let words = match remote.state {
            SyncState::Down => format!("a full sync waits until it is back; begun {since} ago"),
            SyncState::Paused => {
                format!("a full sync waits until it is resumed; begun {since} ago")
            }
            _ => format!("full sync for {since}: {}", sync.words(now_ms)),
        };
        let _ = writeln!(text, "        {words}");
    }
    // Refused deletions of single paths stand among the failing paths, with the same advice.
    if remote.refuses_deletions && remote.failing == 0 {
        let _ = writeln!(text, "        refuses deletions: what only it has stays there");
        let _ = writeln!(text, "        do:  {DELETIONS_REFUSED_ADVICE}");
    }
    if remote.failing > 0 {
        let _ = writeln!(text, "        {} cannot be delivered:", paths(remote.failing));
    }
    // Print the same advice once, below all paths that it is for.
    for alike in remote.failing_paths.chunk_by(|one, next| one.what_to_do == next.what_to_do) {
        alike.iter().for_each(|failing| text += &failing_text(failing, now_ms));
        if let Some(what_to_do) = alike.first().map(|it| &it.what_to_do).filter(|it| !it.is_empty())
        {
            let _ = writeln!(text, "          do:  {what_to_do}");
        }
    }
    let named = remote.failing_paths.len() as u64;
    if remote.failing > named {
        let _ = writeln!(text, "          and {} more", remote.failing - named);
    }
    text
}

/// When the next try is due: in a second at the earliest, because "0 s" would look stuck.
fn again_in(at_ms: u64, now_ms: u64) -> String {
    format!("again in {}", ago(at_ms.max(now_ms + 1000), now_ms))
}

fn failing_text(failing: &FailingPath, now_ms: u64) -> String {
    let next = match failing.next_try_ms {
        Some(at) if at > now_ms => again_in(at, now_ms),
        _ => "being tried".into(),
    };
    let (path, reason) = (&failing.path, &failing.reason);
    let tries = counted(failing.tries, "try", "tries");
    format!("          {path}: {reason} ({tries}, {next})\n")
}

fn micros(duration_us: u64) -> String {
    match duration_us {
        0..10_000 => format!("{:.1} ms", duration_us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", duration_us / 1000),
        1_000_000..60_000_000 => format!("{:.1} s", duration_us as f64 / 1e6),
        _ => ago(duration_us / 1000, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Down, Instance, Latency};

    fn snapshot(remotes: Vec<RemoteStatus>) -> Snapshot {
        Snapshot {
            taken_ms: 1_000_000_000,
            instance: Instance {
                config: "/etc/sersync/www.xml".into(),
                pid: 7,
                started_ms: 1_000_000_000 - 11_520_000,
                backend: "fanotify".into(),
                ..Instance::default()
            },
            roots: vec![RootStatus { path: "/data/www".into(), ..RootStatus::default() }],
            remotes,
            ..Snapshot::default()
        }
    }

    fn lines(snapshot: &Snapshot) -> Vec<String> {
        let health = snapshot.health(&HealthThresholds::default(), snapshot.taken_ms);
        text(snapshot, &health, usize::MAX).lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_well_is_one_line_a_remote() {
        let remote = RemoteStatus {
            name: "192.0.2.20::www".into(),
            state: SyncState::Up,
            last_delivery_ms: Some(1_000_000_000 - 3_000),
            latency: Some(Latency { p50_us: 1_800, p99_us: 47_000, count: 9 }),
            ..RemoteStatus::default()
        };
        assert_eq!(
            lines(&snapshot(vec![remote])),
            [
                "/etc/sersync/www.xml  (process 7, up 3 h 12 min)",
                "  /data/www  watched by fanotify",
                "    remote           state  pending  oldest  last delivery  p50     p99    rate   ready sessions",
                "    192.0.2.20::www  up     0        -       3 s ago        1.8 ms  47 ms  0.0/s  0",
                "all is well",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_every_name() {
        let remote = |name: &str| RemoteStatus { name: name.into(), ..RemoteStatus::default() };
        let snapshot = snapshot(vec![remote("192.0.2.20::www"), remote("web-21.example.com::www")]);
        let health = snapshot.health(&HealthThresholds::default(), snapshot.taken_ms);
        let narrow = text(&snapshot, &health, 80);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        for kept in ["web-21.example.com::www", "pending", "last delivery"] {
            assert!(narrow.contains(kept), "{narrow}");
        }
        assert!(!narrow.contains("ready sessions"), "{narrow}");
    }

    #[test]
    fn the_last_full_sync_has_a_column_when_there_was_one() {
        let remote = |last_full_sync_ms| RemoteStatus {
            name: "h::m".into(),
            last_full_sync_ms,
            ..RemoteStatus::default()
        };
        let synced = remote(Some(1_000_000_000 - 5_700_000));
        let lines = lines(&snapshot(vec![synced, remote(None)]));
        let lasts: Vec<&str> = lines[2..5].iter().filter_map(|it| it.rsplit("  ").next()).collect();
        assert_eq!(lasts, ["full sync", "1 h 35 min ago", "-"], "{lines:?}");
    }

    #[test]
    fn a_run_that_was_ended_has_no_exit_code() {
        let reason = "no progress for 315 s".into();
        let down = Down { code: UNKNOWN, tries: 1, reason, ..Down::default() };
        let down = Some(down);
        let remote = RemoteStatus { down, state: SyncState::Down, ..RemoteStatus::default() };
        let text = details(&remote, 1_000_000_000);
        assert!(text.starts_with("        why: no progress for 315 s (1 try, "), "{text}");
    }

    #[test]
    fn what_is_down_says_why_and_what_to_do() {
        let down = Down {
            since_ms: 1_000_000_000 - 300_000,
            code: 10,
            tries: 1,
            reason: "it does not answer".into(),
            what_to_do: "start its rsync daemon".into(),
            next_try_ms: Some(1_000_001_500),
            ..Down::default()
        };
        let failing = FailingPath {
            path: "a/b".into(),
            reason: "permission denied".into(),
            what_to_do: "look at its mode".into(),
            tries: 4,
            logged: true,
            ..FailingPath::default()
        };
        let other = FailingPath { path: "a/c".into(), ..failing.clone() };
        let remote = RemoteStatus {
            name: "h::m".into(),
            state: SyncState::Down,
            down: Some(down),
            failing: 2,
            failing_paths: vec![failing, other],
            ..RemoteStatus::default()
        };
        let lines = lines(&snapshot(vec![remote]));
        assert!(lines[3].starts_with("    h::m    DOWN 5 min  0 "), "{lines:?}");
        assert_eq!(
            lines[4..],
            [
                "        why: it does not answer (rsync exit code 10; 1 try, again in 1 s)",
                "        do:  start its rsync daemon",
                "        2 paths cannot be delivered:",
                "          a/b: permission denied (4 tries, being tried)",
                "          a/c: permission denied (4 tries, being tried)",
                "          do:  look at its mode",
                "DOWN: h::m is down: it does not answer; h::m: 2 paths cannot be delivered",
            ]
        );
    }
}
