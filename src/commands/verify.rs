//! `sersync2 verify`: compares the copies with the tree and prints what differs. Changes nothing without `--repair`.
//! Needs no running instance: rsync compares, with the configuration's options.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use super::instance::{NOT_RUNNING, parse};
use crate::config::{self, Config, MirrorConfig, Remote, preflight};
use crate::destination::Destination;
use crate::failure::FailureKind;
use crate::filter::Filter;
use crate::ground::absolute::absolute;
use crate::ground::counted;
use crate::path::RelPath;
use crate::rsync::differences::{
    Aspect, Comparison, Difference, Effect, Verification, read_differences,
};
use crate::rsync::excludes::Excludes;
use crate::rsync::exit::Outcome;
use crate::rsync::run::{Limits, Session};
use crate::rsync::{Endpoint, Presence};

/// The most output of a comparison that is kept, in bytes.
const OUTPUT_MAX: usize = 256 << 20;

/// The least stall limit: a comparison may read for a long time before it prints anything.
const STALL_MIN: Duration = Duration::from_secs(600);

/// How many deletions `--repair` makes without `--confirm-deletions`; its help names the number.
const DELETIONS_MAX: usize = 1_000;

/// Exit code: a remote could not be compared or repaired.
const NOT_COMPARED: u8 = 2;

/// Compare the copies with the tree; print what differs, and in what respect.
///
/// Works with and without a running instance. May list a change that is just being delivered: run it again, or run `sersync2 flush`
/// first. Exit code: 0 equal (or repaired); 1 something differs; 2 a remote could not be compared or repaired; 3 the configuration
/// cannot be used; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "sersync2 verify", bin_name = "sersync2 verify")]
pub struct VerifyArgs {
    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    config: PathBuf,

    /// Only this remote, as `sersync2 status` shows it
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,

    /// Compare the bytes of all files, not only size and time: reads everything on both sides
    #[arg(long)]
    checksum: bool,

    /// Make the copies equal to the tree; refused if more than 1,000 paths would be deleted
    #[arg(long)]
    repair: bool,

    /// With --repair: allow any number of deletions
    #[arg(long, requires = "repair")]
    confirm_deletions: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Only this file or directory, with everything below it
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

/// The result for one remote.
struct Compared {
    root: PathBuf,
    remote: String,
    result: Result<Vec<Difference>, Undone>,
}

/// What could not be done for a remote, and why.
enum Undone {
    Comparison(String),
    Repair(String),
}

impl Undone {
    fn words(&self) -> &'static str {
        match self {
            Self::Comparison(_) => "NOT COMPARED",
            Self::Repair(_) => "NOT REPAIRED",
        }
    }

    fn reason(&self) -> &str {
        let (Self::Comparison(reason) | Self::Repair(reason)) = self;
        reason
    }
}

impl Compared {
    fn exit_code(&self, is_repaired: bool) -> u8 {
        match &self.result {
            Err(_) => NOT_COMPARED,
            Ok(differences) => u8::from(!differences.is_empty() && !is_repaired),
        }
    }
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: VerifyArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match compare_all(&args) {
        Ok(compared) => {
            print!(
                "{}",
                if args.json { json_of(&args, &compared) } else { text_of(&args, &compared) }
            );
            let codes = compared.iter().map(|it| it.exit_code(args.repair));
            ExitCode::from(codes.max().unwrap_or(0))
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(NOT_RUNNING)
        }
    }
}

