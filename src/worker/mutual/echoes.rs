//! Which files of a job may be echoes: an rsync received them here, perhaps from the remote itself. Echoes wait for a while.
//! An echo that is sent back could overwrite newer content on the remote, because rsync's `--update` compares whole seconds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::delivered::Version;
use super::super::look::{Look, Present};
use super::notices::Notices;
use super::ours::Ours;
use crate::engine::DEFERRED_FOR;
use crate::engine::pending::Item;
use crate::path::RelPath;
use crate::rsync::{Presence, PreviewAnswer};

/// How long an echo waits in total if the remote lacks it after the first wait. The remote's own changes may be on their way.
const REST_MAX: Duration = DEFERRED_FOR.saturating_mul(3);
/// A file that keeps arriving is sent back after this time in any case.
const REST_IN_A_STREAM: Duration = Duration::from_secs(60);
/// After so many arrivals that the remote lacked, the remote counts as the next in a chain, not as a pair.
const STRANGERS: u32 = 2;
/// How long a remote counts as mirroring back without new evidence.
const PAIR_FOR: Duration = Duration::from_secs(600);

/// What is known of one remote.
#[derive(Debug, Default)]
pub struct Echoes {
    /// When the remote last had something that an rsync received here and that we never sent.
    pair_seen: Option<Instant>,
    /// Arrivals that the remote did not have.
    strangers: u32,
    /// How many batches contained arrivals.
    arrivals: u64,
    /// What we may have sent to the remote.
    ours: Ours,
    resting: HashMap<RelPath, Resting>,
}

/// An item that has to wait.
#[derive(Debug, Clone, Copy)]
struct Resting {
    first: Instant,
    since: Instant,
    version: Option<Version>,
    /// An rsync received it here.
    arrived: bool,
}

/// What to do with a possible echo.
#[derive(Debug, Default)]
pub struct Sorted {
    /// These items wait on.
    pub resting: Vec<Item>,
    /// These have waited: ask whether the remote has them.
    pub asked: Vec<RelPath>,
}

/// A question to the remote, and its answer.
#[derive(Debug)]
pub struct EchoCheck {
    /// The answer.
    pub answer: PreviewAnswer,
    /// The question.
    pub sorted: Sorted,
    /// The present time.
    pub now: Instant,
}

impl Echoes {
    /// Nothing is known. Files from before `now` (by the clock that stamps files) prove nothing.
    pub fn new(now: Duration) -> Self {
        Self { ours: Ours::new(now), ..Self::default() }
    }

    /// True when the remote is known to mirror back.
    pub fn is_pair(&self, now: Instant) -> bool {
        self.pair_seen.is_some_and(|seen| now.saturating_duration_since(seen) < PAIR_FOR)
    }

    /// Forgets items that did not come back after their wait, because a directory above them was deleted.
    pub fn rest(&mut self, now: Instant) {
        self.resting.retain(|_, item| now.saturating_duration_since(item.since) < PAIR_FOR);
    }

    /// What we may have sent to the remote.
    pub fn ours(&mut self) -> &mut Ours {
        &mut self.ours
    }

    /// Removes from `look` the possible echoes that have to wait, and returns those that have waited. `own`: what is sent even
    /// if the remote has something newer; `deletions`: whether the remote can be asked about deletions.
    pub fn sort(
        &mut self,
        look: &mut Look,
        notices: &Notices<'_>,
        (own, deletions): &(HashSet<RelPath>, bool),
        now: Instant,
    ) -> Sorted {
        let is_pair = self.is_pair(now);
        if !is_pair && self.pair_seen.take().is_some() {
            self.resting = HashMap::new();
        }
        let mut sorted = Sorted::default();
        let suspects = self.suspects(look, notices, is_pair);
        let in_place = look.moves.is_empty();
        look.present.retain(|entry| {
            let Some(item) = notices.item(&entry.path) else { return true };
            let may_be_echo = match entry.presence {
                // A directory that a move needs must exist at once.
                Presence::Directory => is_pair && in_place,
                _ if !came_with_its_times(entry) || own.contains(&entry.path) => false,
                // A new name changes the file's time of change too, and all names have to be sent together.
                _ if entry.is_linked && !is_pair => false,
                _ => {
                    let known = self.resting.get(&entry.path);
                    let rests = known.is_some_and(|resting| resting.version == entry.version);
                    (rests || suspects) && !is_somebodys(notices, entry, is_pair)
                }
            };
            if !may_be_echo {
                self.resting.remove(&entry.path);
                return true;
            }
            // Ask a remote at once about which nothing is known.
            let may_rest = is_pair || self.resting.contains_key(&entry.path);
            let arrived = notices.arrived(&entry.path);
            if may_rest && self.rests(&entry.path, entry.version, arrived, now) {
                sorted.resting.push(item.clone());
                return false;
            }
            sorted.asked.push(entry.path.clone());
            true
        });
        if is_pair && *deletions {
            self.sort_deletions(look, notices, now, &mut sorted);
        }
        sorted
    }

