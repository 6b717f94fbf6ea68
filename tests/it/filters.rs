//! Filters end to end: an excluded path is neither sent nor deleted, whatever the cause of a run is.
//! `src/filter/tests.rs` tests the meaning of the expressions.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sersync::change::{RemoteId, RootId, Scope};
use sersync::config::{FilterRules, RsyncOptions};
use sersync::destination::{Destination, Host};
use sersync::engine::pending::{Item, Mark};
use sersync::engine::{FullSyncFilter, Job, JobId, JobKind, Verdict};
use sersync::filter::Filter;
use sersync::path::RelPath;
use sersync::rsync::Endpoint;
use sersync::rsync::excludes::Excludes;
use sersync::source::Source;
use sersync::worker::remote_worker::{RemoteWorker, RemoteWorkerSetup};
use sersync::worker::rules::{Coverage, Rules};
use sersync::worker::shards::Sharding;
use sersync::worker::tally::Tally;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until, wait_until_within};

/// `<filter>` with these expressions, and other attributes.
fn filter(attributes: &str, expressions: &[&str]) -> String {
    let exclude = |e: &&str| format!("<exclude expression=\"{e}\"></exclude>");
    let excludes: String = expressions.iter().map(exclude).collect();
    format!("<filter start=\"true\" {attributes}>{excludes}</filter>")
}

