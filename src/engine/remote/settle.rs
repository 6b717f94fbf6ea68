//! Handles a job's report: what is delivered, failed, returned or put back, and whether the remote is up.
//! Starts nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry};
use std::time::Duration;

use super::{Flight, FlushMark, Origin, RemoteState};
use crate::change::Scope;
use crate::engine::deferred::Condition;
use crate::engine::locks::Owner;
use crate::engine::mark::only_confirm;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::retry::{FailLogChange, Outage};
use crate::engine::trie::{Trie, TrieNode};
use crate::engine::{
    Action, DEFERRED_FOR, Extraneous, FullSyncCause, FullSyncFilter, JobId, JobKind, JobReport,
    Notice, Now, PathFailure, RemoteDeletions, Settled, Verdict,
};
use crate::failure::{Failure, FailureKind};
use crate::path::RelPath;

/// When a remote is back after an outage of this length, jobs from before it are aborted: their connections are dead. After a
/// shorter outage they may still work.
const CONNECTIONS_OUTLIVE: Duration = Duration::from_secs(5);

/// The paths that failed, and how to retry them.
#[derive(Default)]
struct Blame {
    /// The paths that are not delivered.
    undone: BTreeSet<RelPath>,
    /// What to retry, and why it failed.
    again: BTreeMap<RelPath, (Mark, PathFailure)>,
}

/// What became of the items of a job; what has failed is missing here.
#[derive(Default)]
struct Sorted {
    delivered: Vec<Item>,
    /// Delivered, but for the deletions below.
    withheld: Vec<Item>,
    rechecked: Vec<Item>,
    /// Trees of which only the returned parts are still owed.
    divided: Vec<Item>,
    /// Parts of a full sync that are compared again after it, for the deletions.
    after: Vec<Item>,
    log: FailLogChange,
}

impl Blame {
    /// What is retried but is none of these items, which the journal names: it has to name this, too.
    fn items_beside(&self, items: &[Item]) -> Vec<Item> {
        if self.again.is_empty() {
            return Vec::new();
        }
        let own: HashSet<&RelPath> = items.iter().map(|item| &item.path).collect();
        let below = self.again.iter().filter(|(path, _)| !own.contains(path));
        below.map(|(path, (mark, _))| Item { path: path.clone(), mark: *mark }).collect()
    }
}

impl RemoteState {
    /// Handles a worker's report.
    pub fn job_done(&mut self, now: Now, id: JobId, report: JobReport, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.end(now, id) else { return };
        self.locks.drop_owner(&Owner::Job(id));
        self.backlog.search_again();
        let full_sync = self.full_sync.as_mut().filter(|_| flight.origin == Origin::FullSync);
        full_sync.into_iter().for_each(|full_sync| full_sync.count(&report));
        if !only_confirm(&flight.items) {
            self.contact.keep_sessions(now);
        }
        if !self.is_active() {
            return;
        }
        if report.verdict == Verdict::Done {
            return self.settle(now, id, flight, report, actions);
        }
        self.put_back(&flight);
        self.flush_undone(id, &flight.items);
        self.recheck_aborted(now, &flight);
        if flight.began < self.contact.up_since() {
            // It began before the remote came back, so its failure says nothing about the remote now.
            return;
        }
        if let Verdict::Failed(failure) = report.verdict {
            self.goes_down(now, flight.began, failure, actions);
        }
    }

    fn goes_down(&mut self, now: Now, began: Now, failure: Failure, out: &mut Vec<Action>) {
        let (remote, root, pending) = (self.setup.id, self.setup.root, self.waiting());
        let salt = remote.0 as u64 + 1;
        if self.contact.fail(now, began, salt, failure.clone()) {
            out.push(Action::Notify(Notice::Failed { remote, root, failure, pending }));
        }
        out.push(Action::CloseSessions(remote));
    }

