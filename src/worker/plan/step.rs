//! One step of a job: which rsync run it is, how it is split, and which steps follow a preview or a listing.
//! Pure: the executor runs the steps and hands them the previews and listings.

use std::sync::Arc;

use super::super::moves::{Move, Moved};
use super::super::rules::{Coverage, Rules};
use crate::change::Scope;
use crate::path::RelPath;
use crate::rsync::excludes::Excludes;
use crate::rsync::input::{self, exact_pattern};
use crate::rsync::{Basis, DIRS_BYTES_MAX, LONG_BATCH_BYTES, Presence, RunKind};

/// Most names of one run by patterns: rsync tries every pattern on every entry that it reads.
pub const PATTERNS_MAX: usize = 1_000;

/// Most names in one list.
const NAMES_MAX: usize = 50_000;

/// The bytes that an argument takes besides its name: a NUL, a pointer, and `./` in front.
const WORD_BYTES: usize = 11;

/// How rsync treats names that are sent one by one. A later variant does what the ones before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sending {
    /// rsync compares size and time of what was delivered, in a session that connects after the delivery.
    Confirm,
    /// rsync compares size and time.
    Plain,
    /// rsync compares contents.
    CompareContent,
    /// rsync compares contents, and `-u` does not keep a newer copy.
    Replace,
}

/// A directory whose tree or listing is made equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// Which directory.
    pub path: RelPath,
    /// Equal size and time prove nothing below it.
    pub compare_content: bool,
    /// Its file system may hold too many entries for one list in memory.
    pub may_be_long: bool,
}

/// A part of a job, done by one rsync run or replaced by other steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sends what is present and deletes what is absent, by name.
    Names {
        /// Which names.
        names: Vec<RelPath>,
        /// How rsync compares them.
        sending: Sending,
    },
    /// Sends and deletes by include patterns, for receivers and filters that do not work with a list of names.
    Patterns {
        /// Which names, and whether each is there.
        paths: Vec<(RelPath, Presence)>,
        /// rsync compares contents.
        compare_content: bool,
        /// What a directory in the place of a path contains stays: the rules may keep something there.
        spares_content: bool,
    },
    /// Deletes directories that are absent or in the place of something else, but not what the rules exclude in them.
    GuardedDeletion {
        /// Which directories.
        dirs: Vec<RelPath>,
        /// What stays.
        excludes: Arc<Excludes>,
        /// What stands here under these names is not sent.
        is_hidden: bool,
    },
    /// Makes something that moved from its old copy on the remote.
    Move {
        /// What moved.
        moved: Move,
        /// rsync compares contents.
        compare_content: bool,
        /// What is neither sent nor deleted.
        excludes: Arc<Excludes>,
    },
    /// Makes listings or trees equal.
    Directories {
        /// Which directories.
        dirs: Vec<Dir>,
        /// Listings or trees.
        scope: Scope,
        /// Extraneous names are deleted.
        deletes: bool,
        /// What is neither sent nor deleted.
        excludes: Arc<Excludes>,
    },
    /// Deletes extraneous names in listings or trees, and sends nothing.
    Extraneous {
        /// Which directories.
        dirs: Vec<RelPath>,
        /// Listings or trees.
        scope: Scope,
        /// What stays.
        excludes: Arc<Excludes>,
    },
    /// Lists directories on disk, and sends by name what the rules do not exclude.
    SendBelow {
        /// Which directories.
        dirs: Vec<RelPath>,
        /// Listings or trees.
        scope: Scope,
    },
    /// Finds out first what the step would delete, and excludes from that what the rules exclude.
    Preview(Box<Step>),
    /// Lists directories on disk first, and excludes from the step what the rules exclude there.
    Hide(Box<Step>),
}

/// One rsync run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which kind.
    pub kind: RunKind,
    /// Its standard input.
    pub input: Vec<u8>,
    /// The paths that count as failed if rsync does not name any.
    pub names: Vec<RelPath>,
}

/// What the executor does for a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Doing {
    /// Runs rsync.
    Run(Run),
    /// Runs rsync without effect; [`Step::after_preview`] takes the names that it would delete.
    Preview(Run),
    /// Lists these directories on disk; [`Step::after_listing`] takes the entries.
    List(Vec<RelPath>, Scope),
}