fn filtered(daemon: &Rsyncd, expressions: &[&str]) -> Setup {
    Setup { head: filter("", expressions), ..Setup::to(daemon) }
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Files of a tree, sorted.
fn files(root: &Path) -> Vec<String> {
    let lines = crate::support::tree(root);
    let name = |line: &String| Some(line.strip_prefix("f ")?.split('"').nth(1)?.to_owned());
    let mut names: Vec<String> = lines.iter().filter_map(name).collect();
    names.sort();
    names
}

/// An expression that rsync's patterns can express, and one that they cannot. Both exclude `x.log` and not `x.txt`.
const LOGS: [&str; 2] = [r"(.*)\.log", r"(.*)(?!\.txt)\.(log)(?=$)"];

#[test]
fn excluded_files_are_neither_sent_nor_deleted_in_real_time() {
    for logs in LOGS {
        let daemon = Rsyncd::start();
        put(&daemon.at("d/remote.log"), "only there");
        let mirror = Mirror::start(&filtered(&daemon, &[logs, "^cache/*"]));
        mirror.write("a.log", "x");
        mirror.write("cache/deep/f", "x");
        mirror.write("d/b.log", "x");
        mirror.write("d/b.txt", "x");
        wait_for_content(&daemon.at("d/b.txt"), "x");
        fs::remove_file(mirror.at("d/b.log")).unwrap();
        fs::remove_file(mirror.at("d/b.txt")).unwrap();
        wait_until("the file is gone", || !daemon.at("d/b.txt").exists());
        assert_eq!(files(&daemon.data), ["d/remote.log"], "{logs}");
    }
}

#[test]
fn a_deleted_directory_leaves_what_is_excluded() {
    for logs in LOGS {
        let daemon = Rsyncd::start();
        put(&daemon.at("d/e/remote.log"), "only there");
        put(&daemon.at("d/e/remote.txt"), "only there");
        put(&daemon.at("d/f/remote.txt"), "only there");
        let mirror = Mirror::start(&filtered(&daemon, &[logs]));
        mirror.write("d/e/a.txt", "x");
        mirror.write("d/f/a.txt", "x");
        wait_for_content(&daemon.at("d/f/a.txt"), "x");
        wait_for_content(&daemon.at("d/e/a.txt"), "x");
        fs::remove_dir_all(mirror.at("d")).unwrap();
        wait_until("the rest is gone", || {
            files(&daemon.data) == ["d/e/remote.log"] && !daemon.at("d/f").exists()
        });
    }
}

#[test]
fn a_full_sync_neither_sends_nor_deletes_what_is_excluded() {
    for logs in LOGS {
        for many in [false, true] {
            let daemon = Rsyncd::start();
            put(&daemon.at("d1/remote.log"), "only there");
            put(&daemon.at("d1/remote.txt"), "only there");
            put(&daemon.at("gone/e/remote.log"), "only there");
            put(&daemon.at("gone/e/remote.txt"), "only there");
            put(&daemon.at("cache/remote"), "only there");
            put(&daemon.at("old.txt"), "only there");
            let mut setup = filtered(&daemon, &[logs, "^cache/*", "(.*)/private"]);
            setup.args = vec!["-r".into()];
            let mut mirror = Mirror::prepare(&setup);
            // A tree with many entries is divided; an excluded directory must not become a shard.
            for i in 0..if many { 2_500 } else { 10 } {
                mirror.write(format!("d{}/f{i}.txt", i % 3), "x");
                mirror.write(format!("cache/d{}/f{i}", i % 3), "x");
            }
            mirror.write("d0/a.log", "x");
            mirror.write("d0/private/deep/f", "x");
            mirror.launch();
            mirror.wait_for_output("is done in");
            let found = files(&daemon.data);
            let expected_count = if many { 2_500 } else { 10 };
            let sent = found.iter().filter(|name| name.ends_with(".txt") && name.starts_with('d'));
            assert_eq!(sent.count(), expected_count);
            let rest: Vec<_> = found.iter().filter(|name| !name.ends_with(".txt")).collect();
            assert_eq!(rest, ["cache/remote", "d1/remote.log", "gone/e/remote.log"], "{logs}");
            assert!(!daemon.at("d1/remote.txt").exists() && !daemon.at("old.txt").exists());
            assert!(!daemon.at("gone/e/remote.txt").exists());
            assert!(!daemon.at("d0/private").exists() && !daemon.at("cache/d0").exists());
        }
    }
}

#[test]
fn a_directory_that_is_moved_in_leaves_its_excluded_files_behind() {
    for logs in LOGS {
        let daemon = Rsyncd::start();
        let mirror = Mirror::start(&filtered(&daemon, &[logs]));
        let away = mirror.dir.dir("away");
        put(&away.join("deep/a.log"), "x");
        put(&away.join("deep/a.txt"), "x");
        put(&away.join("b.log"), "x");
        fs::rename(&away, mirror.at("in")).unwrap();
        wait_for_content(&daemon.at("in/deep/a.txt"), "x");
        // The same inside the tree.
        put(&daemon.at("in/deep/remote.log"), "only there");
        fs::rename(mirror.at("in"), mirror.at("moved")).unwrap();
        wait_for_content(&daemon.at("moved/deep/a.txt"), "x");
        wait_until("the old copy is gone", || !daemon.at("in/deep/a.txt").exists());
        mirror.write("moved/deep/later.txt", "x");
        wait_for_content(&daemon.at("moved/deep/later.txt"), "x");
        let expected = ["in/deep/remote.log", "moved/deep/a.txt", "moved/deep/later.txt"];
        assert_eq!(files(&daemon.data), expected, "{logs}");
    }
}

#[test]
fn a_rename_to_an_excluded_name_deletes_the_old_copy_and_back_sends_it() {
    for logs in LOGS {
        let daemon = Rsyncd::start();
        let mirror = Mirror::start(&filtered(&daemon, &[logs, "(.*)/hidden"]));
        mirror.write("a.txt", "file");
        mirror.write("d/a.txt", "below");
        wait_for_content(&daemon.at("a.txt"), "file");
        wait_for_content(&daemon.at("d/a.txt"), "below");
        fs::rename(mirror.at("a.txt"), mirror.at("a.log")).unwrap();
        fs::rename(mirror.at("d"), mirror.at("hidden")).unwrap();
        wait_until("the old copies are gone", || files(&daemon.data).is_empty());
        mirror.write("hidden/b.txt", "while hidden");
        fs::rename(mirror.at("a.log"), mirror.at("a.txt")).unwrap();
        wait_for_content(&daemon.at("a.txt"), "file");
        assert!(!daemon.at("a.log").exists() && !daemon.at("hidden").exists());
        fs::rename(mirror.at("hidden"), mirror.at("shown")).unwrap();
        wait_for_content(&daemon.at("shown/a.txt"), "below");
        wait_for_content(&daemon.at("shown/b.txt"), "while hidden");
        mirror.write("shown/c.txt", "watched again");
        wait_for_content(&daemon.at("shown/c.txt"), "watched again");
    }
}

#[test]
fn editors_temporary_names_stay_away_and_do_not_keep_directories() {
    let daemon = Rsyncd::start();
    put(&daemon.at("gone/x~"), "sent by an old program");
    let mut mirror = Mirror::prepare(&Setup { args: vec!["-r".into()], ..Setup::to(&daemon) });
    mirror.write("a~", "x");
    mirror.write(".a.swp", "x");
    mirror.write("d/#a#", "x");
    mirror.write("4913", "an ordinary name");
    mirror.launch();
    wait_for_content(&daemon.at("4913"), "an ordinary name");
    wait_until("the directory is gone", || !daemon.at("gone").exists());
    mirror.write("b~", "x");
    mirror.write("b", "x");
    wait_for_content(&daemon.at("b"), "x");
    assert_eq!(files(&daemon.data), ["4913", "b"]);
}

#[test]
fn editors_names_are_mirrored_when_they_are_switched_on() {
    let daemon = Rsyncd::start();
    let head = filter("editorFiles=\"true\"", &[]);
    let mirror = Mirror::start(&Setup { head, ..Setup::to(&daemon) });
    mirror.write("a~", "x");
    wait_for_content(&daemon.at("a~"), "x");
}

#[test]
fn dotfiles_arrive_until_they_are_switched_off() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write(".git/config", "x");
    wait_for_content(&daemon.at(".git/config"), "x");
    drop(mirror);
    let daemon = Rsyncd::start();
    let head = filter("dotfiles=\"false\"", &[]);
    let args = vec!["-r".into()];
    let mut mirror = Mirror::prepare(&Setup { head, args, ..Setup::to(&daemon) });
    mirror.write(".env", "x");
    mirror.launch();
    mirror.wait_for_output("is done in");
    mirror.write("d/.hidden", "x");
    mirror.write("d/shown", "x");
    wait_for_content(&daemon.at("d/shown"), "x");
    assert_eq!(files(&daemon.data), ["d/shown"]);
}

