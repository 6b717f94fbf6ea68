//! The connections that one daemon allows: all its remotes share them, and one is left to other clients.
//! Counts, and makes runs wait; does not connect.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::destination::{DAEMON_PORT, Destination};
use crate::ground::lock::{lock, wait_timeout};

/// With this many connections (ready sessions and runs), no further session is made ready. `mkdir a a/b a/b/c; touch a/b/c/f` uses four.
/// Of the daemons with a limit, half allow ten connections or fewer, and few allow fewer than four.
const READY_BESIDE: usize = 4;

/// The daemon's child process keeps its connection for some 50 ms after the run's end.
const LINGER: Duration = Duration::from_millis(100);

/// The places of each daemon, by host and port.
#[derive(Debug, Default)]
pub struct Daemons(HashMap<String, Arc<Places>>);

impl Daemons {
    /// The places of the daemon that serves this remote. Other kinds of remotes share no places.
    pub fn places_of(&mut self, destination: &Destination) -> Arc<Places> {
        let Destination::Daemon { host, .. } = destination else {
            return Arc::new(Places::default());
        };
        let port = host.port.unwrap_or(DAEMON_PORT);
        let places = self.0.entry(format!("{}:{port}", host.name.to_ascii_lowercase()));
        Arc::clone(places.or_insert_with(|| Arc::new(Places::of_a_daemon())))
    }
}

/// The places of one daemon.
#[derive(Debug, Default)]
pub struct Places {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_daemon: bool,
    /// `max connections`, once the daemon has named it.
    allowed: Option<usize>,
    ready: usize,
    running: usize,
    /// How many remotes want sessions.
    wanting: usize,
    /// When places were released that the daemon may still count as taken.
    left: VecDeque<Instant>,
}

/// What a place is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Ready,
    Running,
}

/// A place that is taken; dropping it releases it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    used_for: Use,
}

