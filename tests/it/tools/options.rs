//! Every option with the same tree and operations: the same output as the original, byte by byte.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::process::Signal;

use super::pair::{Operation, Pair, assert_same};

pub fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("t/a/b")).unwrap();
    fs::create_dir_all(dir.join("t/c d")).unwrap();
    fs::create_dir_all(dir.join("out")).unwrap();
    fs::write(dir.join("t/f"), "x").unwrap();
    fs::write(dir.join("t/a/g"), "y").unwrap();
    fs::write(dir.join("list"), "t/a\n\n@\n@t/a/b\n").unwrap();
    symlink("t", dir.join("link")).unwrap();
    symlink("t/f", dir.join("flink")).unwrap();
}

fn operation(work: impl Fn(&Path) + 'static) -> Operation {
    Box::new(work)
}

/// Operations of every kind, inside and outside the tree.
fn operations() -> Vec<Operation> {
    let mut all = vec![
        operation(|d| fs::write(d.join("t/new"), "1").unwrap()),
        operation(|d| append(&d.join("t/f"))),
        operation(|d| _ = fs::read(d.join("t/f")).unwrap()),
        operation(|d| fs::set_permissions(d.join("t/f"), Permissions::from_mode(0o600)).unwrap()),
        operation(|d| fs::create_dir(d.join("t/m")).unwrap()),
        operation(|d| fs::write(d.join("t/m/in \"m\", new"), "2").unwrap()),
        operation(|d| fs::write(d.join("t/a/b/ x.TXT "), "3").unwrap()),
        operation(|d| fs::rename(d.join("t/new"), d.join("t/a/moved")).unwrap()),
        operation(|d| fs::rename(d.join("t/m"), d.join("t/a/m2")).unwrap()),
        operation(|d| fs::write(d.join("t/a/m2/after"), "4").unwrap()),
        operation(|d| fs::rename(d.join("t/a/moved"), d.join("out/moved")).unwrap()),
        operation(|d| fs::rename(d.join("out/moved"), d.join("t/back")).unwrap()),
        operation(|d| symlink("f", d.join("t/sym")).unwrap()),
        operation(|d| fs::hard_link(d.join("t/f"), d.join("t/c d/hard")).unwrap()),
        operation(|d| append(&d.join("flink"))),
        operation(|d| File::options().write(true).open(d.join("t/f")).unwrap().set_len(1).unwrap()),
        operation(|d| fs::remove_file(d.join("t/back")).unwrap()),
        operation(|d| fs::remove_file(d.join("t/a/m2/after")).unwrap()),
    ];
    all.push(operation(|d| fs::remove_file(d.join("t/a/m2/in \"m\", new")).unwrap()));
    all.push(operation(|d| fs::remove_dir(d.join("t/a/m2")).unwrap()));
    all.push(operation(|d| fs::rename(d.join("t/f"), d.join("t/f2")).unwrap()));
    all.push(operation(|d| fs::remove_file(d.join("t/f2")).unwrap()));
    all
}

pub fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

pub fn read_some(path: &Path) {
    let mut bytes = [0; 1];
    _ = File::open(path).unwrap().read(&mut bytes).unwrap();
}

/// Operations that cause equal consecutive events. The kernel merges such events while they are unread, so counts differ from run to
/// run.
fn repeating_operations() -> Vec<Operation> {
    vec![
        operation(|d| _ = fs::read_dir(d.join("t/a")).unwrap().count()),
        operation(|d| fs::write(d.join("flink"), "through the link").unwrap()),
    ]
}

