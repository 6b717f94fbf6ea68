//! The workers: each takes one job, blocks on it, and reports.
//! Does not choose jobs, and does not bound how many there are at once: the engine does.

mod addresses;
pub mod delivered;
mod executor;
pub mod fresh;
mod known;
pub mod links;
pub mod load_gate;
pub mod look;
pub mod moves;
mod mutual;
mod names;
pub mod places;
pub mod plan;
mod remote;
pub mod remote_worker;
pub mod rules;
mod running_job;
mod runs;
mod session_starter;
mod sessions;
pub mod shards;
mod table;
pub mod tally;
mod threads;
mod upkeep;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::change::{RemoteId, RootId};
use crate::engine::{Job, JobId, JobReport, Verdict};
use crate::failure::{Failure, FailureKind, code};
use crate::path::RelPath;
use crate::record::Observation;
use load_gate::LoadGate;
use remote_worker::RemoteWorker;
use session_starter::SessionStarter;
use sessions::Sessions;
use table::RemoteTable;
use tally::Tally;
use threads::Threads;

/// What a worker is asked to do.
#[derive(Debug)]
enum Task {
    /// A job; the time up to which the kernel's events were read when it was made; where it counts what it sends.
    Job(Job, Duration, Arc<Tally>),
    CloseSessions(RemoteId),
    ReduceSessions(RemoteId),
    Forget(RemoteId),
    /// This remote was replaced: its ready sessions end.
    Close(Arc<RemoteWorker>),
}

/// What a worker reports about its job.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an event is moved a few times, and never kept")]
pub enum WorkerEvent {
    /// The job is running and reports this.
    Progress(JobId, Progress),
    /// The job is over. The observation is what was on disk before it.
    Done(JobId, JobReport, Option<Observation>),
}

/// What a running job reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// These paths are directories that are sent by name alone. Changes below them may be sent while the job runs.
    Opened(Vec<RelPath>),
    /// It waits for the remote and needs no processor.
    Waits,
    /// It needs the processor again.
    Works,
}

/// The workers. Dropping this ends every session and every thread.
#[derive(Debug)]
pub struct Workers {
    threads: Option<Threads<Task>>,
    remotes: Arc<RemoteTable>,
    load_gate: Arc<LoadGate>,
    session_starter: Option<SessionStarter>,
    /// For each root, the time up to which the kernel's events have been read.
    known_until: HashMap<RootId, Duration>,
    /// What is shared with the jobs in flight, and their remotes.
    tallies: HashMap<JobId, (RemoteId, Arc<Tally>)>,
}

impl Workers {
    /// Starts the workers; `tell` receives their reports. The remotes must use the same load gate.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        remotes: Vec<RemoteWorker>,
        load_gate: Arc<LoadGate>,
        tell: impl Fn(WorkerEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let remotes = Arc::new(RemoteTable::new(remotes));
        let gate = Arc::clone(&load_gate);
        let session_starter = Some(SessionStarter::start(Arc::clone(&remotes), gate)?);
        let threads = {
            let remotes = Arc::clone(&remotes);
            Some(Threads::start(move |task| work(task, &remotes, &tell))?)
        };
        let (known_until, tallies) = (HashMap::new(), HashMap::new());
        Ok(Self { threads, remotes, load_gate, session_starter, known_until, tallies })
    }

    /// Gives a job to a worker.
    pub fn run(&mut self, job: Job) {
        let known_until = self.known_until.get(&job.root).copied().unwrap_or_default();
        let tally = Arc::new(Tally::default());
        self.tallies.insert(job.id, (job.remote, Arc::clone(&tally)));
        self.give(Task::Job(job, known_until, tally));
    }

    /// The report of this job has arrived. It holds the final count, so the running count is dropped.
    pub fn job_ends(&mut self, job: JobId) {
        self.tallies.remove(&job);
    }

    /// How many bytes these jobs in flight have sent so far.
    pub fn sent(&self, jobs: &[JobId]) -> u64 {
        jobs.iter().filter_map(|job| self.tallies.get(job)).map(|(_, tally)| tally.sent()).sum()
    }

    /// Notes that this root's events were read up to `time`, by the clock that stamps files. Jobs that start later use it.
    /// Zero: no event of the kernel was read.
    pub fn know_until(&mut self, root: RootId, time: Duration) {
        // Overwrite, don't take the maximum: the clock may go back.
        if !time.is_zero() {
            self.known_until.insert(root, time);
        }
    }

