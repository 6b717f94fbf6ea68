//! The parent directories that a run touches. rsync sets their times at its end, to what it read at its start.
//! Finds the directories whose times two concurrent runs may set in the wrong order; does not correct them.

use std::collections::BTreeSet;

use super::pending::Item;
use crate::path::RelPath;

/// The directories above the paths of a job.
#[derive(Debug, Default)]
pub struct Parents {
    /// Directories whose entries the job adds or removes, which changes their times.
    changing: BTreeSet<RelPath>,
    /// These and all directories above them: the run sets the times of each.
    touched: BTreeSet<RelPath>,
}

impl Parents {
    /// The parents of a job's paths. Paths of one directory are mostly neighbours in the list.
    pub fn of(items: &[Item]) -> Self {
        let mut parents = Self::default();
        let mut last: Option<&RelPath> = None;
        for item in items {
            // Compare bytes: building a path for each item is slow.
            if last.is_some_and(|last| same_directory(last, &item.path)) {
                continue;
            }
            last = Some(&item.path);
            let Some(parent) = item.path.parent() else { continue };
            let mut above = Some(parent.clone());
            while let Some(directory) = above {
                above = directory.parent();
                if !parents.touched.insert(directory) {
                    break;
                }
            }
            parents.changing.insert(parent);
        }
        parents
    }

    /// Adds a directory that is itself one of the job's paths: the run sets its times too.
    pub fn touch(&mut self, directory: RelPath) {
        self.touched.insert(directory);
    }

    /// The directories whose copies may get outdated times while both jobs are in flight.
    pub fn disputed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a RelPath> {
        let theirs = other.changing.intersection(&self.touched);
        self.changing.intersection(&other.touched).chain(theirs)
    }
}

fn same_directory(a: &RelPath, b: &RelPath) -> bool {
    let directory = |path: &RelPath| {
        path.as_bytes().iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1)
    };
    a.as_bytes()[..directory(a)] == b.as_bytes()[..directory(b)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Scope;
    use crate::engine::mark::Mark;

    fn parents(paths: &[&str]) -> Parents {
        let item = |path: &&str| Item {
            path: RelPath::new(path.as_bytes()).unwrap(),
            mark: Mark::new(Scope::Entry),
        };
        Parents::of(&paths.iter().map(item).collect::<Vec<_>>())
    }

    fn disputed(a: &[&str], b: &[&str]) -> Vec<String> {
        let (a, b) = (parents(a), parents(b));
        let set: BTreeSet<_> = a.disputed(&b).collect();
        set.iter().map(|path| path.to_string()).collect()
    }

    #[test]
    fn a_directory_in_which_one_job_changes_entries_and_that_the_other_touches_is_disputed() {
        assert_eq!(disputed(&["a/x"], &["a/y"]), ["a"]);
        assert_eq!(disputed(&["a/b/c"], &["a/y"]), ["a"]);
        assert_eq!(disputed(&["a/y"], &["a/b/c", "a/b/d"]), ["a"]);
        assert_eq!(disputed(&["x"], &["y"]), ["./"]);
    }

    #[test]
    fn jobs_in_different_directories_dispute_nothing() {
        assert!(disputed(&["a/x"], &["b/y"]).is_empty());
        assert!(disputed(&["a/b/x"], &["a/c/y"]).is_empty());
    }
}
