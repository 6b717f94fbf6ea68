//! The watch thread on real directories: both backends report what was changed.

mod changes;
mod faults;
mod moves;
mod roots;
mod storms;
mod support;

/// Makes a test for each backend from a function that takes the backend.
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
