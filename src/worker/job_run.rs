//! One job as rsync runs: which names go in which kind of run, and what failed on the way.
//! Does not start anything itself; the sessions do.

mod directories;
mod exact;
mod names;
mod sparing;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::delivered::{Delivered, Version};
use super::fresh::{FreshStamps, Granularity, coarse_now};
use super::look::{Look, Present};
use super::moves::{Move, Moved, Mover};
use super::remote::{Remote, Stop};
use super::rules::Rules;
use crate::engine::pending::Item;
use crate::engine::{Job, PathFailure};
use crate::path::RelPath;
use crate::rsync::exit::Outcome;
use crate::rsync::{Abilities, Answer, Presence, RunKind, Way, input};
use crate::source::Unhealthy;
use names::by_name;

/// rsync's exit code for "partial transfer due to error".
const PARTIAL: i32 = 23;

/// Why a name is not deleted on a remote whose rules only whole directories can serve.
const WITHHELD: &str = "not deleted while deletions are held back (see the alarm in the log)";

/// A file younger than this was made after anything that it replaces.
const YOUNG: Duration = Duration::from_secs(2);

/// Names in one run by patterns: rsync tries every pattern on every entry of the directories that it reads.
const PATTERNS_MAX: usize = 1_000;

/// One job under way.
pub struct JobRun<'a> {
    remote: &'a Remote,
    abilities: Abilities,
    /// Trees that may have taken another's place: equal size and time prove nothing there.
    pub by_content: HashSet<RelPath>,
    /// What could not be delivered so far.
    pub failed: Vec<PathFailure>,
    /// What was sent, as it was before.
    pub sent: Vec<(RelPath, Version)>,
    /// What has to be done by another job.
    pub returned: Vec<Item>,
    /// The remote has answered a run.
    pub has_run: bool,
    /// What is extraneous in whole directories is deleted.
    pub deletes_below: bool,
    /// A run was broken off, and another one has done its work.
    pub aborted: bool,
    /// The last run deleted nothing, because it could not read all of the source.
    deletions_skipped: bool,
}

/// What a present entry needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Treatment {
    /// Nothing: the remote has got exactly this.
    Skip,
    /// rsync decides by size and time.
    Send,
    /// rsync must not trust size and time.
    Force,
    /// The same, and `-u` must not keep a newer copy: it is what was replaced here.
    Replace,
}

impl<'a> JobRun<'a> {
    /// Nothing has run yet.
    pub fn new(remote: &'a Remote, abilities: Abilities, job: &Job) -> Self {
        Self {
            remote,
            abilities,
            by_content: HashSet::new(),
            failed: Vec::new(),
            sent: Vec::new(),
            returned: Vec::new(),
            has_run: false,
            deletes_below: job.deletes_below,
            aborted: false,
            deletions_skipped: false,
        }
    }

    /// Sends what is there and deletes what is gone, each in the way that the remote understands.
    pub fn batch(&mut self, look: &Look) -> Result<(), Stop> {
        let endpoint = self.remote.endpoint();
        let treatments = self.treatments(look);
        let (mut listed, mut forced_listed, mut replacing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut matched, mut guarded) = (Vec::new(), Vec::new());
        let mut any_forced_match = false;
        let present = look.present.iter().zip(treatments);
        let present = present.filter(|(_, treatment)| *treatment != Treatment::Skip);
        let present = present.map(|(entry, treatment)| (&entry.path, entry.presence, treatment));
        let absent = look.absent.iter().map(|path| (path, Presence::Absent, Treatment::Send));
        for (path, presence, treatment) in present.chain(absent) {
            let compare_content = treatment > Treatment::Send;
            if presence == Presence::Absent && self.is_guarded(path, look) {
                guarded.push(path);
                continue;
            }
            match endpoint.way(presence, self.abilities) {
                Way::Batch if treatment == Treatment::Replace => replacing.push(path),
                Way::Batch if compare_content => forced_listed.push(path),
                Way::Batch => listed.push(path),
                Way::Fallback => {
                    any_forced_match |= compare_content;
                    matched.push((path, presence));
                }
                Way::ListingOfParent if self.deletes_below => self.give_back_parent(path),
                Way::ListingOfParent => self.failed.push(fail(path, WITHHELD.into())),
            }
        }
        let lists = [
            (listed, RunKind::Batch { ignore_times: false }),
            (forced_listed, RunKind::Batch { ignore_times: true }),
            (replacing, RunKind::Replacement),
        ];
        for (names, kind) in lists {
            if !names.is_empty() {
                let (kind, input) = by_name(kind, &names);
                self.run(&kind, input, &names)?;
            }
        }
        // Such runs are rare, so what need not be forced may go along with what must.
        let kind = RunKind::Fallback { ignore_times: any_forced_match };
        for matched in matched.chunks(PATTERNS_MAX) {
            let by_patterns = |run: &mut Self, matched: &[(&RelPath, Presence)]| {
                let names: Vec<&RelPath> = matched.iter().map(|(path, _)| *path).collect();
                run.run(&kind, input::patterns(matched.iter().copied()), &names)
            };
            self.sparing(matched, |(path, _)| path, by_patterns)?;
        }
        for absent in guarded.chunks(PATTERNS_MAX) {
            self.delete_guarded(absent)?;
        }
        Ok(())
    }

