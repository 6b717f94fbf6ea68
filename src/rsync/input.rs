//! What runs read from standard input: lists of names, patterns, filter rules.
//! Pure; knows rsync's escaping rules, but no options.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Presence;
use super::excludes::Excludes;
use super::temporary;
use crate::path::RelPath;

/// This name stands for the watch root: a name also sends its parents. `./` itself would send the root's content.
const NO_SUCH_NAME: &[u8] = b".sersync-no-such-name";

/// The list of a batch. Every name has `./` in front: rsync drops names that begin with `#` or `;`.
pub fn names<'a>(paths: impl IntoIterator<Item = &'a RelPath>) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(b"./");
        list.extend_from_slice(name(path).as_bytes());
        list.push(0);
    }
    list
}

/// The name that sends `path`, and nothing else.
pub fn name(path: &RelPath) -> Cow<'_, RelPath> {
    match path.is_root() {
        true => Cow::Owned(RelPath::new(NO_SUCH_NAME).unwrap_or_default()),
        false => Cow::Borrowed(path),
    }
}

/// The list of a moved file's run: the bare name when the run starts in the file's directory, else the path.
pub fn moved_file(old: &RelPath, new: &RelPath) -> Vec<u8> {
    let same_name = old.name() == new.name();
    let name = new.name().and_then(RelPath::new).filter(|_| same_name);
    names([name.as_ref().unwrap_or(new)])
}

/// The list of a probe: one name that exists nowhere, because `nonce` makes it unique.
pub fn probe(nonce: u64) -> Vec<u8> {
    let mut list = format!("./.sersync-probe-{nonce:016x}").into_bytes();
    list.push(0);
    list
}

/// The include patterns of a fallback run: each path, its parents, and what its old copy may contain.
pub fn patterns<'a>(paths: impl IntoIterator<Item = (&'a RelPath, Presence)>) -> Vec<u8> {
    // The content of a directory is sent by other paths; anything else replaces a directory with its content.
    includes(paths.into_iter().map(|(path, presence)| (path, presence != Presence::Directory)))
}

/// The include patterns of a fallback run that leaves alone what a directory in the place of a path contains.
pub fn exact_patterns<'a>(paths: impl IntoIterator<Item = &'a RelPath>) -> Vec<u8> {
    includes(paths.into_iter().map(|path| (path, false)))
}

/// The include patterns of paths and their parents; of what is below a path if the path says so.
fn includes<'a>(paths: impl Iterator<Item = (&'a RelPath, bool)>) -> Vec<u8> {
    let mut list = Vec::new();
    let mut parents = HashSet::new();
    for (path, with_content) in paths {
        push_parents(&mut list, &mut parents, path);
        if path.is_root() {
            continue;
        }
        push_pattern(&mut list, path, b"");
        if with_content {
            push_pattern(&mut list, path, b"/***");
        }
    }
    list
}

/// The include patterns that reach directories: their parents, the directories, and `below` in each.
pub fn whole_directories(dirs: &[RelPath], below: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut parents = HashSet::new();
    for dir in dirs {
        if dir.is_root() {
            list.extend_from_slice(below);
            list.push(0);
            continue;
        }
        push_parents(&mut list, &mut parents, dir);
        push_pattern(&mut list, dir, b"");
        push_pattern(&mut list, dir, below);
    }
    list
}

/// The rules of a guarded deletion: first what is excluded, then what is to be deleted.
pub fn guarded<'a>(excludes: &Excludes, absent: impl IntoIterator<Item = &'a RelPath>) -> Vec<u8> {
    let mut rules = excludes.rules();
    let list = patterns(absent.into_iter().map(|path| (path, Presence::Absent)));
    for pattern in list.split_inclusive(|&b| b == 0) {
        rules.extend_from_slice(b"+ ");
        rules.extend_from_slice(pattern);
    }
    rules
}

/// As [`guarded`], but the sender hides what stands under these names, so it is deleted, too.
pub fn hidden(excludes: &Excludes, names: &[RelPath]) -> Vec<u8> {
    let mut rules = Vec::new();
    for name in names {
        rules.extend_from_slice(b"-s ");
        push_pattern(&mut rules, name, b"");
    }
    rules.extend(guarded(excludes, names));
    rules
}

