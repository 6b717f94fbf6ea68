//! Collects the changes of one read of the kernel's queue, and sends them together.
//! Drops what is switched off, excluded or repeated; does not look at the disk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::{Cause, Change, RootId, RootedPath, Scope, WatchEvent};
use crate::config::ChangeSwitches;
use crate::path::RelPath;
use crate::watch::Exclude;
use crate::watch::ignored::{IgnoreReason, IgnoredHook};
use crate::watch::steps::FreshPaths;

/// Most changes in one event. This bounds memory while a large directory is listed.
const CHANGES_MAX: usize = 4096;

/// How many reported subtrees are remembered, and for how long.
const RECENT_TREES_MAX: usize = 256;
const RECENT_TREES_LIMIT: Duration = Duration::from_secs(600);

/// How many changes back to look for the change that a step belongs to.
const STEP_LOOK_BACK: usize = 16;

/// Where the watch events go.
pub type WatchSink = Box<dyn FnMut(WatchEvent) + Send>;

/// The changes that are not sent yet.
pub struct Batch {
    switches: ChangeSwitches,
    exclude: Option<Exclude>,
    sink: WatchSink,
    changes: Vec<(RootId, Change)>,
    /// The last subtrees that were reported, newest first.
    recent_trees: VecDeque<(Instant, RootedPath)>,
    /// The paths that changed lately: the next steps of a save belong to them.
    fresh: FreshPaths,
    /// Mount points whose file system is gone: no change below them counts.
    lost: Arc<BTreeSet<RootedPath>>,
    /// When the last read of the kernel's queue began, by the clock that stamps files.
    known_until: Duration,
    /// Is called for each ignored change.
    ignored_hook: Arc<IgnoredHook>,
}

impl Batch {
    /// Nothing collected yet.
    pub fn new(switches: ChangeSwitches, exclude: Option<Exclude>, sink: WatchSink) -> Self {
        Self {
            switches,
            exclude,
            sink,
            changes: Vec::new(),
            recent_trees: VecDeque::new(),
            fresh: FreshPaths::default(),
            lost: Arc::default(),
            known_until: Duration::ZERO,
            ignored_hook: Arc::default(),
        }
    }

    /// Notes that the kernel's queue is about to be read. The queue holds everything that happened before this moment.
    pub fn note_read(&mut self) {
        self.known_until = time_of_day();
    }

    /// Is called for each ignored change.
    pub fn ignored_hook(&self) -> &Arc<IgnoredHook> {
        &self.ignored_hook
    }

    /// Which kinds of change count.
    pub fn switches(&self) -> &ChangeSwitches {
        &self.switches
    }

    /// What is not mirrored.
    pub fn exclude(&self) -> Option<&Exclude> {
        self.exclude.as_ref()
    }

    /// Mount points whose file system is gone: no change below them counts.
    pub fn lost(&self) -> &Arc<BTreeSet<RootedPath>> {
        &self.lost
    }

    /// The lost mount points, for changing them.
    pub fn lost_mut(&mut self) -> &mut BTreeSet<RootedPath> {
        Arc::make_mut(&mut self.lost)
    }

    /// True when the path itself is excluded or lies in a lost subtree.
    pub fn is_excluded(&self, root: RootId, path: &RelPath, is_dir: bool) -> bool {
        self.exclude.as_ref().is_some_and(|exclude| exclude(path, is_dir))
            || self.lost.iter().any(|(of, lost)| *of == root && path.is_within(lost))
    }

    /// True when the directory or one above it is excluded.
    pub fn is_within_excluded(&self, root: RootId, path: &RelPath) -> bool {
        let mut at = Some(path.clone());
        while let Some(path) = at.filter(|path| !path.is_root()) {
            if self.is_excluded(root, &path, true) {
                return true;
            }
            at = path.parent();
        }
        false
    }

