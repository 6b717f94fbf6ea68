//! Files with several names (hard links) in a look: with `-H`, all names of a file have to stand in one list.
//! Sends nothing. A group that the job does not have as a whole goes back to the engine, for a job that has.

use std::collections::{BTreeSet, HashSet};

use super::{LARGE_FILE, Look, Looking, Present};
use crate::change::Scope;
use crate::engine::JobKind;
use crate::engine::pending::{Item, Mark};
use crate::path::RelPath;
use crate::rsync::Presence;
use crate::worker::links::{Area, Linked, Links};
use crate::worker::moves::Moved;

/// What is done about files with several names.
#[derive(Clone, Copy)]
pub enum HardLinks<'a> {
    /// Nothing: each name is a file of its own.
    Ignore,
    /// Their names are sent in one list.
    Together(&'a Links),
    /// The whole tree is compared, because lists do not work with this remote.
    WholeTree,
}

/// What a job has, and what it does with names of files that have several.
struct Sorted {
    /// The names that it sends one by one.
    files: BTreeSet<RelPath>,
    /// The directories that it sends with everything below, moved ones among them.
    trees: HashSet<RelPath>,
    listings: HashSet<RelPath>,
    /// These names are sent in one list.
    linked: HashSet<RelPath>,
    /// The job lacks some of their files' names, so it returns them.
    leaving: HashSet<RelPath>,
}

impl Sorted {
    fn of(look: &Look) -> Self {
        let files = look.present.iter().filter(|entry| entry.presence == Presence::Other);
        Self {
            files: files.map(|entry| entry.path.clone()).collect(),
            trees: look.trees.iter().chain(moved_directories(look)).cloned().collect(),
            listings: look.listings.iter().cloned().collect(),
            linked: HashSet::new(),
            leaving: HashSet::new(),
        }
    }

    /// The directory of the job whose run sends `path`, if there is one.
    fn directory_of(&self, path: &RelPath) -> Option<RelPath> {
        let mut above = std::iter::successors(path.parent(), RelPath::parent);
        let listing = path.parent().filter(|parent| self.listings.contains(parent));
        above.find(|directory| self.trees.contains(directory)).or(listing)
    }

    fn are_in_one_directory(&self, names: &BTreeSet<RelPath>) -> bool {
        let directories: HashSet<_> = names.iter().map(|name| self.directory_of(name)).collect();
        directories.len() == 1 && !directories.contains(&None)
    }
}

/// The new names of directories that are made from their old copies.
fn moved_directories(look: &Look) -> impl Iterator<Item = &RelPath> {
    let moved = look.moves.iter().filter(|it| !matches!(it.what, Moved::File(_)));
    moved.map(|it| &it.new)
}

impl Looking<'_> {
    /// True when the names of one file have to stand in one list. A confirmation compares exactly what was sent before.
    pub(super) fn keeps_links(&self) -> bool {
        !matches!(self.options.hard_links, HardLinks::Ignore) && !self.job.only_confirms()
    }

    /// Sends the names of each file in one list, or returns them.
    pub(super) fn join_names(&mut self) {
        let mut linked = std::mem::take(&mut self.linked);
        let is_whole = self.look.trees.iter().any(RelPath::is_root);
        if is_whole || !self.keeps_links() {
            return;
        }
        self.note_directories(&mut linked);
        if !linked.is_empty() {
            let complete = match self.options.hard_links {
                HardLinks::Together(links) => links.complete(self.area(), linked),
                HardLinks::WholeTree | HardLinks::Ignore => None,
            };
            match complete {
                Some(files) => self.join_files(files),
                None => self.look.has_scattered_links = true,
            }
        }
        self.return_large();
    }

    /// Adds the files in directories of this job that have further names elsewhere.
    fn note_directories(&self, linked: &mut Linked) {
        let Look { listings, trees, .. } = &self.look;
        let moved = moved_directories(&self.look);
        let trees = trees.iter().chain(moved).map(|path| (path, Scope::Tree));
        let listings = listings.iter().map(|path| (path, Scope::Listing));
        for (path, scope) in trees.chain(listings) {
            let mut below = Linked::default();
            below.note_below(self.area(), path, scope);
            linked.extend_incomplete(below);
        }
    }

    fn join_files(&mut self, files: Linked) {
        let mut sorted = Sorted::of(&self.look);
        for names in files.groups() {
            let sent = names.into_iter().filter(|path| self.is_sent(path)).collect();
            self.sort_names(&mut sorted, sent);
        }
        let Sorted { linked, mut leaving, .. } = sorted;
        self.leave_old_names(&mut leaving);
        self.look.present.retain(|entry| !leaving.contains(&entry.path));
        for entry in &mut self.look.present {
            entry.is_linked = linked.contains(&entry.path);
        }
        for item in self.job.items.iter().filter(|item| leaving.remove(&item.path)) {
            let mark = Mark { large: false, shard: false, ..item.mark };
            self.look.returned.push(Item { path: item.path.clone(), mark });
        }
        let mark = Mark::new(Scope::Entry);
        self.look.returned.extend(leaving.into_iter().map(|path| Item { path, mark }));
    }

    /// Sorts the names of one file.
    fn sort_names(&mut self, sorted: &mut Sorted, names: BTreeSet<RelPath>) {
        if names.len() < 2 || sorted.are_in_one_directory(&names) {
            return;
        }
        if names.is_subset(&sorted.files) {
            sorted.linked.extend(names);
            return;
        }
        let is_mine =
            |name: &&RelPath| self.own.contains(name) || sorted.directory_of(name).is_some();
        let mine: Vec<_> = names.iter().filter(is_mine).cloned().collect();
        sorted.leaving.extend(mine);
        self.look.together.push(names.into_iter().collect());
    }

    /// A moved name leaves with its old name, so that neither is missing on the remote meanwhile.
    fn leave_old_names(&mut self, leaving: &mut HashSet<RelPath>) {
        for (new, old) in &self.job.moves {
            if leaving.contains(new) && self.look.absent.remove(old) {
                self.look.absent_dirs.remove(old);
                leaving.insert(old.clone());
                self.look.together.push(vec![new.clone(), old.clone()]);
            }
        }
    }

    /// Large files without further names that are mirrored get jobs of their own, as all large files do.
    fn return_large(&mut self) {
        if self.job.kind == JobKind::Large {
            return;
        }
        let size = |entry: &Present| entry.version.map_or(0, |version| version.stamp.size);
        let is_large = |entry: &mut Present| !entry.is_linked && size(entry) >= LARGE_FILE;
        let large = self.look.present.extract_if(.., is_large);
        let mark = Mark { large: true, ..Mark::new(Scope::Entry) };
        self.look.returned.extend(large.map(|entry| {
            let mark =
                Mark { compare_content: entry.compare_content, recheck: entry.recheck, ..mark };
            Item { path: entry.path, mark }
        }));
    }

    /// False for a name that the operator's rules exclude.
    fn is_sent(&self, path: &RelPath) -> bool {
        let (rules, root) = self.options.operator;
        rules.visible(root, path) == *path && !rules.hides(root, path, false)
    }

    fn area(&self) -> Area<'_> {
        Area { root: self.root, exclude: self.options.exclude }
    }
}
