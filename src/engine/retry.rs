//! When to retry what failed: a remote that is down, a path that rsync could not deliver.
//! Starts nothing; the policy for each kind of failure is in `failure.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::mark::{Item, Mark};
use super::refusals::{RefusalReport, Refusals};
use super::{Now, PathFailure};
use crate::change::Scope;
use crate::failure::{Failure, FailureKind, Retry};
use crate::path::{RelPath, within};

/// Quick retries of a path before it goes to the fail log: the delay before each.
const QUICK: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)];

/// Shortest and longest pause between two retries of a small path in the fail log.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(50));

/// The same for large files and trees, whose retries may transfer or compare a lot.
const REFUSED_LARGE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1800));

/// An operator is reminded of an outage this often.
pub const REMINDER: Duration = Duration::from_secs(3600);

/// Shortest pause between the end of a try and the next one.
const BREATH: Duration = Duration::from_millis(250);

/// A remote to which nothing can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When it began.
    pub since: Now,
    /// Failed tries so far.
    pub tries: u32,
    /// When the next try is due.
    pub next: Now,
    /// Why the last try failed; `None` before the first one.
    pub failure: Option<Failure>,
    /// The kinds of failures in this outage, as bits.
    kinds: u8,
    /// When the operator is reminded of it.
    remind_at: Now,
}

impl Outage {
    /// The state before first contact: the first job starts at once, and alone.
    pub fn unknown() -> Self {
        Self {
            since: Now::ZERO,
            tries: 0,
            next: Now::ZERO,
            failure: None,
            kinds: 0,
            remind_at: Now::MAX,
        }
    }

    /// The state after a failed try that began at `began`. The pause is a part of the outage's length (1/32, or 1/2 after a
    /// refused login), within the limits of the failure; `salt` spreads the tries of many remotes.
    pub fn after_failure(
        before: Option<Self>,
        now: Now,
        began: Now,
        salt: u64,
        failure: Failure,
    ) -> Self {
        let known = before.as_ref().filter(|outage| outage.tries > 0);
        let since = known.map_or(now, |outage| outage.since);
        let kinds = known.map_or(0, |outage| outage.kinds) | failure.kind.bit();
        let retry = failure.retry();
        let (shortest, longest) = retry.pauses();
        let pause = ((now - since) / retry.divisor()).clamp(shortest, longest);
        let jitter =
            pause.mul_f64((salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as f64 / 1024.0);
        let next = match retry {
            Retry::Often => (began + pause + jitter).max(now + BREATH),
            Retry::Rarely | Retry::Sparingly => now + pause + jitter,
        };
        let remind_at = known.map_or(now + REMINDER, |outage| outage.remind_at);
        let tries = before.map_or(0, |outage| outage.tries) + 1;
        Self { since, tries, next, failure: Some(failure), kinds, remind_at }
    }

    /// The kind of the last failure.
    pub fn kind(&self) -> Option<FailureKind> {
        self.failure.as_ref().map(|failure| failure.kind)
    }

    /// rsync's exit code of the last try.
    pub fn code(&self) -> i32 {
        self.failure.as_ref().map_or(0, |failure| failure.code)
    }

    /// True when it belongs in the fail log: more than one try failed, and the watch root is not to blame.
    pub fn is_logged(&self) -> bool {
        self.tries > 1 && self.kind() != Some(FailureKind::Source)
    }

    /// When the operator is to be reminded of it.
    pub fn reminder_due(&self) -> Option<Now> {
        (self.tries > 0).then_some(self.remind_at)
    }

    /// Sets when the operator is reminded next.
    pub fn remind_at(&mut self, time: Now) {
        self.remind_at = time;
    }

    /// True when a try of this outage has failed with this kind.
    pub fn has_had(&self, kind: FailureKind) -> bool {
        self.kinds & kind.bit() != 0
    }
}

/// One path that rsync could not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// What to deliver there.
    pub mark: Mark,
    /// Failed tries so far.
    pub tries: u32,
    /// When it failed first.
    pub since: Now,
    /// When it failed last.
    pub failed: Now,
    /// How long the retry after the last failure waits. A change or a success beside it may bring the retry forward.
    pub pause: Duration,
    /// True once it is in the fail log.
    pub logged: bool,
    /// Why the last try failed.
    pub failure: Failure,
}

impl Failing {
    /// When it is retried if its cause may be gone.
    fn sooner(&self) -> Now {
        self.failed + self.pause / 4
    }
}

/// The paths of one remote that failed, by path.
#[derive(Debug, Default)]
pub struct FailingPaths {
    paths: BTreeMap<RelPath, Failing>,
    /// What was reported of them.
    refusals: Refusals,
}

