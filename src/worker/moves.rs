//! Moves inside the tree: which get a run of their own, and what has to wait for that run.
//! Sends nothing. If a hint is wrong or late, rsync sends the data as usual.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use crate::engine::Job;
use crate::path::RelPath;
use crate::rsync::temporary::is_temporary_of;

/// A smaller file gets no run of its own: sending it is faster.
const FILE_MIN: u64 = 1 << 20;
/// Most moves of one job that get a run of their own; the rest is sent.
const MOVES_MAX: usize = 16;

/// Whether a remote can make a moved entry from its old copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hints {
    /// It can.
    Use,
    /// It can for files only: the filters are anchored at the watch root, but a moved directory's run has another root.
    FilesOnly,
    /// It cannot: the data is sent.
    Ignore,
}

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// A directory with everything below it.
    Directory,
    /// A directory, and another one has taken its old name.
    ReplacedDirectory,
    /// A file of so many bytes.
    File(u64),
}

/// Who renamed a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// A person or a program.
    Somebody,
    /// An rsync that received it.
    Receiver,
}

/// True when `old` is the temporary name under which rsync receives `new`.
pub fn is_receivers(old: &RelPath, new: &RelPath) -> bool {
    let held_back = |name: &[u8]| name == b".~tmp~" || name == b".rsync-partial";
    is_temporary_of(old, new) || old.components().any(held_back)
}

/// An entry that is made from its old copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Its new name.
    pub new: RelPath,
    /// The name of its copy.
    pub old: RelPath,
    /// Whether it is a directory.
    pub what: Moved,
}

impl Move {
    /// The directory that must exist on the remote before this run.
    pub fn directory(&self) -> Option<RelPath> {
        match self.what {
            Moved::Directory | Moved::ReplacedDirectory => Some(self.new.clone()),
            Moved::File(_) => self.new.parent(),
        }
    }
}

/// Orders moves so that each copy is used before another move replaces it: `c` is made from `b` before `b` is made from `a`. Names
/// that were swapped have no such order.
pub fn in_order(mut moves: Vec<Move>) -> Vec<Move> {
    let mut ordered = Vec::new();
    let is_next = |moves: &[Move], next: &Move| !moves.iter().any(|other| other.old == next.new);
    while let Some(at) = moves.iter().position(|next| is_next(&moves, next)) {
        ordered.push(moves.remove(at));
    }
    ordered.extend(moves);
    ordered
}

/// How a moved entry is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveOrigin {
    /// Not from an old copy: its data is sent.
    Unknown,
    /// This job makes it from its old copy.
    Here(Move),
    /// Later: another job holds its old name.
    Elsewhere,
}

/// The hints of one job, ready for look-ups.
pub struct Moves<'a> {
    old_of: HashMap<&'a RelPath, &'a RelPath>,
    owed: HashSet<&'a RelPath>,
}

impl<'a> Moves<'a> {
    /// The hints of `job`. The job must hold the old name too, so that no other job deletes it at the same time.
    pub fn of(job: &'a Job) -> Self {
        let old_of: HashMap<_, _> = job.moves.iter().map(|(new, old)| (new, old)).collect();
        let items = job.items.iter().filter(|_| !old_of.is_empty());
        Self { owed: items.map(|item| &item.path).collect(), old_of }
    }

    /// Who moved something to `path`, if anybody did.
    pub fn mover(&self, path: &RelPath) -> Option<Mover> {
        let old = self.old_of.get(path)?;
        Some(if is_receivers(old, path) { Mover::Receiver } else { Mover::Somebody })
    }

    /// True when a move whose new name is gone needs no action. This excludes files that an rsync received here: they do not move again.
    pub fn is_undone(&self, new: &RelPath, old: &RelPath, already: usize) -> bool {
        self.owed.contains(new) && already < MOVES_MAX && !is_receivers(old, new)
    }

