//! Rechecks after an aborted run: its receiver goes on with the data that it has, and the network may deliver more of it late.
//! So the items of such a run are sent again at once, and compared again when none of its data can arrive any longer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Flight, RemoteState};
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::engine::{FullSyncFilter, JobKind, Now};

/// A receiver without its sender has ended after this time.
const SHORTEST: Duration = Duration::from_secs(5);

/// When the network is back, the kernel sends unacknowledged data again, after at most the outage's length. After this time it
/// has given up (Linux, Documentation/networking/ip-sysctl: tcp_orphan_retries).
const LONGEST: Duration = Duration::from_secs(120);

impl RemoteState {
    /// Defers a recheck: the run that had `item` was aborted just now.
    pub fn recheck(&mut self, now: Now, item: &Item) {
        self.deferred.recheck(now + SHORTEST, item);
    }

    /// Defers a recheck of the aborted job's items. A scheduled sync is left out: it comes again by itself, and without its filter a
    /// recheck would compare what the filter excludes.
    pub(super) fn recheck_aborted(&mut self, now: Now, flight: &Flight) {
        if flight.kind != JobKind::Trees(FullSyncFilter::Crontab) {
            flight.items.iter().for_each(|item| self.recheck(now, item));
        }
    }

    /// The remote answers for the first time since `lost`: data of that time may arrive from now on.
    pub fn put_off_rechecks(&mut self, now: Now, lost: Now) {
        self.deferred.put_off_rechecks(now + (now - lost).clamp(SHORTEST, LONGEST));
    }

    /// Late data may overwrite what a job has just sent where a recheck is deferred. Defers a recheck of these items too; returns
    /// what is rechecked.
    pub fn recheck_sent(&mut self, items: &[Item]) -> Vec<Item> {
        let mut outdated = Vec::new();
        for item in items {
            outdated
                .extend(self.deferred.recheck_due_above(&item.path).map(|due| (due, item.clone())));
            if item.mark.scope == Scope::Tree {
                let whole = |(due, below): (Now, Item)| {
                    // Late data may bring back what this tree's delivery has deleted.
                    let additive = below.mark.additive && item.mark.additive;
                    let mark = Mark { scope: Scope::Tree, additive, ..below.mark };
                    (due, Item { mark, ..below })
                };
                outdated.extend(self.deferred.rechecks_within(&item.path).into_iter().map(whole));
            }
        }
        let mut rechecks = BTreeMap::new();
        for (due, item) in outdated {
            let item = self.deferred.recheck(due, &item);
            rechecks.insert(item.path.clone(), item);
        }
        rechecks.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{RemoteId, RootId};
    use crate::engine::Extraneous;
    use crate::engine::contact::Contact;
    use crate::path::RelPath;

    fn item(path: &str) -> Item {
        Item { path: RelPath::new(path.as_bytes()).unwrap(), mark: Mark::new(Scope::Entry) }
    }

    /// A remote that answers.
    fn remote() -> RemoteState {
        RemoteState {
            contact: Contact::default(),
            ..RemoteState::new(RemoteId(0), RootId(0), Extraneous::Deleted)
        }
    }

    fn due(remote: &mut RemoteState, now: Now) -> Vec<String> {
        let due = remote.deferred.take_due(now, remote.outlook());
        due.iter().map(|item| item.path.to_string()).collect()
    }

    #[test]
    fn the_longer_the_network_was_away_the_later_is_the_recheck() {
        let seconds = Duration::from_secs;
        for (lost, waits) in [(1, SHORTEST), (60, seconds(60)), (1_000, LONGEST)] {
            let mut remote = remote();
            remote.recheck(seconds(1), &item("a"));
            let back = seconds(1 + lost);
            remote.put_off_rechecks(back, seconds(1));
            assert_eq!(remote.deferred.next_due(remote.outlook()), Some(back + waits));
            assert_eq!(due(&mut remote, back + waits - seconds(1)), [""; 0]);
            assert_eq!(due(&mut remote, back + waits), ["./", "a"]);
            assert_eq!(remote.deferred.next_due(remote.outlook()), None);
        }
    }

    #[test]
    fn what_is_delivered_where_late_data_may_arrive_is_rechecked_too() {
        let mut remote = remote();
        ["a", "d/b"].iter().for_each(|path| remote.recheck(Duration::ZERO, &item(path)));
        let mut outdated = |delivered: Item| {
            let items = remote.recheck_sent(&[delivered]);
            items.iter().map(|item| (item.path.to_string(), item.mark.scope)).collect::<Vec<_>>()
        };
        assert_eq!(outdated(item("d")), []);
        assert_eq!(outdated(item("d/b/new")), [("d/b/new".into(), Scope::Entry)]);
        let tree = Item { mark: Mark::new(Scope::Tree), ..item("d") };
        assert_eq!(outdated(tree), [("d/b".into(), Scope::Tree)]);
        assert_eq!(due(&mut remote, SHORTEST), ["./", "a", "d", "d/b"]);
        assert_eq!(remote.recheck_sent(&[item("a")]), []);
    }

    #[test]
    fn what_is_sent_below_a_tree_that_is_rechecked_costs_no_memory() {
        let mut remote = remote();
        remote.recheck(Duration::ZERO, &Item { mark: Mark::new(Scope::Tree), ..item("d") });
        let sent: Vec<_> = (0..10).map(|n| item(&format!("d/{n}"))).collect();
        let rechecks = remote.recheck_sent(&sent);
        assert_eq!((rechecks.len(), rechecks[0].mark.scope), (1, Scope::Tree));
        assert_eq!(remote.deferred.count(), 2);
    }
}