/// What follows from a failure of a path.
#[derive(Debug, PartialEq, Eq)]
pub struct NextTry {
    /// What to retry.
    pub item: Item,
    /// When.
    pub due: Now,
    /// Whether the path goes to the fail log now.
    pub log: FailLogChange,
}

/// Whether the fail log has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FailLogChange {
    /// It has not changed.
    #[default]
    Same,
    /// It has changed.
    Changed,
}

impl FailingPaths {
    /// Notes a failure of `item`.
    pub fn fail(&mut self, now: Now, item: Item, failure: Failure) -> NextTry {
        let entry = self.paths.entry(item.path.clone()).or_insert_with(|| Failing {
            mark: item.mark,
            tries: 0,
            since: now,
            failed: now,
            pause: Duration::ZERO,
            logged: false,
            failure: failure.clone(),
        });
        entry.mark = entry.mark.merge(item.mark);
        entry.tries += 1;
        entry.failed = now;
        entry.failure = failure;
        let quick = QUICK.get(entry.tries as usize - 1).filter(|_| !entry.logged);
        entry.pause = quick.copied().unwrap_or_else(|| pause(entry.mark, now - entry.since));
        let log = if quick.is_some() || entry.logged {
            FailLogChange::Same
        } else {
            FailLogChange::Changed
        };
        entry.logged |= quick.is_none();
        NextTry { item: Item { mark: entry.mark, ..item }, due: now + entry.pause, log }
    }

    /// Forgets the paths that `item` has delivered, except those to `keep`. Returns the forgotten ones.
    pub fn delivered(
        &mut self,
        item: &Item,
        keep: impl Fn(&RelPath) -> bool,
    ) -> (FailLogChange, Vec<RelPath>) {
        let mut log = FailLogChange::Same;
        let mut delivered = self.within(&item.path);
        delivered.retain(|path| item.covers(path, self.paths[path].mark) && !keep(path));
        for path in &delivered {
            if self.paths.remove(path).is_some_and(|failing| failing.logged) {
                log = FailLogChange::Changed;
            }
        }
        (log, delivered)
    }

    /// `item` was not delivered but divided. The piece with its path, if any, takes its place. Returns what to mark again: failing
    /// paths below it without a retry of their own (`is_timed`), and the item itself if its content had to be compared but was not.
    pub fn divided(
        &mut self,
        item: &Item,
        piece: Option<Mark>,
        is_timed: impl Fn(&RelPath) -> bool,
    ) -> (FailLogChange, Vec<Item>) {
        let whole = &item.path;
        let (mut log, mut lacks_comparison) = (FailLogChange::Same, false);
        if let Some(failing) = self.paths.get_mut(whole) {
            lacks_comparison = failing.mark.compare_content && !item.mark.compare_content;
            match piece {
                _ if lacks_comparison => {}
                Some(mark) => failing.mark = mark,
                None => {
                    if failing.logged {
                        log = FailLogChange::Changed;
                    }
                    self.paths.remove(whole);
                }
            }
        }
        let mut below = self.within(whole);
        below.retain(|path| path != whole || lacks_comparison);
        let again = below.into_iter().filter_map(|path| {
            let failing = self.paths.get(&path).filter(|_| !is_timed(&path))?;
            let mark = failing.mark;
            Some(Item { path, mark })
        });
        (log, again.collect())
    }

    /// What to report about paths that were just added to the fail log, each with the time of its next try.
    pub fn complain(&mut self, now: Now, logged: Vec<(PathFailure, Now)>) -> RefusalReport {
        self.refusals.add(now, logged)
    }

    /// If nothing fails any longer, the next failure is reported as new.
    pub fn forget_what_was_said(&mut self) {
        if self.paths.is_empty() {
            self.refusals.forget();
        }
    }

    /// Entries of this directory that failed before `began`, each with an earlier time for its retry.
    pub fn siblings(&self, directory: &RelPath, began: Now) -> Vec<(RelPath, Now)> {
        let mut siblings = self.within(directory);
        siblings.retain(|path| path.parent().as_ref() == Some(directory));
        let sooner = |path: RelPath| {
            let failing = self.paths.get(&path).filter(|failing| failing.failed < began)?;
            Some((path, failing.sooner()))
        };
        siblings.into_iter().filter_map(sooner).collect()
    }

    /// All entries, each with an earlier time for its retry.
    pub fn all_sooner(&self) -> Vec<(RelPath, Now)> {
        self.paths.iter().map(|(path, failing)| (path.clone(), failing.sooner())).collect()
    }

    /// Failing paths at or below the path.
    pub fn within(&self, path: &RelPath) -> Vec<RelPath> {
        if self.paths.is_empty() {
            return Vec::new();
        }
        let near = within(self.paths.range(path.clone()..), path, |(p, _)| p);
        near.map(|(p, _)| p.clone()).collect()
    }

