//! What each kind of run sends and deletes, and what it leaves alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::{Rig, path};
use crate::support::tree;
use sersync::path::RelPath;
use sersync::rsync::excludes::Excludes;
use sersync::rsync::exit::Outcome;
use sersync::rsync::{Basis, RunKind, input};

/// Names that are difficult for shells, lists and patterns.
const ODD_NAMES: &[&[u8]] = &[
    b"-n",
    b"#comment",
    b";semicolon",
    b" blank ",
    b"line\nbreak",
    b"star*",
    b"[a]",
    b"what?",
    b"!not",
    b"+ plus",
    b"- minus",
    b"back\\slash",
    b"back\\star*",
    b"quote\"'`",
    b"$(touch hacked)",
    b"\xff\xfe",
    b"colon:",
    b".dot",
];

#[test]
fn one_batch_sends_what_is_there_and_deletes_what_is_gone() {
    for batch in [Rig::batch, Rig::long_batch] {
        let rig = Rig::new(&["-artuz"]);
        rig.source.file("a/kept", "1");
        rig.source.file("a/new", "2");
        rig.source.dir("now-a-directory");
        rig.source.file("now-a-file", "3");
        rig.remote_file("a/gone");
        rig.remote_file("a/bystander");
        rig.remote_file("gone/with/content");
        rig.remote_file("now-a-directory");
        rig.remote_file("now-a-file/with/content");
        let names = ["a/new", "a/gone", "gone", "now-a-directory", "now-a-file"];
        assert_eq!(batch(&rig, &names), Outcome::Delivered);
        assert_eq!(rig.remote_names(""), ["a", "now-a-directory", "now-a-file"]);
        assert_eq!(rig.remote_names("a"), ["bystander", "new"]);
        assert!(rig.daemon.at("now-a-directory").is_dir());
        assert!(rig.daemon.at("now-a-file").is_file());
    }
}

#[test]
fn a_listed_directory_does_not_bring_its_content() {
    for batch in [Rig::batch, Rig::long_batch] {
        let rig = Rig::new(&["-artuz"]);
        rig.source.file("d/inside", "1");
        assert_eq!(batch(&rig, &["d"]), Outcome::Delivered);
        assert_eq!(rig.remote_names(""), ["d"]);
        assert!(rig.remote_names("d").is_empty());
    }
}

#[test]
fn the_watch_root_itself_travels_without_what_it_holds() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new(&["-artuz"]);
    rig.source.file("inside", "1");
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(rig.source.path(), mode).unwrap();
    for send in [Rig::batch, Rig::long_batch, Rig::fallback] {
        std::fs::set_permissions(&rig.daemon.data, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(send(&rig, &[""]), Outcome::Delivered);
        assert_eq!(rig.daemon.data.metadata().unwrap().mode() & 0o777, 0o711);
        assert!(rig.remote_names("").is_empty());
    }
}

#[test]
fn names_of_any_bytes_arrive_and_go_by_a_batch() {
    odd_names_come_and_go(|rig, paths| rig.run(&super::BATCH, &input::names(paths)));
}

#[test]
fn names_of_any_bytes_arrive_and_go_as_words() {
    odd_names_come_and_go(|rig, paths| {
        rig.run(&RunKind::LongBatch { names: paths.to_vec(), ignore_times: false }, &[])
    });
}

#[test]
fn names_of_any_bytes_arrive_and_go_by_a_fallback_run() {
    odd_names_come_and_go(|rig, paths| {
        let presence = |path: &RelPath| rig.presence(OsStr::from_bytes(path.as_bytes()));
        let input = input::patterns(paths.iter().map(|path| (path, presence(path))));
        rig.run(&super::FALLBACK, &input)
    });
}

fn odd_names_come_and_go(send: impl Fn(&Rig, &[RelPath]) -> Outcome) {
    let rig = Rig::new(&["-a"]);
    let parents = [RelPath::root(), RelPath::root().join(ODD_NAMES[6]).unwrap()];
    let mut paths = Vec::new();
    for name in ODD_NAMES {
        let in_dir = [b"dir-".as_slice(), name].concat();
        let dir = parents[0].join(&in_dir).unwrap();
        for path in [parents[0].join(name).unwrap(), dir.join(name).unwrap()] {
            rig.source.file(OsStr::from_bytes(path.as_bytes()), name);
            paths.push(path);
        }
    }
    assert_eq!(send(&rig, &paths), Outcome::Delivered);
    assert_eq!(tree(&rig.daemon.data), tree(rig.source.path()));
    for path in &paths {
        std::fs::remove_file(rig.source.join(OsStr::from_bytes(path.as_bytes()))).unwrap();
    }
    assert_eq!(send(&rig, &paths), Outcome::Delivered);
    assert_eq!(tree(&rig.daemon.data), tree(rig.source.path()));
    assert!(!rig.source.join("hacked").exists());
}

