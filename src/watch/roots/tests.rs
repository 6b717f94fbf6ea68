//! What the sentinel takes for news.

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
    // Where the way ends early, what is made there may be the missing step.
    fs::create_dir(place("above")).unwrap();
    assert!(roots.hear());
}
