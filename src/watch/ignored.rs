//! A hook for the changes that the watch thread ignores, with the reason.
//! Costs one read of a flag while it is not set.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::change::{Change, RootId};
use crate::ground::lock::lock;

/// Why a change is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreReason {
    /// Its kind is switched off.
    SwitchedOff,
    /// The filter excludes the path.
    Excluded,
    /// The file system of the path is gone.
    Lost,
    /// It repeats the previous change.
    Repeated,
}

/// A function that is called with each ignored change.
pub type OnIgnored = Box<dyn Fn(RootId, &Change, IgnoreReason) + Send>;

/// The hook that the watch thread calls for each ignored change.
#[derive(Default)]
pub struct IgnoredHook {
    is_set: AtomicBool,
    on_ignored: Mutex<Option<OnIgnored>>,
}

impl IgnoredHook {
    /// Sets the function; `None`: nothing is called.
    pub fn set(&self, on_ignored: Option<OnIgnored>) {
        let mut place = lock(&self.on_ignored);
        self.is_set.store(on_ignored.is_some(), Ordering::Relaxed);
        *place = on_ignored;
    }

    /// True while a function is set.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Calls the function for an ignored change.
    pub fn call(&self, root: RootId, change: &Change, reason: IgnoreReason) {
        if let Some(on_ignored) = &*lock(&self.on_ignored) {
            on_ignored(root, change, reason);
        }
    }
}

impl fmt::Debug for IgnoredHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IgnoredHook").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}