    /// The move that made `new`, if it gets a run of its own; `stat` looks at the old name.
    pub fn find(
        &self,
        new: &RelPath,
        what: Moved,
        found: &[Move],
        stat: impl Fn(&RelPath) -> Option<Errno>,
    ) -> MoveOrigin {
        let Some(old) = self.old_of.get(new).copied() else { return MoveOrigin::Unknown };
        let same_directory = old.parent() == new.parent();
        let what = match what {
            Moved::Directory if stat(old) != Some(Errno::NOENT) => Moved::ReplacedDirectory,
            what => what,
        };
        let serves = match what {
            Moved::Directory | Moved::ReplacedDirectory => true,
            Moved::File(size) if size < FILE_MIN => false,
            Moved::File(_) if same_directory => true,
            Moved::File(_) => old.name() == new.name() && stat(old) == Some(Errno::NOENT),
        };
        // Where the remote ignores case, both names are one file: it is deleted before it is sent.
        let serves = serves && !is_receivers(old, new) && old.folded() != new.folded();
        let apart = !old.is_within(new) && !new.is_within(old);
        if !serves || !apart {
            return MoveOrigin::Unknown;
        }
        if !self.owed.contains(old) {
            return MoveOrigin::Elsewhere;
        }
        match found.len() < MOVES_MAX {
            true => MoveOrigin::Here(Move { new: new.clone(), old: old.clone(), what }),
            false => MoveOrigin::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{RemoteId, RootId, Scope};
    use crate::engine::pending::{Item, Mark};
    use crate::engine::{JobId, JobKind};

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_rsync_receives_is_told_from_what_somebody_moves() {
        let is = |old: &str, new: &str| is_receivers(&path(old), &path(new));
        assert!(is("a/.f.tXt012", "a/f") && is(".~tmp~/f", "f") && is("a/.rsync-partial/f", "a/f"));
        assert!(is(".env.tXt012", ".env"), "a name that begins with a dot gets no second one");
        for (old, new) in [("a/f.bak", "a/f"), (".f.bak", "f"), ("b/.f.tXt012", "a/f"), ("f", "g")]
        {
            assert!(!is(old, new), "{old} to {new}");
        }
    }

    fn job(items: &[&str], moves: &[(&str, &str)]) -> Job {
        let item = |p: &&str| Item { path: path(p), mark: Mark::new(Scope::Entry) };
        Job {
            id: JobId(0),
            remote: RemoteId(0),
            root: RootId(0),
            kind: JobKind::Batch,
            items: items.iter().map(item).collect(),
            moves: moves.iter().map(|(new, old)| (path(new), path(old))).collect(),
            deletes_below: true,
        }
    }

    fn find(job: &Job, new: &str, what: Moved, old_stands: Option<Errno>) -> MoveOrigin {
        Moves::of(job).find(&path(new), what, &[], |_| old_stands)
    }

    fn is_found(job: &Job, new: &str, what: Moved, old_stands: Option<Errno>) -> bool {
        matches!(find(job, new, what, old_stands), MoveOrigin::Here(_))
    }

    #[test]
    fn a_large_file_is_made_from_its_old_copy_and_a_small_one_is_sent() {
        let job = job(&["a", "b"], &[("b", "a")]);
        assert!(is_found(&job, "b", Moved::File(FILE_MIN), Some(Errno::NOENT)));
        assert!(is_found(&job, "b", Moved::File(FILE_MIN), None));
        assert!(!is_found(&job, "b", Moved::File(FILE_MIN - 1), Some(Errno::NOENT)));
    }

    #[test]
    fn a_copy_is_used_before_another_move_replaces_it() {
        let moved =
            |(old, new)| Move { new: path(new), old: path(old), what: Moved::File(FILE_MIN) };
        let order = |moves: &[(&'static str, &'static str)]| {
            let ordered = in_order(moves.iter().copied().map(moved).collect());
            ordered.iter().map(|moved| moved.new.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(&[("a", "b"), ("b", "c"), ("x", "y"), ("c", "d")]), ["y", "d", "c", "b"]);
        assert_eq!(order(&[("a", "b"), ("b", "a"), ("x", "y")]), ["y", "b", "a"]);
    }

    #[test]
    fn a_file_that_changed_name_and_directory_is_sent() {
        let both = job(&["x/a", "y/b"], &[("y/b", "x/a")]);
        assert!(!is_found(&both, "y/b", Moved::File(FILE_MIN), Some(Errno::NOENT)));
        let directory = job(&["x/a", "y/a"], &[("y/a", "x/a")]);
        assert!(is_found(&directory, "y/a", Moved::File(FILE_MIN), Some(Errno::NOENT)));
        assert!(!is_found(&directory, "y/a", Moved::File(FILE_MIN), None));
    }

    #[test]
    fn a_directory_whose_old_name_stands_again_is_copied_and_one_whose_old_name_is_busy_waits() {
        let held = job(&["new"], &[("new", "old")]);
        let gone = Some(Errno::NOENT);
        assert_eq!(find(&held, "new", Moved::Directory, gone), MoveOrigin::Elsewhere);
        assert_eq!(find(&held, "new", Moved::File(FILE_MIN), None), MoveOrigin::Elsewhere);
        assert_eq!(find(&held, "new", Moved::File(FILE_MIN - 1), None), MoveOrigin::Unknown);
        assert_eq!(find(&held, "new", Moved::Directory, None), MoveOrigin::Elsewhere);
        let both = job(&["new", "old"], &[("new", "old")]);
        assert!(is_found(&both, "new", Moved::Directory, Some(Errno::NOENT)));
        let copied = find(&both, "new", Moved::Directory, None);
        assert!(matches!(copied, MoveOrigin::Here(it) if it.what == Moved::ReplacedDirectory));
        let case = job(&["Dir", "dir"], &[("dir", "Dir")]);
        assert_eq!(find(&case, "dir", Moved::Directory, gone), MoveOrigin::Unknown);
    }
}
