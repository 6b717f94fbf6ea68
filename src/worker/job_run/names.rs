//! How names are given to rsync: a few in a list on standard input, many as words, as many as fit a command line.
//! Starts nothing.

use crate::path::RelPath;
use crate::rsync::{DIRS_BYTES_MAX, LONG_BATCH_BYTES, RunKind, input};

/// What the kernel needs for a word beside its bytes: an end, a pointer, and `./` in front.
const WORD_BYTES: usize = 11;

/// The run for a list of names, and what stands on its standard input.
pub fn by_name(kind: RunKind, names: &[&RelPath]) -> (RunKind, Vec<u8>) {
    let bytes: usize = names.iter().map(|name| name.as_bytes().len() + WORD_BYTES).sum();
    match kind {
        RunKind::Batch { ignore_times } if (LONG_BATCH_BYTES..DIRS_BYTES_MAX).contains(&bytes) => {
            let names = names.iter().map(|name| input::name(name).into_owned()).collect();
            (RunKind::LongBatch { names, ignore_times }, Vec::new())
        }
        kind => (kind, input::names(names.iter().copied())),
    }
}

/// Cuts a list of directories so that each part fits a command line.
pub fn in_portions(dirs: &[RelPath]) -> impl Iterator<Item = &[RelPath]> {
    let mut bytes = 0;
    dirs.chunk_by(move |_, next| {
        bytes += next.as_bytes().len() + 8;
        let fits = bytes < DIRS_BYTES_MAX / 2;
        if !fits {
            bytes = 0;
        }
        fits
    })
}
