//! Tests of the fail log's content, and that an attacker at its path gains nothing.
//! Most tests parse the script with shlex instead of a real shell.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;

fn failure(name: &[u8]) -> FailedCommand {
    FailedCommand {
        code: 12,
        root: "/data/my www".into(),
        words: vec!["rsync".into(), OsString::from_vec(name.to_vec())],
    }
}

struct Bed {
    dir: TempDir,
    path: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("fail.sh");
        Self { dir, path }
    }

    fn write(&self, names: &[&[u8]]) -> FailLog {
        let mut log = FailLog::open(&self.path);
        let failures: Vec<_> = names.iter().map(|name| failure(name)).collect();
        log.write(&failures);
        log
    }

    fn text(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    fn assert_is_ours(&self) {
        let found = fs::symlink_metadata(&self.path).unwrap();
        assert!(found.is_file());
        assert_eq!((found.mode() & 0o7777, found.nlink()), (0o640, 1));
        assert!(self.text().starts_with(HEADER.as_bytes()));
    }
}

#[test]
fn script_names_each_command_under_its_error() {
    let bed = Bed::new();
    bed.write(&[b"plain", b"second"]);
    bed.assert_is_ours();
    let text = String::from_utf8(bed.text()).unwrap();
    let rest = text.strip_prefix(HEADER).unwrap();
    let wanted = "#errno 12\ncd '/data/my www' && rsync plain\n#errno 12\ncd '/data/my www' && rsync second\n";
    assert_eq!(rest, wanted);
}

