//! Tools that show how the kernel and sersync see a tree: `inotifywait`, `inotifywatch`, `explain`, `events`.
//! They mirror nothing.

pub mod events;
pub mod explain;
pub mod format;
pub mod getopt;
pub mod inotifywait;
pub mod inotifywatch;
pub mod live;
pub mod operands;
pub mod output;
pub mod rule_words;
pub mod say;
pub mod shared;
pub mod walk;
pub mod watching;
