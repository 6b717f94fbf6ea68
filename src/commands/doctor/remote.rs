//! Examines one remote: name, connection, login, abilities, writing, connections, space.
//! A failed step ends the examination, because later steps would fail for the same reason.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::report::Finding;
use super::trial::{TimeStep, Trial, patiently, plain, run};
use super::{Deadline, DoctorArgs};
use crate::config::{MirrorConfig, Remote};
use crate::destination::Destination;
use crate::failure::{Failure, FailureKind};
use crate::ground::figures::duration;
use crate::rsync::exit::Outcome;
use crate::rsync::probe::{CopyState, Probed, run_full_probe};
use crate::rsync::run::{Limits, Session, StartError};
use crate::rsync::{Abilities, Endpoint, RunKind, input, read_greeting};

/// The stall limit of a dry run.
const STALL: Duration = Duration::from_secs(15);

/// How many connections are tried at once: as many as the mirror keeps ready for a remote at most.
const SESSIONS: usize = 4;

/// A smaller difference of the clocks is harmless.
const CLOCK_TOLERANCE_S: i64 = 2;

/// Tests for an ability; what its absence means; what to do about it.
type NeededAbility = (fn(Abilities) -> bool, &'static str, &'static str);

/// Abilities that matter only if deletions are on.
const NEEDED_TO_DELETE: &[NeededAbility] = &[
    (
        |it| it.delete,
        "it deletes nothing: what is deleted here stays there",
        "take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/>",
    ),
    (
        |it| it.delete_missing || !it.delete,
        "it cannot delete by name: each deletion reads its directory on both sides",
        "install a newer rsync there if many files are deleted in large directories",
    ),
];

/// Abilities that matter for every remote.
const NEEDED: &[NeededAbility] = &[
    (
        |it| it.nanoseconds,
        "it compares whole seconds: quick rewrites are compared by content",
        "install rsync 3.1.3 or newer there if large files are rewritten within a second",
    ),
    (
        |it| it.checksum,
        "it refuses to compare contents: such files are sent again as a whole",
        "take \"checksum\" out of \"refuse options\" in its rsyncd.conf",
    ),
    (
        |it| it.ignore_times,
        "it refuses --ignore-times: large files that are renamed are compared by content",
        "take \"ignore-times\" out of \"refuse options\" in its rsyncd.conf",
    ),
    (
        |it| it.force,
        "it refuses --force: replacing a directory by a file takes additional runs",
        "take \"force\" out of \"refuse options\" in its rsyncd.conf",
    ),
    (
        |it| it.dry_run,
        "it refuses --dry-run: the effect of a run cannot be checked in advance",
        "take \"dry-run\" out of \"refuse options\" in its rsyncd.conf",
    ),
    (
        |it| it.moves,
        "it refuses --link-dest, --copy-dest, --fuzzy or --secluded-args: renamed files are sent again",
        "take them out of \"refuse options\" in its rsyncd.conf",
    ),
    (
        |it| it.relative,
        "it refuses --relative: each change reads its directory on both sides",
        "take \"relative\" out of \"refuse options\" in its rsyncd.conf",
    ),
];

/// A warning for each missing ability.
fn missing(rows: &'static [NeededAbility], abilities: Abilities) -> impl Iterator<Item = Finding> {
    let rows = rows.iter().filter(move |(has, ..)| !has(abilities));
    rows.map(|(_, means, advice)| Finding::warning("abilities", *means, *advice))
}

/// Examines one remote.
pub fn examine(args: &DoctorArgs, mirror: &MirrorConfig, remote: &Remote) -> Vec<Finding> {
    let mut examination = Examination {
        endpoint: Endpoint::new(&mirror.watch, &remote.destination, &remote.options),
        deadline: Deadline::after(args.timeout),
        read_only: args.read_only,
        found: Vec::new(),
    };
    examination.run(remote);
    examination.found
}

struct Examination {
    endpoint: Endpoint,
    deadline: Deadline,
    read_only: bool,
    found: Vec<Finding>,
}

impl Examination {
    fn run(&mut self, remote: &Remote) {
        let is_reached = match &remote.destination {
            Destination::Local { path } => self.look_at_directory(path),
            _ => self.reach(),
        };
        if !is_reached {
            return;
        }
        let scratch = match tempfile::Builder::new().prefix("sersync-doctor-").tempdir() {
            Ok(scratch) => scratch,
            Err(error) => {
                let text = format!("no directory can be made for the trial: {error}");
                self.found.push(Finding::error("login", text, "set TMPDIR"));
                return;
            }
        };
        let plain = plain(scratch.path(), &remote.destination, &remote.options);
        let copy = copy_of(&plain);
        let Some(abilities) = self.log_in(scratch.path(), copy) else { return };
        self.tell_abilities(abilities);
        if self.has_time() {
            self.write(&plain, copy, abilities);
        }
        if self.has_time() && !matches!(remote.destination, Destination::Local { .. }) {
            self.count_connections(&plain, copy, abilities);
        }
        self.tell_space(&remote.destination);
    }

