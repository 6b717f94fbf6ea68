//! The pool of workers: each takes one job at a time, blocks on it, and reports.
//! Does not choose jobs; the engine hands out no more than there are workers.

pub mod delivered;
mod executor;
pub mod fresh;
mod known;
pub mod load_gate;
pub mod look;
pub mod moves;
mod mutual;
pub mod plan;
mod remote;
pub mod remote_worker;
pub mod rules;
mod runs;
mod session_starter;
mod sessions;
pub mod shards;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::change::{RemoteId, RootId};
use crate::engine::{Job, JobId, JobReport, Verdict};
use crate::failure::{Failure, FailureKind, code};
use crate::path::RelPath;
use crate::record::Look;
use load_gate::LoadGate;
use remote_worker::RemoteWorker;
use session_starter::SessionStarter;

/// What a worker is asked to do.
#[derive(Debug)]
enum Task {
    /// A job, and the time up to which the kernel's events were known when it was made.
    Job(Job, Duration),
    CloseSessions(RemoteId),
}

/// What a worker says of its job.
#[derive(Debug)]
pub enum WorkerEvent {
    /// These of its paths are directories that are sent as what they are; what is below them may leave meanwhile.
    Opened(JobId, Vec<RelPath>),
    /// It is over; the look is what was there before.
    Done(JobId, JobReport, Option<Look>),
}

/// The pool. Dropping it ends every session and every thread.
#[derive(Debug)]
pub struct Workers {
    tasks: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
    remotes: Arc<[RemoteWorker]>,
    session_starter: Option<SessionStarter>,
    /// For each root, the time up to which the kernel's events are known.
    known_until: HashMap<RootId, Duration>,
}

impl Workers {
    /// Starts `count` workers; what they have to say is given to `tell`. The links were made with this `calm`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        count: usize,
        remotes: Vec<RemoteWorker>,
        load_gate: Arc<LoadGate>,
        tell: impl Fn(WorkerEvent) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let remotes: Arc<[RemoteWorker]> = remotes.into();
        let (sender, tasks) = unbounded();
        let session_starter = Some(SessionStarter::start(Arc::clone(&remotes), load_gate)?);
        let mut workers = Self {
            tasks: Some(sender),
            threads: Vec::new(),
            remotes,
            session_starter,
            known_until: HashMap::new(),
        };
        for index in 0..count {
            let (tasks, remotes, tell) =
                (tasks.clone(), Arc::clone(&workers.remotes), tell.clone());
            let thread = std::thread::Builder::new().name(format!("worker {}", index + 1));
            let work = move || work(&tasks, &remotes, &tell);
            workers.threads.push(thread.stack_size(512 << 10).spawn(work)?);
        }
        Ok(workers)
    }

    /// Hands a job to the next free worker.
    pub fn run(&self, job: Job) {
        let known_until = self.known_until.get(&job.root).copied().unwrap_or_default();
        self.send(Task::Job(job, known_until));
    }

    /// The jobs of this root that start from now on know what happened until `time`, by the clock of the files. Zero: no
    /// event of the kernel was read.
    pub fn know_until(&mut self, root: RootId, time: Duration) {
        // Overwrite, don't take the maximum: the clock may go back.
        if !time.is_zero() {
            self.known_until.insert(root, time);
        }
    }

    /// From now on a remote that has answered has warm sessions, until it rests.
    pub fn keep_sessions_ready(&self, remote: RemoteId) {
        if let Some(remote) = self.remotes.get(remote.0) {
            remote.keep_sessions_ready();
        }
    }

    /// Ends the warm sessions of a remote that has rested.
    pub fn close_sessions(&self, remote: RemoteId) {
        self.send(Task::CloseSessions(remote));
    }

    /// Kills the runs of one remote that are under way; their jobs come back undone.
    pub fn abort(&self, remote: RemoteId) {
        if let Some(remote) = self.remotes.get(remote.0) {
            remote.abort();
        }
    }

    /// Kills every run that is under way; its job comes back undone.
    pub fn kill(&self) {
        self.remotes.iter().for_each(RemoteWorker::kill);
    }

    fn send(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // Fails only when all workers are gone, which is when the program ends.
            _ = tasks.send(task);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill();
        self.session_starter = None;
        self.tasks = None;
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
        self.remotes.iter().for_each(RemoteWorker::close_sessions);
    }
}

fn work(tasks: &Receiver<Task>, remotes: &[RemoteWorker], tell: &impl Fn(WorkerEvent)) {
    for task in tasks {
        match task {
            Task::Job(job, known_until) => {
                let done_anyway = || (JobReport::done(), None);
                let remote = remotes.get(job.remote.0);
                let opened = |directories| tell(WorkerEvent::Opened(job.id, directories));
                let (report, look) = remote.map_or_else(done_anyway, |remote| {
                    guarded(|| remote.run(&job, known_until, &opened))
                });
                tell(WorkerEvent::Done(job.id, report, look));
            }
            Task::CloseSessions(remote) => {
                if let Some(remote) = remotes.get(remote.0) {
                    remote.close_sessions();
                }
            }
        }
    }
}

/// A panic in a job must cost neither a worker nor the job.
fn guarded(run: impl FnOnce() -> (JobReport, Option<Look>)) -> (JobReport, Option<Look>) {
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
