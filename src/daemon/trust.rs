//! Decides how far a watch root is trusted: starts walks and counts, and decides about deletions by their results.
//! `catch_up.rs` walks and `guard.rs` counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::catch_up::{CatchUp, WalkResult};
use super::guard::{Count, Guard};
use super::main_event::{self, Counted, Walked};
use super::notice::{Names, Withheld};
use crate::change::{RootId, RootLoss, WatchEvent};
use crate::engine::{Deletions, Event, FullSyncCause};
use crate::ground::time::wall_ms;
use crate::record::{Merged, Observation};
use crate::snapshot::Alarm;
use crate::source::Source;
use crate::sys::memory;

/// How far each root is trusted. Its methods return the events that follow for the engine.
pub struct Trust {
    /// The watch roots by id.
    sources: Vec<Arc<Source>>,
    names: Names,
    /// The record of each root; `None` if no state can be kept.
    catch_up: Option<CatchUp>,
    /// Roots that are walked after the full sync, which needs the processors and finds the same changes.
    walk_later: Vec<RootId>,
    /// Roots that came back and are counted before they are trusted.
    counts: HashMap<RootId, Count>,
    /// Roots whose deletions are withheld or undecided.
    restrained: BTreeMap<RootId, Deletions>,
    /// Roots whose next walk or count an operator has confirmed.
    confirmed: BTreeSet<RootId>,
    /// Roots that are already being compared with the remotes, because they are another directory than before.
    compared: BTreeSet<RootId>,
    /// Why the deletions of a root are withheld.
    alarms: BTreeMap<RootId, Alarm>,
}

/// What to do with an event of the watch thread.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Pass it to the engine.
    Passes,
    /// Do not pass it: a walk finds what was lost, so the engine need not compare anything.
    Walks,
    /// Do not pass it yet: the root is counted first, and stays lost until then.
    Counts,
}

impl Trust {
    /// Trusts every root at first.
    pub fn new(sources: Vec<Arc<Source>>, names: Names, catch_up: Option<CatchUp>) -> Self {
        Self {
            sources,
            names,
            catch_up,
            walk_later: Vec::new(),
            counts: HashMap::new(),
            restrained: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            compared: BTreeSet::new(),
            alarms: BTreeMap::new(),
        }
    }

    fn roots(&self) -> impl Iterator<Item = RootId> + use<> {
        (0..self.sources.len()).map(RootId)
    }

    /// Call it when the watches are set: from now on, the next start finds a change that is neither delivered nor in the
    /// journal.
    pub fn begin_records(&self) {
        self.catch_up.iter().for_each(CatchUp::begin);
    }

    /// Examines an event before the engine gets it.
    pub fn admit(&mut self, event: &Event) -> Admission {
        match event {
            // A walk that waits for the end of a full sync would take what is there by then for what was sent. So the full sync is told
            // of the loss, and starts over at its end.
            Event::Watch(WatchEvent::Overflow { root })
                if !self.walk_later.contains(root) && self.look_for_changes(*root) =>
            {
                Admission::Walks
            }
            Event::Watch(WatchEvent::RootLost { root, .. }) => {
                self.counts.remove(root);
                Admission::Passes
            }
            Event::Watch(WatchEvent::RootBack { root, .. }) if self.is_to_be_counted(*root) => {
                Admission::Counts
            }
            Event::FullSync(_) => {
                self.warn_of_restraint();
                Admission::Passes
            }
            _ => Admission::Passes,
        }
    }

    /// Accepts the directory that is now at the root's path, because the root is trusted.
    pub fn renew(&self, root: RootId) {
        if let Some(source) = self.sources.get(root.0)
            && let Err(error) = source.renew()
        {
            log::error!("{error}");
        }
    }

    /// What of an observation below `root` is recorded. While deletions are undecided or withheld these are only new names: the record
    /// must not forget entries that are gone here but not deleted on the remotes yet. The same holds during a walk: it looks for
    /// changes that no remote was told of, and one remote's delivery must not hide them from the others.
    pub fn recordable(&self, root: RootId, observation: Observation) -> Option<Observation> {
        self.catch_up.as_ref()?;
        Some(match self.restrained.contains_key(&root) || self.is_looking(root) {
            true => observation.names_only(),
            false => observation,
        })
    }