#[test]
fn the_line_to_paste_leaves_alone_what_the_filter_excludes() {
    let daemon = Rsyncd::start();
    put(&daemon.at("d/remote.log"), "only there");
    put(&daemon.at("d/remote.txt"), "only there");
    let mut setup = filtered(&daemon, &[LOGS[0], "^it's here/*"]);
    setup.args = vec!["-r".into()];
    let mut mirror = Mirror::start(&setup);
    mirror.wait_for_output("is done in");
    mirror.stop();
    let output = mirror.output();
    let command = output.lines().find_map(|line| line.strip_prefix("execute command: "));
    let command = command.unwrap_or_else(|| panic!("no such line: {output}"));
    mirror.write("a.log", "x");
    mirror.write("it's here/f", "x");
    mirror.write("d/a.txt", "x");
    put(&daemon.at("d/remote.txt"), "only there");
    let pasted = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(pasted.success(), "{command}");
    assert_eq!(files(&daemon.data), ["d/a.txt", "d/remote.log"], "{command}");
}

#[test]
fn no_line_is_printed_that_could_not_keep_to_the_filter() {
    let daemon = Rsyncd::start();
    let mut setup = filtered(&daemon, &[LOGS[1]]);
    setup.args = vec!["-r".into()];
    let mirror = Mirror::start(&setup);
    assert!(!mirror.output().contains("execute command"));
    mirror.wait_for_output("no rsync command says the filter expression");
}

/// Does a scheduled full sync of the whole tree without its clock: runs jobs until none returns anything.
fn run_crontab_sync(source: &Path, daemon: &Rsyncd, expressions: &[&str], patterns: &[&str]) {
    let expressions = expressions.iter().map(|e| (*e).to_owned()).collect();
    let rules = FilterRules { excludes: expressions, ..FilterRules::default() };
    let filter = Arc::new(Filter::new(&rules).unwrap());
    let translation = filter.to_rsync_patterns();
    let coverage = if translation.exact() { Coverage::Whole } else { Coverage::Partial };
    let params = vec!["-artuz".into()];
    let options = RsyncOptions { params, deletes: true, ..RsyncOptions::default() };
    let host = Host { name: "127.0.0.1".into(), port: Some(daemon.port), ..Host::default() };
    let destination = Destination::Daemon { host, module: "data".into() };
    let link = RemoteWorker::new(RemoteWorkerSetup {
        endpoint: Endpoint::new(source, &destination, &options),
        source: Arc::new(Source::open(source).unwrap()),
        rules: Rules {
            exclude: Arc::new(move |path, is_dir| filter.excludes(path, is_dir)),
            patterns: Excludes { kept: translation.patterns, perishable: translation.perishable },
            coverage,
            crontab: patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect(),
        },
        sharding: Sharding::On,
        links: Arc::default(),
        recorder: None,
        load_gate: Arc::default(),
        places: Arc::default(),
    });
    let mut items = vec![Item { path: RelPath::root(), mark: Mark::new(Scope::Tree) }];
    while let Some(item) = items.pop() {
        let job = Job {
            id: JobId(0),
            remote: RemoteId(0),
            root: RootId(0),
            kind: JobKind::Trees(FullSyncFilter::Crontab),
            items: vec![item],
            moves: Vec::new(),
            deletes_below: true,
        };
        let (report, _) = link.run(&job, Duration::ZERO, &|_| {}, &Tally::default());
        assert_eq!((report.verdict, report.failed), (Verdict::Done, vec![]));
        items.extend(report.returned.into_iter().rev());
    }
}

