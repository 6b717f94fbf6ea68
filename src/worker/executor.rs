//! Runs the steps of a plan, and hands back to them what they need to know: previews, listings, and who is to blame.
//! Decides nothing; what a step becomes stands in `plan/step.rs`.

use super::moves::Move;
use super::plan::failure;
use super::plan::step::{Bisected, Doing, Entry, Run, Step};
use super::rules::Rules;
use crate::change::Scope;
use crate::engine::{PathFailure, UndoneMove};
use crate::path::RelPath;
use crate::rsync::{RunKind, Way};

/// What a path that is to blame has failed with.
const NOTHING_DELETED: &str = "nothing is deleted there, for a part of the source cannot be read";

/// What came of an rsync run that did not end the job.
#[derive(Debug, Default)]
pub struct Ran {
    /// What it could not deliver, each with the reason. A directory may stand for what is below it.
    pub failed: Vec<(RelPath, String)>,
    /// Why everything in it has failed, where rsync does not say what did.
    pub all_failed: Option<String>,
    /// It could not read all of the source, and has deleted nothing.
    pub deletions_skipped: bool,
}

/// What the executor does to the outside.
pub trait Effects {
    /// What ends the whole job.
    type Error;

    /// Runs rsync.
    ///
    /// # Errors
    /// When the job ends here.
    fn run(&mut self, run: &Run) -> Result<Ran, Self::Error>;

    /// Asks what a run would delete. The inner error: it does not say all.
    ///
    /// # Errors
    /// When the job ends here.
    fn preview(&mut self, run: &Run) -> Result<Result<Vec<Entry>, Ran>, Self::Error>;

    /// True when something stands on disk at this path.
    fn stands(&mut self, path: &RelPath) -> bool;

    /// Lists directories on disk, parents first. With [`Scope::Tree`] it descends, but not into what the rules exclude.
    fn list(&mut self, dirs: &[RelPath], scope: Scope) -> Vec<Entry>;
}

/// Runs the steps of one job.
pub struct Executor<'a, E> {
    /// What is neither sent nor deleted.
    pub rules: &'a Rules,
    /// How absent names are deleted on this remote.
    pub absent_way: Way,
    /// What it does to the outside.
    pub effects: &'a mut E,
    /// What could not be delivered so far.
    pub failed: Vec<PathFailure>,
    /// Moves whose new names have gone meanwhile: nothing is done at their old names.
    pub undone: Vec<UndoneMove>,
}

impl<E: Effects> Executor<'_, E> {
    /// Runs every step.
    ///
    /// # Errors
    /// When the job ends before the last step.
    pub fn execute(&mut self, steps: Vec<Step>) -> Result<(), E::Error> {
        let mut todo = steps;
        todo.reverse();
        while let Some(step) = todo.pop() {
            if let Step::Move { moved, .. } = &step {
                let moved = moved.clone();
                self.make_move(step, moved, &mut todo)?;
            } else {
                todo.extend(self.step(step)?.into_iter().rev());
            }
        }
        Ok(())
    }

    /// Makes something from its old copy. If it has moved on meanwhile, the old copy is kept for whoever sends it.
    fn make_move(&mut self, step: Step, moved: Move, todo: &mut Vec<Step>) -> Result<(), E::Error> {
        let failed = self.failed.len();
        // A move has one path, so no steps take its place.
        self.step(step)?;
        if !self.effects.stands(&moved.new) {
            self.failed.truncate(failed);
            todo.iter_mut().for_each(|step| step.spare(&moved.old));
            todo.retain(|step| !step.names().is_empty());
            self.undone.push(UndoneMove { new: moved.new, old: moved.old });
        }
        Ok(())
    }

    /// Does one step; returns the steps that take its place.
    fn step(&mut self, step: Step) -> Result<Vec<Step>, E::Error> {
        match step.doing() {
            Doing::Run(run) => {
                let ran = self.effects.run(&run)?;
                Ok(self.settle(step, &run, ran))
            }
            Doing::Preview(run) => match self.effects.preview(&run)? {
                Ok(gone) => Ok(step.after_preview(&gone, self.rules)),
                // Without a preview nothing is deleted.
                Err(ran) => Ok(self.settle(step, &run, Ran { deletions_skipped: true, ..ran })),
            },
            Doing::List(dirs, scope) => {
                let found = self.effects.list(&dirs, scope);
                Ok(step.after_listing(found, self.rules))
            }
        }
    }

    /// Notes what a run could not deliver. A path that rsync cannot read keeps all others in its run from being deleted:
    /// then each half of the step has a run of its own, down to the path to blame.
    fn settle(&mut self, step: Step, run: &Run, ran: Ran) -> Vec<Step> {
        if let Some(reason) = ran.all_failed {
            self.failed.extend(run.names.iter().map(|name| failure(name, &reason)));
        }
        for (path, reason) in ran.failed {
            let path = self.path_to_retry(run, path);
            // rsync skips what it is given below a directory that fails.
            let below = run.names.iter().filter(|name| name.is_within(&path) && **name != path);
            self.failed.extend(below.map(|name| failure(name, &reason)));
            self.failed.push(failure(&path, &reason));
        }
        if !ran.deletions_skipped {
            return Vec::new();
        }
        match step.bisect() {
            Bisected::Done => Vec::new(),
            Bisected::Blamed(path) => {
                self.failed.push(failure(&path, NOTHING_DELETED));
                Vec::new()
            }
            Bisected::Halves(halves) => (*halves).into(),
        }
    }

    /// Where only the comparison of a directory deletes its names, a name that failed there is retried by comparing the
    /// directory: the name itself would be handed to such a comparison again and again.
    fn path_to_retry(&self, run: &Run, path: RelPath) -> RelPath {
        let RunKind::Listing { dirs, .. } = &run.kind else { return path };
        let by_listing = self.absent_way == Way::ListingOfParent;
        let parent = path.parent().filter(|parent| by_listing && dirs.contains(parent));
        parent.unwrap_or(path)
    }
}
