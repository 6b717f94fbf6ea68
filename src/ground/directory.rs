//! Lists an open directory of any length, on file systems that report the types of entries and on others.
//! Does not descend.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

/// Calls `each` with every name in the open directory, and with its type if the file system reports it. Ends at the first error,
/// including one of `each`.
pub fn each_entry<E: From<Errno>>(
    dir: impl AsFd,
    mut each: impl FnMut(&CStr, FileType) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// Calls `each` with every name in the open directory, and whether it is a directory.
pub fn list(dir: impl AsFd, mut each: impl FnMut(&[u8], bool)) -> io::Result<()> {
    let dir = dir.as_fd();
    each_entry(dir, |name, told| {
        let file_type = match told {
            FileType::Unknown => match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(io::Error::from(error)),
            },
            told => told,
        };
        each(name.to_bytes(), file_type == FileType::Directory);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_once_and_a_link_to_a_directory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        for number in 0..2_000 {
            std::fs::write(dir.path().join(format!("a file with a long name {number}")), "")
                .unwrap();
        }
        let mut found = Vec::new();
        let opened = std::fs::File::open(dir.path()).unwrap();
        list(&opened, |name, is_dir| found.push((name.to_vec(), is_dir))).unwrap();
        found.sort();
        assert_eq!(found.len(), 2_002);
        assert_eq!(found[2_000..], [(b"d".to_vec(), true), (b"link".to_vec(), false)]);
    }
}
