//! What a name in rsync's error output means for the run: which of its paths has failed.
//! Pure; reads no error output.

use std::collections::BTreeSet;

use super::plan::step::Run;
use crate::path::{RelPath, within};
use crate::rsync::RunKind;
use crate::rsync::temporary::{is_temporary_of, targets_of};

/// The names that a run was given.
pub struct RunNames<'a> {
    names: BTreeSet<&'a RelPath>,
    /// The run reaches nothing below its names, except that it deletes what is absent.
    is_by_name: bool,
}

impl<'a> RunNames<'a> {
    /// The names of this run.
    pub fn of(run: &'a Run) -> Self {
        let goes_down = matches!(
            run.kind,
            RunKind::Trees { .. }
                | RunKind::Listing { .. }
                | RunKind::Extraneous { .. }
                | RunKind::MoveDirectory { .. }
        );
        Self { names: run.names.iter().collect(), is_by_name: !goes_down }
    }

    /// The names below `path`.
    pub fn below<'b>(&'b self, path: &'b RelPath) -> impl Iterator<Item = &'b RelPath> {
        let from_there = self.names.range::<RelPath, _>(path.clone()..);
        within(from_there.copied(), path, |name| name).filter(move |name| *name != path)
    }

    /// The paths that failed if rsync names `shown`. It may name the temporary file of a path, or something in a directory that it
    /// deletes. `stands`: whether a path exists here.
    pub fn meant(&self, shown: RelPath, mut stands: impl FnMut(&RelPath) -> bool) -> Vec<RelPath> {
        if self.names.contains(&shown) {
            return vec![shown];
        }
        let parent = shown.parent().unwrap_or_default();
        match (targets_of(&shown), self.is_by_name) {
            (None, false) => return vec![shown],
            (Some(targets), false) => {
                // The name does not say which of them; it may even be a file's own name.
                let mut meant: Vec<_> = targets.into_iter().chain([shown]).collect();
                meant.retain(|path| stands(path));
                return if meant.is_empty() { vec![parent] } else { meant };
            }
            (None, true) => {}
            (Some(targets), true) => {
                let own = targets.into_iter().filter(|path| self.names.contains(path));
                let mut meant: Vec<_> = own.collect();
                if meant.is_empty() {
                    // The name of the temporary file may be cut.
                    let cut = self.below(&parent).filter(|name| is_temporary_of(&shown, name));
                    meant.extend(cut.cloned());
                }
                if !meant.is_empty() {
                    return meant;
                }
            }
        }
        // A name of the run is retried, and not what is below it: that would start with a new count of tries each time.
        let mut above = shown.parent();
        while let Some(path) = above {
            if self.names.contains(&path) {
                return vec![path];
            }
            above = path.parent();
        }
        vec![shown]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn meant(kind: RunKind, names: &[&str], shown: &str, here: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| path(name)).collect();
        let run = Run { kind, input: Vec::new(), names };
        let stands = |path: &RelPath| here.contains(&&*path.to_string());
        let meant = RunNames::of(&run).meant(path(shown), stands);
        meant.iter().map(RelPath::to_string).collect()
    }

    #[test]
    fn a_temporary_file_means_the_name_of_the_run_that_it_becomes() {
        let long = format!("d/{}", "n".repeat(250));
        let cut = format!("d/.{}.abcdef", "n".repeat(245));
        let names = ["d/f", "d/.htaccess", "e/g", "e/.g", "d/.real.abcdef", &*long];
        let by_name = |shown| meant(RunKind::Batch { ignore_times: false }, &names, shown, &[]);
        assert_eq!(by_name("d/.f.uzrUAS"), ["d/f"]);
        assert_eq!(by_name("d/.htaccess.uzrUAS"), ["d/.htaccess"]);
        assert_eq!(by_name("e/.g.uzrUAS"), ["e/g", "e/.g"]);
        assert_eq!(by_name("d/.real.abcdef"), ["d/.real.abcdef"]);
        assert_eq!(by_name(&cut), [&*long]);
    }

    #[test]
    fn what_is_named_in_a_directory_that_is_deleted_means_the_directory() {
        let names = ["www", "a/f"];
        let by_name = |shown| meant(RunKind::Replacement, &names, shown, &[]);
        assert_eq!(by_name("www/up/f"), ["www"]);
        assert_eq!(by_name("a"), ["a"]);
        assert_eq!(by_name("other/f"), ["other/f"]);
    }

    #[test]
    fn in_a_tree_a_temporary_file_means_what_stands_here() {
        let kind = || RunKind::Listing { dirs: vec![path("d")], deletes: true };
        let in_tree = |shown, here: &[&str]| meant(kind(), &["d"], shown, here);
        assert_eq!(in_tree("d/e/f", &[]), ["d/e/f"]);
        assert_eq!(in_tree("d/.f.uzrUAS", &["d/f"]), ["d/f"]);
        assert_eq!(in_tree("d/.f.uzrUAS", &["d/.f"]), ["d/.f"]);
        assert_eq!(
            in_tree("d/.f.uzrUAS", &["d/f", "d/.f", "d/.f.uzrUAS"]),
            ["d/f", "d/.f", "d/.f.uzrUAS"]
        );
        assert_eq!(in_tree("d/.f.uzrUAS", &[]), ["d"]);
    }
}