    /// Ends the ready sessions of a remote.
    pub fn close_sessions(&mut self, remote: RemoteId) {
        self.give(Task::CloseSessions(remote));
    }

    /// Ends the ready sessions of an idle remote, except those that stay while it is idle.
    pub fn reduce_sessions(&mut self, remote: RemoteId) {
        self.give(Task::ReduceSessions(remote));
    }

    /// Forgets what only further jobs of the same burst would need. Called when everything is delivered and the remote is idle.
    pub fn forget(&mut self, remote: RemoteId) {
        self.give(Task::Forget(remote));
    }

    /// The load gate, for remotes that are added later.
    pub fn load_gate(&self) -> &Arc<LoadGate> {
        &self.load_gate
    }

    /// Replaces the remote with this number. Jobs in flight for the previous one continue to their end.
    pub fn set(&mut self, remote: RemoteId, worker: RemoteWorker) {
        if let Some(before) = self.remotes.set(remote, worker) {
            self.give(Task::Close(before));
        }
    }

    /// How many ready sessions of a remote wait for work.
    pub fn sessions(&self, remote: RemoteId) -> usize {
        self.remotes.get(remote).map_or(0, |remote| remote.sessions().count())
    }

    /// The jobs of one remote come back undone: its running rsyncs are killed, and a job that waits for a worker, looks at the disk or
    /// pauses between two runs begins none.
    pub fn abort(&self, remote: RemoteId) {
        let of = self.tallies.values().filter(|(of, _)| *of == remote);
        of.for_each(|(_, tally)| tally.abort());
        self.remotes.at_work(remote).iter().for_each(|remote| remote.abort());
    }

    /// The program stops: a run may only go on while it makes progress.
    pub fn hurry(&self) {
        self.remotes.all_at_work().iter().for_each(|remote| remote.hurry());
    }

    /// Kills every running rsync; its job comes back undone.
    pub fn kill(&self) {
        self.remotes.all_at_work().iter().for_each(|remote| remote.kill());
    }

    fn give(&mut self, task: Task) {
        if let Some(threads) = &mut self.threads {
            threads.run(task);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill();
        self.session_starter = None;
        self.threads = None;
        // Signal all sessions before waiting for one.
        let remotes = self.remotes.all();
        Sessions::close_all(remotes.iter().map(|remote| remote.sessions()));
        remotes.iter().for_each(|remote| remote.end_shared_connection());
    }
}

fn work(task: Task, remotes: &RemoteTable, tell: &impl Fn(WorkerEvent)) {
    match task {
        Task::Job(job, known_until, tally) => {
            let unknown = || {
                let failure = fault(format!("there is no remote number {}", job.remote.0));
                (JobReport::nothing(Verdict::Failed(failure)), None)
            };
            let remote = remotes.get(job.remote);
            let told = |progress| tell(WorkerEvent::Progress(job.id, progress));
            let (report, observation) = remote.map_or_else(unknown, |remote| {
                guarded(|| remote.run(&job, known_until, &told, &tally))
            });
            tell(WorkerEvent::Done(job.id, report, observation));
        }
        Task::CloseSessions(remote) => {
            if let Some(remote) = remotes.get(remote) {
                remote.close_sessions();
            }
        }
        Task::ReduceSessions(remote) => {
            if let Some(remote) = remotes.get(remote) {
                remote.reduce_sessions();
            }
        }
        Task::Close(remote) => remote.close_sessions(),
        Task::Forget(remote) => {
            if let Some(remote) = remotes.get(remote) {
                remote.forget();
            }
        }
    }
}

/// A panic in a job must lose neither the worker nor the job.
fn guarded(
    run: impl FnOnce() -> (JobReport, Option<Observation>),
) -> (JobReport, Option<Observation>) {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let reason = words.unwrap_or("a panic without words").to_owned();
        (JobReport::nothing(Verdict::Failed(fault(reason))), None)
    })
}

fn fault(reason: String) -> Failure {
    Failure::new(FailureKind::Fault, code::DIAGNOSTICS, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_as_a_fault_of_the_program_with_its_words() {
        let fault = |words: &str| JobReport::nothing(Verdict::Failed(fault(words.into())));
        assert_eq!(guarded(|| panic!("no such thing")).0, fault("no such thing"));
        let index = 7;
        assert_eq!(guarded(|| panic!("nothing at {index}")).0, fault("nothing at 7"));
        assert_eq!(guarded(|| std::panic::panic_any(7)).0, fault("a panic without words"));
        assert_eq!(guarded(|| (JobReport::done(), None)).0, JobReport::done());
    }
}