#[test]
fn names_that_are_shell_code_stay_names() {
    for name in
        [&b"$(touch x)"[..], b"`id`", b"a;b", b"a\nrm -rf x", b"'", b"\"\\", b"\xff\xfe", b"-e"]
    {
        let bed = Bed::new();
        bed.write(&[name]);
        let text = bed.text();
        let command = &text[HEADER.len() + "#errno 12\n".len()..];
        let words: Vec<_> = shlex::bytes::Shlex::new(command).collect();
        let wanted = [&b"cd"[..], b"/data/my www", b"&&", b"rsync", name];
        assert_eq!(words, wanted, "{}", text.escape_ascii());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a real shell reads the word")]
fn names_that_would_play_with_a_terminal_are_escaped_and_a_shell_reads_them_all_the_same() {
    let names: [&[u8]; 5] = [
        b"\x1b[2Jclear\x07bell",
        b"a\rb 'quoted'",
        "gpj.\u{202e}exe \u{85}".as_bytes(),
        b"latin \xe9 \x1b",
        b"two\nlines\x1b",
    ];
    for name in names {
        let word = shell_word(name).unwrap();
        assert!(!word.iter().any(|byte| b"\x1b\x07\r".contains(byte)), "{word:?}");
        assert!(!String::from_utf8_lossy(&word).contains('\u{202e}'), "{word:?}");
        let mut script = b"printf %s ".to_vec();
        script.extend_from_slice(&word);
        let script = std::ffi::OsString::from_vec(script);
        let read = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap().stdout;
        assert_eq!(read, name);
    }
}

#[test]
fn file_is_emptied_when_all_is_delivered_and_not_made_before_something_fails() {
    let bed = Bed::new();
    let mut log = bed.write(&[]);
    assert!(bed.names().is_empty());
    log.write(&[failure(b"x")]);
    log.write(&[]);
    assert_eq!(bed.text(), b"");
    assert_eq!(bed.names(), ["fail.sh"]);
    // An empty file is not renamed.
    bed.write(&[b"y"]);
    assert_eq!(bed.names(), ["fail.sh"]);
}

#[test]
fn own_script_of_the_last_run_is_replaced() {
    let bed = Bed::new();
    bed.write(&[b"x"]);
    bed.write(&[b"y"]);
    assert_eq!(bed.names(), ["fail.sh"]);
    assert!(bed.text().ends_with(b"rsync y\n"));
}

#[test]
fn script_of_sersync2_is_set_aside_and_loses_its_rights() {
    let bed = Bed::new();
    let old = b"#errno 3072\ncd /data && rsync -az ./x 10.0.0.1::www >/dev/null 2>&1 \n";
    for _ in 0..2 {
        fs::write(&bed.path, old).unwrap();
        fs::set_permissions(&bed.path, Permissions::from_mode(0o777)).unwrap();
        FailLog::open(&bed.path);
    }
    assert_eq!(bed.names(), ["fail.sh.legacy", "fail.sh.legacy.1"]);
    let aside = bed.dir.path().join("fail.sh.legacy");
    assert_eq!(fs::read(&aside).unwrap(), old);
    assert_eq!(fs::metadata(&aside).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn link_is_replaced_and_its_target_untouched() {
    let bed = Bed::new();
    let target = bed.dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
    for link_to in [target.as_path(), Path::new("dangling")] {
        let _ = fs::remove_file(&bed.path);
        symlink(link_to, &bed.path).unwrap();
        bed.write(&[b"x"]);
        bed.assert_is_ours();
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(bed.names(), ["fail.sh", "target"]);
}

#[test]
fn hard_link_to_another_file_leaves_that_file_as_it_is() {
    let bed = Bed::new();
    let target = bed.dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o604)).unwrap();
    fs::hard_link(&target, &bed.path).unwrap();
    bed.write(&[b"x"]);
    bed.assert_is_ours();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o604);
}

#[test]
fn fifo_and_socket_are_replaced_without_blocking() {
    let bed = Bed::new();
    mknodat(CWD, &bed.path, FileType::Fifo, Mode::from(0o666), 0).unwrap();
    bed.write(&[b"x"]);
    bed.assert_is_ours();
    fs::remove_file(&bed.path).unwrap();
    let _socket = UnixListener::bind(&bed.path).unwrap();
    bed.write(&[b"x"]);
    bed.assert_is_ours();
}

#[test]
fn directory_and_device_are_left_alone() {
    let bed = Bed::new();
    fs::create_dir(&bed.path).unwrap();
    let log = bed.write(&[b"x"]);
    assert!(log.warned && bed.path.is_dir());
    assert_eq!(bed.names(), ["fail.sh"]);
    let mut null = FailLog::open(Path::new("/dev/null"));
    null.write(&[failure(b"x")]);
    assert!(!null.warned);
    let mut full = FailLog::open(Path::new("/dev/full"));
    full.write(&[failure(b"x")]);
    assert!(full.warned);
    for device in ["/dev/null", "/dev/full"] {
        let kind = fs::symlink_metadata(device).unwrap().file_type();
        assert!(kind.is_char_device());
    }
}

#[test]
fn file_of_another_user_in_a_sticky_directory_is_not_written_to() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: cannot make a file of another user");
        return;
    }
    let bed = Bed::new();
    fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o1777)).unwrap();
    fs::write(&bed.path, "rm -rf /\n").unwrap();
    fs::set_permissions(&bed.path, Permissions::from_mode(0o666)).unwrap();
    chown(&bed.path, Some(12345), Some(12345)).unwrap();
    let opened = File::options().append(true).open(&bed.path).unwrap();
    bed.write(&[b"x"]);
    bed.assert_is_ours();
    assert_eq!(fs::metadata(&bed.path).unwrap().uid(), 0);
    // A process that still has the old file open writes to the old file.
    (&opened).write_all(b"evil\n").unwrap();
    assert!(!bed.text().ends_with(b"evil\n"));
    assert_eq!(bed.names(), ["fail.sh", "fail.sh.legacy"]);
}

#[test]
fn missing_directory_is_made_and_an_impossible_one_is_a_warning() {
    let bed = Bed::new();
    let mut log = FailLog::open(&bed.dir.path().join("a/b/fail.sh"));
    log.write(&[failure(b"x")]);
    assert!(!log.warned && bed.dir.path().join("a/b/fail.sh").is_file());
    fs::write(&bed.path, "").unwrap();
    let mut log = FailLog::open(&bed.path.join("fail.sh"));
    log.write(&[failure(b"x")]);
    assert!(log.warned);
    // The next write tries again.
    fs::remove_file(&bed.path).unwrap();
    log.write(&[failure(b"x")]);
    assert!(!log.warned && bed.path.join("fail.sh").is_file());
}
