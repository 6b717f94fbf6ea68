//! Everything that can wake the main loop, and what it brings.
//! Does nothing.
//!
//! Two channels bring it. What the threads of a mirror say ends with that mirror, so that no other mirror takes it for its own.
//! What concerns the process waits for the mirror that takes over.

use crate::change::{RootId, WatchEvent};
use crate::config::Loaded;
use crate::control::server::{Asked, Call};
use crate::engine::{Event, JobId, JobReport};
use crate::process::signals::Signal;
use crate::record::{Merged, Observation, Survey, Surveyor};
use crate::snapshot::Request;
use crate::worker::{Progress, WorkerEvent};

/// What the threads of one mirror say to it.
#[derive(Debug)]
pub enum MainEvent {
    /// For the engine.
    Event(Event),
    /// A worker is done. The observation is what was on disk before the job.
    JobDone(JobId, JobReport, Option<Observation>),
    /// A walk has ended, and all that it found came before this.
    CaughtUp(Walked),
    /// A root that came back has been counted.
    Counted(Counted),
    /// A root's record was merged while the program runs.
    Merged(RootId, Merged),
    /// The state directory was deleted under the running program.
    StateLost,
    /// Somebody wants to know how things are.
    Snapshot(Request),
    /// The configuration was read again; the error is for people.
    ConfigurationRead(Result<Box<Loaded>, String>),
    /// A file that lists remotes may hold something else by now.
    ListChanged,
}

/// What concerns the process, whichever mirror is at work in it.
#[derive(Debug)]
pub enum ProcessEvent {
    /// From outside.
    Signal(Signal),
    /// From the control socket.
    Control(Asked),
    /// The allocator waits for memory. How short it is, the main loop sees by itself.
    MemoryShort,
}

impl ProcessEvent {
    /// A command of a client.
    pub fn call(call: Call) -> Self {
        Self::Control(Asked::Call(call))
    }
}

impl From<WatchEvent> for MainEvent {
    fn from(event: WatchEvent) -> Self {
        Self::Event(Event::Watch(event))
    }
}

impl From<WorkerEvent> for MainEvent {
    fn from(said: WorkerEvent) -> Self {
        match said {
            WorkerEvent::Progress(job, progress) => Self::Event(match progress {
                Progress::Opened(directories) => Event::JobOpened(job, directories),
                Progress::Waits => Event::JobWaits(job),
                Progress::Works => Event::JobWorks(job),
            }),
            WorkerEvent::Done(job, report, observation) => Self::JobDone(job, report, observation),
        }
    }
}

/// The end of a walk.
#[derive(Debug)]
pub struct Walked {
    /// Of which root.
    pub root: RootId,
    /// Who walked, with what it knows now.
    pub surveyor: Surveyor,
    /// What it came to.
    pub survey: std::io::Result<Survey>,
    /// True when so much is gone that nothing was said of it.
    pub is_held: bool,
}

/// What a count has found.
#[derive(Debug)]
pub struct Counted {
    /// Which root.
    pub root: RootId,
    /// Whether it may be mirrored again.
    pub verdict: Verdict,
}

/// Whether what is there is enough.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Enough,
    /// So few entries, of so many that are known; it is counted again.
    TooFew(u64, u64),
}
