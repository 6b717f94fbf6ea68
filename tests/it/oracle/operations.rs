//! Random operations on a small tree, from a seed. There are few names, so that operations and rules affect the same paths.
//! People and programs do such operations; one that is impossible at the moment is skipped.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Result, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::storm::Chance;

const NAMES: [&str; 9] = ["a", "b", "cache", "d", "x.o", "x.c", "e f", "core", "h"];

/// Files that hold rules for their directory.
const RULE_FILES: [&str; 3] = [".rsync-filter", ".rules", ".cvsignore"];

/// Operations below `root`. Entries are moved out of the tree to `outside`, on the same file system.
pub struct Operations {
    root: PathBuf,
    outside: PathBuf,
    chance: Chance,
    per_directory: bool,
    /// Operations so far.
    pub count: usize,
    /// What was done, to repeat it.
    pub log: Vec<String>,
}

impl Operations {
    pub fn new(root: &Path, outside: &Path, seed: u64) -> Self {
        let chance = Chance::new(seed);
        Self {
            root: root.into(),
            outside: outside.into(),
            chance,
            per_directory: false,
            count: 0,
            log: Vec::new(),
        }
    }

    /// Sets whether files with rules are created and deleted too.
    pub fn with_rule_files(&mut self, wanted: bool) {
        self.per_directory = wanted;
    }

    /// Does one operation; gives up after several that are impossible.
    pub fn step(&mut self) {
        for _ in 0..50 {
            let (path, other) = (self.path(), self.path());
            let rules = self.per_directory && self.chance.below(8) == 0;
            let kind = if rules { 99 } else { self.chance.below(100) };
            let (name, done) = match kind {
                0..22 => ("write", self.write(&path)),
                22..28 => ("append", self.append(&path)),
                28..34 => ("replace", self.replace(&path)),
                34..42 => ("mkdir -p", fs::create_dir_all(&path)),
                42..54 => ("mv", rename(&path, &other)),
                54..58 => ("mv out", rename(&path, &self.outside_path())),
                58..63 => ("mv in", rename(&self.outside_path(), &path)),
                63..72 => ("rm", fs::remove_file(&path)),
                72..76 => ("rm -r", fs::remove_dir_all(&path)),
                76..80 => ("chmod", self.chmod(&path)),
                80..84 => ("touch", self.touch(&path)),
                84..90 => ("ln -s", self.link(&path)),
                90..94 => ("ln", fs::hard_link(&path, &other)),
                94..97 => ("write in", self.write_below(&path)),
                _ if self.per_directory => ("rules", self.rules(&path)),
                _ => ("overwrite", self.overwrite(&path)),
            };
            if done.is_ok() {
                self.count += 1;
                let shown = |path: &Path| {
                    path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
                };
                self.log.push(format!(
                    "{name} {} {}",
                    shown(&path),
                    if name.starts_with("mv") || name == "ln" {
                        shown(&other)
                    } else {
                        String::new()
                    }
                ));
                return;
            }
        }
    }

    fn path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..=self.chance.below(3) {
            path.push(NAMES[self.chance.below(NAMES.len() as u64) as usize]);
        }
        path
    }

    fn outside_path(&mut self) -> PathBuf {
        self.outside.join(NAMES[self.chance.below(3) as usize])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [64, 64, 64, 90, 1_500, 5_000][self.chance.below(6) as usize];
        let seed = self.chance.below(u64::MAX);
        (0..length).map(|i| (seed.wrapping_mul(i | 1) >> 24) as u8).collect()
    }

    fn write(&mut self, path: &Path) -> Result<()> {
        let is_free = fs::symlink_metadata(path).map_or(true, |meta| meta.is_file());
        let bytes = self.bytes();
        if is_free { fs::write(path, bytes) } else { Err(std::io::ErrorKind::AlreadyExists.into()) }
    }

    /// Writes a file, and creates its parent directories.
    fn write_below(&mut self, path: &Path) -> Result<()> {
        let bytes = self.bytes();
        fs::create_dir_all(path)?;
        fs::write(path.join("x.c"), &bytes)?;
        fs::write(path.join("x.o"), &bytes)
    }

    /// Overwrites a file with the same length, so that only time and content differ.
    fn overwrite(&mut self, path: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let byte = self.chance.below(250) as u8;
        OpenOptions::new().write(true).open(path)?.write_all(&vec![byte; meta.len() as usize])
    }

    fn append(&mut self, path: &Path) -> Result<()> {
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let bytes = self.bytes();
        OpenOptions::new().append(true).open(path)?.write_all(&bytes)
    }

    /// Replaces a file by a rename, as careful programs do.
    fn replace(&mut self, path: &Path) -> Result<()> {
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let temporary = path.with_extension("new");
        fs::write(&temporary, self.bytes())?;
        fs::rename(temporary, path)
    }

    fn chmod(&mut self, path: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(path)?;
        if meta.is_symlink() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let modes: &[u32] = if meta.is_dir() { &[0o755, 0o700] } else { &[0o644, 0o600, 0o755] };
        let mode = modes[self.chance.below(modes.len() as u64) as usize];
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn touch(&mut self, path: &Path) -> Result<()> {
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let age = Duration::from_secs(self.chance.below(1_000_000));
        // Set both times, as `touch` does: the kernel reports a change of the modification time alone as a write (IN_MODIFY).
        let time = SystemTime::now() - age;
        File::open(path)?.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time))
    }

    fn link(&mut self, path: &Path) -> Result<()> {
        let targets = ["a", "d", "../a", "nowhere", "x.c", "/etc/hostname", "../../../../beside"];
        symlink(targets[self.chance.below(targets.len() as u64) as usize], path)
    }

    fn rules(&mut self, directory: &Path) -> Result<()> {
        if !fs::symlink_metadata(directory)?.is_dir() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let file = directory.join(RULE_FILES[self.chance.below(3) as usize]);
        if self.chance.below(4) == 0 {
            fs::remove_file(file)
        } else {
            fs::write(file, "- x.o\n- b\n")
        }
    }
}

/// Renames like `mv`: never into itself, and never over a directory that is not empty.
fn rename(from: &Path, to: &Path) -> Result<()> {
    if from == to || to.starts_with(from) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    fs::rename(from, to)
}
