//! Runs the corpus of the fuzz targets as ordinary tests, with a little damage of each kind.
//! `scripts/fuzz` makes long runs with random bytes.

use std::path::Path;

use sersync::change::{Cause, Change, Extent, RemoteId, RootId, Scope};
use sersync::config::{LoadOptions, load_bytes};
use sersync::journal::{Journal, JournalLayout};
use sersync::path::RelPath;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

/// Runs the target with each file: unchanged, cut at some positions, and with some bytes changed.
fn with_damage(bytes: &[u8], target: fn(&[u8])) {
    target(bytes);
    let step = (bytes.len() / 200).max(1);
    for at in (0..bytes.len()).step_by(step) {
        target(&bytes[..at]);
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= change;
            target(&damaged);
        }
    }
}

fn try_corpus(name: &str, target: fn(&[u8])) {
    let corpus = targets::corpus(Path::new(env!("CARGO_MANIFEST_DIR")), name);
    assert!(!corpus.is_empty(), "there is no corpus for {name}");
    corpus.iter().for_each(|(_, bytes)| with_damage(bytes, target));
}

#[test]
fn the_configuration_reader_survives_its_corpus() {
    try_corpus("config", targets::config);
}

#[test]
fn the_reader_of_the_control_socket_survives_its_corpus() {
    try_corpus("control", targets::control);
}

#[test]
fn the_reader_of_what_browsers_send_survives_its_corpus() {
    try_corpus("http", targets::http);
}

#[test]
fn the_reader_of_rsyncs_messages_survives_its_corpus() {
    try_corpus("rsync_output", targets::rsync_output);
}

#[test]
fn the_journal_reader_survives_its_corpus_and_a_journal_of_today() {
    try_corpus("journal", targets::journal);
    let state = tempfile::tempdir().unwrap();
    let text = br#"<head><sersync><localpath watch="/srv/www"><remote ip="a" name="m"/>
        <remote ip="b" name="m"/></localpath><rsync><commonParams params="-a"/></rsync></sersync></head>"#;
    let options = LoadOptions::default();
    let config = load_bytes("two.xml", text, &options).unwrap().config;
    let (mut journal, _) =
        Journal::open(state.path(), JournalLayout::new(&config.mirrors)).unwrap();
    let path = |name: &str| RelPath::new(name.as_bytes()).unwrap();
    let change = |name| Change::tree(path(name), Cause::Found);
    let seq = journal.append_changes(RootId(0), &[change("a/b"), change("c"), change("d e")]);
    journal.append_delivered(RemoteId(1), seq, &[(path("c"), Extent::new(Scope::Tree))]);
    let additive = Extent { scope: Scope::Tree, additive: true };
    journal.append_pending(RemoteId(0), &[(path("f"), additive)]);
    journal.close();
    let bytes = std::fs::read(state.path().join("journal")).unwrap();
    with_damage(&bytes, targets::journal);
    // Save it as a seed for the fuzzer, if the variable is set.
    if let Some(to) = std::env::var_os("SERSYNC_WRITE_SEED") {
        std::fs::write(to, bytes).unwrap();
    }
}
