//! The watches of a tool: reads events, maps each watch to its name, and keeps the watches of trees up to date.
//! Prints no events.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, statat};
use rustix::io::Errno;

use crate::ground::directory::list;
use crate::sys::posix::ExtendedRegex;
use crate::tools::format::Occurrence;
use crate::tools::walk::{AddedWatch, WatchWalk, is_directory, open_directory, with_slash};
use crate::watch::queue::Queue;
use crate::watch::scan::remove_watches;

/// The events that are caused by listing a directory.
const READING: u32 = libc::IN_OPEN | libc::IN_ACCESS | libc::IN_CLOSE_NOWRITE;

/// One event.
#[derive(Debug, Clone)]
pub struct FileEvent {
    /// The watch number.
    pub wd: i32,
    /// What happened: `IN_*` bits.
    pub mask: u32,
    /// Equal for the two halves of a rename.
    pub cookie: u32,
    /// The filter hides it.
    pub is_filtered: bool,
    position: u64,
    name: Range<usize>,
}

/// Which events are reported.
pub enum EventFilter {
    /// Those whose path does not match.
    Exclude(ExtendedRegex),
    /// Those whose path matches.
    Include(ExtendedRegex),
}

/// What ended a wait.
pub enum Next {
    /// An event.
    Event(FileEvent),
    /// Nothing happened within the limit.
    Timeout,
    /// The other descriptor is readable.
    Other,
}

/// What happens to a watch whose file is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It is forgotten.
    Forgotten,
    /// Its name and number are kept.
    Kept,
}

/// A watch.
struct Watch {
    name: Box<[u8]>,
    /// Its position when watches are listed.
    rank: u32,
    is_gone: bool,
    /// Its content was told, or is told by its own events.
    is_told: bool,
}

/// How a directory appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It was created: its content was created since then, and is reported.
    Created,
    /// It was moved here with its content, which is not reported.
    Moved,
}

/// The first half of a rename of a watched directory.
struct Moving {
    cookie: u32,
    wd: i32,
    from: Vec<u8>,
}

/// An entry of a new directory.
struct Entry {
    wd: i32,
    name: Vec<u8>,
    is_dir: bool,
    path: Vec<u8>,
}

/// The kernel's queue, and the watches by number.
pub struct Watching {
    queue: Queue,
    mask: u32,
    excluded: Vec<Vec<u8>>,
    filter: Option<EventFilter>,
    gone: Gone,
    watches: HashMap<i32, Watch>,
    aliases: HashSet<Vec<u8>>,
    ranks: u32,
    pending: VecDeque<FileEvent>,
    names: Vec<u8>,
    moving: Option<Moving>,
}

impl Watching {
    /// Opens the queue, without any watch.
    ///
    /// # Errors
    /// When the kernel refuses an inotify instance.
    pub fn new(gone: Gone) -> io::Result<Self> {
        Ok(Self {
            queue: Queue::new()?,
            mask: 0,
            excluded: Vec::new(),
            filter: None,
            gone,
            watches: HashMap::new(),
            aliases: HashSet::new(),
            ranks: 0,
            pending: VecDeque::new(),
            names: Vec::new(),
            moving: None,
        })
    }

    /// Sets which events are reported.
    pub fn set_filter(&mut self, filter: Option<EventFilter>) {
        self.filter = filter;
    }

    /// Sets the events that the kernel is asked for (`IN_*` bits), and the excluded directories.
    pub fn set_scope(&mut self, mask: u32, excluded: Vec<Vec<u8>>) {
        self.mask = mask;
        self.excluded = excluded;
    }

