//! Decides how a job becomes rsync runs. It makes steps from the job, a look at the disk and what is known of the remote.
//! Pure: reads no disk, starts nothing and remembers nothing. The executor runs the steps.

#[cfg(test)]
mod golden;
pub mod step;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::delivered::Version;
use super::fresh::{Granularity, Stamp};
use super::known::Known;
use super::look::{Look, Looks, Present};
use super::moves::{Hints, Moved, Mover};
use super::rules::{Coverage, Rules};
use crate::change::Scope;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{FullSyncFilter, Job, JobKind, PathFailure};
use crate::failure::{self, DELETIONS_REFUSED_ADVICE, Failure, FailureKind};
use crate::path::RelPath;
use crate::rsync::excludes::Excludes;
use crate::rsync::exit::{EXCLUDED_ADVICE, EXCLUDED_THERE};
use crate::rsync::{Abilities, DIRS_BYTES_MAX, Endpoint, Presence, Way};
use step::{Dir, PATTERNS_MAX, Sending, Step};

/// Why a name is not deleted on a remote where only comparisons of whole directories can apply the rules.
const WITHHELD: &str = "not deleted while deletions are held back (see the alarm in the log)";

/// Why a directory is not replaced if nothing is ever deleted.
const NEVER_DELETED: &str = "a directory that is not empty is in its place on the remote, and <delete> is off: move it away there";

/// Why a name is not deleted on a remote that deletes nothing.
const REFUSED: &str = "the remote refuses deletions";

/// A file younger than this was created after whatever it replaces.
const YOUNG: Duration = Duration::from_secs(2);

/// What a plan depends on besides the job and the look.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// How the remote is reached, and what its options mean.
    pub endpoint: &'a Endpoint,
    /// What is neither sent nor deleted.
    pub rules: &'a Rules,
    /// What the receiver can do, as far as this job knows.
    pub abilities: Abilities,
    /// What earlier jobs have shown of the remote.
    pub known: &'a Known,
    /// The clock that stamps files, read after the look.
    pub now: Duration,
}

/// How a directory is deleted that a run without rules has left in the place of something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MakingWay {
    /// No rules keep anything, so the first run has tried to delete it.
    #[default]
    AtOnce,
    /// In a run that has the rules.
    ByRules,
    /// By a comparison of its parent directory, which another job makes.
    ByListing,
    /// It is not deleted, for this reason.
    Never(Failure),
}

/// What to do for a job.
#[derive(Debug, Default)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Directories that are sent by name alone: no step reads or deletes anything below them.
    pub open: Vec<RelPath>,
    /// Stamps to remember before the steps run.
    pub stamps: Vec<(RelPath, Stamp)>,
    /// Versions that the remote has when all steps have succeeded.
    pub versions: Vec<(RelPath, Version)>,
    /// What other jobs have to do.
    pub returned: Vec<Item>,
    /// What cannot be done.
    pub failed: Vec<PathFailure>,
    /// How a directory is deleted that a run without rules has left in the place of something else.
    pub making_way: MakingWay,
}

/// Decides how a job becomes rsync runs.
pub fn plan(job: &Job, looks: &Looks, facts: Facts<'_>) -> Plan {
    let mut planning = Planning { job, facts, plan: Plan::default() };
    planning.plan.making_way = facts.making_way(job);
    planning.plan.open = planning.open_directories(&looks.first);
    planning.batch(&looks.first);
    planning.moves(&looks.first);
    // Delete the old names at once: until then both names share inodes on the remote.
    planning.batch(&looks.after_moves);
    planning.directories(&looks.first, Scope::Listing);
    planning.directories(&looks.first, Scope::Tree);
    planning.batch(&looks.below_trees);
    planning.compare_whole_tree(looks);
    planning.plan
}

fn refused() -> Failure {
    Failure::new(FailureKind::Denied, failure::code::STARTING, REFUSED)
        .advising(DELETIONS_REFUSED_ADVICE)
}

/// A path that could not be delivered.
pub fn failure(path: &RelPath, message: &str) -> PathFailure {
    let PathFailure { path, failure } = PathFailure::new(path.clone(), message);
    let failure = match message == EXCLUDED_THERE {
        true => failure.advising(EXCLUDED_ADVICE),
        false => failure,
    };
    PathFailure { path, failure }
}

