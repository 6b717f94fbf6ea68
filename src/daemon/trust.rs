//! When the tree that is there may be taken for the truth: walks and counts, what they lead to, and what is not deleted until then.
//! Walks and counts themselves are `catch_up.rs` and `guard.rs`.

use super::catch_up::Found;
use super::guard::Remains;
use super::main_event::{self, Counted, Walked};
use super::mirror::Mirror;
use crate::change::{RootId, WatchEvent};
use crate::engine::{Deletions, Event, FullSyncCause, JobKind};
use crate::path::RelPath;
use crate::record::Merged;
use crate::sys::memory;

/// Mount points that an alarm names.
const PATHS_TOLD: usize = 5;

impl Mirror {
    /// Reads an operator's word that what is gone is meant to be. It holds for what each root is found to be at this start:
    /// by a count, or by the walk that follows unless `with_walks` is false.
    pub fn heed_confirmation(&mut self, with_walks: bool) {
        if self.catch_up.as_ref().is_some_and(|catch_up| catch_up.guard().take_confirmation()) {
            log::warn!(
                "deletions are confirmed: what is gone is deleted on the remotes, however much it is"
            );
            let roots = (0..self.sources.len()).map(RootId);
            let roots = roots.filter(|root| with_walks || self.counts.contains_key(root));
            self.confirmed = roots.collect();
        }
    }

    /// Directories lose nothing by a comparison until a walk has found what is gone, where there is a record of what was there.
    /// Call it before anything is sent.
    pub fn doubt_recorded_roots(&mut self) {
        for root in (0..self.sources.len()).map(RootId) {
            let Some(catch_up) = &self.catch_up else { continue };
            if catch_up.has_record(root) {
                self.decide_deletions(root, Deletions::Undecided);
            } else if !catch_up.can_record(root) {
                self.decide_deletions(root, Deletions::Withheld);
            }
        }
    }

    /// Looks for what changed while this program was down. A full sync finds that too and needs the processors, so with one the
    /// walk comes later, unless the full sync has to wait for what it finds.
    pub fn look_for_changes_since_the_last_run(&mut self, with_full_sync: bool) {
        for root in (0..self.sources.len()).map(RootId) {
            // A root that is still counted is walked when it is trusted: until then its record stands.
            if self.counts.contains_key(&root) {
                continue;
            }
            let undecided = self.deletions(root) == Deletions::Undecided;
            if with_full_sync && !undecided {
                self.walk_later.push(root);
            } else if !self.look_for_changes(root) && undecided {
                let is_confirmed = self.confirmed.remove(&root);
                self.do_without_walk(root, is_confirmed, "nobody can tell what is gone");
            }
        }
    }

    /// Walks what could wait, once nothing is compared any more.
    pub fn walk_postponed(&mut self) {
        let compares = |kind: JobKind| matches!(kind, JobKind::Trees(_)) || kind.is_question();
        if !self.jobs.values().any(|job| compares(job.kind)) {
            for root in std::mem::take(&mut self.walk_later) {
                self.look_for_changes(root);
            }
        }
    }

    /// Looks for what changed unseen below `root`; false when that takes a comparison with the remotes.
    pub fn look_for_changes(&mut self, root: RootId) -> bool {
        let is_confirmed = self.confirmed.contains(&root);
        self.catch_up.as_mut().is_some_and(|catch_up| catch_up.start(root, is_confirmed))
    }

    /// A walk is over: what it found is pending already.
    pub fn caught_up(&mut self, walked: Walked) -> bool {
        if let Some(journal) = &mut self.journal {
            journal.commit_durably();
        }
        let Some(catch_up) = &mut self.catch_up else { return true };
        let (root, verdict) = catch_up.finish(walked);
        memory::release_unused();
        let is_confirmed = self.confirmed.remove(&root);
        match verdict {
            Found::Unmounted(lost) if self.deletions(root) != Deletions::Allowed => {
                let (path, advice) = (self.names.root(root), self.advice());
                let mut told: Vec<String> =
                    lost.iter().take(PATHS_TOLD).map(RelPath::to_string).collect();
                told.extend((lost.len() > PATHS_TOLD).then(|| "…".into()));
                let lost = told.join(", ");
                log::error!(
                    "ALARM: {lost} in {path} is not mounted any more: directories are sent, and nothing in them is \
                     deleted on the remotes; mount it and restart; {advice}"
                );
                self.decide_deletions(root, Deletions::Withheld)
            }
            // The watch thread knows of what was unmounted since.
            Found::All | Found::Unmounted(_) | Found::FirstStart => {
                self.decide_deletions(root, Deletions::Allowed)
            }
            Found::TooMuchGone(Remains { known, gone }) => {
                let (path, advice) = (self.names.root(root), self.advice());
                log::error!(
                    "ALARM: {gone} of {known} known entries below {path} are gone, and nobody saw them go: \
                     they are not deleted on the remotes; {advice}"
                );
                self.decide_deletions(root, Deletions::Withheld)
            }
            Found::Unknown(reason) => {
                log::warn!("{reason}: everything is compared with the remotes");
                self.do_without_verdict(root);
                self.handle(Event::CompareRoot(root, FullSyncCause::Unrecorded))
            }
            Found::Unfinished(reason) => {
                self.do_without_walk(root, is_confirmed, &reason);
                self.handle(Event::CompareRoot(root, FullSyncCause::Unrecorded))
            }
        }
    }

