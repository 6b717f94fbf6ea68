//! Moves inside the tree, end to end: the trees become equal, and no file data is sent where that is possible.
//! watch/moves.rs tests how the hints are made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{noise, tree, wait_until};

/// The content of every file below `root`.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = tree(root).into_iter().filter(|line| line.starts_with("f "));
    let names = files.filter_map(|line| line.split('"').nth(1).map(str::to_owned));
    names.map(|name| (name.clone(), fs::read(root.join(&name)).unwrap_or_default())).collect()
}

fn wait_until_equal(mirror: &Mirror, daemon: &Rsyncd) {
    wait_until("the trees are equal", || {
        tree(&mirror.source) == tree(&daemon.data)
            && contents(&mirror.source) == contents(&daemon.data)
    });
}

/// How many bytes rsync has sent in total, once everything is delivered and confirmed. (A confirmation that runs during a rename
/// deletes the old name, and with it the copy for the new name.)
fn sent(mirror: &Mirror) -> u64 {
    assert_eq!(crate::control::run(mirror, "flush", &[]).status.code(), Some(0));
    let told = crate::control::snapshot(mirror);
    told["remotes"][0]["total"]["bytes"].as_u64().unwrap()
}

fn rename(mirror: &Mirror, from: &str, to: &str) {
    fs::rename(mirror.at(from), mirror.at(to)).unwrap();
}

#[test]
fn large_files_and_directories_move_without_their_data() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    fs::create_dir(mirror.at("elsewhere")).unwrap();
    mirror.write("image", noise(6 << 20, 1));
    mirror.write("app.log", noise(2 << 20, 2));
    for n in 0..40_usize {
        mirror.write(format!("many/d{}/f{n}", n % 4), noise(100_000, 3 + n as u64));
    }
    wait_until_equal(&mirror, &daemon);
    let before = sent(&mirror);
    assert!(before > 12_388_608, "{before} bytes");
    rename(&mirror, "image", "renamed");
    wait_until_equal(&mirror, &daemon);
    rename(&mirror, "renamed", "elsewhere/renamed");
    wait_until_equal(&mirror, &daemon);
    rename(&mirror, "app.log", "app.log.1");
    mirror.write("app.log", "the first line of a new day");
    wait_until_equal(&mirror, &daemon);
    rename(&mirror, "many", "few");
    wait_until_equal(&mirror, &daemon);
    let again = sent(&mirror) - before;
    assert!(again < 1_000_000, "{again} bytes");
}

#[test]
fn what_moves_on_before_its_last_move_has_ended_costs_no_data_either() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    mirror.write("file0", noise(6 << 20, 1));
    mirror.write("log0", noise(2 << 20, 2));
    for n in 0..20_usize {
        mirror.write(format!("dir0/f{n}"), noise(100_000, 3 + n as u64));
    }
    wait_until_equal(&mirror, &daemon);
    let before = sent(&mirror);
    assert!(before > 10_388_608, "{before} bytes");
    for (name, last) in [("file", ""), ("log", ""), ("dir", "/f9")] {
        for round in 0..12 {
            let (old, new) = (format!("{name}{round}"), format!("{name}{}", round + 1));
            rename(&mirror, &old, &new);
            // The job is not over yet when its last file is there.
            wait_until("it has moved", || daemon.at(format!("{new}{last}")).exists());
        }
    }
    wait_until_equal(&mirror, &daemon);
    let again = sent(&mirror) - before;
    assert!(again < 1_000_000, "{again} bytes");
}

