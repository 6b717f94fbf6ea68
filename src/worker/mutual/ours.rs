//! What we may have sent to one remote: each of two mutual mirrors must tell its own deliveries from the other's.
//! Remembers names and times; sends nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::super::delivered::Version;
use super::super::look::Looks;
use crate::path::RelPath;

/// Most files that are remembered.
const REMEMBERED_MAX: usize = 5_000;

/// What has been sent and what is being sent. All times are by the clock that stamps files.
/// Paths and stamps are kept as hashes with a secret key, to save memory: there may be hundreds of remotes.
#[derive(Debug, Default)]
pub struct Ours {
    hasher: RandomState,
    /// How many running jobs may send any file.
    sending_all: usize,
    /// When the last job that could send any file ended.
    last_of_all: Duration,
    /// What was sent by name, by the hash of its path.
    sent: HashMap<u64, Sent>,
}

/// A file that was sent.
#[derive(Debug)]
struct Sent {
    /// The hash of its stamp before the run.
    stamp: u64,
    /// When the last job that named it ended; until then a later version may have been sent. `None`: the job is running.
    until: Option<Duration>,
}

/// What a running job may send.
#[derive(Debug)]
pub struct Reach {
    /// The hashes of the files that it names.
    names: Vec<u64>,
    /// It may also send anything below directories.
    is_below: bool,
}

impl Ours {
    /// Files from before `now` may have been sent by an earlier run of the program.
    pub fn new(now: Duration) -> Self {
        Self { last_of_all: now, ..Self::default() }
    }

    /// Notes that a job begins to send what these looks found; `now` is the present time.
    pub fn begin(&mut self, looks: &Looks, now: Duration) -> Reach {
        let is_below = looks.reaches_below();
        let mut names = Vec::new();
        for entry in looks.all().into_iter().flat_map(|look| &look.present) {
            if let Some(Version { stamp, .. }) = entry.version {
                let (name, stamp) =
                    (self.hasher.hash_one(&entry.path), self.hasher.hash_one(stamp));
                self.sent.insert(name, Sent { stamp, until: None });
                names.push(name);
            }
        }
        if self.sent.len() > REMEMBERED_MAX {
            // A forgotten entry may have been any file.
            self.sent = HashMap::new();
            self.last_of_all = now;
        }
        self.sending_all += usize::from(is_below);
        Reach { names, is_below }
    }

    /// Notes that the job has ended.
    pub fn end(&mut self, reach: Reach, now: Duration) {
        for name in reach.names {
            match self.sent.get_mut(&name) {
                Some(sent) => sent.until = Some(now),
                // The entry was dropped while the job ran, and the file may have been sent until now.
                None => self.last_of_all = self.last_of_all.max(now),
            }
        }
        if reach.is_below {
            self.sending_all = self.sending_all.saturating_sub(1);
            self.last_of_all = now;
        }
    }

    /// Forgets all names, and treats every file until `now` as possibly sent. Called when nothing has happened for a while.
    pub fn rest(&mut self, now: Duration) {
        if self.sent.values().all(|sent| sent.until.is_some()) {
            self.sent = HashMap::new();
            self.last_of_all = now;
        }
    }

    /// True when this version of the file cannot have been sent.
    pub fn lacks(&self, path: &RelPath, version: Version) -> bool {
        let stamp = self.hasher.hash_one(version.stamp);
        let may_be_sent = self.sent.get(&self.hasher.hash_one(path)).is_some_and(|sent| {
            sent.stamp == stamp || sent.until.is_none_or(|until| version.changed <= until)
        });
        !may_be_sent && self.sending_all == 0 && version.changed > self.last_of_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsync::Presence;
    use crate::worker::fresh::Stamp;
    use crate::worker::look::{Look, Present};

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn version(size: u64, changed: u64) -> Version {
        Version { stamp: Stamp { modified: at(1), size }, changed: at(changed), inode: 1 }
    }

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes()).unwrap()
    }

    fn looks(first: Look) -> Looks {
        Looks { first, ..Looks::default() }
    }

    fn look(name: &str, size: u64) -> Looks {
        let version = Some(version(size, 5));
        let present = vec![Present { version, ..Present::plain(path(name), Presence::Other) }];
        looks(Look { present, ..Look::default() })
    }

    #[test]
    fn a_job_by_name_sends_the_versions_that_it_names() {
        let mut ours = Ours::new(at(1));
        let reach = ours.begin(&look("f", 7), at(5));
        assert!(ours.lacks(&path("g"), version(7, 6)));
        // rsync sends the version that it finds, which may be a later one.
        assert!(!ours.lacks(&path("f"), version(8, 6)));
        ours.end(reach, at(9));
        assert!(!ours.lacks(&path("f"), version(8, 9)) && ours.lacks(&path("f"), version(8, 10)));
        assert!(!ours.lacks(&path("f"), version(7, 10)));
    }

    #[test]
    fn a_rest_forgets_names_and_still_takes_nothing_old_for_somebody_elses() {
        let mut ours = Ours::new(at(1));
        let reach = ours.begin(&look("f", 7), at(5));
        ours.rest(at(6));
        assert!(!ours.sent.is_empty(), "it is under way");
        ours.end(reach, at(9));
        ours.rest(at(20));
        assert!(ours.sent.is_empty() && ours.sent.capacity() == 0);
        assert!(!ours.lacks(&path("f"), version(7, 9)) && ours.lacks(&path("f"), version(8, 21)));
    }

    #[test]
    fn a_tree_may_have_brought_anything_that_was_there_before_its_end() {
        let mut ours = Ours::new(at(1));
        let tree = Look { trees: vec![path("d")], ..Look::default() };
        let reach = ours.begin(&looks(tree), at(5));
        assert!(!ours.lacks(&path("f"), version(7, 6)));
        ours.end(reach, at(9));
        assert!(!ours.lacks(&path("f"), version(7, 9)) && ours.lacks(&path("f"), version(7, 10)));
    }

    #[test]
    fn what_is_forgotten_may_have_been_sent() {
        let mut ours = Ours::new(at(1));
        for number in 0..=REMEMBERED_MAX {
            let reach = ours.begin(&look(&format!("f{number}"), 7), at(20));
            ours.end(reach, at(2));
        }
        assert!(!ours.lacks(&path("f0"), version(7, 5)) && ours.lacks(&path("f0"), version(7, 21)));
    }
}
