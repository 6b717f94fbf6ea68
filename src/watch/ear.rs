//! Whoever listens to what the watch thread ignores, and why it does.
//! Costs one look at a flag while nobody listens.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::change::{Change, RootId};
use crate::ground::lock::lock;

/// Why a change does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its kind is switched off.
    SwitchedOff,
    /// The filter excludes the path.
    Excluded,
    /// The file system of the path is gone.
    Lost,
    /// The change before it said the same.
    Repeated,
}

/// Hears what is ignored.
pub type Listen = Box<dyn Fn(RootId, &Change, Why) + Send>;

/// Whom the watch thread tells what it ignores.
#[derive(Default)]
pub struct Ear {
    listens: AtomicBool,
    listen: Mutex<Option<Listen>>,
}

impl Ear {
    /// From now on somebody listens; `None`: nobody does.
    pub fn set(&self, listen: Option<Listen>) {
        let mut place = lock(&self.listen);
        self.listens.store(listen.is_some(), Ordering::Relaxed);
        *place = listen;
    }

    /// True while somebody listens.
    pub fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Tells what is ignored.
    pub fn tell(&self, root: RootId, change: &Change, why: Why) {
        if let Some(listen) = &*lock(&self.listen) {
            listen(root, change, why);
        }
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("listens", &self.listens()).finish_non_exhaustive()
    }
}
