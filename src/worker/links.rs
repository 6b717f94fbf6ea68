//! The names of files that have several (hard links): with `-H`, rsync links only the names that stand in one list.
//! A walk finds them when a job needs them. They are remembered and checked on disk at each use, so an outdated memory costs only a walk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::Stat;

use super::fresh::{coarse_now, since_epoch};
use super::shards::{is_directory, stat};
use crate::change::Scope;
use crate::directory::walk;
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::watch::Exclude;

/// Most names of one file that are sent in one list. For a file with more, the whole tree is compared.
const NAMES_OF_ONE: u64 = 1_000;

/// Most names that are remembered, some 100 bytes each. For a job that needs more, the whole tree is compared.
const NAMES_MAX: usize = 50_000;

/// A file: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FileId {
    device: u64,
    inode: u64,
}

/// A file with several names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct File {
    /// How many names it has.
    links: u64,
    /// How many of them are excluded or outside the watch root, as far as is known.
    elsewhere: u64,
    /// When it was last changed, as the time since 1970. A new name changes it, too.
    changed: Duration,
    /// The known names that are neither.
    names: BTreeSet<RelPath>,
}

impl File {
    /// A walk that began at `begin` has found all names that it can find. A file that got a name since then may have it where the
    /// walk had been before: such a name is not elsewhere.
    fn count_elsewhere(&mut self, begin: Duration) {
        if self.changed < begin {
            self.elsewhere = self.links.saturating_sub(self.names.len() as u64);
        }
    }

    fn is_complete(&self) -> bool {
        self.names.len() as u64 + self.elsewhere >= self.links
    }
}

/// Files with several names: at most `NAMES_MAX` names.
#[derive(Debug, Default)]
pub struct Linked {
    files: BTreeMap<FileId, File>,
    /// How many names the files have.
    names: usize,
    /// Some names did not fit.
    is_overfull: bool,
}

impl Linked {
    /// Adds a name if its file has several.
    pub fn note(&mut self, path: &RelPath, stat: &Stat) {
        if stat.st_nlink < 2 || is_directory(stat) {
            return;
        }
        if self.names >= NAMES_MAX {
            self.is_overfull = true;
            return;
        }
        let file = self.files.entry(id(stat)).or_default();
        file.links = stat.st_nlink;
        file.changed = file.changed.max(changed(stat));
        self.names += usize::from(file.names.insert(path.clone()));
    }

    /// Adds a name of a file that it has already; false for another file.
    fn note_further(&mut self, path: &RelPath, stat: &Stat) -> bool {
        let is_known = self.files.contains_key(&id(stat));
        if is_known {
            self.note(path, stat);
        }
        is_known
    }

    /// Adds what is in a directory, or below it.
    pub fn note_below(&mut self, area: Area<'_>, directory: &RelPath, scope: Scope) {
        each_file(area, directory, scope, |path, stat| self.note(path, stat));
    }

    /// Adds the files of `other` that have further names than those known in it.
    pub fn extend_incomplete(&mut self, other: Self) {
        self.is_overfull |= other.is_overfull;
        let incomplete = other.files.into_iter().filter(|(_, file)| !file.is_complete());
        for (id, file) in incomplete {
            let known = self.files.entry(id).or_default();
            known.links = file.links;
            known.changed = known.changed.max(file.changed);
            self.names +=
                file.names.into_iter().filter(|name| known.names.insert(name.clone())).count();
        }
        self.is_overfull |= self.names > NAMES_MAX;
    }

    /// True when there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.is_overfull
    }

    /// The names of each file.
    pub fn groups(self) -> impl Iterator<Item = BTreeSet<RelPath>> {
        self.files.into_values().map(|file| file.names)
    }

    fn incomplete(&mut self) -> impl Iterator<Item = &mut File> {
        self.files.values_mut().filter(|file| !file.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.files.values().all(File::is_complete)
    }

    fn has_too_many(&self) -> bool {
        self.is_overfull || self.files.values().any(|file| file.links > NAMES_OF_ONE)
    }
}

/// Where names are looked for.
#[derive(Clone, Copy)]
pub struct Area<'a> {
    /// The open watch root.
    pub root: &'a OwnedFd,
    /// What is not mirrored.
    pub exclude: &'a Exclude,
}

/// The names that are known below one watch root.
#[derive(Debug, Default)]
pub struct Links {
    known: Mutex<HashMap<FileId, File>>,
}

impl Links {
    /// All names of these files, as far as they are mirrored; `None` when they are too many to be sent in one list.
    pub fn complete(&self, area: Area<'_>, mut wanted: Linked) -> Option<Linked> {
        if wanted.has_too_many() {
            return None;
        }
        // Other jobs wait for a walk, because it may find their names too.
        let mut known = lock(&self.known);
        for (id, file) in &mut wanted.files {
            if let Some(known) = known.get(id) {
                let is_it = |path: &&RelPath| has(area, path, *id);
                file.names.extend(known.names.iter().filter(is_it).cloned());
                file.elsewhere = known.elsewhere;
            }
        }
        let mut others = Linked::default();
        if !wanted.is_complete() {
            search_beside(area, &mut wanted);
        }
        if !wanted.is_complete() {
            others = search(area, &mut wanted);
        }
        if wanted.has_too_many() {
            return None;
        }
        let files = wanted.files.iter().map(|(id, file)| (*id, file.clone()));
        known.extend(others.files.into_iter().chain(files));
        if known.values().map(|file| file.names.len()).sum::<usize>() > NAMES_MAX {
            *known = wanted.files.iter().map(|(id, file)| (*id, file.clone())).collect();
        }
        Some(wanted)
    }
}

