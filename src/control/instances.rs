//! Finds all instances on this machine by their control sockets.
//! Does not connect to them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::SOCKET;
use crate::state::StateBases;

/// The kernel's table of Unix sockets.
const SOCKETS: &str = "/proc/net/unix";

/// The flag of a listening socket in the kernel's table.
const LISTENS: u32 = 0x1_0000;

/// The state directories of all instances that run, or were killed and left their socket. The result may contain
/// directories of other programs whose sockets have the same name.
pub fn find_all(places: &StateBases) -> Vec<PathBuf> {
    let table = fs::read(SOCKETS).unwrap_or_default();
    let mut found: BTreeSet<PathBuf> = listening(&table).collect();
    // Also look in the base directory: for sockets whose path is too long for the table, and those of killed instances.
    let entries = places.base().ok().and_then(|base| fs::read_dir(base).ok());
    let directories = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    found.extend(directories.filter(|directory| has_socket(directory)));
    found.into_iter().collect()
}

fn has_socket(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(SOCKET)).is_ok()
}

/// The listening sockets in the table. Each line is `Num RefCount Protocol Flags Type St Inode Path`.
fn listening(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        let (columns, path) = line.split_at(start);
        let columns = std::str::from_utf8(columns).ok()?;
        let flags = u32::from_str_radix(columns.split_ascii_whitespace().nth(3)?, 16).ok()?;
        let path = Path::new(OsStr::from_bytes(path));
        let is_ours = flags & LISTENS != 0 && path.file_name() == Some(OsStr::new(SOCKET));
        // Skip abstract names (`@`), and paths below /proc, which are relative to another process.
        let is_file = columns.ends_with(' ') && !path.starts_with("/proc");
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
