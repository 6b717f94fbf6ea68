//! Shows the progress of full syncs: as bars on a terminal, or as one line a minute in the log.
//! Does not count anything itself.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::mirror::Mirror;
use crate::change::RemoteId;
use crate::engine::Now;
use crate::logging::Log;
use crate::snapshot::FullSyncStatus;

/// The maximum number of lines on a terminal; further remotes share one.
const LINES: usize = 8;

/// How often the lines on a terminal are redrawn.
const TICK: Duration = Duration::from_secs(1);

/// How often the progress is logged.
const LOGGED: Duration = Duration::from_secs(60);

/// Where the progress is shown, and when next.
#[derive(Debug)]
pub struct ProgressDisplay {
    place: Place,
    /// `None` without a running full sync.
    next: Option<Now>,
}

#[derive(Debug)]
enum Place {
    Terminal { screen: MultiProgress, bars: Vec<ProgressBar> },
    Log,
}

/// A running full sync.
#[derive(Debug)]
pub struct FullSyncProgress {
    /// The remote as the operator writes it.
    pub remote: String,
    /// The progress.
    pub full_sync: FullSyncStatus,
    /// Whether it is working now.
    pub works: Works,
}

/// Whether a full sync is working now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Works {
    /// It has jobs in flight.
    Now,
    /// It waits: the remote is down or paused, or deletions are undecided.
    Later,
}

/// A line for one full sync, or for several.
#[derive(Debug, PartialEq)]
struct Line {
    name: String,
    full_sync: FullSyncStatus,
    works: Works,
}

impl ProgressDisplay {
    /// Shows bars if standard error is a terminal. The log writes above them.
    pub fn on_terminal(log: &Log) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::in_log();
        }
        let screen = MultiProgress::new();
        log.share_terminal(screen.clone());
        Self { place: Place::Terminal { screen, bars: Vec::new() }, next: None }
    }

    /// Shows lines in the log.
    pub fn in_log() -> Self {
        Self { place: Place::Log, next: None }
    }

    /// When the progress must be shown again.
    pub fn next_deadline(&self) -> Option<Now> {
        self.next
    }

    /// True when it is time to show the progress. Call it only while a full sync is running.
    fn is_due(&mut self, now: Now) -> bool {
        let first = match self.place {
            Place::Terminal { .. } => now,
            Place::Log => now + LOGGED,
        };
        *self.next.get_or_insert(first) <= now
    }

    /// Shows the progress.
    fn show(&mut self, now: Now, now_ms: u64, all: &[FullSyncProgress]) {
        match &mut self.place {
            Place::Terminal { screen, bars } => {
                self.next = Some(now + TICK);
                draw(screen, bars, lines(all), now_ms);
            }
            Place::Log => {
                self.next = Some(now + LOGGED);
                // A waiting full sync is not logged here: another notice says why it waits.
                let at_work = all.iter().filter(|it| it.works == Works::Now);
                for Line { name, full_sync, .. } in lines(at_work) {
                    log::info!("full sync to {name}: {}", full_sync.words(now_ms));
                }
            }
        }
    }

    /// Removes the lines when no full sync is running, or the program ends.
    pub fn clear(&mut self) {
        self.next = None;
        if let Place::Terminal { screen, bars } = &mut self.place {
            draw(screen, bars, Vec::new(), 0);
        }
    }
}

/// The lines: one for each of the first remotes, and one for the rest.
fn lines<'a>(all: impl IntoIterator<Item = &'a FullSyncProgress>) -> Vec<Line> {
    let mut all: Vec<&FullSyncProgress> = all.into_iter().collect();
    let rest = if all.len() > LINES { all.split_off(LINES - 1) } else { Vec::new() };
    let line = |it: &&FullSyncProgress| Line {
        name: it.remote.clone(),
        full_sync: it.full_sync.clone(),
        works: it.works,
    };
    let mut lines: Vec<Line> = all.iter().map(line).collect();
    let sums = rest.iter().map(|it| it.full_sync.clone()).reduce(|a, b| a.and(&b));
    if let Some(sums) = sums {
        let works = rest.iter().any(|it| it.works == Works::Now);
        let works = if works { Works::Now } else { Works::Later };
        lines.push(Line { name: format!("{} more remotes", rest.len()), full_sync: sums, works });
    }
    lines
}

