//! The pool of workers: each takes one job at a time, blocks on it, and reports.
//! Does not choose jobs; the engine hands out no more than there are workers.

pub mod calm;
pub mod delivered;
mod echoes;
pub mod fresh;
mod job_run;
pub mod link;
pub mod look;
pub mod moves;
mod ours;
mod remote;
pub mod rules;
mod sessions;
pub mod shards;
mod warmer;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::change::RemoteId;
use crate::engine::{Job, JobId, JobReport, Verdict};
use crate::path::RelPath;
use crate::record::Look;
use calm::Calm;
use link::Link;
use warmer::Warmer;

/// What a worker is asked to do.
#[derive(Debug)]
enum Task {
    Job(Job),
    CloseSessions(RemoteId),
}

/// What a worker says of its job.
#[derive(Debug)]
pub enum Said {
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
    links: Arc<[Link]>,
    warmer: Option<Warmer>,
}

impl Workers {
    /// Starts `count` workers; what they have to say is given to `tell`. The links were made with this `calm`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        count: usize,
        links: Vec<Link>,
        calm: Arc<Calm>,
        tell: impl Fn(Said) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let links: Arc<[Link]> = links.into();
        let (sender, tasks) = unbounded();
        let warmer = Some(Warmer::start(Arc::clone(&links), calm)?);
        let mut workers = Self { tasks: Some(sender), threads: Vec::new(), links, warmer };
        for index in 0..count {
            let (tasks, links, tell) = (tasks.clone(), Arc::clone(&workers.links), tell.clone());
            let thread = std::thread::Builder::new().name(format!("worker {}", index + 1));
            let work = move || work(&tasks, &links, &tell);
            workers.threads.push(thread.stack_size(512 << 10).spawn(work)?);
        }
        Ok(workers)
    }

    /// Hands a job to the next free worker.
    pub fn run(&self, job: Job) {
        self.send(Task::Job(job));
    }

    /// From now on a remote that has answered has warm sessions, until it rests.
    pub fn keep_sessions_ready(&self, remote: RemoteId) {
        if let Some(link) = self.links.get(remote.0) {
            link.keep_sessions_ready();
        }
    }

    /// Ends the warm sessions of a remote that has rested.
    pub fn close_sessions(&self, remote: RemoteId) {
        self.send(Task::CloseSessions(remote));
    }

    /// Kills the runs of one remote that are under way; their jobs come back undone.
    pub fn abort(&self, remote: RemoteId) {
        if let Some(link) = self.links.get(remote.0) {
            link.abort();
        }
    }

    /// Kills every run that is under way; its job comes back undone.
    pub fn kill(&self) {
        self.links.iter().for_each(Link::kill);
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
        self.warmer = None;
        self.tasks = None;
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
        self.links.iter().for_each(Link::close_sessions);
    }
}

fn work(tasks: &Receiver<Task>, links: &[Link], tell: &impl Fn(Said)) {
    for task in tasks {
        match task {
            Task::Job(job) => {
                let done_anyway = || (JobReport::done(), None);
                let link = links.get(job.remote.0);
                let opened = |directories| tell(Said::Opened(job.id, directories));
                let (report, look) =
                    link.map_or_else(done_anyway, |link| guarded(|| link.run(&job, &opened)));
                tell(Said::Done(job.id, report, look));
            }
            Task::CloseSessions(remote) => {
                if let Some(link) = links.get(remote.0) {
                    link.close_sessions();
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
        (JobReport::nothing(Verdict::Fault(reason)), None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_as_a_fault_of_the_program_with_its_words() {
        let fault = |words: &str| JobReport::nothing(Verdict::Fault(words.into()));
        assert_eq!(guarded(|| panic!("no such thing")).0, fault("no such thing"));
        let index = 7;
        assert_eq!(guarded(|| panic!("nothing at {index}")).0, fault("nothing at 7"));
        assert_eq!(guarded(|| std::panic::panic_any(7)).0, fault("a panic without words"));
        assert_eq!(guarded(|| (JobReport::done(), None)).0, JobReport::done());
    }
}
