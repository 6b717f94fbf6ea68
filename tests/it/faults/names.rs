//! Names and trees at the limits of the file system, and entries that change while they are read.
//! `mirror.rs` tests names that have a meaning for rsync or a shell.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{free_port, wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn standing(daemon: &Rsyncd, params: &str) -> Mirror {
    Mirror::start(&Setup { params: params.into(), ..Setup::to(daemon) })
}

#[test]
fn names_of_255_bytes_arrive_and_disappear() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-artz");
    // rsync shortens its temporary names for these: one without an extension, one with, one that is not UTF-8.
    let names = [vec![b'a'; 255], [vec![b'b'; 251], b".txt".to_vec()].concat(), vec![0xfe; 255]];
    let deep: PathBuf = std::iter::repeat_n(OsStr::from_bytes(&[b'd'; 255]), 4).collect();
    fs::create_dir_all(mirror.at(&deep)).unwrap();
    for name in &names {
        fs::write(mirror.at(OsStr::from_bytes(name)), "x").unwrap();
        fs::write(mirror.at(&deep).join(OsStr::from_bytes(name)), "y").unwrap();
    }
    wait_until_same(&mirror.source, &daemon.data, SOON, "with long names");
    for name in &names {
        fs::remove_file(mirror.at(OsStr::from_bytes(name))).unwrap();
    }
    fs::remove_dir_all(mirror.at(OsStr::from_bytes(&[b'd'; 255]))).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "without long names");
}

/// Names with this byte: alone, at the start, in the middle, at the end. Excludes `.`, `..` and editors' temporary names.
fn names_with(byte: u8) -> Vec<Vec<u8>> {
    let names = [vec![byte], vec![byte, b'x'], vec![b'x', byte, b'x'], vec![b'x', byte]];
    names.into_iter().filter(|name| name != b"." && !name.ends_with(b"~")).collect()
}

#[test]
fn names_with_each_byte_but_nul_and_slash_arrive_change_and_disappear() {
    // Once with lists of names, and once with patterns, which delete names when the params contain a filter.
    for params in ["-artz", "-artz --exclude=no-such-name"] {
        let daemon = Rsyncd::start();
        let mirror = standing(&daemon, params);
        let bytes = (1..=255).filter(|byte| *byte != b'/');
        let names: BTreeSet<_> = bytes.flat_map(names_with).collect();
        assert!(names.len() > 4 * 254 - 20);
        let at = |dir: &str, name: &Vec<u8>| mirror.at(dir).join(OsStr::from_bytes(name));
        fs::create_dir(mirror.at("files")).unwrap();
        for name in &names {
            fs::write(at("files", name), name).unwrap();
            let dir = at("directories", name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
        }
        wait_until_same(&mirror.source, &daemon.data, SOON, "with every byte");
        names.iter().for_each(|name| fs::write(at("files", name), "other").unwrap());
        wait_until_same(&mirror.source, &daemon.data, SOON, "written again");
        for name in &names {
            fs::remove_file(at("files", name)).unwrap();
            fs::remove_dir_all(at("directories", name)).unwrap();
        }
        wait_until_same(&mirror.source, &daemon.data, SOON, "without them");
    }
}

#[test]
fn the_longest_path_that_can_be_said_arrives_changes_moves_and_disappears() {
    const PATH_MAX: usize = 4_095;
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-artz");
    let levels = |count: usize| std::iter::repeat_n("l".repeat(199), count).collect::<PathBuf>();
    let room = |path: &PathBuf| PATH_MAX - mirror.at(path).as_os_str().len();
    let mut long = levels((PATH_MAX - mirror.source.as_os_str().len() - 2) / 200);
    long.push("f".repeat(room(&long) - 1));
    assert_eq!(room(&long), 0);
    for content in ["first", "second"] {
        mirror.write(&long, content);
        wait_for_content(&daemon.at(&long), content);
    }
    let other = "m".repeat(199);
    fs::rename(mirror.at(levels(1)), mirror.at(&other)).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "moved at the top");
    let long = PathBuf::from(&other).join(long.strip_prefix(levels(1)).unwrap());
    fs::remove_file(mirror.at(&long)).unwrap();
    wait_until("the file is gone", || !daemon.at(&long).exists());
    fs::remove_dir_all(mirror.at(&other)).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "without it");
}

#[test]
fn a_tree_of_500_levels_arrives_changes_and_disappears() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-artz");
    let deep: PathBuf = std::iter::repeat_n("d", 500).collect();
    fs::create_dir_all(mirror.at(&deep)).unwrap();
    mirror.write(deep.join("bottom"), "first");
    wait_for_content(&daemon.at(deep.join("bottom")), "first");
    mirror.write(deep.join("bottom"), "second");
    wait_for_content(&daemon.at(deep.join("bottom")), "second");
    fs::rename(mirror.at("d/d"), mirror.at("d/e")).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "moved near the top");
    fs::remove_dir_all(mirror.at("d")).unwrap();
    wait_until("the tree is gone", || !daemon.at("d").exists());
}

#[test]
fn a_path_beyond_what_the_kernel_takes_stops_nothing_else() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-artz");
    // Deeper than the longest path, so the directories are created and removed step by step.
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, &mirror.source, flags, Mode::empty()).unwrap();
    let name = "n".repeat(250);
    for _ in 0..20 {
        mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    mirror.write("beside", "x");
    wait_for_content(&daemon.at("beside"), "x");
    mirror.write("later", "y");
    wait_for_content(&daemon.at("later"), "y");
    let upper = daemon.at(&name).join(&name);
    wait_until("what has a path arrives", || upper.is_dir());
    drop(dir);
    assert!(fs::remove_dir_all(mirror.at(&name)).is_ok());
    wait_until("the deep tree is gone", || !daemon.at(&name).exists());
}

