//! Paths that become pending by themselves, each on a condition. They are owed like pending ones.
//! Does not know why a path is deferred.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Now;
use super::mark::{Item, Mark, Recheck};
use crate::change::Scope;
use crate::path::{RelPath, within};

/// When a deferred path becomes pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// At this time.
    At(Now),
    /// A recheck: at this time, or later when the remote answers.
    Answered(Now),
    /// When nothing has been pending, and no batch in flight, for a moment.
    Quiet,
    /// When deletions are allowed.
    Deletions,
    /// When it is decided whether deletions are allowed.
    Decided,
    /// A name of an undone move: at this time, or when it is reported what became of its file.
    MovedOn(Now),
    /// A confirmation: at this time, or later when the remote answers. All confirmations wait for the last one, but at most
    /// 16 s longer than the first one asks for.
    Confirmed(Now),
}

/// The longest time by which later deliveries put off a confirmation.
const CONFIRM_SPAN: Duration = Duration::from_secs(16);

/// How many kinds of conditions there are.
pub const KINDS: usize = 7;

/// A condition without its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConditionKind {
    At,
    Answered,
    Quiet,
    Deletions,
    Decided,
    MovedOn,
    Confirmed,
}

impl Condition {
    /// Its kind, and its time.
    fn parts(self) -> (ConditionKind, Now) {
        match self {
            Self::At(due) => (ConditionKind::At, due),
            Self::Answered(due) => (ConditionKind::Answered, due),
            Self::Quiet => (ConditionKind::Quiet, Now::ZERO),
            Self::Deletions => (ConditionKind::Deletions, Now::ZERO),
            Self::Decided => (ConditionKind::Decided, Now::ZERO),
            Self::MovedOn(due) => (ConditionKind::MovedOn, due),
            Self::Confirmed(due) => (ConditionKind::Confirmed, due),
        }
    }
}

impl ConditionKind {
    const ALL: [Self; KINDS] = [
        Self::At,
        Self::Answered,
        Self::Quiet,
        Self::Deletions,
        Self::Decided,
        Self::MovedOn,
        Self::Confirmed,
    ];

    /// The kinds whose items wait for a time alone, unless something is reported earlier.
    const TIMED: [Self; 2] = [Self::At, Self::MovedOn];

    /// From when on it is met; `None` if another event has to come first.
    fn met(self, outlook: Outlook) -> Option<Now> {
        match self {
            Self::At | Self::MovedOn => Some(Now::ZERO),
            Self::Answered | Self::Confirmed => outlook.answers,
            Self::Quiet => outlook.quiet,
            Self::Deletions => outlook.deletions,
            Self::Decided => outlook.decided,
        }
    }

    /// True when what waits is an undelivered change. The other items were delivered, and are only checked again.
    fn is_change(self) -> bool {
        match self {
            Self::At | Self::Deletions | Self::Decided | Self::MovedOn => true,
            Self::Answered | Self::Quiet | Self::Confirmed => false,
        }
    }
}

/// From when on each condition is met; `None` if another event has to come first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outlook {
    /// The remote answers.
    pub answers: Option<Now>,
    /// Nothing is pending, and no batch is in flight.
    pub quiet: Option<Now>,
    /// Deletions are allowed.
    pub deletions: Option<Now>,
    /// It is decided whether deletions are allowed.
    pub decided: Option<Now>,
}

/// Everything of one remote that waits for a condition.
///
/// Invariant: for each kind of condition, nothing stands below a path marked [`Scope::Tree`].
#[derive(Debug, Default)]
pub struct Deferred {
    kinds: [Waiting; KINDS],
}

/// The paths that wait for one kind of condition.
#[derive(Debug, Default)]
struct Waiting {
    paths: BTreeMap<RelPath, Entry>,
    /// Nothing is due earlier.
    earliest: Option<Now>,
    /// Nothing is due later.
    latest: Option<Now>,
    /// There may be a tree among the marks.
    has_trees: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: Now,
    mark: Mark,
    /// It is only a directory above a rechecked path.
    is_parent: bool,
}

impl Entry {
    fn merge(&mut self, other: Self) {
        self.due = self.due.max(other.due);
        self.mark = self.mark.merge(other.mark);
        self.is_parent &= other.is_parent;
    }
}

