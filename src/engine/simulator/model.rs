//! The models of a tree, of a worker's look at the source, and of a run's effect on a remote.
//! They know no time; the simulator decides when they are used.

use std::collections::{BTreeMap, BTreeSet};

use super::Rng;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{Job, JobKind, PathFailure, UndoneMove};
use crate::path::{RelPath, within};

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Dir {
        mode: u64,
    },
    /// rsync's quick check takes two versions with the same stamp for equal.
    File {
        version: u64,
        stamp: u64,
        big: bool,
    },
}

/// A file tree. Its root always exists and is a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<RelPath, Thing>);

impl Default for Tree {
    fn default() -> Self {
        Self([(RelPath::root(), Thing::Dir { mode: 0 })].into())
    }
}

impl Tree {
    pub fn get(&self, path: &RelPath) -> Option<Thing> {
        self.0.get(path).copied()
    }

    pub fn put(&mut self, path: RelPath, thing: Thing) {
        self.0.insert(path, thing);
    }

    pub fn is_dir(&self, path: &RelPath) -> bool {
        matches!(self.get(path), Some(Thing::Dir { .. }))
    }

    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.0.keys()
    }

    /// `path` and everything below it, parents first.
    pub fn within(&self, path: &RelPath) -> Vec<RelPath> {
        let all = within(self.0.range(path.clone()..), path, |(p, _)| p);
        all.map(|(p, _)| p.clone()).collect()
    }

    pub fn children(&self, path: &RelPath) -> Vec<RelPath> {
        let mut all = self.within(path);
        all.retain(|p| p.parent().as_ref() == Some(path));
        all
    }

    pub fn remove(&mut self, path: &RelPath) {
        for gone in self.within(path) {
            self.0.remove(&gone);
        }
    }

    /// Every path at which the two trees differ.
    pub fn differences(&self, other: &Tree) -> Vec<RelPath> {
        let all: BTreeSet<&RelPath> = self.paths().chain(other.paths()).collect();
        let differ = all.into_iter().filter(|p| self.get(p) != other.get(p));
        differ.cloned().collect()
    }

    /// The file that stands where `path` needs a directory.
    pub fn in_the_way(&self, path: &RelPath) -> Option<RelPath> {
        let mut above = path.parent();
        while let Some(path) = above {
            if matches!(self.get(&path), Some(Thing::File { .. })) {
                return Some(path);
            }
            above = path.parent();
        }
        None
    }

    /// The topmost absent ancestor of `path`, or `path` itself; `None` if it exists.
    pub fn topmost_absent(&self, path: &RelPath) -> Option<RelPath> {
        let mut at = RelPath::root();
        for name in path.components() {
            at = at.join(name).unwrap();
            match self.get(&at) {
                None => return Some(at),
                Some(Thing::File { .. }) if at != *path => return Some(path.clone()),
                Some(_) => {}
            }
        }
        None
    }
}

/// One operation of rsync on the remote.
#[derive(Debug, Clone)]
pub enum Op {
    Delete(RelPath),
    Put {
        path: RelPath,
        thing: Thing,
        compare_content: bool,
    },
    /// Deletes what is in the directory but not in the set.
    Only(RelPath, BTreeSet<RelPath>),
}

impl Op {
    /// The path that it changes.
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Delete(path) | Self::Put { path, .. } | Self::Only(path, _) => path,
        }
    }
}

/// What a worker decides when it looks at the disk.
#[derive(Debug, Default)]
pub struct Plan {
    /// For each item.
    pub ops: Vec<Vec<Op>>,
    pub returned: Vec<Item>,
}

/// A worker looking at the source.
pub struct SimulatedLook<'a> {
    pub source: &'a Tree,
    pub kind: JobKind,
    /// Files whose stamp was still fresh when they were delivered: their content is compared.
    pub fresh: &'a BTreeSet<RelPath>,
}