    fn comes_up(&mut self, now: Now, flight: &Flight, actions: &mut Vec<Action>) {
        let Some(outage) = self.contact.answer(now) else { return };
        // Rechecks that became pending before the outage was noticed are no longer deferred. Late data may still arrive after them, so
        // defer them again.
        let at_once = flight.items.iter().cloned().chain(self.backlog.pending.iter());
        let is_early = |item: &Item| matches!(item.mark.recheck, Recheck::Only | Recheck::Also);
        let early: Vec<Item> = at_once.filter(is_early).collect();
        early.iter().for_each(|item| self.recheck(now, item));
        self.put_off_rechecks(now, outage.since);
        if outage.tries == 0 {
            return;
        }
        // Jobs that are still in flight have connections from before the outage.
        if !self.flights.is_empty() && now - outage.since >= CONNECTIONS_OUTLIVE {
            actions.push(Action::Abort(self.setup.id));
        }
        // What it refused before, it may accept now.
        for (path, due) in self.failing.all_sooner() {
            self.deferred.bring_forward(due.max(now), &path);
        }
        let waiting = self.waiting() + flight.items.len();
        if flight.kind.is_question() && self.has_undelivered() {
            self.contact.doubt(outage);
        } else {
            self.notify_over(&outage, waiting, actions);
        }
    }

    fn has_undelivered(&self) -> bool {
        !self.backlog.pending.is_empty() || self.full_sync.is_some() || !self.flights.is_empty()
    }

    /// Reports the end of each kind of failure in this outage.
    fn notify_over(&self, outage: &Outage, pending: usize, actions: &mut Vec<Action>) {
        let (remote, root) = (self.setup.id, self.setup.root);
        let after = self.contact.up_since() - outage.since;
        let mut said = Vec::new();
        for kind in FailureKind::all().filter(|kind| outage.has_had(*kind)) {
            // Kinds with the same sentence share one.
            let over = kind.policy().over;
            if !said.contains(&over) {
                said.push(over);
                let over = Notice::Over { remote, root, kind, after, pending };
                actions.push(Action::Notify(over));
            }
        }
    }

    /// Returns the items of a failed job to the set they came from.
    fn put_back(&mut self, flight: &Flight) {
        let to = match &mut self.full_sync {
            Some(full_sync) if flight.origin == Origin::FullSync => {
                full_sync.in_flight = full_sync.in_flight.saturating_sub(flight.items.len());
                &mut full_sync.left
            }
            _ => &mut self.backlog.pending,
        };
        for item in &flight.items {
            to.mark(&item.path, item.mark);
        }
        self.backlog.age(flight.pending_since);
    }

    /// Marks what a worker returned. Shards go to the full sync, large files to the pending set. A vanished tree is deferred, because
    /// its job deletes: if a file system was unmounted, the watch thread reports that first.
    fn take_back(&mut self, now: Now, flight: &Flight, returned: &[Item]) {
        let mut full_sync = self.full_sync.as_mut().filter(|_| flight.origin == Origin::FullSync);
        if let Some(full_sync) = &mut full_sync {
            full_sync.in_flight = full_sync.in_flight.saturating_sub(flight.items.len());
        }
        for item in returned {
            match &mut full_sync {
                Some(full_sync) if item.mark.shard => {
                    _ = full_sync.left.mark(&item.path, item.mark)
                }
                Some(_) if item.mark.scope == Scope::Tree => {
                    self.deferred.defer(Condition::At(now + DEFERRED_FOR), item);
                }
                _ => self.backlog.put_back(item),
            }
        }
        if !returned.is_empty() {
            self.backlog.age(flight.pending_since);
        }
    }

