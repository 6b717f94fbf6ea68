//! One set of options against the reference: a mirror, its copy, and a second copy that plain rsync makes.
//! Waits until both copies are equal, or reports what differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::operations::Operations;
use super::words::Set;
use crate::support::TestDir;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;

/// How long the copy may take to become what plain rsync makes.
const SETTLE: Duration = Duration::from_secs(12);
/// How long this may take if a failed path has to be retried several times.
const SETTLE_BY_RETRIES: Duration = Duration::from_secs(90);
/// More runs by hand than any limit per run requires.
const LIMITED_RUNS_MAX: usize = 1_000;

/// The file that `RULES` stands for.
const RULES: &str = "# rules\n- cache/\n- x.o\n";

/// A mirror and its reference.
pub struct Trial {
    words: Vec<String>,
    meaning: Meaning,
    daemon: Rsyncd,
    mirror: Mirror,
    operations: Operations,
    _rules: TestDir,
}

impl Trial {
    /// Starts with a tree that both copies have, and some extraneous entries on the receiver.
    pub fn new(set: &Set, seed: u64) -> Self {
        let daemon = Rsyncd::start();
        let rules = TestDir::new();
        let file = rules.file("rules", RULES);
        let word = |word: &String| word.replace("RULES", &file.display().to_string());
        let words: Vec<String> = set.words.iter().map(word).collect();
        let meaning = Meaning::of(&words);
        let quoted =
            |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
        let params = words.iter().map(quoted).collect::<Vec<_>>().join(" ");
        let setup = Setup {
            remotes: vec![("127.0.0.1".into(), "data/copy".into())],
            params,
            on: vec!["attrib"],
            args: vec!["-r".into()],
            ..Setup::to(&daemon)
        };
        let mirror = Mirror::prepare(&setup);
        let outside = mirror.dir.dir("outside");
        mirror.dir.file("beside/inside", "beside the tree");
        let mut operations = Operations::new(&mirror.source, &outside, seed);
        (0..40).for_each(|_| operations.step());
        operations.count = 0;
        operations.log.clear();
        operations.with_rule_files(meaning.reads_rule_files);
        fs::create_dir(daemon.at("base")).unwrap();
        fs::write(daemon.at("base/x.c"), "base").unwrap();
        for copy in ["copy", "plain"] {
            fs::create_dir_all(daemon.at(copy).join("cache")).unwrap();
            for own in ["cache/own", "own.o", "own"] {
                fs::write(daemon.at(copy).join(own), own).unwrap();
            }
        }
        Self { words, meaning, daemon, mirror, operations, _rules: rules }
    }

    /// How many operations there were.
    pub fn operations(&self) -> usize {
        self.operations.count
    }

    /// Does rounds of operations, some during a restart. The error is what differs after a round that does not settle.
    pub fn run(&mut self, rounds: usize) -> Result<(), String> {
        self.mirror.launch();
        self.mirror.wait_ready();
        self.settle("the full sync")?;
        self.mirror.wait_for_record();
        for round in 0..rounds {
            let first = self.operations.log.len();
            let restarts = round % 6 == 5;
            if restarts {
                self.mirror.kill();
            }
            let count = 1 + round % 4;
            (0..count).for_each(|_| self.operations.step());
            if restarts {
                self.mirror.launch();
                self.mirror.wait_ready();
            }
            let log = self.operations.log[first..].join("; ");
            self.settle(&format!(
                "round {round}{}: {log}",
                if restarts { " (while it was down)" } else { "" }
            ))?;
        }
        Ok(())
    }

