//! The plugins, which get each change beside the remotes. Each has one thread and one bounded queue.
//! Does not decide which changes count. Never delays the mirror: an offer returns at once.

mod actor;
mod command;
mod error_log;
mod http;
mod refresh_cdn;
mod socket;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use thiserror::Error;

use self::actor::{Actor, Counters, Deliver};
use crate::config::{
    CommandPlugin, HttpPlugin, PluginDefinitions, PluginName, RefreshCdnPlugin, SocketPlugin,
};
use crate::filter::{Expression, ExpressionError, Search, Undecided};
use crate::path::RelPath;

/// How long dropping a [`Plugin`] waits for its thread.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// One change, as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginEvent {
    /// The watch root: absolute.
    pub root: Arc<Path>,
    /// What changed, below the root.
    pub path: RelPath,
    /// True for a directory.
    pub is_dir: bool,
    /// inotify's mask; 0 for an entry that was found by listing (see [`crate::change::Cause`]).
    pub mask: u32,
    /// The remotes that the change has reached, `host::module` each; empty with `-m`.
    pub remotes: Arc<[String]>,
}

impl PluginEvent {
    /// The absolute path.
    pub fn absolute(&self) -> PathBuf {
        self.path.below(&self.root)
    }

    /// The absolute path for a log line, escaped so that it cannot forge one.
    fn shown(&self) -> String {
        format!("{}/{}", self.root.display(), self.path)
    }
}

/// A filter on absolute paths; true when the plugin gets the path.
pub type PathTest = Box<dyn Fn(&[u8]) -> bool + Send>;
/// Extracts the part of an absolute path for a URL; `None` when the expression does not match.
pub type PathTail = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send>;

/// What to start: the definition from the file, with compiled expressions and paths.
pub enum PluginSpec {
    /// `<plugin name="command">`.
    Command {
        /// The definition; the plugin uses `include` instead of its `includes`.
        config: CommandPlugin,
        /// `config.includes`, compiled; matches the whole absolute path.
        include: PathTest,
    },
    /// `<plugin name="socket">`.
    Socket(SocketPlugin),
    /// `<plugin name="http">`.
    Http(HttpPlugin),
    /// `<plugin name="refreshCDN">`.
    RefreshCdn {
        /// The definition; the plugin uses `tail` instead of its `match_expression`.
        config: RefreshCdnPlugin,
        /// `config.match_expression`, compiled: the first group and the text after the match. `None`: the path below the root.
        tail: Option<PathTail>,
        /// The file for the answers; usually `errorlog.txt` in the working directory.
        error_log: PathBuf,
    },
}