    /// False, with a finding, when the deadline has passed.
    fn has_time(&mut self) -> bool {
        let is_over = self.deadline.has_passed();
        if is_over {
            let text = "it answers too slowly: the rest was not examined";
            let advice = "look at the network and its load, or allow more with --timeout";
            self.found.push(Finding::warning("time", text, advice));
        }
        !is_over
    }

    fn look_at_directory(&mut self, path: &Path) -> bool {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return true,
            Ok(_) => self.found.push(Finding::error(
                "directory",
                format!("{} is not a directory", path.display()),
                "name a directory",
            )),
            Err(error) => self.found.push(Finding::error(
                "directory",
                format!("{}: {error}", path.display()),
                "create it, or mount it",
            )),
        }
        false
    }

    /// Checks the name and the port, if rsync connects directly.
    fn reach(&mut self) -> bool {
        let Some((name, port)) = self.endpoint.direct_connection() else {
            let text = "ssh, a proxy or an option of <commonParams> decides how it is reached";
            self.found.push(Finding::unknown("port", text, ""));
            return true;
        };
        let addresses: Vec<_> = match (name, port).to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let error = error.to_string();
                let words = error.rsplit_once(": ").map_or(error.as_str(), |(_, words)| words);
                let text = format!("{name} cannot be resolved: {words}");
                let advice = "correct the remote's ip, or this machine's name service";
                self.found.push(Finding::error("name", text, advice));
                return false;
            }
        };
        let shown: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
        self.found.push(Finding::ok("name", format!("{name} is {}", shown.join(", "))));
        let mut last = None;
        for address in addresses {
            match read_greeting(address) {
                Ok(greeting) if greeting.line.starts_with("@RSYNCD:") => {
                    self.found.push(Finding::ok("port", format!("{address} greets")));
                    let trip = greeting.round_trip.as_secs_f64() * 1e3;
                    self.found.push(Finding::ok("round trip", format!("{trip:.1} ms")));
                    self.found.push(version_of(&greeting.line));
                    return true;
                }
                Ok(greeting) => {
                    let said: String = greeting.line.chars().filter(|c| !c.is_control()).collect();
                    let said = if said.is_empty() { "nothing".into() } else { format!("{said:?}") };
                    last = Some(format!("{address} is not an rsync daemon: it says {said}"));
                }
                Err(failure) => last = Some(failure.reason),
            }
        }
        let text = last.unwrap_or_else(|| format!("{name} has no address"));
        let advice = "start the rsync daemon there, open the port in the firewalls in between, or correct <userDefinedPort>";
        self.found.push(Finding::error("port", text, advice));
        false
    }

    /// Logs in with the operator's options, as the mirror does.
    fn log_in(&mut self, scratch: &Path, copy: CopyState) -> Option<Abilities> {
        // The watch path may not exist yet; the machine's findings say so.
        let endpoint = if self.endpoint.root().is_dir() {
            self.endpoint.clone()
        } else {
            self.endpoint.clone().started_in(scratch)
        };
        let asked = patiently(|| {
            Ok::<_, StartError>(match run_full_probe(&endpoint, copy, nonce())? {
                Probed::Able(abilities) => (Some(abilities), Outcome::Delivered),
                Probed::Failed(outcome) => (None, outcome),
            })
        });
        let failure = match asked {
            Ok((Some(abilities), _)) => {
                self.found.push(Finding::ok("login", welcome(endpoint.destination())));
                return Some(abilities);
            }
            Ok((None, Outcome::Failed(failure))) => failure,
            Ok((None, other)) => {
                Failure::new(FailureKind::Away, 0, format!("its answer is {other:?}"))
            }
            Err(error) => Failure::new(FailureKind::Shortage, 0, error.to_string()),
        };
        self.found.push(refusal(&failure));
        None
    }

    fn tell_abilities(&mut self, abilities: Abilities) {
        let mut lacks = Vec::new();
        if self.endpoint.deletes() {
            lacks.extend(missing(NEEDED_TO_DELETE, abilities));
        }
        lacks.extend(missing(NEEDED, abilities));
        if lacks.is_empty() {
            self.found.push(Finding::ok("abilities", "it can do all that the mirror uses"));
        }
        self.found.extend(lacks);
    }

    /// Writes files, reads their times and deletes them.
    fn write(&mut self, plain: &Endpoint, copy: CopyState, abilities: Abilities) {
        let is_sure = abilities.delete && abilities.dry_run;
        if self.read_only || !is_sure || copy == CopyState::Missing {
            self.found.push(self.untried(abilities));
            return;
        }
        let trial = match Trial::new(plain, abilities) {
            Ok(trial) => trial,
            Err(error) => {
                let text = format!("no files can be made for the trial: {error}");
                self.found.push(Finding::error("writable", text, "set TMPDIR"));
                return;
            }
        };
        let sent = SystemTime::now();
        let outcome = trial.send();
        if outcome.is_ok() {
            self.found.extend([
                granularity_of(trial.granularity()),
                clock_of(trial.clock_difference(sent)),
            ]);
        }
        let removed = trial.remove();
        let place = plain.destination().to_string();
        self.found.push(match (outcome, removed) {
            (Ok(()), Ok(())) => Finding::ok(
                "writable",
                format!("{} were made there and deleted again", trial.pattern()),
            ),
            (Ok(()), Err(reason)) => Finding::error(
                "writable",
                format!("{} were made there and cannot be deleted: {reason}", trial.pattern()),
                format!("delete them in {place}, and let the daemon's user delete there"),
            ),
            (Err(reason), _) => Finding::error(
                "writable",
                format!("nothing can be written there: {reason}"),
                "let the daemon's user (\"uid\" in its rsyncd.conf, or the ssh user) write into that directory",
            ),
        });
    }

    fn untried(&self, abilities: Abilities) -> Finding {
        let (text, advice) = if self.read_only {
            ("not tried, as --read-only says", "")
        } else if !abilities.dry_run {
            (
                "not tried: it refuses --dry-run, so it is unknown whether files of a trial could be deleted again",
                "",
            )
        } else if !abilities.delete {
            ("not tried: it refuses deletions, so files of a trial would stay there", "")
        } else {
            let text = "not tried: the directory is not there yet; the first full sync makes it";
            (text, "create it there if it should be on a file system of its own")
        };
        Finding::unknown("writable", text, advice)
    }

    /// Connects several sessions, as the mirror does, and counts those that succeed.
    fn count_connections(&mut self, plain: &Endpoint, copy: CopyState, abilities: Abilities) {
        let mut spec = plain.plan(&RunKind::Probe, abilities);
        if abilities.dry_run {
            spec.insert(&["-n"]);
        } else if copy == CopyState::Missing {
            return;
        }
        let sessions: Vec<_> =
            (0..SESSIONS).filter_map(|_| Session::start(&spec, None).ok()).collect();
        let limits = Limits { stall: STALL, output_max: 0 };
        let ask = |session: Session| session.feed(&input::probe(nonce()), limits).judge(plain);
        // A session ends with its answer. So ask the last one first, while the others stay connected.
        let outcomes: Vec<Outcome> = sessions.into_iter().rev().map(ask).collect();
        let served = outcomes.iter().filter(|it| !matches!(it, Outcome::Failed(_))).count();
        let refused = outcomes.iter().find_map(|it| match it {
            Outcome::Failed(failure) => Some(sentence(failure)),
            _ => None,
        });
        self.found.push(match refused {
            None => Finding::ok(
                "connections",
                format!("{SESSIONS} at once are served; more were not tried"),
            ),
            Some(reason) => Finding::warning(
                "connections",
                format!("{served} of {SESSIONS} connections at once were served, one was not: {reason}"),
                "allow as many as -n says (10) and 2 more: \"max connections\" in its rsyncd.conf, MaxStartups of its sshd",
            ),
        });
    }

    fn tell_space(&mut self, destination: &Destination) {
        let finding = match destination {
            Destination::Local { path } => super::machine::space_in("space", path),
            Destination::Ssh { host, path } => Finding::unknown(
                "space",
                "rsync does not report it",
                format!("ssh {host} df -h {}", if path.is_empty() { "." } else { path }),
            ),
            Destination::Daemon { .. } => {
                Finding::unknown("space", "rsync's protocol does not report it", "run df -h there")
            }
        };
        self.found.push(finding);
    }
}

