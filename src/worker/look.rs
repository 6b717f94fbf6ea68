//! A look at the disk for one job: which paths are present, absent, large files, small trees or large trees.
//! Reads names and stamps below one open root; decides no run.

mod linked;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::delivered::Version;
use super::fresh::{Stamp, since_epoch};
use super::links::Linked;
use super::moves::{Hints, Move, MoveOrigin, Moved, Mover, Moves, in_order};
use super::shards::{Divided, Sharding, Shards, is_directory, is_short, stat};
use crate::change::Scope;
use crate::directory::each_name;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{Job, JobKind, UndoneMove};
use crate::path::{RelPath, fold};
use crate::rsync::Presence;
use crate::rsync::operator_rules::OperatorRules;
use crate::watch::Exclude;

pub use linked::HardLinks;

/// A file of this size or more is a job of its own.
const LARGE_FILE: u64 = 4 << 20;
/// Most bytes of one batch; the rest goes into the next one.
const BATCH_BYTES: u64 = 32 << 20;

/// The paths of a job, as they are on disk now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Entries that exist; regular files with their stat.
    pub present: Vec<Present>,
    /// The topmost absent ancestors, each once.
    pub absent: BTreeSet<RelPath>,
    /// Those of `absent` that may have been directories.
    pub absent_dirs: BTreeSet<RelPath>,
    /// Directories whose listings are to be made equal.
    pub listings: Vec<RelPath>,
    /// Directories to be made equal with everything below.
    pub trees: Vec<RelPath>,
    /// Those of `trees` whose file systems may hold too many entries for one list in memory.
    pub long_trees: HashSet<RelPath>,
    /// What is made from its old copy, in this order.
    pub moves: Vec<Move>,
    /// Moves whose new names are gone: the old copies are left alone.
    pub undone: Vec<UndoneMove>,
    /// Names of one file (`-H`) cannot be sent in one list: only a comparison of the whole tree links them.
    pub has_scattered_links: bool,
    /// What other jobs have to do, divided where that helps.
    pub returned: Vec<Item>,
    /// The names of one file each. A job that has all of them sends what is returned.
    pub together: Vec<Vec<RelPath>>,
}

/// An entry that exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Present {
    /// Its path.
    pub path: RelPath,
    /// Directory or not.
    pub presence: Presence,
    /// The version of a regular file.
    pub version: Option<Version>,
    /// The copy may have its size and time but other content.
    pub compare_content: bool,
    /// Whether it is a recheck or a confirmation.
    pub recheck: Recheck,
    /// Who moved it here, if it was moved: the previous file of this name may have had the same stamp.
    pub moved: Option<Mover>,
    /// This job deletes a name that differs in case only. A remote that ignores case then has no copy.
    pub loses_copy: bool,
    /// It is a name of a file with several names, all of which this job has (`-H`): one list has to hold them.
    pub is_linked: bool,
}

impl Present {
    /// An entry without anything special.
    pub fn plain(path: RelPath, presence: Presence) -> Self {
        Self {
            path,
            presence,
            version: None,
            compare_content: false,
            recheck: Recheck::No,
            moved: None,
            loses_copy: false,
            is_linked: false,
        }
    }
}

/// All looks of one job, in the order of their runs.
#[derive(Debug, Default)]
pub struct Looks {
    /// The job's items.
    pub first: Look,
    /// What has to follow the moves: paths at and below the old names, and rewrites that the moves may have hidden.
    pub after_moves: Look,
    /// Files below trees that were sent lately: equal size and time may hide a change.
    pub below_trees: Look,
}

impl Looks {
    /// All three looks.
    pub fn all(&self) -> [&Look; 3] {
        [&self.first, &self.after_moves, &self.below_trees]
    }

    /// True when there is anything to send or to delete.
    pub fn is_something(&self) -> bool {
        self.all().iter().any(|look| look.is_something())
    }

    /// True when more than the named entries may change on the remote.
    pub fn reaches_below(&self) -> bool {
        self.all().iter().any(|look| look.reaches_below())
    }

    /// True when something may be deleted.
    pub fn deletes(&self) -> bool {
        self.absent().next().is_some() || self.reaches_below()
    }

