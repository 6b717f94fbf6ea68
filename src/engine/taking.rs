//! A walk over what is pending that takes out what a job may hold.
//! Leaves alone whatever touches a job in flight: two runs for one remote never overlap.

use super::mark::{Item, Mark};
use super::trie::{Node, Visit};
use crate::change::Scope;
use crate::path::RelPath;

/// Which pending paths a job may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Up to so many paths of any kind but large files and whole trees.
    Batch(usize),
    /// One large file.
    Large,
    /// A listing, or up to so many trees, of those marked whole.
    Trees(usize),
}

/// The paths that jobs in flight hold, with the kind of job.
pub type Held = Node<Hold>;

/// How a path is held by a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The job ends soon: what waits for it may make others wait.
    Short,
    /// A large file or a tree: nobody may be made to wait for someone who waits for it.
    Long,
}

/// A batch being taken: the walk's position and what it has so far.
pub struct Taking {
    want: Want,
    /// What has been taken.
    pub items: Vec<Item>,
    /// A path that must wait, and for what; rather one that waits for something short.
    pub waits: Option<(RelPath, Hold)>,
    path: Vec<u8>,
}

impl Taking {
    /// Nothing taken yet.
    pub fn new(want: Want) -> Self {
        Self { want, items: Vec::new(), waits: None, path: Vec::new() }
    }

    /// Takes what it may from `node` and below.
    pub fn visit(&mut self, node: &mut Node<Mark>, held: Option<&Held>) -> Visit {
        if let Some(hold) = held.and_then(|held| held.value) {
            self.note_wait(hold);
            return Visit::On;
        }
        if let Some(mark) = node.value {
            let below = held.filter(|held| !held.is_empty());
            match below {
                None if self.wants(mark) => self.keep(node),
                None => {}
                Some(below) => {
                    let long = any_long(below);
                    if self.wants(mark) {
                        self.note_wait(if long { Hold::Long } else { Hold::Short });
                    }
                    // This path must wait for what flies below it. To let it have its turn, nothing new leaves
                    // below it meanwhile, unless that wait is long.
                    if !long {
                        return Visit::On;
                    }
                }
            }
        }
        if self.is_full() {
            return Visit::Stop;
        }
        let length = self.path.len();
        node.visit_children(|name, child| {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            let verdict = self.visit(child, held.and_then(|held| held.child(name)));
            self.path.truncate(length);
            verdict
        });
        if self.is_full() { Visit::Stop } else { Visit::On }
    }

    fn note_wait(&mut self, hold: Hold) {
        let better = match self.waits {
            None => true,
            Some((_, known)) => known == Hold::Long && hold == Hold::Short,
        };
        if better && let Some(path) = RelPath::new(&self.path) {
            self.waits = Some((path, hold));
        }
    }

    fn wants(&self, mark: Mark) -> bool {
        match self.want {
            Want::Batch(_) => !mark.large && !mark.whole,
            Want::Large => mark.large,
            Want::Trees(_) => mark.whole,
        }
    }

    fn keep(&mut self, node: &mut Node<Mark>) {
        if let (Some(mark), Some(path)) = (node.value.take(), RelPath::new(&self.path)) {
            self.items.push(Item { path, mark });
        }
    }

    fn is_full(&self) -> bool {
        match self.want {
            Want::Batch(limit) => self.items.len() >= limit,
            Want::Large => !self.items.is_empty(),
            // A listing makes and deletes the directories below it: the trees there come after it.
            Want::Trees(limit) => {
                self.items.len() >= limit
                    || self.items.last().is_some_and(|item| item.mark.scope == Scope::Listing)
            }
        }
    }
}

fn any_long(held: &Held) -> bool {
    held.value == Some(Hold::Long) || held.children().any(|(_, child)| any_long(child))
}
