//! Whole directories under rules that rsync's patterns cannot say: what is sent stands in a list, what is deleted is looked at first.
//! Does nothing where the patterns say all.

use super::JobRun;
use crate::change::Scope;
use crate::path::RelPath;
use crate::rsync::RunKind;
use crate::rsync::excludes::Excludes;
use crate::rsync::input::{self, exact_pattern};
use crate::worker::remote::Stop;
use crate::worker::rules::Coverage;
use crate::worker::shards::entries;

/// Names in one list.
const NAMES_MAX: usize = 50_000;

impl JobRun<'_> {
    /// Makes directories equal: what the rules let through is sent by name, what they exclude is not deleted.
    pub fn exactly(
        &mut self,
        dirs: &[RelPath],
        scope: Scope,
        excludes: &Excludes,
    ) -> Result<(), Stop> {
        self.sparing(dirs, |dir| dir, |run, dirs| run.exactly_together(dirs, scope, excludes))
    }

    fn exactly_together(
        &mut self,
        dirs: &[RelPath],
        scope: Scope,
        excludes: &Excludes,
    ) -> Result<(), Stop> {
        let kind = RunKind::Extraneous { dirs: dirs.to_vec(), scope };
        let names: Vec<&RelPath> = dirs.iter().collect();
        let Some(guarded) = self.guard(&kind, excludes, |excludes| excludes.rules(), &names)?
        else {
            return Ok(());
        };
        if *excludes != self.rules().patterns {
            // Patterns of the operator hold as well, and only rsync can read those.
            let hidden = self.below(dirs, scope, Wanted::No);
            let guarded = guarded.with(hidden.iter().map(exact_pattern));
            return self.by_patterns(dirs, scope, &guarded);
        }
        if self.deletes() && self.deletes_below {
            self.run(&kind, guarded.rules(), &names)?;
        }
        let present = self.below(dirs, scope, Wanted::Yes);
        for names in present.chunks(NAMES_MAX) {
            let kind = RunKind::Batch { ignore_times: false };
            self.run(&kind, input::names(names), &names.iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Deletes directories that are gone, but not what is excluded in them.
    pub fn delete_guarded(&mut self, absent: &[&RelPath]) -> Result<(), Stop> {
        self.sparing(absent, |path| path, Self::delete_guarded_together)
    }

    fn delete_guarded_together(&mut self, absent: &[&RelPath]) -> Result<(), Stop> {
        let base = self.rules().patterns.clone();
        let kind = RunKind::GuardedDeletion;
        let input = |excludes: &Excludes| input::guarded(excludes, absent.iter().copied());
        let guarded = match self.rules().coverage {
            Coverage::Whole => Some(base),
            Coverage::Partial => self.guard(&kind, &base, input, absent)?,
        };
        guarded.map_or(Ok(()), |guarded| self.run(&kind, input(&guarded), absent))
    }

    /// `excludes` and each thing that the run would delete although the rules exclude it; `None` when that cannot be known.
    fn guard(
        &mut self,
        kind: &RunKind,
        excludes: &Excludes,
        input: impl Fn(&Excludes) -> Vec<u8>,
        names: &[&RelPath],
    ) -> Result<Option<Excludes>, Stop> {
        if !self.deletes() {
            return Ok(Some(excludes.clone()));
        }
        let Some(gone) = self.preview(kind, &input(excludes), names)? else {
            return Ok(None);
        };
        let rules = self.rules();
        let hidden = gone.iter().filter(|(path, is_dir)| (rules.exclude)(path, *is_dir));
        Ok(Some(excludes.with(hidden.map(|(path, _)| exact_pattern(path)))))
    }

    /// What stands in these directories, parents first: what the rules let through, or the topmost of what they exclude.
    fn below(&self, dirs: &[RelPath], scope: Scope, wanted: Wanted) -> Vec<RelPath> {
        let Ok(root) = self.open_root() else { return Vec::new() };
        let mut found = Vec::new();
        let mut queue: Vec<RelPath> = dirs.to_vec();
        if wanted == Wanted::Yes {
            found.extend(queue.iter().filter(|dir| !dir.is_root()).cloned());
        }
        while let Some(dir) = queue.pop() {
            for (path, is_dir) in entries(&root, &dir) {
                let is_wanted = !(self.rules().exclude)(&path, is_dir);
                if is_dir && is_wanted && scope == Scope::Tree {
                    queue.push(path.clone());
                }
                if is_wanted == (wanted == Wanted::Yes) {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// Which entries are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
}
