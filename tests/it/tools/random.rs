//! Random combinations of options and operations, each from a seed that is printed when the tools differ.
//! The short form runs always; the long one with `SERSYNC_ROUNDS=N cargo test --test it tools::random -- --ignored`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::options::{EVENTS, append, read_some, tree};
use super::pair::{Operation, Pair, assert_same};
use crate::support::storm::Chance;

const FORMATS: [&str; 7] =
    ["%w|%f|%e", "%w%f", "cookie=%c;%:e", "%e%n", "%f%0%w", "%T %w%f", "%xe%%%q"];

/// What is on disk after the operations so far.
struct Model {
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
    made: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            dirs: ["t", "t/a", "t/a/b", "t/c d", "out"].map(PathBuf::from).to_vec(),
            files: ["t/f", "t/a/g"].map(PathBuf::from).to_vec(),
            made: 0,
        }
    }

    /// A name that was never used: the original confuses directories that had the same name.
    fn new_path(&mut self, chance: &mut Chance) -> PathBuf {
        self.made += 1;
        let prefix = chance.pick(&["n", "N n", "x.txt", "é", "q\"", "-"]).to_owned();
        chance.pick(&self.dirs).join(format!("{prefix}{}", self.made))
    }

    fn take_file(&mut self, chance: &mut Chance) -> Option<PathBuf> {
        if self.files.is_empty() {
            None
        } else {
            Some(self.files.swap_remove(chance.index(self.files.len())))
        }
    }

    fn operation(&mut self, chance: &mut Chance, dirs: Dirs) -> Option<Operation> {
        let file = (!self.files.is_empty()).then(|| chance.pick(&self.files).clone());
        Some(match chance.below(if dirs == Dirs::Change { 14 } else { 11 }) {
            0 | 1 => {
                let path = self.new_path(chance);
                self.files.push(path.clone());
                Box::new(move |d| fs::write(d.join(&path), "new").unwrap())
            }
            2 => {
                let file = file?;
                Box::new(move |d| append(&d.join(&file)))
            }
            3 => {
                let file = file?;
                Box::new(move |d| read_some(&d.join(&file)))
            }
            4 => {
                let file = file?;
                let mode = *chance.pick(&[0o600, 0o644, 0o755]);
                Box::new(move |d| {
                    fs::set_permissions(d.join(&file), Permissions::from_mode(mode)).unwrap();
                })
            }
            5 => {
                let file = self.take_file(chance)?;
                Box::new(move |d| fs::remove_file(d.join(&file)).unwrap())
            }
            6 | 7 => {
                let from = self.take_file(chance)?;
                let to = match self.files.is_empty() || chance.below(2) == 0 {
                    true => self.new_path(chance),
                    false => self.take_file(chance)?,
                };
                self.files.push(to.clone());
                Box::new(move |d| fs::rename(d.join(&from), d.join(&to)).unwrap())
            }
            8 => {
                let path = self.new_path(chance);
                self.made += 1;
                Box::new(move |d| symlink("f", d.join(&path)).unwrap())
            }
            9 => {
                let (file, path) = (file?, self.new_path(chance));
                self.files.push(path.clone());
                Box::new(move |d| fs::hard_link(d.join(&file), d.join(&path)).unwrap())
            }
            10 => {
                let file = file?;
                Box::new(move |d| fs::write(d.join(&file), "").unwrap())
            }
            11 | 12 => {
                let path = self.new_path(chance);
                self.dirs.push(path.clone());
                Box::new(move |d| fs::create_dir(d.join(&path)).unwrap())
            }
            _ => self.rename_dir(chance)?,
        })
    }

    /// Renames a directory without subdirectories within the tree.
    fn rename_dir(&mut self, chance: &mut Chance) -> Option<Operation> {
        let is_leaf = |at: usize| {
            at >= 5
                && !self.dirs.iter().any(|d| d.parent() == Some(&self.dirs[at]))
                && self.dirs[at].starts_with("t")
        };
        let at = (0..self.dirs.len()).find(|at| is_leaf(*at))?;
        let from = self.dirs.remove(at);
        // Keep it in the watched tree: the tools report a move out of the tree differently (`better.rs`).
        let name = self.new_path(chance);
        let to = from.with_file_name(name.file_name().unwrap());
        self.dirs.push(to.clone());
        for file in &mut self.files {
            if let Ok(below) = file.strip_prefix(&from) {
                *file = to.join(below);
            }
        }
        Some(Box::new(move |d| fs::rename(d.join(&from), d.join(&to)).unwrap()))
    }
}

