//! Remotes that are added or removed while the mirror runs.
//! A removed remote keeps its number until its last job has ended; then a new remote may get it.

use super::RemoteState;
use crate::engine::contact::Contact;
use crate::engine::locks::{LockKind, Owner};
use crate::engine::permission::Permission;
use crate::engine::{Action, Deletions, FullSyncCause, Now};

impl RemoteState {
    /// The remote is new beside `sibling`, which mirrors the same root: it lacks everything.
    pub fn join(
        &mut self,
        now: Now,
        sibling: Option<&Self>,
        deletions: Deletions,
        actions: &mut Vec<Action>,
    ) {
        let root_is_lost = sibling.is_some_and(Self::root_is_lost);
        self.permission = Permission { deletions, root_is_lost, ..Permission::default() };
        for mount in sibling.iter().flat_map(|sibling| sibling.locks.lost_mounts()) {
            self.locks.lock(Owner::LostMount(mount.clone()), mount, LockKind::Long);
        }
        self.start_full_sync(now, FullSyncCause::Requested, actions);
    }

    /// The remote was removed from the configuration: everything but its jobs in flight is forgotten, and these are aborted. If the
    /// remote is added again, they would send old content over what its new jobs send.
    pub fn retire(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.flights.is_empty() {
            actions.push(Action::Abort(self.setup.id));
        }
        let flights = std::mem::take(&mut self.flights);
        let permission = Permission { is_retired: true, ..Permission::default() };
        let mut contact = Contact::default();
        contact.keep_sessions(now);
        *self = Self { flights, permission, contact, ..Self::with(self.setup) };
    }

    /// False after the remote was removed from the configuration.
    pub fn is_active(&self) -> bool {
        !self.permission.is_retired
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::change::{Cause, Change, RemoteId, RootId, WatchEvent};
    use crate::engine::contact::SESSION_REST;
    use crate::engine::{Engine, EngineSetup, Event, Extraneous, Job, JobReport};
    use crate::path::RelPath;

    const ROOT: RootId = RootId(0);
    const NOW: Now = Duration::from_secs(10);

    fn jobs(actions: Vec<Action>) -> Vec<Job> {
        let job = |action| match action {
            Action::Run(job) => Some(job),
            _ => None,
        };
        actions.into_iter().filter_map(job).collect()
    }

    fn changed(engine: &mut Engine, name: &str) -> Vec<Job> {
        let path = RelPath::new(name.as_bytes()).unwrap();
        let changes = vec![Change::entry(path, Cause::CloseWrite)];
        jobs(engine.handle(NOW, Event::Watch(WatchEvent::changed(ROOT, changes))))
    }

    /// An engine with one remote that answers.
    fn engine() -> Engine {
        let setup = EngineSetup {
            remotes: vec![ROOT],
            workers: 9,
            pending_max: 100,
            unrecorded: Extraneous::Deleted,
        };
        let mut engine = Engine::new(setup);
        for job in jobs(engine.handle(NOW, Event::DeadlineReached)) {
            engine.handle(NOW, Event::JobDone(job.id, JobReport::done()));
        }
        engine
    }

    #[test]
    fn a_remote_that_is_added_is_compared_as_a_whole_and_the_others_go_on() {
        let mut engine = engine();
        let event = Event::RemoteAdded(RemoteId(1), ROOT, Deletions::Allowed);
        let first = jobs(engine.handle(NOW, event));
        assert!(first.iter().all(|job| job.remote == RemoteId(1)), "{first:?}");
        let whole: Vec<_> = engine.undelivered(RemoteId(1)).collect();
        assert!(whole.len() == 1 && whole[0].path.is_root(), "{whole:?}");
        let next = changed(&mut engine, "f");
        assert!(next.iter().any(|job| job.remote == RemoteId(0)), "{next:?}");
    }

    #[test]
    fn a_remote_that_is_removed_is_forgotten_when_its_last_job_has_ended() {
        let mut engine = engine();
        let flying = changed(&mut engine, "f");
        changed(&mut engine, "waits");
        // If it is added again, old content must not come after new.
        let actions = engine.handle(NOW, Event::RemoteRemoved(RemoteId(0)));
        assert_eq!(actions[0], Action::Abort(RemoteId(0)));
        assert!(engine.observe(RemoteId(0)).is_none() && !engine.is_free(RemoteId(0)));
        assert_eq!(changed(&mut engine, "g"), []);
        for job in flying {
            assert_eq!(jobs(engine.handle(NOW, Event::JobDone(job.id, JobReport::done()))), []);
        }
        let rest = NOW + SESSION_REST;
        engine.handle(rest, Event::DeadlineReached);
        assert_eq!(engine.undelivered(RemoteId(0)).count(), 0);
        assert_eq!(engine.next_deadline(), None);
    }
}