/// The end of a temporary name: six random letters and digits.
const RANDOM: &[u8] = b".[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]";

/// Rules for names with ends that people give to their own files, such as `.backup`, `.Backup`, `.BACKUP`, `.202611`, `.table2` and
/// `.prod01`. One in fifty random ends looks like them, and is left alone.
const CHOSEN: [&[u8]; 6] = [
    b"- .*.[a-z][a-z][a-z][a-z][a-z][a-z]\0",
    b"- .*.[A-Z][a-z][a-z][a-z][a-z][a-z]\0",
    b"- .*.[A-Z][A-Z][A-Z][A-Z][A-Z][A-Z]\0",
    b"- .*.[0-9][0-9][0-9][0-9][0-9][0-9]\0",
    b"- .*.[a-z][a-z][a-z][a-z][a-z][0-9]\0",
    b"- .*.[a-z][a-z][a-z][a-z][0-9][0-9]\0",
];

/// Filter rules that reach rsync's temporary files (`.name.XXXXXX`) beside each path, but none that is excluded or that may have been
/// made by people. That dotfiles are not mirrored does not concern them: rsync made them.
pub fn temporary_names<'a>(
    excludes: &Excludes,
    paths: impl IntoIterator<Item = &'a RelPath>,
) -> Vec<u8> {
    let mut excludes = excludes.clone();
    excludes.kept.retain(|pattern| pattern != b".*");
    let (mut above, mut names) = (Vec::new(), Vec::new());
    let mut parents = HashSet::new();
    for path in paths {
        push_parents(&mut above, &mut parents, path);
        if let Some(temporary) = temporary::beginning(path) {
            push_pattern(&mut names, &temporary, RANDOM);
        }
    }
    let include = |list: Vec<u8>| -> Vec<u8> {
        let patterns = list.split_inclusive(|&b| b == 0);
        patterns.flat_map(|pattern| [b"+ ", pattern].concat()).collect()
    };
    [excludes.rules(), include(above), CHOSEN.concat(), include(names)].concat()
}

/// Filter rules: names that match `excludes` (rsync patterns, anchored by a leading slash) are neither sent nor deleted.
/// The operator's `--delete-excluded` does not change that.
pub fn filters<T: AsRef<[u8]>>(excludes: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut rules = Vec::new();
    for pattern in excludes {
        rules.extend_from_slice(b"-sr ");
        rules.extend_from_slice(pattern.as_ref());
        rules.push(0);
    }
    rules
}

/// The pattern that matches exactly `path` (`/a/b`), for [`filters`].
pub fn exact_pattern(path: &RelPath) -> Vec<u8> {
    let mut pattern = Vec::new();
    push_pattern(&mut pattern, path, b"");
    pattern.pop();
    pattern
}

fn push_parents(list: &mut Vec<u8>, known: &mut HashSet<RelPath>, path: &RelPath) {
    let mut missing = Vec::new();
    let mut next = path.parent();
    while let Some(parent) = next.filter(|parent| !parent.is_root() && !known.contains(parent)) {
        next = parent.parent();
        missing.push(parent);
    }
    for parent in missing.into_iter().rev() {
        push_pattern(list, &parent, b"/");
        known.insert(parent);
    }
}

/// The pattern of everything below a directory.
pub fn pattern_below(dir: &RelPath) -> Vec<u8> {
    let mut list = Vec::new();
    push_pattern(&mut list, dir, b"/**");
    list.pop();
    list
}

/// `/path` and `end`. A backslash escapes only in a pattern with a wildcard; elsewhere it is an ordinary character.
fn push_pattern(list: &mut Vec<u8>, path: &RelPath, end: &[u8]) {
    let is_wild = |b: &u8| matches!(b, b'*' | b'?' | b'[');
    let wild = path.as_bytes().iter().any(is_wild) || end.iter().any(is_wild);
    list.push(b'/');
    for &b in path.as_bytes() {
        if wild && (is_wild(&b) || b == b'\\') {
            list.push(b'\\');
        }
        list.push(b);
    }
    list.extend_from_slice(end);
    list.push(0);
}
