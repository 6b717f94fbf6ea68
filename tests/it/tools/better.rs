//! Intended improvements over the originals; docs/TOOLS.md lists each of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::options::tree;
use super::pair::{Operation, Pair, Result, bin};
use crate::support::TestDir;

fn watch(line: &str, operations: Vec<Operation>) -> [Result; 2] {
    let words: Vec<&str> = line.split(' ').collect();
    Pair::new(tree).watch(words[0], &words[1..], &operations, Signal::TERM)
}

fn operation(work: impl Fn(&Path) + 'static) -> Operation {
    Box::new(work)
}

#[test]
fn what_is_made_in_a_new_directory_at_once_is_told() {
    let make = operation(|d| {
        fs::create_dir_all(d.join("t/new/deep/er")).unwrap();
        for n in 0..50 {
            fs::write(d.join(format!("t/new/deep/er/f{n}")), "x").unwrap();
        }
    });
    let [_, ours] = watch("inotifywait -qmr -e create,close_write --format %w%f:%e t", vec![make]);
    for dir in ["t/new", "t/new/deep", "t/new/deep/er"] {
        let line = format!("{dir}:CREATE,ISDIR\n");
        assert_eq!(ours.stdout.matches(&line).count(), 1, "{line}{}", ours.stdout);
    }
    for n in 0..50 {
        let line = format!("t/new/deep/er/f{n}:CREATE\n");
        assert_eq!(ours.stdout.matches(&line).count(), 1, "{line}{}", ours.stdout);
        // A file may be found before its writer closes it, so it may be reported twice.
        let line = format!("t/new/deep/er/f{n}:CLOSE_WRITE,CLOSE\n");
        assert!(ours.stdout.contains(&line), "{line}{}", ours.stdout);
    }
}

#[test]
fn a_directory_that_leaves_the_tree_is_not_watched_any_more() {
    let [_, ours] = watch(
        "inotifywait -qmr t",
        vec![
            operation(|d| fs::rename(d.join("t/a"), d.join("out/a")).unwrap()),
            operation(|d| fs::write(d.join("out/a/b/f"), "x").unwrap()),
            operation(|d| fs::write(d.join("t/last"), "x").unwrap()),
        ],
    );
    assert!(ours.stdout.contains("MOVED_FROM,ISDIR a") && ours.stdout.contains("last"), "{ours:?}");
    assert!(!ours.stdout.contains("t/a/b/ "), "{ours:?}");
    assert_eq!(ours.stderr, "");
}

#[test]
fn a_directory_that_is_made_again_and_renamed_is_told_by_its_new_name() {
    let [_, ours] = watch(
        "inotifywait -qmr t",
        vec![
            operation(|d| fs::create_dir(d.join("t/again")).unwrap()),
            operation(|d| fs::remove_dir(d.join("t/again")).unwrap()),
            operation(|d| fs::create_dir(d.join("t/again")).unwrap()),
            operation(|d| fs::rename(d.join("t/again"), d.join("t/renamed")).unwrap()),
            operation(|d| fs::write(d.join("t/renamed/f"), "x").unwrap()),
        ],
    );
    assert!(ours.stdout.contains("t/renamed/ CREATE f\n"), "{}", ours.stdout);
}

#[test]
fn two_directories_that_change_names_are_told_by_their_new_names() {
    let exchange = operation(|d| {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, d.join("t/a"), cwd, d.join("t/c d"), flags).unwrap();
    });
    let write = operation(|d| {
        fs::write(d.join("t/a/one"), "x").unwrap();
        fs::write(d.join("t/c d/b/two"), "x").unwrap();
    });
    let [_, ours] = watch("inotifywait -qmr t", vec![exchange, write]);
    for line in ["t/a/ CREATE one\n", "t/c d/b/ CREATE two\n"] {
        assert!(ours.stdout.contains(line), "{line}{}", ours.stdout);
    }
}

#[test]
fn an_included_file_in_a_new_directory_is_told() {
    let [theirs, ours] = watch(
        "inotifywait -qmr --include \\.txt$ t",
        vec![
            operation(|d| fs::create_dir(d.join("t/new")).unwrap()),
            operation(|d| fs::write(d.join("t/new/a.txt"), "x").unwrap()),
        ],
    );
    assert_eq!(theirs.stdout, "");
    assert!(ours.stdout.starts_with("t/new/ CREATE a.txt\n"), "{}", ours.stdout);
}

