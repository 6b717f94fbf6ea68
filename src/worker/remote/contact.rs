//! What a remote can do, learned from a probe at first contact, from runs, and from refusals.
//! Sends nothing.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::{RemoteContext, Stop};
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::failure::Failure;
use crate::ground::lock::lock;
use crate::path::RelPath;
use crate::rsync::Abilities;
use crate::rsync::exit::{Ability, Outcome};
use crate::rsync::over_ssh::SESSIONS;
use crate::rsync::probe::{Probed, run_probe};
use crate::rsync::run::StartError;
use crate::worker::addresses::{Seen, resolve};
use crate::worker::known::Known;
use crate::worker::sessions;

/// How long a remote counts as refusing deletions: at first, and at most. Each new try costs a run and a line in the remote's log.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl RemoteContext {
    /// What the remote can do. Probes it at first contact.
    pub fn contact(&self) -> Result<Abilities, Stop> {
        // Several jobs may be first: one probes, and the others use the answer.
        let _asking = lock(&self.asking);
        if let Some(abilities) = self.abilities() {
            return Ok(abilities);
        }
        let goes_on = || !self.sessions.are_stopped();
        let _place = self.sessions.places().enter(&goes_on, &|| {});
        self.endpoint.leave_unconfined();
        match self.probe() {
            Ok(Probed::Able(abilities)) => {
                log::debug!("{}: {abilities:?}", self.endpoint.destination());
                self.confine_over_ssh();
                self.known().abilities = Some(abilities);
                Ok(abilities)
            }
            Ok(Probed::Failed(outcome)) => Err(self.stop(outcome, None)),
            Err(error) => Err(self.stop(sessions::failure(&error), None)),
        }
    }

    fn probe(&self) -> Result<Probed, StartError> {
        let nonce = RandomState::new().hash_one(self.endpoint.destination().to_string());
        let started = |killer| self.sessions.note_probe(killer);
        run_probe(&self.endpoint, Some(self.source.identity()), nonce, started)
    }

    /// A probe has opened the shared connection. Runs use it confined if a second, confined probe succeeds.
    fn confine_over_ssh(&self) {
        if !self.endpoint.confine_over_ssh() {
            return;
        }
        match self.probe() {
            Ok(Probed::Able(_)) => self.sessions.places().learn(SESSIONS),
            Ok(Probed::Failed(Outcome::Failed(failure))) => {
                self.endpoint.note_confined_failure(&failure.reason);
            }
            Ok(Probed::Failed(_)) | Err(_) => self.endpoint.leave_unconfined(),
        }
    }

    /// Handles a run that did not reach the remote. True when the shared connection is closed, as after a long rest: the job starts again
    /// with a probe, which opens another connection.
    pub(super) fn has_lost_connection(&self, failure: &Failure) -> bool {
        let was_confined = self.endpoint.is_confined_over_ssh();
        let is_lost = was_confined && !self.endpoint.is_connection_open();
        self.endpoint.end_shared_connection();
        if is_lost {
            self.endpoint.leave_unconfined();
            self.forget_abilities();
        } else if was_confined {
            self.endpoint.note_confined_failure(&failure.reason);
        }
        is_lost
    }

    /// Call it before a job: makes the job start with a probe if that has to open the shared connection.
    pub fn require_connection(&self) {
        if self.endpoint.lacks_connection() {
            self.forget_abilities();
        }
    }

    /// What the remote can do, if known. From time to time deletions are tried again with a remote that refused them.
    pub fn abilities(&self) -> Option<Abilities> {
        let mut known = self.known();
        if let Some((since, pause)) = known.refused_deletions
            && since.elapsed() > pause
        {
            known.refused_deletions = Some((sessions::now(), (2 * pause).min(ASK_AGAIN.1)));
            let able = |abilities| Abilities { delete: true, delete_missing: true, ..abilities };
            known.abilities = known.abilities.map(able);
        }
        known.abilities
    }

    /// The remote has accepted deletions.
    pub fn note_deletions(&self) {
        let were_refused = self.known().refused_deletions.take().is_some();
        if were_refused {
            log::info!("{} allows deletions again", self.endpoint.destination());
        }
    }

    /// Resolves the remote's host name. If it leads to another machine, forgets what is known of the remote and returns what has
    /// to be compared.
    pub fn look_at_address(&self) -> Option<Item> {
        let seen = {
            // Hold the lock while resolving: an older answer must not overwrite a newer one.
            let mut addresses = lock(&self.addresses);
            addresses.look(resolve(self.endpoint.destination())?, sessions::now())
        };
        if seen == Seen::Same {
            return None;
        }
        *self.known() = Known::default();
        self.endpoint.end_shared_connection();
        self.sessions.close();
        let label = self.endpoint.destination();
        if seen == Seen::Restless {
            log::warn!(
                "{label}: the host name leads to another address again and again; it is not compared for that for an hour: let the name lead to one machine"
            );
            return None;
        }
        log::warn!(
            "{label}: the host name leads to another address than before: everything is compared with what stands there"
        );
        Some(Item { path: RelPath::root(), mark: Mark::new(Scope::Tree) })
    }

    /// Forgets what the remote can do, because it may have changed. It will be probed again.
    pub fn forget_abilities(&self) {
        self.known().abilities = None;
    }

    /// Notes what a run has shown about the remote, unless a probe has already answered.
    pub fn note_abilities(&self, abilities: Abilities) {
        self.known().abilities.get_or_insert(abilities);
    }

    /// Removes an ability, because `option` was refused. False if it was removed before: then the operator's options or the run need it.
    pub(super) fn forget(&self, ability: Ability, option: &str) -> bool {
        let mut known = self.known();
        let Some(fewer) = known.abilities.unwrap_or(Abilities::ALL).without(ability) else {
            return false;
        };
        known.abilities = Some(fewer);
        let was_said = known.refused_deletions.is_some();
        if !fewer.delete && !was_said {
            known.refused_deletions = Some((sessions::now(), ASK_AGAIN.0));
        }
        drop(known);
        let label = self.endpoint.destination();
        if fewer.delete {
            log::info!("{label}: works without {option} from now on");
        } else if !was_said {
            log::warn!(
                "{label} refuses deletions: what is deleted here stays there until it allows them; take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/> if this is meant"
            );
        }
        self.sessions.close();
        true
    }
}