impl Facts<'_> {
    /// Whether moves can be made on the remote.
    pub fn hints(&self) -> Hints {
        match self.endpoint.can_move(self.abilities) && self.compares_nanoseconds() {
            true if self.rules.hold_anywhere() => Hints::Use,
            true => Hints::FilesOnly,
            false => Hints::Ignore,
        }
    }

    /// What is sent whatever the remote has: `-u` must not keep a newer copy of it, or this job removes its copy.
    pub fn replacements(&self, look: &Look) -> HashSet<RelPath> {
        let replaces = |entry: &&Present| {
            let is_new = entry.version.is_some_and(|version| self.is_new(version));
            entry.loses_copy || self.replaces(entry, entry.moved.is_some() && !is_new)
        };
        look.present.iter().filter(replaces).map(|entry| entry.path.clone()).collect()
    }

    /// True when the remote can be asked about entries that are to be deleted.
    pub fn can_ask_for_deletions(&self) -> bool {
        self.endpoint.deletes()
            && self.way(Presence::Absent) == Way::Batch
            && !self.rules.may_outlive_directories()
    }

    /// How finely the receiver compares times.
    pub fn granularity(&self) -> Granularity {
        match self.compares_nanoseconds() {
            true => Granularity::Nanoseconds,
            false => Granularity::Seconds,
        }
    }

    /// The kind of run that sends a path.
    pub fn way(&self, presence: Presence) -> Way {
        self.endpoint.way(presence, self.abilities)
    }

    fn compares_nanoseconds(&self) -> bool {
        self.endpoint.compares_nanoseconds(self.abilities)
    }

    /// True when a file was created after whatever it replaces: only a stamp of this moment surely differs from that of the
    /// previous file.
    fn is_new(&self, version: Version) -> bool {
        self.compares_nanoseconds() && version.stamp.modified + YOUNG > self.now
    }

    /// True when `-u` must not keep a newer copy of an entry. Somebody moved the entry here, or a newer version was sent before,
    /// so the older one is intended.
    fn replaces(&self, entry: &Present, replaced: bool) -> bool {
        let Some(version) = entry.version else { return false };
        let older = replaced && entry.moved == Some(Mover::Somebody)
            || self.known.has_newer(&entry.path, &version);
        self.endpoint.keeps_newer() && older && entry.moved != Some(Mover::Receiver)
    }

    /// True when the remote refuses deletions that the configuration asks for.
    fn refuses_deletions(&self) -> bool {
        self.endpoint.deletes() && !self.abilities.delete
    }

    /// How a directory is deleted that a run without rules has left in the place of something else.
    fn making_way(&self, job: &Job) -> MakingWay {
        let withheld = |words| Failure::new(FailureKind::Path, failure::code::PARTIAL, words);
        match self.way(Presence::Absent) {
            _ if self.refuses_deletions() => MakingWay::Never(refused()),
            _ if self.endpoint.may_force(self.abilities) => MakingWay::AtOnce,
            _ if !self.endpoint.deletes() => MakingWay::Never(withheld(NEVER_DELETED)),
            Way::ListingOfParent if job.deletes_below => MakingWay::ByListing,
            Way::ListingOfParent => MakingWay::Never(withheld(WITHHELD)),
            Way::Batch | Way::Fallback => MakingWay::ByRules,
        }
    }

    /// True for an absent directory whose copy may contain something excluded.
    fn is_guarded(&self, absent: &RelPath, look: &Look) -> bool {
        self.endpoint.deletes()
            && self.rules.may_outlive_directories()
            && look.absent_dirs.contains(absent)
            && self.way(Presence::Absent) != Way::ListingOfParent
    }
}

/// A plan being made.
struct Planning<'a> {
    job: &'a Job,
    facts: Facts<'a>,
    plan: Plan,
}

/// The names of one batch, by the kind of run that sends them.
#[derive(Default)]
struct Sorted {
    plain: Vec<RelPath>,
    compared: Vec<RelPath>,
    replacing: Vec<RelPath>,
    confirmed: Vec<RelPath>,
    /// All names of files with several names, and how the one of them that needs most is sent.
    linked: Vec<RelPath>,
    linked_sending: Option<Sending>,
    patterns: Vec<(RelPath, Presence)>,
    /// At least one of the names that are sent by patterns must be compared by content.
    patterns_compared: bool,
    guarded: Vec<RelPath>,
}