#[test]
fn a_directory_that_is_left_out_stays_left_out_when_it_is_made_again() {
    let [_, ours] = watch(
        "inotifywait -qmr t @t/a/b",
        vec![
            operation(|d| fs::remove_dir(d.join("t/a/b")).unwrap()),
            operation(|d| fs::create_dir(d.join("t/a/b")).unwrap()),
            operation(|d| fs::write(d.join("t/a/b/f"), "x").unwrap()),
        ],
    );
    assert!(ours.stdout.contains("CREATE,ISDIR b") && !ours.stdout.contains("t/a/b/"), "{ours:?}");
}

#[test]
fn the_tools_own_reading_is_not_an_event() {
    let pair = Pair::new(tree);
    let [theirs, ours] = pair.run("inotifywatch", &["-r", "-t", "1", "t", "t/a", "t"], "");
    assert!(theirs.stdout.starts_with("total  access"), "{theirs:?}");
    assert!(ours.stderr.ends_with("No events occurred.\n"), "{ours:?}");
}

#[test]
fn names_of_any_bytes_are_told_whole() {
    let make = operation(|d| {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"a\nb\xff\x01 ");
        fs::write(d.join("t").join(name), "x").unwrap();
    });
    let [theirs, ours] =
        watch("inotifywait -qm -e create --format %w%f%0 --no-newline t", vec![make]);
    assert_eq!(ours.stdout, "t/a\nb\u{fffd}\u{1} \0");
    assert_eq!(theirs, ours);
}

#[test]
fn events_that_the_kernel_drops_are_said() {
    let dir = TestDir::new();
    let bin = bin(&dir);
    dir.dir("t");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    for name in ["a", "b"] {
        dir.file(Path::new("t").join(name), "");
    }
    let mut tool = Command::new(bin.join("inotifywait"))
        .args(["-m", "-e", "attrib,q_overflow", "-o", "log", "t"])
        .current_dir(dir.path())
        .stderr(fs::File::create(dir.join("err")).unwrap())
        .spawn()
        .unwrap();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    crate::support::wait_until("it watches", || read("err").contains("established"));
    let pid = rustix::process::Pid::from_child(&tool);
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    // The kernel does not merge alternating events about two files.
    for n in 0..limit + 10 {
        let file = dir.join(["t/a", "t/b"][n % 2]);
        rustix::fs::chmod(&file, rustix::fs::Mode::RUSR).unwrap();
    }
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    crate::support::wait_until("the overflow is said", || {
        read("err").contains("max_queued_events")
    });
    crate::support::wait_until("the overflow is an event", || {
        read("log").contains(" Q_OVERFLOW \n")
    });
    tool.kill().unwrap();
    tool.wait().unwrap();
}

#[test]
fn the_background_keeps_relative_paths() {
    let dir = TestDir::new();
    let bin = bin(&dir);
    dir.dir("t");
    dir.file("log", "");
    let status = Command::new(bin.join("inotifywait"))
        .args(["-d", "-o", "log", "-e", "create", "t"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    let log = || fs::read_to_string(dir.join("log")).unwrap();
    let mut count = 0;
    crate::support::wait_until("the background tool writes its log", || {
        count += 1;
        fs::write(dir.join(format!("t/f{count}")), "").unwrap();
        log().contains("t/ CREATE f")
    });
    // It is not a child of this process, so find it by its working directory.
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir.path())
            && let Ok(pid) = entry.file_name().to_string_lossy().parse()
        {
            crate::support::kill(pid);
        }
    }
}

#[test]
fn a_tool_can_be_called_as_a_command_of_sersync2() {
    let output = Command::new(env!("CARGO_BIN_EXE_sersync2"))
        .args(["inotifywait", "-t", "1", "/nowhere"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "Setting up watches.\nCouldn't watch /nowhere: No such file or directory\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn fanotify_is_refused_and_inotify_serves_the_fsnotify_names() {
    let dir = TestDir::new();
    let bin = bin(&dir);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("fsnotifywait"));
        command.args(arguments).current_dir(dir.path()).output().unwrap()
    };
    let refused = run(&["-F", "-t", "1", "."]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("with inotify only"), "{refused:?}");
    assert_eq!(run(&["-t", "1", "."]).status.code(), Some(2));
}
