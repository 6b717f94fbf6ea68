//! Finds changes that were not seen, after downtime or lost events, by comparing the tree with its record.
//! Runs the walk on its own thread, and passes what it finds to the main loop like any other change.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::guard::{Count, Guard, Remains};
use super::main_event::{MainEvent, Walked};
use crate::change::{Cause, Change, RootId, Scope, WatchEvent};
use crate::engine::Event;
use crate::ground::thread::JoinedThread;
use crate::path::RelPath;
use crate::record::{
    Losses, Merged, Observation, Record, Survey, Surveyor, Unknown, WithoutBaseline,
};
use crate::watch::Exclude;

/// The maximum number of changes in one message of a walk.
const PORTION: usize = 4_096;

/// Why everything may have changed although this is the first start.
const LOST_EARLY: &str = "the kernel dropped changes before the tree was on record";

/// The records of all roots, and the running walks and merges.
pub struct CatchUp {
    /// By root; `None` if no state can be kept for it.
    records: Vec<Option<Record>>,
    /// By root: what currently uses its record.
    turns: Vec<Turn>,
    /// By root: the thread of its last walk or merge. They are joined before the records are opened again.
    threads: Vec<Option<JoinedThread>>,
    exclude: Exclude,
    guard: Guard,
    events: Sender<MainEvent>,
    /// What a walk reports without a usable record.
    unrecorded: WithoutBaseline,
}

/// What uses a record; one user at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Free,
    Walk(Next),
    Merge(Next),
}

/// What starts after a walk or a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// Another walk, because changes may have been lost meanwhile; whether an operator has confirmed its deletions.
    Walk {
        is_confirmed: bool,
    },
}

/// The result of a walk, for the mirror.
#[derive(Debug, PartialEq, Eq)]
pub enum WalkResult {
    /// Every change was found.
    All,
    /// Every change was found. But the record was lost meanwhile, so another walk must write a new one.
    RecordLost,
    /// This is the first start: there was no record to compare with.
    FirstStart,
    /// Every change was found, but these mount points lost their file systems; their content does not count as removed.
    Unmounted(Vec<RelPath>),
    /// So much is gone that nothing is deleted. Additions and changes are reported, and the old record is kept.
    TooMuchGone(Remains),
    /// The record is not usable: everything must be compared with the remotes. The clause says why.
    Unknown(String),
    /// The record is not usable, so every entry was reported instead. The clause says why.
    Listed(String),
    /// The walk did not finish. The clause says why.
    Unfinished(String),
}

impl CatchUp {
    /// No walk is running yet.
    pub fn new(
        records: Vec<Option<Record>>,
        exclude: Exclude,
        guard: Guard,
        events: Sender<MainEvent>,
    ) -> Self {
        let turns = records.iter().map(|_| Turn::Free).collect();
        let threads = records.iter().map(|_| None).collect();
        let unrecorded = WithoutBaseline::Silent;
        Self { records, turns, threads, exclude, guard, events, unrecorded }
    }

    /// For a start without full sync: if the record is lost, walks report every entry. A comparison would delete what
    /// only a copy has.
    pub fn without_full_sync(self) -> Self {
        Self { unrecorded: WithoutBaseline::AllEntries, ..self }
    }

    /// True when walks report every entry if there is no usable record.
    pub fn lists_unrecorded(&self) -> bool {
        self.unrecorded == WithoutBaseline::AllEntries
    }

    /// The guard on mass deletion.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// True when the directory at the root's path is not the recorded one.
    pub fn is_of_another_root(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(Record::is_of_another_root)
    }

    /// Starts to count the entries of a root that came back, if they must be counted before the root is trusted.
    pub fn count(&self, root: RootId, path: &Path) -> Option<Count> {
        let record = self.records.get(root.0)?.as_ref()?;
        let known = record.count_known();
        let needed = self.guard.needed(known, record.is_on_another_file_system());
        if needed == 0 {
            return None;
        }
        let (exclude, events) = (Arc::clone(&self.exclude), self.events.clone());
        Some(self.guard.start_count(root, path, (known, needed), exclude, events))
    }

    /// Call it when the watches are set: from now on, the next start finds a change that is neither delivered nor in the
    /// journal.
    pub fn begin(&self) {
        for record in self.records.iter().flatten() {
            if let Err(error) = record.begin() {
                log::warn!("cannot begin the record of the tree: {error}");
            }
        }
    }

    /// True when there is a record to compare the tree with.
    pub fn has_record(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(|record| record.knows(1))
    }

    /// False when the record could not be opened, so its content is unknown.
    pub fn can_record(&self, root: RootId) -> bool {
        self.records.get(root.0).is_some_and(Option::is_some)
    }

