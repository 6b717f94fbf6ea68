//! The steps of a save: which paths changed lately, and which were modified and not closed yet.
//! Reads neither the clock nor the disk.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;

use crate::change::RootedPath;

/// Further steps on a path (new mode, new times) within this time after its content belong to the same change.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// Most paths in each of the two generations; some 2 MB.
const FRESH_MAX: usize = 20_000;

/// This few paths are kept: forgetting them is not worth a wake-up.
const FEW: usize = 1_000;

/// A file was truncated by its path if nothing modifies it again within this time and nothing has it open.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// Most files that are tracked as modified. Beyond that, only the next full sync finds a truncated file.
const UNCLOSED_MAX: usize = 20_000;

/// Paths that are looked up for each event: with a quick seeded hash.
type Paths = HashSet<RootedPath, DefaultHashBuilder>;

/// The paths whose content changed lately.
///
/// Invariant: a path stays for at least `FRESH_FOR`, unless very many other paths change in that time.
#[derive(Debug, Default)]
pub struct FreshPaths {
    young: Paths,
    old: Paths,
    /// When the young generation began.
    since: Option<Instant>,
}

impl FreshPaths {
    /// Notes that the path has changed. A fresh directory stays fresh while entries are created in it: tools set its mode and times
    /// at the end.
    pub fn note(&mut self, place: &RootedPath, now: Instant) {
        self.age(now);
        let (root, path) = place;
        let mut above = path.parent();
        while let Some(parent) = above {
            let parent = (*root, parent);
            if !self.young.contains(&parent) && !self.old.remove(&parent) {
                break;
            }
            above = parent.1.parent();
            self.young.insert(parent);
        }
        if !self.young.contains(place) {
            self.young.insert(place.clone());
        }
        if self.young.len() >= FRESH_MAX {
            self.turn(now);
        }
    }

    /// True when the path changed a moment ago.
    pub fn contains(&mut self, place: &RootedPath, now: Instant) -> bool {
        self.age(now);
        self.young.contains(place) || self.old.contains(place)
    }

    /// When [`forget_old`](Self::forget_old) has something to do, even if nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        let is_worth = self.young.len() + self.old.len() > FEW;
        self.since.filter(|_| is_worth).map(|since| since + 2 * FRESH_FOR)
    }

    /// Forgets the paths that are not fresh any more; true when these were many.
    pub fn forget_old(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.age(now);
        }
        is_due
    }

    fn age(&mut self, now: Instant) {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= FRESH_FOR {
            self.turn(now);
        }
        if age >= FRESH_FOR * 2 {
            self.old = Paths::default();
        }
    }

    fn turn(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.since = Some(now);
    }
}

/// The files that were modified since they were last closed.
#[derive(Debug, Default)]
pub struct UnclosedFiles {
    young: Paths,
    old: Paths,
    /// When the young files become old, and the old ones are checked.
    due: Option<Instant>,
}

impl UnclosedFiles {
    /// Notes that the file was modified.
    pub fn note(&mut self, place: RootedPath, now: Instant) {
        self.old.remove(&place);
        if self.young.len() < UNCLOSED_MAX {
            self.young.insert(place);
            self.due.get_or_insert(now + CLOSE_LIMIT);
        }
    }

    /// Notes that the file was closed.
    pub fn forget(&mut self, place: &RootedPath) {
        if self.due.is_some() {
            self.young.remove(place);
            self.old.remove(place);
        }
    }

    /// When [`take_due`](Self::take_due) has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Removes and returns the files that were neither modified nor closed for a while.
    pub fn take_due(&mut self, now: Instant) -> Vec<RootedPath> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let due = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.due = (!self.old.is_empty()).then(|| now + CLOSE_LIMIT);
        due.into_iter().collect()
    }

    /// Removes and returns all files.
    pub fn take_all(&mut self) -> Vec<RootedPath> {
        self.due = None;
        self.old.drain().chain(self.young.drain()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::RootId;
    use crate::path::RelPath;

    fn place(path: &str) -> RootedPath {
        (RootId(0), RelPath::new(path.as_bytes()).unwrap())
    }

    #[expect(clippy::disallowed_methods, reason = "the test needs some moment to begin with")]
    fn begin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_path_is_fresh_for_ten_seconds_and_not_for_twenty() {
        let (mut fresh, begin) = (FreshPaths::default(), begin());
        let at = |seconds| begin + Duration::from_secs(seconds);
        fresh.note(&place("a"), at(0));
        fresh.note(&place("b"), at(9));
        assert!(fresh.contains(&place("a"), at(10)));
        assert!(fresh.contains(&place("b"), at(19)));
        assert!(!fresh.contains(&place("a"), at(20)));
        fresh.note(&place("c"), at(21));
        assert!(!fresh.contains(&place("c"), at(100)));
    }

    #[test]
    fn a_directory_is_fresh_as_long_as_things_are_made_in_it() {
        let (mut fresh, begin) = (FreshPaths::default(), begin());
        let at = |seconds| begin + Duration::from_secs(seconds);
        fresh.note(&place("a"), at(0));
        fresh.note(&place("a/b"), at(1));
        for second in 1..60 {
            fresh.note(&place(&format!("a/b/f{second}")), at(second));
        }
        assert!(fresh.contains(&place("a"), at(60)) && fresh.contains(&place("a/b"), at(60)));
        assert!(!fresh.contains(&place("a/b/f1"), at(60)));
        assert!(!fresh.contains(&place(""), at(60)), "the root was never made");
    }

    #[test]
    fn many_paths_are_forgotten_although_nothing_else_happens() {
        let (mut fresh, begin) = (FreshPaths::default(), begin());
        fresh.note(&place("a"), begin);
        assert_eq!(fresh.due(), None, "a single one is not worth a wake-up");
        (0..FEW).for_each(|n| fresh.note(&place(&n.to_string()), begin + FRESH_FOR / 2));
        let due = fresh.due().unwrap();
        assert!(!fresh.forget_old(due - Duration::from_millis(1)) && !fresh.young.is_empty());
        assert!(fresh.forget_old(due));
        assert_eq!((fresh.young.capacity(), fresh.old.capacity()), (0, 0));
        assert_eq!(fresh.due(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_paths_are_kept() {
        let (mut fresh, begin) = (FreshPaths::default(), begin());
        for n in 0..FRESH_MAX * 5 {
            fresh.note(&place(&n.to_string()), begin);
        }
        assert!(fresh.young.len() + fresh.old.len() <= FRESH_MAX * 2);
        assert!(fresh.contains(&place(&(FRESH_MAX * 5 - FRESH_MAX).to_string()), begin));
    }

    #[test]
    fn a_file_is_due_when_it_is_neither_modified_again_nor_closed() {
        let (mut files, begin) = (UnclosedFiles::default(), begin());
        let at = |halves| begin + CLOSE_LIMIT * halves;
        for name in ["quiet", "busy", "closed"] {
            files.note(place(name), begin);
        }
        assert_eq!(files.take_due(at(1)), []);
        files.note(place("busy"), at(1));
        files.forget(&place("closed"));
        assert_eq!(files.take_due(at(2)), [place("quiet")]);
        assert_eq!(files.take_due(at(3)), [place("busy")]);
        assert_eq!((files.due(), files.take_all()), (None, vec![]));
    }
}