#[test]
fn a_second_rename_in_the_same_burst_costs_no_data_either() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    let names = ["twice", "thrice", "back", "changed"];
    // Move them in from outside, so that each is sent once: rsync treats files of equal size and second as equal.
    for (number, name) in names.iter().enumerate() {
        let content = noise((5 << 20) + 4096 * number, 1 + number as u64);
        let outside = mirror.dir.file(format!("outside/{name}"), content);
        fs::rename(outside, mirror.at(name)).unwrap();
    }
    for n in 0..20_usize {
        mirror.dir.file(format!("outside/dir/f{n}"), noise(100_000, 9 + n as u64));
    }
    fs::rename(mirror.dir.dir("outside/dir"), mirror.at("dir")).unwrap();
    wait_until_equal(&mirror, &daemon);
    let before = sent(&mirror);
    assert!(before > 22_971_520, "{before} bytes");
    let chains = [
        &["twice", "twice1", "twice2"][..],
        &["thrice", "thrice1", "thrice2", "thrice3"],
        &["back", "back1", "back"],
        &["dir", "dir1", "dir2", "dir3"],
    ];
    for chain in chains {
        chain.windows(2).for_each(|names| rename(&mirror, names[0], names[1]));
        wait_until_equal(&mirror, &daemon);
    }
    rename(&mirror, "changed", "changed1");
    let mut file = fs::File::options().append(true).open(mirror.at("changed1")).unwrap();
    file.write_all(b"a line more").unwrap();
    rename(&mirror, "changed1", "changed2");
    wait_until_equal(&mirror, &daemon);
    let again = sent(&mirror) - before;
    assert!(again < 1_000_000, "{again} bytes");
}

/// Starts a mirror with large files of these names, each sent once; returns the bytes that were sent so far.
fn start_with_files(daemon: &Rsyncd, names: &[&str]) -> (Mirror, u64) {
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(daemon)
    });
    for (number, name) in names.iter().enumerate() {
        let content = noise((5 << 20) + 4096 * number, 1 + number as u64);
        // Move them in from outside, so that each is sent once.
        let outside = mirror.dir.file("outside", content);
        fs::create_dir_all(mirror.at(name).parent().unwrap()).unwrap();
        fs::rename(outside, mirror.at(name)).unwrap();
    }
    wait_until_equal(&mirror, daemon);
    let before = sent(&mirror);
    assert!(before > (names.len() as u64) * (5 << 20), "{before} bytes");
    (mirror, before)
}

#[test]
fn a_log_that_is_rotated_twice_in_a_burst_costs_no_data() {
    let daemon = Rsyncd::start();
    let logs = ["log0", "log1", "log2", "log3", "log4"];
    let (mirror, before) = start_with_files(&daemon, &logs);
    for log in logs {
        let (first, second) = (format!("{log}.1"), format!("{log}.2"));
        rename(&mirror, log, &first);
        mirror.write(log, "the first line of a new day");
        rename(&mirror, &first, &second);
        wait_until_equal(&mirror, &daemon);
    }
    let again = sent(&mirror) - before;
    assert!(again < 1_000_000, "{again} bytes");
}

#[test]
fn logs_that_move_up_in_a_burst_cost_at_most_one_of_them() {
    let daemon = Rsyncd::start();
    let (mirror, before) = start_with_files(&daemon, &["log", "log.1", "log.2"]);
    for (old, new) in [("log.2", "log.3"), ("log.1", "log.2"), ("log", "log.1")] {
        rename(&mirror, old, new);
    }
    mirror.write("log", "");
    wait_until_equal(&mirror, &daemon);
    let again = sent(&mirror) - before;
    // A job may begin between two of the renames. Then another one sends one of the three logs.
    assert!(again < 6_000_000, "{again} bytes");
}

#[test]
fn a_release_that_takes_the_name_of_another_costs_at_most_one_of_them() {
    let daemon = Rsyncd::start();
    let (mirror, before) = start_with_files(&daemon, &["www/large", "new/large"]);
    for (dir, size) in [("www", 1_000), ("new", 1_001)] {
        (0..20).for_each(|n| mirror.write(format!("{dir}/f{n}"), noise(size, n)));
    }
    wait_until_equal(&mirror, &daemon);
    sent(&mirror);
    rename(&mirror, "www", "old");
    rename(&mirror, "new", "www");
    wait_until_equal(&mirror, &daemon);
    let again = sent(&mirror) - before;
    // A job may begin between the two renames. Then another one sends one of the releases.
    assert!(again < 6_000_000, "{again} bytes");
}

