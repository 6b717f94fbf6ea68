//! The progress line of a full sync, on a terminal only.
//! Shows what the engine says; a log or a pipe gets nothing of it.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// The line, while there is something to show.
#[derive(Debug)]
pub struct Progress {
    /// False where standard error is no terminal, or belongs to a log file.
    enabled: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows something only in the foreground of a terminal.
    pub fn on_terminal() -> Self {
        Self { enabled: std::io::stderr().is_terminal(), bar: None }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { enabled: false, bar: None }
    }

    /// Shows how many of how many parts are left; `None`: no full sync is under way.
    pub fn show(&mut self, parts: Option<(usize, usize)>) {
        let Some((left, all)) = parts.filter(|_| self.enabled) else {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let bar = self.bar.get_or_insert_with(|| {
            let template = "full sync [{bar:30}] {pos}/{len} parts, {elapsed}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(all as u64);
        bar.set_position((all - left.min(all)) as u64);
    }

    /// Takes the line away while something else is printed.
    pub fn suspend(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
