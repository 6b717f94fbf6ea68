//! `sersync2 doctor`: examines a configuration, its remotes and this machine before the mirror goes live.
//! Starts no mirror and sends no file of the watch paths.

mod machine;
mod remote;
mod report;
mod same_module;
mod trial;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;

use super::instance::{NOT_RUNNING, parse, parse_duration};
use crate::config::{self, MirrorConfig, Remote};
use crate::ground::lock::lock;
use crate::process::print;
use crate::state::StateBases;
use report::{DoctorReport, Finding, Section};

/// How many remotes are examined at the same time; each needs up to four rsync processes.
const AT_ONCE: usize = 16;

/// Examine a configuration before it goes live: this machine, and every remote.
///
/// Sends no file of the watch paths. On a remote that accepts deletions it creates three empty files whose names begin with
/// .sersync-doctor-, reads their times and deletes them again; --read-only skips that. Exit code: 0 all is well; 1 warnings; 2 errors;
/// 3 the configuration cannot be used; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 doctor", bin_name = "sersync2 doctor")]
pub struct DoctorArgs {
    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    config: PathBuf,

    /// The directory that the instance will be started with
    #[arg(long = "state-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Create nothing on the remotes, not even for a moment
    #[arg(long)]
    read_only: bool,

    /// Start no further step for a remote after this time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// When the examination of a remote stops.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self(now() + limit)
    }

    fn has_passed(self) -> bool {
        now() >= self.0
    }
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: DoctorArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let options = config::LoadOptions {
        read_list: Some(crate::remote_list::read),
        ..config::LoadOptions::default()
    };
    let loaded = match config::load(&args.config, &options) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(NOT_RUNNING);
        }
    };
    let places = StateBases::of_this_process(args.state_dir.clone());
    let machine = machine::examine(&loaded, &places, Deadline::after(args.timeout));
    let mut sections = vec![Section { about: "this machine".into(), findings: machine }];
    sections.extend(examine_remotes(&args, &loaded.config.mirrors));
    let report = DoctorReport { sections };
    print(if args.json { report.json() } else { report.text() }.as_bytes());
    ExitCode::from(report.exit_code())
}

/// One remote, and the findings about it.
struct Task<'a> {
    mirror: &'a MirrorConfig,
    remote: &'a Remote,
    findings: OnceLock<Vec<Finding>>,
}

impl Task<'_> {
    fn section(self) -> Section {
        let about = format!("{} -> {}", self.mirror.watch.display(), self.remote.destination);
        Section { about, findings: self.findings.into_inner().unwrap_or_default() }
    }
}

/// Examines all remotes, several at a time; returns them in the order of the file.
fn examine_remotes(args: &DoctorArgs, mirrors: &[MirrorConfig]) -> Vec<Section> {
    let of = |mirror| move |remote| Task { mirror, remote, findings: OnceLock::new() };
    let tasks: Vec<Task<'_>> =
        mirrors.iter().flat_map(|mirror| mirror.remotes.iter().map(of(mirror))).collect();
    let waiting = Mutex::new(tasks.iter());
    let next = || lock(&waiting).next();
    let work = || {
        while let Some(task) = next() {
            let mut findings = remote::examine(args, task.mirror, task.remote);
            findings.extend(same_module::examine(mirrors, task.mirror, task.remote));
            _ = task.findings.set(findings);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(tasks.len()) {
            // If this thread cannot be started, the others do its work.
            let named = std::thread::Builder::new().name("examine".into());
            _ = named.spawn_scoped(scope, work);
        }
        work();
    });
    tasks.into_iter().map(Task::section).collect()
}

#[expect(clippy::disallowed_methods, reason = "an examination is limited by the wall clock")]
fn now() -> Instant {
    Instant::now()
}
