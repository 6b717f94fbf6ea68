//! A remote whose file system ignores case: what differs in its case only is one file there.
//! Nothing that exists here may be missing there, and nothing may be sent again and again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::control;
use crate::support::mirror::{Mirror, Setup};
use crate::support::ntfs::Ntfs;
use crate::support::rsyncd::Rsyncd;
use crate::support::sshd::Sshd;
use crate::support::{TestDir, wait_until};

/// Modes, owners and nanoseconds are not kept there.
const PARAMS: &str = "-rt --modify-window=1";

/// A daemon whose module lies on a file system that ignores case.
struct Remote {
    // Fields are dropped in this order: end the daemon before the unmount, because its processes keep the file system busy.
    daemon: Rsyncd,
    _disk: Ntfs,
}

impl Remote {
    fn start() -> Option<Self> {
        let daemon = Rsyncd::start();
        let disk = Ntfs::mount(&daemon.data)?;
        Some(Self { daemon, _disk: disk })
    }

    fn setup(&self) -> Setup {
        Setup { params: PARAMS.into(), ..Setup::to(&self.daemon) }
    }
}

/// Every name below `root` in lower case, with the size and the beginning of a file.
fn content(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().to_lowercase();
            if path.is_dir() {
                found.insert(name, "directory".into());
                todo.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_default();
            let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
            found.insert(name, format!("{} bytes, {begin:?}", bytes.len()));
        }
    }
    found
}

/// Waits until nothing is owed.
fn flush(mirror: &Mirror, what: &str) {
    const NOT_RUNNING: Option<i32> = Some(3);
    let mut code = None;
    wait_until("the control socket is there after the start", || {
        code = control::run(mirror, "flush", &[]).status.code();
        code != NOT_RUNNING
    });
    assert_eq!(code, Some(0), "{what}");
}

/// Waits until the copy has the same names and content, and until nothing is owed.
fn same(mirror: &Mirror, copy: &Path, what: &str) {
    wait_until(&format!("the copy is equal after {what}"), || {
        content(&mirror.source) == content(copy)
    });
    flush(mirror, what);
    assert_eq!(content(&mirror.source), content(copy), "{what}: it did not last");
}

fn rename(mirror: &Mirror, old: &str, new: &str) {
    fs::rename(mirror.at(old), mirror.at(new)).unwrap();
}

#[test]
fn what_is_renamed_in_its_case_only_stays_on_a_remote_that_ignores_case() {
    let Some(remote) = Remote::start() else { return };
    let mirror = Mirror::start(&remote.setup());
    change_names(&mirror, &remote.daemon.data);
}

#[test]
fn it_stays_in_a_directory_of_this_machine() {
    let copy = TestDir::new();
    let Some(_disk) = Ntfs::mount(copy.path()) else { return };
    let more_remotes = format!("<remote path=\"{}\"/>", copy.path().display());
    let mirror = Mirror::start(&Setup { more_remotes, params: PARAMS.into(), ..Setup::plain() });
    change_names(&mirror, copy.path());
}

#[test]
fn it_stays_on_a_remote_that_is_reached_over_ssh() {
    let copy = TestDir::new();
    let Some(_disk) = Ntfs::mount(copy.path()) else { return };
    let sshd = Sshd::start();
    let mirror = Mirror::start(&Setup {
        remotes: vec![("127.0.0.1".into(), copy.path().display().to_string())],
        params: PARAMS.into(),
        port: sshd.port,
        ssh: true,
        env: vec![("PATH".into(), sshd.path_variable())],
        ..Setup::plain()
    });
    change_names(&mirror, copy.path());
}

/// Renames files and directories in their case only, alone and among other changes.
fn change_names(mirror: &Mirror, copy: &Path) {
    mirror.write("Big.iso", vec![7; 300_000]);
    mirror.write("Dir/f", "1");
    mirror.write("Dir/Below/g", "2");
    mirror.write("a", "3");
    same(mirror, copy, "creations");
    rename(mirror, "Big.iso", "big.iso");
    same(mirror, copy, "a renamed file");
    rename(mirror, "Dir", "dir");
    same(mirror, copy, "a renamed directory");
    for number in 0..40 {
        mirror.write(format!("burst/{number}"), "x");
        if number == 20 {
            rename(mirror, "a", "A");
            rename(mirror, "dir/Below", "dir/below");
        }
    }
    same(mirror, copy, "a burst");
    rename(mirror, "A", "a");
    rename(mirror, "a", "A");
    rename(mirror, "big.iso", "Big.iso");
    rename(mirror, "Big.iso", "BIG.iso");
    same(mirror, copy, "names that change twice");
    rename(mirror, "dir", "DIR");
    mirror.write("DIR/f", "4");
    mirror.write("DIR/new", "5");
    fs::remove_file(mirror.at("DIR/below/g")).unwrap();
    same(mirror, copy, "changes in a directory that was renamed just now");
}

#[test]
fn what_was_renamed_in_its_case_while_nobody_looked_stays_too() {
    let Some(remote) = Remote::start() else { return };
    let mut mirror = Mirror::start(&remote.setup());
    let copy = &remote.daemon.data;
    for args in [&[][..], &["-r"]] {
        mirror.write("Big.iso", "1");
        mirror.write("Dir/f", "2");
        mirror.write("Dir/Below/g", "3");
        same(&mirror, copy, "creations");
        mirror.wait_for_record();
        mirror.stop();
        rename(&mirror, "Big.iso", "big.iso");
        rename(&mirror, "Dir", "dir");
        rename(&mirror, "dir/Below", "dir/BELOW");
        mirror.launch_with(args);
        mirror.wait_ready();
        same(&mirror, copy, &format!("a restart with {args:?}"));
        fs::remove_file(mirror.at("big.iso")).unwrap();
        fs::remove_dir_all(mirror.at("dir")).unwrap();
        same(&mirror, copy, "deletions");
    }
}

/// The remote can hold only one of the two. It holds one that exists here, and nothing is sent again and again.
#[test]
fn of_two_names_that_differ_in_their_case_one_is_there_until_the_last_is_gone() {
    let Some(remote) = Remote::start() else { return };
    let mut mirror = Mirror::start(&remote.setup());
    let copy = &remote.daemon.data;
    let holds = |mirror: &Mirror, what: &str, expected: &[&str]| {
        flush(mirror, what);
        let there = fs::read_to_string(copy.join("f")).unwrap_or_default();
        assert!(expected.contains(&there.as_str()), "{what}: {there:?}");
    };
    mirror.write("f", "small");
    holds(&mirror, "one name", &["small"]);
    mirror.write("F", "capital");
    holds(&mirror, "both names", &["small", "capital"]);
    mirror.stop();
    mirror.launch_with(&["-r"]);
    mirror.wait_ready();
    holds(&mirror, "a full sync", &["small", "capital"]);
    fs::remove_file(mirror.at("F")).unwrap();
    holds(&mirror, "one is deleted", &["small"]);
    mirror.write("F", "capital");
    holds(&mirror, "both names again", &["small", "capital"]);
    fs::remove_file(mirror.at("f")).unwrap();
    holds(&mirror, "the other one is deleted", &["capital"]);
    fs::remove_file(mirror.at("F")).unwrap();
    same(&mirror, copy, "both are deleted");

    mirror.write("d/small", "1");
    mirror.write("D/capital", "2");
    wait_until("the directories are one there", || content(copy).len() == 3);
    fs::remove_dir_all(mirror.at("D")).unwrap();
    same(&mirror, copy, "one directory is deleted");
}
