//! The main job, end to end: files below the watch path reach a real rsync daemon.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::process::Signal;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{children_of, tree, wait_for_content, wait_until};

#[test]
fn a_file_arrives() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("hello.txt", "hello");
    wait_for_content(&daemon.at("hello.txt"), "hello");
}

#[test]
fn a_deleted_file_disappears_and_so_does_a_directory() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("a/b/c.txt", "x");
    mirror.write("keep.txt", "x");
    wait_for_content(&daemon.at("a/b/c.txt"), "x");
    fs::remove_file(mirror.at("a/b/c.txt")).unwrap();
    wait_until("the file is gone", || !daemon.at("a/b/c.txt").exists());
    fs::remove_dir_all(mirror.at("a")).unwrap();
    wait_until("the directory is gone", || !daemon.at("a").exists());
    assert!(daemon.at("keep.txt").exists());
}

#[test]
fn file_in_a_directory_made_a_moment_ago_arrives() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    let mut path = String::new();
    for level in ["a", "b", "c", "d", "e"] {
        path = format!("{path}{level}/");
        mirror.write(format!("{path}file"), level);
    }
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn links_fifos_and_empty_directories_arrive() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { params: "-aHD".into(), ..Setup::to(&daemon) });
    mirror.write("file", "content");
    fs::create_dir(mirror.at("empty")).unwrap();
    symlink("/nowhere", mirror.at("dangling")).unwrap();
    fs::hard_link(mirror.at("file"), mirror.at("second name")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        mirror.at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn a_same_size_rewrite_within_the_second_arrives() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for round in 0..20 {
        let content = format!("{round:04}");
        mirror.write("counter", &content);
        wait_for_content(&daemon.at("counter"), &content);
    }
}

#[test]
fn names_of_any_bytes_arrive_and_disappear() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let names: [&[u8]; 16] = [
        b"#hash#not",
        b";semicolon",
        b"-rf",
        b"--delete",
        b" blank ",
        b"line\nbreak",
        b"*",
        b"[a]",
        b"?",
        b"!x",
        b"+ x",
        b"- x",
        b"$(touch owned)",
        b"`id`\"'\\",
        b"\xff\xfe",
        b".env.backup",
    ];
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    fs::create_dir(mirror.at("d")).unwrap();
    for name in names {
        fs::write(mirror.at("d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    wait_until("all names arrive", || tree(&mirror.source) == tree(&daemon.data));
    for name in names {
        fs::remove_file(mirror.at("d").join(OsStr::from_bytes(name))).unwrap();
    }
    wait_until("all names disappear", || fs::read_dir(daemon.at("d")).unwrap().count() == 0);
}

#[test]
fn a_file_replaced_by_a_directory_and_back_arrives() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for round in 0..5 {
        mirror.write("x", format!("file {round}"));
        wait_for_content(&daemon.at("x"), format!("file {round}"));
        fs::remove_file(mirror.at("x")).unwrap();
        mirror.write("x/y", format!("below {round}"));
        wait_for_content(&daemon.at("x/y"), format!("below {round}"));
        fs::remove_dir_all(mirror.at("x")).unwrap();
    }
    wait_until("it is gone", || !daemon.at("x").exists());
}

#[test]
fn a_renamed_directory_takes_its_contents_along() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    for i in 0..50 {
        mirror.write(format!("old/sub{}/f{i}", i % 5), format!("{i}"));
    }
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    fs::rename(mirror.at("old"), mirror.at("new")).unwrap();
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
    mirror.write("new/sub0/later", "x");
    wait_for_content(&daemon.at("new/sub0/later"), "x");
}

#[test]
fn the_data_of_a_renamed_directory_is_not_sent_again() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("0/f", "content");
    // A move is an ordinary change while a job for the old name is in flight, so try several moves.
    let kept = (0..20).any(|round| {
        let (old, new) = (round.to_string(), (round + 1).to_string());
        wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
        let inode = |dir: &str| fs::metadata(daemon.at(dir).join("f")).unwrap().ino();
        let before = inode(&old);
        fs::rename(mirror.at(&old), mirror.at(&new)).unwrap();
        wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
        inode(&new) == before
    });
    assert!(kept, "the data was sent every time");
}