impl Deferred {
    /// Defers an item. If the path is deferred already, the later time counts.
    pub fn defer(&mut self, condition: Condition, item: &Item) {
        let (kind, due) = condition.parts();
        let entry = Entry { due, mark: item.mark, is_parent: false };
        self.of_mut(kind).insert(item.path.clone(), entry);
    }

    /// Defers a recheck of the item and of the directories above it, which rsync sends along. Returns the item that covers it.
    pub fn recheck(&mut self, due: Now, item: &Item) -> Item {
        let waiting = self.of_mut(ConditionKind::Answered);
        let only = |mark| Mark { recheck: Recheck::Only, ..mark };
        let entry = Entry { due, mark: only(item.mark), is_parent: false };
        let covered_by = waiting.insert(item.path.clone(), entry);
        let mut parent = item.path.parent();
        while let Some(path) = parent {
            if waiting.paths.get(&path).is_some_and(|known| known.due >= due) {
                break;
            }
            parent = path.parent();
            let mark = only(Mark::additive(Scope::Entry));
            waiting.insert(path, Entry { due, mark, is_parent: true });
        }
        covered_by
    }

    /// Lets all rechecks wait until `due` at least.
    pub fn put_off_rechecks(&mut self, due: Now) {
        let waiting = self.of_mut(ConditionKind::Answered);
        waiting.paths.values_mut().for_each(|entry| entry.due = entry.due.max(due));
        waiting.find_limits();
    }

    /// When the path, or the nearest one above it, is rechecked.
    pub fn recheck_due_above(&self, path: &RelPath) -> Option<Now> {
        let waiting = self.of(ConditionKind::Answered);
        let mut above = (!waiting.paths.is_empty()).then(|| path.clone());
        while let Some(path) = above {
            if let Some(entry) = waiting.paths.get(&path).filter(|entry| !entry.is_parent) {
                return Some(entry.due);
            }
            above = path.parent();
        }
        None
    }

    /// The rechecks of the path and below it, each with when it is due.
    pub fn rechecks_within(&self, path: &RelPath) -> Vec<(Now, Item)> {
        let within = self.of(ConditionKind::Answered).within(path);
        let own = within.filter(|(_, entry)| !entry.is_parent);
        own.map(|(path, entry)| (entry.due, Item { path: path.clone(), mark: entry.mark }))
            .collect()
    }

    /// Forgets the retry of the path if `item`, which was delivered, covers it.
    pub fn delivered(&mut self, item: &Item, path: &RelPath) {
        let waiting = self.of_mut(ConditionKind::At);
        if waiting.paths.get(path).is_some_and(|entry| item.covers(path, entry.mark)) {
            waiting.paths.remove(path);
        }
    }

    /// Makes all confirmations due at `due` at the latest.
    pub fn confirm_soon(&mut self, due: Now) {
        let Waiting { earliest, latest, .. } = self.of_mut(ConditionKind::Confirmed);
        for limit in [earliest, latest] {
            *limit = limit.map(|limit| limit.min(due));
        }
    }