/// What remains to be done after a run in which rsync deleted nothing, because it could not read part of the source.
#[derive(Debug, PartialEq, Eq)]
pub enum Bisected {
    /// Nothing: the step has no deletions that other paths wait for.
    Done,
    /// This path is to blame.
    Blamed(RelPath),
    /// Each half gets its own run.
    Halves(Box<[Step; 2]>),
}

/// An entry on disk, and whether it is a directory.
pub type Entry = (RelPath, bool);

impl Step {
    /// What the executor has to do for this step.
    pub fn doing(&self) -> Doing {
        match self {
            Self::Preview(step) => Doing::Preview(step.preview()),
            Self::Hide(step) => Doing::List(step.names(), step.scope()),
            Self::SendBelow { dirs, scope } => Doing::List(dirs.clone(), *scope),
            step => Doing::Run(step.run()),
        }
    }

    /// The steps that follow when rsync would delete `gone`.
    pub fn after_preview(self, gone: &[Entry], rules: &Rules) -> Vec<Self> {
        let Self::Preview(step) = self else { return vec![self] };
        let excluded = gone.iter().filter(|(path, is_dir)| (rules.exclude)(path, *is_dir));
        vec![step.excluding(excluded.map(|(path, _)| path))]
    }

    /// The steps that follow when `found` is on disk, parents first.
    pub fn after_listing(self, found: Vec<Entry>, rules: &Rules) -> Vec<Self> {
        let is_excluded = |(path, is_dir): &Entry| (rules.exclude)(path, *is_dir);
        match self {
            Self::Hide(step) => {
                let excluded = found.iter().filter(|entry| is_excluded(entry));
                vec![step.excluding(excluded.map(|(path, _)| path))]
            }
            Self::SendBelow { dirs, .. } => {
                let mut names: Vec<_> = dirs.into_iter().filter(|dir| !dir.is_root()).collect();
                let sent = found.into_iter().filter(|entry| !is_excluded(entry));
                names.extend(sent.map(|(path, _)| path));
                let list = |names: &[RelPath]| Self::Names {
                    names: names.to_vec(),
                    sending: Sending::Plain,
                };
                names.chunks(NAMES_MAX).map(list).collect()
            }
            step => vec![step],
        }
    }

    /// What remains to be done when rsync deleted nothing in this step's run: see [`Bisected`].
    pub fn bisect(self) -> Bisected {
        match self {
            Self::Names { .. } | Self::SendBelow { .. } => Bisected::Done,
            Self::Move { moved: Move { what: Moved::File(_), .. }, .. } => Bisected::Done,
            Self::Move { moved, .. } => Bisected::Blamed(moved.new),
            Self::Preview(step) => step.bisect().map(|half| Self::Preview(Box::new(half))),
            Self::Hide(step) => step.bisect().map(|half| Self::Hide(Box::new(half))),
            Self::Patterns { paths, compare_content, spares_content } => halves(
                paths,
                |(path, _)| path,
                |paths| Self::Patterns { paths, compare_content, spares_content },
            ),
            Self::GuardedDeletion { dirs, excludes, is_hidden } => halves(
                dirs,
                |dir| dir,
                |dirs| {
                    let excludes = Arc::clone(&excludes);
                    Self::GuardedDeletion { dirs, excludes, is_hidden }
                },
            ),
            Self::Extraneous { dirs, scope, excludes } => halves(
                dirs,
                |dir| dir,
                |dirs| Self::Extraneous { dirs, scope, excludes: Arc::clone(&excludes) },
            ),
            Self::Directories { dirs, scope, deletes, excludes } => halves(
                dirs,
                |dir| &dir.path,
                |dirs| {
                    let excludes = Arc::clone(&excludes);
                    Self::Directories { dirs, scope, deletes, excludes }
                },
            ),
        }
    }

    /// The steps that delete the directories in the place of these paths, and send the paths. They keep to the rules of this step.
    pub fn making_way(&self, paths: Vec<RelPath>, rules: &Rules) -> Vec<Self> {
        let excludes = self.excludes().cloned().unwrap_or_else(|| Arc::new(rules.patterns.clone()));
        let step = |dirs: &[RelPath]| {
            let excludes = Arc::clone(&excludes);
            Self::deletion(dirs.to_vec(), excludes, rules.coverage)
        };
        paths.chunks(PATTERNS_MAX).map(step).collect()
    }

