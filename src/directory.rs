//! Lists and counts what is below an open root.
//! Never follows a symbolic link below the root. The caller decides what is excluded.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, openat};

use crate::change::Scope;
use crate::ground::directory::list;
use crate::path::RelPath;

/// Calls `each` with every name in the directory `path`, and whether it is a directory.
///
/// # Errors
/// The directory cannot be read, or not to its end.
pub fn each_name(root: impl AsFd, path: &RelPath, each: impl FnMut(&[u8], bool)) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    list(openat(root, as_path(path), flags, Mode::empty())?, each)
}

/// The entries of the directory `path`, each with whether it is a directory.
///
/// # Errors
/// As for [`each_name`].
pub fn entries(root: impl AsFd, path: &RelPath) -> io::Result<Vec<(RelPath, bool)>> {
    let mut found = Vec::new();
    each_name(root, path, |name, is_dir| found.extend(path.join(name).map(|at| (at, is_dir))))?;
    Ok(found)
}

/// Counts the entries below `path` that are not excluded; stops at `enough`.
pub fn count(
    root: impl AsFd,
    path: &RelPath,
    exclude: &dyn Fn(&RelPath, bool) -> bool,
    enough: u64,
) -> u64 {
    let mut found = 0;
    walk(root, path, exclude, Scope::Tree, |_, _| {
        if found >= enough {
            return ControlFlow::Break(());
        }
        found += 1;
        ControlFlow::Continue(())
    });
    found
}

/// Counts what is not a directory and not excluded in the directory `path`, and with [`Scope::Tree`] also below it.
pub fn count_files(
    root: impl AsFd,
    path: &RelPath,
    exclude: &dyn Fn(&RelPath, bool) -> bool,
    scope: Scope,
) -> u64 {
    let mut files = 0;
    walk(root, path, exclude, scope, |_, is_dir| {
        files += u64::from(!is_dir);
        ControlFlow::Continue(())
    });
    files
}

/// Calls `each` with every entry of the directory `path`, and whether it is a directory, until `each` breaks. With
/// [`Scope::Tree`] it descends. A directory that cannot be read counts as empty.
pub fn walk(
    root: impl AsFd,
    path: &RelPath,
    exclude: &dyn Fn(&RelPath, bool) -> bool,
    scope: Scope,
    mut each: impl FnMut(&RelPath, bool) -> ControlFlow<()>,
) {
    let mut todo = vec![path.clone()];
    while let Some(dir) = todo.pop() {
        for (path, is_dir) in entries(&root, &dir).unwrap_or_default() {
            if exclude(&path, is_dir) {
                continue;
            }
            if each(&path, is_dir).is_break() {
                return;
            }
            todo.extend((is_dir && scope == Scope::Tree).then_some(path));
        }
    }
}

/// The path as the kernel takes it beside an open root.
pub fn as_path(path: &RelPath) -> &OsStr {
    if path.is_root() { OsStr::new(".") } else { OsStr::from_bytes(path.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_tree_is_counted_without_what_is_excluded_and_no_further_than_needed() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "hidden/x/y", "d"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("a/f"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let hidden = |path: &RelPath, _: bool| path.as_bytes() == b"hidden";
        let counted = |enough| count(&root, &RelPath::root(), &hidden, enough);
        assert_eq!(counted(100), 6);
        assert_eq!(counted(4), 4);
        assert_eq!(counted(0), 0);
        let files = |scope| count_files(&root, &RelPath::root(), &hidden, scope);
        assert_eq!((files(Scope::Tree), files(Scope::Listing)), (2, 1));
    }
}
