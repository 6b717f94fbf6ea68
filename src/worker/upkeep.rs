//! How many sessions of one remote are kept, and when those of an idle remote are replaced.
//! Starts and ends none; callers pass the time.

use std::time::{Duration, Instant};

use crate::rsync::Abilities;

/// Idle sessions are replaced after this time: receivers may have entered directories that have been replaced since, and networks
/// forget connections that carry nothing.
pub const RENEW_AFTER: Duration = Duration::from_secs(60);

/// As many are kept while changes follow each other: one for the next change, and one for a change right behind it. After a change
/// that comes alone one is kept.
const FOLLOWING: usize = 2;

/// Runs that begin within this time of each other need a session each: a new session takes about as long to connect.
const SUCCESSION: Duration = Duration::from_millis(100);

/// How many sessions of one remote are kept: as many as its changes lately needed at once.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// What the remote can do, while sessions are wanted.
    wanted: Option<Abilities>,
    /// As many as the changes lately needed; shrinks with each pause.
    needed: usize,
    /// How many runs have begun in quick succession, and when the last of them did.
    succession: usize,
    last_run: Option<Instant>,
    /// How many are kept now.
    count: usize,
    /// How many may be started before the next success or renewal: sessions that end at once must not be restarted for ever.
    starts_left: usize,
    /// While the remote is idle: when its sessions are replaced.
    renew_at: Option<Instant>,
}

impl Upkeep {
    /// A run has succeeded: sessions are kept from now on, at most `max`.
    pub fn keep(&mut self, abilities: Abilities, max: usize) {
        self.needed = self.needed.max(1).min(max);
        self.count = self.needed;
        self.starts_left = self.count;
        self.wanted = Some(abilities);
        self.renew_at = None;
    }

    /// A run begins that a session can serve.
    pub fn note_run(&mut self, now: Instant) {
        let follows = |last| now.saturating_duration_since(last) < SUCCESSION;
        let before = if self.last_run.is_some_and(follows) { self.succession } else { 0 };
        self.succession = before + 1;
        let least = if self.is_on() && !self.is_idle() { FOLLOWING } else { 1 };
        self.needed = self.needed.max(self.succession).max(least);
        self.last_run = Some(now);
    }

    /// The remote is idle: `count` sessions are kept from now on.
    pub fn keep_idle(&mut self, abilities: Abilities, count: usize, now: Instant) {
        self.end();
        self.wanted = Some(abilities);
        (self.count, self.starts_left) = (count, count);
        self.renew_at = Some(now + RENEW_AFTER);
    }

    /// None is kept before the next success.
    pub fn end(&mut self) {
        *self = Self { needed: self.needed.saturating_sub(1), ..Self::default() };
    }

    /// None is started before the next success or renewal.
    pub fn start_none(&mut self) {
        self.starts_left = 0;
    }

    /// True while sessions are kept.
    pub fn is_on(&self) -> bool {
        self.wanted.is_some()
    }

    /// True while the remote is idle.
    pub fn is_idle(&self) -> bool {
        self.renew_at.is_some()
    }

    /// What the remote can do, while sessions are kept.
    pub fn wanted(&self) -> Option<Abilities> {
        self.wanted
    }

    /// True when one should be started beside these.
    pub fn is_short(&self, own: usize) -> bool {
        self.is_on() && self.starts_left > 0 && own < self.count
    }

    /// Notes that one is started.
    pub fn note_start(&mut self) {
        self.starts_left = self.starts_left.saturating_sub(1);
    }

    /// True, once, when the sessions of an idle remote are due to be replaced.
    pub fn renew(&mut self, now: Instant) -> bool {
        let is_due = self.renew_at.is_some_and(|at| at <= now);
        if is_due {
            self.starts_left = self.count;
            self.renew_at = Some(now + RENEW_AFTER);
        }
        is_due
    }

    /// When they are due to be replaced.
    pub fn next_renewal(&self) -> Option<Instant> {
        self.renew_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any moment will do: the rest is virtual")]
    fn some_moment() -> Instant {
        Instant::now()
    }

    #[test]
    fn sessions_of_an_idle_remote_are_replaced_once_a_minute() {
        let rest = some_moment();
        let mut upkeep = Upkeep::default();
        upkeep.keep(Abilities::ALL, 4);
        assert_eq!(upkeep.next_renewal(), None, "in use they are replaced as they are used");
        upkeep.keep_idle(Abilities::ALL, 1, rest);
        for minute in 1..5 {
            let due = rest + RENEW_AFTER * minute;
            assert_eq!(upkeep.next_renewal(), Some(due));
            assert!(!upkeep.renew(due.checked_sub(Duration::from_secs(1)).unwrap()));
            assert!(upkeep.renew(due) && !upkeep.renew(due));
            assert!(upkeep.is_short(0) && !upkeep.is_short(1));
            // It starts, and perhaps ends at once, as when the remote is down. It is not tried again before the next minute.
            upkeep.note_start();
            assert!(!upkeep.is_short(0));
        }
    }

    #[test]
    fn an_outage_ends_the_upkeep_until_the_next_success() {
        let rest = some_moment();
        let mut upkeep = Upkeep::default();
        upkeep.keep_idle(Abilities::ALL, 1, rest);
        upkeep.end();
        assert!(!upkeep.is_short(0) && !upkeep.renew(rest + RENEW_AFTER));
        assert_eq!((upkeep.next_renewal(), upkeep.wanted()), (None, None));
        upkeep.keep(Abilities::ALL, 4);
        assert!(upkeep.is_short(0) && !upkeep.is_short(1));
    }

    #[test]
    fn as_many_are_kept_as_changes_lately_needed_at_once() {
        let mut now = some_moment();
        let mut upkeep = Upkeep::default();
        let kept = |upkeep: &mut Upkeep, max| {
            upkeep.keep(Abilities::ALL, max);
            (0..9).find(|own| !upkeep.is_short(*own)).unwrap()
        };
        let mut runs = |upkeep: &mut Upkeep, count, apart| {
            for _ in 0..count {
                now += apart;
                upkeep.note_run(now);
            }
        };
        runs(&mut upkeep, 1, SUCCESSION * 2);
        assert_eq!(kept(&mut upkeep, 4), 1, "a change that comes alone");
        runs(&mut upkeep, 20, SUCCESSION * 2);
        assert_eq!(kept(&mut upkeep, 4), FOLLOWING, "one run after the other needs few");
        runs(&mut upkeep, 3, SUCCESSION / 5);
        assert_eq!(kept(&mut upkeep, 4), 4, "together with the last one before them");
        runs(&mut upkeep, 20, SUCCESSION / 5);
        assert_eq!(kept(&mut upkeep, 4), 4);
        upkeep.end();
        assert_eq!(kept(&mut upkeep, 4), 3, "a pause may have ended the time of many changes");
        (0..5).for_each(|_| upkeep.end());
        assert_eq!(kept(&mut upkeep, 4), 1);
        assert_eq!((kept(&mut upkeep, 1), kept(&mut upkeep, 0)), (1, 0));
    }
}
