//! The watch thread on real directories: what is done there is what is reported, by both backends.

mod changes;
mod faults;
mod moves;
mod roots;
mod storms;
mod support;

/// Each sentence is a test of both backends: a function of the backend's choice.
macro_rules! both_backends {
    ($($sentence:ident)*) => {
        mod by_inotify {
            $(#[test] fn $sentence() { super::$sentence(sersync::config::WatchBackend::Inotify) })*
        }
        mod by_fanotify {
            $(#[test] fn $sentence() { super::$sentence(sersync::config::WatchBackend::Fanotify) })*
        }
    };
}
use both_backends;
