//! Creates three empty files on a remote to find out whether it can be written, how exact its times are, and how its
//! clock differs. Touches nothing else there, and always deletes the files.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use rustix::event::{Timespec, poll};

use crate::destination::Destination;
use crate::failure::FailureKind;
use crate::path::RelPath;
use crate::rsync::exit::Outcome;
use crate::rsync::options::RsyncOptions;
use crate::rsync::params::Params;
use crate::rsync::run::{Limits, Session};
use crate::rsync::{Abilities, Endpoint, Presence, RunKind, RunSpec, Way, input};

/// The stall limit of a run of the trial.
const STALL: Duration = Duration::from_secs(15);

/// How often, and after which pause, a busy remote is asked again.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The most output that is kept; the runs of a trial print far less.
const OUTPUT_MAX: usize = 1 << 20;

/// The nanoseconds of each file's time. Each needs a finer resolution than the one before; all are in an odd second.
const TIMES: [(&str, u32); 3] = [("a", 0), ("b", 123_456_700), ("c", 123_456_789)];

/// An odd second, because FAT keeps only even ones; long ago.
const SECOND: u64 = 1_600_000_001;

/// The resolution of a file system's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStep {
    /// Nanoseconds, as on Linux's own file systems.
    Nanoseconds,
    /// 100 nanoseconds, as NTFS.
    HundredNanoseconds,
    /// Seconds.
    Seconds,
    /// Two seconds, as FAT.
    TwoSeconds,
}

/// The files of one trial, in a local directory, and the endpoint that sends them.
pub struct Trial {
    endpoint: Endpoint,
    abilities: Abilities,
    names: Vec<RelPath>,
    pattern: String,
}

impl Trial {
    /// Creates the files in the empty directory in which `endpoint` starts its runs; `endpoint` comes from [`plain`].
    ///
    /// # Errors
    /// When they cannot be created here.
    pub fn new(endpoint: &Endpoint, abilities: Abilities) -> std::io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let stem = format!(".sersync-doctor-{:x}-{:x}", std::process::id(), now as u64);
        let mut names = Vec::new();
        for (end, nanoseconds) in TIMES {
            let name = format!("{stem}-{end}");
            let time = UNIX_EPOCH + Duration::new(SECOND, nanoseconds);
            File::create_new(endpoint.root().join(&name))?.set_modified(time)?;
            names.extend(RelPath::new(name.as_bytes()));
        }
        Ok(Self { endpoint: endpoint.clone(), abilities, names, pattern: format!("{stem}-*") })
    }

    /// The pattern of the files' names, for the operator.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Sends the files.
    ///
    /// # Errors
    /// A clause that says why they do not arrive.
    pub fn send(&self) -> Result<(), String> {
        let batch = RunKind::Batch { ignore_times: false };
        let mut spec = self.endpoint.plan(&batch, self.abilities);
        spec.insert(&["-t"]);
        run(&self.endpoint, &spec, &input::names(&self.names)).map(drop)
    }

    /// The resolution of the remote's times; `None` when it cannot be measured. If the remote compares whole seconds, only
    /// a resolution of two seconds can be recognised.
    pub fn granularity(&self) -> Option<TimeStep> {
        if !self.abilities.dry_run {
            return None;
        }
        let batch = RunKind::Batch { ignore_times: false };
        let mut spec = self.endpoint.plan(&batch, self.abilities);
        spec.insert(&["-t", "-n", "--out-format=%i %n"]);
        let said = run(&self.endpoint, &spec, &input::names(&self.names)).ok()?;
        let differs = |end: &str| said.lines().any(|line| line.ends_with(&format!("-{end}")));
        match (differs("a"), differs("b"), differs("c")) {
            (true, ..) => Some(TimeStep::TwoSeconds),
            _ if !self.abilities.nanoseconds => None,
            (_, true, _) => Some(TimeStep::Seconds),
            (_, _, true) => Some(TimeStep::HundredNanoseconds),
            _ => Some(TimeStep::Nanoseconds),
        }
    }

    /// How many seconds the remote's clock is ahead at least (negative: behind), by the time of its directory, which has
    /// just changed. `None` when the remote does not list it. `sent`: when the files were sent, by our clock.
    pub fn clock_difference(&self, sent: SystemTime) -> Option<i64> {
        let said = run(&self.endpoint, &self.endpoint.plan_listing(), b"").ok()?;
        let at = said.lines().find_map(listed_time)?;
        Some(difference(at, seconds(sent), seconds(SystemTime::now())))
    }

    /// Deletes the files on the remote, and only them.
    ///
    /// # Errors
    /// A clause that says why they cannot be deleted.
    pub fn remove(&self) -> Result<(), String> {
        for name in &self.names {
            // It may be gone already.
            _ = fs::remove_file(name.below(self.endpoint.root()));
        }
        let (kind, list) = match self.endpoint.way(Presence::Absent, self.abilities) {
            Way::Batch => (RunKind::Batch { ignore_times: false }, input::names(&self.names)),
            Way::Fallback | Way::ListingOfParent => {
                let gone = self.names.iter().map(|name| (name, Presence::Absent));
                (RunKind::Fallback { ignore_times: false }, input::patterns(gone))
            }
        };
        let spec = self.endpoint.plan(&kind, self.abilities);
        run(&self.endpoint, &spec, &list).map(drop)
    }
}

