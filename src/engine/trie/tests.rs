//! What the trie promises.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn remove(trie: &mut Trie<u8>, path: &RelPath) -> Option<u8> {
    trie.find(path).and_then(|at| trie.remove_at(at))
}

fn values(node: &TrieNode<u8>, at: &RelPath, found: &mut BTreeMap<RelPath, u8>) {
    found.extend(node.value.map(|value| (at.clone(), value)));
    for (name, child) in node.children() {
        assert!(!child.is_empty(), "nothing hangs at {at}");
        values(&child, &at.join(name).unwrap(), found);
    }
}

#[test]
fn what_an_emptied_trie_took_goes_back() {
    let mut trie = Trie::default();
    let paths: Vec<_> = (0..20_000).map(|n| path(&format!("{}/name {n}", n % 100))).collect();
    paths.iter().for_each(|path| _ = trie.insert(path, 0));
    paths[..19_000].iter().for_each(|path| _ = remove(&mut trie, path));
    assert!(trie.names.len() < 30_000, "{} bytes of names", trie.names.len());
    assert!(paths[19_000..].iter().all(|path| remove(&mut trie, path) == Some(0)));
    assert!(trie.root().is_empty());
    assert!(trie.slots.capacity() <= KEPT && trie.names.capacity() == 0);
    assert!(trie.by_name.capacity() <= 2 * KEPT && trie.free.capacity() == 0);
}

#[test]
fn a_trie_that_is_mostly_gaps_gives_them_back_and_keeps_the_rest_in_order() {
    let mut trie = Trie::default();
    let paths: Vec<_> = (0..20_000).map(|n| path(&format!("{}/name {n}", n % 100))).collect();
    paths.iter().for_each(|path| _ = trie.insert(path, 1));
    let listed = |trie: &Trie<u8>| {
        let names =
            |node: TrieNode<'_, u8>| node.children().map(|(name, _)| name.to_vec()).collect();
        let below: Vec<Vec<_>> = trie.root().children().map(|(_, node)| names(node)).collect();
        below
    };
    paths[..10_000].iter().for_each(|path| _ = remove(&mut trie, path));
    trie.compact();
    assert!(trie.slots.capacity() > 20_000, "half full is no reason");
    paths[10_000..19_900].iter().for_each(|path| _ = remove(&mut trie, path));
    let before = listed(&trie);
    trie.compact();
    assert_eq!(listed(&trie), before);
    assert!(trie.slots.capacity() < 1_000 && trie.free.is_empty());
    assert!(paths[19_900..].iter().all(|path| remove(&mut trie, path) == Some(1)));
    assert!(trie.root().is_empty());
}

#[test]
fn children_stand_in_the_order_in_which_they_came() {
    let mut trie = Trie::default();
    ["c", "a", "b", "d"].iter().for_each(|name| _ = trie.insert(&path(name), 0));
    remove(&mut trie, &path("a"));
    trie.insert(&path("a"), 0);
    let names: Vec<_> = trie.root().children().map(|(name, _)| name).collect();
    assert_eq!(names, [b"c", b"b", b"d", b"a"]);
}

proptest! {
    #[test]
    fn it_holds_what_a_map_would(
        steps in proptest::collection::vec(("[ab]{0,2}(/[ab]{1,2}){0,3}", 0u8..4), 1..60)
    ) {
        let mut trie = Trie::default();
        let mut map: BTreeMap<RelPath, u8> = BTreeMap::new();
        for (text, what) in steps {
            let path = path(text.trim_start_matches('/'));
            match what {
                0 => prop_assert_eq!(remove(&mut trie, &path), map.remove(&path)),
                1 => {
                    let mut gone = 0;
                    if let Some(at) = trie.find(&path) {
                        trie.cut_below(at, |_| gone += 1);
                        trie.remove_at(at);
                    }
                    let before = map.len();
                    map.retain(|other, _| !other.is_within(&path) || *other == path);
                    prop_assert_eq!(gone, before - map.len());
                    map.remove(&path);
                }
                value => prop_assert_eq!(trie.insert(&path, value), map.insert(path, value)),
            }
            let mut found = BTreeMap::new();
            values(&trie.root(), &RelPath::root(), &mut found);
            prop_assert_eq!(&found, &map);
        }
    }
}