    /// Waits until the copy equals what plain rsync makes, and a dry run by hand finds the same work in both.
    fn settle(&self, what: &str) -> Result<(), String> {
        let (plain, copy) = (self.daemon.at("plain"), self.daemon.at("copy"));
        // The next run continues where the limit of a run has stopped it.
        if self.meaning.limits_runs {
            let ends = (0..LIMITED_RUNS_MAX).any(|_| !is_limited(&self.by_hand("plain", &[])));
            assert!(ends, "rsync by hand is limited after {LIMITED_RUNS_MAX} runs; {what}");
        }
        let skips_deletions = skips_deletions(&self.by_hand("plain", &[]));
        let left = lines(&self.by_hand("plain", &["-n", "-i"]));
        let patience = if self.meaning.limits_runs { SETTLE_BY_RETRIES } else { SETTLE };
        let end = Instant::now() + patience;
        loop {
            let mut wrong = self.meaning.differences(&plain, &copy, &self.mirror.source);
            // rsync by hand deletes nothing from when it has found something unreadable in the source, a full sync nothing at all. The
            // mirror deletes what was reported as deleted, also what a dangling link has replaced, which `-L` cannot read.
            let is_there = |path: &str| self.mirror.source.join(path).exists();
            let stayed = |line: &String| {
                let path = line.strip_suffix(" is missing").or(line.strip_suffix(" is too many"));
                path.is_some_and(|path| !is_there(path))
            };
            wrong.retain(|line| !(skips_deletions && stayed(line)));
            if wrong.is_empty() {
                let found = lines(&self.by_hand("copy", &["-n", "-i"]));
                wrong.extend(
                    found
                        .into_iter()
                        .filter(|line| {
                            let is_skipped = skips_deletions && line.starts_with("*deleting");
                            let is_meant = self.meaning.is_backup(line.as_ref()) || is_skipped;
                            !left.contains(line) && !is_meant
                        })
                        .map(|line| format!("by hand: {line}")),
                );
            }
            if wrong.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                let errors: Vec<String> = self
                    .mirror
                    .output()
                    .lines()
                    .filter(|line| line.contains("ERROR") || line.contains("WARN"))
                    .take(5)
                    .map(str::to_owned)
                    .collect();
                wrong.truncate(8);
                if let Some(file) = std::env::var_os("SERSYNC_ORACLE_LOG") {
                    fs::write(file, self.mirror.output()).unwrap();
                }
                return Err(format!(
                    "  after {what}\n    {}\n    {}",
                    wrong.join("\n    "),
                    errors.join("\n    ")
                ));
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// What an operator would type, inside the watch path.
    fn by_hand(&self, copy: &str, more: &[&str]) -> Output {
        let to = format!("rsync://127.0.0.1:{}/data/{copy}/", self.daemon.port);
        let mut command = Command::new("rsync");
        command.args(self.meaning.by_hand(&self.words)).args([
            "-r",
            "--delete",
            "--sockopts=TCP_NODELAY",
        ]);
        if !self.words.iter().any(|word| word.contains("modify-window")) {
            // With whole seconds, plain rsync would miss a rewrite within one second.
            command.arg("--modify-window=-1");
        }
        command.args(more).args(["./", &to]);
        command.current_dir(&self.mirror.source).output().unwrap()
    }
}

/// The lines that name a path; the root's own times are ignored.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    // The flags may be blanks: `hf          name => other`.
    let is_item = |line: &&str| {
        let is_column = line.get(11..12).is_some_and(|blank| blank == " ");
        is_column && line.starts_with(['<', '>', 'c', 'h', '.', '*'])
    };
    text.lines()
        .filter(is_item)
        .filter(|line| !line.ends_with(" ./") && !line.contains("T......"))
        .map(str::to_owned)
        .collect()
}

/// Kind and content of everything below `root`.
fn picture(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            let content = if meta.is_dir() {
                todo.push(path.clone());
                b"directory".to_vec()
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                format!("link to {}", target.display()).into_bytes()
            } else {
                fs::read(&path).unwrap_or_default()
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), content);
        }
    }
    found
}

