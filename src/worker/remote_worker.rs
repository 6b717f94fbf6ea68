//! Does the jobs of one remote: knocks, looks at the disk, plans, executes, reports.
//! Does not choose jobs; the plan decides how a job is done.

mod appeared;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Progress;
use super::delivered::Version;
use super::executor::Executor;
use super::fresh::coarse_now;
use super::known::Known;
use super::links::Links;
use super::load_gate::LoadGate;
use super::look::{HardLinks, Look, LookOptions, Looks, look_at};
use super::moves::{Hints, Move};
use super::mutual::{Mutual, MutualJob, Partner};
use super::places::Places;
use super::plan::{Facts, Plan, plan};
use super::remote::{RemoteContext, Stop};
use super::rules::Rules;
use super::running_job::RunningJob;
use super::runs::Runs;
use super::sessions::Sessions;
use super::shards::Sharding;
use super::tally::Tally;
use crate::change::Scope;
use crate::directory::count_files;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::engine::{
    FullSyncFilter, Job, JobKind, JobReport, PathFailure, RemoteDeletions, UndoneMove, Verdict,
};
use crate::failure::{Failure, FailureKind};
use crate::path::RelPath;
use crate::record::{Observation, Recorder};
use crate::rsync::operator_rules::OperatorRules;
use crate::rsync::{Abilities, Endpoint, Knock, Presence, PreviewAnswer, Way};
use crate::source::{Source, Unhealthy};
use crate::sys::memory;

/// A job with so many items leaves memory behind that is worth returning, some 100 KB.
const MANY_ITEMS: usize = 500;

/// Does the jobs of one remote.
#[derive(Debug)]
pub struct RemoteWorker {
    remote: RemoteContext,
    sharding: Sharding,
    links: Arc<Links>,
    recorder: Option<Recorder>,
    /// Set once a full sync has begun without a probe.
    was_trusted: AtomicBool,
    mutual: Mutual,
    /// Set while it is unknown whether the remote answers.
    doubt: AtomicBool,
}

/// A job whose runs have ended.
struct Delivery<'a> {
    looks: Looks,
    /// The mutual mirror's part in the job; it ends with this value.
    mutual: MutualJob<'a>,
    failed: Vec<PathFailure>,
    undone: Vec<UndoneMove>,
    /// What other jobs have to do.
    returned: Vec<Item>,
}

/// What is needed to make a remote worker.
#[derive(Debug)]
pub struct RemoteWorkerSetup {
    /// How the remote is reached.
    pub endpoint: Endpoint,
    /// The watch root.
    pub source: Arc<Source>,
    /// What is neither sent nor deleted.
    pub rules: Rules,
    /// Whether trees may be divided.
    pub sharding: Sharding,
    /// The names of files with several names; shared by all remotes of one watch root.
    pub links: Arc<Links>,
    /// Takes the observations for the record, where one is kept.
    pub recorder: Option<Recorder>,
    /// Shared by all remotes.
    pub load_gate: Arc<LoadGate>,
    /// Shared by all remotes of one daemon.
    pub places: Arc<Places>,
}

impl RemoteWorker {
    /// A worker for a remote about which nothing is known yet.
    pub fn new(setup: RemoteWorkerSetup) -> Self {
        let RemoteWorkerSetup {
            endpoint,
            source,
            rules,
            sharding,
            links,
            recorder,
            load_gate,
            places,
        } = setup;
        Self {
            remote: RemoteContext::new(endpoint, source, rules, load_gate, places),
            sharding,
            links,
            recorder,
            was_trusted: AtomicBool::default(),
            mutual: Mutual::new(),
            doubt: AtomicBool::new(true),
        }
    }

    /// Ends the sessions that are ready.
    pub fn close_sessions(&self) {
        self.remote.sessions().close();
    }

    /// The remote is idle: ends the sessions that are ready, except those that stay.
    pub fn reduce_sessions(&self) {
        self.remote.sessions().reduce(self.remote.abilities());
    }

    /// Its sessions.
    pub fn sessions(&self) -> &Sessions {
        self.remote.sessions()
    }

    /// Forgets what only a burst needs. Called when everything is delivered and nothing has happened for a while.
    pub fn forget(&self) {
        self.remote.known().rest();
        self.mutual.rest();
        memory::release_unused();
    }