impl SimulatedLook<'_> {
    pub fn plan(&self, items: &[Item], rng: &mut Rng) -> Plan {
        let mut plan = Plan::default();
        for item in items {
            let ops = self.plan_item(item, items, &mut plan.returned, rng);
            plan.ops.push(ops);
        }
        plan
    }

    /// Moves whose new name is gone: the job touches neither name.
    pub fn undone_moves(&self, job: &Job) -> Vec<UndoneMove> {
        let has = |path: &RelPath| job.items.iter().any(|item| item.path == *path);
        let is_undone = |(new, _): &&(RelPath, RelPath)| {
            let is_gone = self.source.topmost_absent(new).as_ref() == Some(new);
            self.kind == JobKind::Batch && is_gone && has(new)
        };
        let moves = job.moves.iter().filter(is_undone);
        moves.map(|(new, old)| UndoneMove { new: new.clone(), old: old.clone() }).collect()
    }

    /// Items that are directories and are sent without their content.
    pub fn directories(&self, items: &[Item]) -> Vec<RelPath> {
        let is_plain = |item: &&Item| {
            self.kind == JobKind::Batch
                && item.mark.scope == Scope::Entry
                && self.source.is_dir(&item.path)
        };
        items.iter().filter(is_plain).map(|item| item.path.clone()).collect()
    }

    /// Paths where the worker found a file or nothing, and the copy may hold a directory.
    pub fn open_ends(&self, items: &[Item], ops: &[Vec<Op>]) -> Vec<RelPath> {
        let mut ends = Vec::new();
        for (item, ops) in items.iter().zip(ops) {
            ends.extend(ops.iter().filter_map(|op| match op {
                Op::Delete(path) if item.mark.scope != Scope::Entry || *path != item.path => {
                    Some(path.clone())
                }
                _ => None,
            }));
            let is_file = self.source.get(&item.path).is_some() && !self.source.is_dir(&item.path);
            ends.extend((item.mark.scope != Scope::Entry && is_file).then(|| item.path.clone()));
        }
        ends
    }

    fn plan_item(
        &self,
        item: &Item,
        all: &[Item],
        returned: &mut Vec<Item>,
        rng: &mut Rng,
    ) -> Vec<Op> {
        let Item { path, mark } = item;
        let mut ops = Vec::new();
        let batch = self.kind == JobKind::Batch;
        let piece = |path: &RelPath, scope, shard, large| Item {
            path: path.clone(),
            mark: Mark { shard, large, scope, recheck: Recheck::No, ..*mark },
        };
        // No job deletes anything above its items, and a long job not even its items: other jobs may be in flight there.
        let holds = |path: &RelPath| batch && all.iter().any(|own| path.is_within(&own.path));
        if let Some(file) = self.source.in_the_way(path) {
            if holds(&file) {
                self.put_with_parents(&file, mark.compare_content, &mut ops);
            } else {
                returned.push(Item { path: file, mark: Mark::new(Scope::Tree) });
            }
            return ops;
        }
        if let Some(absent) = self.source.topmost_absent(path) {
            if holds(&absent) {
                ops.push(Op::Delete(absent));
            } else {
                returned.push(Item { path: absent, mark: Mark::new(Scope::Tree) });
            }
            return ops;
        }
        let big = |path: &RelPath| {
            batch && matches!(self.source.get(path), Some(Thing::File { big: true, .. }))
        };
        if big(path) && !mark.large && rng.chance(4, 5) {
            returned.push(piece(path, Scope::Entry, false, true));
            return ops;
        }
        let children = self.source.children(path);
        let directories: Vec<_> = children.iter().filter(|p| self.source.is_dir(p)).collect();
        let divides = mark.scope == Scope::Tree && !mark.shard && !directories.is_empty();
        let divides = divides && rng.chance(2, 3);
        self.put_with_parents(path, mark.compare_content, &mut ops);
        if !self.source.is_dir(path) || mark.scope == Scope::Entry {
            return ops;
        }
        ops.push(Op::Only(path.clone(), children.iter().cloned().collect()));
        let below = match mark.scope {
            // The directories above the shards are made now, so that each shard can have its own job.
            Scope::Tree if divides => {
                returned.extend(directories.iter().map(|p| piece(p, Scope::Tree, true, false)));
                children
            }
            Scope::Tree => self.source.within(path).split_off(1),
            // A listing compares names; the files have hints of their own.
            _ => Vec::new(),
        };
        for p in below {
            if big(&p) && rng.chance(1, 2) {
                returned.push(piece(&p, Scope::Entry, false, true));
                continue;
            }
            self.put(&p, mark.compare_content, &mut ops);
            if !divides && self.source.is_dir(&p) {
                let names = self.source.children(&p).into_iter().collect();
                ops.push(Op::Only(p, names));
            }
        }
        ops
    }

    /// Sends the path with its parents, as implied directories.
    fn put_with_parents(&self, path: &RelPath, compare_content: bool, ops: &mut Vec<Op>) {
        let mut at = RelPath::root();
        for name in path.components() {
            self.put(&at, compare_content, ops);
            at = at.join(name).unwrap();
        }
        self.put(path, compare_content, ops);
    }

    fn put(&self, path: &RelPath, compare_content: bool, ops: &mut Vec<Op>) {
        ops.extend(self.source.get(path).map(|thing| Op::Put {
            path: path.clone(),
            thing,
            compare_content: compare_content || self.fresh.contains(path),
        }));
    }
}

