//! Finds all instances on this machine by their control sockets.
//! Does not connect to them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::SOCKET;
use crate::state::{LOCK, StateBases};

/// The kernel's table of Unix sockets.
const SOCKETS: &str = "/proc/net/unix";

/// The flag of a listening socket in the kernel's table.
const LISTENS: u32 = 0x1_0000;

/// The state directories of all instances that run, or were killed and left their socket. The result may contain
/// directories of other programs whose sockets have the same name.
pub fn find_all(places: &StateBases) -> Vec<PathBuf> {
    let table = fs::read(SOCKETS).unwrap_or_default();
    let mut found: BTreeSet<PathBuf> = listening(&table).collect();
    if has_hidden_names(&table) {
        found.extend(locked_directories());
    }
    // Also look in the base directory, for the sockets of killed instances.
    let entries = places.base().ok().and_then(|base| fs::read_dir(base).ok());
    let directories = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    found.extend(directories.filter(|directory| has_socket(directory)));
    found.into_iter().collect()
}

fn has_socket(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(SOCKET)).is_ok()
}

/// True when an instance listens whose path is too long for the table: it stands there below /proc.
fn has_hidden_names(table: &[u8]) -> bool {
    sockets(table).any(|directory| directory.starts_with("/proc"))
}

/// The state directories whose lock some process holds open.
fn locked_directories() -> impl Iterator<Item = PathBuf> {
    let inside = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let open = inside("/proc".into()).flat_map(move |process| inside(process.path().join("fd")));
    let files = open.filter_map(|link| fs::read_link(link.path()).ok());
    let locks = files.filter(|file| file.file_name() == Some(OsStr::new(LOCK)));
    let directories = locks.filter_map(|lock| lock.parent().map(Path::to_path_buf));
    directories.filter(|directory| has_socket(directory))
}

/// The state directories of the listening sockets in the table.
fn listening(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    // Paths below /proc are relative to another process.
    sockets(table).filter(|directory| !directory.starts_with("/proc"))
}

/// The directories of the listening sockets in the table that have our name. Each line is
/// `Num RefCount Protocol Flags Type St Inode Path`.
fn sockets(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        let (columns, path) = line.split_at(start);
        let columns = std::str::from_utf8(columns).ok()?;
        let flags = u32::from_str_radix(columns.split_ascii_whitespace().nth(3)?, 16).ok()?;
        let path = Path::new(OsStr::from_bytes(path));
        let is_ours = flags & LISTENS != 0 && path.file_name() == Some(OsStr::new(SOCKET));
        // Skip abstract names (`@`).
        let is_file = columns.ends_with(' ');
        let directory = path.parent().filter(|_| is_ours && is_file)?;
        Some(directory.to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_listens_under_our_name_is_found() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16163 /var/lib/sersync/a b/control.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 16164 /var/lib/sersync/other/control.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16165 /run/docker.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16165 /proc/self/fd/7/control.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16166 @/abstract/control.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16166\n";
        let found: Vec<_> = listening(table).collect();
        assert_eq!(found[0], Path::new("/var/lib/sersync/a b"));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn one_with_a_path_too_long_for_the_table_is_found_by_its_lock() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("d".repeat(200));
        fs::create_dir(&directory).unwrap();
        let _listener = super::super::socket::listen_in(&directory).unwrap();
        let _lock = fs::File::create(directory.join(LOCK)).unwrap();
        let found = find_all(&StateBases::default());
        assert!(found.contains(&fs::canonicalize(&directory).unwrap()), "{found:?}");
    }

    #[test]
    fn one_that_was_killed_is_found_by_what_it_left() {
        let base = tempfile::tempdir().unwrap();
        for (name, file) in [("killed", SOCKET), ("ended", "journal")] {
            fs::create_dir(base.path().join(name)).unwrap();
            fs::write(base.path().join(name).join(file), "").unwrap();
        }
        let places = StateBases { explicit: Some(base.path().into()), ..StateBases::default() };
        let found = find_all(&places);
        assert!(found.contains(&base.path().join("killed")));
        assert!(!found.contains(&base.path().join("ended")));
    }
}
