//! Something else takes the place of a directory: what rules keep in the copy stays, as with rsync run by hand.
//! `tests/data/plan` holds the runs of each case; `make oracle` compares random cases.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until};

/// Rules that keep `*.log`, one set of each kind: the operator's for rsync, and sersync's own.
const RULES: [(&str, &str); 6] = [
    ("-a --exclude=*.log", ""),
    ("-a --filter='protect *.log' --force", ""),
    ("-a --include=*.txt --include=d --include=e --exclude=*.log", ""),
    ("-aF", ""),
    ("-artuz", r"(.*)\.log"),
    // No rsync pattern can express this one.
    ("-aF", r"(.*)(?!\.txt)\.(log)(?=$)"),
];

/// A mirror with these rules, `d` and `e` in both trees, and a kept file in the copy of each.
fn start(daemon: &Rsyncd, (params, expression): (&str, &str)) -> Mirror {
    let head = match expression {
        "" => String::new(),
        it => format!("<filter start=\"true\"><exclude expression=\"{it}\"></exclude></filter>"),
    };
    let mut mirror = Mirror::prepare(&Setup { params: params.into(), head, ..Setup::to(daemon) });
    if params.contains('F') {
        for root in [&mirror.source, &daemon.data] {
            fs::write(root.join(".rsync-filter"), "- *.log\n").unwrap();
        }
    }
    mirror.launch();
    mirror.wait_ready();
    mirror.wait_for_record();
    for dir in ["d", "e"] {
        mirror.write(format!("{dir}/sub/a.txt"), "x");
        wait_for_content(&daemon.at(format!("{dir}/sub/a.txt")), "x");
        fs::write(daemon.at(format!("{dir}/sub/kept.log")), "kept").unwrap();
    }
    mirror
}

fn replace_by(path: &Path, make: impl FnOnce(&Path)) {
    fs::remove_dir_all(path).unwrap();
    make(path);
}

/// Waits until the rest of `dir` is gone, as with rsync run by hand, and what the rules keep is there.
fn is_kept(daemon: &Rsyncd, dir: &str) {
    let rest = daemon.at(format!("{dir}/sub/a.txt"));
    wait_until("what no rule keeps is gone", || fs::symlink_metadata(&rest).is_err());
    wait_for_content(&daemon.at(format!("{dir}/sub/kept.log")), "kept");
}

#[test]
fn what_rules_keep_stays_where_a_file_takes_the_place_of_a_directory() {
    for rules in RULES {
        let daemon = Rsyncd::start();
        let mut mirror = start(&daemon, rules);
        replace_by(&mirror.at("d"), |path| fs::write(path, "file").unwrap());
        is_kept(&daemon, "d");
        mirror.kill();
        replace_by(&mirror.at("e"), |path| symlink("elsewhere", path).unwrap());
        mirror.launch();
        is_kept(&daemon, "e");
        for (dir, is_there) in [("d", Path::is_file as fn(&Path) -> bool), ("e", Path::is_symlink)]
        {
            fs::remove_dir_all(daemon.at(dir)).unwrap();
            // A delivery beside a path that failed lets its next try come soon.
            mirror.write(format!("beside {dir}.txt"), "x");
            wait_until("it arrives when nothing is in its way", || is_there(&daemon.at(dir)));
        }
        wait_for_content(&daemon.at("d"), "file");
        assert!(!mirror.output().contains("WARN"), "{rules:?}: {}", mirror.output());
    }
}

#[test]
fn nothing_is_in_the_way_of_a_file_where_no_rule_keeps_anything_below() {
    for rules in RULES {
        let daemon = Rsyncd::start();
        let mirror = start(&daemon, rules);
        fs::remove_file(daemon.at("d/sub/kept.log")).unwrap();
        replace_by(&mirror.at("d"), |path| fs::write(path, "file").unwrap());
        wait_for_content(&daemon.at("d"), "file");
    }
}

#[test]
fn what_stays_in_the_way_is_said_in_one_sentence() {
    let daemon = Rsyncd::start();
    let mirror = start(&daemon, RULES[0]);
    replace_by(&mirror.at("d"), |path| fs::write(path, "file").unwrap());
    mirror.wait_for_output("on the remote d is a directory, and rules keep something in it");
    let lines = mirror.output().lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(lines, 1, "{}", mirror.output());
}

#[test]
fn an_excluded_directory_stays_where_a_link_takes_its_place() {
    let daemon = Rsyncd::start();
    let mirror = start(&daemon, ("-artuz", "^cache/.*"));
    fs::create_dir(daemon.at("cache")).unwrap();
    fs::write(daemon.at("cache/own"), "only there").unwrap();
    symlink("/somewhere/else", mirror.at("cache")).unwrap();
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    wait_for_content(&daemon.at("cache/own"), "only there");
}

#[test]
fn with_delete_off_a_file_replaces_no_directory_that_holds_something() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { off: vec!["delete"], ..Setup::to(&daemon) });
    mirror.write("d/f", "x");
    wait_for_content(&daemon.at("d/f"), "x");
    replace_by(&mirror.at("d"), |path| fs::write(path, "file").unwrap());
    mirror.wait_for_output(
        "a directory that is not empty is in its place on the remote, and <delete> is off",
    );
    wait_for_content(&daemon.at("d/f"), "x");
}

#[test]
fn a_backup_takes_the_place_of_an_older_one_that_was_a_directory() {
    let daemon = Rsyncd::start();
    let params = "-a --backup --backup-dir=.bak --exclude=/.bak".into();
    let mirror = Mirror::start(&Setup { params, ..Setup::to(&daemon) });
    mirror.write("cache/own", "x");
    wait_for_content(&daemon.at("cache/own"), "x");
    fs::remove_dir_all(mirror.source.join("cache")).unwrap();
    wait_for_content(&daemon.at(".bak/cache/own"), "x");
    wait_until("the directory is gone", || !daemon.at("cache").exists());
    mirror.write("cache", "a file");
    wait_for_content(&daemon.at("cache"), "a file");
    fs::remove_file(mirror.source.join("cache")).unwrap();
    wait_until("the file is gone", || !daemon.at("cache").exists());
    wait_for_content(&daemon.at(".bak/cache"), "a file");
}
