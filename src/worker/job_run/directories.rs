//! Whole directories: their sets of names, what stands below them, and who is tried again when a name cannot be deleted there.
//! Where rsync's patterns do not say all, `exact.rs` does it.

use super::JobRun;
use super::names::in_portions;
use crate::change::Scope;
use crate::engine::pending::{Item, Mark};
use crate::path::RelPath;
use crate::rsync::excludes::Excludes;
use crate::rsync::{Presence, RunKind, Way};
use crate::worker::look::Look;
use crate::worker::remote::Stop;
use crate::worker::rules::Coverage;
use crate::worker::shards::are_short;

impl JobRun<'_> {
    /// Whole directories: first the sets of names, then what stands below.
    pub fn directories(&mut self, look: &Look, excludes: &Excludes) -> Result<(), Stop> {
        self.equal(&look.listings, Scope::Listing, excludes)?;
        self.equal(&look.trees, Scope::Tree, excludes)
    }

    fn equal(&mut self, dirs: &[RelPath], scope: Scope, excludes: &Excludes) -> Result<(), Stop> {
        for dirs in in_portions(dirs) {
            match self.rules().coverage {
                Coverage::Whole => self.by_patterns(dirs, scope, excludes)?,
                Coverage::Partial => self.exactly(dirs, scope, excludes)?,
            }
        }
        Ok(())
    }

    /// Makes directories equal, except for what the patterns say.
    pub fn by_patterns(
        &mut self,
        dirs: &[RelPath],
        scope: Scope,
        excludes: &Excludes,
    ) -> Result<(), Stop> {
        self.sparing(
            dirs,
            |dir| dir,
            |run, dirs| {
                let names: Vec<&RelPath> = dirs.iter().collect();
                let (dirs, deletes) = (dirs.to_vec(), run.deletes_below);
                let kind = match scope {
                    Scope::Tree => {
                        let checksum = dirs.iter().any(|dir| run.by_content.contains(dir));
                        let at_once = run.open_root().is_ok_and(|root| are_short(&root, &dirs));
                        RunKind::Trees { dirs, checksum, deletes, at_once }
                    }
                    _ => RunKind::Listing { dirs, deletes },
                };
                run.run(&kind, excludes.rules(), &names)
            },
        )
    }

    /// A directory whose names are compared needs a job that holds it: what another job sends into it meanwhile would be
    /// taken for extraneous.
    pub(super) fn give_back_parent(&mut self, path: &RelPath) {
        let mark = Mark::new(Scope::Listing);
        let item = Item { path: path.parent().unwrap_or_default(), mark };
        if self.returned.last() != Some(&item) {
            self.returned.push(item);
        }
    }

    /// What is tried again for a path that a run could not deliver: where names are deleted by comparing their directory, that
    /// one, or the name would be handed on to such a comparison again and again, and each time as if for the first time.
    pub(super) fn to_blame(&self, kind: &RunKind, path: RelPath) -> RelPath {
        let RunKind::Listing { dirs, .. } = kind else { return path };
        let by_listing =
            self.remote.endpoint().way(Presence::Absent, self.abilities) == Way::ListingOfParent;
        let parent = path.parent().filter(|parent| by_listing && dirs.contains(parent));
        parent.unwrap_or(path)
    }
}