    fn settle(
        &mut self,
        now: Now,
        job: JobId,
        flight: Flight,
        report: JobReport,
        actions: &mut Vec<Action>,
    ) {
        self.end_outage(now, &flight, actions);
        if report.aborted {
            self.recheck_aborted(now, &flight);
        }
        let is_refused = report.remote_deletions == RemoteDeletions::Refused;
        if report.remote_deletions != RemoteDeletions::Unknown {
            self.permission.deletions_are_refused = is_refused;
        }
        let deleted_below = flight.deletes_below && !is_refused;
        let JobReport { failed, returned, deferred, unconfirmed, deleted, .. } = report;
        let (undone_moves, together) = (report.undone, report.together);
        let names: BTreeSet<&RelPath> =
            undone_moves.iter().flat_map(|undone| [&undone.new, &undone.old]).collect();
        let left_alone = flight.items.iter().filter(|item| names.contains(&item.path));
        let left_alone: Vec<Item> = left_alone.cloned().collect();
        let mut back = Trie::default();
        for item in returned.iter().chain(&deferred).chain(&left_alone) {
            back.insert(&item.path, item.mark);
        }
        let blame = self.blame(&flight.items, failed);
        let undone: Vec<RelPath> = blame.undone.iter().cloned().collect();
        let Sorted { delivered, withheld, rechecked, divided, after, log } =
            self.sort(&flight, &back, &blame.undone, deleted_below);
        // The journal names a full sync as a whole, and its end cancels that.
        let named = if flight.origin == Origin::FullSync { &[] } else { &flight.items[..] };
        let failed = blame.items_beside(named);
        let log = log.max(self.note_failures(now, blame, actions));
        self.retry_siblings(now, flight.began, &delivered);
        self.take_back(now, &flight, &returned);
        self.backlog.together.note(together);
        self.give_back(now, undone_moves, &left_alone);
        returned.iter().for_each(|item| self.wait_for_origin(now, &item.path));
        for item in &deferred {
            self.backlog.forget_moves(item);
            self.deferred.defer(Condition::At(now + DEFERRED_FOR), item);
        }
        let mut returned = [returned, deferred, left_alone].concat();
        returned.extend(self.confirm_later(now, unconfirmed, &flight.items, &deleted));
        self.flush_settled(job, &flight, undone, &returned, &withheld);
        if flight.origin == Origin::FullSync {
            self.note_extraneous(flight.deletes_below, report.remote_deletions);
            self.finish_full_sync(now, returned.len(), actions);
            returned.retain(|item| !item.mark.shard);
            returned.extend(after);
        }
        returned.extend(self.recheck_sent(&flight.items));
        returned.extend(failed);
        if log == FailLogChange::Changed {
            actions.push(Action::FailLogChanged);
        }
        let remote = self.setup.id;
        let pending_since = flight.pending_since;
        let settled = Settled {
            job,
            remote,
            pending_since,
            delivered,
            withheld,
            rechecked,
            returned,
            divided,
        };
        actions.push(Action::Settled(settled));
    }

    /// Only a trial ends an outage: any other job in flight began before the outage.
    fn end_outage(&mut self, now: Now, flight: &Flight, actions: &mut Vec<Action>) {
        if flight.is_trial {
            self.comes_up(now, flight, actions);
        } else if !flight.kind.is_question()
            && let Some(outage) = self.contact.recover()
        {
            self.notify_over(&outage, self.waiting() + flight.items.len(), actions);
        }
    }

    /// Sorts the items of a job that has ended. `back` holds what was returned, `undone` what rsync could not deliver.
    fn sort(
        &mut self,
        flight: &Flight,
        back: &Trie<Mark>,
        undone: &BTreeSet<RelPath>,
        deleted_below: bool,
    ) -> Sorted {
        let mut sorted = Sorted::default();
        // A filtered sync may leave failing paths out, so it settles none.
        let unfiltered = flight.kind != JobKind::Trees(FullSyncFilter::Crontab);
        for item in &flight.items {
            let keep = |path: &RelPath| undone.contains(path);
            let piece = piece_of(item, back);
            if unfiltered {
                sorted.log = sorted.log.max(match piece {
                    // The tree failed and is retried as a whole: the count of its tries goes on.
                    Some(_) if keep(&item.path) => FailLogChange::Same,
                    Some(piece) => self.divide(item, piece),
                    None => self.forget_failing(item, keep),
                });
            }
            let is_whole = deleted_below || !item.deletes_below();
            let of_full_sync = flight.origin == Origin::FullSync;
            let is_divided = piece.is_some() && item.mark.scope == Scope::Tree;
            if is_divided && is_whole && !of_full_sync && !keep(&item.path) {
                sorted.divided.push(item.clone());
            }
            if piece.is_none() && !keep(&item.path) {
                self.backlog.forget_moves(item);
                let to = match item.mark.recheck {
                    _ if !is_whole => &mut sorted.withheld,
                    Recheck::Only | Recheck::Confirm => &mut sorted.rechecked,
                    Recheck::No | Recheck::Also => &mut sorted.delivered,
                };
                to.push(item.clone());
            }
            if unfiltered && !is_whole {
                self.compare_again(item);
                sorted.after.extend(Some(item.clone()).filter(|_| of_full_sync));
            }
        }
        sorted
    }

