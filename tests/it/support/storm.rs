//! Random changes to a tree at full speed, from a seed: the same seed makes the same changes.
//! Knows nothing of mirrors. Never writes in place to a file with several names, because the kernel reports only one of them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Few names, so that changes often affect the same path.
const NAMES: [&str; 8] = ["a", "b", "c c", "#d", "-e", "f*", "\u{fc}", ".g"];
/// The maximum depth of directories.
const DEPTH: u64 = 4;
/// Larger files are cut.
const FILE_MAX: u64 = 1 << 20;

/// A seeded source of chance (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A new seed, or the one in `SERSYNC_SEED`.
    pub fn seed() -> u64 {
        let said = std::env::var("SERSYNC_SEED").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        said.unwrap_or(now.as_nanos() as u64)
    }

    /// The seed in `SERSYNC_SEED`, or this one.
    pub fn seed_or(otherwise: u64) -> u64 {
        std::env::var_os("SERSYNC_SEED").map_or(otherwise, |_| Self::seed())
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    /// A random index below `length`.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One element of `from`.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

/// Changes below `root`, and to and from `outside` on the same file system.
#[derive(Debug)]
pub struct Storm {
    root: PathBuf,
    outside: PathBuf,
    chance: Chance,
    /// How many changes were tried so far.
    pub count: u64,
}

impl Storm {
    pub fn new(root: &Path, outside: &Path, seed: u64) -> Self {
        Self { root: root.into(), outside: outside.into(), chance: Chance::new(seed), count: 0 }
    }

    /// Makes one change, or tries one that is impossible at the moment.
    pub fn step(&mut self) {
        self.count += 1;
        let path = self.path();
        // Ignore errors: some changes are impossible at the moment (a parent that is a file, a name that is taken).
        let _ = match self.chance.below(100) {
            0..30 => self.write(&path),
            30..38 => self.append(&path),
            38..42 => self.truncate(&path),
            42..50 => fs::create_dir_all(&path),
            50..62 => fs::rename(&path, self.path()),
            62..66 => fs::rename(&path, self.outside_path()),
            66..70 => fs::rename(self.outside_path(), &path),
            70..80 => fs::remove_file(&path),
            80..83 => fs::remove_dir_all(&path),
            83..88 => self.chmod(&path),
            88..92 => symlink(self.chance.pick(&["/etc/passwd", "nowhere", "..", "a"]), &path),
            92..95 => fs::hard_link(&path, self.path()),
            95..97 => fifo(&path),
            _ => self.touch(&path),
        };
    }

    /// Saves a file as tools do it: content in pieces, a new name, then mode and time.
    pub fn save_in_steps(&mut self) {
        self.count += 1;
        let path = self.path();
        let _ = self.save(&path);
    }

    fn save(&mut self, path: &Path) -> std::io::Result<()> {
        let temp = path.with_extension("part");
        if !may_write(path) || !may_write(&temp) {
            return Ok(());
        }
        fs::write(&temp, self.bytes())?;
        fs::set_permissions(&temp, Permissions::from_mode(0o600))?;
        self.append(&temp)?;
        fs::rename(&temp, path)?;
        self.chmod(path)?;
        self.touch(path)
    }

    fn path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..=self.chance.below(DEPTH) {
            path.push(self.chance.pick(&NAMES));
        }
        path
    }

    fn outside_path(&mut self) -> PathBuf {
        self.outside.join(self.chance.pick(&NAMES))
    }

    fn bytes(&mut self) -> Vec<u8> {
        // The length is often the same, so that only the time shows the change.
        let len = match self.chance.below(20) {
            0 => self.chance.below(300_000),
            1..8 => self.chance.below(5_000),
            _ => 64,
        };
        let seed = self.chance.below(u64::MAX);
        (0..len).map(|i| (seed.wrapping_mul(i | 1) >> 24) as u8).collect()
    }

    fn write(&mut self, path: &Path) -> std::io::Result<()> {
        let bytes = self.bytes();
        if self.chance.below(4) == 0 {
            // Replace by a rename, as careful programs do.
            let temp = path.with_extension("new");
            fs::write(&temp, bytes)?;
            return fs::rename(temp, path);
        }
        if !may_write(path) {
            return Ok(());
        }
        fs::write(path, bytes)
    }

    fn append(&mut self, path: &Path) -> std::io::Result<()> {
        let bytes = self.bytes();
        if !may_write(path) || fs::metadata(path)?.len() > FILE_MAX {
            return Ok(());
        }
        OpenOptions::new().append(true).open(path)?.write_all(&bytes)
    }

    fn truncate(&mut self, path: &Path) -> std::io::Result<()> {
        if !may_write(path) {
            return Ok(());
        }
        let len = self.chance.below(2_000);
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    fn chmod(&mut self, path: &Path) -> std::io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        if meta.is_symlink() || meta.is_file() && meta.nlink() > 1 {
            return Ok(());
        }
        let modes: &[u32] =
            if meta.is_dir() { &[0o755, 0o700, 0o775] } else { &[0o644, 0o600, 0o755] };
        fs::set_permissions(path, Permissions::from_mode(*self.chance.pick(modes)))
    }

    fn touch(&mut self, path: &Path) -> std::io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() || meta.nlink() > 1 {
            return Ok(());
        }
        let age = Duration::from_millis(self.chance.below(1_000_000_000));
        File::open(path)?.set_modified(SystemTime::now() - age)
    }
}

/// True for a regular file with one name, and for a free name.
fn may_write(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or(true, |meta| meta.is_file() && meta.nlink() == 1)
}

fn fifo(path: &Path) -> std::io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0)?)
}
