//! The tools that are called by the names of inotify-tools: `inotifywait` and `inotifywatch`.
//! They mirror nothing and know no configuration.

pub mod events;
pub mod format;
pub mod getopt;
pub mod inotifywait;
pub mod inotifywatch;
pub mod operands;
pub mod output;
pub mod say;
pub mod shared;
pub mod walk;
pub mod watching;