/// Looks for the names in the directories of those that are known: most links stand side by side.
fn search_beside(area: Area<'_>, wanted: &mut Linked) {
    let names = wanted.incomplete().flat_map(|file| &file.names);
    let directories: BTreeSet<RelPath> = names.filter_map(RelPath::parent).collect();
    for directory in directories {
        each_file(area, &directory, Scope::Listing, |path, stat| {
            _ = wanted.note_further(path, stat)
        });
    }
}

/// Looks for the names in the whole tree. Returns the other files that it meets, so that a later job need not search again.
fn search(area: Area<'_>, wanted: &mut Linked) -> Linked {
    let begin = coarse_now();
    let mut others = Linked::default();
    each_file(area, &RelPath::root(), Scope::Tree, |path, stat| {
        if !wanted.note_further(path, stat) {
            others.note(path, stat);
        }
    });
    if others.is_overfull {
        others = Linked::default();
    }
    let files = wanted.files.values_mut().chain(others.files.values_mut());
    files.for_each(|file| file.count_elsewhere(begin));
    others
}

/// Calls `each` with everything but directories in a directory, and with [`Scope::Tree`] below it. A directory that cannot be read
/// counts as empty.
fn each_file(
    area: Area<'_>,
    directory: &RelPath,
    scope: Scope,
    mut each: impl FnMut(&RelPath, &Stat),
) {
    walk(area.root, directory, &**area.exclude, scope, |path, is_dir| {
        if !is_dir && let Ok(stat) = stat(area.root, path) {
            each(path, &stat);
        }
        ControlFlow::Continue(())
    });
}

/// True when this path is a name of the file.
fn has(area: Area<'_>, path: &RelPath, file: FileId) -> bool {
    !(area.exclude)(path, false) && stat(area.root, path).is_ok_and(|found| id(&found) == file)
}

fn changed(stat: &Stat) -> Duration {
    since_epoch(stat.st_ctime, stat.st_ctime_nsec)
}

fn id(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    struct Disk {
        dir: tempfile::TempDir,
        root: OwnedFd,
        exclude: Exclude,
        links: Links,
    }

    impl Disk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
            let exclude: Exclude = Arc::new(|path, _| path.as_bytes().ends_with(b".tmp"));
            Self { dir, root, exclude, links: Links::default() }
        }

        fn write(&self, name: &str) {
            fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            fs::write(self.at(name), name).unwrap();
        }

        fn link(&self, old: &str, new: &str) {
            fs::create_dir_all(self.at(new).parent().unwrap()).unwrap();
            fs::hard_link(self.at(old), self.at(new)).unwrap();
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(Path::new(name))
        }

        fn area(&self) -> Area<'_> {
            Area { root: &self.root, exclude: &self.exclude }
        }

        /// The names of the file `name`, with those of other files behind `|`; `too many`.
        fn names(&self, names: &[&str]) -> String {
            let mut linked = Linked::default();
            for name in names {
                let path = RelPath::new(name.as_bytes()).unwrap();
                linked.note(&path, &stat(&self.root, &path).unwrap());
            }
            let Some(linked) = self.links.complete(self.area(), linked) else {
                return "too many".into();
            };
            let group = |names: BTreeSet<RelPath>| {
                names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            linked.groups().map(group).collect::<Vec<_>>().join(" | ")
        }
    }

    #[test]
    fn all_names_of_a_file_are_found_wherever_they_stand() {
        let disk = Disk::new();
        disk.write("a/o");
        disk.write("single");
        assert_eq!(disk.names(&["a/o", "single"]), "");
        disk.link("a/o", "a/o2");
        assert_eq!(disk.names(&["a/o2"]), "a/o a/o2");
        disk.link("a/o", "b/c/o3");
        disk.link("a/o", "b/o.tmp");
        assert_eq!(disk.names(&["b/c/o3"]), "a/o a/o2 b/c/o3");
        fs::rename(disk.at("b/c"), disk.at("c")).unwrap();
        assert_eq!(disk.names(&["a/o"]), "a/o a/o2 c/o3");
        fs::remove_file(disk.at("a/o2")).unwrap();
        fs::write(disk.at("a/o2"), "another file").unwrap();
        assert_eq!(disk.names(&["a/o"]), "a/o c/o3");
    }

    #[test]
    fn one_walk_finds_the_names_for_later_jobs_too() {
        let disk = Disk::new();
        for name in ["a/1", "a/2"] {
            disk.write(name);
            disk.link(name, &name.replace('a', "b"));
        }
        assert_eq!(disk.names(&["a/1"]), "a/1 b/1");
        assert_eq!(lock(&disk.links.known).len(), 2);
        assert_eq!(disk.names(&["b/2"]), "a/2 b/2");
    }

    #[test]
    fn a_name_that_is_made_during_a_walk_is_found_later() {
        let disk = Disk::new();
        disk.write("a/o");
        disk.link("a/o", "b/o");
        let mut wanted = Linked::default();
        // The walk met this file before it got its second name.
        let found = RelPath::new(b"b/o").unwrap();
        let stat = stat(&disk.root, &found).unwrap();
        wanted.note(&found, &stat);
        let id = id(&stat);
        let mut elsewhere = |begin: Duration| {
            let file = wanted.files.get_mut(&id).unwrap();
            file.count_elsewhere(begin);
            file.elsewhere
        };
        assert_eq!(elsewhere(changed(&stat)), 0, "it changed when the walk began, or later");
        assert_eq!(elsewhere(changed(&stat) + Duration::from_nanos(1)), 1);
    }

    #[test]
    fn a_file_with_very_many_names_is_not_searched_for() {
        let disk = Disk::new();
        disk.write("o");
        (0..NAMES_OF_ONE).for_each(|n| disk.link("o", &format!("d/{n}")));
        assert_eq!(disk.names(&["o"]), "too many");
    }
}
