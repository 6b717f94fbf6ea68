//! What may have come from the remote itself, when two instances mirror each other: it rests for a while before it goes back.
//! Meanwhile its writers may go on, and an echo that is late would undo what they wrote: rsync's `--update` counts in whole
//! seconds. What the remote has already when the rest is over needs no run at all.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::delivered::Version;
use super::look::{Look, Present};
use super::moves::is_temporary;
use super::ours::Ours;
use crate::change::Scope;
use crate::engine::Job;
use crate::engine::pending::{Item, Mark};
use crate::engine::postponed::POSTPONED;
use crate::path::RelPath;
use crate::rsync::{Answer, Presence};

/// What the remote does not have after the first rest is given so long in all: its own changes may be under way.
const REST_MAX: Duration = POSTPONED.saturating_mul(3);
/// What keeps arriving goes back after so long all the same.
const REST_IN_A_STREAM: Duration = Duration::from_secs(60);
/// So many arrivals that the remote did not have: it is the next in a chain, not the other side of a pair.
const STRANGERS: u32 = 2;

/// What is known of one remote.
#[derive(Debug, Default)]
pub struct Echoes {
    mirrors_back: bool,
    /// Arrivals that the remote did not have.
    strangers: u32,
    /// Batches with arrivals that have been seen.
    arrivals: u64,
    /// What the remote may have from us.
    ours: Ours,
    resting: HashMap<RelPath, Resting>,
}

/// Something that is kept back.
#[derive(Debug, Clone, Copy)]
struct Resting {
    first: Instant,
    since: Instant,
    version: Option<Version>,
}

/// What becomes of what may be an echo.
#[derive(Debug, Default)]
pub struct Sorted {
    /// Rests on: the items that it stands for.
    pub resting: Vec<Item>,
    /// Has rested: does the remote have it?
    pub asked: Vec<RelPath>,
}

impl Echoes {
    /// Nothing is known; what was here at `now`, by the clock of the files, says nothing.
    pub fn new(now: Duration) -> Self {
        Self { ours: Ours::new(now), ..Self::default() }
    }

    /// True when the remote is known to mirror back.
    pub fn mirrors_back(&self) -> bool {
        self.mirrors_back
    }

    /// What the remote may have from us.
    pub fn ours(&mut self) -> &mut Ours {
        &mut self.ours
    }

    /// Takes out of `look` what may be an echo and must rest, and tells what has rested. `own`: what goes to the remote whatever
    /// it has; `deletions`: whether the remote can be asked for what is to be deleted.
    pub fn sort(
        &mut self,
        look: &mut Look,
        job: &Job,
        own: &HashSet<RelPath>,
        deletions: bool,
        now: Instant,
    ) -> Sorted {
        let mut sorted = Sorted::default();
        let marks: HashMap<&RelPath, Mark> = job.items.iter().map(|i| (&i.path, i.mark)).collect();
        let suspects = self.suspects(look, job);
        let in_place = look.moves.is_empty();
        look.present.retain(|entry| {
            let Some(mark) = marks.get(&entry.path) else { return true };
            let may_be_echo = match entry.presence {
                // What moves into a directory needs it at once.
                Presence::Directory => self.mirrors_back && in_place,
                _ if !came_with_its_times(entry) || own.contains(&entry.path) => false,
                _ => {
                    let known = self.resting.get(&entry.path);
                    let rests = known.is_some_and(|resting| resting.version == entry.version);
                    (rests || suspects) && !self.was_renamed(job, entry)
                }
            };
            if !may_be_echo {
                self.resting.remove(&entry.path);
                return true;
            }
            // Of a remote that is not known the answer is wanted at once.
            let may_rest = self.mirrors_back || self.resting.contains_key(&entry.path);
            if may_rest && self.rests(&entry.path, entry.version, now) {
                sorted.resting.push(Item { path: entry.path.clone(), mark: *mark });
                return false;
            }
            sorted.asked.push(entry.path.clone());
            true
        });
        if !(self.mirrors_back && deletions) {
            return sorted;
        }
        for path in look.absent.clone() {
            if !self.rests(&path, None, now) {
                sorted.asked.push(path);
                continue;
            }
            look.absent.remove(&path);
            look.absent_dirs.remove(&path);
            sorted.resting.extend(items_of(&path, job));
        }
        sorted
    }

    /// Takes in what the remote has of what it was asked for; true when it is news that it mirrors back.
    pub fn learn(&mut self, look: &Look, job: &Job, answer: &Answer, sorted: &Sorted) -> bool {
        let asked: HashSet<&RelPath> = sorted.asked.iter().collect();
        let has =
            |entry: &Present| asked.contains(&entry.path) && !answer.lacking.contains(&entry.path);
        let is_news = !self.mirrors_back
            && look.present.iter().any(|entry| has(entry) && self.proves(job, entry));
        self.mirrors_back |= is_news;
        is_news
    }

