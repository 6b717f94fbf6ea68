//! A small NTFS of its own that ignores case, shows every name in lower case, and keeps neither modes nor owners.
//! Needs FUSE; a test that cannot have it says so and ends.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use super::{TestDir, not_installed, skipped};

/// A mounted NTFS; unmounted when dropped.
pub struct Ntfs {
    at: PathBuf,
    _image: TestDir,
}

impl Ntfs {
    /// Makes one and mounts it at the directory `at`; `None` (and a line that says so) where that is not possible.
    pub fn mount(at: &Path) -> Option<Self> {
        // Many containers do not have it, even for root.
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            eprintln!("skipped: cannot open /dev/fuse: {error}");
            return None;
        }
        let image = TestDir::new();
        let file = image.file("image", "");
        File::options().write(true).open(&file).unwrap().set_len(16 << 20).unwrap();
        let file = file.to_str().unwrap();
        run("/usr/sbin/mkntfs", &["--force", "--quick", "--quiet", file])?;
        fs::create_dir_all(at).unwrap();
        run("lowntfs-3g", &["-o", "ignore_case", file, at.to_str().unwrap()])?;
        Some(Self { at: at.into(), _image: image })
    }
}

impl Drop for Ntfs {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// `None`, and a line that says so, when the program fails or is not there.
fn run(program: &str, words: &[&str]) -> Option<()> {
    let Ok(output) = Command::new(program).args(words).output() else {
        not_installed(program);
        return None;
    };
    if !output.status.success() {
        skipped(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(())
}
