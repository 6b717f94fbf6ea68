//! Reports of paths that could not be delivered: one line for each directory and cause, with the number of paths.
//! Retries nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Now, PathFailure};
use crate::path::RelPath;

/// At most so many lines for one job; further directories are only counted.
const LINES_MAX: usize = 10;

/// A cause is reported again after this time, or when it concerns twice as many paths.
const AGAIN: Duration = Duration::from_secs(3600);

/// Directories and causes that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// The line for one directory and cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The directory of the paths.
    pub directory: RelPath,
    /// How many paths of it fail for this cause.
    pub paths: usize,
    /// One of them.
    pub example: PathFailure,
    /// When the next retry is due.
    pub due: Now,
}

/// The report after a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RefusalReport {
    /// The lines.
    pub refusals: Vec<Refusal>,
    /// The number of further paths, which get no line.
    pub more_paths: usize,
    /// The number of directories of these paths.
    pub more_directories: usize,
}

/// What was reported already.
#[derive(Debug, Default)]
pub struct Refusals {
    known: BTreeMap<(RelPath, String), Known>,
}

#[derive(Debug, Default)]
struct Known {
    paths: usize,
    said: usize,
    said_at: Now,
}

impl Refusals {
    /// Adds paths that were just added to the fail log, each with the time of its next try. Returns what to report.
    pub fn add(&mut self, now: Now, logged: Vec<(PathFailure, Now)>) -> RefusalReport {
        let mut groups: BTreeMap<(RelPath, String), Refusal> = BTreeMap::new();
        for (example, due) in logged {
            let directory = example.path.parent().unwrap_or_default();
            let key = (directory.clone(), example.failure.cause().to_owned());
            let group = groups.entry(key);
            group.or_insert(Refusal { directory, paths: 0, example, due }).paths += 1;
        }
        if self.known.len() > REMEMBERED_MAX {
            self.known.clear();
        }
        let mut complaint = RefusalReport::default();
        for (key, mut refusal) in groups {
            let known = self.known.entry(key).or_default();
            known.paths += refusal.paths;
            if known.said > 0 && known.paths < 2 * known.said && now < known.said_at + AGAIN {
                continue;
            }
            (known.said, known.said_at) = (known.paths, now);
            if complaint.refusals.len() < LINES_MAX {
                refusal.paths = known.paths;
                complaint.refusals.push(refusal);
            } else {
                complaint.more_paths += refusal.paths;
                complaint.more_directories += 1;
            }
        }
        complaint
    }

    /// Nothing fails any longer: the next failure is reported as new.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(path: &str, words: &str) -> (PathFailure, Now) {
        let path = RelPath::new(path.as_bytes()).unwrap();
        (PathFailure::new(path, words), Now::ZERO)
    }

    fn denied(directory: &str, count: usize) -> Vec<(PathFailure, Now)> {
        let words = |n| {
            format!("mkstemp \"/{directory}/.f{n}.VcpORt\" (in m) failed: Permission denied (13)")
        };
        (0..count).map(|n| failure(&format!("{directory}/f{n}"), &words(n))).collect()
    }

    #[test]
    fn three_thousand_files_of_one_directory_are_one_line() {
        let complaint = Refusals::default().add(Now::ZERO, denied("a", 3_000));
        assert_eq!((complaint.refusals.len(), complaint.more_paths), (1, 0));
        assert_eq!(complaint.refusals[0].paths, 3_000);
    }

    #[test]
    fn each_cause_has_its_line_and_many_directories_are_counted() {
        let mut logged = denied("a", 2);
        logged.push(failure("a/g", "write failed: No space left on device (28)"));
        (0..20).for_each(|n| logged.extend(denied(&format!("d{n}"), 2)));
        let complaint = Refusals::default().add(Now::ZERO, logged);
        assert_eq!(complaint.refusals.len(), LINES_MAX);
        assert_eq!((complaint.more_paths, complaint.more_directories), (24, 12));
    }

    #[test]
    fn files_that_fail_one_by_one_are_said_when_they_have_doubled_or_after_an_hour() {
        let mut refusals = Refusals::default();
        let mut lines = 0;
        for _ in 0..1_000 {
            lines += refusals.add(Now::ZERO, denied("a", 1)).refusals.len();
        }
        assert!(lines < 12, "{lines} lines");
        assert_eq!(refusals.add(AGAIN, denied("a", 1)).refusals[0].paths, 1_001);
        refusals.forget();
        assert_eq!(refusals.add(AGAIN, denied("a", 1)).refusals[0].paths, 1);
    }
}
