//! Chooses the backend: as configured, or by the size of the tree and what the system allows.
//! Does not watch.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::config::ChangeSwitches;
use crate::config::WatchBackend;
use crate::ground::directory::list;
use crate::path::RelPath;
use crate::watch::context::{Backend, WatchContext};
use crate::watch::fanotify::FanotifyWatch;
use crate::watch::inotify::InotifyWatch;
use crate::watch::open::open_dir;

/// Above this number of directories, a watch for each costs more than one mark for the file system.
const LARGE_TREE_DIRECTORIES: usize = 5_000;

/// Makes the backend.
///
/// # Errors
/// When the kernel gives us no inotify instance.
pub fn make_backend(
    choice: WatchBackend,
    context: &WatchContext,
    switches: &ChangeSwitches,
    rescan_interval: Duration,
) -> io::Result<Box<dyn Backend>> {
    let wants_fanotify = match choice {
        WatchBackend::Inotify => false,
        WatchBackend::Fanotify => true,
        WatchBackend::Auto => is_large(context),
    };
    if wants_fanotify {
        match FanotifyWatch::new(context, switches, rescan_interval) {
            Ok(watch) => return Ok(Box::new(watch)),
            Err(error) => {
                log::warn!("fanotify cannot be used here ({error}); inotify is used instead");
            }
        }
    }
    Ok(Box::new(InotifyWatch::new(switches, rescan_interval)?))
}

/// Counts directories, but no further than needed.
fn is_large(context: &WatchContext) -> bool {
    let mut count = 0;
    for root in context.roots.list() {
        // Breadth first: entries of one directory are counted without opening them.
        let mut todo = VecDeque::from([RelPath::root()]);
        while let Some(dir) = todo.pop_front() {
            count += 1;
            if count + todo.len() > LARGE_TREE_DIRECTORIES {
                return true;
            }
            let Ok(opened) = open_dir(&root.path, &dir) else {
                continue;
            };
            // A directory that cannot be listed adds nothing.
            let _ = list(&opened, |name, is_dir| {
                let path = is_dir.then(|| dir.join(name)).flatten();
                todo.extend(path.filter(|path| !context.batch.is_excluded(root.id, path, true)));
            });
        }
    }
    false
}
