//! `sersync2 verify` against real daemons: each kind of difference is named, and nothing is changed unapproved.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use super::text;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{tree, wait_for_content};

fn verify(mirror: &Mirror, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    command.arg("verify").arg("-o").arg(&mirror.config).args(words).output().unwrap()
}

/// A mirror that has delivered a few files, and is stopped.
fn stopped_mirror() -> (Rsyncd, Mirror) {
    let remote = Rsyncd::start();
    let mut mirror = Mirror::start(&Setup::to(&remote));
    for name in ["a", "d/b", "d/c", "e", "last"] {
        mirror.write(name, name);
    }
    for name in ["a", "d/b", "d/c", "e", "last"] {
        wait_for_content(&remote.at(name), name);
    }
    mirror.stop();
    verify(&mirror, &["--repair"]);
    (remote, mirror)
}

#[test]
fn an_equal_copy_is_called_equal_and_each_difference_is_named() {
    let (remote, mirror) = stopped_mirror();
    let equal = verify(&mirror, &[]);
    assert_eq!(equal.status.code(), Some(0), "{}", text(&equal));
    assert!(text(&equal).contains("127.0.0.1::data: equal"), "{}", text(&equal));
    fs::remove_file(remote.at("a")).unwrap();
    fs::write(remote.at("d/b"), "another content").unwrap();
    // rsync reports no difference of times within one second.
    let file = fs::File::options().write(true).open(remote.at("d/b")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::set_permissions(remote.at("d/c"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(remote.at("more"), "extraneous").unwrap();
    let before = tree(&remote.data);
    let differs = verify(&mirror, &[]);
    assert_eq!(differs.status.code(), Some(1), "{}", text(&differs));
    let lines: Vec<String> = text(&differs)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in ["missing a", "content,time d/b", "mode d/c", "extraneous more"] {
        assert!(lines.iter().any(|found| found == line), "no {line:?} in {lines:?}");
    }
    assert_eq!(tree(&remote.data), before, "it changes nothing");
    let json: serde_json::Value =
        serde_json::from_slice(&verify(&mirror, &["--json"]).stdout).unwrap();
    assert!(json["remotes"][0]["differences"].as_array().unwrap().len() >= 4, "{json}");
    let part = mirror.at("d/c");
    let part = verify(&mirror, &[part.to_str().unwrap()]);
    assert!(text(&part).contains("1 path differs (1 mode)"), "{}", text(&part));
    let repaired = verify(&mirror, &["--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", text(&repaired));
    assert_eq!(tree(&remote.data), tree(&mirror.source));
}

#[test]
fn bytes_that_differ_behind_an_equal_size_and_time_need_checksum() {
    let (remote, mirror) = stopped_mirror();
    let modified = fs::metadata(remote.at("e")).unwrap().modified().unwrap();
    fs::write(remote.at("e"), "x").unwrap();
    let file = fs::File::options().write(true).open(remote.at("e")).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(verify(&mirror, &[]).status.code(), Some(0));
    let differs = verify(&mirror, &["--checksum"]);
    assert_eq!(differs.status.code(), Some(1), "{}", text(&differs));
    assert!(text(&differs).contains("content"), "{}", text(&differs));
}

#[test]
fn an_empty_watch_path_is_not_repaired_without_a_further_word() {
    let (remote, mirror) = stopped_mirror();
    for name in ["a", "e", "last"] {
        fs::remove_file(mirror.at(name)).unwrap();
    }
    fs::remove_dir_all(mirror.at("d")).unwrap();
    let refused = verify(&mirror, &["--repair"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    for words in ["NOT REPAIRED: ", "--confirm-deletions"] {
        assert!(text(&refused).contains(words), "{}", text(&refused));
    }
    assert!(remote.at("a").exists());
    assert_eq!(verify(&mirror, &["--repair", "--confirm-deletions"]).status.code(), Some(0));
    assert!(!remote.at("a").exists());
}

#[test]
fn a_remote_that_is_off_and_words_that_mean_nothing_are_told_apart() {
    let (mut remote, mirror) = stopped_mirror();
    let nobody = verify(&mirror, &["--remote", "nobody::data"]);
    assert_eq!(nobody.status.code(), Some(3));
    assert!(text(&nobody).contains("127.0.0.1::data"), "{}", text(&nobody));
    remote.stop();
    let off = verify(&mirror, &[]);
    assert_eq!(off.status.code(), Some(2));
    assert!(text(&off).contains("NOT COMPARED"), "{}", text(&off));
}