impl PluginSpec {
    /// The plugin `name` as the file defines it. Only refreshCDN uses `error_log`.
    ///
    /// # Errors
    /// When the file has no such definition, or an expression in it is invalid.
    pub fn new(
        name: PluginName,
        plugins: &PluginDefinitions,
        error_log: PathBuf,
    ) -> Result<Self, PluginError> {
        let missing = PluginError::Undefined(name.name());
        match name {
            PluginName::Command => {
                let config = plugins.command.clone().ok_or(missing)?;
                let include = any_of(&config.includes)?;
                Ok(Self::Command { config, include })
            }
            PluginName::Socket => plugins.socket.clone().map(Self::Socket).ok_or(missing),
            PluginName::Http => plugins.http.clone().map(Self::Http).ok_or(missing),
            PluginName::RefreshCdn => {
                let config = plugins.refresh_cdn.clone().ok_or(missing)?;
                let tail = config.match_expression.as_deref().map(find_tail).transpose()?;
                Ok(Self::RefreshCdn { config, tail, error_log })
            }
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> PluginName {
        match self {
            Self::Command { .. } => PluginName::Command,
            Self::Socket(_) => PluginName::Socket,
            Self::Http(_) => PluginName::Http,
            Self::RefreshCdn { .. } => PluginName::RefreshCdn,
        }
    }
}

/// Matches a path if any expression matches all of it; without expressions, matches every path.
fn any_of(expressions: &[String]) -> Result<PathTest, ExpressionError> {
    let compiled: Result<Vec<_>, _> = expressions.iter().map(|e| Expression::new(e)).collect();
    let compiled = compiled?;
    Ok(Box::new(move |path| {
        let matches = |expression: &Expression| expression.matches(path, Undecided::MatchesNot);
        compiled.is_empty() || compiled.iter().any(matches)
    }))
}

fn find_tail(expression: &str) -> Result<PathTail, ExpressionError> {
    let search = Search::new(expression)?;
    Ok(Box::new(move |path| search.group_and_rest(path)))
}

/// The limits of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// The maximum number of waiting events; one more drops the oldest.
    pub queue: usize,
    /// The time limit for one event: for the run of a command, or for a connection and its answer.
    pub time: Duration,
    /// The first pause when the other side cannot be reached; it doubles each time.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
}

impl PluginLimits {
    /// The default limits: 10,000 events; 5 minutes for a command, 10 s for a connection.
    pub fn of(name: PluginName) -> Self {
        let seconds = match name {
            PluginName::Command => 300,
            PluginName::Socket | PluginName::Http | PluginName::RefreshCdn => 10,
        };
        Self {
            queue: 10_000,
            time: Duration::from_secs(seconds),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
        }
    }
}

/// Why a plugin cannot be started.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The file has no definition of the plugin.
    #[error(
        "plugin {0}: the file has no definition <plugin name=\"{0}\">; copy it from confxml.example.xml"
    )]
    Undefined(&'static str),
    /// An expression is invalid.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The command plugin's prefix is empty.
    #[error("plugin command: prefix=\"\" names no program; write the program to run there")]
    NoProgram,
    /// The http plugin's address is invalid.
    #[error("plugin http: {0}")]
    BadUrl(String),
    /// The thread could not be started.
    #[error("plugin {name}: cannot start its thread: {source}")]
    Thread {
        /// The plugin.
        name: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// The counters of a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginStats {
    /// Delivered events.
    pub done: u64,
    /// Events that the plugin's filter excluded.
    pub skipped: u64,
    /// Failed events: refused, answered with an error, or too slow.
    pub failed: u64,
    /// Events that were dropped because the queue was full or the plugin ended.
    pub dropped: u64,
    /// Events in the queue.
    pub waiting: usize,
    /// True while the other side cannot be reached, or the program cannot be started.
    pub down: bool,
}

/// A running plugin. Dropping it stops the thread and a running command, and waits for them at most three seconds.
pub struct Plugin {
    name: &'static str,
    queue: Sender<PluginEvent>,
    /// The receiving end of `queue`, to remove the oldest event when the queue is full.
    oldest: Receiver<PluginEvent>,
    counters: Arc<Counters>,
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Plugin {
    /// Starts a plugin with the default limits.
    ///
    /// # Errors
    /// When the definition is invalid, or the thread cannot be started.
    pub fn start(spec: PluginSpec) -> Result<Self, PluginError> {
        let limits = PluginLimits::of(spec.name());
        Self::start_within(spec, limits)
    }

    /// Starts a plugin with these limits.
    ///
    /// # Errors
    /// As [`Plugin::start`].
    pub fn start_within(spec: PluginSpec, limits: PluginLimits) -> Result<Self, PluginError> {
        let name = spec.name().name();
        let deliver: Box<dyn Deliver> = match spec {
            PluginSpec::Command { config, include } => {
                Box::new(command::CommandDelivery::new(config, include, limits.time)?)
            }
            PluginSpec::Socket(config) => Box::new(socket::Socket::new(config, limits.time)),
            PluginSpec::Http(config) => Box::new(http::Http::new(&config, limits.time)?),
            PluginSpec::RefreshCdn { config, tail, error_log } => {
                Box::new(refresh_cdn::RefreshCdn::new(config, tail, error_log, limits.time))
            }
        };
        Self::start_thread(name, deliver, limits)
    }

    fn start_thread(
        name: &'static str,
        deliver: Box<dyn Deliver>,
        limits: PluginLimits,
    ) -> Result<Self, PluginError> {
        let (queue, events) = bounded(limits.queue.max(1));
        let (stop, stopped) = bounded(0);
        let (alive, ended) = bounded(0);
        let counters = Arc::new(Counters::default());
        let actor = Actor {
            name,
            deliver,
            limits,
            events: events.clone(),
            stopped,
            counters: Arc::clone(&counters),
            complained: false,
        };
        let thread = Builder::new()
            .name(format!("plugin-{name}"))
            .spawn(move || {
                // Dropped even if the thread panics; the handle waits for that.
                let _alive = alive;
                actor.run();
            })
            .map_err(|source| PluginError::Thread { name, source })?;
        Ok(Self {
            name,
            queue,
            oldest: events,
            counters,
            stop: Some(stop),
            ended,
            thread: Some(thread),
        })
    }

    /// Queues an event; never blocks. If the queue is full, drops and counts the oldest event.
    pub fn offer(&self, event: PluginEvent) {
        let mut event = event;
        while let Err(TrySendError::Full(back)) = self.queue.try_send(event) {
            event = back;
            if self.oldest.try_recv().is_ok() {
                self.count_drop();
            }
        }
    }

    /// The current counters.
    pub fn stats(&self) -> PluginStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PluginStats {
            done: count(&self.counters.done),
            skipped: count(&self.counters.skipped),
            failed: count(&self.counters.failed),
            dropped: count(&self.counters.dropped),
            waiting: self.queue.len(),
            down: self.counters.down.load(Ordering::Relaxed),
        }
    }

    fn count_drop(&self) {
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if !self.counters.overflowing.swap(true, Ordering::Relaxed) {
            log::warn!(
                "plugin {}: {} events wait, and more arrive than it can deliver; the oldest are dropped",
                self.name,
                self.queue.capacity().unwrap_or_default(),
            );
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.ended.recv_timeout(STOP_WAIT) == Err(RecvTimeoutError::Timeout) {
            // Its connection has a time limit, so the thread ends soon; nothing depends on it.
            log::warn!("plugin {}: still waits for an answer; sersync ends without it", self.name);
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("plugin {}: its thread had ended with a panic", self.name);
        }
    }
}