    /// Takes out of `look` what the remote has already, and what it lacks but is given more time for; returns the items of these.
    pub fn conclude(
        &mut self,
        look: &mut Look,
        job: &Job,
        answer: &Answer,
        sorted: Sorted,
        now: Instant,
    ) -> Vec<Item> {
        let Sorted { resting: mut items, asked } = sorted;
        let asked: HashSet<RelPath> = asked.into_iter().collect();
        look.present.retain(|entry| {
            if !asked.contains(&entry.path) {
                return true;
            }
            let fresh = Resting { first: now, since: now, version: entry.version };
            let known = self.resting.remove(&entry.path);
            let resting = known.unwrap_or(fresh);
            if !answer.lacking.contains(&entry.path) {
                return false;
            }
            let is_over = if self.mirrors_back {
                now.duration_since(resting.first) >= REST_MAX
            } else {
                // The other side of a pair may just have gone on; one more look tells it from the next in a chain.
                let is_first = known.is_none() && self.strangers < STRANGERS;
                !(is_first && arrived(job, &entry.path))
            };
            if is_over {
                self.strangers += u32::from(!self.mirrors_back);
                return true;
            }
            self.resting.insert(entry.path.clone(), Resting { since: now, ..resting });
            items.extend(job.items.iter().find(|item| item.path == entry.path).cloned());
            false
        });
        for path in asked.into_iter().filter(|path| look.absent.contains(path)).collect::<Vec<_>>()
        {
            let known = self.resting.remove(&path);
            let is_there = answer.extraneous.contains(&path);
            // What is there twice is no temporary name that its writer has just taken once more.
            let twice = known.is_none_or(|r| now.duration_since(r.first) >= POSTPONED * 2);
            if is_there && twice {
                continue;
            }
            look.absent.remove(&path);
            look.absent_dirs.remove(&path);
            if let Some(resting) = known.filter(|_| is_there) {
                items.extend(items_of(&path, job));
                self.resting.insert(path, Resting { since: now, ..resting });
            }
        }
        items
    }

    /// Takes out of `look` what was written since, while the remote was asked: whoever wrote it has a turn of his own.
    pub fn give_back_changed(look: &mut Look, again: &Look, job: &Job) {
        let changed = |entry: &Present| {
            again.present.iter().any(|a| a.path == entry.path && a.version != entry.version)
        };
        for entry in look.present.extract_if(.., |entry| changed(entry)) {
            let item = job.items.iter().find(|item| item.path == entry.path);
            look.returned.extend(item.cloned());
        }
    }

    /// True for what the remote cannot have from us. Who copies or unpacks files sets their times as rsync does, and two jobs
    /// in a row may meet one file: then the remote has it from the first.
    fn proves(&self, job: &Job, entry: &Present) -> bool {
        let Some(version) = entry.version else { return false };
        let (path, ours) = (&entry.path, &self.ours);
        // To set its times makes a file older than it was when the first of the two jobs looked at it.
        let from_elsewhere = arrived(job, path) || ours.are_older(path, version);
        ours.nothing_since(version.changed) || from_elsewhere && ours.lacks(path, version)
    }

    /// True for what was renamed by somebody else than rsync. Of two mirrors of each other a rename says nothing of what is younger
    /// than all that the kernel had said by then: that may have taken its place, and has a notice of its own on the way.
    fn was_renamed(&self, job: &Job, entry: &Present) -> bool {
        let path = &entry.path;
        let is_known = entry.version.is_none_or(|version| version.changed <= job.known_until);
        (is_known || !self.mirrors_back)
            && origin(job, path).is_some_and(|old| !is_temporary(old, path))
    }

    /// Whether what arrives now may come from the remote. One that was found not to mirror back is asked less and less often.
    fn suspects(&mut self, look: &Look, job: &Job) -> bool {
        let came = |entry: &Present| came_with_its_times(entry) && !self.was_renamed(job, entry);
        let any = look.present.iter().any(came);
        self.arrivals += u64::from(any);
        self.mirrors_back || self.strangers < STRANGERS || self.arrivals.is_power_of_two()
    }

    /// True while `path`, as it is now, has not rested for long enough.
    fn rests(&mut self, path: &RelPath, version: Option<Version>, now: Instant) -> bool {
        let fresh = Resting { first: now, since: now, version };
        let resting = self.resting.entry(path.clone()).or_insert(fresh);
        if resting.version != version {
            *resting = Resting { first: resting.first, ..fresh };
        }
        now.duration_since(resting.since) < POSTPONED
            && now.duration_since(resting.first) < REST_IN_A_STREAM
    }
}

/// The items of `job` that the absent `path` stands for.
fn items_of(path: &RelPath, job: &Job) -> Vec<Item> {
    let mut items: Vec<_> = job.items.iter().filter(|i| i.path.is_within(path)).cloned().collect();
    if !items.iter().any(|item| item.path == *path) {
        items.push(Item { path: path.clone(), mark: Mark::new(Scope::Tree) });
    }
    items
}

/// True for a file whose times were set after it was written, as rsync does: who writes a file leaves both times equal.
fn came_with_its_times(entry: &Present) -> bool {
    entry.version.is_some_and(|version| version.changed != version.stamp.modified)
}

/// Where `path` was renamed from, when the kernel said so.
fn origin<'a>(job: &'a Job, path: &RelPath) -> Option<&'a RelPath> {
    job.moves.iter().find(|(new, _)| new == path).map(|(_, old)| old)
}

/// True for what an rsync from elsewhere has just put there.
fn arrived(job: &Job, path: &RelPath) -> bool {
    origin(job, path).is_some_and(|old| is_temporary(old, path))
}

#[cfg(test)]
mod tests;
