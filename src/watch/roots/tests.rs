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
