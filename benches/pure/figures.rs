//! The list of figures, in a full and a short form.
//! They measure processor time where possible, so that other load does not count.

mod config;
mod engine;
mod filter;
mod pending;

use std::time::Duration;

use criterion::{Bencher, Criterion};
use rustix::time::{ClockId, clock_gettime};
use sersync::path::RelPath;

/// The size of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Enough for meaningful figures.
    #[allow(dead_code, reason = "the tests run the short form only")]
    Full,
    /// Only enough to show that everything works.
    #[allow(dead_code, reason = "the benchmark runs the full form only")]
    Short,
}

impl Size {
    fn million(self) -> usize {
        if self == Self::Full { 1_000_000 } else { 10_000 }
    }

    fn time(self, full: Duration) -> Duration {
        if self == Self::Full { full } else { Duration::from_millis(1) }
    }
}

/// Everything.
pub fn run(criterion: &mut Criterion, size: Size) {
    pending::memory(size);
    pending::mark(criterion, size);
    pending::take(criterion, size);
    engine::handle(criterion, size);
    filter::excludes(criterion, size);
    config::load(criterion, size);
}

/// The `index`th of a million files: 1,000 directories in two levels, 1,000 files each.
fn file(index: usize) -> RelPath {
    let (directory, name) = (index / 1_000, index % 1_000);
    let text = format!("area{:02}/user{directory:04}/file{name:06}.dat", directory % 25);
    RelPath::new(text.as_bytes()).unwrap_or_default()
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Measures `act` on a fresh state each time.
fn measure<T>(bencher: &mut Bencher, set_up: impl Fn() -> T, act: impl Fn(&mut T)) {
    bencher.iter_custom(|times| {
        let mut sum = Duration::ZERO;
        for _ in 0..times {
            let mut state = set_up();
            let begin = processor_time();
            act(&mut state);
            sum += processor_time() - begin;
        }
        sum
    });
}
