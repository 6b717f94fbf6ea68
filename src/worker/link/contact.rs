//! What a remote can do: asked at first contact, taken on trust by a first full sync, learned from refusals.
//! Sends nothing.

use std::sync::atomic::Ordering;

use super::{Link, Stop, lock};
use crate::engine::{Job, JobKind};
use crate::rsync::Abilities;
use crate::rsync::exit::Ability;
use crate::rsync::probe::{Probed, run_probe};
use crate::worker::sessions;

impl Link {
    /// True once, for whole trees: their first run shows all that a probe shows, but how missing names are deleted, and
    /// a batch that is refused for that is sent again at once.
    pub(super) fn may_trust(&self, job: &Job) -> bool {
        matches!(job.kind, JobKind::Trees(_)) && !self.was_trusted.swap(true, Ordering::Relaxed)
    }

    /// What the remote can do; asked at first contact.
    pub(super) fn contact(&self) -> Result<Abilities, Stop> {
        if let Some(abilities) = *lock(&self.abilities) {
            return Ok(abilities);
        }
        let nonce = self.source.identity().ino ^ u64::from(std::process::id()) << 32;
        let started = |killer| self.sessions.note_probe(killer);
        match run_probe(&self.endpoint, Some(self.source.identity()), nonce, started) {
            Ok(Probed::Able(abilities)) => {
                log::debug!("{}: {abilities:?}", self.endpoint.label());
                *lock(&self.abilities) = Some(abilities);
                Ok(abilities)
            }
            Ok(Probed::Failed(outcome)) => Err(self.stop(outcome)),
            Err(error) => Err(self.stop(sessions::failure(&error))),
        }
    }

    pub(super) fn abilities(&self) -> Option<Abilities> {
        *lock(&self.abilities)
    }

    pub(super) fn forget(&self, ability: Ability) {
        let mut known = lock(&self.abilities);
        let mut abilities = known.unwrap_or(Abilities::ALL);
        match ability {
            Ability::DeleteMissing => abilities.delete_missing = false,
            Ability::Nanoseconds => abilities.nanoseconds = false,
        }
        log::info!("{}: works without {ability:?} from now on", self.endpoint.label());
        *known = Some(abilities);
        drop(known);
        self.sessions.close();
    }
}