#[test]
fn patterns_of_crontabfilter_hold_in_scheduled_full_syncs() {
    for logs in LOGS {
        for many in [false, true] {
            let daemon = Rsyncd::start();
            let dir = crate::support::TestDir::new();
            let (source, count) = (dir.dir("source"), if many { 2_500 } else { 10 });
            for i in 0..count {
                put(&source.join(format!("d{}/tmp/deep/{i}.txt", i % 3)), "x");
                put(&source.join(format!("d{}/f/{i}.txt", i % 3)), "x");
            }
            put(&source.join("d0/a.log"), "x");
            put(&source.join("top/f"), "x");
            put(&daemon.at("d1/remote.log"), "x");
            put(&daemon.at("d1/tmp/remote.txt"), "x");
            put(&daemon.at("top/remote"), "x");
            put(&daemon.at("d2/remote.txt"), "x");
            run_crontab_sync(&source, &daemon, &[logs], &["tmp", "/top"]);
            let found = files(&daemon.data);
            let (sent, rest): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.contains("/f/"));
            assert_eq!(sent.len(), count);
            assert_eq!(rest, ["d1/remote.log", "d1/tmp/remote.txt", "top/remote"], "{logs} {many}");
        }
    }
}

#[test]
fn what_only_crontabfilter_excludes_is_mirrored_in_real_time() {
    let daemon = Rsyncd::start();
    let mut setup = filtered(&daemon, &[LOGS[0]]);
    setup.sersync = "<crontab start=\"true\" schedule=\"600\"><crontabfilter start=\"true\">\
                     <exclude expression=\"*.php\"></exclude></crontabfilter></crontab>"
        .into();
    setup.args = vec!["-r".into()];
    let mirror = Mirror::start(&setup);
    mirror.write("a.php", "x");
    wait_for_content(&daemon.at("a.php"), "x");
}

/// The shortest schedule is one minute, and this test waits for all of it.
#[test]
fn a_scheduled_full_sync_comes_by_itself_and_keeps_to_its_filter() {
    let crontab = |inner: &str| format!("<crontab start=\"true\" schedule=\"1\">{inner}</crontab>");
    let patterns =
        "<crontabfilter start=\"true\"><exclude expression=\"*.php\"></exclude></crontabfilter>";
    // One with its own filter, and one with only <filter>; sersync2 refused to run with the latter.
    let both = [(crontab(patterns), "php"), (crontab(""), "log")].map(|(sersync, kept)| {
        let daemon = Rsyncd::start();
        let head = if kept == "log" { filter("", &[LOGS[0]]) } else { String::new() };
        let mirror = Mirror::start(&Setup { sersync, head, ..Setup::to(&daemon) });
        mirror.write("f", "x");
        wait_for_content(&daemon.at("f"), "x");
        put(&daemon.at(format!("remote.{kept}")), "x");
        put(&daemon.at("remote"), "x");
        (daemon, mirror, kept)
    });
    let limit = std::time::Duration::from_secs(60) + crate::support::LIMIT;
    for (daemon, _mirror, kept) in &both {
        wait_until_within("the schedule comes", limit, || !daemon.at("remote").exists());
        assert!(daemon.at(format!("remote.{kept}")).exists(), "{kept}");
        assert!(daemon.at("f").exists());
    }
}