fn compare_all(args: &VerifyArgs) -> Result<Vec<Compared>, String> {
    let options = config::LoadOptions {
        read_list: Some(crate::remote_list::read),
        ..config::LoadOptions::default()
    };
    let config = config::load(&args.config, &options).map_err(|error| error.to_string())?.config;
    let filter = Filter::new(&config.filter).map_err(|error| error.to_string())?;
    let path = args.path.as_deref().map(absolute);
    let mut compared = Vec::new();
    for mirror in &config.mirrors {
        let below = match &path {
            None => Some(RelPath::root()),
            Some(path) => below_root(&mirror.watch, path),
        };
        let Some(below) = below else { continue };
        for remote in &mirror.remotes {
            let endpoint = endpoint_of(mirror, remote);
            let name = endpoint.destination().to_string();
            if args.remote.as_ref().is_none_or(|wanted| *wanted == name) {
                let usable = usable(args, mirror, remote).map_err(Undone::Comparison);
                let result = usable.and_then(|()| compare(args, &endpoint, &filter, &below));
                compared.push(Compared { root: mirror.watch.clone(), remote: name, result });
            }
        }
    }
    if compared.is_empty() { Err(nothing_meant(args, &config)) } else { Ok(compared) }
}

fn endpoint_of(mirror: &MirrorConfig, remote: &Remote) -> Endpoint {
    Endpoint::new(&mirror.watch, &remote.destination, &remote.options)
}

/// A directory of this machine must be there, and mounted: otherwise a repair would fill the disk beneath its mount point.
fn usable(args: &VerifyArgs, mirror: &MirrorConfig, remote: &Remote) -> Result<(), String> {
    let Destination::Local { path } = &remote.destination else { return Ok(()) };
    let looked = preflight::look_at_local(path, &mirror.watch);
    let looked =
        if args.repair { looked.and_then(|()| preflight::may_write(path)) } else { looked };
    looked.map_err(|(sentence, help)| format!("{sentence}; {help}"))
}

fn nothing_meant(args: &VerifyArgs, config: &Config) -> String {
    let remotes = config.mirrors.iter().flat_map(|mirror| &mirror.remotes);
    let remotes: Vec<String> = remotes.map(|remote| remote.destination.to_string()).collect();
    let roots: Vec<String> =
        config.mirrors.iter().map(|mirror| mirror.watch.display().to_string()).collect();
    format!(
        "{}: no remote is meant; the watch paths are {}, the remotes {}",
        args.config.display(),
        roots.join(", "),
        remotes.join(", ")
    )
}

fn below_root(root: &Path, path: &Path) -> Option<RelPath> {
    let below = path.strip_prefix(root).ok()?;
    let names: Vec<&[u8]> = below.iter().map(OsStr::as_bytes).collect();
    RelPath::new(&names.join(&b'/'))
}

/// Compares one remote, and repairs it if that is requested and safe; returns the differences that were found.
fn compare(
    args: &VerifyArgs,
    endpoint: &Endpoint,
    filter: &Filter,
    path: &RelPath,
) -> Result<Vec<Difference>, Undone> {
    let comparison = if args.checksum { Comparison::Checksum } else { Comparison::Quick };
    let tells = Verification { comparison, effect: Effect::Nothing };
    let found = run_verification(endpoint, filter, path, tells).map_err(Undone::Comparison)?;
    if args.repair && !found.is_empty() {
        let is_gone = |it: &&Difference| it.aspects.contains(&Aspect::Extraneous);
        let gone = found.iter().filter(is_gone).count();
        let here = path.below(endpoint.root());
        let is_doubtful = || {
            is_empty(endpoint.root())
                || here.is_dir() && is_empty(&here)
                || preflight::unmounted_around(&here).is_some()
        };
        if !args.confirm_deletions && (gone > DELETIONS_MAX || gone > 0 && is_doubtful()) {
            return Err(Undone::Repair(format!(
                "{} would be deleted there: is {} what it should be? If so, add --confirm-deletions",
                counted::paths(gone as u64),
                here.display()
            )));
        }
        let repairs = Verification { comparison, effect: Effect::Repair };
        run_verification(endpoint, filter, path, repairs).map_err(Undone::Repair)?;
    }
    Ok(found)
}

/// True for a directory that is empty, as a mount point is without its file system, or that cannot be read.
fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

