//! What one remote may have from us: of two mirrors of each other, each must tell its own work from the other's.
//! Remembers names and times; sends nothing.

use std::collections::HashMap;
use std::time::Duration;

use super::delivered::Version;
use super::fresh::Stamp;
use super::look::Look;
use crate::path::RelPath;

/// So many files are remembered.
const REMEMBERED_MAX: usize = 20_000;

/// What has been sent, and what is being sent. All times are by the clock of the files.
#[derive(Debug, Default)]
pub struct Ours {
    /// Jobs that send something at this moment; those among them that may send anything.
    sending: usize,
    sending_all: usize,
    /// When the last one of either kind ended.
    last: Duration,
    last_of_all: Duration,
    /// What was sent by name, as it was looked at before.
    sent: HashMap<RelPath, Stamp>,
}

/// How much a job may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What it names.
    Names,
    /// Whatever stands below directories.
    Below,
}

impl Ours {
    /// What was here at `now` may have been sent by an earlier run of the program.
    pub fn new(now: Duration) -> Self {
        Self { last: now, last_of_all: now, ..Self::default() }
    }

    /// A job begins to send what these looks say; `now` is the present time.
    pub fn begin(&mut self, looks: &[&Look], now: Duration) -> Reach {
        let reaches_below = looks.iter().any(|look| look.reaches_below());
        let present = looks.iter().flat_map(|look| &look.present);
        for entry in present {
            if let Some(version) = entry.version {
                self.sent.insert(entry.path.clone(), version.stamp);
            }
        }
        if self.sent.len() > REMEMBERED_MAX {
            // What is forgotten may be anything.
            self.sent.clear();
            self.last_of_all = now;
        }
        self.sending += 1;
        self.sending_all += usize::from(reaches_below);
        if reaches_below { Reach::Below } else { Reach::Names }
    }

    /// It has ended.
    pub fn end(&mut self, reach: Reach, now: Duration) {
        self.sending = self.sending.saturating_sub(1);
        self.last = now;
        if reach == Reach::Below {
            self.sending_all = self.sending_all.saturating_sub(1);
            self.last_of_all = now;
        }
    }

    /// True when nothing at all has been sent since.
    pub fn nothing_since(&self, changed: Duration) -> bool {
        self.sending == 0 && changed > self.last
    }

    /// True when nothing as young as this file was sent under its name.
    pub fn are_older(&self, path: &RelPath, version: Version) -> bool {
        self.sent.get(path).is_none_or(|stamp| version.stamp.modified > stamp.modified)
    }

    /// True when this version of the file has not been sent.
    pub fn lacks(&self, path: &RelPath, version: Version) -> bool {
        let is_sent = self.sent.get(path) == Some(&version.stamp);
        !is_sent && self.sending_all == 0 && version.changed > self.last_of_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsync::Presence;
    use crate::worker::look::Present;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn version(size: u64, changed: u64) -> Version {
        Version { stamp: Stamp { modified: at(1), size }, changed: at(changed), inode: 1 }
    }

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_sent_under_a_name_may_be_older() {
        let mut ours = Ours::new(at(1));
        assert!(ours.are_older(&path("f"), version(7, 6)), "nothing was sent");
        let mut sent = look("f", 7);
        _ = ours.begin(&[&sent], at(5));
        assert!(!ours.are_older(&path("f"), version(8, 6)));
        sent.present[0].version.as_mut().unwrap().stamp.modified = at(0);
        _ = ours.begin(&[&sent], at(5));
        assert!(ours.are_older(&path("f"), version(8, 6)));
    }

    fn look(name: &str, size: u64) -> Look {
        let version = Some(version(size, 5));
        let present = vec![Present { version, ..Present::plain(path(name), Presence::Other) }];
        Look { present, ..Look::default() }
    }

    #[test]
    fn while_and_after_a_job_by_name_only_other_versions_are_not_ours() {
        let mut ours = Ours::new(at(1));
        assert!(ours.nothing_since(at(2)) && !ours.nothing_since(at(1)));
        let reach = ours.begin(&[&look("f", 7)], at(5));
        assert_eq!(reach, Reach::Names);
        for _ in 0..2 {
            assert!(!ours.nothing_since(at(6)));
            assert!(ours.lacks(&path("g"), version(7, 6)) && ours.lacks(&path("f"), version(8, 6)));
            assert!(!ours.lacks(&path("f"), version(7, 6)));
            ours.end(reach, at(9));
        }
        assert!(ours.nothing_since(at(10)));
    }

    #[test]
    fn a_tree_may_have_brought_anything_that_was_there_before_its_end() {
        let mut ours = Ours::new(at(1));
        let tree = Look { trees: vec![path("d")], ..Look::default() };
        let reach = ours.begin(&[&tree], at(5));
        assert_eq!(reach, Reach::Below);
        assert!(!ours.lacks(&path("f"), version(7, 6)));
        ours.end(reach, at(9));
        assert!(!ours.lacks(&path("f"), version(7, 9)) && ours.lacks(&path("f"), version(7, 10)));
    }

    #[test]
    fn what_is_forgotten_may_have_been_sent() {
        let mut ours = Ours::new(at(1));
        for number in 0..=REMEMBERED_MAX {
            let reach = ours.begin(&[&look(&format!("f{number}"), 7)], at(20));
            ours.end(reach, at(2));
        }
        assert!(!ours.lacks(&path("f0"), version(7, 5)) && ours.lacks(&path("f0"), version(7, 21)));
    }
}