impl Sorted {
    /// Adds a name of a file with several names.
    fn link(&mut self, path: &RelPath, sending: Sending) {
        self.linked.push(path.clone());
        self.linked_sending = self.linked_sending.max(Some(sending));
    }
}

impl Planning<'_> {
    fn open_directories(&self, look: &Look) -> Vec<RelPath> {
        let by_name = self.facts.way(Presence::Directory) == Way::Batch;
        if !by_name || !look.moves.is_empty() || self.job.kind != JobKind::Batch {
            return Vec::new();
        }
        let present = look.present.iter().filter(|entry| entry.presence == Presence::Directory);
        present.map(|entry| entry.path.clone()).collect()
    }

    /// Sends what exists and deletes what is gone, each in a way that the remote supports.
    fn batch(&mut self, look: &Look) {
        let (first, rest) = self.collisions(look);
        let mut sorted = Sorted::default();
        self.sort_absent(&mut sorted, first, look);
        self.push_steps(sorted);
        let mut sorted = Sorted::default();
        for entry in &look.present {
            match self.sending(entry) {
                Some(sending) if entry.is_linked => sorted.link(&entry.path, sending),
                Some(sending) => self.sort(&mut sorted, &entry.path, entry.presence, sending),
                None => {}
            }
        }
        self.sort_absent(&mut sorted, rest, look);
        self.push_steps(sorted);
    }

    /// Splits the absent names: those that differ from a present name only in case, and the rest. If the remote ignores case,
    /// both are one name there. So a run deletes the old name before the new one is sent.
    fn collisions<'l>(&self, look: &'l Look) -> (Vec<&'l RelPath>, Vec<&'l RelPath>) {
        let gone = look.absent.iter();
        if look.absent.is_empty() || look.present.is_empty() {
            return (Vec::new(), gone.collect());
        }
        let mut there = HashSet::new();
        for entry in &look.present {
            let mut next = Some(entry.path.clone());
            while let Some(path) = next.filter(|path| !path.is_root()) {
                next = path.parent();
                if !there.insert(path.folded()) {
                    break;
                }
            }
        }
        gone.partition(|path| there.contains(&path.folded()))
    }

    fn sort_absent(&mut self, sorted: &mut Sorted, absent: Vec<&RelPath>, look: &Look) {
        let items = self.job.items.iter().filter(|item| item.confirms());
        let confirmed: HashSet<_> = items.map(|item| &item.path).collect();
        for path in absent {
            if self.facts.refuses_deletions() {
                self.plan.failed.push(PathFailure { path: path.clone(), failure: refused() });
            } else if self.facts.is_guarded(path, look) {
                sorted.guarded.push(path.clone());
            } else {
                let confirms = confirmed.contains(path);
                let sending = if confirms { Sending::Confirm } else { Sending::Plain };
                self.sort(sorted, path, Presence::Absent, sending);
            }
        }
    }

    fn push_steps(&mut self, sorted: Sorted) {
        let lists = [
            (sorted.plain, Sending::Plain),
            (sorted.compared, Sending::CompareContent),
            (sorted.replacing, Sending::Replace),
            (sorted.linked, sorted.linked_sending.unwrap_or(Sending::Plain)),
            // Last, because a change must not wait for it.
            (sorted.confirmed, Sending::Confirm),
        ];
        let lists = lists.into_iter().filter(|(names, _)| !names.is_empty());
        self.plan.steps.extend(lists.map(|(names, sending)| Step::Names { names, sending }));
        // Such runs are rare, so all of them compare contents if one of them has to.
        let compare_content = sorted.patterns_compared;
        for paths in sorted.patterns.chunks(PATTERNS_MAX) {
            let paths = paths.to_vec();
            let spares_content = self.facts.rules.may_outlive_directories();
            self.plan.steps.push(Step::Patterns { paths, compare_content, spares_content });
        }
        for dirs in sorted.guarded.chunks(PATTERNS_MAX) {
            self.delete_guarded(dirs.to_vec());
        }
    }

    fn sort(&mut self, sorted: &mut Sorted, path: &RelPath, presence: Presence, how: Sending) {
        match self.facts.way(presence) {
            // A run by patterns has the operator's `-u`, which would keep the newer copy.
            Way::Fallback
                if how == Sending::Replace
                    && self.facts.endpoint.reads_lists()
                    && self.facts.abilities.relative =>
            {
                sorted.replacing.push(path.clone());
            }
            Way::Batch => match how {
                // A moved name must not be missing meanwhile, so its old name goes with the list that brings it.
                Sending::Plain if presence == Presence::Absent && !sorted.linked.is_empty() => {
                    sorted.linked.push(path.clone());
                }
                Sending::Plain => sorted.plain.push(path.clone()),
                Sending::CompareContent => sorted.compared.push(path.clone()),
                Sending::Replace => sorted.replacing.push(path.clone()),
                Sending::Confirm => sorted.confirmed.push(path.clone()),
            },
            Way::Fallback => {
                sorted.patterns_compared |=
                    matches!(how, Sending::CompareContent | Sending::Replace);
                sorted.patterns.push((path.clone(), presence));
            }
            Way::ListingOfParent if self.job.deletes_below => self.return_parent(path),
            Way::ListingOfParent => self.plan.failed.push(failure(path, WITHHELD)),
        }
    }

    /// How a present entry is sent; `None` when the remote has this version. Notes what is to be remembered.
    fn sending(&mut self, entry: &Present) -> Option<Sending> {
        let facts = self.facts;
        let confirms = entry.recheck == Recheck::Confirm;
        let plain = if confirms { Sending::Confirm } else { Sending::Plain };
        let compared = |compares| if compares { Sending::CompareContent } else { plain };
        let Some(version) = entry.version else { return Some(compared(entry.compare_content)) };
        let (path, stamp) = (&entry.path, version.stamp);
        let replaced = entry.moved.is_some() && !facts.is_new(version);
        let replaces = facts.replaces(entry, replaced);
        // Keep the newer version in memory until this one has arrived; this one is compared by content in any case.
        let hidden = !replaces && facts.known.hides(path, stamp, facts.granularity());
        // Comparing a large file reads it on both sides, which costs more than a confirmation is worth.
        let hidden = hidden && !(confirms && self.job.kind == JobKind::Large);
        if !replaces {
            self.plan.stamps.push((path.clone(), stamp));
        }
        // The remote may have the version of a linked file, but not the link.
        let is_doubtful = entry.compare_content || entry.loses_copy || entry.is_linked;
        let is_trusted = !hidden && !is_doubtful && entry.recheck == Recheck::No;
        if is_trusted && facts.known.has(path, &version) {
            return None;
        }
        if version.is_settled(facts.now) {
            self.plan.versions.push((path.clone(), version));
        }
        match replaces {
            true => Some(Sending::Replace),
            false => Some(compared(hidden || replaced || entry.compare_content)),
        }
    }

    /// Returns the parent directory to the engine if only a comparison of it deletes the name. The comparison needs a lock on the
    /// directory; otherwise it would delete what other jobs send into it.
    fn return_parent(&mut self, path: &RelPath) {
        let mark = Mark::new(Scope::Listing);
        let item = Item { path: path.parent().unwrap_or_default(), mark };
        if self.plan.returned.last() != Some(&item) {
            self.plan.returned.push(item);
        }
    }

    fn delete_guarded(&mut self, dirs: Vec<RelPath>) {
        let excludes = Arc::new(self.facts.rules.patterns.clone());
        let step = Step::deletion(dirs, excludes, self.facts.rules.coverage);
        self.plan.steps.push(step);
    }

    /// Some options make the result for one path depend on other paths. So the change is sent at once, and another job compares the
    /// whole tree and corrects the other paths.
    fn compare_whole_tree(&mut self, looks: &Looks) {
        let endpoint = self.facts.endpoint;
        let has_scattered_links = looks.all().iter().any(|look| look.has_scattered_links);
        let depends = endpoint.needs_whole_tree() || has_scattered_links;
        let (path, mark) = (RelPath::root(), Mark::new(Scope::Tree));
        let is_whole = self.job.items.iter().any(|item| item.covers(&path, mark));
        if depends && !is_whole && !self.job.only_confirms() && looks.is_something() {
            self.plan.returned.push(Item { path, mark });
        }
    }

    /// Makes moved entries from their old copies.
    fn moves(&mut self, look: &Look) {
        let excludes = Arc::new(self.facts.rules.patterns.clone());
        for (at, moved) in look.moves.iter().enumerate() {
            // rsync looks for another copy only where there is none under the new name. This one was moved away here, too.
            let is_used = look.moves[..at].iter().any(|earlier| earlier.old == moved.new);
            let is_whole = self.facts.rules.coverage == Coverage::Whole;
            let may_delete = self.deletes_below() && self.facts.abilities.delete && is_whole;
            if is_used && may_delete && matches!(moved.what, Moved::File(_)) {
                let (dirs, excludes) = (vec![moved.new.clone()], Arc::clone(&excludes));
                self.plan.steps.push(Step::GuardedDeletion { dirs, excludes, is_hidden: true });
            }
            let compare_content = self.compares_content(&moved.new);
            let (moved, excludes) = (moved.clone(), Arc::clone(&excludes));
            self.plan.steps.push(Step::Move { moved, compare_content, excludes });
        }
    }

    /// Makes listings or trees equal, as many in one run as fit a command line.
    fn directories(&mut self, look: &Look, scope: Scope) {
        let paths = if scope == Scope::Tree { &look.trees } else { &look.listings };
        if paths.is_empty() {
            return;
        }
        let rules = self.facts.rules;
        let is_scheduled =
            self.job.kind == JobKind::Trees(FullSyncFilter::Crontab) && !rules.crontab.is_empty();
        let excludes = match is_scheduled {
            true => rules.patterns.with(rules.crontab.iter().cloned()),
            false => rules.patterns.clone(),
        };
        let excludes = Arc::new(excludes);
        for paths in portions(paths) {
            match (rules.coverage, is_scheduled) {
                (Coverage::Whole, _) => {
                    let step = self.equal(look, paths, scope, &excludes);
                    self.plan.steps.push(step);
                }
                // The operator's own patterns apply too, and only rsync can evaluate them.
                (Coverage::Partial, true) => {
                    let step = Step::Hide(Box::new(self.equal(look, paths, scope, &excludes)));
                    let step = self.previewed(step);
                    self.plan.steps.push(step);
                }
                (Coverage::Partial, false) => self.equal_by_name(paths, scope, &excludes),
            }
        }
    }

    fn equal(
        &self,
        look: &Look,
        paths: &[RelPath],
        scope: Scope,
        excludes: &Arc<Excludes>,
    ) -> Step {
        let dir = |path: &RelPath| Dir {
            path: path.clone(),
            compare_content: scope == Scope::Tree && self.compares_content(path),
            may_be_long: look.long_trees.contains(path),
        };
        let (dirs, deletes) = (paths.iter().map(dir).collect(), self.job.deletes_below);
        Step::Directories { dirs, scope, deletes, excludes: Arc::clone(excludes) }
    }

    /// If patterns cannot express all exclusions: what the rules exclude is not deleted, and the rest is sent by name.
    fn equal_by_name(&mut self, paths: &[RelPath], scope: Scope, excludes: &Arc<Excludes>) {
        if self.deletes_below() {
            let (dirs, excludes) = (paths.to_vec(), Arc::clone(excludes));
            let step = self.previewed(Step::Extraneous { dirs, scope, excludes });
            self.plan.steps.push(step);
        }
        self.plan.steps.push(Step::SendBelow { dirs: paths.to_vec(), scope });
    }

    fn previewed(&self, step: Step) -> Step {
        if self.deletes_below() { Step::Preview(Box::new(step)) } else { step }
    }

    fn deletes_below(&self) -> bool {
        self.facts.endpoint.deletes() && self.job.deletes_below
    }

    /// True when equal size and time prove nothing at or below this item.
    fn compares_content(&self, path: &RelPath) -> bool {
        self.job.items.iter().any(|item| item.mark.compare_content && item.path == *path)
    }
}

/// Cuts a list of directories so that each part fits a command line.
fn portions(dirs: &[RelPath]) -> impl Iterator<Item = &[RelPath]> {
    let mut bytes = 0;
    dirs.chunk_by(move |_, next| {
        bytes += next.as_bytes().len() + 8;
        let fits = bytes < DIRS_BYTES_MAX / 2;
        if !fits {
            bytes = 0;
        }
        fits
    })
}
