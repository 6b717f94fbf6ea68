//! When rsync cannot read something, it deletes nothing more in that run: here the others in the run are spared the consequences.
//! Does not know what kind of run it is.

use super::{JobRun, fail};
use crate::path::RelPath;
use crate::worker::remote::Stop;

/// What a path that is to blame has failed with, when rsync names none.
const NOTHING_DELETED: &str = "nothing is deleted there, for a part of the source cannot be read";

impl JobRun<'_> {
    /// Does all of `parts` with one run. Where rsync has deleted nothing, because it could not read one of them, each half has a run of
    /// its own, and so on, down to the one to blame, which is tried again later.
    pub(super) fn sparing<T>(
        &mut self,
        parts: &[T],
        name: impl Fn(&T) -> &RelPath,
        mut run: impl FnMut(&mut Self, &[T]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut todo = vec![parts];
        while let Some(parts) = todo.pop() {
            self.deletions_skipped = false;
            run(self, parts)?;
            match parts {
                _ if !self.deletions_skipped => {}
                [] => {}
                [only] => self.failed.push(fail(name(only), NOTHING_DELETED.into())),
                _ => {
                    let (first, second) = parts.split_at(parts.len() / 2);
                    todo.extend([second, first]);
                }
            }
        }
        self.deletions_skipped = false;
        Ok(())
    }
}
