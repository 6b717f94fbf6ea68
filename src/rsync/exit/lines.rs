//! One line of rsync's error output, read for the path it names.
//! Knows nothing of exit codes.

use super::RunPaths;
use crate::ground::octal::unescape;
use crate::path::RelPath;
use crate::rsync::RSYNC_ESCAPE;
use crate::rsync::temporary::is_temporary;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Not an error: a summary, a blank line.
    Nothing,
    /// A harmless error: times could not be set, or the file is gone and its deletion will be reported.
    Harmless,
    /// rsync gave up deleting, because it could not read all of the source.
    DeletionsSkipped,
    /// This path failed.
    Failed(RelPath, String),
    /// In the place of this path is a directory that rsync did not delete.
    Blocked(RelPath, String),
    /// An error that names no path we know.
    Unknown(String),
}

/// Lines that only summarise or accompany others.
const SUMMARIES: &[&str] = &[
    "rsync error:",
    "rsync warning:",
    "*** Skipping",
    "sent ",
    "total size ",
    // ssh, at the first contact with a host.
    "Warning: Permanently added ",
];

/// The daemon's message about a name that its own configuration excludes.
const EXCLUDED: &[u8] = b"ERROR: daemon refused to receive ";

/// The receiver's message about a directory that it did not delete. The kind of what should replace it follows.
const BLOCKED: &[u8] = b"could not make way for new ";

/// Why a name fails that the daemon's own configuration excludes.
pub const EXCLUDED_THERE: &str = "its rsyncd.conf excludes this name";

/// The advice for it.
pub const EXCLUDED_ADVICE: &str =
    "exclude it here too (<filter>), or take it out of \"exclude\" there";

/// Messages of the sending side that do not contain the word "sender".
const SENDERS: &[&str] = &["symlink has no referent: ", "cannot send long-named file "];

/// Reads one line.
pub(super) fn read(line: &[u8], places: &RunPaths) -> Line {
    let line = line.trim_ascii();
    if line.is_empty() || SUMMARIES.iter().any(|start| line.starts_with(start.as_bytes())) {
        return Line::Nothing;
    }
    if contains(line, b"skipping file deletion") {
        return Line::DeletionsSkipped;
    }
    // A missing directory of --link-dest or a similar option: the data is sent instead.
    if contains(line, b" arg does not exist: ") {
        return Line::Harmless;
    }
    if contains(line, b"failed to set times on \"") || line.starts_with(b"file has vanished: ") {
        return Line::Harmless;
    }
    let words = if line.starts_with(EXCLUDED) { EXCLUDED_THERE.into() } else { words(line) };
    match named(line).and_then(|shown| locate(shown, line, places)) {
        Some(path) if line.starts_with(BLOCKED) => Line::Blocked(path, words),
        Some(path) => Line::Failed(path, words),
        None => Line::Unknown(words),
    }
}

/// True for a line that is not from rsync and names no failure, such as a greeting. In doubt it is from rsync.
pub(super) fn is_shell_noise(line: &[u8], places: &RunPaths) -> bool {
    const FAILURES: &[&str] = &[
        "rsync",
        "fail",
        "error",
        "cannot",
        "could not",
        "can't",
        "denied",
        "no such",
        "invalid",
        "memory",
        "space",
        "skip",
        "\"",
        "delet",
    ];
    let text = String::from_utf8_lossy(line).to_lowercase();
    matches!(read(line, places), Line::Unknown(_))
        && !FAILURES.iter().any(|word| text.contains(word))
}

/// The name as rsync prints it; `None` if there is none, or if its end is ambiguous.
fn named(line: &[u8]) -> Option<&[u8]> {
    let quoted: Vec<&[u8]> = line.split(|&b| b == b'"').skip(1).step_by(2).collect();
    let quotes = line.iter().filter(|&&b| b == b'"').count();
    match quotes {
        2 => return quoted.first().copied(),
        // A link and its target, or a temporary file and its final name.
        4 if contains(line, b" rename \"") => return quoted.last().copied(),
        4 if contains(line, b"\" -> \"") => return quoted.first().copied(),
        _ => {}
    }
    if quotes > 0 {
        return None;
    }
    for (before, after) in [("unlink(", ") failed: "), ("rmdir(", ") failed: ")] {
        if let Some(start) = find(line, before.as_bytes()) {
            let rest = &line[start + before.len()..];
            let end = rest.windows(after.len()).rposition(|part| part == after.as_bytes())?;
            return Some(&rest[..end]);
        }
    }
    for before in ["cannot delete non-empty directory: ", "could not make way for new "] {
        if let Some(start) = find(line, before.as_bytes()) {
            let rest = &line[start + before.len()..];
            // "could not make way for new regular file: NAME"
            let name =
                find(rest, b": ").filter(|_| before.ends_with("new ")).map_or(0, |at| at + 2);
            return Some(&rest[name..]);
        }
    }
    None
}

/// The path below the root that a printed name means, on either side.
fn locate(shown: &[u8], line: &[u8], places: &RunPaths) -> Option<RelPath> {
    let name = unescape(shown, RSYNC_ESCAPE);
    let is_senders = |start: &&str| line.starts_with(start.as_bytes());
    let receiver = !contains(line, b"[sender]") && !SENDERS.iter().any(is_senders);
    let below = if receiver {
        below_remote(&name, places)?
    } else {
        strip(&name, places.root.strip_suffix(b"/").unwrap_or(places.root))?
    };
    let path = RelPath::new(&clean(below))?;
    // With --temp-dir the name says nothing of its target.
    let is_lost = receiver && contains(line, b"mkstemp ") && !is_temporary(&path);
    (!is_lost).then_some(path)
}

/// A name on the receiver: absolute below the destination, or already relative to it.
fn below_remote<'a>(name: &'a [u8], places: &RunPaths) -> Option<&'a [u8]> {
    if !name.starts_with(b"/") {
        return Some(name);
    }
    let directory = places.remote_directory;
    if directory.is_empty() || directory.starts_with(b"/") {
        return strip(name, directory);
    }
    // Over ssh, a relative path is below the login directory, which is not known here.
    let end = [b"/", directory, b"/"].concat();
    find(name, &end).map(|at| &name[at + end.len()..])
}

fn strip<'a>(name: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    let rest = name.strip_prefix(directory)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

/// Without `./` parts and a trailing slash.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// The line for people, without `rsync: [role]` and without control characters.
fn words(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.strip_prefix("rsync: ").unwrap_or(&text);
    let text = match text.split_once("] ") {
        Some((role, rest)) if role.starts_with('[') => rest,
        _ => text,
    };
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    find(line, part).is_some()
}

fn find(line: &[u8], part: &[u8]) -> Option<usize> {
    line.windows(part.len()).position(|window| window == part)
}
