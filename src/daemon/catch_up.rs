//! What changed while nobody looked: after downtime and after lost change notices, by a walk against the recorded state.
//! Runs the walk on a thread of its own, and hands what it finds to the main loop like any other change.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::guard::{Count, Guard, Remains};
use super::wake::{Wake, Walked};
use crate::change::{Cause, Change, RootId, Scope, WatchEvent};
use crate::engine::Event;
use crate::record::{Look, Record, Survey, Surveyor};
use crate::watch::Exclude;

/// Changes in one message of a walk.
const PORTION: usize = 4_096;

/// The records of all roots, and the walks under way.
pub struct CatchUp {
    /// By root; `None`: no state can be kept for it.
    records: Vec<Option<Record>>,
    /// Roots that are being walked; true: once more afterwards.
    walking: Vec<Option<Again>>,
    exclude: Exclude,
    guard: Guard,
    wakes: Sender<Wake>,
}

/// Whether a walk has to be repeated, for something was lost while it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Yes,
}

/// What a finished walk means for the mirror.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Every change.
    All,
    /// This is the first start: nothing was recorded, and nothing is assumed.
    FirstStart,
    /// So much is gone that nothing is deleted: what was added and changed is reported, and the old record stands.
    TooMuchGone(Remains),
    /// The record cannot tell; everything has to be compared with the remotes. The clause says why.
    Unknown(String),
}

impl CatchUp {
    /// Nothing is walked yet.
    pub fn new(
        records: Vec<Option<Record>>,
        exclude: Exclude,
        guard: Guard,
        wakes: Sender<Wake>,
    ) -> Self {
        let walking = records.iter().map(|_| None).collect();
        Self { records, walking, exclude, guard, wakes }
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
        let known = self.records.get(root.0)?.as_ref()?.count_known();
        if self.guard.needed(known) == 0 {
            return None;
        }
        let (exclude, wakes) = (Arc::clone(&self.exclude), self.wakes.clone());
        let count = self.guard.start_count(root, path, known, exclude, wakes);
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

    /// Starts a walk below `root`; false when there is no record to compare with.
    pub fn start(&mut self, root: RootId) -> bool {
        let (Some(Some(record)), Some(walking)) =
            (self.records.get_mut(root.0), self.walking.get_mut(root.0))
        else {
            return false;
        };
        if let Some(again) = walking {
            *again = Again::Yes;
            return true;
        }
        let surveyor = match record.start_survey() {
            Ok(surveyor) => surveyor,
            Err(error) => {
                log::warn!("cannot write the record of the tree: {error}");
                return false;
            }
        };
        let (exclude, wakes) = (Arc::clone(&self.exclude), self.wakes.clone());
        let guard = self.guard.clone();
        let thread = std::thread::Builder::new().name("catch-up".into());
        let walk = thread.spawn(move || {
            walk(root, surveyor, &exclude, &guard, &wakes);
        });
        if let Err(error) = walk {
            log::warn!("cannot start the thread that looks for changes: {error}");
            return false;
        }
        *walking = Some(Again::No);
        true
    }

    /// Takes the result of a walk in. Call it when all that the walk found is in the journal for good.
    pub fn finish(&mut self, walked: Walked) -> (RootId, Found) {
        let Walked { root, surveyor, survey, is_held } = walked;
        let again = self.walking.get_mut(root.0).and_then(Option::take);
        let record = self.records.get(root.0).and_then(Option::as_ref);
        let unfinished = record.is_some_and(Record::is_unfinished);
        if is_held {
            let remains = survey.map_or(Remains { known: 0, gone: 0 }, |survey| remains(&survey));
            return (root, Found::TooMuchGone(remains));
        }
        let kept = match (survey, self.records.get_mut(root.0)) {
            (Ok(survey), Some(Some(record))) => record.keep(surveyor).map(|()| survey),
            (Ok(survey), _) => Ok(survey),
            (Err(error), _) => Err(error),
        };
        if again == Some(Again::Yes) {
            self.start(root);
        }
        use crate::record::Unknown;
        let verdict = match kept {
            Ok(survey) => {
                for path in survey.unreadable.iter().chain(&survey.lost_mounts) {
                    log::warn!(
                        "{path} cannot be read or is not mounted: nothing below it is deleted"
                    );
                }
                match survey.unknown {
                    None => Found::All,
                    Some(Unknown::Missing) if unfinished => {
                        Found::Unknown("the first start ended before the tree was on record".into())
                    }
                    // What the kernel dropped meanwhile is part of the record now.
                    Some(Unknown::Missing) if again == Some(Again::Yes) => Found::Unknown(
                        "change notices were lost before the tree was on record".into(),
                    ),
                    Some(Unknown::Missing) => Found::FirstStart,
                    Some(Unknown::Damaged) => {
                        Found::Unknown("the record of the tree is damaged".into())
                    }
                    Some(Unknown::OtherFileSystem) => {
                        Found::Unknown("another file system is mounted at the watch path".into())
                    }
                }
            }
            Err(error) => {
                Found::Unknown(format!("the record of the tree cannot be written: {error}"))
            }
        };
        (root, verdict)
    }

    /// Puts on record what a worker saw before a job that has succeeded.
    pub fn append(&mut self, root: RootId, look: &Look) {
        if let Some(Some(record)) = self.records.get_mut(root.0) {
            record.append(look);
        }
    }

    /// Ends the records in order.
    pub fn close(self) {
        self.records.into_iter().flatten().for_each(Record::close);
    }
}

fn walk(root: RootId, surveyor: Surveyor, exclude: &Exclude, guard: &Guard, wakes: &Sender<Wake>) {
    let mut changes: Vec<Change> = Vec::new();
    // What deletes waits for the end of the walk: only then it is known whether it is too much.
    let mut deleting: Vec<Change> = Vec::new();
    // Sending fails only when the main loop has ended.
    let send = |changes| {
        let event = WatchEvent::Changed { root, changes };
        _ = wakes.send(Wake::Event(Event::Watch(event)));
    };
    let wanted = |path: &crate::path::RelPath, is_dir: bool| !exclude(path, is_dir);
    let survey = surveyor.compare(&wanted, 0, &mut |change| {
        if change.cause == Cause::Delete || change.scope == Scope::Listing {
            return deleting.push(change);
        }
        changes.push(change);
        if changes.len() >= PORTION {
            send(std::mem::take(&mut changes));
        }
    });
    let is_held = survey.as_ref().is_ok_and(|survey| guard.holds(remains(survey)));
    if !is_held {
        changes.append(&mut deleting);
    }
    changes.chunks(PORTION).for_each(|portion| send(portion.to_vec()));
    _ = wakes.send(Wake::CaughtUp(Walked { root, surveyor, survey, is_held }));
}

fn remains(survey: &Survey) -> Remains {
    Remains { known: survey.known, gone: survey.gone }
}