    /// Sends an item again with deletions, now or when they are allowed.
    fn compare_again(&mut self, item: &Item) {
        if self.permission.may_delete() {
            self.backlog.pending.mark(&item.path, item.mark);
        } else {
            self.deferred.defer(Condition::Deletions, item);
        }
    }

    fn forget_failing(&mut self, item: &Item, keep: impl Fn(&RelPath) -> bool) -> FailLogChange {
        let (log, delivered) = self.failing.delivered(item, keep);
        delivered.iter().for_each(|path| self.deferred.delivered(item, path));
        log
    }

    fn divide(&mut self, item: &Item, piece: Option<Mark>) -> FailLogChange {
        let is_timed = |path: &RelPath| self.deferred.due_at(path).is_some();
        let (log, again) = self.failing.divided(item, piece, is_timed);
        for item in again {
            self.backlog.pending.mark(&item.path, item.mark);
        }
        log
    }

    /// Finds out what to retry for each path that rsync named.
    fn blame(&self, items: &[Item], failed: Vec<PathFailure>) -> Blame {
        let mut blame = Blame::default();
        if failed.is_empty() {
            return blame;
        }
        let mut flown = Trie::default();
        for item in items {
            flown.insert(&item.path, item.mark);
        }
        let mut places = self.setup.limits.failing_paths.saturating_sub(self.failing.len());
        for failure in failed {
            for (mut path, mut mark) in blame_one(&flown, &failure.path) {
                blame.undone.insert(path.clone());
                if !self.failing.contains(&path) && !blame.again.contains_key(&path) {
                    if places == 0 {
                        // Above the limit, retry the whole tree instead of single paths.
                        path = RelPath::root();
                        let Mark { compare_content, additive, .. } = mark;
                        mark = Mark { compare_content, additive, ..Mark::new(Scope::Tree) };
                    }
                    places = places.saturating_sub(1);
                }
                match blame.again.entry(path) {
                    Entry::Occupied(mut known) => known.get_mut().0 = known.get().0.merge(mark),
                    Entry::Vacant(free) => {
                        free.insert((mark, failure.clone()));
                    }
                }
            }
        }
        blame
    }

    fn note_failures(
        &mut self,
        now: Now,
        blame: Blame,
        actions: &mut Vec<Action>,
    ) -> FailLogChange {
        let mut logged = Vec::new();
        for (path, (mark, failure)) in blame.again {
            let retry = self.failing.fail(now, Item { path, mark }, failure.failure.clone());
            self.deferred.defer(Condition::At(retry.due), &retry.item);
            if retry.log == FailLogChange::Changed {
                logged.push((failure, retry.due));
            }
        }
        if logged.is_empty() {
            return FailLogChange::Same;
        }
        let remote = self.setup.id;
        let complaint = self.failing.complain(now, logged);
        for refusal in complaint.refusals {
            let next_try = refusal.due.saturating_sub(now);
            actions.push(Action::Notify(Notice::PathsFailed { remote, refusal, next_try }));
        }
        let (paths, directories) = (complaint.more_paths, complaint.more_directories);
        if paths > 0 {
            actions.push(Action::Notify(Notice::MorePathsFailed { remote, paths, directories }));
        }
        FailLogChange::Changed
    }

