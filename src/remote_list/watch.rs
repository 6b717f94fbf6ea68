//! Reports changes of the files that list remotes, by inotify watches on their directories.
//! Does not read the file.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::ground::thread::JoinedThread;

/// The pause between a change and its report, because a script may write a file in several steps.
const REST: Duration = Duration::from_millis(500);

/// Events that may change the content of a name. A written file counts when it is closed.
const CHANGES: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::DELETE)
    .union(WatchMask::CREATE)
    .union(WatchMask::ONLYDIR);

/// The running thread; dropping it ends and joins it.
#[derive(Debug)]
pub struct ListWatch {
    wake: Arc<OwnedFd>,
    _thread: JoinedThread,
}

impl ListWatch {
    /// Calls `changed` at once, because the files may have changed since they were read, and after each change.
    ///
    /// # Errors
    /// When the inotify instance or the thread cannot be created.
    pub fn start(files: Vec<PathBuf>, changed: impl Fn() + Send + 'static) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut follower = Follower { inotify: Inotify::init()?, files, wake: Arc::clone(&wake) };
        let thread = JoinedThread::start_small("remote-lists", 128 << 10, move || {
            loop {
                follower.watch();
                changed();
                if follower.wait() == Woken::ToEnd {
                    return;
                }
            }
        })?;
        Ok(Self { wake, _thread: thread })
    }
}

impl Drop for ListWatch {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the thread is woken anyway.
        _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    ByChange,
    ToEnd,
}

struct Follower {
    inotify: Inotify,
    files: Vec<PathBuf>,
    wake: Arc<OwnedFd>,
}

impl Follower {
    /// Watches the directories of the files, and the directories of their targets if they are links. Watching a
    /// directory again changes nothing.
    fn watch(&self) {
        for directory in self.places().iter().filter_map(|place| place.parent()) {
            if let Err(error) = self.inotify.watches().add(directory, CHANGES) {
                log::warn!(
                    "cannot watch {} for changes of the list of remotes in it: {error}; `sersync2 reload` reads it again",
                    directory.display()
                );
            }
        }
    }

    /// The files, and the targets of those that are links.
    fn places(&self) -> BTreeSet<PathBuf> {
        let real = self.files.iter().filter_map(|file| file.canonicalize().ok());
        real.chain(self.files.iter().cloned()).collect()
    }

    /// Waits for a change that may concern a file, and for the pause after it.
    fn wait(&mut self) -> Woken {
        loop {
            if self.poll(None) == Woken::ToEnd {
                return Woken::ToEnd;
            }
            if !self.read() {
                continue;
            }
            if self.poll(Some(REST)) == Woken::ToEnd {
                return Woken::ToEnd;
            }
            // Events during the pause belong to the same change.
            self.read();
            return Woken::ByChange;
        }
    }

    /// Waits for events; with `rest`, waits only for this time to pass.
    fn poll(&self, rest: Option<Duration>) -> Woken {
        let rest = rest.map(|rest| Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(rest.subsec_nanos()),
        });
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        let inotify = self.inotify.as_fd();
        if rest.is_none() {
            fds.push(PollFd::from_borrowed_fd(inotify, PollFlags::IN));
        }
        // An interruption by a signal is handled like an event that concerns no file.
        _ = poll(&mut fds, rest.as_ref());
        match fds[0].revents().is_empty() {
            true => Woken::ByChange,
            false => Woken::ToEnd,
        }
    }

    /// Reads all queued events; true when one may concern a file.
    fn read(&mut self) -> bool {
        let names: BTreeSet<_> =
            self.places().iter().filter_map(|it| it.file_name().map(ToOwned::to_owned)).collect();
        // Any name may be part of the path that a link leads through, so every event counts.
        let has_link = self.files.iter().any(|file| is_link(file));
        let mut buffer = [0; 4096];
        let mut concerns = false;
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        let is_named = event.name.is_some_and(|name| names.contains(name));
                        let is_written = event.mask != EventMask::CREATE || has_link;
                        concerns |= (is_named || has_link) && is_written;
                        // The queue overflowed, or a directory is gone.
                        concerns |= event.name.is_none();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return concerns,
            }
        }
    }
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn watch(file: &Path) -> (ListWatch, Receiver<()>) {
        let (tell, told) = unbounded();
        let watch = ListWatch::start(vec![file.to_path_buf()], move || _ = tell.send(())).unwrap();
        told.recv_timeout(LIMIT).unwrap();
        (watch, told)
    }

    #[test]
    fn what_is_written_replaced_or_gone_concerns_the_list_and_its_neighbours_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("list"), dir.path().join("other"));
        fs::write(&file, "a\n").unwrap();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let inotify = Inotify::init().unwrap();
        let mut follower = Follower { inotify, files: vec![file.clone()], wake };
        follower.watch();
        fs::write(&other, "a\n").unwrap();
        let mut open = fs::File::options().append(true).open(&file).unwrap();
        open.write_all(b"b\n").unwrap();
        assert!(!follower.read(), "it is not whole yet");
        drop(open);
        assert!(follower.read());
        fs::rename(&other, &file).unwrap();
        assert!(follower.read());
        fs::remove_file(&file).unwrap();
        assert!(follower.read());
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (watch, told) = watch(&dir.path().join("list"));
        drop(watch);
        assert!(told.recv().is_err());
    }

    #[test]
    fn a_link_is_followed_when_what_it_leads_to_is_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("list"), version).unwrap();
        }
        symlink("1", at("data")).unwrap();
        symlink("data/list", at("list")).unwrap();
        let (_watch, told) = watch(&at("list"));
        symlink("2", at("new")).unwrap();
        fs::rename(at("new"), at("data")).unwrap();
        told.recv_timeout(LIMIT).unwrap();
        fs::write(at("2/list"), "3").unwrap();
        told.recv_timeout(LIMIT).unwrap();
    }
}