fn try_line(line: &str) {
    let words: Vec<String> = line.split(' ').map(|word| word.replace("\\s", " ")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let pair = Pair::new(tree);
    let end = if words[0] == "inotifywatch" { Signal::INT } else { Signal::TERM };
    // A format may omit what distinguishes a repeated event from another one.
    let is_plain = words[0] == "inotifywait" && !words.contains(&"--format");
    let mut all = if is_plain { repeating_operations() } else { Vec::new() };
    all.extend(operations());
    assert_same(line, pair.watch(words[0], &words[1..], &all, end));
}

/// The events that `-e` knows and that the operations of the tests cause.
pub const EVENTS: [&str; 15] = [
    "access",
    "modify",
    "attrib",
    "close_write",
    "close_nowrite",
    "close",
    "open",
    "moved_to",
    "moved_from",
    "move",
    "move_self",
    "create",
    "delete",
    "delete_self",
    "all_events",
];

#[test]
fn events_are_printed_as_by_the_original() {
    for line in [
        "inotifywait t",
        "inotifywait -m t",
        "inotifywait -mr t",
        "inotifywait -mr t/",
        "inotifywait -mr ./t",
        "inotifywait -mr .",
        "inotifywait -m -r t/a t/c\\sd",
        "inotifywait -m t/f",
        "inotifywait -m t/f t",
        "inotifywait -mr t/f",
        "inotifywait -m link",
        "inotifywait -mr link",
        "inotifywait -m flink",
        "inotifywait -m -P link",
        "inotifywait -mr -P link flink",
        "inotifywait -m t t/ ./t",
        "inotifywait -mr t @t/a",
        "inotifywait -mr t @t/a/b/ @t/c\\sd",
        "inotifywait -mr --fromfile list",
        "inotifywait -mr --fromfile list out",
        "inotifywait -qmr t",
        "inotifywait -qqmr t",
        "inotifywait -qq t",
        "inotifywait -mr -o log t",
        "inotifywait -m -s t",
    ] {
        try_line(line);
    }
}

#[test]
fn each_event_can_be_asked_for() {
    let more = [
        "unmount",
        "isdir",
        "ignored",
        "q_overflow",
        "oneshot,modify",
        "modify,create,delete,move",
    ];
    for event in EVENTS.into_iter().chain(more) {
        try_line(&format!("inotifywait -mr -e {event} t"));
        try_line(&format!("inotifywait -m -e {event} t/f"));
        try_line(&format!("inotifywait -e {event} t/f"));
    }
}

#[test]
fn formats_are_written_as_by_the_original() {
    for line in [
        "inotifywait -mr -c t",
        "inotifywait -m -c t/f",
        "inotifywait -mr --csv -e create,close_write,move t",
        "inotifywait -mr --format %w%f t",
        "inotifywait -mr --format %w\\s%f\\s%e\\scookie=%c; t",
        "inotifywait -mr --format %:e|%,e|%xe|%%e|%ee|%0e t",
        "inotifywait -mr --format %w%f:%e%0 --no-newline t",
        "inotifywait -mr --format %0e%0%w%0 t",
        "inotifywait -mr --format %w%n%f%z%1% t",
        "inotifywait -mr --format [%T] --timefmt %%-%n-%Y t",
        "inotifywait -mr --format [%T]%w --timefmt x%p t",
        "inotifywait -mr --format % --no-newline t",
        "inotifywait -mr --format x% t",
        "inotifywait -m --format %T%f --timefmt %Q%q%Ey%5 t",
    ] {
        try_line(line);
    }
}

#[test]
fn expressions_choose_events_as_in_the_original() {
    for line in [
        "inotifywait -mr --exclude a/ t",
        "inotifywait -mr --exclude ^t/[a-c] t",
        "inotifywait -mr --exclude (new|moved)$ t",
        "inotifywait -mr --exclude \\.txt t",
        "inotifywait -mr --excludei \\.txt.$ t",
        "inotifywait -mr --exclude ^$ t",
        "inotifywait -m --include new$ t",
        "inotifywait -m --includei NEW t",
        "inotifywait -m --include f t/f",
        "inotifywait --exclude new t",
        "inotifywait -m --exclude x{1,} t",
        "inotifywait -m --exclude [[:space:]] --exclude \\bnew\\b t",
    ] {
        try_line(line);
    }
}

#[test]
fn tables_are_those_of_the_original() {
    for line in [
        "inotifywatch t",
        "inotifywatch -v t",
        "inotifywatch -r t",
        "inotifywatch -v -r t @t/a/b",
        "inotifywatch -z -r t",
        "inotifywatch -z t/f",
        "inotifywatch -e modify,create,move -r t",
        "inotifywatch -a total -r t",
        "inotifywatch -a create -r t",
        "inotifywatch -d create -r t",
        "inotifywatch -d access -r t",
        "inotifywatch -d close_write -z -r t",
        "inotifywatch -e close t/a t/c\\sd",
        "inotifywatch -e unmount t",
        "inotifywatch -P link flink",
        "inotifywatch --fromfile list -r",
        "inotifywatch --exclude a/ -r t",
        "inotifywatch --include f$ t t/f",
    ] {
        try_line(line);
    }
}