/// Draws nothing while the terminal is stopped, so that the mirror does not wait for it.
fn draw(screen: &MultiProgress, bars: &mut Vec<ProgressBar>, lines: Vec<Line>, now_ms: u64) {
    let has_nothing = bars.is_empty() && lines.is_empty();
    if !has_nothing && !crate::logging::is_stderr_writable() {
        return;
    }
    for bar in bars.drain(lines.len().min(bars.len())..) {
        bar.finish_and_clear();
        screen.remove(&bar);
    }
    for (index, line) in lines.into_iter().enumerate() {
        if index == bars.len() {
            let style = ProgressStyle::with_template("full sync {prefix} [{bar:10}] {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.push(screen.add(ProgressBar::new(line.full_sync.parts).with_style(style)));
        }
        let words = line.full_sync.short_words(now_ms);
        bars[index].set_length(line.full_sync.parts);
        bars[index].set_position(line.full_sync.parts_done);
        bars[index].set_prefix(line.name);
        bars[index].set_message(if line.works == Works::Now { words } else { "waits".into() });
    }
}

impl Mirror {
    /// Shows the progress of full syncs, if it is time.
    pub(super) fn show_progress(&mut self) {
        if !self.engine.has_full_sync() {
            if self.teller.progress.next_deadline().is_some() {
                self.teller.progress.clear();
            }
            return;
        }
        let clock = self.clock();
        if self.teller.progress.is_due(clock.now) {
            let remotes = (0..self.teller.names.remotes.len()).map(RemoteId);
            let all: Vec<FullSyncProgress> = remotes.filter_map(|id| self.under_way(id)).collect();
            self.teller.progress.show(clock.now, clock.wall_ms, &all);
        }
    }

    fn under_way(&mut self, id: RemoteId) -> Option<FullSyncProgress> {
        let view = self.engine.full_sync(id)?;
        let works = if view.jobs.is_empty() { Works::Later } else { Works::Now };
        let full_sync = self.full_sync(self.clock(), id, &view);
        let remote = self.teller.names.remotes.get(id.0).cloned().unwrap_or_default();
        Some(FullSyncProgress { remote, full_sync, works })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(remote: usize, works: Works) -> FullSyncProgress {
        let full_sync = FullSyncStatus {
            parts: 4,
            parts_done: 1,
            bytes: 2_000_000,
            ..FullSyncStatus::default()
        };
        FullSyncProgress { remote: format!("h{remote}::m"), full_sync, works }
    }

    #[test]
    fn many_remotes_share_one_line() {
        let few: Vec<_> = (0..LINES).map(|n| under_way(n, Works::Now)).collect();
        assert_eq!(lines(&few).len(), LINES);
        let many: Vec<_> = (0..200).map(|n| under_way(n, Works::Later)).collect();
        let shown = lines(&many);
        assert_eq!(shown.len(), LINES);
        let rest = 200 - (LINES as u64 - 1);
        let last = shown.last().unwrap();
        let of = &last.full_sync;
        assert_eq!((of.parts_done, of.parts, of.bytes), (rest, 4 * rest, rest * 2_000_000));
        assert_eq!((last.name.as_str(), last.works), ("193 more remotes", Works::Later));
    }

    #[test]
    fn the_log_hears_of_it_once_a_minute_and_not_of_what_is_over_sooner() {
        let mut progress = ProgressDisplay::in_log();
        let at = Duration::from_secs;
        assert!(!progress.is_due(at(5)));
        assert_eq!(progress.next_deadline(), Some(at(65)));
        assert!(progress.is_due(at(65)));
        progress.show(at(66), 0, &[]);
        assert!(!progress.is_due(at(125)));
        progress.clear();
        assert_eq!(progress.next_deadline(), None);
    }
}