    /// Records the observation of a job that has succeeded.
    pub fn append(&mut self, root: RootId, observation: &Observation) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.append(root, observation);
        }
    }

    /// Merges long records.
    pub fn merge_long_records(&mut self) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.merge_long_records();
        }
    }

    /// Starts the records anew after the state directory was deleted.
    pub fn start_records_anew(&mut self) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.start_anew(|root| self.restrained.contains_key(&root));
        }
    }

    /// Closes the records.
    pub fn close(&mut self) {
        self.catch_up.iter_mut().for_each(CatchUp::close);
    }

    /// Reads the operator's confirmation of deletions. It holds for the results of this start: of a count, and of the
    /// walk that follows unless `with_walks` is false.
    pub fn heed_confirmation(&mut self, with_walks: bool) {
        if self.guard().is_some_and(Guard::take_confirmation) {
            log::warn!(
                "deletions are confirmed: what is gone is deleted on the remotes, however much it is"
            );
            let roots = self.roots().filter(|root| with_walks || self.counts.contains_key(root));
            self.confirmed = roots.collect();
        }
    }

    /// Makes the deletions of recorded roots undecided until a walk has found what is gone. Call it before anything is
    /// sent.
    pub fn doubt_recorded_roots(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for root in self.roots() {
            let Some(catch_up) = &self.catch_up else { continue };
            if catch_up.has_record(root) {
                events.extend(self.decide_deletions(root, Deletions::Undecided));
            } else if !catch_up.can_record(root) {
                // The log has told it already.
                self.raise_alarm(root, &Withheld::Unrecorded);
                events.extend(self.decide_deletions(root, Deletions::Withheld));
            }
        }
        events
    }

    /// Looks for changes made while the program was down. With a full sync the walk comes later, because the full sync
    /// finds the same changes and needs the processors; but not if the full sync must wait for the walk's result.
    pub fn look_for_changes_since_the_last_run(&mut self, with_full_sync: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for root in self.roots() {
            // A root that is being counted is walked when it is trusted.
            if self.counts.contains_key(&root) {
                continue;
            }
            let undecided = self.deletions(root) == Deletions::Undecided;
            if with_full_sync && !undecided {
                self.walk_later.push(root);
            } else if !self.look_for_changes(root) && undecided {
                let is_confirmed = self.confirmed.remove(&root);
                let reason = "nobody can tell what is gone";
                events.extend(self.do_without_walk(root, is_confirmed, reason));
            }
        }
        events
    }

    /// Starts the walks that waited. Call it when no comparison is running.
    pub fn start_waiting_walks(&mut self) {
        for root in std::mem::take(&mut self.walk_later) {
            self.look_for_changes(root);
        }
    }

    /// Walks `root` to find unseen changes; false when only a comparison with the remotes can find them.
    fn look_for_changes(&mut self, root: RootId) -> bool {
        let is_confirmed = self.confirmed.contains(&root);
        self.catch_up.as_mut().is_some_and(|catch_up| catch_up.start(root, is_confirmed))
    }

    /// Handles the end of a walk. What it found is already pending, and durably in the journal.
    pub fn caught_up(&mut self, walked: Walked) -> Vec<Event> {
        let Some(catch_up) = &mut self.catch_up else { return Vec::new() };
        let (root, verdict, goes_on) = catch_up.finish(walked);
        memory::release_unused();
        let is_confirmed = self.confirmed.remove(&root);
        let is_compared = self.compared.remove(&root);
        let mut events = self.walked(root, verdict, is_confirmed, is_compared);
        if !goes_on {
            events.extend(self.do_without_next_walk(root));
        }
        events
    }

    /// Handles the result of a walk.
    fn walked(
        &mut self,
        root: RootId,
        verdict: WalkResult,
        is_confirmed: bool,
        is_compared: bool,
    ) -> Vec<Event> {
        match verdict {
            WalkResult::Unmounted(lost)
                if !is_confirmed && self.deletions(root) != Deletions::Allowed =>
            {
                self.withhold_deletions(root, &Withheld::Unmounted(&lost))
            }
            // The watch thread handles lost mounts itself.
            WalkResult::All | WalkResult::Unmounted(_) | WalkResult::FirstStart => {
                self.decide_deletions(root, Deletions::Allowed)
            }
            // The result of this walk is valid; another walk writes the new record.
            WalkResult::RecordLost => {
                let events = self.decide_deletions(root, Deletions::Allowed);
                self.look_for_changes(root);
                events
            }
            WalkResult::TooMuchGone(remains) => {
                self.withhold_deletions(root, &Withheld::TooMuchGone(remains))
            }
            WalkResult::Unknown(_) | WalkResult::Listed(_) if is_compared => {
                self.do_without_verdict(root)
            }
            WalkResult::Unknown(reason) => {
                let path = self.names.root(root);
                log::warn!("{path}: {reason}; everything is compared with the remotes");
                let mut events = self.do_without_verdict(root);
                events.push(Event::CompareRoot(root, FullSyncCause::Unrecorded));
                events
            }
            WalkResult::Listed(reason) => {
                let path = self.names.root(root);
                log::warn!(
                    "{path}: {reason}; every entry is sent where it differs, and nothing is deleted that only a remote has \
                     (a start with -r deletes it)"
                );
                self.do_without_verdict(root)
            }
            WalkResult::Unfinished(reason) => {
                let mut events = self.do_without_walk(root, is_confirmed, &reason);
                events.push(Event::CompareRoot(root, FullSyncCause::Unrecorded));
                events
            }
        }
    }

    /// Handles the end of a merge; a walk may have waited for it.
    pub fn merged(&mut self, root: RootId, merged: Merged) -> Vec<Event> {
        let Some(catch_up) = &mut self.catch_up else { return Vec::new() };
        match catch_up.merged(root, merged) {
            true => Vec::new(),
            false => self.do_without_next_walk(root),
        }
    }

    /// A walk that waited for its turn cannot start.
    fn do_without_next_walk(&mut self, root: RootId) -> Vec<Event> {
        let mut events = self.do_without_walk(root, false, "nobody can tell what changed unseen");
        events.push(Event::CompareRoot(root, FullSyncCause::Unrecorded));
        events
    }

    /// Handles a root that cannot be walked: if it is guarded, its deletions are withheld.
    fn do_without_walk(&mut self, root: RootId, is_confirmed: bool, reason: &str) -> Vec<Event> {
        let is_guarded = self.catch_up.as_ref().is_some_and(|catch_up| {
            catch_up.lists_unrecorded()
                || catch_up.is_guarded(root) && self.deletions(root) == Deletions::Undecided
        });
        if is_guarded && !is_confirmed {
            self.withhold_deletions(root, &Withheld::Unsearched(reason))
        } else {
            let path = self.names.root(root);
            log::warn!("{path}: {reason}; everything is compared with the remotes");
            self.do_without_verdict(root)
        }
    }

    /// Ends an undecided state without a walk's verdict. Deletions that were withheld before stay withheld.
    fn do_without_verdict(&mut self, root: RootId) -> Vec<Event> {
        match self.deletions(root) {
            Deletions::Undecided => self.decide_deletions(root, Deletions::Allowed),
            Deletions::Allowed | Deletions::Withheld => Vec::new(),
        }
    }

    /// Stops sending from roots that are another directory than before, until they are counted.
    pub fn distrust_changed_roots(&mut self) -> Vec<Event> {
        self.roots().filter_map(|root| self.distrust(root)).collect()
    }

    fn distrust(&mut self, root: RootId) -> Option<Event> {
        let catch_up = self.catch_up.as_ref().filter(|it| it.is_of_another_root(root));
        let source = self.sources.get(root.0);
        let (catch_up, source) = catch_up.zip(source)?;
        let count = catch_up.count(root, source.path())?;
        self.counts.insert(root, count);
        Some(Event::Watch(WatchEvent::RootLost { root, loss: RootLoss::Replaced }))
    }

    /// True when a root that came back must be counted first; it stays lost until then.
    fn is_to_be_counted(&mut self, root: RootId) -> bool {
        let (Some(catch_up), Some(source)) = (&self.catch_up, self.sources.get(root.0)) else {
            return false;
        };
        let count = catch_up.count(root, source.path());
        count.map(|count| self.counts.insert(root, count)).is_some()
    }

    /// Handles the result of a count: trusts the root, or keeps it lost.
    pub fn counted(&mut self, counted: &Counted) -> Vec<Event> {
        let root = counted.root;
        let Some(count) = self.counts.get_mut(&root) else { return Vec::new() };
        if let main_event::CountVerdict::TooFew(found, known) = counted.verdict
            && !self.confirmed.contains(&root)
        {
            count.alarm();
            let advice = self.advice();
            let reason = format!("it holds {found} entries, and {known} are known ({advice})");
            return vec![Event::Watch(WatchEvent::RootLost { root, loss: RootLoss::Gone(reason) })];
        }
        self.counts.remove(&root);
        self.confirmed.remove(&root);
        let is_walking = self.catch_up.as_ref().is_some_and(|catch_up| catch_up.is_walking(root));
        let mut events = Vec::new();
        if self.deletions(root) == Deletions::Undecided && !is_walking {
            events.extend(self.decide_deletions(root, Deletions::Allowed));
        }
        events.push(Event::Watch(WatchEvent::RootBack { root, replaced: true }));
        if self.catch_up.as_ref().is_some_and(|it| it.is_of_another_root(root)) {
            // The count replaces a confirmation, and the comparison is already reported.
            self.confirmed.insert(root);
            self.compared.insert(root);
            self.look_for_changes(root);
        }
        events
    }

    /// Whether deletions below `root` may be made on the remotes.
    pub fn deletions(&self, root: RootId) -> Deletions {
        self.restrained.get(&root).copied().unwrap_or_default()
    }

    /// Why the deletions below `root` are withheld.
    pub fn alarm(&self, root: RootId) -> Option<&Alarm> {
        self.alarms.get(&root).filter(|_| self.deletions(root) == Deletions::Withheld)
    }

    /// Withholds the deletions below `root`, and tells the operator why: in the log and in every snapshot.
    fn withhold_deletions(&mut self, root: RootId, why: &Withheld<'_>) -> Vec<Event> {
        let sentence = self.raise_alarm(root, why);
        log::error!("ALARM: {sentence}");
        self.decide_deletions(root, Deletions::Withheld)
    }

    fn raise_alarm(&mut self, root: RootId, why: &Withheld<'_>) -> String {
        let text = self.names.withheld(root, why, &self.advice());
        self.alarms.insert(root, Alarm { since_ms: wall_ms(), text: text.clone() });
        text
    }

    fn decide_deletions(&mut self, root: RootId, verdict: Deletions) -> Vec<Event> {
        let before = match verdict {
            Deletions::Allowed => self.restrained.remove(&root),
            restraint => self.restrained.insert(root, restraint),
        };
        let is_new = before.unwrap_or_default() != verdict;
        is_new.then_some(Event::Deletions(root, verdict)).into_iter().collect()
    }

    /// True while a walk or a count of `root` is running or waits to start.
    pub fn is_looking(&self, root: RootId) -> bool {
        self.counts.contains_key(&root)
            || self.catch_up.as_ref().is_some_and(|catch_up| catch_up.is_walking(root))
    }

    /// Handles an operator's confirmation at run time: returns the roots whose deletions were held back, those where a walk or a count
    /// is running, which must be confirmed again after its alarm, and the events that follow.
    pub fn confirm(&mut self) -> (Vec<RootId>, Vec<RootId>, Vec<Event>) {
        let (mut confirmed, mut at_walk, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for root in self.roots() {
            if let Some(count) = self.counts.get(&root) {
                if !count.is_alarmed() {
                    at_walk.push(root);
                    continue;
                }
                let verdict = main_event::CountVerdict::Enough;
                events.extend(self.counted(&Counted { root, verdict }));
            } else if self.deletions(root) == Deletions::Withheld {
                if self.catch_up.as_ref().is_some_and(|catch_up| catch_up.is_at_walk(root)) {
                    at_walk.push(root);
                    continue;
                }
                self.confirmed.insert(root);
                // A walk finds first what is gone. If it cannot start, compare whole directories.
                if !self.look_for_changes(root) {
                    self.confirmed.remove(&root);
                    events.extend(self.decide_deletions(root, Deletions::Allowed));
                }
            } else {
                continue;
            }
            confirmed.push(root);
        }
        (confirmed, at_walk, events)
    }

    /// Warns before a full sync about roots in which it will delete nothing.
    fn warn_of_restraint(&self) {
        for (root, _) in self.restrained.iter().filter(|(_, it)| **it == Deletions::Withheld) {
            log::warn!(
                "the full sync deletes nothing below {}; {}",
                self.names.root(*root),
                self.advice()
            );
        }
    }

    fn guard(&self) -> Option<&Guard> {
        self.catch_up.as_ref().map(CatchUp::guard)
    }

    fn advice(&self) -> String {
        self.guard().map_or_else(String::new, Guard::advice)
    }
}
