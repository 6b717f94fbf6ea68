//! The fail log: a script with a command for each path that is not delivered, which an operator may run by hand.
//! This program generates it from its state, and never executes it or reads it back.
//!
//! A new file is renamed over the old one, so nothing at its path (a link, a fifo, somebody else's file) is ever opened for
//! writing. Devices and directories are left alone, with a warning.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::ground::printable::is_unprintable;

/// The beginning of every fail log of ours. A file that begins otherwise is from sersync2.
const HEADER: &str = "#!/bin/sh\n# sersync fail log: what is not delivered yet. It is tried again by itself, and \
    this file is emptied then.\n# Nothing executes this file; a command may be run by hand.\n";

/// One command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCommand {
    /// rsync's exit code.
    pub code: i32,
    /// The directory in which to run the command.
    pub root: PathBuf,
    /// Its words, `rsync` first.
    pub words: Vec<OsString>,
}

/// The file at `<failLog path>`.
#[derive(Debug)]
pub struct FailLog {
    path: PathBuf,
    /// What we wrote last; `None`: the content of the file is not known.
    written: Option<Vec<u8>>,
    warned: bool,
}

impl FailLog {
    /// Takes over the fail log at `path`. A script that sersync2 left is renamed to `.legacy`.
    pub fn open(path: &Path) -> Self {
        let log = Self { path: path.to_path_buf(), written: None, warned: false };
        match log.set_legacy_aside() {
            Ok(None) => {}
            Ok(Some(aside)) => log::warn!(
                "the fail log {} holds commands of an earlier program: kept as {}, not executed; look at them before \
                you run them, or sync once with -r",
                path.display(),
                aside.display()
            ),
            Err(e) => log::warn!(
                "cannot set the old fail log {} aside: {e}; look at its owner and the rights of its directory",
                path.display()
            ),
        }
        log
    }

    /// Replaces the content of the fail log with these commands. Warns once if that fails.
    pub fn write(&mut self, failures: &[FailedCommand]) {
        let text = script(failures);
        if self.written.as_ref() == Some(&text) {
            return;
        }
        match self.replace(&text) {
            Ok(()) => {
                self.warned = false;
                self.written = Some(text);
            }
            Err(e) => {
                self.written = None;
                if !self.warned {
                    log::warn!(
                        "cannot write the fail log {}: {e}; correct path=\"…\" in <failLog>, or make that \
                         directory writable for this user; what fails is tried again all the same",
                        self.path.display()
                    );
                }
                self.warned = true;
            }
        }
    }