fn run_verification(
    endpoint: &Endpoint,
    filter: &Filter,
    path: &RelPath,
    verification: Verification,
) -> Result<Vec<Difference>, String> {
    let presence = Presence::of(&path.below(endpoint.root()));
    let translation = filter.to_rsync_patterns();
    let is_exact = translation.exact();
    let excludes = Excludes { kept: translation.patterns, perishable: translation.perishable };
    if verification.effect == Effect::Repair && !is_exact {
        let message = "an expression of <filter> cannot be said to rsync, so a repair by hand would send what it \
                       excludes: start the mirror and run `sersync2 sync-now`";
        return Err(message.into());
    }
    let spec = endpoint.plan_verification(path, presence, &excludes, verification);
    let session = Session::start(&spec, None).map_err(|error| error.to_string())?;
    let stall = Duration::from_secs(u64::from(endpoint.timeout_s())).max(STALL_MIN);
    let report = session.feed(b"", Limits { stall, output_max: OUTPUT_MAX });
    match report.judge(endpoint) {
        Outcome::Delivered => {}
        Outcome::Partial { failed, .. } => {
            let first =
                failed.first().map_or_else(String::new, |(path, why)| format!("{path}: {why}"));
            let done = match verification.effect {
                Effect::Nothing => "compared",
                Effect::Repair => "repaired",
            };
            return Err(format!("not everything could be {done}: {first}"));
        }
        Outcome::Failed(failure) if failure.kind == FailureKind::Denied => {
            return Err(format!("the remote {}", failure.clause()));
        }
        Outcome::Failed(failure) => return Err(failure.clause()),
        Outcome::Kept { reason } => return Err(reason),
        other => return Err(format!("rsync could not compare it: {other:?}")),
    }
    let output =
        report.output.ok_or("more differs than can be listed: compare a part with PATH")?;
    let mut found = read_differences(&output);
    // Drop the directories above the path, which rsync lists too, and paths that rsync's filter could not exclude.
    found.retain(|it| it.path.is_within(path));
    found.retain(|it| it.path.is_root() || !filter.excludes(&it.path, it.is_directory));
    Ok(found)
}

fn text_of(args: &VerifyArgs, all: &[Compared]) -> String {
    let mut text = String::new();
    for compared in all {
        text += &format!("{} -> {}: ", compared.root.display(), compared.remote);
        match &compared.result {
            Err(undone) => text += &format!("{}: {}\n", undone.words(), undone.reason()),
            Ok(differences) if differences.is_empty() => text += "equal\n",
            Ok(differences) => {
                let done = if args.repair { "repaired: " } else { "" };
                text += &format!("{done}{}\n", summary(differences));
                for difference in differences {
                    text += &format!("  {:<14} {}\n", words(difference).join(","), difference.path);
                }
            }
        }
    }
    text
}

fn words(difference: &Difference) -> Vec<&'static str> {
    difference.aspects.iter().map(|aspect| aspect.word()).collect()
}

/// `3 paths differ (1 missing, 2 content)`.
fn summary(differences: &[Difference]) -> String {
    let mut counts: BTreeMap<Aspect, usize> = BTreeMap::new();
    for aspect in differences.iter().flat_map(|difference| &difference.aspects) {
        *counts.entry(*aspect).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(aspect, count)| format!("{count} {}", aspect.word())).collect();
    let paths = if differences.len() == 1 {
        "1 path differs".into()
    } else {
        format!("{} paths differ", differences.len())
    };
    format!("{paths} ({})", counts.join(", "))
}

fn json_of(args: &VerifyArgs, all: &[Compared]) -> String {
    let remotes: Vec<Value> = all
        .iter()
        .map(|compared| {
            let mut value = json!({
                "root": compared.root.display().to_string(),
                "remote": compared.remote,
            });
            match &compared.result {
                Err(undone) => value["error"] = undone.reason().into(),
                Ok(differences) => {
                    let each = differences
                        .iter()
                        .map(|it| json!({ "path": it.path.to_string(), "differs_in": words(it) }));
                    value["differences"] = each.collect();
                    value["repaired"] = args.repair.into();
                }
            }
            value
        })
        .collect();
    format!("{:#}\n", json!({ "remotes": remotes }))
}
