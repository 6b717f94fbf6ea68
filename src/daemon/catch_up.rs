//! What changed while nobody looked: after downtime and after lost events, by a walk against the recorded state.
//! Runs the walk on a thread of its own, and hands what it finds to the main loop like any other change.

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

/// Changes in one message of a walk.
const PORTION: usize = 4_096;

/// Why everything may have changed although this is the first start.
const LOST_EARLY: &str = "the kernel dropped changes before the tree was on record";

/// The records of all roots, and the walks under way.
pub struct CatchUp {
    /// By root; `None`: no state can be kept for it.
    records: Vec<Option<Record>>,
    /// By root: what its record is read for at the moment.
    turns: Vec<Turn>,
    /// By root: who walks or merges, or did so last. They end with the records: the next mirror opens the same files.
    threads: Vec<Option<JoinedThread>>,
    exclude: Exclude,
    guard: Guard,
    events: Sender<MainEvent>,
    /// What a walk reports where there is no usable record.
    unrecorded: WithoutBaseline,
}

/// What a record is read for; one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Free,
    Walk(Next),
    Merge(Next),
}

/// What follows a walk or a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// A walk: changes may have been lost meanwhile. With the deletions that an operator has confirmed, or not.
    Walk {
        is_confirmed: bool,
    },
}

/// What a finished walk means for the mirror.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Every change.
    All,
    /// Every change; but the record was lost meanwhile, and another walk has to fill the new one.
    RecordLost,
    /// This is the first start: nothing was recorded, and nothing is assumed.
    FirstStart,
    /// The same, but these mount points have lost their file systems, and what was in them is not removed.
    Unmounted(Vec<RelPath>),
    /// So much is gone that nothing is deleted: what was added and changed is reported, and the old record stands.
    TooMuchGone(Remains),
    /// The record cannot tell; everything has to be compared with the remotes. The clause says why.
    Unknown(String),
    /// The record cannot tell, and every entry was reported instead. The clause says why.
    Listed(String),
    /// The walk did not get to its end. The clause says why.
    Unfinished(String),
}

impl CatchUp {
    /// Nothing is walked yet.
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

    /// Where nobody asked for a full sync, a lost record leads to no comparison, which would delete what only a copy has:
    /// walks report every entry instead.
    pub fn without_full_sync(self) -> Self {
        Self { unrecorded: WithoutBaseline::AllEntries, ..self }
    }

    /// True when every entry is reported where there is no usable record.
    pub fn lists_unrecorded(&self) -> bool {
        self.unrecorded == WithoutBaseline::AllEntries
    }

    /// The guard on mass deletion.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// True when another directory is at the root's path than the one that was recorded.
    pub fn is_of_another_root(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(Record::is_of_another_root)
    }

    /// Counts what is below a root that came back, where it has to be counted before it is trusted.
    pub fn count(&self, root: RootId, path: &Path) -> Option<Count> {
        let record = self.records.get(root.0)?.as_ref()?;
        let known = record.count_known();
        let needed = self.guard.needed(known, record.is_on_another_file_system());
        if needed == 0 {
            return None;
        }
        let (exclude, events) = (Arc::clone(&self.exclude), self.events.clone());
        let count = self.guard.start_count(root, path, (known, needed), exclude, events);
        count.map_err(|error| log::error!("cannot start the thread that counts: {error}")).ok()
    }

    /// The watches stand: from now on a change that is neither delivered nor in the journal is found by the next start.
    pub fn begin(&self) {
        for record in self.records.iter().flatten() {
            if let Err(error) = record.begin() {
                log::warn!("cannot begin the record of the tree: {error}");
            }
        }
    }

    /// True when there is something to compare the tree with.
    pub fn has_record(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(|record| record.knows(1))
    }

    /// False where the record could not be opened: nobody knows what it says.
    pub fn can_record(&self, root: RootId) -> bool {
        self.records.get(root.0).is_some_and(Option::is_some)
    }

    /// True when so much is on record of `root` that its loss would be an accident.
    pub fn is_guarded(&self, root: RootId) -> bool {
        let record = self.records.get(root.0).and_then(Option::as_ref);
        record.is_some_and(|record| self.guard.guards(|enough| record.knows(enough)))
    }

    /// True while a walk is under way below `root`, or about to begin.
    pub fn is_walking(&self, root: RootId) -> bool {
        let turn = self.turns.get(root.0);
        turn.is_some_and(|turn| !matches!(turn, Turn::Free | Turn::Merge(Next::Nothing)))
    }