/// Whether operations make and rename directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dirs {
    Keep,
    Change,
}

/// A command line, and whether directories may change under it.
fn command_line(chance: &mut Chance) -> (Vec<String>, Dirs) {
    let is_table = chance.below(4) == 0;
    let mut words = vec![if is_table { "inotifywatch" } else { "inotifywait" }.to_owned()];
    let mut dirs = Dirs::Change;
    let add =
        |words: &mut Vec<String>, some: &[&str]| words.extend(some.iter().map(|w| (*w).to_owned()));
    if chance.below(3) > 0 {
        add(&mut words, &[*chance.pick(&["-r", "--recursive", "--rec"])]);
    }
    if chance.below(2) == 0 {
        for _ in 0..=chance.below(3) {
            let list = format!("{},{}", chance.pick(&EVENTS), chance.pick(&EVENTS));
            add(&mut words, &["-e", &list]);
        }
        if is_table {
            // Our tool sees new directories even if their events are not selected.
            dirs = Dirs::Keep;
        }
    }
    match chance.below(6) {
        0 => add(&mut words, &["--exclude", *chance.pick(&["a/", "[0-9]$", "(f|g)$", "^t/c"])]),
        1 => add(&mut words, &["--excludei", *chance.pick(&["A/B", "N.?[13579]$", "TXT"])]),
        2 => {
            add(
                &mut words,
                &[*chance.pick(&["--include", "--includei"]), *chance.pick(&["n", "f$", "x"])],
            );
            dirs = Dirs::Keep;
        }
        _ => {}
    }
    if chance.below(5) == 0 {
        add(&mut words, &["-P"]);
    }
    if is_table {
        match chance.below(4) {
            0 => add(&mut words, &["-z"]),
            1 => add(&mut words, &["-v"]),
            _ => {}
        }
    } else {
        if chance.below(4) > 0 {
            add(&mut words, &["-m"]);
        }
        match chance.below(4) {
            0 => add(&mut words, &["-c"]),
            1 | 2 => add(&mut words, &["--format", *chance.pick(&FORMATS), "--timefmt", "%Y"]),
            _ => {}
        }
        if chance.below(5) == 0 {
            add(&mut words, &["-q"]);
        }
    }
    match chance.below(6) {
        0 => add(&mut words, &["t", "@t/a/b"]),
        1 => add(&mut words, &["t/a", "out"]),
        2 => add(&mut words, &["t/f", "./t/"]),
        3 => add(&mut words, &["--fromfile", "list", "t/c d"]),
        _ => add(&mut words, &["t"]),
    }
    (words, dirs)
}

fn try_seed(seed: u64) {
    let mut chance = Chance::new(seed);
    let (words, dirs) = command_line(&mut chance);
    let mut model = Model::new();
    let operations: Vec<Operation> =
        (0..25).filter_map(|_| model.operation(&mut chance, dirs)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let end = if words[0] == "inotifywatch" { Signal::INT } else { Signal::TERM };
    let results = Pair::new(|dir: &Path| tree(dir)).watch(words[0], &words[1..], &operations, end);
    assert_same(&format!("SERSYNC_SEED={seed}: {}", words.join(" ")), results);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn try_seeds(rounds: u64) {
    let (from, rounds) = match number("SERSYNC_SEED") {
        Some(seed) => (seed, 1),
        None => (1, rounds),
    };
    (from..from + rounds).for_each(try_seed);
}

#[test]
fn random_mixtures_print_what_the_original_prints() {
    try_seeds(40);
}

#[test]
#[ignore = "long: SERSYNC_ROUNDS says how many"]
fn very_many_random_mixtures_print_what_the_original_prints() {
    try_seeds(number("SERSYNC_ROUNDS").unwrap_or(2000));
}