    /// True when `root` has enough entries on record to be guarded.
    pub fn is_guarded(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(|record| self.guard.guards(|enough| record.knows(enough)))
    }

    /// True while a walk of `root` is running or waits to start.
    pub fn is_walking(&self, root: RootId) -> bool {
        let turn = self.turns.get(root.0);
        turn.is_some_and(|turn| !matches!(turn, Turn::Free | Turn::Merge(Next::Nothing)))
    }

    /// True while a walk of `root` is running that nobody can confirm: what it finds is not known yet.
    pub fn is_at_walk(&self, root: RootId) -> bool {
        matches!(self.turns.get(root.0), Some(Turn::Walk(_)))
    }

    /// Starts a walk of `root`; false when there is no record to compare with. `is_confirmed`: an operator has confirmed
    /// any deletions.
    pub fn start(&mut self, root: RootId, is_confirmed: bool) -> bool {
        let (Some(Some(record)), Some(turn)) =
            (self.records.get_mut(root.0), self.turns.get_mut(root.0))
        else {
            return false;
        };
        match turn {
            // Do not carry the confirmation over: the operator has not seen what was lost since.
            Turn::Walk(next) => {
                *next = Next::Walk { is_confirmed: false };
                return true;
            }
            Turn::Merge(next) => {
                let was_confirmed = *next == Next::Walk { is_confirmed: true };
                *next = Next::Walk { is_confirmed: is_confirmed || was_confirmed };
                return true;
            }
            Turn::Free => {}
        }
        // At the first start there is nothing to report: nothing was mirrored before.
        let is_first = !record.has_snapshot() && record.why_unfinished().is_none();
        let without = if is_first { WithoutBaseline::Silent } else { self.unrecorded };
        let surveyor = match record.start_survey() {
            Ok(surveyor) if is_confirmed => surveyor.with(Losses::Meant),
            Ok(surveyor) => surveyor,
            Err(error) => {
                log::warn!("cannot write the record of the tree: {error}");
                return false;
            }
        };
        let surveyor = surveyor.without_baseline(without);
        let (exclude, events) = (Arc::clone(&self.exclude), self.events.clone());
        let guard = self.guard.clone();
        let walk = JoinedThread::start("catch-up", move || {
            let holds = |survey: &Survey| !is_confirmed && guard.holds(remains(survey));
            walk(root, surveyor, &exclude, &holds, &events);
        });
        match walk {
            Ok(thread) => {
                *turn = Turn::Walk(Next::Nothing);
                // Replacing the old thread does not wait: it has ended, since a root has one turn at a time.
                self.threads[root.0] = Some(thread);
                true
            }
            Err(error) => {
                log::warn!("cannot start the thread that looks for changes: {error}");
                false
            }
        }
    }

    /// Ends the turn of `root`; returns what starts next.
    fn end_turn(&mut self, root: RootId) -> Next {
        let turn = self.turns.get_mut(root.0).map(|turn| std::mem::replace(turn, Turn::Free));
        match turn {
            Some(Turn::Walk(next) | Turn::Merge(next)) => next,
            Some(Turn::Free) | None => Next::Nothing,
        }
    }

    /// Merges long records, each on its own thread.
    pub fn merge_long_records(&mut self) {
        for (root, (record, turn)) in self.records.iter_mut().zip(&mut self.turns).enumerate() {
            let Some(merger) = record.as_mut().and_then(Record::start_merge) else { continue };
            let events = self.events.clone();
            let started = JoinedThread::start("merge", move || {
                // Fails only when the main loop has ended.
                _ = events.send(MainEvent::Merged(RootId(root), merger.run()));
            });
            match started {
                Ok(thread) => {
                    *turn = Turn::Merge(Next::Nothing);
                    self.threads[root] = Some(thread);
                }
                Err(error) => log::warn!("cannot start the thread that merges: {error}"),
            }
        }
    }

