//! The plugins against real listeners and real programs, well-behaved and faulty.
//! Uses the library; other tests cover the configuration of plugins.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "conditions with a limit, and how long a stop takes"
)]

mod command;
mod http;
pub mod listener;
mod refresh_cdn;
mod socket;

use std::path::Path;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use sersync::path::RelPath;
use sersync::plugin::{Plugin, PluginEvent, PluginLimits, PluginSpec, PluginStats};

/// How long a test waits for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// A written, closed file below `/www`.
fn event(path: &[u8]) -> PluginEvent {
    PluginEvent {
        root: Arc::from(Path::new("/www")),
        path: RelPath::new(path).unwrap(),
        is_dir: false,
        mask: 8,
        remotes: Arc::from(["10.0.0.1::web".to_owned(), "10.0.0.2::web".to_owned()]),
    }
}

/// Short limits, so that slow listeners are detected within [`PATIENCE`].
fn limits() -> PluginLimits {
    PluginLimits {
        queue: 100,
        time: Duration::from_secs(10),
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
    }
}

fn start(spec: PluginSpec) -> Plugin {
    Plugin::start_within(spec, limits()).unwrap()
}

fn start_impatient(spec: PluginSpec) -> Plugin {
    let time = Duration::from_millis(300);
    Plugin::start_within(spec, PluginLimits { time, ..limits() }).unwrap()
}

fn now() -> Instant {
    Instant::now()
}

/// Waits until the plugin's numbers satisfy `condition`.
fn wait_for(plugin: &Plugin, condition: impl Fn(PluginStats) -> bool) -> PluginStats {
    let until = Instant::now() + PATIENCE;
    loop {
        let stats = plugin.stats();
        if condition(stats) {
            return stats;
        }
        assert!(Instant::now() < until, "not reached: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

static LINES: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        // Drop the debug messages of libraries.
        if !record.target().starts_with("sersync") {
            return;
        }
        let line = (record.level(), record.args().to_string());
        LINES.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// Keeps every log line of this process from now on.
fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keeper).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The kept lines that hold `word`.
fn log_lines(word: &str) -> Vec<(log::Level, String)> {
    let lines = LINES.lock().unwrap();
    let mut found = lines.clone();
    found.retain(|(_, line)| line.contains(word));
    found
}