    /// True for a directory in whose copy something excluded may stand.
    fn is_guarded(&self, absent: &RelPath, look: &Look) -> bool {
        self.deletes()
            && self.rules().may_outlive_directories()
            && look.absent_dirs.contains(absent)
            && self.remote.endpoint().way(Presence::Absent, self.abilities) != Way::ListingOfParent
    }

    /// What each present entry needs. Settled versions are noted, for the case that all goes well.
    fn treatments(&mut self, look: &Look) -> Vec<Treatment> {
        let exact = self.remote.endpoint().compares_nanoseconds(self.abilities);
        let granularity = if exact { Granularity::Nanoseconds } else { Granularity::Seconds };
        let now = coarse_now();
        let mut fresh = self.remote.fresh();
        let delivered = self.remote.delivered();
        let mut treat = |entry: &Present| {
            let Some(version) = entry.version else {
                return if entry.compare_content { Treatment::Force } else { Treatment::Send };
            };
            let replaced = entry.moved.is_some() && !is_new(version, exact, now);
            let replaces = self.replaces(entry, replaced, &fresh, &delivered);
            // What is newer there stays remembered until this has arrived; contents are compared anyway.
            let hidden = !replaces && fresh.note(&entry.path, version.stamp, now, granularity);
            let is_trusted = !hidden && !entry.compare_content && !entry.recheck;
            if is_trusted && delivered.has(&entry.path, &version) {
                return Treatment::Skip;
            }
            if version.is_settled(now) {
                self.sent.push((entry.path.clone(), version));
            }
            if replaces {
                return Treatment::Replace;
            }
            if hidden || replaced || entry.compare_content {
                Treatment::Force
            } else {
                Treatment::Send
            }
        };
        look.present.iter().map(&mut treat).collect()
    }

    /// True when `-u` must not keep the copy of an entry, though it may be newer: a file that is older than what we have sent,
    /// or that somebody moved here, is meant to be here.
    fn replaces(
        &self,
        entry: &Present,
        replaced: bool,
        fresh: &FreshStamps,
        delivered: &Delivered,
    ) -> bool {
        let Some(version) = entry.version else { return false };
        let older = replaced && entry.moved == Some(Mover::Somebody)
            || fresh.has_newer(&entry.path, version.stamp)
            || delivered.has_newer(&entry.path, &version);
        self.remote.endpoint().keeps_newer() && older && entry.moved != Some(Mover::Receiver)
    }

    /// What is sent whatever the remote has.
    pub fn replacements(&self, look: &Look) -> HashSet<RelPath> {
        let exact = self.remote.endpoint().compares_nanoseconds(self.abilities);
        let now = coarse_now();
        let (fresh, delivered) = (self.remote.fresh(), self.remote.delivered());
        let replaces = |entry: &&Present| {
            let is_new = entry.version.is_some_and(|version| is_new(version, exact, now));
            self.replaces(entry, entry.moved.is_some() && !is_new, &fresh, &delivered)
        };
        look.present.iter().filter(replaces).map(|entry| entry.path.clone()).collect()
    }

    /// Makes moved things from their old copies.
    pub fn moves(&mut self, moves: &[Move]) -> Result<(), Stop> {
        for Move { new, old, what } in moves {
            let (old, new) = (old.clone(), new.clone());
            let names = [&new.clone()];
            match what {
                Moved::File(_) => {
                    let input = input::moved_file(&old, &new);
                    self.run(&RunKind::MoveFile { old, new }, input, &names)?;
                }
                Moved::Directory => {
                    let rules = self.rules().patterns.rules();
                    let checksum = self.by_content.contains(&new);
                    let kind = RunKind::MoveDirectory { old, new, checksum };
                    let by_move =
                        |run: &mut Self, _: &[&RelPath]| run.run(&kind, rules.clone(), &names);
                    self.sparing(&names, |new| new, by_move)?;
                }
            }
        }
        Ok(())
    }