/// An endpoint whose runs start in `scratch`, with only those of the operator's options that affect the connection: none
/// of his filters and deletions apply.
pub fn plain(scratch: &Path, destination: &Destination, options: &RsyncOptions) -> Endpoint {
    let params = Params::connection_words(&options.params);
    let options = RsyncOptions { params, deletes: true, ..options.clone() };
    Endpoint::new(scratch, destination, &options)
}

/// Runs rsync; returns its standard output.
///
/// # Errors
/// Why not everything was done: a clause whose subject is the remote, or rsync's message.
pub fn run(endpoint: &Endpoint, spec: &RunSpec, input: &[u8]) -> Result<String, String> {
    patiently(|| {
        let session = Session::start(spec, None).map_err(|error| error.to_string())?;
        let report = session.feed(input, Limits { stall: STALL, output_max: OUTPUT_MAX });
        let outcome = report.judge(endpoint);
        let said = report.output.unwrap_or_default();
        Ok((String::from_utf8_lossy(&said).into_owned(), outcome))
    })
    .and_then(|(said, outcome)| match outcome {
        Outcome::Delivered => Ok(said),
        Outcome::Failed(failure) => Err(failure.reason),
        Outcome::Kept { reason } => Err(reason),
        Outcome::Partial { failed, .. } => {
            Err(failed.first().map_or_else(|| "a path failed".into(), |(_, why)| why.clone()))
        }
        Outcome::Refused { option, .. } => Err(format!("it refuses {option}")),
        Outcome::Stopped => Err("it was ended".into()),
    })
}

/// Retries while the daemon is busy: a daemon with few connections may still count a client that has just disconnected.
pub fn patiently<T, E>(
    mut run: impl FnMut() -> Result<(T, Outcome), E>,
) -> Result<(T, Outcome), E> {
    let mut tries = BUSY_TRIES;
    loop {
        let (said, outcome) = run()?;
        tries -= 1;
        let is_busy = matches!(&outcome, Outcome::Failed(it) if it.kind == FailureKind::Busy);
        if !is_busy || tries == 0 {
            return Ok((said, outcome));
        }
        // No event shows when the daemon stops counting its old client, so wait.
        _ = poll(&mut [], Some(&BUSY_PAUSE));
    }
}

/// The time in `drwxr-xr-x          4,096 2026/11/29 20:51:11 .`, which rsync prints in our time zone.
fn listed_time(line: &str) -> Option<i64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [.., date, time, "."] = words.as_slice() else { return None };
    let at = DateTime::strptime("%Y/%m/%d %H:%M:%S", format!("{date} {time}")).ok()?;
    Some(at.to_zoned(TimeZone::system()).ok()?.timestamp().as_second())
}

/// How many seconds `at` is before `from` or after `to`.
fn difference(at: i64, from: i64, to: i64) -> i64 {
    match at {
        at if at > to => at - to,
        at if at < from - 1 => at - from,
        _ => 0,
    }
}

fn seconds(time: SystemTime) -> i64 {
    Timestamp::try_from(time).map_or(0, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_may_be_right_is_right() {
        assert_eq!(difference(100, 100, 100), 0);
        assert_eq!(difference(99, 100, 102), 0, "it shows the second that has begun");
        assert_eq!(difference(3_702, 100, 102), 3_600);
        assert_eq!(difference(40, 100, 102), -60);
    }

    #[test]
    fn the_time_of_the_directory_itself_is_read() {
        let now = seconds(SystemTime::now());
        let local = Timestamp::from_second(now).unwrap().to_zoned(TimeZone::system());
        let line = format!("drwxr-xr-x          4,096 {} .", local.strftime("%Y/%m/%d %H:%M:%S"));
        assert_eq!(listed_time(&line), Some(now));
        assert_eq!(listed_time("-rw-r--r-- 0 2026/11/29 20:51:11 ab."), None);
    }

    #[test]
    fn nothing_of_the_operators_filters_or_deletions_takes_part() {
        let scratch = tempfile::tempdir().unwrap();
        let host = crate::destination::Host { user: None, name: "h".into(), port: None };
        let destination = Destination::Ssh { host, path: "/copy".into() };
        let params = ["-artuz", "--delete", "--exclude=x", "--rsync-path=/r", "-e", "ssh -p 1"];
        let params = params.map(str::to_owned).to_vec();
        let options = RsyncOptions { params, deletes: true, ..RsyncOptions::default() };
        let endpoint = plain(scratch.path(), &destination, &options);
        let trial = Trial::new(&endpoint, Abilities::ALL).unwrap();
        let kind = RunKind::Batch { ignore_times: false };
        let words = trial.endpoint.plan(&kind, Abilities::ALL).args;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert!(words.iter().any(|word| word == "--rsync-path=/r"), "{words:?}");
        assert!(words.iter().any(|word| word.starts_with("ssh -p 1")), "{words:?}");
        for word in ["-artuz", "--delete", "--exclude=x", "-r"] {
            assert!(!words.iter().any(|found| found == word), "{word} in {words:?}");
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3);
    }
}
