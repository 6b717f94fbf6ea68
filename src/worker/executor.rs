//! Runs the steps of a plan, and gives each step its preview, its listing, or the path that made its run fail.
//! Decides only what has failed, and who clears a directory out of the way; `plan/step.rs` decides which steps follow.

use std::collections::HashSet;

use super::moves::Move;
use super::names::RunNames;
use super::plan::step::{Bisected, Doing, Entry, Run, Step};
use super::plan::{MakingWay, failure};
use super::rules::Rules;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::engine::{PathFailure, UndoneMove};
use crate::path::RelPath;
use crate::rsync::exit::EXCLUDED_THERE;
use crate::rsync::{RunKind, Way};

/// Why a path failed that kept a run from deleting.
const NOTHING_DELETED: &str = "nothing is deleted there, because part of the source cannot be read";

/// Why a directory stays in the place of something else; follows its name.
const KEPT: &str = "is a directory, and rules keep something in it (<filter>, <commonParams> or its rsyncd.conf): move that away there, or change the rules";

/// The result of an rsync run that did not end the job.
#[derive(Debug, Default)]
pub struct RunResult {
    /// What it could not deliver, as rsync names it, each with the reason. A directory may stand for its content, and a temporary file for
    /// its target.
    pub failed: Vec<(RelPath, String)>,
    /// Those of them in whose place the remote has a directory that the run did not delete.
    pub blocked: Vec<RelPath>,
    /// Why all of its paths failed, if rsync named none.
    pub all_failed: Option<String>,
    /// It could not read all of the source, and has deleted nothing.
    pub deletions_skipped: bool,
}

/// The executor's access to the disk and the remote.
pub trait Effects {
    /// What ends the whole job.
    type Error;

    /// Runs rsync.
    ///
    /// # Errors
    /// When the job ends here.
    fn run(&mut self, run: &Run) -> Result<RunResult, Self::Error>;

    /// Asks what a run would delete. The inner error: the answer is incomplete.
    ///
    /// # Errors
    /// When the job ends here.
    fn preview(&mut self, run: &Run) -> Result<Result<Vec<Entry>, RunResult>, Self::Error>;

    /// True when this path exists on disk.
    fn stands(&mut self, path: &RelPath) -> bool;

    /// Lists directories on disk, parents first. With [`Scope::Tree`] it descends, but not into what the rules exclude.
    ///
    /// # Errors
    /// When the job ends here.
    fn list(&mut self, dirs: &[RelPath], scope: Scope) -> Result<Vec<Entry>, Self::Error>;
}

