//! The events that can wake the main loop.
//! Data only.
//!
//! They arrive on two channels. The events of a mirror's threads end with that mirror, so that no other mirror handles
//! them. Events for the process wait for the mirror that takes over.

use crate::change::{RootId, WatchEvent};
use crate::config::{LoadError, Loaded};
use crate::control::server::{Call, ClientEvent};
use crate::engine::{Event, JobId, JobReport};
use crate::process::signals::Signal;
use crate::record::{Merged, Observation, Survey, Surveyor};
use crate::snapshot::SnapshotRequest;
use crate::worker::{Progress, WorkerEvent};

/// Events from the threads of one mirror.
#[derive(Debug)]
pub enum MainEvent {
    /// An event for the engine.
    Event(Event),
    /// A worker has ended a job. The observation shows the disk before the job.
    JobDone(JobId, JobReport, Option<Observation>),
    /// A walk has ended; everything that it found arrived before this event.
    CaughtUp(Walked),
    /// A root that came back has been counted.
    Counted(Counted),
    /// A root's record was merged while the program runs.
    Merged(RootId, Merged),
    /// The state directory was deleted under the running program.
    StateLost,
    /// A request for snapshots.
    Snapshot(SnapshotRequest),
    /// The configuration was read again; the error is a sentence for people.
    ConfigurationRead(Result<Box<Loaded>, RefusedConfiguration>),
    /// A file that lists remotes may have changed.
    ListChanged,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub struct RefusedConfiguration {
    /// For the operator who asked, with lines of the file.
    pub report: String,
    /// For the log.
    pub lines: Vec<String>,
}

impl From<LoadError> for RefusedConfiguration {
    fn from(error: LoadError) -> Self {
        Self { report: error.to_string(), lines: error.log_lines() }
    }
}

impl From<String> for RefusedConfiguration {
    fn from(error: String) -> Self {
        Self { lines: vec![error.clone()], report: error }
    }
}

/// Events for the process, whichever mirror runs in it.
#[derive(Debug)]
pub enum ProcessEvent {
    /// A signal.
    Signal(Signal),
    /// A message from the control socket.
    Control(ClientEvent),
    /// The allocator waits for memory. The main loop reads the details itself.
    MemoryShort,
}

impl ProcessEvent {
    /// A command of a client.
    pub fn call(call: Call) -> Self {
        Self::Control(ClientEvent::Call(call))
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
    /// The root.
    pub root: RootId,
    /// The surveyor, to be passed to the record.
    pub surveyor: Surveyor,
    /// The result.
    pub survey: std::io::Result<Survey>,
    /// True when so much is gone that the deletions were not reported.
    pub is_held: bool,
}

/// The result of a count.
#[derive(Debug)]
pub struct Counted {
    /// The root.
    pub root: RootId,
    /// Whether the root may be mirrored again.
    pub verdict: CountVerdict,
}

/// Whether a root holds enough entries to be trusted.
#[derive(Debug, PartialEq, Eq)]
pub enum CountVerdict {
    /// It holds enough.
    Enough,
    /// It holds too few: the found and the known number of entries. It will be counted again.
    TooFew(u64, u64),
}
