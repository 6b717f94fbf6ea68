//! What one remote remembers stays bounded.

use super::*;
use crate::change::Cause;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

#[test]
fn move_hints_stay_bounded_although_trees_absorb_the_marks() {
    let mut remote = RemoteState::new(RemoteId(0), RootId(0), Extraneous::Deleted);
    for directory in 0..100 {
        for name in 0..20 {
            let new = path(&format!("d{directory}/new{name}"));
            remote.change(
                Now::ZERO,
                &Change {
                    moved_from: Some(path(&format!("d{directory}/old{name}"))),
                    ..Change::entry(new, Cause::MovedTo)
                },
            );
        }
        remote.change(Now::ZERO, &Change::tree(path(&format!("d{directory}")), Cause::MovedTo));
        remote.limit(200, &mut Vec::new());
        let (marks, moves) = remote.sizes();
        assert!(marks <= 200 && moves <= 200, "{marks} marks, {moves} moves");
    }
}