    /// All absent paths.
    pub fn absent(&self) -> impl Iterator<Item = &RelPath> {
        self.all().into_iter().flat_map(|look| &look.absent)
    }
}

impl Look {
    /// True when there is anything to send or to delete.
    pub fn is_something(&self) -> bool {
        !(self.present.is_empty() && self.absent.is_empty()) || self.reaches_below()
    }

    /// True when more than the named entries may change on the remote.
    pub fn reaches_below(&self) -> bool {
        let named = self.trees.is_empty() && self.listings.is_empty();
        !(named && self.absent_dirs.is_empty() && self.moves.is_empty())
    }

    /// Splits off what has to follow the moves: everything at, below and above the old names. Adds the directories that the moves
    /// need to this look.
    pub fn put_off_old_names(&mut self) -> Look {
        let Self { moves, present, absent, absent_dirs, .. } = self;
        let late = |path: &RelPath| moves.iter().any(|m| path.is_within(&m.old));
        let above = |path: &RelPath| moves.iter().any(|m| m.old.is_within(path));
        let later = Look {
            present: present.extract_if(.., |entry| late(&entry.path)).collect(),
            absent: absent.iter().filter(|path| late(path) || above(path)).cloned().collect(),
            absent_dirs: absent_dirs
                .iter()
                .filter(|path| late(path) || above(path))
                .cloned()
                .collect(),
            ..Look::default()
        };
        absent.retain(|path| !later.absent.contains(path));
        absent_dirs.retain(|path| !later.absent_dirs.contains(path));
        for path in moves.iter().filter_map(Move::directory).filter(|path| !path.is_root()) {
            if !present.iter().any(|entry| entry.path == path) {
                present.push(Present::plain(path, Presence::Directory));
            }
        }
        later
    }

    /// Does nothing at this very path.
    fn leave_alone(&mut self, path: &RelPath) {
        self.absent.remove(path);
        self.absent_dirs.remove(path);
        self.present.retain(|entry| entry.path != *path);
        self.listings.retain(|listing| listing != path);
        self.trees.retain(|tree| tree != path);
        self.returned.retain(|item| item.path != *path);
    }

    /// Adds what another look found.
    pub fn extend(&mut self, other: Look) {
        self.present.extend(other.present);
        self.absent.extend(other.absent);
        self.absent_dirs.extend(other.absent_dirs);
        self.has_scattered_links |= other.has_scattered_links;
        self.returned.extend(other.returned);
        self.together.extend(other.together);
    }
}

/// What a look depends on besides the disk.
#[derive(Clone, Copy)]
pub struct LookOptions<'a> {
    /// How far trees may be divided.
    pub sharding: Sharding,
    /// Whether moves are made on the remote.
    pub hints: Hints,
    /// What is not mirrored.
    pub exclude: &'a Exclude,
    /// The operator's rules for rsync, and the watch root that they are relative to.
    pub operator: (&'a OperatorRules, &'a Path),
    /// What is done about files with several names.
    pub hard_links: HardLinks<'a>,
}

/// Looks at every item of `job` below `root`.
pub fn look_at(root: &OwnedFd, job: &Job, options: LookOptions<'_>) -> Look {
    let own = job.items.iter().map(|item| &item.path).collect();
    let (moves, ways, look) = (Moves::of(job), HashMap::new(), Look::default());
    let linked = Linked::default();
    let mut looking = Looking { root, job, own, options, moves, bytes: 0, ways, linked, look };
    for item in &job.items {
        looking.item(item);
    }
    looking.look.moves = in_order(std::mem::take(&mut looking.look.moves));
    looking.undo_moves();
    looking.compare_namesakes();
    looking.join_names();
    looking.look
}

/// The state of the directories above a path.
#[derive(Debug, Clone)]
enum WayTo {
    /// All of them are directories.
    Open,
    /// This is the topmost of them that does not exist.
    Absent(RelPath),
    /// This is the topmost of them that is no directory.
    Blocked(RelPath),
}