#[test]
fn every_kind_of_entry_arrives_as_what_it_is() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-aHz");
    mirror.write("file", "x");
    fs::hard_link(mirror.at("file"), mirror.at("second name")).unwrap();
    symlink("/", mirror.at("to the root")).unwrap();
    symlink(".", mirror.at("to itself")).unwrap();
    symlink("circle b", mirror.at("circle a")).unwrap();
    symlink("circle a", mirror.at("circle b")).unwrap();
    symlink("nowhere", mirror.at("dangling")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, mirror.at(name), kind, Mode::from_raw_mode(0o600), device)
    };
    node("fifo", FileType::Fifo, 0).unwrap();
    if node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_err() {
        eprintln!("devices are left out: they may not be made here");
    }
    let _socket = UnixListener::bind(mirror.at("socket")).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "with every kind");
    wait_until("both names are one file", || {
        let inode = |name: &str| fs::metadata(daemon.at(name)).map(|meta| meta.ino()).ok();
        inode("file") == inode("second name")
    });
}

#[test]
fn a_change_of_mode_owner_or_time_alone_arrives() {
    let daemon = Rsyncd::start();
    let params = "-artz".to_string();
    let setup = Setup { params, on: vec!["attrib"], ..Setup::to(&daemon) };
    let mirror = Mirror::start(&setup);
    mirror.write("d/f", "x");
    wait_until_same(&mirror.source, &daemon.data, SOON, "at first");
    let (dir, file) = (mirror.at("d"), mirror.at("d/f"));
    for mode in [0o600, 0o4755, 0o000, 0o644] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        wait_until_same(&mirror.source, &daemon.data, SOON, "with another mode");
    }
    for mode in [0o700, 0o2775, 0o1777] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        wait_until_same(&mirror.source, &daemon.data, SOON, "with another mode of the directory");
    }
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    // Set both times: the kernel reports a change of only one as a write.
    let times = fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    fs::File::open(&file).unwrap().set_times(times).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "with another time");
    if std::os::unix::fs::chown(&file, Some(12_345), None).is_err() {
        eprintln!("owners are left out: they may not be changed here");
    }
    wait_until_same(&mirror.source, &daemon.data, SOON, "with another owner");
}

#[test]
fn a_sparse_file_and_one_that_grows_arrive_whole() {
    let daemon = Rsyncd::start();
    let params = "-artzS".to_string();
    let mirror = Mirror::start(&Setup { params, on: vec!["modify"], ..Setup::to(&daemon) });
    let sparse = fs::File::create(mirror.at("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    drop(sparse);
    let mut grows = OpenOptions::new().append(true).create(true).open(mirror.at("log")).unwrap();
    let arrived = || fs::metadata(daemon.at("log")).map_or(0, |meta| meta.len());
    let mut sizes = Vec::new();
    for line in 0..2_000 {
        writeln!(grows, "line {line} {}", "x".repeat(4_000)).unwrap();
        if line % 200 == 100 {
            // The file is still open, and grows while it is sent.
            let last = sizes.last().copied().unwrap_or(0);
            wait_until("more of it arrives", || {
                writeln!(grows, "between {line}").unwrap();
                arrived() > last
            });
            sizes.push(arrived());
        }
    }
    assert!(sizes.len() == 10 && arrived() < fs::metadata(mirror.at("log")).unwrap().len());
    drop(grows);
    wait_until_same(&mirror.source, &daemon.data, SOON, "when it has stopped growing");
    assert!(fs::metadata(daemon.at("sparse")).unwrap().blocks() < 2_048, "it is not sparse");
}

#[test]
fn entries_replaced_by_others_faster_than_runs_end_right() {
    let daemon = Rsyncd::start();
    let mirror = standing(&daemon, "-artz");
    for round in 0..60 {
        let (file, link) = (mirror.at("x"), mirror.at("l"));
        fs::write(&file, format!("file {round}")).unwrap();
        let _ = symlink(format!("{round}"), &link);
        mirror.write("again", format!("{round:04}"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::write(file.join("inside"), format!("{round}")).unwrap();
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        if round % 7 == 0 {
            std::thread::sleep(Duration::from_millis(30));
        }
        if round < 59 {
            fs::remove_dir_all(&file).unwrap();
            fs::remove_dir(&link).unwrap();
            fs::remove_file(mirror.at("again")).unwrap();
        }
    }
    wait_until_same(&mirror.source, &daemon.data, SOON, "in the end");
}

#[test]
fn a_file_that_becomes_a_fifo_while_it_waits_to_be_sent_holds_nothing_up() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(6, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemon) });
    mirror.write("d/first", "x");
    wait_for_content(&daemon.at("d/first"), "x");
    // Both are in one run, which lists both and opens the second one only after it has sent the first.
    forwarder.set_rate(Some(256 << 10));
    let noise = crate::support::noise(256 << 10, 1);
    mirror.signal(rustix::process::Signal::STOP);
    mirror.write("d/a", &noise);
    mirror.write("d/b", "y");
    mirror.signal(rustix::process::Signal::CONT);
    let arriving = || fs::read_dir(daemon.at("d")).unwrap().count() > 1;
    wait_until("the first is under way", arriving);
    fs::remove_file(mirror.at("d/b")).unwrap();
    mknodat(CWD, mirror.at("d/b"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    wait_until_same(&mirror.source, &daemon.data, SOON, "with the fifo");
    assert!(!mirror.output().contains("is down"), "{}", mirror.output());
}
