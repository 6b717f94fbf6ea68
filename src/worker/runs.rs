//! The rsync runs of one job against its remote.
//! Does not decide which runs; the plan does.

use super::executor::{Effects, RunResult};
use super::plan::step::{Entry, Run};
use super::remote::{RemoteContext, Stop};
use super::remote_worker::unhealthy;
use super::running_job::RunningJob;
use super::sessions::Connected;
use super::shards::stat;
use crate::change::Scope;
use crate::directory::entries;
use crate::engine::JobKind;
use crate::failure::code;
use crate::path::RelPath;
use crate::rsync::exit::{Outcome, lacking, lacks_room};
use crate::rsync::{Abilities, PreviewAnswer, RunKind, input};

/// Runs rsync for one job.
pub struct Runs<'a> {
    remote: &'a RemoteContext,
    abilities: Abilities,
    /// The job sends one large file.
    is_large: bool,
    job: &'a RunningJob<'a>,
}

impl<'a> Runs<'a> {
    /// Nothing has run yet.
    pub fn new(remote: &'a RemoteContext, abilities: Abilities, job: &'a RunningJob<'a>) -> Self {
        Self { remote, abilities, is_large: job.kind == JobKind::Large, job }
    }

    /// Asks which of these the remote lacks, and which are extraneous there; changes nothing.
    pub fn ask(&self, paths: &[RelPath]) -> Result<PreviewAnswer, Stop> {
        let input = input::names(paths);
        let kind = RunKind::Batch { ignore_times: false };
        match self.remote.sessions().ask(&kind, self.abilities, &input, self.job) {
            Ok(answer) => Ok(answer),
            // The run that delivers them will report the failure.
            Err(Outcome::Partial { .. } | Outcome::Kept { .. }) => Ok(PreviewAnswer::default()),
            Err(outcome) => Err(self.remote.stop(outcome, Some(self.abilities))),
        }
    }

    /// Removes what aborted runs have left on the remote: a receiver that is killed leaves its temporary file.
    pub fn clean_up(&self) {
        let names = self.remote.known().take_leftovers();
        if names.is_empty() {
            return;
        }
        let list = input::temporary_names(&self.remote.rules().patterns, names.iter());
        let sessions = self.remote.sessions();
        let outcome = sessions.run(&RunKind::CleanTemp, self.abilities, &list, self.job).outcome;
        let label = self.remote.endpoint().destination();
        log::debug!("{label}: leftovers of {} paths: {outcome:?}", names.len());
        if is_aborted(&outcome) {
            self.remote.known().note_leftovers(&names);
        }
    }

    /// What an outcome means for the job.
    fn judge(&self, run: &Run, outcome: Outcome) -> Result<RunResult, Stop> {
        let ran = match outcome {
            Outcome::Delivered => RunResult::default(),
            Outcome::Partial { failed, blocked, deletions_skipped } => {
                RunResult { failed, blocked, deletions_skipped, all_failed: None }
            }
            Outcome::Kept { reason } => {
                RunResult { all_failed: Some(reason), ..RunResult::default() }
            }
            // rsync ends when it cannot make the directory in which a moved entry is received. The remote itself works.
            Outcome::Failed(failure) if is_move(&run.kind) && failure.code == code::FILE_IO => {
                let reason = "the remote cannot receive it in its directory there".to_owned();
                RunResult { all_failed: Some(reason), ..RunResult::default() }
            }
            // There may still be room for small files.
            Outcome::Failed(failure) if self.is_large && lacks_room(&failure) => {
                RunResult { all_failed: Some(failure.reason), ..RunResult::default() }
            }
            outcome => {
                // When a comparison of whole directories is repeated, it removes leftovers.
                let by_name = !matches!(run.kind, RunKind::Trees { .. } | RunKind::Listing { .. });
                if by_name && is_aborted(&outcome) {
                    self.remote.known().note_leftovers(&run.names);
                }
                return Err(self.remote.stop(outcome, Some(self.abilities)));
            }
        };
        self.job.answered.set(true);
        self.remote.endpoint().note_delivery();
        Ok(ran)
    }
}

impl Effects for Runs<'_> {
    type Error = Stop;

    fn run(&mut self, run: &Run) -> Result<RunResult, Stop> {
        let sessions = self.remote.sessions();
        let ran = sessions.run(&run.kind, self.abilities, &run.input, self.job);
        let delivers = matches!(ran.outcome, Outcome::Delivered | Outcome::Partial { .. });
        if ran.connected == Connected::Before && delivers {
            self.job.unconfirmed.borrow_mut().extend(run.names.iter().cloned());
        }
        if ran.connected == Connected::Afterwards && delivers {
            self.job.answered_afresh.set(true);
        }
        self.judge(run, ran.outcome)
    }

    fn preview(&mut self, run: &Run) -> Result<Result<Vec<Entry>, RunResult>, Stop> {
        match self.remote.sessions().preview(&run.kind, self.abilities, &run.input, self.job) {
            Ok(gone) => Ok(Ok(gone)),
            Err(outcome) => self.judge(run, outcome).map(Err),
        }
    }

    fn stands(&mut self, path: &RelPath) -> bool {
        // If the root cannot be opened, nothing is known to be gone.
        let root = self.remote.source().open_healthy();
        root.map_or(true, |root| stat(&root, path).is_ok())
    }

    fn list(&mut self, dirs: &[RelPath], scope: Scope) -> Result<Vec<Entry>, Stop> {
        let root = self.remote.source().open_healthy().map_err(|error| unhealthy(&error))?;
        let mut found = Vec::new();
        let mut queue = dirs.to_vec();
        while let Some(dir) = queue.pop() {
            let entries = match entries(&root, &dir) {
                Ok(entries) => entries,
                Err(error) => match lacking(&error) {
                    Some(lack) => {
                        return Err(Stop::Failed(lack.failure("cannot list a directory")));
                    }
                    // rsync cannot read it either, and says so.
                    None => continue,
                },
            };
            for (path, is_dir) in entries {
                let is_excluded = (self.remote.rules().exclude)(&path, is_dir);
                if is_dir && !is_excluded && scope == Scope::Tree {
                    queue.push(path.clone());
                }
                found.push((path, is_dir));
            }
        }
        Ok(found)
    }
}

/// True for a run that receives in a directory of its own, below the remote's.
fn is_move(kind: &RunKind) -> bool {
    matches!(kind, RunKind::MoveDirectory { .. } | RunKind::MoveFile { .. })
}

/// True when a run may have left something unfinished on the remote.
fn is_aborted(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Failed(failure) if failure.kind.may_cut()
    )
}
