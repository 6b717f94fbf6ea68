//! The temporary files of a receiving rsync: `.NAME.XXXXXX`, beside NAME.
//! Only knows their names; removing what an aborted run left behind is a run of its own.

use crate::path::RelPath;

/// A dot and six characters that rsync chooses.
const ENDING_LEN: usize = 7;

/// A longer name is cut to make room for the ending.
const CUT_LEN: usize = 200;

/// The common beginning of the temporary names of `path`; a dot and six characters follow. `None` for the root.
pub fn beginning(path: &RelPath) -> Option<RelPath> {
    // A name that begins with a dot gets no second one.
    let name = path.name()?;
    path.parent()?.join(&[b".", name.strip_prefix(b".").unwrap_or(name)].concat())
}

/// True when `path` may be the name of a temporary file.
pub fn is_temporary(path: &RelPath) -> bool {
    path.name().and_then(stem).is_some()
}

/// The two files that `path` may become, if it may be the name of a temporary file: `NAME` and `.NAME`.
/// `NAME` is cut if the file's name is very long.
pub fn targets_of(path: &RelPath) -> Option<[RelPath; 2]> {
    let (parent, stem) = (path.parent()?, stem(path.name()?)?);
    Some([parent.join(stem)?, parent.join(&[b".", stem].concat())?])
}

/// True when `path` is a name under which rsync receives `target`.
pub fn is_temporary_of(path: &RelPath, target: &RelPath) -> bool {
    let (Some(stem), Some(name)) = (path.name().and_then(stem), target.name()) else {
        return false;
    };
    let name = name.strip_prefix(b".").unwrap_or(name);
    path.parent() == target.parent()
        && (stem == name || stem.len() > CUT_LEN && name.starts_with(stem))
}

/// NAME of `.NAME.XXXXXX`.
fn stem(name: &[u8]) -> Option<&[u8]> {
    let inner = name.strip_prefix(b".")?;
    let (stem, ending) = inner.split_at_checked(inner.len().checked_sub(ENDING_LEN)?)?;
    let is_ending = ending[0] == b'.' && ending[1..].iter().all(u8::is_ascii_alphanumeric);
    is_ending.then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_temporary_name_leads_to_its_file_and_back() {
        let both = [path("d/f.txt"), path("d/.f.txt")];
        assert_eq!(targets_of(&path("d/.f.txt.a1B2c3")), Some(both));
        assert_eq!(targets_of(&path("d/.f.txt")), None);
        assert!(is_temporary(&path("d/.f.txt.a1B2c3")) && !is_temporary(&path("d/.f.txt")));
        assert_eq!(beginning(&path("d/f")), Some(path("d/.f")));
        assert_eq!(beginning(&path("d/.f")), Some(path("d/.f")));
        assert_eq!(beginning(&RelPath::root()), None);
    }

    #[test]
    fn only_a_name_beside_the_file_with_rsyncs_ending_is_temporary() {
        let long = "n".repeat(250);
        let cut = format!(".{}.abcdef", &long[..245]);
        let yes = [("d/.f.abcdef", "d/f"), ("d/.f.abcdef", "d/.f"), (&cut, &long)];
        let no = [
            ("e/.f.abcdef", "d/f"),
            ("d/.f.abcde", "d/f"),
            ("d/.f.abc-ef", "d/f"),
            ("d/.g.abcdef", "d/f"),
            ("d/f", "d/f"),
        ];
        assert!(yes.iter().all(|(at, target)| is_temporary_of(&path(at), &path(target))));
        assert!(!no.iter().any(|(at, target)| is_temporary_of(&path(at), &path(target))));
    }
}
