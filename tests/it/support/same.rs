//! Compares two trees in every respect that a mirror guarantees: kind, mode, time, content, link target.
//! Reports which paths differ, and how.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One line per entry, by path.
type Lines = BTreeMap<PathBuf, String>;

/// True for a temporary file whose random end looks as if people had chosen it, as one in fifty does. An aborted run may leave it:
/// sersync does not delete it, because it may be somebody's.
pub fn is_left_alone(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let end = name.strip_prefix('.').and_then(|name| Some(name.rsplit_once('.')?.1));
    let kind = |c: char| match c {
        'a'..='z' => 'a',
        'A'..='Z' => 'A',
        '0'..='9' => '0',
        _ => '?',
    };
    let kinds: String = end.unwrap_or_default().chars().map(kind).collect();
    ["aaaaaa", "Aaaaaa", "AAAAAA", "000000", "aaaaa0", "aaaa00"].contains(&kinds.as_str())
}

/// Everything below `root` that a mirror has to reproduce.
pub fn picture(root: &Path) -> Lines {
    let mut lines = Lines::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            let what = if meta.is_dir() {
                todo.push(path.clone());
                String::from("directory")
            } else if meta.is_symlink() {
                format!("link to {:?}", fs::read_link(&path).unwrap_or_default())
            } else if meta.is_file() {
                let mut hasher = DefaultHasher::new();
                fs::read(&path).unwrap_or_default().hash(&mut hasher);
                format!("file of {} bytes {:x}", meta.len(), hasher.finish())
            } else {
                format!("special {}", meta.rdev())
            };
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let line = format!("{what}, mode {:o}, owner {}, time {time}", meta.mode(), meta.uid());
            lines.insert(path.strip_prefix(root).unwrap().into(), line);
        }
    }
    lines
}

/// What differs between the source and its copy, one sentence each.
pub fn differences(source: &Path, copy: &Path) -> Vec<String> {
    assert!(source.is_dir() && copy.is_dir(), "a tree has vanished: nothing can be compared");
    let (ours, theirs) = (picture(source), picture(copy));
    let mut differences = Vec::new();
    for (path, line) in &ours {
        match theirs.get(path) {
            None => differences.push(format!("{path:?} is missing: {line}")),
            Some(other) if other != line => {
                differences.push(format!("{path:?} is {other}, and should be {line}"));
            }
            Some(_) => {}
        }
    }
    let extra = theirs.iter().filter(|(path, _)| !ours.contains_key(*path));
    let extra = extra.filter(|(path, _)| !path.file_name().is_some_and(is_left_alone));
    differences.extend(extra.map(|(path, line)| format!("{path:?} is too many: {line}")));
    differences
}

/// Waits until nothing differs; panics with what does after `limit`.
pub fn wait_until_same(source: &Path, copy: &Path, limit: Duration, whose: &str) {
    let start = Instant::now();
    loop {
        let begin = Instant::now();
        let left = differences(source, copy);
        if left.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < limit,
            "{whose}: {} entries differ after {limit:?}:\n{}",
            left.len(),
            left.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
        );
        // Comparing costs more than the mirror's own work, so pause for longer than it took.
        let pause = begin.elapsed() * 4;
        std::thread::sleep(pause.clamp(Duration::from_millis(5), Duration::from_secs(1)));
    }
}
