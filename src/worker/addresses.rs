//! The addresses of a remote's host name: detects that the name leads to another machine, as after a failover.
//! Resolves a name; connects to nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::destination::Destination;

/// Most full comparisons within [`SPAN`] because of a new address. Without a limit, a name whose answers rotate would cause them for ever.
const COMPARISONS_MAX: usize = 4;
const SPAN: Duration = Duration::from_secs(3_600);

/// The addresses of a host name at the last look-up.
#[derive(Debug, Default)]
pub struct Addresses {
    last: BTreeSet<IpAddr>,
    /// When the addresses changed, within [`SPAN`].
    moved: Vec<Instant>,
}

/// The result of a look-up, compared with the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// At least one address is the same, or this is not known.
    Same,
    /// All addresses are new: that machine may lack something.
    Moved,
    /// All addresses are new, but this happens too often: nothing is compared.
    Restless,
}

/// The addresses of the remote's host name now; `None`: it has no name, or the name cannot be resolved.
pub fn resolve(destination: &Destination) -> Option<BTreeSet<IpAddr>> {
    let (Destination::Daemon { host, .. } | Destination::Ssh { host, .. }) = destination else {
        return None;
    };
    let name = host.address();
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let found: BTreeSet<_> = (name, 0).to_socket_addrs().ok()?.map(|found| found.ip()).collect();
    (!found.is_empty()).then_some(found)
}

impl Addresses {
    /// Compares these addresses with the last ones, and keeps them.
    pub fn look(&mut self, found: BTreeSet<IpAddr>, now: Instant) -> Seen {
        let last = std::mem::replace(&mut self.last, found);
        if last.is_empty() || !last.is_disjoint(&self.last) {
            return Seen::Same;
        }
        self.moved.retain(|moved| now.saturating_duration_since(*moved) < SPAN);
        if self.moved.len() > COMPARISONS_MAX {
            return Seen::Same;
        }
        self.moved.push(now);
        if self.moved.len() > COMPARISONS_MAX { Seen::Restless } else { Seen::Moved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Host;
    use crate::worker::sessions::now;

    fn of(last_bytes: &[u8]) -> BTreeSet<IpAddr> {
        last_bytes.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect()
    }

    #[test]
    fn only_other_addresses_throughout_are_another_machine() {
        let mut addresses = Addresses::default();
        for (found, seen) in [
            (&[1][..], Seen::Same),
            (&[1], Seen::Same),
            (&[2, 1], Seen::Same),
            (&[2], Seen::Same),
            (&[3], Seen::Moved),
            (&[3], Seen::Same),
            (&[2], Seen::Moved),
        ] {
            assert_eq!(addresses.look(of(found), now()), seen, "{found:?}");
        }
    }

    #[test]
    fn answers_that_take_turns_are_compared_a_few_times_and_said_once_an_hour() {
        let (mut addresses, start) = (Addresses::default(), now());
        let mut look = |n: u64, minutes| {
            addresses.look(of(&[n as u8 % 2]), start + Duration::from_secs(60 * minutes))
        };
        look(0, 0);
        let seen: Vec<_> = (1..=8).map(|n| look(n, n)).collect();
        let expected = [vec![Seen::Moved; 4], vec![Seen::Restless], vec![Seen::Same; 3]].concat();
        assert_eq!(seen, expected);
        assert_eq!(look(9, 90), Seen::Moved);
    }

    #[test]
    fn what_is_no_name_is_not_resolved() {
        let at = |name: &str| Destination::Daemon {
            host: Host { name: name.into(), ..Host::default() },
            module: "data".into(),
        };
        assert_eq!(resolve(&at("192.0.2.1")), None);
        assert_eq!(resolve(&at("[2001:db8::1]")), None);
        assert_eq!(resolve(&Destination::Local { path: "/backup".into() }), None);
        assert!(resolve(&at("localhost")).is_some_and(|found| !found.is_empty()));
    }
}