    /// Adds a change, unless it is switched off, excluded, or repeats the previous one. A change of attributes that is switched
    /// off still counts as a step of a save.
    pub fn push(&mut self, root: RootId, change: Change) {
        let change = self.widened(root, change);
        if change.cause == Cause::Attrib && self.switches.is_step(change.cause) {
            let place = (root, change.path.clone());
            if self.fresh.contains(&place, now()) {
                self.push_step(root, change);
            } else {
                self.ignore(root, &change, IgnoreReason::SwitchedOff);
            }
            return;
        }
        if let Some(why) = self.why_not(root, &change) {
            return self.ignore(root, &change, why);
        }
        if !matches!(change.cause, Cause::Delete | Cause::MovedFrom | Cause::Attrib) {
            self.fresh.note(&(root, change.path.clone()), now());
        }
        self.add(root, change);
    }

    /// Why the change is ignored; `None`: it is not.
    fn why_not(&self, root: RootId, change: &Change) -> Option<IgnoreReason> {
        if !is_switched_on(&self.switches, change) {
            return Some(IgnoreReason::SwitchedOff);
        }
        if self.changes.last().is_some_and(|(of, last)| *of == root && last == change) {
            return Some(IgnoreReason::Repeated);
        }
        if !self.is_excluded(root, &change.path, change.is_dir) {
            return None;
        }
        let is_lost = |(of, lost): &RootedPath| *of == root && change.path.is_within(lost);
        Some(if self.lost.iter().any(is_lost) {
            IgnoreReason::Lost
        } else {
            IgnoreReason::Excluded
        })
    }

    /// Calls the hook for an ignored change.
    pub fn ignore(&self, root: RootId, change: &Change, why: IgnoreReason) {
        if self.ignored_hook.is_set() {
            self.ignored_hook.call(root, change, why);
        }
    }

    /// Adds a step of a save, even if its kind is switched off, unless the change that it belongs to is still in this batch.
    pub fn push_step(&mut self, root: RootId, change: Change) {
        let recent = self.changes.len().saturating_sub(STEP_LOOK_BACK);
        let is_same = |(of, last): &(RootId, Change)| {
            *of == root
                && last.path == change.path
                && !matches!(last.cause, Cause::Delete | Cause::MovedFrom)
        };
        if !self.changes[recent..].iter().any(is_same)
            && !self.is_excluded(root, &change.path, change.is_dir)
        {
            self.add(root, change);
        }
    }

    /// How long until [`forget_old`](Self::forget_old) has something to do.
    pub fn timeout(&self) -> Option<Duration> {
        self.fresh.due().map(|due| due.saturating_duration_since(now()))
    }

    /// Forgets old changes, if there are many.
    pub fn forget_old(&mut self) {
        if self.fresh.due().is_some() && self.fresh.forget_old(now()) {
            crate::sys::memory::release_unused();
        }
    }

    fn add(&mut self, root: RootId, change: Change) {
        self.changes.push((root, change));
        if self.changes.len() >= CHANGES_MAX {
            self.flush_but_half_a_move();
        }
    }

    /// Widens a new directory below a recently reported subtree to a listing. A remote may have received that directory
    /// with the subtree before we watched it. So we may have missed deletions in it.
    fn widened(&mut self, root: RootId, mut change: Change) -> Change {
        if change.scope == Scope::Tree {
            self.recent_trees.truncate(RECENT_TREES_MAX - 1);
            self.recent_trees.push_front((now(), (root, change.path.clone())));
        } else if change.is_dir && matches!(change.cause, Cause::Create | Cause::Found) {
            let is_old = |(since, _): &(Instant, RootedPath)| since.elapsed() > RECENT_TREES_LIMIT;
            while self.recent_trees.back().is_some_and(is_old) {
                self.recent_trees.pop_back();
            }
            let holds = |(_, (of, tree)): &(Instant, RootedPath)| {
                *of == root && change.path.is_within(tree)
            };
            if self.recent_trees.iter().any(holds) {
                change.scope = Scope::Listing;
            }
        }
        change
    }