#[test]
fn what_moves_over_something_else_replaces_it_as_a_whole() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    mirror.write("a/common", "of a");
    mirror.write("a/sub/only a", "1");
    mirror.write("b/common", "of b");
    mirror.write("b/only b/file", "2");
    mirror.write("c", "a file");
    wait_until_equal(&mirror, &daemon);
    fs::remove_dir_all(mirror.at("b")).unwrap();
    rename(&mirror, "a", "b");
    wait_until_equal(&mirror, &daemon);
    fs::remove_file(mirror.at("c")).unwrap();
    rename(&mirror, "b", "c");
    wait_until_equal(&mirror, &daemon);
}

#[test]
fn chains_and_swaps_leave_equal_trees() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    for name in ["a", "b"] {
        mirror.write(format!("{name}/file"), name);
        mirror.write(format!("{name}/sub/{name}"), name);
        mirror.write(name.to_uppercase(), noise(2 << 20, name.len() as u64 + 7));
    }
    wait_until_equal(&mirror, &daemon);
    for round in 0..10 {
        for (a, b) in [("a", "b"), ("A", "B")] {
            rename(&mirror, a, "between");
            rename(&mirror, b, a);
            rename(&mirror, "between", b);
        }
        rename(&mirror, "a", "x");
        rename(&mirror, "x", "y");
        fs::create_dir_all(mirror.at(format!("new{round}/deep"))).unwrap();
        rename(&mirror, "y", &format!("new{round}/deep/a"));
        rename(&mirror, &format!("new{round}/deep/a"), "a");
    }
    wait_until_equal(&mirror, &daemon);
}

#[test]
fn what_comes_from_outside_or_leaves_the_tree_is_mirrored() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup {
        params: "-a".into(),
        head: "<debug start=\"true\"/>".into(),
        ..Setup::to(&daemon)
    });
    let outside = mirror.dir.dir("outside");
    mirror.dir.file("outside/d/e/file", "from outside");
    fs::rename(outside.join("d"), mirror.at("d")).unwrap();
    wait_until_equal(&mirror, &daemon);
    fs::rename(mirror.at("d/e"), outside.join("e")).unwrap();
    wait_until_equal(&mirror, &daemon);
    fs::rename(mirror.at("d"), outside.join("d")).unwrap();
    fs::rename(outside.join("e"), mirror.at("d")).unwrap();
    wait_until_equal(&mirror, &daemon);
    assert_eq!(fs::read(daemon.at("d/file")).unwrap(), b"from outside");
}

/// Sets the modification time of a file to long ago.
fn make_old(path: &Path) {
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
}

#[test]
fn a_large_file_that_takes_the_place_of_one_of_its_size_and_time_arrives() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    for (name, is_sent_before) in [("f", false), ("g", true)] {
        mirror.write(name, noise(2 << 20, 1));
        make_old(&mirror.at(name));
        wait_until_equal(&mirror, &daemon);
        let temporary = format!("{name}.tmp");
        mirror.write(&temporary, noise(2 << 20, 2));
        make_old(&mirror.at(&temporary));
        if is_sent_before {
            wait_until_equal(&mirror, &daemon);
        }
        rename(&mirror, &temporary, name);
        wait_until_equal(&mirror, &daemon);
    }
}

#[test]
fn an_older_file_that_takes_the_place_of_a_newer_one_arrives_in_spite_of_u() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    assert!(mirror.xml().contains("\"-artuz\""));
    for (old, new, size) in [("small.bak", "small", 10), ("large.bak", "large", 2 << 20)] {
        mirror.write(old, noise(size, 1));
        make_old(&mirror.at(old));
        wait_until_equal(&mirror, &daemon);
        mirror.write(new, noise(size, 2));
        wait_until_equal(&mirror, &daemon);
        rename(&mirror, old, new);
        wait_until_equal(&mirror, &daemon);
    }
    // Once by a move from outside, and once by a copy that keeps the time.
    mirror.write("restored", "newer");
    mirror.write("copied", "newer");
    wait_until_equal(&mirror, &daemon);
    let backup = mirror.dir.file("backup", "older!");
    make_old(&backup);
    fs::copy(&backup, mirror.at("copied")).unwrap();
    make_old(&mirror.at("copied"));
    fs::rename(&backup, mirror.at("restored")).unwrap();
    wait_until_equal(&mirror, &daemon);
}