    /// A root's record was merged; a walk may have waited for that.
    pub fn merged(&mut self, root: RootId, merged: Merged) -> bool {
        let Some(catch_up) = &mut self.catch_up else { return true };
        if catch_up.merged(root, merged) {
            return true;
        }
        self.do_without_walk(root, false, "nobody can tell what changed unseen");
        self.handle(Event::CompareRoot(root, FullSyncCause::Unrecorded))
    }

    /// Nobody knows what is gone below `root`: a large one is not trusted then.
    fn do_without_walk(&mut self, root: RootId, is_confirmed: bool, reason: &str) {
        let path = self.names.root(root);
        let is_guarded = self.catch_up.as_ref().is_some_and(|catch_up| catch_up.is_guarded(root));
        if is_guarded && !is_confirmed && self.deletions(root) == Deletions::Undecided {
            log::error!(
                "{path}: {reason}; directories are sent and nothing in them is deleted: mend that and restart"
            );
            self.decide_deletions(root, Deletions::Withheld);
        } else {
            log::warn!("{path}: {reason}; everything is compared with the remotes");
            self.do_without_verdict(root);
        }
    }

    /// What was found to be wrong before is not right because nobody knows better.
    fn do_without_verdict(&mut self, root: RootId) {
        if self.deletions(root) == Deletions::Undecided {
            self.decide_deletions(root, Deletions::Allowed);
        }
    }

    /// Nothing leaves a root that is another than before until it has been counted.
    pub fn distrust(&mut self, root: RootId) {
        let catch_up = self.catch_up.as_ref().filter(|it| it.is_of_another_root(root));
        let source = self.sources.get(root.0);
        let count = catch_up.zip(source).and_then(|(it, source)| it.count(root, source.path()));
        if let Some(count) = count {
            self.counts.insert(root, count);
            let reason = "it is another directory than the one that was mirrored last".into();
            // Taken in as it is: what the watch thread says of a lost root ends its count, and this one has just begun.
            self.take_in(Event::Watch(WatchEvent::RootLost { root, reason }));
        }
    }

    /// True when a root that came back has to be counted first; it stays lost until then.
    pub fn is_to_be_counted(&mut self, root: RootId) -> bool {
        let (Some(catch_up), Some(source)) = (&self.catch_up, self.sources.get(root.0)) else {
            return false;
        };
        let count = catch_up.count(root, source.path());
        count.map(|count| self.counts.insert(root, count)).is_some()
    }

    /// A root that came back is trusted, or not yet.
    pub fn counted(&mut self, counted: &Counted) -> bool {
        let root = counted.root;
        if !self.counts.contains_key(&root) {
            return true;
        }
        if let main_event::Verdict::TooFew(found, known) = counted.verdict
            && !self.confirmed.contains(&root)
        {
            let (path, advice) = (self.names.root(root), self.advice());
            log::error!(
                "ALARM: watch path {path} holds {found} entries, and {known} are known: nothing is sent or deleted \
                 until it holds more; {advice}"
            );
            return true;
        }
        self.counts.remove(&root);
        self.confirmed.remove(&root);
        let is_walking = self.catch_up.as_ref().is_some_and(|catch_up| catch_up.is_walking(root));
        if self.deletions(root) == Deletions::Undecided && !is_walking {
            self.decide_deletions(root, Deletions::Allowed);
        }
        let go_on = self.take_in(Event::Watch(WatchEvent::RootBack { root, replaced: true }));
        if self.catch_up.as_ref().is_some_and(|it| it.is_of_another_root(root)) {
            // That it holds enough has been counted.
            self.confirmed.insert(root);
            self.look_for_changes(root);
        }
        go_on
    }

    /// Whether what is gone below `root` may be deleted from its copies.
    pub fn deletions(&self, root: RootId) -> Deletions {
        self.restrained.get(&root).copied().unwrap_or_default()
    }

    fn decide_deletions(&mut self, root: RootId, verdict: Deletions) -> bool {
        let before = match verdict {
            Deletions::Allowed => self.restrained.remove(&root),
            restraint => self.restrained.insert(root, restraint),
        };
        before.unwrap_or_default() == verdict || self.take_in(Event::Deletions(root, verdict))
    }

    /// Says before a full sync where it will delete nothing.
    pub fn warn_of_restraint(&self) {
        for (root, _) in self.restrained.iter().filter(|(_, it)| **it == Deletions::Withheld) {
            log::warn!(
                "the full sync deletes nothing below {}; {}",
                self.names.root(*root),
                self.advice()
            );
        }
    }

    fn advice(&self) -> String {
        self.catch_up.as_ref().map_or_else(String::new, |catch_up| catch_up.guard().advice())
    }
}