    /// From now on sessions are kept ready, if the remote has answered.
    fn keep_sessions_ready(&self) {
        if let Some(abilities) = self.remote.abilities() {
            self.remote.sessions().keep_ready(abilities);
        }
    }

    /// Kills the runs of the jobs in flight; later jobs may start runs.
    pub fn abort(&self) {
        self.remote.sessions().abort();
    }

    /// Ends the ssh connection that is kept between runs.
    pub fn end_shared_connection(&self) {
        self.remote.endpoint().end_shared_connection();
    }

    /// The program stops: a run may only go on while it makes progress.
    pub fn hurry(&self) {
        self.remote.sessions().hurry();
    }

    /// Kills every run; no further run is started.
    pub fn kill(&self) {
        self.remote.sessions().kill();
    }

    /// What the record gets when the job succeeds. The shards of a full sync need nothing: a walk records them.
    fn observe(&self, job: &Job) -> Option<Observation> {
        if matches!(job.kind, JobKind::Trees(_)) || job.kind.is_question() {
            return None;
        }
        let items: Vec<_> =
            job.items.iter().map(|item| (item.path.clone(), item.mark.scope)).collect();
        let exclude = &self.remote.rules().exclude;
        Some(self.recorder.as_ref()?.observe(&items, &|path, is_dir| !exclude(path, is_dir)))
    }

    /// Does a job; blocks until it is done or has failed. Also returns what was on disk before it, for the record.
    /// `known_until`: the time up to which the kernel's events had been read when the job was made, by the clock that stamps files.
    /// `told` receives the progress of the job, and `tally` counts what it has sent.
    pub fn run(
        &self,
        job: &Job,
        known_until: Duration,
        told: &dyn Fn(Progress),
        tally: &Tally,
    ) -> (JobReport, Option<Observation>) {
        let running_job = RunningJob::new(job.kind, told, tally, known_until);
        if self.sessions().are_stopped() {
            return (JobReport::nothing(Verdict::Stopped), None);
        }
        // Knock first at a remote that may be down: while it does not answer, do not read the disk.
        if self.doubt.load(Ordering::Relaxed) || job.kind == JobKind::Knock {
            running_job.waits();
            let knock = self.remote.endpoint().knock();
            running_job.works();
            match knock {
                Err(failure) => {
                    return (JobReport::nothing(Verdict::Failed(failure)), None);
                }
                Ok(Knock::Greeted) if job.kind == JobKind::Knock => {
                    return (JobReport::done(), None);
                }
                Ok(_) => {}
            }
        }
        let observation = self.observe(job);
        let mut report = self.run_job(job, &running_job);
        // Resolve the name after the delivery, because a name service may be slow.
        // After a job that failed, the next one asks: what is returned here would be lost.
        if running_job.answered_afresh.get() && report.verdict == Verdict::Done {
            report.returned.extend(self.remote.look_at_address());
        }
        report.bytes = tally.sent();
        let is_down = matches!(
            &report.verdict,
            Verdict::Failed(failure) if failure.kind == FailureKind::Away
        );
        self.doubt.store(is_down, Ordering::Relaxed);
        if job.items.len() >= MANY_ITEMS {
            // In a burst to many remotes the lists of one job are not needed for the next.
            memory::release_unused_sometimes();
        }
        (report, observation)
    }

    fn run_job(&self, job: &Job, running_job: &RunningJob<'_>) -> JobReport {
        // Each round gives up one more ability, and there are fewer than ten.
        for _ in 0..10 {
            self.remote.require_connection();
            let known = self.remote.abilities();
            let is_trusted = known.is_none() && self.may_trust(job);
            let abilities = known.or(is_trusted.then_some(Abilities::ALL));
            match self.try_run(job, abilities, running_job) {
                Ok(report) => {
                    // Keep no sessions ready for a full sync, which needs the processors itself, or for a confirmation, which nothing follows.
                    // Changes that arrive request sessions themselves.
                    let is_full_sync = matches!(job.kind, JobKind::Trees(_));
                    let is_wanted = !is_full_sync || self.remote.sessions().are_wanted();
                    if is_wanted && !job.only_confirms() {
                        self.keep_sessions_ready();
                    }
                    return report;
                }
                // The run was started without a probe. A probe now shows whether the remote is down or lacks an ability.
                Err(Stop::Failed(_)) if is_trusted && self.remote.abilities().is_none() => {}
                Err(Stop::Again) => {}
                Err(Stop::Failed(failure)) => {
                    self.remote.known().doubt();
                    return JobReport::nothing(Verdict::Failed(failure));
                }
                Err(Stop::Stopped) => return JobReport::nothing(Verdict::Stopped),
            }
        }
        let reason = "the remote refuses every way of sending a batch";
        JobReport::nothing(Verdict::Failed(Failure::new(FailureKind::Options, 1, reason)))
    }