    /// The step that deletes directories, but not what the rules exclude in them.
    pub fn deletion(dirs: Vec<RelPath>, excludes: Arc<Excludes>, coverage: Coverage) -> Self {
        let step = Self::GuardedDeletion { dirs, excludes, is_hidden: false };
        match coverage {
            Coverage::Whole => step,
            Coverage::Partial => Self::Preview(Box::new(step)),
        }
    }

    /// The paths of this step.
    pub fn names(&self) -> Vec<RelPath> {
        match self {
            Self::Names { names: paths, .. }
            | Self::GuardedDeletion { dirs: paths, .. }
            | Self::Extraneous { dirs: paths, .. }
            | Self::SendBelow { dirs: paths, .. } => paths.clone(),
            Self::Patterns { paths, .. } => paths.iter().map(|(path, _)| path.clone()).collect(),
            Self::Move { moved, .. } => vec![moved.new.clone()],
            Self::Directories { dirs, .. } => paths_of(dirs),
            Self::Preview(step) | Self::Hide(step) => step.names(),
        }
    }

    /// Removes from this step what is at or below `path`.
    pub fn spare(&mut self, path: &RelPath) {
        let is_elsewhere = |name: &RelPath| !name.is_within(path);
        match self {
            Self::Names { names: paths, .. } | Self::GuardedDeletion { dirs: paths, .. } => {
                paths.retain(is_elsewhere);
            }
            Self::Patterns { paths, .. } => paths.retain(|(name, _)| is_elsewhere(name)),
            Self::Preview(step) | Self::Hide(step) => step.spare(path),
            Self::Move { .. }
            | Self::Directories { .. }
            | Self::Extraneous { .. }
            | Self::SendBelow { .. } => {}
        }
    }

    fn scope(&self) -> Scope {
        match self {
            Self::Directories { scope, .. }
            | Self::Extraneous { scope, .. }
            | Self::SendBelow { scope, .. } => *scope,
            Self::Preview(step) | Self::Hide(step) => step.scope(),
            Self::GuardedDeletion { .. } => Scope::Tree,
            Self::Names { .. } | Self::Patterns { .. } | Self::Move { .. } => Scope::Entry,
        }
    }

    /// The run that only makes this step's deletions.
    fn preview(&self) -> Run {
        match self {
            Self::Directories { dirs, scope, excludes, .. } => {
                let (dirs, excludes) = (paths_of(dirs), Arc::clone(excludes));
                Self::Extraneous { dirs, scope: *scope, excludes }.run()
            }
            Self::Preview(step) | Self::Hide(step) => step.preview(),
            step => step.run(),
        }
    }

    fn run(&self) -> Run {
        let names = self.names();
        let (kind, input) = match self {
            Self::Names { names, sending } => by_name(names, *sending),
            Self::Patterns { paths, compare_content, spares_content } => {
                let kind = RunKind::Fallback { ignore_times: *compare_content };
                let list = match spares_content {
                    true => input::exact_patterns(paths.iter().map(|(path, _)| path)),
                    false => input::patterns(paths.iter().map(|(path, at)| (path, *at))),
                };
                (kind, list)
            }
            Self::GuardedDeletion { dirs, excludes, is_hidden: true } => {
                (RunKind::GuardedDeletion, input::hidden(excludes, dirs))
            }
            Self::GuardedDeletion { dirs, excludes, .. } => {
                (RunKind::GuardedDeletion, input::guarded(excludes, dirs))
            }
            Self::Move { moved, compare_content, excludes } => {
                let Move { old, new, what } = moved.clone();
                match what {
                    Moved::File(_) => {
                        let input = input::moved_file(&old, &new);
                        (RunKind::MoveFile { old, new }, input)
                    }
                    Moved::Directory => {
                        let (checksum, basis) = (*compare_content, Basis::Links);
                        (RunKind::MoveDirectory { old, new, checksum, basis }, excludes.rules())
                    }
                    // The old copy may be of the other directory already, with files of the same size and time.
                    Moved::ReplacedDirectory => {
                        let (checksum, basis) = (true, Basis::Copies);
                        (RunKind::MoveDirectory { old, new, checksum, basis }, excludes.rules())
                    }
                }
            }
            Self::Directories { dirs, scope: Scope::Tree, deletes, excludes } => {
                let kind = RunKind::Trees {
                    dirs: names.clone(),
                    checksum: dirs.iter().any(|dir| dir.compare_content),
                    deletes: *deletes,
                    at_once: !dirs.iter().any(|dir| dir.may_be_long),
                };
                (kind, excludes.rules())
            }
            Self::Directories { deletes, excludes, .. } => {
                (RunKind::Listing { dirs: names.clone(), deletes: *deletes }, excludes.rules())
            }
            Self::Extraneous { dirs, scope, excludes } => {
                (RunKind::Extraneous { dirs: dirs.clone(), scope: *scope }, excludes.rules())
            }
            Self::SendBelow { dirs, .. } => by_name(dirs, Sending::Plain),
            Self::Preview(step) | Self::Hide(step) => return step.run(),
        };
        Run { kind, input, names }
    }