/// What `--check` reports about options that cannot mean the same as in rsync by hand.
struct Meaning {
    /// Each version is backed up, not only those that a run by hand would replace.
    backs_up: bool,
    /// The first version stays.
    keeps_first: bool,
    /// `--size-only`: of versions with equal sizes, the first one that was delivered stays.
    compares_sizes: bool,
    /// `--modify-window`, `--protocol` (whole seconds): rsync by hand misses a rewrite within that time. `-u`: it keeps a newer copy where
    /// an older file was moved.
    misses_rewrites: bool,
    /// Appending works as writing in place.
    appends: bool,
    /// `--max-delete` limits each run.
    limits_runs: bool,
    /// Directories may hold files with rules.
    reads_rule_files: bool,
}

impl Meaning {
    fn of(words: &[String]) -> Self {
        let has = |start: &str| words.iter().any(|word| word.starts_with(start));
        Self {
            backs_up: has("--backup"),
            keeps_first: has("--ignore-existing"),
            compares_sizes: has("--size-only"),
            misses_rewrites: has("--modify-window") || has("--protocol") || keeps_newer(words),
            appends: has("--append"),
            limits_runs: has("--max-delete"),
            reads_rule_files: has_rule_files(words),
        }
    }

    fn by_hand(&self, words: &[String]) -> Vec<String> {
        let word = |word: &String| match word.starts_with("--append") && self.appends {
            true => "--inplace".to_owned(),
            false => word.clone(),
        };
        let mut words: Vec<String> = words.iter().map(word).collect();
        // Otherwise rsync deletes by the rules that the receiver has, before the new ones arrive.
        if self.reads_rule_files && !words.iter().any(|word| word.starts_with("--delete-")) {
            words.push("--delete-after".to_owned());
        }
        words
    }

    /// True when the older version `other` may stay instead of `content`.
    fn may_stay(&self, other: &[u8], content: &[u8]) -> bool {
        self.keeps_first || self.compares_sizes && other.len() == content.len()
    }

    fn is_backup(&self, path: &Path) -> bool {
        let name = path.to_string_lossy();
        self.backs_up && (name.ends_with('~') || name.ends_with(".old") || name.contains(".bak"))
    }

    fn differences(&self, plain: &Path, copy: &Path, source: &Path) -> Vec<String> {
        let (plain, copy) = (picture(plain), picture(copy));
        let is_right = |path: &Path, content: &[u8]| {
            self.misses_rewrites && fs::read(source.join(path)).is_ok_and(|it| it == content)
        };
        // A directory that holds backups can neither be deleted nor replaced by hand.
        let is_mine = |path: &PathBuf, whole: &BTreeMap<PathBuf, Vec<u8>>| {
            !whole.keys().any(|inner| inner.starts_with(path) && self.is_backup(inner))
        };
        let mut wrong = Vec::new();
        for (path, content) in &plain {
            match copy.get(path) {
                None if is_mine(path, &plain) => {
                    wrong.push(format!("{} is missing", path.display()))
                }
                Some(other)
                    if other != content
                        && !self.may_stay(other, content)
                        && !is_right(path, other)
                        && is_mine(path, &plain) =>
                {
                    wrong.push(format!("{} is stale", path.display()));
                }
                _ => {}
            }
        }
        let extra = copy.keys().filter(|path| !plain.contains_key(*path) && is_mine(path, &copy));
        wrong.extend(extra.map(|path| format!("{} is too many", path.display())));
        wrong
    }
}

/// True for `-u`.
fn keeps_newer(words: &[String]) -> bool {
    words.iter().any(|word| !word.starts_with("--") && word.contains('u'))
}

/// True for `-F`, `-C` and `dir-merge`.
fn has_rule_files(words: &[String]) -> bool {
    let is_letter = |word: &String| !word.starts_with("--") && word.contains(['F', 'C']);
    words.iter().any(|word| is_letter(word) || word.contains(".rules"))
}

fn skips_deletions(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).contains("skipping file deletion")
}

fn is_limited(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("Deletions stopped due to --max-delete")
}