    fn sort_deletions(
        &mut self,
        look: &mut Look,
        notices: &Notices<'_>,
        now: Instant,
        sorted: &mut Sorted,
    ) {
        for path in look.absent.clone() {
            if !self.rests(&path, None, false, now) {
                sorted.asked.push(path);
                continue;
            }
            look.absent.remove(&path);
            look.absent_dirs.remove(&path);
            sorted.resting.extend(notices.items_of(&path));
        }
    }

    /// Evaluates the remote's answer; true when it shows for the first time that the remote mirrors back.
    pub fn learn(&mut self, look: &Look, notices: &Notices<'_>, asked: &EchoCheck) -> bool {
        let names: HashSet<&RelPath> = asked.sorted.asked.iter().collect();
        let proves = |entry: &Present| {
            names.contains(&entry.path)
                && asked.answer.same.contains(&entry.path)
                && self.is_from_elsewhere(notices, entry)
        };
        if !look.present.iter().any(proves) {
            return false;
        }
        let is_news = !self.is_pair(asked.now);
        self.pair_seen = Some(asked.now);
        is_news
    }

    /// Removes from `look` what the remote already has, and what it lacks but has to wait longer. Returns the items that
    /// wait.
    pub fn conclude(
        &mut self,
        look: &mut Look,
        notices: &Notices<'_>,
        asked: EchoCheck,
    ) -> Vec<Item> {
        let EchoCheck { answer, sorted: Sorted { resting: mut items, asked }, now } = asked;
        let asked: HashSet<RelPath> = asked.into_iter().collect();
        let is_pair = self.is_pair(now);
        look.present.retain(|entry| {
            if !asked.contains(&entry.path) {
                return true;
            }
            let arrived = notices.arrived(&entry.path);
            let fresh = Resting { first: now, since: now, version: entry.version, arrived };
            let known = self.resting.remove(&entry.path);
            let resting = known.unwrap_or(fresh);
            if answer.same.contains(&entry.path) {
                return false;
            }
            let is_over = if is_pair {
                now.duration_since(resting.first) >= REST_MAX
            } else {
                // A mutual mirror may already have written the next version. Only a second question tells it from the next in a chain.
                let is_first = known.is_none() && self.strangers < STRANGERS;
                !(is_first && arrived)
            };
            if is_over {
                self.strangers += u32::from(!is_pair);
                return true;
            }
            self.resting.insert(entry.path.clone(), Resting { since: now, ..resting });
            items.extend(notices.item(&entry.path).cloned());
            false
        });
        let absent: Vec<_> = asked.into_iter().filter(|path| look.absent.contains(path)).collect();
        for path in absent {
            let known = self.resting.remove(&path);
            let is_there = answer.may_have(&path);
            // A writer may use a temporary name twice. What still exists after two waits is not temporary.
            let twice = known.is_none_or(|r| now.duration_since(r.first) >= DEFERRED_FOR * 2);
            if is_there && twice {
                continue;
            }
            look.absent.remove(&path);
            look.absent_dirs.remove(&path);
            if let Some(resting) = known.filter(|_| is_there) {
                items.extend(notices.items_of(&path));
                self.resting.insert(path, Resting { since: now, ..resting });
            }
        }
        items
    }

    /// True for a file that an rsync received here and that the remote cannot have from us. Nothing else is evidence of a pair:
    /// copying or unpacking files sets their times just as rsync does.
    fn is_from_elsewhere(&self, notices: &Notices<'_>, entry: &Present) -> bool {
        let rested = self.resting.get(&entry.path);
        let arrived =
            rested.is_some_and(|resting| resting.arrived && resting.version == entry.version);
        (arrived || notices.arrived(&entry.path))
            && entry.version.is_some_and(|version| self.ours.lacks(&entry.path, version))
    }

    /// Whether an arrival may come from the remote. A remote that does not mirror back is asked less and less often.
    fn suspects(&mut self, look: &Look, notices: &Notices<'_>, is_pair: bool) -> bool {
        let came =
            |entry: &Present| came_with_its_times(entry) && !is_somebodys(notices, entry, is_pair);
        let any = look.present.iter().any(came);
        self.arrivals += u64::from(any);
        is_pair || self.strangers < STRANGERS || self.arrivals.is_power_of_two()
    }

    /// True while the present version of `path` has not waited long enough.
    fn rests(
        &mut self,
        path: &RelPath,
        version: Option<Version>,
        arrived: bool,
        now: Instant,
    ) -> bool {
        let fresh = Resting { first: now, since: now, version, arrived };
        let resting = self.resting.entry(path.clone()).or_insert(fresh);
        if resting.version != version {
            *resting = Resting { first: resting.first, ..fresh };
        }
        resting.arrived |= arrived;
        now.duration_since(resting.since) < DEFERRED_FOR
            && now.duration_since(resting.first) < REST_IN_A_STREAM
    }
}

/// True for a file that something other than rsync renamed. In a pair this proves nothing for a file younger than the last
/// event that was read.
fn is_somebodys(notices: &Notices<'_>, entry: &Present, is_pair: bool) -> bool {
    notices.was_renamed(&entry.path) && (!is_pair || notices.covers(entry))
}

/// True for a file whose modification time was set after it was written, as rsync does. A plain write leaves both times equal.
fn came_with_its_times(entry: &Present) -> bool {
    entry.version.is_some_and(|version| version.changed != version.stamp.modified)
}

#[cfg(test)]
mod tests;