    /// True, once, if the job may run without a probe: for a full sync, or for any job if no session is kept ready.
    /// The run shows almost everything that a probe shows. The first refused batch shows the rest, and is sent again at once.
    fn may_trust(&self, job: &Job) -> bool {
        // Without ready sessions every connection counts, so do not spend one on a probe.
        let carries = self.remote.endpoint().ready() == 0;
        if carries && job.kind.is_question() {
            return !self.was_trusted.load(Ordering::Relaxed);
        }
        let may_trust = carries || matches!(job.kind, JobKind::Trees(_));
        let may_trust = may_trust && !self.remote.endpoint().lacks_connection();
        may_trust && !self.was_trusted.swap(true, Ordering::Relaxed)
    }

    /// Does the job as far as the remote's abilities allow. If they are unknown, the remote is asked first.
    fn try_run(
        &self,
        job: &Job,
        abilities: Option<Abilities>,
        running_job: &RunningJob<'_>,
    ) -> Result<JobReport, Stop> {
        if job.kind.is_question() {
            // The remote may have changed while it was down.
            self.remote.forget_abilities();
        }
        let abilities = match abilities {
            Some(abilities) => abilities,
            None => self.ask_abilities(running_job)?,
        };
        if job.kind.is_question() {
            return Ok(JobReport::done());
        }
        let delivery = self.deliver(job, abilities, running_job)?;
        self.report(job, abilities, delivery, running_job)
    }

    fn ask_abilities(&self, running_job: &RunningJob<'_>) -> Result<Abilities, Stop> {
        running_job.waits();
        let abilities = self.remote.contact();
        running_job.works();
        abilities.inspect(|_| running_job.answered_afresh.set(true))
    }