    /// After a success in a directory, retries its failing entries sooner: their cause may be gone too.
    fn retry_siblings(&mut self, now: Now, began: Now, delivered: &[Item]) {
        if self.failing.is_empty() {
            return self.failing.forget_what_was_said();
        }
        let parents: BTreeSet<RelPath> =
            delivered.iter().filter_map(|item| item.path.parent()).collect();
        for (path, due) in parents.iter().flat_map(|parent| self.failing.siblings(parent, began)) {
            self.deferred.bring_forward(due.max(now), &path);
        }
    }

    /// Notes what a job of the full sync has left on the remote.
    fn note_extraneous(&mut self, deletes_below: bool, there: RemoteDeletions) {
        let Some(full_sync) = &mut self.full_sync else { return };
        match full_sync.extraneous {
            Extraneous::Deleted if !deletes_below => full_sync.extraneous = Extraneous::Withheld,
            Extraneous::Deleted if there == RemoteDeletions::Refused => {
                full_sync.extraneous = Extraneous::Refused;
            }
            _ => {}
        }
    }

    fn finish_full_sync(&mut self, now: Now, new_shards: usize, actions: &mut Vec<Action>) {
        let Some(full_sync) = &mut self.full_sync else { return };
        full_sync.shards += new_shards;
        if full_sync.is_done() && std::mem::take(&mut full_sync.again) {
            full_sync.restart(FullSyncCause::Overflow, self.setup.unrecorded);
        } else if full_sync.is_done() {
            let (took, extraneous) = (now - full_sync.since, full_sync.extraneous);
            self.full_sync = None;
            self.flushes.iter_mut().for_each(FlushMark::full_sync_done);
            actions.push(Action::Notify(Notice::FullSyncDone {
                remote: self.setup.id,
                took,
                extraneous,
            }));
        }
    }
}

/// `Some` if `item` was returned instead of delivered, with the mark that its own path got, if any.
fn piece_of(item: &Item, back: &Trie<Mark>) -> Option<Option<Mark>> {
    let pieces = back.get(&item.path).filter(|node| !node.is_empty())?;
    // A path returned below an entry or a listing belongs to another item.
    (pieces.value.is_some() || item.mark.scope == Scope::Tree).then_some(pieces.value)
}

/// Which paths to retry when `failed` could not be delivered.
fn blame_one(flown: &Trie<Mark>, failed: &RelPath) -> Vec<(RelPath, Mark)> {
    // If a directory cannot be made, nothing below it arrives.
    let mut paths = Vec::new();
    if let Some(node) = flown.get(failed) {
        collect(&node, failed, &mut paths);
    }
    if !paths.is_empty() {
        return paths;
    }
    // The path is inside an item: retry only the part that is needed.
    let mut nearest = (failed.clone(), Mark::new(Scope::Entry));
    let mut node = flown.root();
    let mut at = RelPath::root();
    for name in failed.components() {
        let below = at.join(name).unwrap_or_default();
        if let Some(mark) = node.value {
            let Mark { compare_content, additive, .. } = mark;
            let inner = |scope| Mark { compare_content, additive, ..Mark::new(scope) };
            nearest = match mark.scope {
                Scope::Tree => (failed.clone(), inner(Scope::Tree)),
                Scope::Listing => (below.clone(), inner(Scope::Entry)),
                Scope::Entry => (at, mark),
            };
        }
        let Some(child) = node.child(name) else { break };
        (node, at) = (child, below);
    }
    vec![nearest]
}

fn collect(node: &TrieNode<Mark>, path: &RelPath, paths: &mut Vec<(RelPath, Mark)>) {
    if let Some(mark) = node.value {
        paths.push((path.clone(), mark));
    }
    for (name, child) in node.children() {
        if let Some(path) = path.join(name) {
            collect(&child, &path, paths);
        }
    }
}