    /// This step with these paths excluded.
    fn excluding<'a>(mut self, paths: impl Iterator<Item = &'a RelPath>) -> Self {
        let mut paths = paths.peekable();
        if paths.peek().is_some()
            && let Some(excludes) = self.excludes_mut()
        {
            *excludes = Arc::new(excludes.with(paths.map(exact_pattern)));
        }
        self
    }

    fn excludes(&self) -> Option<&Arc<Excludes>> {
        match self {
            Self::GuardedDeletion { excludes, .. }
            | Self::Move { excludes, .. }
            | Self::Directories { excludes, .. }
            | Self::Extraneous { excludes, .. } => Some(excludes),
            Self::Preview(step) | Self::Hide(step) => step.excludes(),
            Self::Names { .. } | Self::Patterns { .. } | Self::SendBelow { .. } => None,
        }
    }

    fn excludes_mut(&mut self) -> Option<&mut Arc<Excludes>> {
        match self {
            Self::GuardedDeletion { excludes, .. }
            | Self::Move { excludes, .. }
            | Self::Directories { excludes, .. }
            | Self::Extraneous { excludes, .. } => Some(excludes),
            Self::Preview(step) | Self::Hide(step) => step.excludes_mut(),
            Self::Names { .. } | Self::Patterns { .. } | Self::SendBelow { .. } => None,
        }
    }
}

impl Bisected {
    fn map(self, wrap: impl Fn(Step) -> Step) -> Self {
        match self {
            Self::Halves(halves) => Self::Halves(Box::new(halves.map(wrap))),
            other => other,
        }
    }
}

fn halves<T>(
    mut parts: Vec<T>,
    path: impl Fn(&T) -> &RelPath,
    step: impl Fn(Vec<T>) -> Step,
) -> Bisected {
    match parts.as_slice() {
        [] => Bisected::Done,
        [only] => Bisected::Blamed(path(only).clone()),
        _ => {
            let second = parts.split_off(parts.len() / 2);
            Bisected::Halves(Box::new([step(parts), step(second)]))
        }
    }
}

fn paths_of(dirs: &[Dir]) -> Vec<RelPath> {
    dirs.iter().map(|dir| dir.path.clone()).collect()
}

/// The run for a list of names: few are sent by standard input, many as arguments, and very many by standard input again.
fn by_name(names: &[RelPath], sending: Sending) -> (RunKind, Vec<u8>) {
    let ignore_times = match sending {
        Sending::Plain | Sending::Confirm => false,
        Sending::CompareContent => true,
        Sending::Replace => return (RunKind::Replacement, input::names(names)),
    };
    let bytes: usize = names.iter().map(|name| name.as_bytes().len() + WORD_BYTES).sum();
    if (LONG_BATCH_BYTES..DIRS_BYTES_MAX).contains(&bytes) {
        let names = names.iter().map(|name| input::name(name).into_owned()).collect();
        return (RunKind::LongBatch { names, ignore_times }, Vec::new());
    }
    let kind = match sending {
        Sending::Confirm => RunKind::Confirmation,
        _ => RunKind::Batch { ignore_times },
    };
    (kind, input::names(names))
}