#[test]
fn a_directory_moved_in_over_a_deleted_one_leaves_nothing_of_the_old() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("site/old.html", "old");
    wait_for_content(&daemon.at("site/old.html"), "old");
    let release = mirror.dir.dir("release");
    fs::write(release.join("new.html"), "new").unwrap();
    fs::rename(mirror.at("site"), mirror.dir.join("away")).unwrap();
    fs::rename(&release, mirror.at("site")).unwrap();
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn permission_changes_arrive_when_attrib_is_on() {
    let daemon = Rsyncd::start();
    let mut setup = Setup::to(&daemon);
    setup.head = "<inotify><attrib start=\"true\"/></inotify>".into();
    let mirror = Mirror::prepare(&setup);
    let xml = fs::read_to_string(&mirror.config).unwrap();
    let xml = xml.replace("<inotify><attrib start=\"true\"/></inotify>", "");
    let xml = xml.replace("<attrib start=\"false\"/>", "<attrib start=\"true\"/>");
    fs::write(&mirror.config, xml).unwrap();
    let mut mirror = mirror;
    mirror.launch();
    mirror.wait_ready();
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    fs::set_permissions(mirror.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("the mode arrives", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn with_delete_off_nothing_is_deleted() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup { off: vec!["delete"], ..Setup::to(&daemon) });
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    fs::remove_file(mirror.at("f")).unwrap();
    mirror.write("g", "y");
    wait_for_content(&daemon.at("g"), "y");
    mirror.write("h", "z");
    wait_for_content(&daemon.at("h"), "z");
    assert!(daemon.at("f").exists());
}

#[test]
fn a_full_sync_at_start_makes_the_trees_equal() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup { args: vec!["-r".into()], ..Setup::to(&daemon) });
    for i in 0..60 {
        for j in 0..50 {
            mirror.write(format!("d{i}/e{}/f{j}", j % 3), format!("{i} {j}"));
        }
    }
    mirror.write("top", "x");
    fs::create_dir_all(daemon.at("d1/extra")).unwrap();
    fs::write(daemon.at("d1/extra/f"), "extra").unwrap();
    fs::create_dir(daemon.at("gone")).unwrap();
    fs::write(daemon.at("gone/f"), "extra").unwrap();
    fs::write(daemon.at("d2"), "a file in place of a directory").unwrap();
    mirror.launch();
    mirror.wait_ready();
    mirror.write("d59/e0/while-it-runs", "changed");
    mirror.wait_for_output("is done in");
    let output = mirror.output();
    let at = |words: &str| output.find(words).unwrap_or_else(|| panic!("{words}: {output}"));
    assert!(at("INFO  watching ") < at("full sync at start (-r) begins"), "{output}");
    wait_until("the trees are equal", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn a_signal_ends_it_with_0_and_leaves_no_child_behind() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("f", "x");
    wait_for_content(&daemon.at("f"), "x");
    let children = children_of(mirror.pid());
    mirror.signal(Signal::TERM);
    assert!(mirror.wait().success());
    for child in children {
        assert!(!crate::support::is_running(child), "child {child} was left behind");
    }
}

#[test]
fn a_remote_that_was_down_catches_up() {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    daemon.stop();
    mirror.write("meanwhile", "y");
    mirror.wait_for_output("is down");
    daemon.start_again();
    wait_for_content(&daemon.at("meanwhile"), "y");
    mirror.wait_for_output("is back");
}

#[test]
fn a_dead_remote_does_not_delay_the_others() {
    let dead = Rsyncd::start();
    let live = Rsyncd::start();
    let mut setup = Setup::to(&live);
    // Nothing listens on this address; the port is that of the running daemon.
    setup.remotes = vec![("127.0.0.2".into(), "data".into()), ("127.0.0.1".into(), "data".into())];
    let mirror = Mirror::start(&setup);
    drop(dead);
    for i in 0..20 {
        mirror.write(format!("f{i}"), "x");
        wait_for_content(&live.at(format!("f{i}")), "x");
    }
}

#[test]
fn an_empty_file_arrives_by_its_creation_only_when_create_file_is_on() {
    for is_on in [false, true] {
        let daemon = Rsyncd::start();
        let on = if is_on { vec!["modify", "createFile"] } else { vec!["modify"] };
        let mirror = Mirror::start(&Setup { off: vec!["closeWrite"], on, ..Setup::to(&daemon) });
        fs::File::create(mirror.at("empty")).unwrap();
        if is_on {
            wait_until("the empty file arrives", || daemon.at("empty").exists());
        }
        for name in ["full", "fuller"] {
            mirror.write(name, "x");
            wait_for_content(&daemon.at(name), "x");
        }
        assert_eq!(daemon.at("empty").exists(), is_on);
    }
}

#[test]
fn a_name_may_go_below_its_module_and_each_watch_path_has_its_own_remotes() {
    let one = Rsyncd::start();
    fs::create_dir_all(one.at("sub/deep")).unwrap();
    let mut setup = Setup::to(&one);
    setup.remotes = vec![("127.0.0.1".into(), "data/sub/deep".into())];
    let second = crate::support::TestDir::new();
    // All remotes share the port, so only the module or path differs.
    setup.sersync = format!(
        "<localpath watch=\"{}\"><remote ip=\"127.0.0.1\" name=\"data/other\"/></localpath>",
        second.path().display()
    );
    let mirror = Mirror::start(&setup);
    mirror.write("first", "1");
    fs::write(second.path().join("second"), "2").unwrap();
    wait_for_content(&one.at("sub/deep/first"), "1");
    wait_for_content(&one.at("other/second"), "2");
    assert!(!one.at("sub/deep/second").exists() && !one.at("other/first").exists());
}
