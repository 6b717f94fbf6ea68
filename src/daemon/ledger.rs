//! What must be acknowledged: the journal, the jobs in flight, and the deliveries that wait for a barrier of the watch
//! thread. Does not know what is pending (the engine does), and does not decide what is sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::unacknowledged::{Acknowledgement, Unacknowledged};
use crate::change::{Extent, RemoteId, RootId, Scope, WatchEvent};
use crate::engine::pending::Item;
use crate::engine::{
    Engine, Event, FlushId, FullSyncCause, FullSyncFilter, Job, JobId, JobKind, Settled,
};
use crate::journal::{Journal, Owed, Seq};
use crate::path::RelPath;
use crate::record::Observation;
use crate::state::{StateDir, StateError};
use crate::watch::Barrier;

/// What must be known of a job when it ends.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    root: RootId,
    remote: RemoteId,
    kind: JobKind,
    /// The journal's sequence number when the job started.
    seq: Seq,
}

/// The journal, and what must still be written to it.
#[derive(Debug)]
pub struct Ledger {
    /// `None` if no state can be kept.
    journal: Option<Journal>,
    /// The engine holds what the journal held at the start. Until then the journal must not be rewritten from the engine.
    is_restored: bool,
    state: Option<Arc<StateDir>>,
    /// The root of each remote.
    roots_of_remotes: Vec<RootId>,
    jobs: HashMap<JobId, InFlight>,
    /// For each remote, the full syncs that are owed: what each covers, and the journal's number when it was asked for.
    full_syncs: HashMap<RemoteId, BTreeMap<Extent, Seq>>,
    /// Roots in which a walk looks for changes that the journal lacks.
    awaited_walks: BTreeSet<RootId>,
    unacknowledged: Unacknowledged,
}

impl Ledger {
    /// No job is in flight yet.
    pub fn new(
        journal: Option<Journal>,
        state: Option<Arc<StateDir>>,
        roots_of_remotes: Vec<RootId>,
        barrier: Barrier,
    ) -> Self {
        // What the last run missed may be below any root.
        let awaits_walks = journal.as_ref().is_some_and(Journal::awaits_walk);
        let all_roots = roots_of_remotes.iter().copied().filter(|_| awaits_walks);
        Self {
            awaited_walks: all_roots.collect(),
            journal,
            is_restored: false,
            state,
            roots_of_remotes,
            jobs: HashMap::new(),
            full_syncs: HashMap::new(),
            unacknowledged: Unacknowledged::new(barrier),
        }
    }

    /// A start from now on waits for the end of this process.
    pub fn mark_stopping(&self) {
        self.state.iter().for_each(|state| state.mark_stopping());
    }

    /// Writes what an event makes pending to the journal. Call it before anything else handles the event.
    pub fn record(&mut self, event: &Event, engine: &Engine) {
        match event {
            Event::Watch(WatchEvent::Changed { root, changes, .. }) => {
                if let Some(journal) = &mut self.journal {
                    journal.append_changes(*root, changes);
                }
            }
            Event::Watch(WatchEvent::Overflow { root }) => {
                self.owe(engine, FullSyncCause::Overflow, |of| of == *root);
            }
            Event::Watch(WatchEvent::RootBack { root, .. }) => {
                self.owe(engine, FullSyncCause::RootBack, |of| of == *root);
            }
            Event::CompareRoot(root, cause) => self.owe(engine, *cause, |of| of == *root),
            // A scheduled full sync is not repeated after a crash: the next one comes on schedule.
            Event::FullSync(FullSyncCause::Schedule) => {}
            Event::FullSync(cause) => self.owe(engine, *cause, |_| true),
            Event::Restored(remote, items) => self.note_restored(*remote, items),
            _ => {}
        }
        self.commit();
    }

    /// Makes whole roots pending in the journal, until the full sync of each of their remotes is done.
    fn owe(&mut self, engine: &Engine, cause: FullSyncCause, is_owed: impl Fn(RootId) -> bool) {
        let Some(journal) = &mut self.journal else { return };
        let extent = Extent { scope: Scope::Tree, additive: !engine.deletes(cause) };
        for (remote, root) in self.roots_of_remotes.iter().enumerate() {
            if is_owed(*root) {
                let remote = RemoteId(remote);
                let seq = journal.append_pending(remote, &[(RelPath::root(), extent)]);
                self.full_syncs.entry(remote).or_default().insert(extent, seq);
            }
        }
    }

    /// Notes that the engine holds everything that the journal held at the start.
    pub fn restored(&mut self) {
        self.is_restored = true;
    }

    /// The journal holds these items. If the whole tree is among them, the end of its full sync removes it.
    fn note_restored(&mut self, remote: RemoteId, items: &[Item]) {
        let Some(journal) = &mut self.journal else { return };
        for item in items.iter().filter(|item| item.adds_everything()) {
            let seq = journal.begin_job();
            self.full_syncs.entry(remote).or_default().insert(item.mark.extent(), seq);
        }
    }

