//! The program from its arguments to its exit code: starts the parts in the order of their dependencies.
//! `daemon/mirror.rs` does the work.

mod catch_up;
mod control;
mod deliveries;
mod fail_log;
mod guard;
mod ledger;
mod listeners;
mod main_event;
mod mirror;
mod notice;
mod observer;
mod plugin_alone;
mod plugins;
mod progress;
mod rate;
mod reload;
mod remote_workers;
mod running;
mod shortage;
mod statistics;
mod stopping;
mod teller;
mod telling;
mod trust;
mod unacknowledged;
mod watchdog;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::args::{self, Args};
use crate::config::{CheckVerdict, LoadError, Loaded};
use crate::ground::absolute::absolute;
use crate::ground::limits::Limit;
use crate::logging::{self, Log, LogTarget};
use crate::process::{self, Background, Readiness, print};
use crate::state::{Patience, StateBases, StateDir, state_name};
use crate::{banner, config, remote_list, sys};
use plugin_alone::PluginAlone;
use running::{Outside, RunningDaemon, StoppedEarly};

/// How long to wait for a predecessor with the same configuration to end, or to report that it is stopping.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// A message for the operator; the program ends with 1.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the mirror with these words, the program's name first; `commands` are the names of the commands.
pub fn run(words: Vec<OsString>, commands: &[&str]) -> ExitCode {
    process::prepare();
    sys::memory::share_between_threads();
    sys::memory::take_stack();
    let args = match args::parse_args(words, commands) {
        Ok(args) => args,
        Err(end) if end.code == 0 => {
            print(end.text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(end) => {
            eprint!("{}", end.text);
            return ExitCode::from(end.code);
        }
    };
    for warning in args.warnings() {
        eprintln!("warning: {warning}");
    }
    if let Some(file) = &args.check {
        return check(file, &args);
    }
    let started = start(&args);
    // A reload may be reading lists of remotes.
    remote_list::end_commands();
    match started {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            if args.daemon {
                let lines = error.downcast_ref::<LoadError>().map(LoadError::log_lines);
                leave_trace(&args, &lines.map_or(error.to_string(), |lines| lines.join("; ")));
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes a failed start to syslog and to the log file, because start scripts often discard our output.
fn leave_trace(args: &Args, reason: &str) {
    let trace = format!("sersync2 -d did not start: {reason}");
    process::syslog::send(&trace);
    if let Some(file) = args.log_file.clone().or_else(|| log_file_beside_the_state(args)) {
        // The log may be unavailable for the same reason as the start.
        _ = logging::append_error(&file, &trace);
    }
}

/// The default log file of this configuration, if its state directory exists.
fn log_file_beside_the_state(args: &Args) -> Option<PathBuf> {
    let config = std::fs::canonicalize(&args.config).ok()?;
    let base = StateBases::of_this_process(args.state_dir.clone()).base().ok()?;
    let state = base.join(state_name(&config));
    state.is_dir().then(|| logging::default_file(Some(&state)))
}

/// `--check`: prints what is wrong with a configuration, or what it means.
fn check(file: &Path, args: &Args) -> ExitCode {
    let options = config::LoadOptions {
        plugin_alone: args.plugin_alone,
        preflight: false,
        read_list: Some(remote_list::read_without_commands),
    };
    let report = config::load::check_file(file, &options);
    match report.verdict {
        CheckVerdict::Valid | CheckVerdict::NotHere => print(report.text.as_bytes()),
        CheckVerdict::Invalid => eprint!("{}", report.text),
    }
    ExitCode::from(report.verdict.code())
}

/// Everything up to the fork, so that errors appear on the terminal.
fn start(args: &Args) -> Result<ExitCode, BoxError> {
    print(&banner::system_limits(&raise_limits()));
    let options = config::LoadOptions {
        plugin_alone: args.plugin_alone,
        preflight: true,
        read_list: Some(remote_list::read),
    };
    let loaded = config::load(&args.config, &options);
    print(&banner::options(banner::BannerOptions {
        full_sync: args.full_sync,
        background: args.daemon,
        config_file: Some(&args.config),
        workers: args.threads,
    }));
    print(&banner::parsing());
    let loaded = loaded?;
    for warning in loaded.warning_lines() {
        eprintln!("{warning}");
    }
    print(&banner::host(&loaded.config.host));
    // Messages show this path, so make it absolute.
    let places = StateBases::of_this_process(args.state_dir.as_deref().map(absolute));
    // A plugin alone keeps no state, because operators run the same file with -d and -m at the same time.
    let (state, without) = match args.plugin_alone {
        Some(_) => (None, None),
        None => {
            let waits = |pid| {
                eprintln!(
                    "waiting for process {pid}, which serves this configuration and is stopping"
                );
            };
            let patience = Patience { limit: STATE_PATIENCE, waits: &waits };
            StateDir::open_if_possible(&args.config, &places, patience)?
        }
    };
    let without = without.map(|reason| {
        format!("working without a journal, what is pending is forgotten at exit: {reason}")
    });
    if let Some(without) = without.as_ref().filter(|_| args.daemon) {
        // Without a state directory, a background process has no default log file.
        let log = "the log goes nowhere; name a file with --log-file PATH";
        let log = if args.log_file.is_none() { log } else { "the log says so as well" };
        eprintln!("warning: {without}; {log}");
    }
    let state = state.map(Arc::new);
    let state_path = state.as_deref().map(StateDir::path);
    let log_file = args.log_file.as_deref().map(absolute);
    let log_file = log_file.unwrap_or_else(|| logging::default_file(state_path));
    let readiness = if args.daemon {
        match process::start_background(&banner::background(&log_file, state_path), &log_file)? {
            Background::Parent(code) => return Ok(code),
            Background::Child(readiness) => readiness,
        }
    } else {
        Readiness::foreground()
    };
    let is_logged_to_a_file = args.daemon || args.log_file.is_some();
    let destination =
        if is_logged_to_a_file { LogTarget::File(log_file) } else { LogTarget::Stderr };
    let level = if loaded.config.debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    let log = match logging::start(destination, level) {
        Ok(log) => log,
        Err(error) => {
            readiness.failed(&error.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    log::info!(
        "sersync2 {}, process {}, configuration {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        absolute(&args.config).display()
    );
    if is_logged_to_a_file {
        // Until now only standard error has them.
        loaded.warning_lines().iter().for_each(|warning| log::warn!("{warning}"));
    }
    if let Some(without) = without {
        log::warn!("{without}");
    }
    if let Some(state) = &state {
        state.record_holder()?;
    }
    Ok(work(args, &loaded, state, &log, readiness))
}

/// Runs the mirror, or a plugin alone, in the process that continues after the fork.
fn work(
    args: &Args,
    loaded: &Loaded,
    state: Option<Arc<StateDir>>,
    log: &Log,
    readiness: Readiness,
) -> ExitCode {
    let config = &loaded.config;
    let started: Result<Box<dyn FnOnce() -> ExitCode>, BoxError> = match args.plugin_alone {
        Some(name) => PluginAlone::start(args, config, name).map(|mut alone| {
            let log = log.clone();
            Box::new(move || {
                alone.work(&log);
                ExitCode::SUCCESS
            }) as Box<dyn FnOnce() -> ExitCode>
        }),
        None => start_mirror(args, loaded, state.as_ref(), log).map(|(running, outside)| {
            let (args, log) = (args.clone(), log.clone());
            Box::new(move || mirror(running, outside, args, state.as_ref(), &log))
                as Box<dyn FnOnce() -> ExitCode>
        }),
    };
    match started {
        Ok(work) => match readiness.ready(log) {
            Ok(()) => work(),
            Err(error) => {
                log::error!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(error) if error.is::<StoppedEarly>() && !readiness.is_background() => {
            log::info!("{error}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            if readiness.is_background() {
                log::error!("sersync2 -d did not start: {error}");
                process::syslog::send(&format!("sersync2 -d did not start: {error}"));
            }
            readiness.failed(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The limits that sersync2 has always set.
const SERSYNC2_LIMITS: [(Limit, u64); 2] =
    [(Limit::MaxUserWatches, 50_000_000), (Limit::MaxQueuedEvents, 327_679)];

fn start_mirror(
    args: &Args,
    loaded: &Loaded,
    state: Option<&Arc<StateDir>>,
    log: &Log,
) -> Result<(RunningDaemon, Outside), BoxError> {
    let mut outside = Outside::open(args, state)?;
    let running = RunningDaemon::start(args, loaded, state, log, &mut outside)?;
    Ok((running, outside))
}

/// Mirrors until a signal ends it. A configuration that cannot be applied to the running mirror starts another one in
/// this process.
fn mirror(
    mut running: RunningDaemon,
    mut outside: Outside,
    mut args: Args,
    state: Option<&Arc<StateDir>>,
    log: &Log,
) -> ExitCode {
    // The walk finds what changes between two mirrors. Without a record, a comparison does, which deletes only with -r.
    args.no_catch_up = false;
    args.full_sync &= state.is_none();
    while let Some(successor) = running.work(&outside) {
        outside.set_starting(true);
        let before = running.end(&mut outside);
        let next = RunningDaemon::start(&args, &successor, state, log, &mut outside);
        if next.is_ok() {
            log::info!("reload: the mirror works with the new configuration");
        }
        let next = next.or_else(|error| {
            if error.is::<StoppedEarly>() {
                return Err(error);
            }
            log::error!("reload: the mirror does not start with the new configuration: {error}; the old one goes on");
            RunningDaemon::start(&args, &before, state, log, &mut outside)
        });
        running = match next {
            Ok(mut running) => {
                if state.is_none() && !args.full_sync {
                    running.compare_everything();
                }
                outside.set_starting(false);
                running
            }
            Err(error) if error.is::<StoppedEarly>() => {
                log::info!("reload: {error}");
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                log::error!("reload: the mirror does not start again: {error}");
                return ExitCode::FAILURE;
            }
        };
    }
    outside.end_with(running);
    ExitCode::SUCCESS
}

/// Raises the kernel's limits like the old sersync2, but never lowers them; returns what it raised.
fn raise_limits() -> Vec<(&'static str, u64)> {
    let mut raised = Vec::new();
    for (limit, value) in SERSYNC2_LIMITS {
        let file = limit.file();
        match limit.raise(value) {
            Ok(true) => raised.push((file, value)),
            Ok(false) => {}
            Err(error) => eprintln!(
                "warning: cannot raise {file} to {value}: {error}; \
                 raise it on the host if the tree has very many directories"
            ),
        }
    }
    raised
}