    /// What is not mirrored.
    pub fn rules(&self) -> &'a Rules {
        self.remote.rules()
    }

    /// False when nothing is ever deleted on the remote.
    pub fn deletes(&self) -> bool {
        self.remote.endpoint().deletes()
    }

    /// The watch root, while it is the directory that is watched.
    pub fn open_root(&self) -> Result<OwnedFd, Unhealthy> {
        self.remote.source().open_healthy()
    }

    /// One rsync run; what it could not deliver is noted.
    pub fn run(&mut self, kind: &RunKind, input: Vec<u8>, names: &[&RelPath]) -> Result<(), Stop> {
        let sessions = self.remote.sessions();
        let outcome = sessions.run(kind, self.abilities, &input, &mut self.aborted);
        self.note(kind, outcome, names)
    }

    /// What a run would delete, each with true for a directory; `None` when it does not say all, which is noted.
    pub fn preview(
        &mut self,
        kind: &RunKind,
        input: &[u8],
        names: &[&RelPath],
    ) -> Result<Option<Vec<(RelPath, bool)>>, Stop> {
        match self.remote.sessions().preview(kind, self.abilities, input) {
            Ok(gone) => Ok(Some(gone)),
            Err(outcome) => {
                self.note(kind, outcome, names)?;
                // Without a preview nothing at all is done.
                self.deletions_skipped = true;
                Ok(None)
            }
        }
    }

    /// True when the remote can be asked whether it has what is to be deleted.
    pub fn can_ask_for_deletions(&self) -> bool {
        self.deletes()
            && self.remote.endpoint().way(Presence::Absent, self.abilities) == Way::Batch
            && !self.rules().may_outlive_directories()
    }

    /// Which of these the remote lacks, or has too much; changes nothing.
    pub fn ask(&self, paths: &[RelPath]) -> Result<Answer, Stop> {
        let input = input::names(paths);
        let kind = RunKind::Batch { ignore_times: false };
        match self.remote.sessions().ask(&kind, self.abilities, &input) {
            Ok(answer) => Ok(answer),
            // What the run itself cannot deliver, the run itself will say.
            Err(Outcome::Partial { .. } | Outcome::Kept { .. }) => {
                let all = || paths.iter().cloned().collect();
                Ok(Answer { lacking: all(), extraneous: all() })
            }
            Err(outcome) => Err(self.remote.stop(outcome)),
        }
    }

    fn note(&mut self, kind: &RunKind, outcome: Outcome, names: &[&RelPath]) -> Result<(), Stop> {
        match outcome {
            Outcome::Delivered => {}
            Outcome::Partial { failed, deletions_skipped } => {
                self.deletions_skipped |= deletions_skipped;
                for (path, words) in failed {
                    let path = self.to_blame(kind, path);
                    // What is listed below a directory that failed was skipped with it.
                    let below =
                        names.iter().filter(|name| name.is_within(&path) && ***name != path);
                    self.failed.extend(below.map(|name| fail(name, words.clone())));
                    self.failed.push(fail(&path, words));
                }
            }
            Outcome::Kept { reason } => {
                self.failed.extend(names.iter().map(|path| fail(path, reason.clone())));
            }
            outcome => {
                // Directories compared as a whole lose what does not belong there when they are compared again.
                let by_name = !matches!(kind, RunKind::Trees { .. } | RunKind::Listing { .. });
                if by_name && is_cut(&outcome) {
                    self.remote.note_leftovers(names);
                }
                return Err(self.remote.stop(outcome));
            }
        }
        self.has_run = true;
        Ok(())
    }

    /// Removes what runs that broke off have left on the remote: a receiver that is killed leaves its temporary file.
    pub fn clean_up(&self) {
        let names = self.remote.take_leftovers();
        if names.is_empty() {
            return;
        }
        let list = input::temporary_names(names.iter());
        let sessions = self.remote.sessions();
        let outcome = sessions.run(&RunKind::CleanTemp, self.abilities, &list, &mut false);
        log::debug!(
            "{}: leftovers of {} paths: {outcome:?}",
            self.remote.endpoint().destination(),
            names.len()
        );
        if is_cut(&outcome) {
            self.remote.note_leftovers(&names.iter().collect::<Vec<_>>());
        }
    }
}

fn fail(path: &RelPath, message: String) -> PathFailure {
    PathFailure { path: path.clone(), code: PARTIAL, message }
}

/// True when a run may have left something unfinished on the remote.
fn is_cut(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::RemoteDown { .. } | Outcome::Shortage { .. } | Outcome::Denied { .. }
    )
}

/// True when a file was made after anything that it replaces: only a stamp of this moment cannot be that of what stood here before.
fn is_new(version: Version, exact: bool, now: Duration) -> bool {
    exact && version.stamp.modified + YOUNG > now
}
