//! The names of all roots and remotes of a configuration.
//! They tell which configuration a journal belongs to. Ignores options and filters; the catch-up walk finds what they change.

use std::os::unix::ffi::OsStrExt;

use super::frame::{Frame, FrameSubject};
use crate::change::{Extent, RemoteId, RootId, Scope};
use crate::config::MirrorConfig;

/// The roots with their paths, and the remotes with the keys of their destinations, in file order.
///
/// Invariant: roots differ; the remotes of one root differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalLayout {
    roots: Vec<Vec<u8>>,
    remotes: Vec<(RootId, Vec<u8>)>,
}

impl JournalLayout {
    /// The layout of a configuration.
    pub fn new(mirrors: &[MirrorConfig]) -> Self {
        let mut layout = Self::default();
        for (index, mirror) in mirrors.iter().enumerate() {
            let path = mirror.watch.as_os_str().as_bytes();
            let root = unique(path, |name| layout.roots.iter().any(|r| r == name));
            layout.roots.push(root);
            for remote in &mirror.remotes {
                let key = remote.destination.key();
                let taken = |name: &[u8]| layout.has_remote(RootId(index), name).is_some();
                let name = unique(key.as_bytes(), taken);
                layout.remotes.push((RootId(index), name));
            }
        }
        layout
    }

    /// The names of all remotes, each with its root. Two layouts with the same roots have equal pairs for the same remote.
    pub fn names(&self) -> impl Iterator<Item = (RootId, &[u8])> {
        self.remotes.iter().map(|(root, name)| (*root, name.as_slice()))
    }

    /// The same roots with these remotes, in the order of their numbers. `None`: no remote has this number now.
    #[must_use]
    pub fn with_remotes<'a>(
        &self,
        remotes: impl IntoIterator<Item = Option<(RootId, &'a [u8])>>,
    ) -> Self {
        let mut layout = Self { roots: self.roots.clone(), remotes: Vec::new() };
        for remote in remotes {
            // No destination has such a key, so no start matches this remote again.
            let (root, name) = remote.unwrap_or((RootId(0), b"-"));
            let name = unique(name, |name| layout.has_remote(root, name).is_some());
            layout.remotes.push((root, name));
        }
        layout
    }

    /// All remotes, in file order.
    pub fn remotes(&self) -> impl Iterator<Item = RemoteId> + use<> {
        (0..self.remotes.len()).map(RemoteId)
    }

    /// How many roots there are.
    pub fn root_count(&self) -> usize {
        self.roots.len()
    }

    /// The root whose copy `remote` holds.
    pub fn root_of(&self, remote: RemoteId) -> Option<RootId> {
        self.remotes.get(remote.0).map(|(root, _)| *root)
    }

    /// The position of `remote` among the remotes of its root.
    pub fn rank(&self, remote: RemoteId) -> Option<usize> {
        let root = self.root_of(remote)?;
        let earlier = &self.remotes[..remote.0];
        Some(earlier.iter().filter(|(r, _)| *r == root).count())
    }

    /// Finds the root with the path of root number `root` in `other`.
    pub fn find_root(&self, other: &JournalLayout, root: usize) -> Option<RootId> {
        let name = other.roots.get(root)?;
        self.roots.iter().position(|r| r == name).map(RootId)
    }

    /// Finds the remote with the name and root of remote number `remote` in `other`.
    pub fn find_remote(&self, other: &JournalLayout, remote: usize) -> Option<RemoteId> {
        let (root, name) = other.remotes.get(remote)?;
        self.has_remote(self.find_root(other, root.0)?, name)
    }

    fn has_remote(&self, root: RootId, name: &[u8]) -> Option<RemoteId> {
        self.remotes.iter().position(|(r, n)| *r == root && n == name).map(RemoteId)
    }

    /// The items of a table frame: each root followed by its remotes. A root is named again before remotes that were added later.
    pub(super) fn items(&self) -> impl Iterator<Item = (Extent, &[u8])> {
        let mut items = Vec::new();
        let mut remotes = self.remotes.iter().peekable();
        for (index, path) in self.roots.iter().enumerate() {
            items.push((Scope::Tree, path.as_slice()));
            while let Some((_, name)) = remotes.next_if(|(root, _)| root.0 == index) {
                items.push((Scope::Entry, name));
            }
        }
        while let Some((root, name)) = remotes.next() {
            items.push((Scope::Tree, self.roots.get(root.0).map_or(&[][..], Vec::as_slice)));
            items.push((Scope::Entry, name));
            while let Some((_, name)) = remotes.next_if(|(of, _)| of == root) {
                items.push((Scope::Entry, name));
            }
        }
        items.into_iter().map(|(scope, name)| (Extent::new(scope), name))
    }