/// A copy, with the paths that it refuses.
#[derive(Debug, Clone, Default)]
pub struct Copy {
    pub tree: Tree,
    /// These paths and everything below them cannot be written or deleted.
    pub refused: BTreeSet<RelPath>,
    /// See [`SimulatedLook::fresh`].
    pub fresh: BTreeSet<RelPath>,
    /// Later stamps are fresh.
    pub aged: u64,
}

impl Copy {
    /// Carries out one operation; returns the path that failed, as rsync names it.
    pub fn apply(&mut self, op: &Op) -> Vec<PathFailure> {
        let failed = match op {
            Op::Delete(path) => self.delete(path).err().into_iter().collect(),
            Op::Put { path, thing, compare_content } => {
                let put = self.put(path, *thing, *compare_content);
                put.err().into_iter().collect()
            }
            Op::Only(path, names) => {
                let mut foreign = self.tree.children(path);
                foreign.retain(|p| !names.contains(p));
                let failed = foreign.iter().filter_map(|p| self.delete(p).err());
                failed.collect::<Vec<_>>()
            }
        };
        failed.into_iter().map(|path| PathFailure::new(path, "permission denied")).collect()
    }

    fn refusal_above(&self, path: &RelPath) -> Option<RelPath> {
        self.refused.iter().find(|r| path.is_within(r)).cloned()
    }

    fn refusal_below(&self, path: &RelPath) -> bool {
        let mut below = self.refused.iter().filter(|r| r.is_within(path));
        below.any(|r| self.tree.get(r).is_some())
    }

    fn delete(&mut self, path: &RelPath) -> Result<(), RelPath> {
        if self.tree.get(path).is_none() {
            return Ok(());
        }
        if let Some(refused) = self.refusal_above(path) {
            return Err(refused);
        }
        if self.refusal_below(path) {
            return Err(path.clone());
        }
        self.tree.remove(path);
        Ok(())
    }

    fn put(&mut self, path: &RelPath, thing: Thing, compare_content: bool) -> Result<(), RelPath> {
        let old = self.tree.get(path);
        if old == Some(thing) {
            return Ok(());
        }
        if let (Some(Thing::File { stamp: a, .. }), Thing::File { stamp: b, .. }) = (old, thing)
            && a == b
            && !compare_content
        {
            return Ok(());
        }
        if let Some(refused) = self.refusal_above(path) {
            return Err(refused);
        }
        if let Thing::File { stamp, .. } = thing {
            if self.tree.is_dir(path) {
                self.delete(path)?;
            }
            if stamp > self.aged {
                self.fresh.insert(path.clone());
            }
        }
        let parent = path.parent();
        if parent.as_ref().is_some_and(|p| !self.tree.is_dir(p)) {
            return Err(parent.unwrap_or_default());
        }
        self.tree.put(path.clone(), thing);
        Ok(())
    }
}