    /// Sends the collected changes, one event for each run of changes below one root.
    pub fn flush(&mut self) {
        let mut changes = std::mem::take(&mut self.changes).into_iter().peekable();
        while let Some((root, first)) = changes.next() {
            let mut run = vec![first];
            while let Some((_, next)) = changes.next_if(|(of, _)| *of == root) {
                run.push(next);
            }
            (self.sink)(WatchEvent::Changed { root, changes: run, known_until: self.known_until });
        }
    }

    /// Sends the collected changes, but keeps back a last change that may be the first half of a move. Sent alone, it would be
    /// delivered as a deletion, and the second half as new data.
    pub fn flush_but_half_a_move(&mut self) {
        let half = self.changes.pop_if(|(_, change)| change.cause == Cause::MovedFrom);
        self.flush();
        self.changes.extend(half);
    }

    /// True when everything is sent.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Sends another event, after everything that was collected before it.
    pub fn send(&mut self, event: WatchEvent) {
        self.flush();
        (self.sink)(event);
    }
}

/// True when this kind of change is reported. Entries found by a scan have no switch of their own. With createFolder off, a
/// found directory is not reported, but its entries are.
fn is_switched_on(switches: &ChangeSwitches, change: &Change) -> bool {
    match change.cause {
        Cause::Create if !change.is_dir => true,
        Cause::Found => !change.is_dir || change.scope == Scope::Tree || switches.create_folder,
        _ => switches.of(change).1,
    }
}

/// The time since the epoch. File timestamps are never ahead of this clock, and at most one tick behind it.
fn time_of_day() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanoseconds)
}

