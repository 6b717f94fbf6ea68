//! What a remote can do: a probe asks at first contact, runs show it, refusals correct it.
//! Sends nothing.

use std::hash::{BuildHasher, RandomState};

use super::{Remote, Stop};
use crate::ground::lock::lock;
use crate::rsync::Abilities;
use crate::rsync::exit::Ability;
use crate::rsync::probe::{Probed, run_probe};
use crate::worker::sessions;

impl Remote {
    /// What the remote can do; asks it at first contact.
    pub fn contact(&self) -> Result<Abilities, Stop> {
        // Several jobs may be the first: one asks, and the others use its answer.
        let _asking = lock(&self.asking);
        if let Some(abilities) = self.abilities() {
            return Ok(abilities);
        }
        let goes_on = || !self.sessions.are_stopped();
        let _place = self.sessions.places().enter(&goes_on, &|| {});
        let nonce = RandomState::new().hash_one(self.endpoint.destination().to_string());
        let started = |killer| self.sessions.note_probe(killer);
        match run_probe(&self.endpoint, Some(self.source.identity()), nonce, started) {
            Ok(Probed::Able(abilities)) => {
                log::debug!("{}: {abilities:?}", self.endpoint.destination());
                self.known().abilities = Some(abilities);
                Ok(abilities)
            }
            Ok(Probed::Failed(outcome)) => Err(self.stop(outcome)),
            Err(error) => Err(self.stop(sessions::failure(&error))),
        }
    }

    /// What the remote can do, if that is known.
    pub fn abilities(&self) -> Option<Abilities> {
        self.known().abilities
    }

    /// The remote may have changed: what it can do is asked again.
    pub fn forget_abilities(&self) {
        self.known().abilities = None;
    }

    /// A run has shown what the remote can do. A probe's answer is better.
    pub fn note_abilities(&self, abilities: Abilities) {
        self.known().abilities.get_or_insert(abilities);
    }

    /// Does without an ability from now on; false when it was done without already: then the operator's own words need it.
    pub(super) fn forget(&self, ability: Ability) -> bool {
        let mut known = self.known();
        let Some(fewer) = known.abilities.unwrap_or(Abilities::ALL).without(ability) else {
            return false;
        };
        known.abilities = Some(fewer);
        drop(known);
        let label = self.endpoint.destination();
        if fewer.delete {
            log::info!("{label}: works without {ability:?} from now on");
        } else {
            log::warn!(
                "{label} refuses deletions: what is deleted here stays there; take \"delete\" out of \"refuse options\" in its rsyncd.conf and start a full sync (-r), or set <delete start=\"false\"/>"
            );
        }
        self.sessions.close();
        true
    }
}