    /// Handles the end of a merge; false when a walk waited for it and cannot start.
    pub fn merged(&mut self, root: RootId, merged: Merged) -> bool {
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            record.merged(merged);
        }
        match self.end_turn(root) {
            Next::Walk { is_confirmed } => self.start(root, is_confirmed),
            Next::Nothing => true,
        }
    }

    /// Handles the result of a walk. Call it when everything that the walk found is durably in the journal. The last value is false
    /// when another walk waited for it and cannot start.
    pub fn finish(&mut self, walked: Walked) -> (RootId, WalkResult, bool) {
        let root = walked.root;
        let next = self.end_turn(root);
        let verdict = self.judge(walked, next != Next::Nothing);
        let goes_on = match next {
            Next::Walk { is_confirmed } => self.start(root, is_confirmed),
            Next::Nothing => true,
        };
        (root, verdict, goes_on)
    }

    fn judge(&mut self, walked: Walked, again: bool) -> WalkResult {
        let Walked { root, surveyor, survey, is_held } = walked;
        let survey = match survey {
            Ok(survey) => survey,
            Err(error) => {
                return WalkResult::Unfinished(format!(
                    "it cannot be compared with its record: {error}"
                ));
            }
        };
        if is_held {
            return WalkResult::TooMuchGone(remains(&survey));
        }
        let mut unfinished = None;
        let lists = self.lists_unrecorded();
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            unfinished = record.why_unfinished();
            if lists && again && unfinished.is_none() && survey.unknown == Some(Unknown::Missing) {
                // Another walk follows, which reports every entry.
                record.set_unfinished(LOST_EARLY);
                return WalkResult::FirstStart;
            }
            match record.keep(surveyor) {
                Ok(()) => {}
                // The record was started anew meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    if survey.unknown.is_none() && survey.lost_mounts.is_empty() {
                        return WalkResult::RecordLost;
                    }
                }
                Err(error) => {
                    let reason = format!("the record of the tree cannot be written: {error}");
                    return WalkResult::Unknown(reason);
                }
            }
        }
        for path in &survey.unreadable {
            log::warn!("{path} cannot be read: nothing below it is deleted");
        }
        let unknown = |reason: &str| match lists {
            true => WalkResult::Listed(reason.into()),
            false => WalkResult::Unknown(reason.into()),
        };
        match survey.unknown {
            None if !survey.lost_mounts.is_empty() => WalkResult::Unmounted(survey.lost_mounts),
            None => WalkResult::All,
            Some(Unknown::Missing) => match unfinished {
                Some(reason) => unknown(reason),
                // The kernel dropped events during the walk, so the new record may hold undelivered changes.
                None if again => unknown(LOST_EARLY),
                None => WalkResult::FirstStart,
            },
            Some(Unknown::Damaged) => unknown("the record of the tree is damaged"),
            Some(Unknown::AnotherDirectory) => {
                unknown("it is another directory than the one on record")
            }
        }
    }

    /// Records the observation of a job that has succeeded.
    pub fn append(&mut self, root: RootId, observation: &Observation) {
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            record.append(observation);
        }
    }

    /// Starts the records anew, with a walk, after the state directory was deleted. The roots for which `except` is true
    /// are not walked, because a walk would change the decision about their deletions.
    pub fn start_anew(&mut self, except: impl Fn(RootId) -> bool) {
        for root in (0..self.records.len()).map(RootId) {
            let Some(Some(record)) = self.records.get_mut(root.0) else { continue };
            if let Err(error) = record.start_anew() {
                log::warn!("cannot begin the record of the tree: {error}");
            } else if !except(root) {
                self.start(root, false);
            }
        }
    }

    /// Closes the records. Dropping this waits for running walks and merges. At that time the channel of the main loop is
    /// closed, so no thread waits for the main loop.
    pub fn close(&mut self) {
        self.records.drain(..).flatten().for_each(Record::close);
    }
}

fn walk(
    root: RootId,
    surveyor: Surveyor,
    exclude: &Exclude,
    holds: &dyn Fn(&Survey) -> bool,
    events: &Sender<MainEvent>,
) {
    let mut changes: Vec<Change> = Vec::new();
    // Keep deletions until the end of the walk: only then is it known whether they are too many.
    let mut deleting: Vec<Change> = Vec::new();
    // Sending fails only when the main loop has ended.
    let send = |changes| {
        let event = WatchEvent::changed(root, changes);
        _ = events.send(MainEvent::Event(Event::Watch(event)));
    };
    let wanted = |path: &RelPath, is_dir: bool| !exclude(path, is_dir);
    let survey = surveyor.compare(&wanted, 0, &mut |change| {
        if change.cause == Cause::Delete || change.scope != Scope::Entry {
            return deleting.push(change);
        }
        changes.push(change);
        if changes.len() >= PORTION {
            send(std::mem::take(&mut changes));
        }
    });
    let is_held = survey.as_ref().is_ok_and(holds);
    // After a walk that failed, nobody knows whether they are too many.
    if survey.is_ok() && !is_held {
        changes.append(&mut deleting);
    }
    changes.chunks(PORTION).for_each(|portion| send(portion.to_vec()));
    _ = events.send(MainEvent::CaughtUp(Walked { root, surveyor, survey, is_held }));
}

fn remains(survey: &Survey) -> Remains {
    Remains { known: survey.known, gone: survey.gone }
}
