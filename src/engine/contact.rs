//! Whether one remote answers, as far as its jobs have shown, and how long its ready sessions are kept.
//! Reports nothing: `remote/settle.rs` does.

use std::time::Duration;

use super::Now;
use super::retry::Outage;
use crate::failure::{Failure, FailureKind};

/// The remote is idle after so long without a run. Then ready sessions end: they keep the mounts on both sides busy.
pub const SESSION_REST: Duration = Duration::from_secs(5);

/// Whether one remote is up, as far as is known.
#[derive(Debug, Default)]
pub struct Contact {
    outage: Option<Outage>,
    /// An outage that may be over: the remote has answered, but nothing has been delivered since.
    recovering: Option<Outage>,
    /// When the last outage ended. A failure of a job that began earlier says nothing about the remote now.
    up_since: Now,
    /// When the ready sessions are to end; `None`: only those are left that stay while the remote is idle.
    sessions_until: Option<Now>,
    /// The fail log names the remote as down.
    is_listed: bool,
}

impl Contact {
    /// Before first contact: the first job goes alone.
    pub fn unknown() -> Self {
        Self { outage: Some(Outage::unknown()), ..Self::default() }
    }

    /// Nothing can be sent, or nothing is known yet.
    pub fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    pub fn is_up(&self) -> bool {
        self.outage.is_none()
    }

    /// Why nothing can be sent, as far as that is known.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.outage.as_ref().and_then(Outage::kind)
    }

    pub fn up_since(&self) -> Now {
        self.up_since
    }

    /// A job that began at `began` has failed. `salt` spreads the tries of many remotes. True for the first failure of its kind in
    /// this outage.
    pub fn fail(&mut self, now: Now, began: Now, salt: u64, failure: Failure) -> bool {
        // If nothing was delivered since the remote answered, the outage was never over.
        let before = self.outage.take().or(self.recovering.take());
        let is_first_of_kind = before.as_ref().is_none_or(|before| !before.has_had(failure.kind));
        let outage = Outage::after_failure(before, now, began, salt, failure);
        self.outage = Some(outage);
        self.sessions_until = None;
        is_first_of_kind
    }

    /// Notes whether the fail log has to name the remote as down; true if that is new.
    pub fn note_listed(&mut self, is_listed: bool) -> bool {
        std::mem::replace(&mut self.is_listed, is_listed) != is_listed
    }

    /// The remote has answered. Returns the outage that this ends.
    pub fn answer(&mut self, now: Now) -> Option<Outage> {
        let outage = self.outage.take()?;
        if outage.tries > 0 {
            self.up_since = now;
        }
        Some(outage)
    }

    /// Keeps the outage until something is delivered: a remote that answers may still have a full disk.
    pub fn doubt(&mut self, outage: Outage) {
        self.recovering = Some(outage);
    }

    /// Something was delivered. Returns the outage that this ends.
    pub fn recover(&mut self) -> Option<Outage> {
        self.recovering.take()
    }

    /// The next try is due at this time at the latest.
    pub fn try_by(&mut self, due: Now) {
        if let Some(outage) = &mut self.outage {
            outage.next = outage.next.min(due);
        }
    }

    /// The next try is due at once.
    pub fn try_soon(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.next = outage.next.min(outage.since);
        }
    }

    /// Sets when the operator is reminded of the outage.
    pub fn remind_at(&mut self, time: Now) {
        if let Some(outage) = &mut self.outage {
            outage.remind_at(time);
        }
    }

    /// Ready sessions are kept for some seconds from now.
    pub fn keep_sessions(&mut self, now: Now) {
        self.sessions_until = Some(now + SESSION_REST);
    }

    /// Ready sessions end as soon as no job is in flight.
    pub fn end_sessions(&mut self, now: Now) {
        self.sessions_until = Some(now);
    }

    /// When the ready sessions are to end.
    pub fn sessions_until(&self) -> Option<Now> {
        self.sessions_until
    }

    /// The ready sessions have been told to end.
    pub fn forget_sessions(&mut self) {
        self.sessions_until = None;
    }
}