    /// How many deliveries are to be confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.of(ConditionKind::Confirmed).paths.len()
    }

    /// When this very path is due, if it waits for a time.
    pub fn due_at(&self, path: &RelPath) -> Option<Now> {
        let due = |kind| self.of(kind).paths.get(path).map(|entry| entry.due);
        ConditionKind::TIMED.into_iter().filter_map(due).min()
    }

    /// When the path, or the tree that covers it, becomes pending by its time.
    pub fn due_above(&self, path: &RelPath) -> Option<Now> {
        let due = |kind| self.of(kind).covering(path).map(|entry| entry.due);
        ConditionKind::TIMED.into_iter().filter_map(due).min()
    }

    /// True for a name of an undone move, while it is not reported what became of its file.
    pub fn moves_on(&self, path: &RelPath) -> bool {
        self.of(ConditionKind::MovedOn).paths.contains_key(path)
    }

    /// Makes a path that waits for a time due at `due` at the latest; false when it waits for none.
    pub fn bring_forward(&mut self, due: Now, path: &RelPath) -> bool {
        let kinds = ConditionKind::TIMED.map(|kind| self.of_mut(kind).bring_forward(due, path));
        kinds.contains(&true)
    }

    /// The earliest time at which something may become pending.
    pub fn next_due(&self, outlook: Outlook) -> Option<Now> {
        ConditionKind::ALL.into_iter().filter_map(|kind| self.due(kind, outlook)).min()
    }

    /// Takes out what is due.
    pub fn take_due(&mut self, now: Now, outlook: Outlook) -> Vec<Item> {
        let mut items = Vec::new();
        for kind in ConditionKind::ALL {
            if self.due(kind, outlook).is_some_and(|due| due <= now) {
                // One run confirms everything that was delivered before it.
                let until = if kind == ConditionKind::Confirmed { Now::MAX } else { now };
                self.of_mut(kind).take_due(until, &mut items);
            }
        }
        items
    }

    /// All deferred items.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let entries = self.kinds.iter().flat_map(|waiting| &waiting.paths);
        entries.map(|(path, entry)| Item { path: path.clone(), mark: entry.mark })
    }

    /// What a flush waits for: everything but rechecks.
    pub fn unsettled(&self) -> impl Iterator<Item = &RelPath> {
        let kinds = ConditionKind::ALL.into_iter().filter(|kind| *kind != ConditionKind::Answered);
        kinds.flat_map(|kind| self.of(kind).paths.keys())
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        self.kinds.iter().map(|waiting| waiting.paths.len()).sum()
    }

    /// A directory with deletions that wait until they are allowed.
    pub fn owes_deletions(&self) -> Option<&RelPath> {
        self.of(ConditionKind::Deletions).paths.keys().next()
    }

    /// How many of them are undelivered changes.
    pub fn changes(&self) -> usize {
        let kinds = ConditionKind::ALL.into_iter().filter(|kind| kind.is_change());
        kinds.map(|kind| self.of(kind).paths.len()).sum()
    }

    /// Keeps at most `max` items: the condition with the most paths replaces its deepest ones by their directories' trees.
    pub fn limit(&mut self, max: usize) {
        while self.count() > max.max(KINDS)
            && let Some(fullest) = self.kinds.iter_mut().max_by_key(|waiting| waiting.paths.len())
        {
            fullest.collapse(fullest.paths.len() / 2);
        }
    }

    fn due(&self, kind: ConditionKind, outlook: Outlook) -> Option<Now> {
        let Waiting { earliest, latest, .. } = *self.of(kind);
        let due = match kind {
            ConditionKind::Confirmed => latest?.min(earliest? + CONFIRM_SPAN),
            _ => earliest?,
        };
        kind.met(outlook).map(|met| met.max(due))
    }

    fn of(&self, kind: ConditionKind) -> &Waiting {
        &self.kinds[kind as usize]
    }

    fn of_mut(&mut self, kind: ConditionKind) -> &mut Waiting {
        &mut self.kinds[kind as usize]
    }
}

impl Waiting {
    /// Adds a path; returns the item that covers it now.
    fn insert(&mut self, path: RelPath, new: Entry) -> Item {
        self.earliest = self.earliest.into_iter().chain([new.due]).min();
        self.latest = self.latest.max(Some(new.due));
        let path = self.tree_above(&path).unwrap_or(path);
        let entry = self.paths.entry(path.clone()).or_insert(new);
        entry.merge(new);
        if entry.mark.scope == Scope::Tree {
            self.has_trees = true;
            self.absorb_below(&path);
        }
        let mark = self.paths.get(&path).map_or(new.mark, |entry| entry.mark);
        Item { path, mark }
    }

    /// Makes a path due at `due` at the latest; false when it does not wait.
    fn bring_forward(&mut self, due: Now, path: &RelPath) -> bool {
        let tree = self.tree_above(path);
        let Some(entry) = self.paths.get_mut(tree.as_ref().unwrap_or(path)) else {
            return false;
        };
        entry.due = entry.due.min(due);
        self.earliest = self.earliest.into_iter().chain([due]).min();
        true
    }

    /// The tree that covers the path, unless it is the path itself.
    fn tree_above(&self, path: &RelPath) -> Option<RelPath> {
        let mut above = path.parent().filter(|_| self.has_trees);
        while let Some(path) = above {
            if self.paths.get(&path).is_some_and(|entry| entry.mark.scope == Scope::Tree) {
                return Some(path);
            }
            above = path.parent();
        }
        None
    }

    /// The entry of the path, or of the tree that covers it.
    fn covering(&self, path: &RelPath) -> Option<&Entry> {
        self.paths.get(self.tree_above(path).as_ref().unwrap_or(path))
    }

