//! The guard on mass deletion: if much of a tree vanished unseen, it counts as an accident until an operator confirms it.
//! Decides and counts; the main loop holds deletions back and reports that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::main_event::{CountVerdict, Counted, MainEvent};
use crate::change::RootId;
use crate::config;
use crate::directory;
use crate::ground::thread::JoinedThread;
use crate::path::RelPath;
use crate::watch::Exclude;

/// A tree with fewer known entries is guarded only against being empty.
const KNOWN_MIN: u64 = 1_000;

/// How often a root is counted again that came back with too few entries.
const COUNT_AGAIN: Duration = Duration::from_secs(5);

/// The threshold for deletions, and the file by which an operator confirms them.
#[derive(Debug, Clone)]
pub struct Guard {
    share: Option<u64>,
    /// The command that confirms.
    command: String,
    /// The operator may create this file before a start; it is removed when it has been read.
    confirmation: PathBuf,
}

/// How much of a tree is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// Entries that the record knows.
    pub known: u64,
    /// How many of them are gone.
    pub gone: u64,
}

/// The count of a root that came back, until the root is trusted; dropping it ends the count.
#[derive(Debug)]
pub struct Count {
    _stop: Sender<()>,
    /// `None` if it could not be started: then only a confirmation helps.
    _thread: Option<JoinedThread>,
    is_alarmed: bool,
}

impl Count {
    /// The operator was told that there are too few entries.
    pub fn alarm(&mut self) {
        self.is_alarmed = true;
    }

    /// True when the operator knows what a confirmation is for.
    pub fn is_alarmed(&self) -> bool {
        self.is_alarmed
    }
}

impl Guard {
    /// The guard of the configuration. `command` is what an operator runs to confirm; `state` is the state directory.
    pub fn new(guard: config::GuardConfig, command: String, state: &Path) -> Self {
        let share = guard.max_delete_percent.map(u64::from);
        Self { share, command, confirmation: state.join("confirm-deletions") }
    }

    /// True when so much is gone that deletions need a confirmation.
    pub fn holds(&self, remains: Remains) -> bool {
        let Remains { known, gone } = remains;
        let too_much = |share| known >= KNOWN_MIN && gone * 100 >= known * share;
        self.share.is_some_and(too_much)
    }

    /// True when a tree is guarded; `knows` says whether at least that many of its entries are known.
    pub fn guards(&self, knows: impl Fn(u64) -> bool) -> bool {
        self.share.is_some() && knows(KNOWN_MIN)
    }

    /// How many entries a replaced root must hold to be trusted; 0: it need not be counted. `is_elsewhere`: it is on
    /// another file system, as when the mirrored one is not mounted. Then small trees are counted too, because files
    /// written below the mount point do not replace the tree.
    pub fn needed(&self, known: u64, is_elsewhere: bool) -> u64 {
        match self.share {
            Some(share) if known >= KNOWN_MIN || is_elsewhere && known > 0 => {
                (known * (100 - share) / 100).max(1)
            }
            // An empty directory may be a mount point without its file system.
            Some(_) if known > 0 => 1,
            _ => 0,
        }
    }

    /// Tells the operator how to confirm.
    pub fn advice(&self) -> String {
        let (command, file) = (&self.command, self.confirmation.display());
        format!("if this is meant: {command} (or create {file} and restart)")
    }

    /// True once after the operator has confirmed: removes the file.
    pub fn take_confirmation(&self) -> bool {
        fs::remove_file(&self.confirmation).is_ok()
    }

    /// Counts the entries below `path` until there are enough. Sends the first verdict, and every change of it. If that is not
    /// possible, the log says what to do.
    pub fn start_count(
        &self,
        root: RootId,
        path: &Path,
        (known, needed): (u64, u64),
        exclude: Exclude,
        events: Sender<MainEvent>,
    ) -> Count {
        let (stop, stopped) = bounded::<()>(0);
        let (path, shown) = (path.to_path_buf(), path.display());
        let thread = JoinedThread::start("guard", move || {
            let mut told = false;
            loop {
                let found = count(&path, needed, &exclude);
                let verdict = match found >= needed {
                    true => CountVerdict::Enough,
                    false => CountVerdict::TooFew(found, known),
                };
                let enough = verdict == CountVerdict::Enough;
                if enough || !told {
                    // Fails only when the main loop has ended.
                    _ = events.send(MainEvent::Counted(Counted { root, verdict }));
                    told = true;
                }
                let pause = stopped.recv_timeout(COUNT_AGAIN);
                if enough || pause != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let thread = thread.map_err(|error| {
            let advice = self.advice();
            log::error!(
                "ALARM: cannot count what {shown} holds, so nothing is sent from it: cannot start a thread: {error}; restart this \
                 program when there is memory ({advice})"
            );
        });
        Count { _stop: stop, is_alarmed: thread.is_err(), _thread: thread.ok() }
    }
}

/// The number of entries below `root`; stops counting at `enough`.
fn count(root: &Path, enough: u64, exclude: &Exclude) -> u64 {
    // A root that cannot be opened counts as empty.
    let opened = fs::File::open(root);
    opened.map_or(0, |root| directory::count(root, &RelPath::root(), &**exclude, enough))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(percent: Option<u8>, state: &Path) -> Guard {
        let guard = config::GuardConfig { max_delete_percent: percent };
        Guard::new(guard, "sersync2 confirm-deletions -o /etc/www.xml".into(), state)
    }

    #[test]
    fn half_of_a_thousand_is_too_much_until_it_is_confirmed() {
        let state = tempfile::tempdir().unwrap();
        let on = guard(Some(50), state.path());
        assert!(on.holds(Remains { known: 1_000, gone: 500 }));
        assert!(!on.holds(Remains { known: 1_000, gone: 499 }));
        assert!(!on.holds(Remains { known: 999, gone: 999 }));
        assert!(!guard(None, state.path()).holds(Remains { known: 9_999, gone: 9_999 }));
        assert!(on.guards(|enough| enough <= 1_000) && !on.guards(|enough| enough <= 999));
        let advice = on.advice();
        assert!(advice.contains(": sersync2 confirm-deletions -o /etc/www.xml "), "{advice}");
        fs::write(state.path().join("confirm-deletions"), "").unwrap();
        assert!(on.take_confirmation());
        assert!(!on.take_confirmation(), "a word counts once");
    }

    #[test]
    fn another_directory_must_not_be_empty_nor_half_empty() {
        let state = tempfile::tempdir().unwrap();
        let on = guard(Some(50), state.path());
        let needed =
            |is_elsewhere| [0, 1, 999, 1_000, 5_000].map(|known| on.needed(known, is_elsewhere));
        assert_eq!(needed(false), [0, 1, 1, 500, 2_500]);
        assert_eq!(needed(true), [0, 1, 499, 500, 2_500]);
        assert_eq!(guard(None, state.path()).needed(5_000, true), 0);
    }

    #[test]
    fn counting_ends_when_it_is_enough_and_leaves_out_what_is_excluded() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b/c", "a/b/d", "e"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let nothing: Exclude = std::sync::Arc::new(|_, _| false);
        assert_eq!(count(dir.path(), 100, &nothing), 5);
        assert_eq!(count(dir.path(), 2, &nothing), 2);
        let below_a: Exclude = std::sync::Arc::new(|path, _| path.as_bytes() == b"a");
        assert_eq!(count(dir.path(), 100, &below_a), 1);
    }
}
