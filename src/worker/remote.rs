//! One remote as the workers see it: how it is reached, its sessions, and what earlier jobs have shown about it.
//! Runs no job.

mod contact;

use std::sync::{Arc, Mutex, MutexGuard};

use super::addresses::Addresses;
use super::known::Known;
use super::load_gate::LoadGate;
use super::places::Places;
use super::rules::Rules;
use super::sessions::Sessions;
use crate::failure::{Failure, FailureKind, code};
use crate::ground::lock::lock;
use crate::rsync::exit::Outcome;
use crate::rsync::{Abilities, Endpoint};
use crate::source::Source;

/// What all jobs of one remote share.
#[derive(Debug)]
pub struct RemoteContext {
    endpoint: Endpoint,
    source: Arc<Source>,
    rules: Rules,
    known: Mutex<Known>,
    addresses: Mutex<Addresses>,
    /// The lock of the job that probes the remote.
    asking: Mutex<()>,
    sessions: Sessions,
}

/// Why a job ends before its last step.
#[derive(Debug)]
pub enum Stop {
    /// It has failed as a whole.
    Failed(Failure),
    /// The remote lacks an ability: the job begins again without it.
    Again,
    /// The job was told to stop.
    Stopped,
}

impl RemoteContext {
    /// A remote about which nothing is known yet.
    pub fn new(
        endpoint: Endpoint,
        source: Arc<Source>,
        rules: Rules,
        load_gate: Arc<LoadGate>,
        places: Arc<Places>,
    ) -> Self {
        let endpoint = rules.guard(endpoint);
        Self {
            sessions: Sessions::new(endpoint.clone(), Arc::clone(&source), load_gate, places),
            endpoint,
            source,
            rules,
            known: Mutex::default(),
            addresses: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// How the remote is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The watch root.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is neither sent nor deleted.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What earlier jobs have shown about the remote.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// How an outcome ends its job. `asked`: the abilities that the run needed.
    pub fn stop(&self, outcome: Outcome, asked: Option<Abilities>) -> Stop {
        match outcome {
            // Another job may have learned this already.
            Outcome::Refused { ability, option }
                if self.forget(ability, option)
                    || asked.is_some_and(|asked| asked.without(ability).is_some()) =>
            {
                Stop::Again
            }
            Outcome::Refused { option, .. } => {
                let reason = format!("refuses {option}, without which this run cannot be made");
                let advice = "take it out of <commonParams>, or out of \"refuse options\" in its rsyncd.conf";
                let failure = Failure::new(FailureKind::Denied, code::STARTING, reason);
                Stop::Failed(failure.advising(advice))
            }
            Outcome::Stopped => Stop::Stopped,
            Outcome::Failed(failure) => {
                if failure.kind == FailureKind::Away && self.has_lost_connection(&failure) {
                    return Stop::Again;
                }
                Stop::Failed(failure)
            }
            Outcome::Delivered | Outcome::Partial { .. } | Outcome::Kept { .. } => {
                let reason = "rsync's answer is not understood";
                Stop::Failed(Failure::new(FailureKind::Away, code::PARTIAL, reason))
            }
        }
    }
}