    fn absorb_below(&mut self, tree: &RelPath) {
        let below = self.within(tree).map(|(path, _)| path).filter(|path| *path != tree);
        for path in below.cloned().collect::<Vec<_>>() {
            if let (Some(below), Some(entry)) = (self.paths.remove(&path), self.paths.get_mut(tree))
            {
                let mark = Mark { scope: Scope::Tree, large: false, shard: false, ..below.mark };
                entry.merge(Entry { mark, ..below });
            }
        }
    }

    fn within<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = (&'a RelPath, &'a Entry)> {
        within(self.paths.range(path.clone()..), path, |(at, _)| at)
    }

    fn take_due(&mut self, now: Now, items: &mut Vec<Item>) {
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.paths).into_iter().partition(|(_, entry)| entry.due <= now);
        self.paths = later;
        self.has_trees &= !self.paths.is_empty();
        self.find_limits();
        items.extend(due.into_iter().map(|(path, entry)| Item { path, mark: entry.mark }));
    }

    fn find_limits(&mut self) {
        let due = || self.paths.values().map(|entry| entry.due);
        (self.earliest, self.latest) = (due().min(), due().max());
    }

    /// Replaces the deepest paths by their directories' trees, until at most `limit` items are left.
    fn collapse(&mut self, limit: usize) {
        let depth = |path: &RelPath| path.components().count();
        let mut level = self.paths.keys().map(depth).max().unwrap_or(0);
        while self.paths.len() > limit.max(1) && level > 0 {
            let (deepest, above): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut self.paths).into_iter().partition(|(p, _)| depth(p) == level);
            self.paths = above;
            for (path, entry) in deepest {
                let mark = Mark {
                    compare_content: entry.mark.compare_content,
                    additive: entry.mark.additive,
                    recheck: entry.mark.recheck,
                    ..Mark::new(Scope::Tree)
                };
                self.insert(path.parent().unwrap_or_default(), Entry { mark, ..entry });
            }
            level -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn item(text: &str, scope: Scope) -> Item {
        Item { path: RelPath::new(text.as_bytes()).unwrap(), mark: Mark::new(scope) }
    }

    fn entry(text: &str) -> Item {
        item(text, Scope::Entry)
    }

    fn names(items: &[Item]) -> Vec<String> {
        items.iter().map(|item| item.path.to_string()).collect()
    }

    #[test]
    fn a_path_is_due_once_and_the_later_time_counts() {
        let (mut deferred, any) = (Deferred::default(), Outlook::default());
        assert_eq!(deferred.next_due(any), None);
        deferred.defer(Condition::At(2 * SECOND), &entry("a"));
        deferred.defer(Condition::At(2 * SECOND), &entry("b"));
        deferred.defer(Condition::At(3 * SECOND), &entry("a"));
        assert!(deferred.take_due(SECOND, any).is_empty());
        assert_eq!(deferred.next_due(any), Some(2 * SECOND));
        assert_eq!(names(&deferred.take_due(2 * SECOND, any)), ["b"]);
        assert_eq!(names(&deferred.take_due(3 * SECOND, any)), ["a"]);
        assert_eq!((deferred.next_due(any), deferred.count()), (None, 0));
    }

    #[test]
    fn confirmations_wait_for_the_last_one_but_not_for_ever() {
        let answers = Outlook { answers: Some(Now::ZERO), ..Outlook::default() };
        let mut deferred = Deferred::default();
        let confirm = |deferred: &mut Deferred, seconds, path| {
            deferred.defer(Condition::Confirmed(SECOND * seconds), &entry(path));
        };
        confirm(&mut deferred, 4, "a");
        confirm(&mut deferred, 7, "b");
        assert_eq!(deferred.next_due(answers), Some(7 * SECOND));
        (8..30).for_each(|seconds| confirm(&mut deferred, seconds, "c"));
        let last = 4 * SECOND + CONFIRM_SPAN;
        assert_eq!(deferred.next_due(answers), Some(last));
        assert_eq!(names(&deferred.take_due(last, answers)), ["a", "b", "c"]);
        confirm(&mut deferred, 40, "d");
        assert_eq!(deferred.next_due(answers), Some(40 * SECOND));
        deferred.confirm_soon(31 * SECOND);
        assert_eq!(names(&deferred.take_due(31 * SECOND, answers)), ["d"]);
    }

    #[test]
    fn each_condition_holds_back_its_own_paths() {
        let mut deferred = Deferred::default();
        deferred.defer(Condition::Quiet, &entry("quiet"));
        deferred.defer(Condition::Deletions, &item("deletions", Scope::Tree));
        deferred.recheck(5 * SECOND, &entry("d/recheck"));
        assert_eq!((deferred.count(), deferred.changes()), (5, 1));
        assert_eq!(deferred.next_due(Outlook::default()), None);
        let quiet = Outlook { quiet: Some(2 * SECOND), ..Outlook::default() };
        assert_eq!(deferred.next_due(quiet), Some(2 * SECOND));
        assert_eq!(names(&deferred.take_due(9 * SECOND, quiet)), ["quiet"]);
        let deletions = Outlook { deletions: Some(Now::ZERO), ..Outlook::default() };
        assert_eq!(names(&deferred.take_due(Now::ZERO, deletions)), ["deletions"]);
        let answers = Outlook { answers: Some(Now::ZERO), ..Outlook::default() };
        assert_eq!(deferred.next_due(answers), Some(5 * SECOND));
        assert_eq!(names(&deferred.take_due(5 * SECOND, answers)), ["./", "d", "d/recheck"]);
    }

    #[test]
    fn a_listing_of_the_root_does_not_cover_the_tree_below_it() {
        let mut deferred = Deferred::default();
        deferred.defer(Condition::Deletions, &item("", Scope::Listing));
        deferred.defer(Condition::Deletions, &item("a", Scope::Tree));
        deferred.defer(Condition::Deletions, &entry("a/b"));
        assert_eq!(names(&deferred.items().collect::<Vec<_>>()), ["./", "a"]);
    }

    #[test]
    fn what_was_delivered_need_not_wait_for_its_time() {
        let mut deferred = Deferred::default();
        deferred.defer(Condition::At(SECOND), &item("a", Scope::Tree));
        deferred.defer(Condition::At(SECOND), &entry("b"));
        let (a, b) = (entry("a").path, entry("b").path);
        deferred.delivered(&entry("a"), &a);
        deferred.delivered(&entry("a"), &b);
        assert_eq!(deferred.count(), 2);
        deferred.delivered(&entry("b"), &b);
        deferred.delivered(&item("", Scope::Tree), &a);
        assert_eq!(deferred.count(), 0);
    }

    fn arb_item() -> impl Strategy<Value = Item> {
        let scope = prop_oneof![Just(Scope::Entry), Just(Scope::Listing), Just(Scope::Tree)];
        ("[ab](/[ab]){0,3}", scope).prop_map(|(path, scope)| item(&path, scope))
    }

    proptest! {
        /// Whatever is deferred, collapsed and taken: it stays covered, it is counted, and it comes exactly when it is said to.
        #[test]
        fn nothing_deferred_is_lost_and_the_answers_agree(
            steps in proptest::collection::vec((arb_item(), 0u64..9, 0u8..7), 1..40),
            max in 1usize..12,
        ) {
            let (mut deferred, mut now) = (Deferred::default(), Now::ZERO);
            let all = Outlook {
                answers: Some(3 * SECOND),
                quiet: Some(2 * SECOND),
                deletions: Some(now),
                decided: Some(now),
            };
            let mut owed: Vec<Item> = Vec::new();
            for (item, seconds, what) in steps {
                let due = now + SECOND * seconds as u32;
                match what {
                    0 => deferred.defer(Condition::At(due), &item),
                    1 => _ = deferred.recheck(due, &item),
                    2 => deferred.defer(Condition::Quiet, &item),
                    3 => deferred.defer(Condition::Deletions, &item),
                    4 => deferred.defer(Condition::Confirmed(due), &item),
                    5 => deferred.defer(Condition::Decided, &item),
                    _ => {
                        now = due;
                        let next = deferred.next_due(all);
                        let taken = deferred.take_due(now, all);
                        prop_assert!(taken.is_empty() || next.is_some_and(|next| next <= now));
                        prop_assert!(deferred.next_due(all).is_none_or(|next| next > now));
                        owed.retain(|owed| !taken.iter().any(|item| item.covers(&owed.path, owed.mark)));
                        continue;
                    }
                }
                owed.push(item);
                deferred.limit(max);
                prop_assert!(deferred.count() <= max.max(KINDS));
                let items: Vec<_> = deferred.items().collect();
                prop_assert_eq!(items.len(), deferred.count());
                for owed in &owed {
                    let covered = items.iter().any(|item| item.covers(&owed.path, owed.mark));
                    prop_assert!(covered, "{owed:?} is lost: {items:?}");
                }
            }
        }
    }
}
