//! The mount table of this process: which mount covers a path, and what is mounted below it.
//! Reads the open /proc/self/mountinfo when asked. The caller polls it for changes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::ground::octal::unescape;
use crate::path::RelPath;

/// Where the kernel lists the mounts; a poll for POLLPRI on it reports changes.
pub const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Mount points with the number of the mount that is on top there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mounts(BTreeMap<PathBuf, u64>);

impl Mounts {
    /// The mounts as they are now.
    pub fn now() -> io::Result<Self> {
        Self::read(&File::open(MOUNT_TABLE)?)
    }

    /// The mounts as they are now, read from the open table: a shortage of descriptors must not hide a mount.
    pub fn read(mut table: &File) -> io::Result<Self> {
        let mut text = Vec::new();
        table.rewind()?;
        table.read_to_end(&mut text)?;
        Ok(Self::parse(&text))
    }

    fn parse(table: &[u8]) -> Self {
        let lines = table.split(|&b| b == b'\n');
        Self(lines.filter_map(parse_line).collect())
    }

    /// The deepest mount point at or above the absolute path, and the number of its mount.
    pub fn covering(&self, path: &Path) -> Option<(&Path, u64)> {
        let found = path.ancestors().find_map(|at| self.0.get_key_value(at))?;
        Some((found.0, *found.1))
    }

    /// What is mounted below the absolute path, relative to it.
    pub fn below(&self, path: &Path) -> BTreeMap<RelPath, u64> {
        let inside = |(point, id): (&PathBuf, &u64)| {
            let rest = point.strip_prefix(path).ok()?;
            let rest = RelPath::new(rest.as_os_str().as_bytes())?;
            (!rest.is_root()).then_some((rest, *id))
        };
        self.0.iter().filter_map(inside).collect()
    }
}

/// `36 35 98:0 /root /mount\040point …` -> the mount point and the mount's number.
fn parse_line(line: &[u8]) -> Option<(PathBuf, u64)> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?, b"\\");
    Some((PathBuf::from(OsString::from_vec(point)), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
        2 1 0:5 / /data\\040x rw shared:1 - tmpfs t rw\n\
        3 2 0:6 /sub /data\\040x/a/b rw - tmpfs t rw\n\
        4 2 0:7 / /data\\040x/a/b rw - tmpfs t rw\n";

    #[test]
    fn the_last_of_several_mounts_on_one_point_counts() {
        let mounts = Mounts::parse(TABLE);
        let below = mounts.below(Path::new("/data x"));
        let expected = RelPath::new(b"a/b").unwrap();
        assert_eq!(below.into_iter().collect::<Vec<_>>(), [(expected, 4)]);
    }

    #[test]
    fn the_deepest_mount_covers() {
        let mounts = Mounts::parse(TABLE);
        let covering = |path| mounts.covering(Path::new(path)).unwrap().1;
        assert_eq!(covering("/data x/a/b/c"), 4);
        assert_eq!(covering("/data x/a"), 2);
        assert_eq!(covering("/data xy"), 1);
    }
}