    /// Every path in the fail log.
    pub fn logged(&self) -> impl Iterator<Item = (&RelPath, &Failing)> {
        self.paths.iter().filter(|(_, failing)| failing.logged)
    }

    /// Every failing path.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.keys()
    }

    /// Every failing path, and how it fails.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Failing)> {
        self.paths.iter()
    }

    /// True when `path` is failing.
    pub fn contains(&self, path: &RelPath) -> bool {
        self.paths.contains_key(path)
    }

    /// How many paths are failing.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// True when no path is failing.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

/// The pause before the next retry of a path in the fail log: a quarter of the time since it failed first, within limits.
fn pause(mark: Mark, lasts: Duration) -> Duration {
    let is_small = !mark.large && mark.scope != Scope::Tree;
    let (shortest, longest) = if is_small { REFUSED } else { REFUSED_LARGE };
    (lasts / 4).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn refused() -> Failure {
        Failure::new(FailureKind::Path, 23, "no")
    }

    /// An outage whose tries fail until `end`, each after `takes`; the longest time between the starts of two.
    fn longest_gap(kind: FailureKind, takes: Duration, end: Duration) -> Duration {
        let mut longest = Duration::ZERO;
        for salt in 1..20 {
            let (mut outage, mut began) = (Outage::unknown(), Duration::from_secs(5));
            while began < end {
                let failure = Failure::new(kind, 10, "no");
                outage = Outage::after_failure(Some(outage), began + takes, began, salt, failure);
                longest = longest.max(outage.next - began);
                began = outage.next;
            }
        }
        longest
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_secs(35);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_remote_that_does_not_answer_is_tried_within_two_seconds_however_long_it_is_away() {
        let (refusing, silent) = (Duration::from_millis(1), Duration::from_secs(2));
        for end in [SHORT, LONG] {
            assert!(longest_gap(FailureKind::Away, refusing, end) < Duration::from_secs(2));
            assert!(longest_gap(FailureKind::Away, silent, end) <= silent + BREATH);
        }
    }

    #[test]
    fn what_somebody_has_to_mend_is_tried_soon_at_first_and_rarely_in_the_end() {
        let quick = Duration::from_millis(100);
        assert!(longest_gap(FailureKind::Denied, quick, SHORT) < Duration::from_secs(2));
        let after_long = longest_gap(FailureKind::Denied, quick, LONG);
        assert!(after_long > MINUTE && after_long < MINUTE * 4 / 3, "{after_long:?}");
    }

    #[test]
    fn a_refused_login_is_tried_less_than_ten_times_in_the_first_minute() {
        let (mut outage, mut began, mut tries) = (Outage::unknown(), Now::ZERO, 0);
        while began < MINUTE {
            let failure = Failure::new(FailureKind::Denied, 5, "no").retried(Retry::Sparingly);
            outage = Outage::after_failure(Some(outage), began, began, 7, failure);
            (began, tries) = (outage.next, tries + 1);
        }
        assert!((6..10).contains(&tries), "{tries}");
    }

    #[test]
    fn a_path_goes_to_the_fail_log_once_and_stays_until_delivered() {
        let item = |text, scope| Item { path: path(text), mark: Mark::new(scope) };
        let file = item("a/b", Scope::Entry);
        let mut failing = FailingPaths::default();
        let mut now = Duration::ZERO;
        let mut logged = Vec::new();
        for _ in 0..5 {
            let retry = failing.fail(now, file.clone(), refused());
            assert_eq!(retry.item, file);
            logged.push(retry.log == FailLogChange::Changed);
            now = retry.due;
        }
        assert_eq!(logged, [false, false, false, true, false]);
        assert_eq!(failing.logged().count(), 1);
        let tree = item("a", Scope::Tree);
        assert_eq!(failing.delivered(&tree, |_| false), (FailLogChange::Changed, vec![file.path]));
        assert!(failing.is_empty());
    }

    #[test]
    fn a_small_path_is_tried_within_a_minute_however_long_it_fails_and_a_tree_rarely() {
        let longest = |mark: Mark| {
            let item = Item { path: path("a"), mark };
            let (mut failing, mut now, mut longest) =
                (FailingPaths::default(), Now::ZERO, Now::ZERO);
            while now < LONG {
                let due = failing.fail(now, item.clone(), refused()).due;
                (longest, now) = (longest.max(due - now), due);
            }
            longest
        };
        assert_eq!(longest(Mark::new(Scope::Entry)), REFUSED.1);
        assert!(longest(Mark::new(Scope::Tree)) > 10 * REFUSED.1);
        assert!(longest(Mark { large: true, ..Mark::new(Scope::Entry) }) > 10 * REFUSED.1);
    }
}