    /// Starts a walk below `root`; false when there is no record to compare with. `is_confirmed`: however much is gone, it is
    /// meant to be.
    pub fn start(&mut self, root: RootId, is_confirmed: bool) -> bool {
        let (Some(Some(record)), Some(turn)) =
            (self.records.get_mut(root.0), self.turns.get_mut(root.0))
        else {
            return false;
        };
        match turn {
            // What was lost since is no part of what an operator has seen and confirmed.
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
        // Before the first start nothing was mirrored, so nothing of it has changed.
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
                // The one before has said its last word: a root has one turn at a time.
                self.threads[root.0] = Some(thread);
                true
            }
            Err(error) => {
                log::warn!("cannot start the thread that looks for changes: {error}");
                false
            }
        }
    }

    /// Ends the turn of `root`; what follows it.
    fn end_turn(&mut self, root: RootId) -> Next {
        let turn = self.turns.get_mut(root.0).map(|turn| std::mem::replace(turn, Turn::Free));
        match turn {
            Some(Turn::Walk(next) | Turn::Merge(next)) => next,
            Some(Turn::Free) | None => Next::Nothing,
        }
    }

    /// Merges the records that have grown long, on threads of their own.
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

    /// Takes in the end of a merge; false when a walk has waited for it and cannot begin.
    pub fn merged(&mut self, root: RootId, merged: Merged) -> bool {
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            record.merged(merged);
        }
        match self.end_turn(root) {
            Next::Walk { is_confirmed } => self.start(root, is_confirmed),
            Next::Nothing => true,
        }
    }

    /// Takes the result of a walk in. Call it when all that the walk found is in the journal for good.
    pub fn finish(&mut self, walked: Walked) -> (RootId, Found) {
        let root = walked.root;
        let next = self.end_turn(root);
        let verdict = self.judge(walked, next != Next::Nothing);
        if let Next::Walk { is_confirmed } = next {
            self.start(root, is_confirmed);
        }
        (root, verdict)
    }

    fn judge(&mut self, walked: Walked, again: bool) -> Found {
        let Walked { root, surveyor, survey, is_held } = walked;
        let survey = match survey {
            Ok(survey) => survey,
            Err(error) => {
                return Found::Unfinished(format!(
                    "it cannot be compared with its record: {error}"
                ));
            }
        };
        if is_held {
            return Found::TooMuchGone(remains(&survey));
        }
        let mut unfinished = None;
        let lists = self.lists_unrecorded();
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            unfinished = record.why_unfinished();
            if lists && again && unfinished.is_none() && survey.unknown == Some(Unknown::Missing) {
                // The next walk, which is due, reports every entry.
                record.set_unfinished(LOST_EARLY);
                return Found::FirstStart;
            }
            match record.keep(surveyor) {
                Ok(()) => {}
                // The record has begun anew meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    if survey.unknown.is_none() && survey.lost_mounts.is_empty() {
                        return Found::RecordLost;
                    }
                }
                Err(error) => {
                    let reason = format!("the record of the tree cannot be written: {error}");
                    return Found::Unknown(reason);
                }
            }
        }
        for path in &survey.unreadable {
            log::warn!("{path} cannot be read: nothing below it is deleted");
        }
        let unknown = |reason: &str| match lists {
            true => Found::Listed(reason.into()),
            false => Found::Unknown(reason.into()),
        };
        match survey.unknown {
            None if !survey.lost_mounts.is_empty() => Found::Unmounted(survey.lost_mounts),
            None => Found::All,
            Some(Unknown::Missing) => match unfinished {
                Some(reason) => unknown(reason),
                // What the kernel dropped meanwhile is part of the record now.
                None if again => unknown(LOST_EARLY),
                None => Found::FirstStart,
            },
            Some(Unknown::Damaged) => unknown("the record of the tree is damaged"),
            Some(Unknown::AnotherDirectory) => {
                unknown("it is another directory than the one on record")
            }
        }
    }

    /// Puts on record what a worker saw before a job that has succeeded.
    pub fn append(&mut self, root: RootId, observation: &Observation) {
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            record.append(observation);
        }
    }

    /// The state directory was deleted and made again: the records begin anew, with a walk. The roots `except` keep what is decided
    /// of their deletions, which a walk would change.
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

    /// Ends the records in order. Who still walks or merges is waited for when this is dropped: by then nobody listens, so that
    /// no thread waits for the main loop.
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
    // What deletes waits for the end of the walk: only then it is known whether it is too much.
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
    if !is_held {
        changes.append(&mut deleting);
    }
    changes.chunks(PORTION).for_each(|portion| send(portion.to_vec()));
    _ = events.send(MainEvent::CaughtUp(Walked { root, surveyor, survey, is_held }));
}

fn remains(survey: &Survey) -> Remains {
    Remains { known: survey.known, gone: survey.gone }
}
