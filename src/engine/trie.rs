//! A trie of paths, one level per component: the shape under the pending set and under the paths in flight.
//! Knows nothing of scopes or remotes; a value may stand on any node.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::path::RelPath;

/// Children by name. Boxed in the node, so that the million leaves of a storm stay small.
type Children<T> = BTreeMap<Name, Node<T>>;

/// Names up to this length lie in the map itself: a search among thousands of them touches little memory.
const SHORT: usize = 22;

/// One path component.
#[derive(Debug, Clone)]
enum Name {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..name.len()) {
            Some(part) => {
                part.copy_from_slice(name);
                // At most 22, so nothing is cut off.
                let len = name.len() as u8;
                Self::Short { len, bytes }
            }
            None => Self::Long(name.into()),
        }
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        Borrow::<[u8]>::borrow(self).cmp(other.borrow())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Name {}

/// One path component and what hangs below it.
///
/// Invariant: a node without value and without children exists only as the root.
#[derive(Debug, Clone)]
pub struct Node<T> {
    /// What is said of this very path.
    pub value: Option<T>,
    children: Option<Box<Children<T>>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { value: None, children: None }
    }
}

impl<T> Node<T> {
    /// True when neither this path nor any below it has a value.
    pub fn is_empty(&self) -> bool {
        self.value.is_none() && self.children.is_none()
    }

    /// The child called `name`.
    pub fn child(&self, name: &[u8]) -> Option<&Node<T>> {
        self.children.as_ref()?.get(name)
    }

    /// Does something with the child called `name`, made when it is missing.
    pub fn with_child<R>(&mut self, name: &[u8], act: impl FnOnce(&mut Node<T>) -> R) -> R {
        let children = self.children.get_or_insert_default();
        // Looked up first: the usual case, a name that is there, allocates nothing.
        if let Some(child) = children.get_mut(name) {
            return act(child);
        }
        act(children.entry(name.into()).or_default())
    }

    /// The node at `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Node<T>> {
        path.components().try_fold(self, |node, name| node.child(name))
    }

    /// Sets the value at `path`; returns the one before.
    pub fn insert(&mut self, path: &RelPath, value: T) -> Option<T> {
        fn set<'a, T>(
            node: &mut Node<T>,
            mut names: impl Iterator<Item = &'a [u8]>,
            value: T,
        ) -> Option<T> {
            match names.next() {
                None => node.value.replace(value),
                Some(name) => node.with_child(name, |child| set(child, names, value)),
            }
        }
        set(self, path.components(), value)
    }

    /// True when a value stands at `path`, above it or below it.
    pub fn touches(&self, path: &RelPath) -> bool {
        let mut node = self;
        for name in path.components() {
            if node.value.is_some() {
                return true;
            }
            match node.child(name) {
                Some(child) => node = child,
                None => return false,
            }
        }
        !node.is_empty()
    }

    /// All children in name order.
    pub fn children(&self) -> impl Iterator<Item = (&[u8], &Node<T>)> {
        self.children.iter().flat_map(|c| c.iter()).map(|(name, node)| (name.borrow(), node))
    }

    /// Cuts off everything below this node and returns it.
    pub fn take_children(&mut self) -> impl Iterator<Item = Node<T>> + use<T> {
        self.children.take().into_iter().flat_map(|children| children.into_values())
    }

    /// Visits the children in name order until `visit` says stop; removes those that it left empty.
    pub fn visit_children(&mut self, mut visit: impl FnMut(&[u8], &mut Node<T>) -> Visit) {
        let Some(children) = &mut self.children else {
            return;
        };
        let mut emptied = Vec::new();
        for (name, node) in children.iter_mut() {
            let verdict = visit(name.borrow(), node);
            if node.is_empty() {
                emptied.push(name.clone());
            }
            if verdict == Visit::Stop {
                break;
            }
        }
        if emptied.len() == children.len() {
            self.children = None;
        } else {
            for name in emptied {
                children.remove::<Name>(&name);
            }
        }
    }

    /// Removes the value at `path`, and the nodes that only led to it.
    pub fn remove(&mut self, path: &RelPath) -> Option<T> {
        let names: Vec<&[u8]> = path.components().collect();
        self.remove_names(&names)
    }

    fn remove_names(&mut self, names: &[&[u8]]) -> Option<T> {
        let Some((name, rest)) = names.split_first() else {
            return self.value.take();
        };
        let children = self.children.as_mut()?;
        let child = children.get_mut(*name)?;
        let value = child.remove_names(rest);
        if child.is_empty() {
            children.remove(*name);
            if children.is_empty() {
                self.children = None;
            }
        }
        value
    }
}

/// Whether a visit goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// To the next child.
    On,
    /// No further.
    Stop,
}
