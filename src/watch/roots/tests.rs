//! Tests of which events the sentinel regards as relevant.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn change_mode(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o750)).unwrap();
}

#[test]
fn what_stands_beside_the_way_to_a_root_is_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    for name in ["above", "above/root", "above/beside", "beside"] {
        fs::create_dir(place(name)).unwrap();
    }
    let root = Root::new(RootId(0), &place("above/root")).unwrap();
    let mut roots = Roots::new(vec![root]).unwrap();
    for name in ["beside", "above/beside"] {
        change_mode(&place(name));
        assert!(!roots.hear(), "{name}");
    }
    for name in ["above", "above/root"] {
        change_mode(&place(name));
        assert!(roots.hear(), "{name}");
        assert_eq!(roots.check(), []);
    }
    fs::rename(place("above"), place("elsewhere")).unwrap();
    assert!(roots.hear());
    assert!(matches!(roots.check()[..], [RootNews::Lost { .. }]));
    // If the path ends early, a created entry may be the missing step.
    fs::create_dir(place("above")).unwrap();
    assert!(roots.hear());
}

#[test]
fn what_a_link_on_the_way_leads_to_is_news_when_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir_all(place("far/target/root")).unwrap();
    std::os::unix::fs::symlink(place("far/target"), place("link")).unwrap();
    let root = Root::new(RootId(0), &place("link/root")).unwrap();
    let mut roots = Roots::new(vec![root]).unwrap();
    fs::rename(place("far/target"), place("far/away")).unwrap();
    assert!(roots.hear());
    assert!(matches!(roots.check()[..], [RootNews::Lost { .. }]));
    fs::rename(place("far/away"), place("far/target")).unwrap();
    assert!(roots.hear());
    assert_eq!(roots.check(), [RootNews::Back { root: RootId(0), replaced: false }]);
}

/// A root with a file system at `v`; it is lost. `place` is its path.
fn lost_root_with_a_volume(place: &Path) -> Root {
    fs::create_dir_all(place.join("v")).unwrap();
    let mut root = Root::new(RootId(0), place).unwrap();
    root.mounts = BTreeMap::from([(volume(), 7)]);
    fs::rename(place, place.with_extension("away")).unwrap();
    let mut news = Vec::new();
    root.check(Some(&Mounts::default()), &mut news);
    assert!(matches!(news[..], [RootNews::Lost { .. }]), "{news:?}");
    root
}

fn volume() -> RelPath {
    RelPath::new(b"v").unwrap()
}

fn news_of(root: &mut Root) -> Vec<RootNews> {
    let mut news = Vec::new();
    root.check(Some(&Mounts::default()), &mut news);
    news
}

#[test]
fn what_is_no_longer_mounted_below_a_root_is_lost_before_the_root_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("root");
    let mut root = lost_root_with_a_volume(&place);
    fs::rename(place.with_extension("away"), &place).unwrap();
    let news = news_of(&mut root);
    let back = RootNews::Back { root: RootId(0), replaced: false };
    assert!(matches!(&news[..], [RootNews::SubtreeLost { .. }, last] if *last == back), "{news:?}");
    // It stays lost while the root is away once more.
    fs::rename(&place, place.with_extension("away")).unwrap();
    assert!(matches!(news_of(&mut root)[..], [RootNews::Lost { .. }]));
    fs::rename(place.with_extension("away"), &place).unwrap();
    assert_eq!(news_of(&mut root), [back]);
    let mut news = Vec::new();
    root.check_mounts(BTreeMap::from([(volume(), 8)]), &mut news);
    assert_eq!(news, [RootNews::SubtreeBack { root: RootId(0), path: volume() }]);
}

#[test]
fn in_another_directory_a_file_system_is_missing_only_where_an_empty_directory_is() {
    let dir = tempfile::tempdir().unwrap();
    let back = RootNews::Back { root: RootId(0), replaced: true };
    for (name, other) in [("empty", "v"), ("full", "v/d"), ("none", "w")] {
        let place = dir.path().join(name);
        let mut root = lost_root_with_a_volume(&place);
        fs::create_dir_all(place.join(other)).unwrap();
        let news = news_of(&mut root);
        match name {
            "empty" => {
                assert!(matches!(&news[..], [RootNews::SubtreeLost { .. }, last] if *last == back));
            }
            _ => assert_eq!(news, std::slice::from_ref(&back), "{name}"),
        }
    }
}