    /// Reads a table frame; `None` if it is another kind of frame.
    pub(super) fn from_frame(frame: &Frame<'_>) -> Option<Self> {
        if frame.subject != FrameSubject::Table {
            return None;
        }
        let mut layout = Self::default();
        let mut current = None;
        for &(extent, name) in &frame.items {
            match extent.scope {
                Scope::Tree => {
                    let known = layout.roots.iter().position(|root| root == name);
                    current = Some(RootId(known.unwrap_or(layout.roots.len())));
                    if known.is_none() {
                        layout.roots.push(name.to_vec());
                    }
                }
                _ => layout.remotes.push((current?, name.to_vec())),
            }
        }
        Some(layout)
    }
}

/// Appends a number to `name` if it is taken, because the same remote may be listed twice.
fn unique(name: &[u8], taken: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut candidate = name.to_vec();
    let mut number = 2;
    while taken(&candidate) {
        candidate = [name, format!("#{number}").as_bytes()].concat();
        number += 1;
    }
    candidate
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Seq;
    use super::super::frame::{encode, parse_frame};
    use super::*;
    use crate::config::{Remote, RsyncOptions};
    use crate::destination::{Destination, Host};

    pub fn layout(mirrors: &[(&str, &[&str])]) -> JournalLayout {
        let remote = |ip: &&str| Remote {
            destination: Destination::Daemon {
                host: Host { name: ip.to_string(), ..Host::default() },
                module: "m".into(),
            },
            options: RsyncOptions::default(),
        };
        let mirror = |(watch, remotes): &(&str, &[&str])| MirrorConfig {
            watch: watch.into(),
            remotes: remotes.iter().map(remote).collect(),
        };
        JournalLayout::new(&mirrors.iter().map(mirror).collect::<Vec<_>>())
    }

    #[test]
    fn layout_survives_the_file() {
        let here = layout(&[("/a", &["x", "y", "x"]), ("/b", &[]), ("/c", &["x"])]);
        let mut bytes = Vec::new();
        encode(&mut bytes, FrameSubject::Table, Seq(0), here.items());
        let (frame, _) = parse_frame(&bytes).unwrap();
        assert_eq!(JournalLayout::from_frame(&frame), Some(here));
    }

    #[test]
    fn remotes_that_came_later_or_are_gone_survive_the_file_too() {
        let here = layout(&[("/a", &["x", "y"]), ("/b", &["z"])]);
        let names: Vec<_> = here.names().map(|(root, name)| (root, name.to_vec())).collect();
        let name = |at: usize| Some((names[at].0, names[at].1.as_slice()));
        let later = [name(0), None, name(2), Some((RootId(0), b"w".as_slice())), None];
        let later = here.with_remotes(later);
        let mut bytes = Vec::new();
        encode(&mut bytes, FrameSubject::Table, Seq(0), later.items());
        let (frame, _) = parse_frame(&bytes).unwrap();
        assert_eq!(JournalLayout::from_frame(&frame), Some(later.clone()));
        let found = |at| here.find_remote(&later, at);
        assert_eq!([found(0), found(1), found(2)], [Some(RemoteId(0)), None, Some(RemoteId(2))]);
    }

    #[test]
    fn remotes_are_found_again_when_the_file_was_rearranged() {
        let old = layout(&[("/a", &["x", "y"]), ("/b", &["x"])]);
        let new = layout(&[("/b", &["z", "x"]), ("/a", &["y"])]);
        assert_eq!(new.find_root(&old, 0), Some(RootId(1)));
        assert_eq!(new.find_remote(&old, 0), None);
        assert_eq!(new.find_remote(&old, 1), Some(RemoteId(2)));
        assert_eq!(new.find_remote(&old, 2), Some(RemoteId(1)));
        assert_eq!(new.rank(RemoteId(1)), Some(1));
    }
}
