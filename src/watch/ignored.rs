//! A hook for the changes that the watch thread ignores, and why it does.
//! Costs one look at a flag while nobody has set it.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::change::{Change, RootId};
use crate::ground::lock::lock;

/// Why a change does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreReason {
    /// Its kind is switched off.
    SwitchedOff,
    /// The filter excludes the path.
    Excluded,
    /// The file system of the path is gone.
    Lost,
    /// The change before it said the same.
    Repeated,
}

/// Is called with each change that is ignored.
pub type OnIgnored = Box<dyn Fn(RootId, &Change, IgnoreReason) + Send>;

/// What the watch thread calls for each change that it ignores.
#[derive(Default)]
pub struct IgnoredHook {
    is_set: AtomicBool,
    on_ignored: Mutex<Option<OnIgnored>>,
}

impl IgnoredHook {
    /// Sets what is called from now on; `None`: nothing.
    pub fn set(&self, on_ignored: Option<OnIgnored>) {
        let mut place = lock(&self.on_ignored);
        self.is_set.store(on_ignored.is_some(), Ordering::Relaxed);
        *place = on_ignored;
    }

    /// True while there is something to call.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// A change is ignored.
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
