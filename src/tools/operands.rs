//! Collects what a tool must watch and what it must not: the operands, and the lines of `--fromfile`.
//! Opens no file except that list.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::tools::say::{complain, text_of};

/// What to watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Operands {
    /// Files and directories to watch.
    pub watched: Vec<Vec<u8>>,
    /// Directories to exclude: those given with a leading `@`.
    pub excluded: Vec<Vec<u8>>,
}

impl Operands {
    /// Takes first the lines of `list` (`-`: standard input), then the operands. A list that cannot be read is reported
    /// on standard error and counts as empty.
    pub fn gather(operands: &[OsString], list: Option<&OsStr>) -> Self {
        let mut gathered = Self::default();
        if let Some(list) = list
            && let Err(error) = gathered.read_list(list)
        {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            complain(&[b"Couldn't open ", list.as_bytes(), b": ", &text_of(errno), b"\n"]);
        }
        operands.iter().for_each(|operand| gathered.add(operand.as_bytes()));
        gathered
    }

    fn read_list(&mut self, list: &OsStr) -> io::Result<()> {
        let input: Box<dyn Read> =
            if list == "-" { Box::new(io::stdin()) } else { Box::new(File::open(list)?) };
        for line in BufReader::new(input).split(b'\n') {
            match line {
                Ok(line) => self.add(&line),
                // Treat it as the end of the list: a directory can be opened but not read.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn add(&mut self, word: &[u8]) {
        match word {
            [] | [b'@'] => {}
            [b'@', excluded @ ..] => self.excluded.push(excluded.to_vec()),
            watched => self.watched.push(watched.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_comes_first_and_empty_words_do_not_count() {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut list, b"one\n\n@\n@two\nthree").unwrap();
        let words = ["four", "@five", "@", ""].map(OsString::from);
        let gathered = Operands::gather(&words, Some(list.path().as_os_str()));
        let names =
            |names: &[&str]| names.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(gathered.watched, names(&["one", "three", "four"]));
        assert_eq!(gathered.excluded, names(&["two", "five"]));
    }
}