impl Places {
    fn of_a_daemon() -> Self {
        let state = State { is_daemon: true, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes a place for a run; waits while the daemon is known to have none to spare. `goes_on` tells whether to keep
    /// waiting; `waits` is called when waiting begins.
    pub fn enter(self: &Arc<Self>, goes_on: &dyn Fn() -> bool, waits: &dyn Fn()) -> Place {
        let mut state = self.lock();
        while !state.has_room_for_a_run(now()) && goes_on() {
            waits();
            let length = if state.left.is_empty() { Duration::MAX } else { LINGER };
            state = wait_timeout(&self.changed, state, length);
        }
        state.running += 1;
        Place { places: Arc::clone(self), used_for: Use::Running }
    }

    /// Takes a place for a ready session, if there is one to spare; `own`: how many sessions the remote already has.
    pub fn keep_ready(self: &Arc<Self>, own: usize) -> Option<Place> {
        let mut state = self.lock();
        if !state.has_room_for_a_session(own, now()) {
            return None;
        }
        state.ready += 1;
        Some(Place { places: Arc::clone(self), used_for: Use::Ready })
    }

    /// True when [`Places::keep_ready`] would take a place.
    pub fn can_keep_ready(&self, own: usize) -> bool {
        self.lock().has_room_for_a_session(own, now())
    }

    /// True when more sessions are ready than the daemon has places for.
    pub fn are_too_many_ready(&self) -> bool {
        let state = self.lock();
        state.allowed.is_some_and(|allowed| state.ready > allowed.saturating_sub(2))
    }

    /// When a released place is free again for a session.
    pub fn next_free(&self) -> Option<Instant> {
        self.lock().left.front().map(|left| *left + LINGER)
    }

    /// Notes that one more remote wants sessions.
    pub fn note_wanting(&self) {
        self.lock().wanting += 1;
    }

    /// Notes that one remote fewer wants sessions.
    pub fn note_resting(&self) {
        let mut state = self.lock();
        state.wanting = state.wanting.saturating_sub(1);
    }

    /// Notes how many clients the daemon serves. This is never forgotten, because finding out again would take a client's place.
    pub fn learn(&self, allowed: usize) {
        self.lock().allowed = Some(allowed);
        self.changed.notify_all();
    }

    /// Wakes the waiting runs, so that they check whether to keep waiting.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// How many places the daemon counts as taken by us.
    fn taken(&mut self, now: Instant) -> usize {
        while self.left.front().is_some_and(|left| now.saturating_duration_since(*left) >= LINGER) {
            self.left.pop_front();
        }
        self.ready + self.running + self.left.len()
    }

    /// True when a run may start. One place is left to others, unless there is only one.
    fn has_room_for_a_run(&mut self, now: Instant) -> bool {
        let taken = self.taken(now);
        self.allowed.is_none_or(|allowed| taken < allowed.saturating_sub(1).max(1))
    }

    /// True when a session may be made ready. One place is left to others, and one to a run that finds no session.
    fn has_room_for_a_session(&mut self, own: usize, now: Instant) -> bool {
        if !self.is_daemon {
            return true;
        }
        let most = self
            .allowed
            .map_or(READY_BESIDE, |allowed| allowed.saturating_sub(2).min(READY_BESIDE));
        let share = most / self.wanting.max(1);
        self.taken(now) < most && own < share.max(1)
    }
}

impl Place {
    /// The ready session with this place begins a run.
    #[must_use]
    pub fn for_a_run(mut self) -> Self {
        if self.used_for == Use::Ready {
            let mut state = self.places.lock();
            state.ready -= 1;
            state.running += 1;
        }
        self.used_for = Use::Running;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        match self.used_for {
            Use::Ready => state.ready -= 1,
            Use::Running => state.running -= 1,
        }
        if state.allowed.is_some() {
            state.left.push_back(now());
        }
        drop(state);
        self.places.changed.notify_all();
    }
}

#[expect(clippy::disallowed_methods, reason = "a daemon's child leaves by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Host;

    fn daemon(name: &str, module: &str) -> Destination {
        let host = Host { name: name.into(), ..Host::default() };
        Destination::Daemon { host, module: module.into() }
    }

    fn enter(places: &Arc<Places>) -> Place {
        places.enter(&|| true, &|| {})
    }

    #[test]
    fn modules_of_one_daemon_share_their_places() {
        let mut daemons = Daemons::default();
        let one = daemons.places_of(&daemon("h", "a"));
        assert!(Arc::ptr_eq(&one, &daemons.places_of(&daemon("H", "b"))));
        assert!(!Arc::ptr_eq(&one, &daemons.places_of(&daemon("other", "a"))));
        let held: Vec<_> = (0..4).map(|own| one.keep_ready(own)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(one.keep_ready(0).is_none(), "a daemon of which nothing is known gets four");
    }

    #[test]
    fn each_of_several_remotes_gets_a_session_before_one_gets_two() {
        let places = Arc::new(Places::of_a_daemon());
        (0..3).for_each(|_| places.note_wanting());
        let _first = places.keep_ready(0).unwrap();
        assert!(places.keep_ready(1).is_none());
        let _second = places.keep_ready(0).unwrap();
    }

    #[test]
    fn one_place_is_left_to_others_and_one_to_a_run_without_a_session() {
        let places = Arc::new(Places::of_a_daemon());
        places.learn(4);
        let sessions = [places.keep_ready(0).unwrap(), places.keep_ready(1).unwrap()];
        assert!(!places.can_keep_ready(0) && !places.are_too_many_ready());
        let run = enter(&places);
        assert!(!places.lock().has_room_for_a_run(now()));
        let [session, _other] = sessions;
        let fed = session.for_a_run();
        assert!(!places.can_keep_ready(0), "a run in a session keeps its place");
        drop((run, fed));
        assert!(
            !places.lock().has_room_for_a_run(now()),
            "the daemon's children have not left yet"
        );
        let later = now() + LINGER;
        assert!(places.lock().has_room_for_a_run(later));
    }

    #[test]
    fn a_daemon_with_one_place_gets_one_run_at_a_time_and_no_session() {
        let places = Arc::new(Places::of_a_daemon());
        let ready = places.keep_ready(0).unwrap();
        places.learn(1);
        assert!(places.are_too_many_ready());
        drop(ready);
        assert!(places.keep_ready(0).is_none());
        let run = enter(&places);
        assert!(!places.lock().has_room_for_a_run(now()));
        drop(run);
        // This waits until the first place is free again.
        drop(enter(&places));
    }
}