#[test]
fn fallback_run_touches_only_the_names_it_was_given() {
    let rig = Rig::new(&["-artuz"]);
    rig.source.file("a/sent", "1");
    rig.source.file("a/not-sent", "1");
    rig.source.file("a/dir/not-sent", "1");
    rig.source.file("now-a-file", "1");
    for name in ["a/gone/below", "a/bystander", "a/dir/bystander", "star1", "star2", "now-a-file/x"]
    {
        rig.remote_file(name);
    }
    let outcome =
        rig.fallback(&["a/sent", "a/dir", "a/gone", "star*", "now-a-file", "no/where/at/all"]);
    assert_eq!(outcome, Outcome::Delivered);
    assert_eq!(rig.remote_names(""), ["a", "now-a-file", "star1", "star2"]);
    assert_eq!(rig.remote_names("a"), ["bystander", "dir", "sent"]);
    assert_eq!(rig.remote_names("a/dir"), ["bystander"]);
    assert!(rig.daemon.at("now-a-file").is_file());
}

#[test]
fn trees_delete_inside_their_directories_and_nowhere_else() {
    let rig = Rig::new(&["-artuz"]);
    rig.source.file("a/f", "1");
    rig.source.file("b/c/f", "1");
    rig.source.file("b/untouched", "1");
    rig.source.file("alone", "1");
    for name in ["extra", "a/extra", "a/sub/extra", "b/extra", "b/c/extra", "alone2"] {
        rig.remote_file(name);
    }
    assert_eq!(rig.trees(&["a", "b/c", "alone", "gone"], &[]), Outcome::Delivered);
    assert_eq!(rig.remote_names(""), ["a", "alone", "alone2", "b", "extra"]);
    assert_eq!(rig.remote_names("a"), ["f"]);
    assert_eq!(rig.remote_names("b"), ["c", "extra"]);
    assert_eq!(rig.remote_names("b/c"), ["f"]);
    assert_eq!(rig.trees(&[""], &[]), Outcome::Delivered);
    assert_eq!(tree(&rig.daemon.data), tree(rig.source.path()));
}

#[test]
fn listing_compares_the_names_of_a_directory_but_not_what_is_below() {
    let rig = Rig::new(&["-artuz"]);
    rig.source.file("d/f", "1");
    rig.source.file("d/sub/f", "1");
    rig.source.file("d/star*/f", "1");
    for name in ["extra", "d/extra", "d/extra-dir/x", "d/sub/extra", "d/kept"] {
        rig.remote_file(name);
    }
    assert_eq!(rig.listing(&["d"], &["/d/kept"]), Outcome::Delivered);
    assert_eq!(rig.remote_names(""), ["d", "extra"]);
    assert_eq!(rig.remote_names("d"), ["f", "kept", "star*", "sub"]);
    assert_eq!(rig.remote_names("d/sub"), ["extra"]);
}

#[test]
fn without_the_delete_switch_nothing_is_deleted() {
    let mut rig = Rig::new(&["-a", "--delete", "--delete-excluded", "--exclude=*.o"]);
    rig.remote.options.deletes = false;
    rig.source.file("a/f", "1");
    for name in ["a/gone", "a/x.o", "extra"] {
        rig.remote_file(name);
    }
    assert_eq!(rig.batch(&["a/f", "a/gone", "extra"]), Outcome::Delivered);
    assert_eq!(rig.fallback(&["a/f", "a/gone", "extra"]), Outcome::Delivered);
    assert_eq!(rig.trees(&[""], &[]), Outcome::Delivered);
    assert_eq!(rig.listing(&["", "a"], &[]), Outcome::Delivered);
    assert_eq!(rig.remote_names(""), ["a", "extra"]);
    assert_eq!(rig.remote_names("a"), ["f", "gone", "x.o"]);
}

#[test]
fn moved_directory_is_made_from_its_old_copy() {
    for module in ["data", "data/sub dir"] {
        let mut rig = Rig::new(&["-a"]);
        rig.send_to(module);
        let place = module.strip_prefix("data").unwrap().trim_start_matches('/');
        std::fs::create_dir_all(rig.daemon.at(place)).unwrap();
        rig.source.file("a/old [x]*/deep/file", "content");
        rig.source.file("b c/there", "1");
        assert_eq!(rig.trees(&[""], &[]), Outcome::Delivered);
        let (old, new) = ("a/old [x]*", "b c/new $(x) [y]?");
        std::fs::rename(rig.source.join(old), rig.source.join(new)).unwrap();
        let kind = RunKind::MoveDirectory {
            old: path(old),
            new: path(new),
            checksum: false,
            basis: Basis::Links,
        };
        assert!(rig.endpoint().can_move(sersync::rsync::Abilities::ALL));
        assert_eq!(rig.run(&kind, b""), Outcome::Delivered);
        let copy = rig.daemon.at(place).join(new).join("deep/file");
        assert_eq!(copy.metadata().unwrap().nlink(), 2, "the copy is a link to the old one");
        assert_eq!(rig.batch(&[old]), Outcome::Delivered);
        assert_eq!(tree(&rig.daemon.at(place)), tree(rig.source.path()));
    }
}

