//! `inotifywait` and `inotifywatch` compared with those of inotify-tools, which are the reference.
//! Needs the package inotify-tools; a machine without it fails these tests.

mod better;
mod errors;
mod explain;
mod options;
mod pair;
mod random;
mod scripts;
