//! Two mirrors of each other: what came from the remote is sent back only after a delay, and only if the remote lacks it.
//! The interface is a hook before a job and a hook after it; nothing outside this folder knows about echoes.

mod echoes;
mod notices;
mod ours;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::fresh::coarse_now;
use super::look::{Look, Looks};
use crate::engine::pending::Item;
use crate::engine::{Job, JobKind};
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::rsync::PreviewAnswer;
use echoes::{EchoCheck, Echoes};
use notices::Notices;
use ours::Reach;

/// The longest tick of a kernel's clock.
const TICK_MS_MAX: u32 = 20;

/// What the hook needs from the job that is about to run.
pub trait Partner {
    /// What ends the job.
    type Error;

    /// Looks at the disk once more.
    fn look(&self) -> Looks;

    /// True when the remote can also be asked for what is to be deleted.
    fn can_ask_for_deletions(&self) -> bool;

    /// Asks the remote which of these it has; changes nothing.
    ///
    /// # Errors
    /// When the job ends here.
    fn ask(&self, paths: &[RelPath]) -> Result<PreviewAnswer, Self::Error>;

    /// What is sent even if the remote has something newer.
    fn replacements(&self, look: &Look) -> HashSet<RelPath>;

    /// The remote's name for messages.
    fn label(&self) -> String;
}

/// What is known of one remote as the other side of a pair.
#[derive(Debug)]
pub struct Mutual {
    echoes: Mutex<Echoes>,
}

/// A job between the two hooks. Dropping it runs the hook after the job.
#[derive(Debug)]
pub struct MutualJob<'a> {
    /// Items that have to wait.
    pub resting: Vec<Item>,
    mutual: &'a Mutual,
    reach: Option<Reach>,
}

impl Mutual {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self { echoes: Mutex::new(Echoes::new(coarse_now())) }
    }

    /// True when the remote is known to mirror back.
    pub fn is_pair(&self) -> bool {
        self.lock().is_pair(now())
    }

    /// The hook before a job: removes from `looks` what has to wait. `known_until`: the time up to which the kernel's events
    /// had been read when the job was made, by the clock that stamps files.
    ///
    /// # Errors
    /// When the remote was asked, and the answer ends the job.
    pub fn before<P: Partner>(
        &self,
        job: &Job,
        known_until: Duration,
        looks: &mut Looks,
        partner: &P,
    ) -> Result<MutualJob<'_>, P::Error> {
        let is_asked = matches!(job.kind, JobKind::Batch | JobKind::Large);
        let mut resting = Vec::new();
        if is_asked {
            self.settle(looks, partner);
            resting = self.let_rest(&Notices { job, known_until }, looks, partner)?;
        }
        let reach = looks.is_something().then(|| self.lock().ours().begin(looks, coarse_now()));
        Ok(MutualJob { resting, mutual: self, reach })
    }

    /// In a pair, looks again at files that may still change without a new stamp; waits for the next tick if necessary.
    /// Otherwise such a file would be sent twice, and the second run would overwrite what the other side has written since.
    fn settle<P: Partner>(&self, looks: &mut Looks, partner: &P) {
        if self.lock().is_pair(now()) && !is_settled(&looks.first) {
            wait_for_tick();
            *looks = partner.look();
        }
    }

    fn let_rest<P: Partner>(
        &self,
        notices: &Notices<'_>,
        looks: &mut Looks,
        partner: &P,
    ) -> Result<Vec<Item>, P::Error> {
        let (now, own) = (now(), partner.replacements(&looks.first));
        let can_ask = (own, partner.can_ask_for_deletions());
        let sorted = self.lock().sort(&mut looks.first, notices, &can_ask, now);
        if sorted.asked.is_empty() {
            return Ok(sorted.resting);
        }
        let answer = partner.ask(&sorted.asked)?;
        let asked = EchoCheck { answer, sorted, now };
        if self.lock().learn(&looks.first, notices, &asked) {
            log::info!(
                "{} mirrors back: what may come from there, and deletions, wait for {} s",
                partner.label(),
                crate::engine::DEFERRED_FOR.as_secs()
            );
        }
        notices.give_back_changed(&mut looks.first, &partner.look().first);
        Ok(self.lock().conclude(&mut looks.first, notices, asked))
    }

    /// Forgets what only a burst needs. Called when everything is delivered and nothing has happened for a while.
    pub fn rest(&self) {
        let mut echoes = self.lock();
        echoes.rest(now());
        echoes.ours().rest(coarse_now());
    }

    /// A panic elsewhere leaves the state consistent, because each change to it is one call.
    fn lock(&self) -> MutexGuard<'_, Echoes> {
        lock(&self.echoes)
    }
}

impl Drop for MutualJob<'_> {
    fn drop(&mut self) {
        if let Some(reach) = self.reach.take() {
            self.mutual.lock().ours().end(reach, coarse_now());
        }
    }
}

fn is_settled(look: &Look) -> bool {
    let now = coarse_now();
    look.present.iter().flat_map(|entry| entry.version).all(|version| version.is_settled(now))
}

/// Waits until the clock that stamps files has advanced, usually within 4 ms.
#[expect(clippy::disallowed_methods, reason = "the clock of the files has nothing to wait for")]
fn wait_for_tick() {
    let before = coarse_now();
    for _ in 0..TICK_MS_MAX {
        if coarse_now() != before {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[expect(clippy::disallowed_methods, reason = "what rests is timed by the wall clock")]
fn now() -> Instant {
    Instant::now()
}