    /// Notes that a walk looks for missed changes below `root`. If the program is killed before it ends, the next start walks, too.
    pub fn walk_begins(&mut self, root: RootId) {
        self.awaited_walks.insert(root);
        self.journal.iter_mut().for_each(Journal::await_walk);
    }

    /// Notes that no walk of `root` is running or waiting. What the walks found is in the journal on disk.
    pub fn walk_ends(&mut self, root: RootId) {
        if self.awaited_walks.remove(&root) && self.awaited_walks.is_empty() {
            self.journal.iter_mut().for_each(Journal::walk_over);
        }
    }

    /// True when the state directory was deleted.
    pub fn has_lost_its_state(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_lost())
    }

    /// True while the journal lacks changes, because it cannot be written.
    pub fn lacks_changes(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| !journal.is_complete())
    }

    /// Writes what was appended to the journal.
    pub fn commit(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.commit();
        }
    }

    /// The same, and waits until it is on disk.
    pub fn commit_durably(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.commit_durably();
        }
    }

    /// Notes that a job starts.
    pub fn job_begins(&mut self, job: &Job) {
        let seq = self.journal.as_mut().map_or(Seq::default(), Journal::begin_job);
        self.jobs
            .insert(job.id, InFlight { root: job.root, remote: job.remote, kind: job.kind, seq });
    }

    /// The remote of a job in flight.
    pub fn remote_of(&self, job: JobId) -> Option<RemoteId> {
        self.jobs.get(&job).map(|job| job.remote)
    }

    /// The root of a job in flight.
    pub fn root_of(&self, job: JobId) -> Option<RootId> {
        self.jobs.get(&job).map(|job| job.root)
    }

    /// True while jobs that read whole trees are in flight.
    pub fn is_comparing(&self) -> bool {
        let compares = |kind: JobKind| matches!(kind, JobKind::Trees(_)) || kind.is_question();
        self.jobs.values().any(|job| compares(job.kind))
    }

    /// Notes that the observation of a successful job must be recorded.
    pub fn observed(&mut self, root: RootId, observation: Observation) {
        self.unacknowledged.add(Acknowledgement::Observed(root, observation));
    }

    /// Notes that the engine has settled a job; returns the job's root.
    pub fn settled(&mut self, settled: &Settled) -> Option<RootId> {
        let job = self.jobs.remove(&settled.job)?;
        let Some(journal) = &mut self.journal else { return Some(job.root) };
        let pair = |item: &Item| (item.path.clone(), item.mark.extent());
        if !settled.returned.is_empty() {
            let returned: Vec<_> = settled.returned.iter().map(pair).collect();
            journal.append_pending(settled.remote, &returned);
        }
        let delivered = settled.delivered.iter().chain(&settled.rechecked).chain(&settled.divided);
        let delivered: Vec<_> = delivered.map(pair).collect();
        // A scheduled sync is not in the journal, and it may have left out what is.
        let is_scheduled = job.kind == JobKind::Trees(FullSyncFilter::Crontab);
        if !delivered.is_empty() && !is_scheduled {
            self.unacknowledged.add(Acknowledgement::Delivered(settled.remote, job.seq, delivered));
        }
        Some(job.root)
    }

    /// Forgets a job that has ended, with any result.
    pub fn job_ends(&mut self, job: JobId) {
        self.jobs.remove(&job);
        self.ask_for_barrier();
    }

    /// Notes that a full sync of `remote` is done. What it has left over is in the journal by itself.
    pub fn full_sync_done(&mut self, remote: RemoteId) {
        let done = self.full_syncs.remove(&remote).filter(|_| self.journal.is_some());
        for (extent, seq) in done.into_iter().flatten() {
            let all = vec![(RelPath::root(), extent)];
            self.unacknowledged.add(Acknowledgement::Delivered(remote, seq, all));
        }
    }

    /// Asks the watch thread for a barrier, if something waits for one.
    pub fn ask_for_barrier(&mut self) {
        self.unacknowledged.ask(self.jobs.is_empty());
    }

    /// Asks for a barrier for a flush: it must know when all earlier events are reported.
    pub fn ask_for_flush(&mut self, flush: FlushId) {
        self.unacknowledged.ask_for_flush(flush);
    }

    /// The flushes that waited for the barrier just reached. Call it before the deliveries are acknowledged.
    pub fn flushes_told(&mut self) -> Vec<FlushId> {
        self.unacknowledged.take_flushes()
    }

    /// Makes a tree pending in the journal, for one remote, until it is compared.
    pub fn compare(&mut self, remote: RemoteId, path: &RelPath) {
        // A requested comparison of a whole root is not repeated after a kill.
        if let Some(journal) = self.journal.as_mut().filter(|_| !path.is_root()) {
            journal.append_pending(remote, &[(path.clone(), Extent::new(Scope::Tree))]);
        }
    }

    /// The root of each remote.
    pub fn roots_of_remotes(&self) -> &[RootId] {
        &self.roots_of_remotes
    }

    /// Acknowledges the deliveries that waited for the barrier just reached: everything that happened before their end is
    /// in the journal. Passes their observations to `append`.
    pub fn acknowledge(&mut self, mut append: impl FnMut(RootId, &Observation)) {
        for delivery in self.unacknowledged.take_confirmed() {
            match delivery {
                Acknowledgement::Observed(root, observation) => append(root, &observation),
                Acknowledgement::Delivered(remote, seq, paths) => {
                    if let Some(journal) = &mut self.journal {
                        journal.append_delivered(remote, seq, &paths);
                    }
                }
            }
        }
        self.commit();
        self.ask_for_barrier();
    }

    /// Gives up the waiting deliveries after events were lost: they are never acknowledged. Passes the names that they have sent to
    /// `append`: if one was deleted by a lost event, only the record can tell.
    pub fn give_up_waiting(&mut self, mut append: impl FnMut(RootId, &Observation)) {
        for (root, observation) in self.unacknowledged.give_up() {
            append(root, &observation.names_only());
        }
        self.ask_for_barrier();
    }

    /// True when every delivery is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Rewrites the journal when it has grown long.
    pub fn compact(&mut self, engine: &Engine) {
        let Some(journal) = self.journal.as_ref().filter(|_| self.is_restored) else { return };
        let remotes = (0..self.roots_of_remotes.len()).map(RemoteId);
        let owed: usize = remotes.map(|remote| engine.owed(remote)).sum();
        if journal.is_worth_compacting(owed + usize::from(!self.unacknowledged.is_empty())) {
            self.rewrite(|journal, ledger| journal.compact(ledger.owed(engine)));
        }
    }

    /// Creates the deleted state directory again, with a journal of everything pending or not acknowledged.
    pub fn make_state_again(&mut self, engine: &Engine) -> Result<(), StateError> {
        let Some(state) = &self.state else { return Ok(()) };
        state.make_again()?;
        let state = Arc::clone(state);
        self.rewrite(|journal, ledger| journal.make_again(ledger.owed(engine)));
        state.report_again();
        Ok(())
    }

    /// Updates the remotes after a reload; the engine knows them already. `roots` and `names` give, for each number, the
    /// remote's root and its name in the journal. For `new` remotes everything is pending.
    pub fn change_remotes<'a>(
        &mut self,
        engine: &Engine,
        roots: Vec<RootId>,
        names: impl IntoIterator<Item = Option<(RootId, &'a [u8])>>,
        new: &[RemoteId],
    ) {
        self.roots_of_remotes = roots;
        let Some(journal) = &mut self.journal else { return };
        let whole = BTreeMap::from([(Extent::new(Scope::Tree), journal.begin_job())]);
        self.full_syncs.extend(new.iter().map(|remote| (*remote, whole.clone())));
        self.rewrite(|journal, ledger| {
            let layout = journal.layout().with_remotes(names);
            journal.change_layout(layout, ledger.owed(engine));
        });
    }

    /// Writes the journal anew from what is owed.
    fn rewrite(&mut self, write: impl FnOnce(&mut Journal, &Self)) {
        if let Some(mut journal) = self.journal.take() {
            write(&mut journal, self);
            self.journal = Some(journal);
        }
    }

    /// Everything that is pending or not acknowledged. The engine has forgotten what is not acknowledged, but the next start needs
    /// it.
    fn owed(&self, engine: &Engine) -> impl Iterator<Item = Owed> {
        let remotes = (0..self.roots_of_remotes.len()).map(RemoteId);
        let pending = remotes.flat_map(move |remote| {
            engine.undelivered_by(remote).map(move |(job, item)| {
                let upto = job.and_then(|job| self.jobs.get(&job)).map(|job| job.seq);
                Owed { remote, upto, path: item.path, extent: item.mark.extent() }
            })
        });
        let full_syncs = self.full_syncs.iter().flat_map(|(remote, asked)| {
            let owed = |(extent, seq): (&Extent, &Seq)| Owed {
                remote: *remote,
                upto: Some(*seq),
                path: RelPath::root(),
                extent: *extent,
            };
            asked.iter().map(owed)
        });
        let full_syncs = full_syncs.filter(|owed| engine.full_sync(owed.remote).is_some());
        let waiting = self.unacknowledged.deliveries();
        let waiting = waiting.map(|(remote, seq, path, extent)| Owed {
            remote,
            upto: Some(seq),
            path: path.clone(),
            extent,
        });
        pending.chain(full_syncs).chain(waiting)
    }

    /// True while a job for this remote is in flight.
    pub fn has_jobs(&self, remote: RemoteId) -> bool {
        self.jobs.values().any(|job| job.remote == remote)
    }

    /// Closes the journal.
    pub fn close(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.close();
        }
    }
}