    /// Watches one file or directory.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add(&mut self, path: &[u8]) -> Result<(), Errno> {
        let found = self.walk().add(path)?;
        self.note_first(found);
        Ok(())
    }

    /// Watches a directory and everything below it.
    ///
    /// # Errors
    /// As for [`WatchWalk::add_tree`].
    pub fn add_tree(&mut self, path: &[u8]) -> Result<(), Errno> {
        let begin = self.queue.end();
        let mut unsure = Vec::new();
        for found in self.walk().add_tree(path)? {
            if found.is_unsure {
                unsure.push(found.name.clone());
            }
            self.note_first(found);
        }
        self.add_made_meanwhile(unsure)?;
        // Our own listing of the tree must not be reported.
        self.read_until(self.queue.end());
        self.drop_events(begin, is_reading);
        Ok(())
    }

    /// How many names are watched.
    pub fn len(&self) -> usize {
        self.watches.len() + self.aliases.len()
    }

    /// True when nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// All watches: number, name, and position in the list.
    pub fn watches(&self) -> impl Iterator<Item = (i32, &[u8], u32)> {
        self.watches.iter().map(|(wd, watch)| (*wd, &*watch.name, watch.rank))
    }

    /// True while events are left that were already read from the kernel.
    pub fn has_read(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next event. Waits for it until the limit ends or `other` is readable.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub fn next(
        &mut self,
        limit: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> io::Result<Next> {
        loop {
            while let Some(mut event) = self.pending.pop_front() {
                if event.wd >= 0 && !self.watches.contains_key(&event.wd) {
                    // We removed its watch.
                    continue;
                }
                event.is_filtered = self.is_filtered(&event);
                return Ok(Next::Event(event));
            }
            if let Some(ended) = self.wait(limit, other)? {
                return Ok(ended);
            }
            self.names.clear();
            self.read()?;
        }
    }

    /// The event, with the name of its watch.
    pub fn occurrence<'a>(&'a self, event: &FileEvent) -> Occurrence<'a> {
        let watch = self.watches.get(&event.wd).map(|watch| &*watch.name).unwrap_or_default();
        let name = self.names.get(event.name.clone()).unwrap_or_default();
        Occurrence { watch, name, mask: event.mask, cookie: event.cookie }
    }

    /// Updates the watches of trees after an event.
    ///
    /// # Errors
    /// The new directory that cannot be watched, and the kernel's error.
    pub fn follow(&mut self, event: &FileEvent) -> Result<(), (Vec<u8>, Errno)> {
        if event.is_filtered && matches!(self.filter, Some(EventFilter::Exclude(_))) {
            return Ok(());
        }
        if event.mask & libc::IN_Q_OVERFLOW != 0 {
            return self.refresh_all();
        }
        if event.mask & libc::IN_MOVE_SELF != 0 {
            return self.follow_move_self(event.wd);
        }
        if event.mask & libc::IN_ISDIR == 0 {
            return Ok(());
        }
        let Occurrence { watch, name, .. } = self.occurrence(event);
        let path = [watch, name, b"/"].concat();
        if event.mask & libc::IN_CREATE != 0 {
            self.arrive(path, Arrival::Created)
        } else if event.mask & libc::IN_MOVED_FROM != 0 {
            self.follow_moved_from(event.cookie, path);
            Ok(())
        } else if event.mask & libc::IN_MOVED_TO != 0 {
            self.follow_moved_to(event.cookie, path)
        } else {
            Ok(())
        }
    }

    /// Handles the end of a watch by the kernel: its file is gone.
    pub fn forget_ended(&mut self, event: &FileEvent) {
        if event.mask & libc::IN_IGNORED == 0 {
            return;
        }
        match (self.gone, self.watches.get_mut(&event.wd)) {
            (Gone::Kept, Some(watch)) => watch.is_gone = true,
            _ => _ = self.watches.remove(&event.wd),
        }
    }

    fn walk(&self) -> WatchWalk<'_> {
        WatchWalk { inotify: self.queue.fd(), mask: self.mask, excluded: &self.excluded }
    }

    /// Waits for events; returns what else ended the wait.
    fn wait(
        &self,
        limit: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<Next>> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let queue = self.queue.fd();
        let mut fds = [
            PollFd::from_borrowed_fd(queue, PollFlags::IN),
            PollFd::from_borrowed_fd(other.unwrap_or(queue), PollFlags::IN),
        ];
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return Ok(Some(Next::Timeout)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_other = other.is_some() && fds[1].revents().contains(PollFlags::IN);
        Ok(is_other.then_some(Next::Other))
    }

    fn read(&mut self) -> io::Result<usize> {
        let events = self.queue.read()?;
        for event in &events {
            let start = self.names.len();
            self.names.extend_from_slice(self.queue.name(event));
            self.pending.push_back(FileEvent {
                wd: event.wd,
                mask: event.mask.bits(),
                cookie: event.cookie,
                is_filtered: false,
                position: event.position,
                name: start..self.names.len(),
            });
        }
        Ok(events.len())
    }

    /// Reads events up to the position. An error shows at the next read.
    fn read_until(&mut self, position: u64) {
        while self.queue.position() < position && self.read().is_ok_and(|count| count > 0) {}
    }

    fn is_filtered(&self, event: &FileEvent) -> bool {
        let Some(filter) = &self.filter else { return false };
        let Occurrence { watch, name, .. } = self.occurrence(event);
        let path = CString::new([watch, name].concat()).unwrap_or_default();
        match filter {
            EventFilter::Exclude(regex) => regex.is_match(&path),
            EventFilter::Include(regex) => !regex.is_match(&path),
        }
    }

    /// Drops events from the position on that were read but not reported.
    fn drop_events(&mut self, begin: u64, is_dropped: impl Fn(&FileEvent) -> bool) {
        self.pending.retain(|event| event.position < begin || !is_dropped(event));
    }

    /// Registers a watch. When two names lead to one watch, events show the first name.
    fn note_first(&mut self, found: AddedWatch) {
        match self.watches.get(&found.wd) {
            None => self.note(found.wd, found.name),
            Some(watch) if *watch.name != *found.name => _ = self.aliases.insert(found.name),
            Some(_) => {}
        }
    }

    fn note(&mut self, wd: i32, name: Vec<u8>) {
        let rank = self.ranks;
        self.ranks += 1;
        self.watches.insert(wd, Watch { name: name.into(), rank, is_gone: false, is_told: false });
    }

    /// Watches directories that were created after their parent was listed and before it was watched.
    fn add_made_meanwhile(&mut self, mut unsure: Vec<Vec<u8>>) -> Result<(), Errno> {
        if unsure.is_empty() {
            return Ok(());
        }
        let mut known: HashSet<Vec<u8>> =
            self.watches.values().map(|watch| watch.name.to_vec()).collect();
        while let Some(directory) = unsure.pop() {
            for child in self.walk().children(&directory).unwrap_or_default() {
                if !known.insert(child.clone()) {
                    continue;
                }
                match self.walk().add(&child) {
                    Ok(found) => self.note_first(found),
                    Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP) => continue,
                    Err(errno) => return Err(errno),
                }
                unsure.push(child);
            }
        }
        Ok(())
    }

    fn live(&self) -> impl Iterator<Item = (i32, &Watch)> {
        self.watches.iter().filter(|(_, watch)| !watch.is_gone).map(|(wd, watch)| (*wd, watch))
    }

    fn find(&self, path: &[u8]) -> Option<i32> {
        self.live().find(|(_, watch)| *watch.name == *path).map(|(wd, _)| wd)
    }

    /// True when the content of the directory at this path, and not of an earlier one, was told. Watches it, because only the number
    /// of the watch shows which directory this is.
    fn is_told(&self, path: &[u8]) -> bool {
        let Ok(AddedWatch { wd, name, .. }) = self.walk().add(path) else { return false };
        let is_told = |watch: &Watch| watch.is_told && !watch.is_gone && *watch.name == *name;
        self.watches.get(&wd).is_some_and(is_told)
    }

    fn follow_moved_from(&mut self, cookie: u32, from: Vec<u8>) {
        self.end_move();
        self.moving = self.find(&from).map(|wd| Moving { cookie, wd, from });
    }

    fn follow_moved_to(&mut self, cookie: u32, path: Vec<u8>) -> Result<(), (Vec<u8>, Errno)> {
        let Some(moving) = self.moving.take_if(|moving| moving.cookie == cookie) else {
            return self.arrive(path, Arrival::Moved);
        };
        let is_taken = self.find(&path).is_some();
        for watch in self.watches.values_mut().filter(|watch| !watch.is_gone) {
            if let Some(below) = watch.name.strip_prefix(&*moving.from) {
                watch.name = [&path, below].concat().into();
            }
        }
        if is_taken {
            // Two names were exchanged, or a directory was replaced. Adding watches again returns the number at each name.
            self.arrive(moving.from, Arrival::Moved)?;
            self.arrive(path, Arrival::Moved)?;
        }
        Ok(())
    }

    /// Handles the move of a watched directory. If no event named its new place, it left the tree.
    fn follow_move_self(&mut self, wd: i32) -> Result<(), (Vec<u8>, Errno)> {
        if self.moving.as_ref().is_some_and(|moving| moving.wd == wd) {
            self.end_move();
        }
        Ok(())
    }

    /// Removes the watches of a directory that was moved out of the tree.
    fn end_move(&mut self) {
        let Some(Moving { from, .. }) = self.moving.take() else { return };
        let is_below = |(_, watch): &(i32, &Watch)| watch.name.starts_with(&from);
        let ended: Vec<i32> = self.live().filter(is_below).map(|(wd, _)| wd).collect();
        remove_watches(self.queue.fd(), &ended);
        ended.iter().for_each(|wd| _ = self.watches.remove(wd));
    }

    /// Walks all watched trees again, because events were lost.
    fn refresh_all(&mut self) -> Result<(), (Vec<u8>, Errno)> {
        let mut roots: Vec<Vec<u8>> = self.live().map(|(_, watch)| watch.name.to_vec()).collect();
        roots.retain(|name| name.ends_with(b"/"));
        roots.sort();
        roots.dedup_by(|below, above| below.starts_with(above));
        roots.into_iter().try_for_each(|root| self.arrive(root, Arrival::Moved))
    }

    /// Handles a new directory at this path. Watches each directory *before* listing it, so that no entry is missed.
    fn arrive(&mut self, path: Vec<u8>, arrival: Arrival) -> Result<(), (Vec<u8>, Errno)> {
        if !is_directory(path.strip_suffix(b"/").unwrap_or(&path)) || self.walk().is_excluded(&path)
        {
            return Ok(());
        }
        if arrival == Arrival::Created && self.is_told(&path) {
            // The walk of a directory above has found it with its content, before its own event was read.
            return Ok(());
        }
        let begin = self.queue.end();
        let mut entries = Vec::new();
        let mut new = HashSet::new();
        let result = self.add_new(&path, &mut new, &mut entries);
        self.read_until(self.queue.end());
        self.drop_events(begin, |event| new.contains(&event.wd) && is_reading(event));
        self.merge_events(begin);
        if arrival == Arrival::Created {
            self.tell_entries(entries);
            for wd in new {
                self.watches.entry(wd).and_modify(|watch| watch.is_told = true);
            }
        }
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err((path, errno)),
        }
    }

    fn add_new(
        &mut self,
        path: &[u8],
        new: &mut HashSet<i32>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Errno> {
        let AddedWatch { wd, name: path, .. } = self.walk().add(&with_slash(path))?;
        new.insert(wd);
        let mut children = Vec::new();
        let listed = list(open_directory(&path)?, |name, is_dir| {
            let name = name.to_vec();
            let below = [&path[..], &name].concat();
            if is_dir {
                children.push([&below[..], b"/"].concat());
            }
            entries.push(Entry { wd, name, is_dir, path: below });
        });
        for child in children {
            if self.walk().is_excluded(&child) {
                continue;
            }
            match self.add_new(&child, new, entries) {
                Ok(()) | Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        match self.watches.get_mut(&wd) {
            Some(watch) => watch.name = path.into(),
            None => self.note(wd, path),
        }
        listed.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Merges equal events in sequence. The kernel does so too, but an event of our own listing, now dropped, may have
    /// separated them.
    fn merge_events(&mut self, begin: u64) {
        let names = &self.names;
        let mut last: Option<FileEvent> = None;
        self.pending.retain(|event| {
            let is_same = |last: &FileEvent| {
                (last.wd, last.mask, last.cookie) == (event.wd, event.mask, event.cookie)
                    && names.get(last.name.clone()) == names.get(event.name.clone())
            };
            let is_repeated = event.position >= begin && last.as_ref().is_some_and(is_same);
            last = Some(event.clone());
            !is_repeated
        });
    }

    /// Reports entries that were created in a new directory before it was watched.
    fn tell_entries(&mut self, entries: Vec<Entry>) {
        let appeared: HashSet<(i32, &[u8])> = self
            .pending
            .iter()
            .filter(|event| event.mask & (libc::IN_CREATE | libc::IN_MOVED_TO) != 0)
            .map(|event| (event.wd, &self.names[event.name.clone()]))
            .collect();
        let missed: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| !appeared.contains(&(entry.wd, &entry.name)))
            .collect();
        let mut told = Vec::new();
        for entry in missed {
            let kind = statat(CWD, &*entry.path, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode));
            let masks: &[u32] = match kind {
                _ if entry.is_dir => &[libc::IN_CREATE | libc::IN_ISDIR],
                Ok(FileType::RegularFile) => &[libc::IN_CREATE, libc::IN_CLOSE_WRITE],
                Ok(_) => &[libc::IN_CREATE],
                Err(_) => &[],
            };
            let start = self.names.len();
            self.names.extend_from_slice(&entry.name);
            let name = start..self.names.len();
            for &mask in masks.iter().filter(|&&mask| mask & self.mask != 0) {
                let (wd, name) = (entry.wd, name.clone());
                told.push(FileEvent { wd, mask, cookie: 0, is_filtered: false, position: 0, name });
            }
        }
        told.into_iter().rev().for_each(|event| self.pending.push_front(event));
    }
}

/// True when the event says that a directory was read.
fn is_reading(event: &FileEvent) -> bool {
    event.mask & libc::IN_ISDIR != 0 && event.mask & READING != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_directory_that_a_walk_has_found_is_not_told_again_when_its_event_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut watching = Watching::new(Gone::Forgotten).unwrap();
        watching.set_scope(libc::IN_CREATE, Vec::new());
        watching.add_tree(&with_slash(dir.path().as_os_str().as_bytes())).unwrap();
        std::fs::create_dir_all(dir.path().join("new/deep")).unwrap();
        std::fs::write(dir.path().join("new/deep/file"), "").unwrap();
        // Each event is followed twice, as if the kernel had told of what the walk had found already.
        assert_eq!(told(&mut watching, 2), ["new", "deep", "file"]);
        // Another directory of that name is not known.
        std::fs::remove_dir_all(dir.path().join("new/deep")).unwrap();
        std::fs::create_dir_all(dir.path().join("new/deep/other")).unwrap();
        assert_eq!(told(&mut watching, 1), ["deep", "other"]);
    }

    #[test]
    fn what_only_a_walk_at_the_start_has_found_is_told_when_its_event_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| with_slash(dir.path().join(name).as_os_str().as_bytes());
        let mut watching = Watching::new(Gone::Forgotten).unwrap();
        watching.set_scope(libc::IN_CREATE, Vec::new());
        watching.add_tree(&path("")).unwrap();
        std::fs::create_dir(dir.path().join("new")).unwrap();
        std::fs::write(dir.path().join("new/file"), "").unwrap();
        watching.add_tree(&path("new")).unwrap();
        assert_eq!(told(&mut watching, 1), ["new", "file"]);
    }

    /// The names of what is told to be created; each event is followed so often.
    fn told(watching: &mut Watching, times: usize) -> Vec<String> {
        let mut names = Vec::new();
        while let Next::Event(event) = watching.next(Some(Duration::ZERO), None).unwrap() {
            if event.mask & libc::IN_CREATE != 0 {
                let name = watching.occurrence(&event).name;
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            (0..times).for_each(|_| watching.follow(&event).unwrap());
            watching.forget_ended(&event);
        }
        names
    }
}
