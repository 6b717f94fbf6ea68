//! A plugin's thread: delivers the events of its queue one by one, and pauses while the other side cannot be reached.
//! Does not know what a plugin does with an event. Logs a failure once, not for each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, select_biased};

use super::{PluginEvent, PluginLimits};

/// The result of a successful delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PluginSuccess {
    Done,
    Skipped,
}

/// The result of a failed delivery; the text is a clause for the log and contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PluginFailure {
    /// Nothing was delivered: retry later.
    Unreachable(String),
    /// The other side failed on it: do not retry.
    Refused(String),
    /// The plugin was stopped meanwhile.
    Stopped,
}

/// Disconnected when the plugin must stop.
pub(super) type StopSignal = Receiver<()>;

/// Delivers one event; each plugin implements it. May block up to its time limit.
pub(super) trait Deliver: Send {
    fn deliver(
        &mut self,
        event: &PluginEvent,
        stop: &StopSignal,
    ) -> Result<PluginSuccess, PluginFailure>;
}

/// Counters that the thread writes and the handle reads.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) done: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) down: AtomicBool,
    pub(super) overflowing: AtomicBool,
}

/// The thread's side.
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) deliver: Box<dyn Deliver>,
    pub(super) limits: PluginLimits,
    pub(super) events: Receiver<PluginEvent>,
    pub(super) stopped: StopSignal,
    pub(super) counters: Arc<Counters>,
    /// True from the first failed event to the next success, so that a series of failures causes one warning.
    pub(super) complained: bool,
}

impl Actor {
    pub(super) fn run(mut self) {
        while let Some(event) = self.next() {
            if !self.pass_on(&event) {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                break;
            }
            self.note_empty_queue();
        }
        let left = self.events.len() as u64;
        self.counters.dropped.fetch_add(left, Ordering::Relaxed);
        if left > 0 {
            log::warn!("plugin {}: stopped; {left} events were not delivered", self.name);
        }
    }

    /// Waits for an event; `None` when the plugin must stop.
    fn next(&self) -> Option<PluginEvent> {
        select_biased! {
            recv(self.stopped) -> _ => None,
            recv(self.events) -> event => event.ok(),
        }
    }

    /// Retries until the event is delivered or has failed; false when the plugin must stop.
    fn pass_on(&mut self, event: &PluginEvent) -> bool {
        let mut pause = self.limits.retry_min;
        loop {
            match self.deliver.deliver(event, &self.stopped) {
                Ok(delivered) => {
                    self.note_delivered(delivered);
                    return true;
                }
                Err(PluginFailure::Refused(reason)) => {
                    self.note_refused(event, &reason);
                    return true;
                }
                Err(PluginFailure::Unreachable(reason)) => self.note_down(&reason),
                Err(PluginFailure::Stopped) => return false,
            }
            if self.stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return false;
            }
            pause = (pause * 2).min(self.limits.retry_max);
        }
    }

    fn note_delivered(&mut self, delivered: PluginSuccess) {
        match delivered {
            PluginSuccess::Skipped => {
                self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            }
            PluginSuccess::Done => {
                self.counters.done.fetch_add(1, Ordering::Relaxed);
                self.complained = false;
                self.note_up();
            }
        }
    }

    fn note_refused(&mut self, event: &PluginEvent, reason: &str) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.note_up();
        let level = level(self.complained);
        self.complained = true;
        log::log!(level, "plugin {}: {reason} (for {})", self.name, event.shown());
    }

    fn note_down(&mut self, reason: &str) {
        let level = level(self.counters.down.swap(true, Ordering::Relaxed));
        log::log!(level, "plugin {}: {reason}; its events wait, and sersync retries", self.name);
    }

    fn note_up(&mut self) {
        if self.counters.down.swap(false, Ordering::Relaxed) {
            log::info!("plugin {}: works again", self.name);
        }
    }

    fn note_empty_queue(&self) {
        if self.events.is_empty() && self.counters.overflowing.swap(false, Ordering::Relaxed) {
            log::info!(
                "plugin {}: has caught up; {} events dropped since the start",
                self.name,
                self.counters.dropped.load(Ordering::Relaxed),
            );
        }
    }
}

/// The log level of a failure: a warning the first time, debug for repetitions.
fn level(is_repetition: bool) -> log::Level {
    if is_repetition { log::Level::Debug } else { log::Level::Warn }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::Path;
    use std::time::Duration;

    use crossbeam_channel::{Sender, bounded};

    use super::*;
    use crate::path::RelPath;

    /// Returns prepared results, and reports the paths that it got.
    struct Told(VecDeque<Result<PluginSuccess, PluginFailure>>, Sender<RelPath>);

    impl Deliver for Told {
        fn deliver(
            &mut self,
            event: &PluginEvent,
            _: &StopSignal,
        ) -> Result<PluginSuccess, PluginFailure> {
            self.1.send(event.path.clone()).unwrap();
            self.0.pop_front().unwrap_or(Ok(PluginSuccess::Done))
        }
    }

    fn run(
        answers: Vec<Result<PluginSuccess, PluginFailure>>,
        names: &[&str],
    ) -> (Arc<Counters>, Vec<String>) {
        let (events_in, events) = bounded(10);
        for name in names {
            let event = PluginEvent {
                root: Arc::from(Path::new("/r")),
                path: RelPath::new(name.as_bytes()).unwrap(),
                is_dir: false,
                mask: 8,
                remotes: Arc::from([]),
            };
            events_in.send(event).unwrap();
        }
        drop(events_in);
        let (asked_in, asked) = bounded(100);
        let (_stop, stopped) = bounded(0);
        let counters = Arc::new(Counters::default());
        let actor = Actor {
            name: "test",
            deliver: Box::new(Told(answers.into(), asked_in)),
            limits: PluginLimits {
                queue: 10,
                time: Duration::from_secs(1),
                retry_min: Duration::from_millis(1),
                retry_max: Duration::from_millis(2),
            },
            events,
            stopped,
            counters: Arc::clone(&counters),
            complained: false,
        };
        actor.run();
        (counters, asked.iter().map(|path| path.to_string()).collect())
    }

    #[test]
    fn unreachable_is_repeated_and_refused_is_not() {
        let away = || Err(PluginFailure::Unreachable("away".into()));
        let answers =
            vec![away(), away(), Ok(PluginSuccess::Done), Err(PluginFailure::Refused("no".into()))];
        let (counters, asked) = run(answers, &["a", "b", "c"]);
        assert_eq!(asked, ["a", "a", "a", "b", "c"]);
        assert_eq!(counters.done.load(Ordering::Relaxed), 2);
        assert_eq!(counters.failed.load(Ordering::Relaxed), 1);
        assert!(!counters.down.load(Ordering::Relaxed));
    }

    #[test]
    fn what_waits_at_the_stop_is_counted_as_dropped() {
        let (counters, asked) = run(vec![Err(PluginFailure::Stopped)], &["a", "b", "c"]);
        assert_eq!(asked, ["a"]);
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 3);
    }
}