#[test]
fn moved_file_is_made_from_its_old_copy() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("a/name", "content");
    rig.source.dir("b/c");
    assert_eq!(rig.trees(&[""], &[]), Outcome::Delivered);
    std::fs::rename(rig.source.join("a/name"), rig.source.join("b/c/name")).unwrap();
    let (old, new) = (path("a/name"), path("b/c/name"));
    let list = input::moved_file(&old, &new);
    let kind = RunKind::MoveFile { old, new };
    assert_eq!(rig.run(&kind, &list), Outcome::Delivered);
    assert_eq!(rig.daemon.at("b/c/name").metadata().unwrap().nlink(), 2);
    assert_eq!(rig.batch(&["a/name"]), Outcome::Delivered);
    assert_eq!(tree(&rig.daemon.data), tree(rig.source.path()));
}

#[test]
fn renamed_file_costs_no_data() {
    let rig = Rig::with(
        &["-a"],
        &super::Options {
            global: "transfer logging = yes\nlog format = sent %b of %l".into(),
            ..super::Options::default()
        },
    );
    let content: Vec<u8> =
        (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    rig.source.file("dir/report-2026.pdf", &content);
    assert_eq!(rig.trees(&[""], &[]), Outcome::Delivered);
    let (old, new) = (path("dir/report-2026.pdf"), path("dir/report-2027.pdf"));
    std::fs::rename(rig.source.join("dir/report-2026.pdf"), rig.source.join("dir/report-2027.pdf"))
        .unwrap();
    let list = input::moved_file(&old, &new);
    assert_eq!(rig.run(&RunKind::MoveFile { old, new }, &list), Outcome::Delivered);
    assert_eq!(std::fs::read(rig.daemon.at("dir/report-2027.pdf")).unwrap(), content);
    let log = std::fs::read_to_string(rig.daemon.log_file()).unwrap();
    let sent: Vec<u64> = log
        .lines()
        .filter_map(|line| line.split("sent ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert!(sent.len() >= 2, "two transfers are in the log: {log}");
    assert!(*sent.last().unwrap() < 100_000, "the second one cost little: {sent:?}");
}

#[test]
fn leftovers_of_a_killed_receiver_are_removed_and_nothing_else() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("d/file", "1");
    rig.source.file("d/.file.backup", "1");
    // What is excluded never leaves, whatever its name looks like.
    rig.source.file("d/.env.SecReT", "1");
    for name in ["d/.file.AbCdEf", "d/.file.AbCdEfg", "d/.other.AbCdEf", "d/extra", "d/file"] {
        rig.remote_file(name);
    }
    let own = [
        ".file.server",
        ".file.Docker",
        ".file.202611",
        ".file.SERVER",
        ".file.table2",
        ".file.prod01",
        ".env.KeepMe",
    ];
    own.iter().for_each(|name| rig.remote_file(&format!("d/{name}")));
    // rsync's temporary name of a dotfile begins with one dot, not with two.
    rig.remote_file("d/.env.AbCdEf");
    // That dotfiles are not mirrored does not keep rsync's own.
    let kept = [&b"/d/.env.SecReT"[..], b"/d/.env.KeepMe", b".*"].map(<[u8]>::to_vec).to_vec();
    let excludes = Excludes { kept, ..Excludes::default() };
    let list = input::temporary_names(&excludes, &[path("d/file"), path("d/.env")]);
    assert_eq!(rig.run(&RunKind::CleanTemp, &list), Outcome::Delivered);
    let mut left = vec![".file.AbCdEfg", ".other.AbCdEf", "extra", "file"];
    left.extend(own);
    left.sort_unstable();
    assert_eq!(rig.remote_names("d"), left);
}

#[test]
fn rewrite_of_the_same_size_in_the_same_second_arrives() {
    let rig = Rig::new(&["-a"]);
    let file = rig.source.file("f", "AAAA");
    assert_eq!(rig.batch(&["f"]), Outcome::Delivered);
    let second = file.metadata().unwrap().mtime();
    std::fs::write(&file, "BBBB").unwrap();
    let stamp =
        std::time::UNIX_EPOCH + std::time::Duration::new(second.unsigned_abs(), 999_999_999);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
    assert_eq!(rig.batch(&["f"]), Outcome::Delivered);
    assert_eq!(std::fs::read(rig.daemon.at("f")).unwrap(), b"BBBB");
    // The stamp is exactly the same: only a run that ignores times sees the change.
    std::fs::write(&file, "CCCC").unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
    let always = RunKind::Batch { ignore_times: true };
    let list = input::names(&[path("f")]);
    assert_eq!(rig.run(&always, &list), Outcome::Delivered);
    assert_eq!(std::fs::read(rig.daemon.at("f")).unwrap(), b"CCCC");
}
