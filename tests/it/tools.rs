//! `inotifywait` and `inotifywatch` beside the ones of inotify-tools, which are the judges.
//! Needs the package inotify-tools; a machine without it fails these tests.

mod better;
mod errors;
mod explain;
mod options;
mod pair;
mod random;
mod scripts;
