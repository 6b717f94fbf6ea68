//! Tests of the tree of watched directories.

use super::*;

const ROOT: RootId = RootId(0);

/// A tree with these directories; the watch of each is its position in the list, and that of the root is 0.
fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::default();
    let root = tree.add_root(ROOT);
    assert_eq!(tree.set_wd(root, Some(0)), None);
    for (wd, path) in paths.iter().enumerate() {
        let dir = path.split('/').fold(root, |dir, name| tree.insert(dir, name.as_bytes()));
        assert_eq!(tree.set_wd(dir, Some(wd as i32 + 1)), None);
    }
    tree
}

fn paths_of(tree: &Tree, wd: i32) -> Vec<String> {
    let dirs = tree.watched_by(wd);
    let paths = dirs.into_iter().filter_map(|dir| tree.path(dir));
    paths.map(|(_, path)| path.to_string()).collect()
}

fn dir(tree: &Tree, wd: i32) -> DirId {
    tree.watched_by(wd)[0]
}

#[test]
fn a_moved_directory_takes_all_below_along() {
    let mut tree = tree(&["a", "a/b", "a/b/c", "x"]);
    tree.detach(dir(&tree, 2));
    assert_eq!(paths_of(&tree, 3), Vec::<String>::new());
    tree.attach(dir(&tree, 2), dir(&tree, 4), b"new");
    assert_eq!(paths_of(&tree, 3), ["x/new/c"]);
    assert_eq!(tree.child(dir(&tree, 1), b"b"), None);
    assert_eq!(tree.child(dir(&tree, 4), b"new"), Some(dir(&tree, 2)));
}

#[test]
fn a_forgotten_subtree_returns_its_watches() {
    let mut tree = tree(&["a", "a/b", "a/b/c", "x"]);
    let mut gone = tree.forget(dir(&tree, 1));
    gone.sort();
    assert_eq!(gone, [1, 2, 3]);
    assert_eq!(tree.len(), 2);
    assert!(tree.watched_by(2).is_empty());
    let again = tree.insert(dir(&tree, 0), b"a");
    assert!(tree.children(again).is_empty());
}

#[test]
fn a_shared_watch_stays_until_its_last_directory_goes() {
    let mut tree = tree(&["a", "b", "c"]);
    for other in [2, 3] {
        assert_eq!(tree.set_wd(dir(&tree, other), Some(1)), Some(other));
    }
    let mut paths = paths_of(&tree, 1);
    paths.sort();
    assert_eq!(paths, ["a", "b", "c"]);
    let root = dir(&tree, 0);
    for name in [b"a", b"c"] {
        let gone = tree.child(root, name).unwrap();
        assert_eq!(tree.forget(gone), Vec::<i32>::new());
    }
    assert_eq!(paths_of(&tree, 1), ["b"]);
    assert_eq!(tree.forget(dir(&tree, 1)), [1]);
}

#[test]
fn names_survive_being_compacted() {
    let mut tree = tree(&["kept", "kept/below"]);
    tree.set_hides_excluded(dir(&tree, 2), true);
    for n in 0..5_000 {
        let name = format!("directory-{n}");
        let dir = tree.insert(dir(&tree, 0), name.as_bytes());
        assert!(tree.forget(dir).is_empty());
    }
    assert!(tree.names.len() < 10_000);
    assert_eq!(paths_of(&tree, 2), ["kept/below"]);
    assert!(tree.hides_excluded(dir(&tree, 2)) && !tree.hides_excluded(dir(&tree, 1)));
}

#[test]
fn a_directory_costs_less_than_80_bytes() {
    let mut tree = Tree::default();
    let root = tree.add_root(ROOT);
    for n in 0..100_000 {
        let parent = match n % 10 {
            0 => root,
            _ => DirId(n - n % 10 + 1),
        };
        let dir = tree.insert(parent, format!("dir{n:06}").as_bytes());
        assert_eq!(tree.set_wd(dir, Some(n as i32)), None);
    }
    tree.shrink();
    let bytes = tree.memory() / tree.len();
    assert!(bytes <= 80, "{bytes} bytes");
    assert_eq!(tree.watched_by(99_999).len(), 1);
}