    /// Looks at the disk, plans, and executes the plan.
    fn deliver<'a>(
        &'a self,
        job: &Job,
        abilities: Abilities,
        running_job: &RunningJob<'_>,
    ) -> Result<Delivery<'a>, Stop> {
        let mut runs = Runs::new(&self.remote, abilities, running_job);
        let root = self.remote.source().open_healthy().map_err(|error| unhealthy(&error))?;
        let operator = self.remote.endpoint().operator_rules();
        let attempt = Attempt { worker: self, job, abilities, root, operator, running_job };
        let mut looks = attempt.look();
        let mutual = self.mutual.before(job, running_job.known_until, &mut looks, &attempt)?;
        drop(attempt);
        let plan = self.plan(job, &looks, abilities);
        running_job.open(plan.open);
        let mut executor = Executor {
            rules: self.remote.rules(),
            absent_way: self.remote.endpoint().way(Presence::Absent, abilities),
            making_way: plan.making_way,
            effects: &mut runs,
            failed: plan.failed,
            returned: Vec::new(),
            undone: std::mem::take(&mut looks.first.undone),
        };
        let executed = executor.execute(plan.steps);
        let Executor { failed, undone, returned: divided, .. } = executor;
        self.remote.known().end_directories(&looks, coarse_now());
        executed?;
        self.clean_up(job, &runs);
        if running_job.answered.get() {
            self.remote.note_abilities(abilities);
        }
        let is_all_there = failed.is_empty() && divided.is_empty();
        if is_all_there {
            self.remote.known().trust(&plan.stamps);
        }
        self.note_delivered(&looks, is_all_there.then_some(plan.versions));
        let returned = [plan.returned, divided].concat();
        Ok(Delivery { looks, mutual, failed, undone, returned })
    }

    /// What the engine has to know of a delivery.
    fn report(
        &self,
        job: &Job,
        abilities: Abilities,
        delivery: Delivery<'_>,
        running_job: &RunningJob<'_>,
    ) -> Result<JobReport, Stop> {
        let Delivery { looks, mutual, failed, undone, returned } = delivery;
        let deleted = self.deleted(job, &looks);
        let compared = self.compared(job, &looks);
        let remote_deletions = self.remote_deletions(&looks, abilities, running_job);
        if remote_deletions == RemoteDeletions::Made {
            self.remote.note_deletions();
        }
        let appeared = self.appeared(&looks, job)?;
        let Looks { first, after_moves, below_trees } = looks;
        let unconfirmed = match self.mutual.is_pair() {
            // A mutual mirror needs no confirmation. This guards against a swapped directory on the remote; there, that swaps a
            // watch root, and the mirror compares everything itself.
            true => Vec::new(),
            false => running_job.unconfirmed.take(),
        };
        Ok(JobReport {
            compared,
            failed,
            returned: [
                first.returned,
                returned,
                appeared,
                after_moves.returned,
                below_trees.returned,
            ]
            .concat(),
            together: [first.together, after_moves.together, below_trees.together].concat(),
            deferred: mutual.resting.clone(),
            undone,
            aborted: running_job.aborted.get(),
            deleted,
            remote_deletions,
            unconfirmed,
            ..JobReport::done()
        })
    }

    /// What the job has shown about deletions on the remote.
    fn remote_deletions(
        &self,
        looks: &Looks,
        abilities: Abilities,
        running_job: &RunningJob<'_>,
    ) -> RemoteDeletions {
        let endpoint = self.remote.endpoint();
        let asks = endpoint.way(Presence::Absent, abilities) == Way::Batch || looks.deletes();
        match () {
            () if !endpoint.deletes() || !running_job.answered.get() => RemoteDeletions::Unknown,
            () if !abilities.delete => RemoteDeletions::Refused,
            () if asks => RemoteDeletions::Made,
            () => RemoteDeletions::Unknown,
        }
    }

    /// The job's absent items: after the delivery they are absent on the remote too.
    fn deleted(&self, job: &Job, looks: &Looks) -> Vec<RelPath> {
        if !self.remote.endpoint().deletes() || looks.absent().next().is_none() {
            return Vec::new();
        }
        let looks = looks.all();
        let is_gone = |path: &RelPath| looks.iter().any(|look| look.absent.contains(path));
        let gone = |path: &RelPath| {
            std::iter::successors(Some(path.clone()), RelPath::parent).any(|path| is_gone(&path))
        };
        job.items.iter().map(|item| &item.path).filter(|path| gone(path)).cloned().collect()
    }

    /// How many files a tree job has compared. They are counted after the run, when the kernel has cached the directories.
    fn compared(&self, job: &Job, looks: &Looks) -> u64 {
        let JobKind::Trees(_) = job.kind else { return 0 };
        let Ok(root) = self.remote.source().open_healthy() else { return 0 };
        let exclude = &*self.remote.rules().exclude;
        let files = |paths: &[RelPath], scope| -> u64 {
            paths.iter().map(|path| count_files(&root, path, exclude, scope)).sum()
        };
        files(&looks.first.listings, Scope::Listing) + files(&looks.first.trees, Scope::Tree)
    }

    /// Makes the plan, and remembers the fresh stamps of what is about to be sent; the plan keeps the others.
    fn plan(&self, job: &Job, looks: &Looks, abilities: Abilities) -> Plan {
        let mut known = self.remote.known();
        let facts = self.facts(&known, abilities);
        let (now, granularity) = (facts.now, facts.granularity());
        let mut plan = plan(job, looks, facts);
        known.begin_directories(looks, now, granularity);
        plan.stamps.retain(|(path, stamp)| !known.remember(path, *stamp, now, granularity));
        plan
    }

    /// What a plan depends on besides the job and the look.
    fn facts<'a>(&'a self, known: &'a Known, abilities: Abilities) -> Facts<'a> {
        let (endpoint, rules) = (self.remote.endpoint(), self.remote.rules());
        Facts { endpoint, rules, abilities, known, now: coarse_now() }
    }

    /// Removes what aborted runs, also those of an earlier process, have left on the remote.
    fn clean_up(&self, job: &Job, runs: &Runs<'_>) {
        let rechecked = job
            .items
            .iter()
            .filter(|item| matches!(item.mark.recheck, Recheck::Only | Recheck::Also));
        let rechecked = rechecked.filter(|item| item.mark.scope == Scope::Entry);
        self.remote.known().note_leftovers(rechecked.map(|item| &item.path));
        runs.clean_up();
    }

    /// Remembers the versions that the remote has now; `None`: something was not delivered.
    fn note_delivered(&self, looks: &Looks, versions: Option<Vec<(RelPath, Version)>>) {
        let mut known = self.remote.known();
        match versions {
            Some(versions) => known.delivered(looks, versions),
            None => known.doubt(),
        }
    }
}