/// Whether the remote's directory exists. Asks with a dry run, because a real one would create it.
fn copy_of(plain: &Endpoint) -> CopyState {
    if plain.destination().directory().is_empty() {
        return CopyState::There;
    }
    match run(plain, &plain.plan_listing(), b"") {
        Err(reason) if reason.contains("No such file or directory") => CopyState::Missing,
        _ => CopyState::There,
    }
}

fn welcome(destination: &Destination) -> String {
    match destination {
        Destination::Daemon { module, .. } => {
            format!("module {module} lets {} in", destination.user().unwrap_or("us"))
        }
        Destination::Ssh { .. } => "ssh lets us in, and rsync answers".into(),
        Destination::Local { path } => format!("{} is here", path.display()),
    }
}

fn nonce() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
}

fn refusal(failure: &Failure) -> Finding {
    Finding::error("login", sentence(failure), failure.what_to_do())
}

fn sentence(failure: &Failure) -> String {
    match failure.kind {
        // The subject of these reasons is the remote.
        FailureKind::Denied | FailureKind::Busy => format!("the remote {}", failure.reason),
        _ => failure.reason.clone(),
    }
}

/// Judges the age of the daemon's rsync by its protocol version.
fn version_of(greeting: &str) -> Finding {
    let version = greeting.trim_start_matches("@RSYNCD:").split_whitespace().next().unwrap_or("");
    let protocol: u32 = version.split('.').next().and_then(|it| it.parse().ok()).unwrap_or(0);
    let (rsync, is_old) = match protocol {
        32.. => ("rsync 3.4 or newer", false),
        31 => ("rsync 3.1 to 3.3", false),
        30 => ("rsync 3.0", true),
        _ => ("rsync 2.6 or older", true),
    };
    let text = format!("{rsync} (protocol {protocol})");
    if is_old {
        let advice = "install rsync 3.1.3 or newer there: deletions and quick rewrites cost more with this version";
        Finding::warning("rsync", text, advice)
    } else {
        Finding::ok("rsync", text)
    }
}