#[expect(clippy::disallowed_methods, reason = "this thread waits: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    const ROOT: RootId = RootId(0);

    fn batch(switches: ChangeSwitches, exclude: Option<Exclude>) -> (Batch, Receiver<WatchEvent>) {
        let (sender, events) = unbounded();
        let sink = Box::new(move |event| sender.send(event).unwrap());
        (Batch::new(switches, exclude, sink), events)
    }

    fn all_on() -> ChangeSwitches {
        ChangeSwitches {
            delete: true,
            create_folder: true,
            create_file: true,
            close_write: true,
            move_from: true,
            move_to: true,
            attrib: true,
            modify: true,
        }
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn dir(text: &str, cause: Cause) -> Change {
        Change { is_dir: true, ..Change::entry(path(text), cause) }
    }

    fn flushed(batch: &mut Batch, events: &Receiver<WatchEvent>) -> Vec<(RootId, Vec<Change>)> {
        batch.flush();
        let changed = |event| match event {
            WatchEvent::Changed { root, changes, .. } => (root, changes),
            other => panic!("{other:?}"),
        };
        events.try_iter().map(changed).collect()
    }

    #[test]
    fn changes_of_several_roots_keep_their_order() {
        let (mut batch, events) = batch(all_on(), None);
        let change = |name| Change::entry(path(name), Cause::CloseWrite);
        for (root, name) in [(0, "a"), (0, "a"), (0, "b"), (1, "b"), (0, "b")] {
            batch.push(RootId(root), change(name));
        }
        let runs = flushed(&mut batch, &events);
        let expected = [
            (RootId(0), vec![change("a"), change("b")]),
            (RootId(1), vec![change("b")]),
            (RootId(0), vec![change("b")]),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn each_switch_silences_its_own_kind() {
        type SwitchOff = fn(&mut ChangeSwitches);
        let kinds: [(Change, SwitchOff); 7] = [
            (Change::entry(path("a"), Cause::Modify), |s| s.modify = false),
            (Change::entry(path("a"), Cause::Attrib), |s| s.attrib = false),
            (Change::entry(path("a"), Cause::CloseWrite), |s| s.close_write = false),
            (Change::entry(path("a"), Cause::MovedFrom), |s| s.move_from = false),
            (Change::entry(path("a"), Cause::MovedTo), |s| s.move_to = false),
            (Change::entry(path("a"), Cause::Delete), |s| s.delete = false),
            (dir("a", Cause::Create), |s| s.create_folder = false),
        ];
        for (n, (_, switch_off)) in kinds.iter().enumerate() {
            let mut switches = all_on();
            switch_off(&mut switches);
            let (mut batch, events) = batch(switches, None);
            // The first change of a path is not a step of an earlier change.
            kinds.iter().for_each(|(change, _)| {
                batch.fresh = FreshPaths::default();
                batch.push(ROOT, change.clone());
            });
            let mut expected: Vec<_> = kinds.iter().map(|(change, _)| change.clone()).collect();
            expected.remove(n);
            assert_eq!(flushed(&mut batch, &events), [(ROOT, expected)]);
        }
    }

    #[test]
    fn a_step_of_a_save_counts_although_it_is_switched_off() {
        let mut switches = all_on();
        switches.attrib = false;
        let (mut batch, events) = batch(switches, None);
        let attrib = |name| Change::entry(path(name), Cause::Attrib);
        let written = Change::entry(path("a"), Cause::CloseWrite);
        batch.push(ROOT, attrib("a"));
        batch.push(ROOT, written.clone());
        // The step is sent with the change that it belongs to.
        batch.push(ROOT, attrib("a"));
        assert_eq!(flushed(&mut batch, &events), [(ROOT, vec![written])]);
        batch.push(ROOT, attrib("a"));
        batch.push(ROOT, attrib("b"));
        assert_eq!(flushed(&mut batch, &events), [(ROOT, vec![attrib("a")])]);
    }

    #[test]
    fn nothing_in_a_lost_subtree_is_a_change() {
        let (mut batch, events) = batch(all_on(), None);
        batch.lost_mut().insert((ROOT, path("mount/point")));
        for name in ["mount/point", "mount/point/a", "mount/points"] {
            batch.push(ROOT, Change::entry(path(name), Cause::Delete));
        }
        let kept = Change::entry(path("mount/points"), Cause::Delete);
        assert_eq!(flushed(&mut batch, &events), [(ROOT, vec![kept])]);
    }

    #[test]
    fn a_new_directory_in_a_subtree_that_was_just_looked_at_is_a_listing() {
        let (mut batch, events) = batch(all_on(), None);
        batch.push(ROOT, dir("a/new", Cause::Create));
        batch.push(ROOT, Change::tree(path("a"), Cause::MovedTo));
        for n in 0..RECENT_TREES_MAX - 1 {
            batch.push(ROOT, Change::tree(path(&format!("b{n}")), Cause::Delete));
        }
        flushed(&mut batch, &events);
        batch.push(ROOT, dir("a/newer", Cause::Create));
        let scope = Scope::Listing;
        let listing = Change { scope, ..dir("a/newer", Cause::Create) };
        assert_eq!(flushed(&mut batch, &events), [(ROOT, vec![listing])]);
        batch.push(ROOT, Change::tree(path("one more"), Cause::Delete));
        flushed(&mut batch, &events);
        let plain = dir("a/newest", Cause::Create);
        batch.push(ROOT, plain.clone());
        assert_eq!(flushed(&mut batch, &events), [(ROOT, vec![plain])]);
    }

    #[test]
    fn a_storm_is_handed_on_in_parts() {
        let (mut batch, events) = batch(all_on(), None);
        for n in 0..CHANGES_MAX + 1 {
            batch.push(ROOT, Change::entry(path(&format!("f{n}")), Cause::CloseWrite));
        }
        assert!(matches!(events.try_recv(), Ok(WatchEvent::Changed { changes, .. })
            if changes.len() == CHANGES_MAX));
    }
}