/// One attempt at a job, while it looks at the disk.
struct Attempt<'a> {
    worker: &'a RemoteWorker,
    job: &'a Job,
    abilities: Abilities,
    root: OwnedFd,
    running_job: &'a RunningJob<'a>,
    /// The operator's rules for rsync, as they are now.
    operator: OperatorRules,
}

impl Attempt<'_> {
    fn remote(&self) -> &RemoteContext {
        &self.worker.remote
    }

    fn options(&self, hints: Hints) -> LookOptions<'_> {
        let rules = self.remote().rules();
        let is_scheduled =
            self.job.kind == JobKind::Trees(FullSyncFilter::Crontab) && !rules.crontab.is_empty();
        let sharding = self.worker.sharding;
        let sharding = if is_scheduled { sharding.min(Sharding::Top) } else { sharding };
        let operator = (&self.operator, self.remote().endpoint().root());
        let hard_links = self.hard_links();
        LookOptions { sharding, hints, exclude: &rules.exclude, operator, hard_links }
    }

    /// What is done about files with several names.
    fn hard_links(&self) -> HardLinks<'_> {
        let endpoint = self.remote().endpoint();
        match endpoint.way(Presence::Other, self.abilities) {
            _ if !endpoint.keeps_hard_links() => HardLinks::Ignore,
            Way::Batch => HardLinks::Together(&self.worker.links),
            Way::Fallback | Way::ListingOfParent => HardLinks::WholeTree,
        }
    }

    /// Files below moved directories that may have been rewritten with the same stamp. They are compared by content.
    fn fresh_after(&self, moves: &[Move]) -> Look {
        let known = self.remote().known();
        let below = |moved: &Move| known.fresh_below(&moved.old, &moved.new);
        let paths = moves.iter().flat_map(below).collect();
        drop(known);
        self.look_at(paths, Mark { compare_content: true, ..Mark::new(Scope::Entry) })
    }

    /// Files below trees that were sent lately: rsync's comparison of size and time may miss a change.
    fn fresh_below(&self, trees: &[RelPath]) -> Look {
        let known = self.remote().known();
        let paths = trees.iter().flat_map(|tree| known.fresh_below(tree, tree)).collect();
        drop(known);
        self.look_at(paths, Mark::new(Scope::Entry))
    }

    fn look_at(&self, paths: Vec<RelPath>, mark: Mark) -> Look {
        let items = paths.into_iter().map(|path| Item { path, mark }).collect();
        let job = Job { items, moves: Vec::new(), ..self.job.clone() };
        look_at(&self.root, &job, self.options(Hints::Ignore))
    }
}

impl Partner for Attempt<'_> {
    type Error = Stop;

    fn look(&self) -> Looks {
        let hints = self.worker.facts(&self.remote().known(), self.abilities).hints();
        let mut first = look_at(&self.root, self.job, self.options(hints));
        let mut after_moves = first.put_off_old_names();
        after_moves.extend(self.fresh_after(&first.moves));
        let below_trees = self.fresh_below(&first.trees);
        Looks { first, after_moves, below_trees }
    }

    fn can_ask_for_deletions(&self) -> bool {
        self.worker.facts(&self.remote().known(), self.abilities).can_ask_for_deletions()
    }

    fn ask(&self, paths: &[RelPath]) -> Result<PreviewAnswer, Stop> {
        Runs::new(self.remote(), self.abilities, self.running_job).ask(paths)
    }

    fn replacements(&self, look: &Look) -> HashSet<RelPath> {
        self.worker.facts(&self.remote().known(), self.abilities).replacements(look)
    }

    fn label(&self) -> String {
        self.remote().endpoint().destination().to_string()
    }
}

pub(super) fn unhealthy(error: &Unhealthy) -> Stop {
    let reason = error.to_string();
    Stop::Failed(match error.lacking() {
        Some(lacking) => lacking.failure("cannot start rsync"),
        None => Failure::source(reason),
    })
}
