//! Directories that cannot be watched: reports them once, and tells when to compare them.
//! Does not compare; the backend does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::change::RootedPath;
use crate::ground::limits::Limit;
use crate::path::RelPath;
use crate::watch::context::WatchContext;

/// Above this number of unwatched directories, their whole root is compared.
const PLACES_MAX: usize = 1000;

/// Why a directory has no watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyUnwatched {
    /// We may not read it: neither can rsync.
    Unreadable,
    /// fs.inotify.max_user_watches is used up.
    NoWatchLeft,
    /// Something else ran out, or the disk failed.
    Failed(Errno),
}

/// The directories without a watch, and when they are compared again.
pub struct Unwatched {
    places: BTreeMap<RootedPath, WhyUnwatched>,
    said: usize,
    interval: Duration,
    due: Option<Instant>,
}

impl Unwatched {
    /// None yet; they are to be compared every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { places: BTreeMap::new(), said: 0, interval, due: None }
    }

    /// Notes that the directory has no watch.
    pub fn add(&mut self, place: RootedPath, why: WhyUnwatched) {
        self.places.insert(place, why);
    }

    /// Notes that the directory has a watch, or is gone.
    pub fn remove(&mut self, place: &RootedPath) {
        if !self.places.is_empty() {
            self.places.remove(place);
        }
    }

    /// Clears the list before everything is scanned again.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// Removes the path and all below it: they need no watch any more.
    pub fn remove_below(&mut self, place: &RootedPath) {
        self.places.retain(|(root, path), _| *root != place.0 || !path.is_within(&place.1));
    }

    /// True when the directory has no watch.
    pub fn contains(&self, place: &RootedPath) -> bool {
        !self.places.is_empty() && self.places.contains_key(place)
    }

    /// How long until they are due; `None` while there are none.
    pub fn timeout(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now()) + Duration::from_millis(1))
    }

    /// The places to compare, when it is time.
    pub fn take_due(&mut self) -> Vec<RootedPath> {
        if self.due.is_none_or(|due| now() < due) {
            return Vec::new();
        }
        self.due = Some(now() + self.interval);
        let mut places: Vec<RootedPath> = self.places.keys().cloned().collect();
        if places.len() > PLACES_MAX {
            places.iter_mut().for_each(|(_, path)| *path = RelPath::root());
            places.dedup();
        }
        places
    }

    /// Logs new entries, and starts the timer.
    pub fn report(&mut self, context: &WatchContext) {
        let count = self.places.len();
        context.status.unwatched.store(count, Ordering::Relaxed);
        if count > self.said
            && let Some(((root, path), why)) = self.places.iter().next_back()
        {
            let root = context.roots.list().iter().find(|r| r.id == *root);
            let root = root.map(|root| root.path.display().to_string()).unwrap_or_default();
            log::warn!(
                "{count} directories are not watched, below {root} {path} among them: {}; \
                 they are compared every {} s",
                why.advice(),
                self.interval.as_secs()
            );
        }
        self.said = count;
        if count == 0 {
            self.due = None;
        } else if self.due.is_none() {
            self.due = Some(now() + self.interval);
        }
    }
}

impl WhyUnwatched {
    /// What is wrong, and what to do about it.
    fn advice(self) -> String {
        match self {
            WhyUnwatched::Unreadable => "sersync may not read them; give it read permission".into(),
            WhyUnwatched::NoWatchLeft => {
                let limit = Limit::MaxUserWatches;
                let value = limit.read().map_or_else(|_| "?".into(), |value| value.to_string());
                format!("all watches are used up; raise {} (now {value})", limit.file())
            }
            WhyUnwatched::Failed(Errno::MFILE | Errno::NFILE) => {
                "too many open files; raise the limit on open files (ulimit -n)".into()
            }
            WhyUnwatched::Failed(Errno::NOMEM) => {
                "out of memory; raise the memory limit of this program".into()
            }
            WhyUnwatched::Failed(other) => format!("{other}; check the disk"),
        }
    }
}

impl From<Errno> for WhyUnwatched {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => WhyUnwatched::Unreadable,
            Errno::NOSPC => WhyUnwatched::NoWatchLeft,
            other => WhyUnwatched::Failed(other),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread waits: it reads the clock for what is due"
)]
fn now() -> Instant {
    Instant::now()
}
