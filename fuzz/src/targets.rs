//! The fuzz targets: each function takes any bytes, and must neither panic nor run for ever.
//! The tests use them too, to run the corpus.

use std::path::{Path, PathBuf};

use sersync::config::{Config, LoadOptions, load_bytes};
use sersync::control::protocol::{parse_request, read_path, request_line, write_path};
use sersync::journal::{JournalLayout, Replay};
use sersync::page::hosts::Hosts;
use sersync::page::http::parse;
use sersync::rsync::exit::{Ending, Outcome, RunPaths, judge};

/// The reader of configurations, without the preflight of the machine.
pub fn config(bytes: &[u8]) {
    let options = LoadOptions::default();
    match load_bytes("fuzz.xml", bytes, &options) {
        Ok(loaded) => _ = loaded.warning_lines(),
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// The reader of journals. In doubt everything must be pending.
pub fn journal(bytes: &[u8]) {
    let config = two_remotes();
    let layout = JournalLayout::new(&config.mirrors);
    let Ok(replay) = Replay::read(bytes, &layout, 1) else { return };
    for remote in layout.remotes() {
        let pending: Vec<_> = replay.pending(remote).collect();
        if replay.doubt.is_some() {
            assert!(pending.iter().any(|(path, _)| path.is_root()), "in doubt everything is owed");
        }
    }
}

/// The reader of rsync's messages; the first byte chooses the exit code. All paths that it finds must be below the root.
pub fn rsync_output(bytes: &[u8]) {
    let Some((code, text)) = bytes.split_first() else { return };
    let places = RunPaths {
        module: "module",
        user: Some("u"),
        password_file: None,
        proxy: None,
        root: b"/srv/www",
        remote_directory: b"/sub",
    };
    let outcome = judge(Ending::Code(i32::from(*code)), text, code % 2 == 1, &places);
    if let Outcome::Partial { failed, .. } = outcome {
        for (path, _) in &failed {
            let is_name = |name: &[u8]| ![&b""[..], b".", b".."].contains(&name);
            assert!(path.components().all(is_name), "a name that leads out of the tree: {path}");
            assert!(!path.as_bytes().contains(&0) && !path.as_bytes().starts_with(b"/"));
        }
    }
}

/// The reader of the control socket: an accepted request that is written and read again must be the same.
pub fn control(bytes: &[u8]) {
    if let Ok(command) = parse_request(bytes) {
        assert_eq!(parse_request(&request_line(command.clone())), Ok(command));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let path = read_path(text);
        assert_eq!(read_path(&write_path(&path)), path);
    }
}

/// The reader of HTTP requests: an incomplete head stays incomplete until a further byte completes it or makes it invalid.
pub fn http(bytes: &[u8]) {
    let hosts = Hosts::loopback();
    match parse(bytes, &hosts) {
        Err(refusal) => assert!(!refusal.text.is_empty(), "a refusal says why"),
        Ok(None) => assert!(
            (0..bytes.len()).all(|end| parse(&bytes[..end], &hosts) == Ok(None)),
            "what is no whole request yet was neither whole nor wrong before"
        ),
        Ok(Some(_)) => assert!(
            !(0..bytes.len()).any(|end| parse(&bytes[..end], &hosts).is_err()),
            "what becomes a request is never refused before its end"
        ),
    }
}

fn two_remotes() -> Config {
    let text = br#"<head><sersync><localpath watch="/srv/www"><remote ip="a" name="m"/>
        <remote ip="b" name="m"/></localpath><rsync><commonParams params="-a"/></rsync></sersync></head>"#;
    let options = LoadOptions::default();
    let loaded = load_bytes("two.xml", text, &options);
    loaded.map(|loaded| loaded.config).unwrap_or_else(|error| panic!("{error}"))
}

/// The corpus of a target below the repository's root.
pub fn corpus(root: &Path, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = root.join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some((entry.path(), std::fs::read(entry.path()).ok()?)))
        .collect();
    files.sort();
    files
}