fn granularity_of(granularity: Option<TimeStep>) -> Finding {
    match granularity {
        Some(TimeStep::Nanoseconds) => Finding::ok("times", "kept to the nanosecond"),
        Some(TimeStep::HundredNanoseconds) => Finding::warning(
            "times",
            "kept to 100 nanoseconds: every file looks changed and is compared again",
            "add --modify-window=1 to <commonParams>",
        ),
        Some(TimeStep::Seconds) => Finding::warning(
            "times",
            "kept to the second: with nanoseconds here, files look changed and are compared again",
            "add --modify-window=0 to <commonParams>; quick rewrites are then compared by content",
        ),
        Some(TimeStep::TwoSeconds) => Finding::warning(
            "times",
            "kept to two seconds, as on FAT: files look changed and are compared again",
            "add --modify-window=1 to <commonParams>",
        ),
        None => Finding::unknown(
            "times",
            "the remote cannot compare finer than whole seconds, so how exact it keeps them is unknown",
            "",
        ),
    }
}

fn clock_of(difference_s: Option<i64>) -> Finding {
    match difference_s {
        None => Finding::unknown(
            "clock",
            "the remote does not list its files",
            "compare the output of date on both sides",
        ),
        Some(by) if by.abs() <= CLOCK_TOLERANCE_S => {
            Finding::ok("clock", "equal to this machine's by the second")
        }
        Some(by) => {
            let side = if by > 0 { "ahead of" } else { "behind" };
            Finding::warning(
                "clock",
                format!("{} {side} this machine's", duration(by.unsigned_abs())),
                "switch on NTP on both sides: -u and what other programs write there compare times",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::FindingLevel;
    use super::*;

    #[test]
    fn the_greeting_tells_how_old_a_daemon_is() {
        let verdict = |line| version_of(line).verdict;
        assert_eq!(verdict("@RSYNCD: 32.0 sha512 md5"), FindingLevel::Ok);
        assert_eq!(verdict("@RSYNCD: 31.0"), FindingLevel::Ok);
        assert_eq!(verdict("@RSYNCD: 30.0"), FindingLevel::Warning);
        assert!(version_of("@RSYNCD: 29").text.contains("2.6"));
    }

    #[test]
    fn what_is_lacking_is_said_with_what_it_means() {
        let lacking = |abilities: Abilities| {
            let all = missing(NEEDED_TO_DELETE, abilities).chain(missing(NEEDED, abilities));
            all.map(|it| it.text).collect::<Vec<_>>()
        };
        assert!(lacking(Abilities::ALL).is_empty());
        let none = lacking(Abilities::NONE);
        assert!(none.len() == 2 && none[1].contains("whole seconds"), "{none:?}");
        let refuses = Abilities { delete: false, delete_missing: false, ..Abilities::ALL };
        assert_eq!(lacking(refuses), ["it deletes nothing: what is deleted here stays there"]);
        assert_eq!(
            missing(NEEDED, refuses).count(),
            0,
            "where nothing is deleted, nothing is lacking"
        );
        let patterns = Abilities { relative: false, ..Abilities::ALL };
        assert!(lacking(patterns)[0].contains("--relative"), "{:?}", lacking(patterns));
    }

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off() {
        assert_eq!(clock_of(Some(-2)).verdict, FindingLevel::Ok);
        assert!(clock_of(Some(7_200)).text.contains("2 h 0 min ahead of"));
        assert!(clock_of(Some(-60)).text.contains("1 min behind"));
        assert_eq!(clock_of(None).verdict, FindingLevel::Unknown);
    }
}
