//! The places that one daemon has for us: connections of all its remotes are counted together, and one place is left to others.
//! Counts, and makes runs wait; connects to nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::destination::{DAEMON_PORT, Destination};
use crate::ground::lock::{lock, wait_timeout};

/// The most connections, ready sessions and runs together, beside which no other session is made ready. Of the field's daemons with
/// a limit half allow ten or fewer, and few allow less than four.
const READY_BESIDE: usize = 3;

/// A daemon's child keeps its place for some 50 ms after the run's end.
const LINGER: Duration = Duration::from_millis(100);

/// The places of each daemon, by host and port.
#[derive(Debug, Default)]
pub struct Daemons(HashMap<String, Arc<Places>>);

impl Daemons {
    /// The places of the daemon that serves this remote. What is no daemon counts nobody's connections but its own.
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
    /// When places were given back of which the daemon may not know yet.
    left: VecDeque<Instant>,
}

/// What a place is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Ready,
    Running,
}

/// A place that is taken; dropping it gives it back.
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

    /// Takes a place for a run; waits for one while the daemon is known to have none to spare. `goes_on` says whether it is worth
    /// waiting; `waits` hears that somebody waits.
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

    /// Takes a place for a session that is to be ready, if there is one to spare; `own`: how many the remote has already.
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

    /// When a place that was given back is free again for a session.
    pub fn next_free(&self) -> Option<Instant> {
        self.lock().left.front().map(|left| *left + LINGER)
    }

    /// One more remote wants sessions.
    pub fn note_wanting(&self) {
        self.lock().wanting += 1;
    }

    /// One remote less wants sessions.
    pub fn note_resting(&self) {
        let mut state = self.lock();
        state.wanting = state.wanting.saturating_sub(1);
    }

    /// The daemon has said how many clients it serves. It stays known: to ask again would cost a client its place.
    pub fn learn(&self, allowed: usize) {
        self.lock().allowed = Some(allowed);
        self.changed.notify_all();
    }

    /// Those who wait look again whether it is worth while.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Places that the daemon counts as taken by us.
    fn taken(&mut self, now: Instant) -> usize {
        while self.left.front().is_some_and(|left| now.saturating_duration_since(*left) >= LINGER) {
            self.left.pop_front();
        }
        self.ready + self.running + self.left.len()
    }

    /// One place is left to others, where there is more than one.
    fn has_room_for_a_run(&mut self, now: Instant) -> bool {
        let taken = self.taken(now);
        self.allowed.is_none_or(|allowed| taken < allowed.saturating_sub(1).max(1))
    }

    /// One place is left to others, and one to a run that finds no session.
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
    /// The session that had it gets something to do.
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
        let held = [one.keep_ready(0), one.keep_ready(1), one.keep_ready(2)];
        assert!(held.iter().all(Option::is_some));
        assert!(one.keep_ready(0).is_none(), "a daemon of which nothing is known gets three");
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
        // Waits until the first one's place is free again.
        drop(enter(&places));
    }
}
