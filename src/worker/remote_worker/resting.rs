//! One job's share of what `worker/echoes.rs` decides: asks the remote, and takes out of the look what must rest.
//! Sends nothing.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use super::RemoteWorker;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::engine::postponed::POSTPONED;
use crate::engine::{Job, JobKind};
use crate::rsync::Abilities;
use crate::worker::echoes::Echoes;
use crate::worker::fresh::coarse_now;
use crate::worker::look::Look;
use crate::worker::ours::Reach;
use crate::worker::remote::{Stop, lock};
use crate::worker::runs::Runs;
use crate::worker::sessions;

/// No kernel's clock ticks more slowly.
const TICK_MS_MAX: u32 = 20;

/// A job that sends something; dropped when it has ended, in whatever way.
pub(super) struct Sending<'a> {
    echoes: &'a Mutex<Echoes>,
    reach: Reach,
}

impl<'a> Sending<'a> {
    pub(super) fn begin(echoes: &'a Mutex<Echoes>, looks: &[&Look]) -> Self {
        let reach = lock(echoes).ours().begin(looks, coarse_now());
        Self { echoes, reach }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        lock(self.echoes).ours().end(self.reach, coarse_now());
    }
}

impl RemoteWorker {
    /// Of two mirrors of each other: a look at files that nobody can change any more without another stamp, if need be after the next
    /// tick of the clock. What was sent before that would be sent again with its next notice, and undo what the other side has
    /// written since. Where nobody mirrors back, nothing waits.
    pub(super) fn settled(&self, job: &Job, look: Look, again: impl FnOnce() -> Look) -> Look {
        let may_settle = matches!(job.kind, JobKind::Batch | JobKind::Large)
            && lock(&self.echoes).mirrors_back()
            && !is_settled(&look);
        if !may_settle {
            return look;
        }
        wait_for_tick();
        again()
    }

    /// Takes out of the look what may have come from the remote itself and must rest; returns the items of that.
    pub(super) fn rest_echoes(
        &self,
        look: &mut Look,
        root: &OwnedFd,
        job: &Job,
        abilities: Abilities,
        runs: &Runs<'_>,
    ) -> Result<Vec<Item>, Stop> {
        if !matches!(job.kind, JobKind::Batch | JobKind::Large) || !self.remote.endpoint().can_ask()
        {
            return Ok(Vec::new());
        }
        let now = sessions::now();
        let (own, deletions) = {
            let known = self.remote.known();
            let facts = self.facts(&known, abilities);
            (facts.replacements(look), facts.can_ask_for_deletions())
        };
        let sorted = lock(&self.echoes).sort(look, job, &own, deletions, now);
        if sorted.asked.is_empty() {
            return Ok(sorted.resting);
        }
        let answer = runs.ask(&sorted.asked)?;
        if lock(&self.echoes).learn(look, job, &answer, &sorted) {
            let (label, rest) = (self.remote.endpoint().destination(), POSTPONED.as_secs());
            log::info!(
                "{label} mirrors back: what may come from there, and deletions, rest for {rest} s"
            );
        }
        let again = self.look_again(sorted.asked.clone(), Mark::new(Scope::Entry), root, job);
        Echoes::give_back_changed(look, &again, job);
        Ok(lock(&self.echoes).conclude(look, job, &answer, sorted, now))
    }
}

fn is_settled(look: &Look) -> bool {
    let now = coarse_now();
    look.present.iter().flat_map(|entry| entry.version).all(|version| version.is_settled(now))
}

/// Returns when the clock of the files has advanced: after 4 ms at most as a rule.
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