struct Looking<'a> {
    root: &'a OwnedFd,
    job: &'a Job,
    /// The paths of the job's items.
    own: HashSet<&'a RelPath>,
    options: LookOptions<'a>,
    moves: Moves<'a>,
    bytes: u64,
    /// For each directory, the state of its ancestors.
    ways: HashMap<RelPath, WayTo>,
    /// The items that are names of files with several names.
    linked: Linked,
    look: Look,
}

impl Looking<'_> {
    fn item(&mut self, item: &Item) {
        let (rules, root) = self.options.operator;
        if rules.is_rule_file(&item.path) {
            self.compare_directory_of(&item.path);
        }
        let visible = rules.visible(root, &item.path);
        if visible != item.path {
            return self.hidden(visible);
        }
        match self.way_to(&item.path) {
            WayTo::Open => {}
            // rsync does not delete a name whose parent is missing too.
            WayTo::Absent(topmost) => return self.absent(topmost, Scope::Tree),
            WayTo::Blocked(ancestor) if !self.holds(&ancestor) => return self.give_back(ancestor),
            // Sending the entry that is in the way replaces what was below it.
            WayTo::Blocked(ancestor) => {
                let item = Item { path: ancestor, mark: Mark::new(Scope::Entry) };
                return self.entry(&item, Presence::Other, None);
            }
        }
        match self.stat(&item.path) {
            Ok(stat) => self.present(item, &stat),
            Err(Errno::NOENT) => self.absent(item.path.clone(), item.mark.scope),
            // Unreadable: let rsync report it.
            Err(_) => self.entry(item, Presence::Other, None),
        }
    }

    /// A rule file of a directory has changed, so everything below may be selected differently.
    fn compare_directory_of(&mut self, rule_file: &RelPath) {
        let path = rule_file.parent().unwrap_or_default();
        self.compare_again(Item { path, mark: Mark::new(Scope::Tree) });
    }

    /// Returns a comparison to the engine, unless this job makes it anyway.
    fn compare_again(&mut self, item: Item) {
        let is_made = self.job.items.iter().any(|own| own.covers(&item.path, item.mark));
        if !is_made && !self.look.returned.contains(&item) {
            self.look.returned.push(item);
        }
    }

    /// Something changed below a directory that rsync does not enter: nothing is sent or deleted there. Only `visible`, the parent
    /// directory, is sent, because its times may have changed.
    fn hidden(&mut self, visible: RelPath) {
        let is_dir = self.stat(&visible).is_ok_and(|stat| is_directory(&stat));
        if !visible.is_root() && is_dir && matches!(self.way_to(&visible), WayTo::Open) {
            let item = Item { path: visible, mark: Mark::new(Scope::Entry) };
            self.entry(&item, Presence::Directory, None);
        }
    }

    /// Looks at every directory above `path`. It does not follow symbolic links, because they lead to other trees.
    fn way_to(&mut self, path: &RelPath) -> WayTo {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else {
            return WayTo::Open;
        };
        if let Some(known) = self.ways.get(&parent) {
            return known.clone();
        }
        let way = match self.way_to(&parent) {
            WayTo::Open => match self.stat(&parent) {
                Ok(stat) if is_directory(&stat) => WayTo::Open,
                Ok(_) => WayTo::Blocked(parent.clone()),
                Err(Errno::NOENT) => WayTo::Absent(parent.clone()),
                Err(_) => WayTo::Open,
            },
            other => other,
        };
        self.ways.insert(parent, way.clone());
        way
    }

    /// Handles an absent path: this job deletes it if it holds the path.
    fn absent(&mut self, path: RelPath, scope: Scope) {
        if !self.holds(&path) {
            return self.give_back(path);
        }
        if scope != Scope::Entry {
            self.look.absent_dirs.insert(path.clone());
        }
        self.look.absent.insert(path);
    }

    /// True when this job is a batch and `path` is at or below one of its items: no other job works there.
    fn holds(&self, path: &RelPath) -> bool {
        let mut above = Some(path.clone());
        while let Some(path) = above {
            if self.own.contains(&path) {
                return self.job.kind == JobKind::Batch;
            }
            above = path.parent();
        }
        false
    }

    /// Returns the path to the engine for a job of its own, because another job may work below it.
    fn give_back(&mut self, path: RelPath) {
        let item = Item { path, mark: Mark::new(Scope::Tree) };
        if !self.look.returned.contains(&item) {
            self.look.returned.push(item);
        }
    }

    fn present(&mut self, item: &Item, stat: &Stat) {
        let (rules, root) = self.options.operator;
        if rules.hides(root, &item.path, is_directory(stat)) {
            // rsync skips an excluded name. Send its directory, whose times have changed.
            let directory = item.path.parent().unwrap_or_default();
            self.hidden(directory.clone());
            // The copy may be of the other kind (file or directory), which the rules do not exclude.
            // Only a comparison of the parent directory deletes such a copy.
            if !rules.hides(root, &item.path, !is_directory(stat)) {
                self.compare_again(Item { path: directory, mark: Mark::new(Scope::Listing) });
            }
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.keeps_links() {
            self.linked.note(&item.path, stat);
        }
        match (item.mark.scope, kind) {
            (Scope::Tree, FileType::Directory) => self.tree(item),
            (Scope::Listing, FileType::Directory) => self.look.listings.push(item.path.clone()),
            (_, FileType::RegularFile) => self.file(item, stat),
            (_, FileType::Directory) => self.entry(item, Presence::Directory, None),
            _ => self.entry(item, Presence::Other, None),
        }
    }

    fn file(&mut self, item: &Item, stat: &Stat) {
        let size = stat.st_size.max(0) as u64;
        // The names of one file stay in one job, whatever its size.
        let is_linked = self.keeps_links() && stat.st_nlink > 1;
        if !is_linked && self.find_move(item, Moved::File(size)) {
            return;
        }
        let large = size >= LARGE_FILE && self.job.kind != JobKind::Large;
        let full = self.bytes > 0 && self.bytes + size > BATCH_BYTES;
        if !is_linked && (large || full) {
            let mark = Mark { scope: Scope::Entry, large, shard: false, ..item.mark };
            self.look.returned.push(Item { path: item.path.clone(), mark });
            return;
        }
        self.bytes += size;
        let modified = since_epoch(stat.st_mtime, stat.st_mtime_nsec);
        let changed = since_epoch(stat.st_ctime, stat.st_ctime_nsec);
        let version = Version { stamp: Stamp { modified, size }, changed, inode: stat.st_ino };
        self.entry(item, Presence::Other, Some(version));
    }

    fn entry(&mut self, item: &Item, presence: Presence, version: Option<Version>) {
        let recheck = item.mark.recheck;
        let (path, compare_content, moved) =
            (item.path.clone(), item.mark.compare_content, self.moves.mover(&item.path));
        self.look.present.push(Present {
            path,
            presence,
            version,
            compare_content,
            recheck,
            moved,
            loses_copy: false,
            is_linked: false,
        });
    }

    fn tree(&mut self, item: &Item) {
        let path = &item.path;
        if self.find_move(item, Moved::Directory) {
            return;
        }
        if item.mark.shard || self.options.sharding == Sharding::Off || self.shards().is_small(path)
        {
            if !is_short(self.root, path) {
                self.look.long_trees.insert(path.clone());
            }
            self.look.trees.push(path.clone());
            return;
        }
        // This job makes the directories that hold the shards, so that each shard can be sent independently.
        let Divided { listings, shards } = self.shards().divide(path);
        let mark = Mark { scope: Scope::Tree, shard: true, ..item.mark };
        self.look.listings.extend(listings);
        self.look.returned.extend(shards.into_iter().map(|path| Item { path, mark }));
    }

    /// Notes a move that gets a run of its own. True for such a move, and for an item that has to wait for one.
    fn find_move(&mut self, item: &Item, what: Moved) -> bool {
        let stat = |old: &RelPath| self.stat(old).err();
        let found = match self.options.hints {
            Hints::Ignore => MoveOrigin::Unknown,
            Hints::FilesOnly if what == Moved::Directory => MoveOrigin::Unknown,
            _ => self.moves.find(&item.path, what, &self.look.moves, stat),
        };
        match found {
            // Copies would not be hard links of each other.
            MoveOrigin::Here(found)
                if found.what == Moved::ReplacedDirectory && self.keeps_links() =>
            {
                return false;
            }
            MoveOrigin::Here(found) => self.look.moves.push(found),
            MoveOrigin::Elsewhere if self.job.kind == JobKind::Batch => {
                self.look.returned.push(item.clone());
            }
            _ => return false,
        }
        true
    }

    /// An entry that moved twice is now at a third name, which this job does not know. So the job does nothing at the first two
    /// names, even where something new stands. A later job can then make the third name from the copy at the first.
    fn undo_moves(&mut self) {
        if self.options.hints == Hints::Ignore || self.job.kind != JobKind::Batch {
            return;
        }
        for (new, old) in &self.job.moves {
            let look = &mut self.look;
            if !look.absent.contains(new) || !self.moves.is_undone(new, old, look.undone.len()) {
                continue;
            }
            // The copy is deleted with a directory above it, or another move of this job replaces it.
            let mut above = std::iter::successors(old.parent(), RelPath::parent);
            if above.any(|path| look.absent.contains(&path))
                || look.moves.iter().any(|moved| moved.new == *old)
            {
                continue;
            }
            look.leave_alone(old);
            look.leave_alone(new);
            look.undone.push(UndoneMove { new: new.clone(), old: old.clone() });
        }
    }

    /// A sibling whose name differs from a deleted one only in case is sent after the deletion: if the remote ignores case, the
    /// deletion removes its copy. A confirmation would remove it for nothing, so it does not delete beside such a sibling.
    fn compare_namesakes(&mut self) {
        let confirmed: HashSet<_> =
            self.job.items.iter().filter(|item| item.confirms()).map(|item| &item.path).collect();
        for (gone, namesake, is_directory) in self.namesakes() {
            if (self.options.exclude)(&namesake, is_directory) {
                continue;
            }
            if confirmed.contains(&gone) {
                self.look.absent.remove(&gone);
                self.look.absent_dirs.remove(&gone);
            } else {
                self.send_afterwards(namesake, is_directory);
            }
        }
    }

    /// What exists and differs from a deleted sibling only in case: the deleted name, the other name, and whether it is a directory.
    fn namesakes(&self) -> Vec<(RelPath, RelPath, bool)> {
        let mut gone: HashMap<RelPath, HashMap<Vec<u8>, Vec<&RelPath>>> = HashMap::new();
        for path in &self.look.absent {
            if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
                let mut folded = Vec::new();
                fold(name, &mut folded);
                gone.entry(parent).or_default().entry(folded).or_default().push(path);
            }
        }
        let (mut found, mut folded) = (Vec::new(), Vec::new());
        for (parent, gone) in gone {
            // Names that cannot be read are sent when they change.
            _ = each_name(self.root, &parent, |name, is_directory| {
                fold(name, &mut folded);
                for gone in gone.get(&folded).into_iter().flatten() {
                    found.extend(
                        parent.join(name).map(|path| ((*gone).clone(), path, is_directory)),
                    );
                }
            });
        }
        found
    }

    fn send_afterwards(&mut self, path: RelPath, is_directory: bool) {
        let scope = if is_directory { Scope::Tree } else { Scope::Entry };
        let mark = Mark { recheck: Recheck::Only, ..Mark::new(scope) };
        let is_sent = match is_directory {
            // The deletion may have removed what other jobs have sent into it.
            true => self.job.items.iter().any(|item| item.covers(&path, mark)),
            false => self.own.contains(&path),
        };
        let item = Item { path, mark };
        if !is_sent && !self.look.returned.contains(&item) {
            self.look.returned.push(item);
        } else if let Some(entry) = self.look.present.iter_mut().find(|it| it.path == item.path) {
            entry.loses_copy = true;
        }
    }

    fn shards(&self) -> Shards<'_> {
        Shards { root: self.root, sharding: self.options.sharding, exclude: self.options.exclude }
    }

    fn stat(&self, path: &RelPath) -> Result<Stat, Errno> {
        stat(self.root, path)
    }
}

#[cfg(test)]
mod tests;