/// Runs the steps of one job.
pub struct Executor<'a, E> {
    /// What is neither sent nor deleted.
    pub rules: &'a Rules,
    /// How absent names are deleted on this remote.
    pub absent_way: Way,
    /// How a directory is deleted that a run without rules has left in the place of something else.
    pub making_way: MakingWay,
    /// The access to the disk and the remote.
    pub effects: &'a mut E,
    /// What could not be delivered so far.
    pub failed: Vec<PathFailure>,
    /// What other jobs have to do.
    pub returned: Vec<Item>,
    /// Moves whose new names are gone: nothing is done at their old names.
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

    /// Makes a moved entry from its old copy. If it has moved again since, the old copy stays for the job that sends it.
    fn make_move(&mut self, step: Step, moved: Move, todo: &mut Vec<Step>) -> Result<(), E::Error> {
        let failed = self.failed.len();
        let next = self.step(step)?;
        if self.effects.stands(&moved.new) {
            todo.extend(next.into_iter().rev());
        } else {
            self.failed.truncate(failed);
            todo.iter_mut().for_each(|step| step.spare(&moved.old));
            todo.retain(|step| !step.names().is_empty());
            self.undone.push(UndoneMove { new: moved.new, old: moved.old });
        }
        Ok(())
    }

    /// Runs one step; returns the steps that replace it.
    fn step(&mut self, step: Step) -> Result<Vec<Step>, E::Error> {
        match step.doing() {
            Doing::Run(run) => {
                let ran = self.effects.run(&run)?;
                Ok(self.settle(step, &run, ran))
            }
            Doing::Preview(run) => match self.effects.preview(&run)? {
                Ok(gone) => Ok(step.after_preview(&gone, self.rules)),
                // Without a preview nothing is deleted.
                Err(ran) => {
                    Ok(self.settle(step, &run, RunResult { deletions_skipped: true, ..ran }))
                }
            },
            Doing::List(dirs, scope) => {
                let found = self.effects.list(&dirs, scope)?;
                Ok(step.after_listing(found, self.rules))
            }
        }
    }

    /// Notes what a run could not deliver. If rsync cannot read one path, it deletes nothing in that run.
    /// Then each half of the step gets a run of its own, until the unreadable path is found.
    fn settle(&mut self, step: Step, run: &Run, ran: RunResult) -> Vec<Step> {
        if let Some(reason) = ran.all_failed {
            self.failed.extend(run.names.iter().map(|name| failure(name, &reason)));
        }
        let blocked: HashSet<RelPath> = ran.blocked.into_iter().collect();
        let (blocked, failed): (Vec<_>, Vec<_>) =
            ran.failed.into_iter().partition(|(path, _)| blocked.contains(path));
        let mut todo = self.make_way(&step, run, blocked);
        if !failed.is_empty() {
            self.note_failed(run, failed);
        }
        if !ran.deletions_skipped {
            return todo;
        }
        match step.bisect() {
            Bisected::Done => {}
            Bisected::Blamed(path) => self.failed.push(failure(&path, NOTHING_DELETED)),
            Bisected::Halves(halves) => todo.extend(*halves),
        }
        todo
    }

    /// Notes the paths that rsync has named.
    fn note_failed(&mut self, run: &Run, failed: Vec<(RelPath, String)>) {
        let names = RunNames::of(run);
        for (shown, reason) in failed {
            for path in names.meant(shown, |path| self.effects.stands(path)) {
                // What a daemon excludes it also protects, so there is nothing to delete.
                if reason == EXCLUDED_THERE && !self.effects.stands(&path) {
                    continue;
                }
                let path = self.path_to_retry(run, path);
                // If a directory fails, rsync also skips the listed names below it.
                self.failed.extend(names.below(&path).map(|name| failure(name, &reason)));
                self.failed.push(failure(&path, &reason));
            }
        }
    }

    /// Decides what follows for paths in whose place the remote has a directory. A run without rules leaves such a directory alone,
    /// because it would also delete what the rules keep there. Returns the steps that have the rules.
    fn make_way(&mut self, step: &Step, run: &Run, blocked: Vec<(RelPath, String)>) -> Vec<Step> {
        let mut by_rules = Vec::new();
        for (path, reason) in blocked {
            match &self.making_way {
                MakingWay::Never(why) => {
                    self.failed.push(PathFailure { path, failure: why.clone() });
                }
                MakingWay::AtOnce => self.failed.push(failure(&path, &reason)),
                _ if run.kind.has_rules() => {
                    let words = format!("on the remote {path} {KEPT}");
                    let path = self.path_to_retry(run, path);
                    self.failed.push(failure(&path, &words));
                }
                MakingWay::ByRules => by_rules.push(path),
                MakingWay::ByListing => {
                    let item = Item {
                        path: path.parent().unwrap_or_default(),
                        mark: Mark::new(Scope::Listing),
                    };
                    if self.returned.last() != Some(&item) {
                        self.returned.push(item);
                    }
                }
            }
        }
        step.making_way(by_rules, self.rules)
    }

    /// The path to retry: the parent directory, if only a comparison of that directory can delete the name.
    /// Retrying the name itself would cause such a comparison again and again.
    fn path_to_retry(&self, run: &Run, path: RelPath) -> RelPath {
        let RunKind::Listing { dirs, .. } = &run.kind else { return path };
        let by_listing = self.absent_way == Way::ListingOfParent;
        let parent = path.parent().filter(|parent| by_listing && dirs.contains(parent));
        parent.unwrap_or(path)
    }
}
