//! What is known of one remote when a job is planned: which versions it has, and which stamps prove nothing.
//! Does not look at the disk or the remote.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::delivered::{Delivered, Version};
use super::fresh::{FreshStamps, Granularity, Stamp};
use super::look::Looks;
use crate::change::Scope;
use crate::path::RelPath;
use crate::rsync::Abilities;

/// Most paths that are remembered because temporary files may be left beside them.
const LEFTOVERS_MAX: usize = 10_000;

/// Everything that earlier jobs have shown about a remote.
#[derive(Debug, Default)]
pub struct Known {
    /// What the receiver can do; `None` before the first contact.
    pub abilities: Option<Abilities>,
    /// When it last refused deletions, and for how long sersync does not try again.
    pub refused_deletions: Option<(Instant, Duration)>,
    fresh: FreshStamps,
    delivered: Delivered,
    /// What aborted runs were sending: their temporary files may still exist.
    leftovers: BTreeSet<RelPath>,
}

impl Known {
    /// True when the remote has exactly this version.
    pub fn has(&self, path: &RelPath, version: &Version) -> bool {
        self.delivered.has(path, version)
    }

    /// True when something newer than `version` was sent under this name.
    pub fn has_newer(&self, path: &RelPath, version: &Version) -> bool {
        self.fresh.has_newer(path, version.stamp) || self.delivered.has_newer(path, version)
    }

    /// True when the copy may have this stamp but other content.
    pub fn hides(&self, path: &RelPath, stamp: Stamp, granularity: Granularity) -> bool {
        self.fresh.hides(path, stamp, granularity)
    }

    /// What was sent below `old` with a fresh stamp, renamed to be below `new`.
    pub fn fresh_below(&self, old: &RelPath, new: &RelPath) -> Vec<RelPath> {
        self.fresh.moved_along(old, new)
    }

    /// Remembers a stamp that is about to be sent. `now` is the clock of the files, read after the look.
    pub fn remember(
        &mut self,
        path: &RelPath,
        stamp: Stamp,
        now: Duration,
        granularity: Granularity,
    ) -> bool {
        self.fresh.note(path, stamp, now, granularity)
    }

    /// These files have arrived, with stamps that were not fresh.
    pub fn trust(&mut self, paths: &[(RelPath, Stamp)]) {
        paths.iter().for_each(|(path, _)| self.fresh.trust(path));
    }

    /// Remembers that directories are about to be sent, if the receiver compares whole seconds: only such a receiver can miss a rewrite.
    pub fn begin_directories(&mut self, looks: &Looks, now: Duration, granularity: Granularity) {
        if granularity == Granularity::Seconds {
            self.fresh.begin_directories(&looks.first.trees, Scope::Tree, now);
            self.fresh.begin_directories(&looks.first.listings, Scope::Listing, now);
        }
    }

    /// Notes that the runs which sent directories are over.
    pub fn end_directories(&mut self, looks: &Looks, now: Duration) {
        self.fresh.end_directories(&looks.first.trees, now);
        self.fresh.end_directories(&looks.first.listings, now);
    }

    /// Notes what a job delivered. `sent`: the versions that were on disk before its runs.
    pub fn delivered(&mut self, looks: &Looks, sent: Vec<(RelPath, Version)>) {
        if looks.reaches_below() {
            return self.doubt();
        }
        looks.absent().for_each(|path| self.delivered.forget(path));
        sent.into_iter().for_each(|(path, version)| self.delivered.note(&path, version));
    }

    /// Forgets which versions the remote has, because a job failed.
    pub fn doubt(&mut self) {
        self.delivered.clear();
    }

    /// Forgets fresh stamps and old deliveries. Called when everything is delivered and idle: then no copy can have older content
    /// with the same stamp.
    pub fn rest(&mut self) {
        self.fresh = FreshStamps::default();
        self.delivered.rest();
    }

    /// Remembers what a run was sending when it was aborted.
    pub fn note_leftovers<'a>(&mut self, names: impl IntoIterator<Item = &'a RelPath>) {
        let room = LEFTOVERS_MAX.saturating_sub(self.leftovers.len());
        self.leftovers.extend(names.into_iter().take(room).cloned());
    }

    /// Removes and returns what aborted runs were sending.
    pub fn take_leftovers(&mut self) -> BTreeSet<RelPath> {
        std::mem::take(&mut self.leftovers)
    }
}