    fn dir(&self) -> &Path {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        match fs::symlink_metadata(&self.path).map(|found| found.file_type()) {
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                // /dev/null means no fail log; renaming over it would destroy it for all programs.
                return if self.path == Path::new("/dev/null") {
                    Ok(())
                } else {
                    Err(io::Error::other("it is a device"))
                };
            }
            Ok(kind) if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && text.is_empty() => return Ok(()),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o750).create(self.dir())?;
        // The error contains the name of the temporary file, which would confuse operators.
        let bare = |e: io::Error| io::Error::from(e.kind());
        let file = tempfile::Builder::new().prefix(".sersync-fail-log-").tempfile_in(self.dir());
        let mut file = file.map_err(bare)?;
        file.write_all(text)?;
        file.as_file().set_permissions(Permissions::from_mode(0o640))?;
        file.persist(&self.path)?;
        Ok(())
    }

    /// Renames a non-empty script that is not ours; returns its new name.
    fn set_legacy_aside(&self) -> io::Result<Option<PathBuf>> {
        // Open neither a fifo, which would block, nor a link, which may lead anywhere.
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_file() && found.len() > 0 => found,
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file =
            OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&self.path)?;
        let mut start = Vec::new();
        (&file).take(HEADER.len() as u64).read_to_end(&mut start)?;
        if start == HEADER.as_bytes() {
            return Ok(None);
        }
        let aside = self.rename_aside()?;
        if found.uid() == rustix::process::geteuid().as_raw() {
            take_rights(&file)?;
        }
        Ok(Some(aside))
    }

    /// Appends `.legacy`, `.legacy.1`, … to the file's name: the first that is free. Never replaces a file.
    fn rename_aside(&self) -> io::Result<PathBuf> {
        for number in 0..100 {
            let mut name = self.path.clone().into_os_string();
            name.push(".legacy");
            if number > 0 {
                name.push(format!(".{number}"));
            }
            match renameat_with(CWD, &self.path, CWD, &name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(name.into()),
                Err(Errno::EXIST) => {}
                // The file system does not know the flag.
                Err(Errno::INVAL) if fs::symlink_metadata(&name).is_err() => {
                    fs::rename(&self.path, &name)?;
                    return Ok(name.into());
                }
                Err(Errno::INVAL) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(io::Error::other("there are too many old ones"))
    }
}

/// Removes the write permission for others. sersync2 left its script with mode 0777, and an administrator may run it.
fn take_rights(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    // A file with other hard links may be any file of the system.
    if found.is_file() && found.nlink() == 1 {
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    Ok(())
}

/// The script; empty when nothing failed.
fn script(failures: &[FailedCommand]) -> Vec<u8> {
    let mut text = Vec::new();
    for failure in failures {
        let Some(command) = shell_command(failure) else {
            continue;
        };
        if text.is_empty() {
            text.extend_from_slice(HEADER.as_bytes());
        }
        text.extend_from_slice(format!("#errno {}\n", failure.code).as_bytes());
        text.extend_from_slice(&command);
        text.push(b'\n');
    }
    text
}

/// `cd ROOT && WORD…`, quoted so that a shell reads exactly these words; `None` for words that no command can have (NUL).
fn shell_command(failure: &FailedCommand) -> Option<Vec<u8>> {
    let mut text = b"cd ".to_vec();
    let root = failure.root.as_os_str().as_bytes();
    // `cd` would take a directory called `-` or `-P` for an option, even in quotes.
    if root.starts_with(b"-") {
        text.extend_from_slice(b"./");
    }
    text.extend_from_slice(&shell_word(root)?);
    text.extend_from_slice(b" &&");
    for word in &failure.words {
        text.push(b' ');
        text.extend_from_slice(&shell_word(word.as_bytes())?);
    }
    Some(text)
}

/// `word`, quoted for a shell; `None` when no command can contain it. Characters that move the cursor or change the direction of
/// the text become octal escapes, which the shell's printf decodes.
fn shell_word(word: &[u8]) -> Option<Vec<u8>> {
    let hides = |c: char| c != '\n' && is_unprintable(c);
    if !word.utf8_chunks().any(|chunk| chunk.valid().contains(hides)) {
        return Some(shlex::bytes::try_quote(word).ok()?.into_owned());
    }
    let mut quoted = Vec::new();
    for chunk in word.utf8_chunks() {
        for part in chunk.valid().split_inclusive(hides) {
            let hidden = part.chars().next_back().filter(|c| hides(*c));
            let shown = &part[..part.len() - hidden.map_or(0, char::len_utf8)];
            quote_into(&mut quoted, shown.as_bytes())?;
            if let Some(hidden) = hidden {
                let octal: String = hidden
                    .encode_utf8(&mut [0; 4])
                    .bytes()
                    .map(|byte| format!("\\{byte:03o}"))
                    .collect();
                quoted.extend_from_slice(format!("\"$(printf '{octal}')\"").as_bytes());
            }
        }
        quote_into(&mut quoted, chunk.invalid())?;
    }
    Some(quoted)
}

fn quote_into(quoted: &mut Vec<u8>, part: &[u8]) -> Option<()> {
    if !part.is_empty() {
        quoted.extend_from_slice(&shlex::bytes::try_quote(part).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests;
