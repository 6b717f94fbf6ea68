//! Confirmations: a delivery by a session that had connected before the job is compared again by a session that connects later.
//! A receiver stays in the directory that it has entered. If another directory takes its place (`mv www old; mv new www`, or a
//! switched link), the delivery goes into the old one, and rsync reports success.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::RemoteState;
use crate::change::Scope;
use crate::engine::Now;
use crate::engine::contact::SESSION_REST;
use crate::engine::deferred::Condition;
use crate::engine::pending::{Item, Mark, Recheck};
use crate::path::RelPath;

/// How long confirmations wait after the last delivery, so that many share one run. Shortly before the sessions are closed, it can
/// use one of them, and nobody needs another afterwards.
const CONFIRM_AFTER: Duration = SESSION_REST.saturating_sub(Duration::from_secs(1));

impl RemoteState {
    /// Defers the confirmations of these deliveries; returns them as owed. If a flush waits, they are due at once.
    pub(super) fn confirm_later(
        &mut self,
        now: Now,
        delivered: Vec<RelPath>,
        flown: &[Item],
        deleted: &[RelPath],
    ) -> Vec<Item> {
        if delivered.is_empty() {
            return Vec::new();
        }
        let marks: HashMap<_, _> = flown.iter().map(|item| (&item.path, item.mark)).collect();
        let deleted: HashSet<&RelPath> = deleted.iter().collect();
        let item = |path| {
            // The directories above an item are delivered with it.
            let of = marks.get(&path).copied().unwrap_or(Mark::additive(Scope::Entry));
            let mark = Mark {
                recheck: Recheck::Confirm,
                additive: of.additive && !deleted.contains(&path),
                compare_content: of.compare_content,
                ..Mark::new(Scope::Entry)
            };
            Item { path, mark }
        };
        let items: Vec<_> = delivered.into_iter().map(item).collect();
        for item in &items {
            self.deferred.defer(Condition::Confirmed(now + CONFIRM_AFTER), item);
        }
        if !self.flushes.is_empty() {
            self.deferred.confirm_soon(now);
        }
        items
    }

    /// True for a confirmation that must not start now, because a job has the path or its retry is due later. If the path is the
    /// origin of a move, a confirmation would delete the copy that the move needs. A job in flight may find nothing to do, so the
    /// confirmation is deferred until after it. A retry sends the path again, so it takes the place of the confirmation.
    pub(super) fn holds_confirmation(&mut self, now: Now, item: &Item) -> bool {
        if !item.confirms() || item.mark.scope != Scope::Entry {
            return false;
        }
        let condition = if self.is_in_flight(&item.path) {
            Condition::Confirmed(now + CONFIRM_AFTER)
        } else if let Some(due) = self.deferred.due_at(&item.path) {
            Condition::At(due)
        } else {
            return false;
        };
        self.deferred.defer(condition, item);
        true
    }
}
