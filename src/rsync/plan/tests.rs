//! Tests of the arguments of a run.

use std::path::Path;

use super::*;
use crate::destination::Host;
use crate::rsync::options::RsyncOptions;

/// What an endpoint is made of.
struct Options {
    destination: Destination,
    options: RsyncOptions,
}

fn endpoint(ip: &str, name: &str, change: impl Fn(&mut Options)) -> Endpoint {
    let host = Host { name: ip.into(), ..Host::default() };
    let mut remote = Options {
        destination: Destination::Daemon { host, module: name.into() },
        options: RsyncOptions {
            params: vec!["-artuz".into(), "--delete".into()],
            deletes: true,
            ..RsyncOptions::default()
        },
    };
    change(&mut remote);
    Endpoint::new(Path::new("/srv/www"), &remote.destination, &remote.options)
}

const BATCH: RunKind = RunKind::Batch { ignore_times: false };

fn line(endpoint: &Endpoint, kind: &RunKind) -> String {
    String::from_utf8(endpoint.plan(kind, Abilities::ALL).shell_line()).unwrap()
}

#[test]
fn a_batch_for_a_daemon_is_what_the_design_says() {
    let endpoint = endpoint("10.0.0.5", "www", |remote| {
        let host = Host { user: Some("bob".into()), name: "10.0.0.5".into(), port: Some(8730) };
        remote.destination = Destination::Daemon { host, module: "www".into() };
        remote.options.password_file = Some("/etc/rsync.pas".into());
        remote.options.timeout_s = Some(100);
    });
    assert_eq!(
        line(&endpoint, &BATCH),
        "cd /srv/www && rsync -artuz --no-r -R --from0 --files-from=- --delete-missing-args --force \
         --timeout=100 --port=8730 --password-file=/etc/rsync.pas --modify-window=-1 \
         --sockopts=TCP_NODELAY --contimeout=10 -- ./ bob@10.0.0.5::www/"
    );
}

#[test]
fn ssh_gets_its_port_and_never_asks() {
    let endpoint = endpoint("", "", |remote| {
        let host = Host { port: Some(2222), name: "fe80::1".into(), ..Host::default() };
        remote.destination = Destination::Ssh { host, path: "/backup/www/".into() };
    });
    let line = line(&endpoint, &BATCH);
    assert!(line.contains("-e 'ssh -p 2222 -o BatchMode=yes "), "{line}");
    assert!(line.ends_with(" -- ./ '[fe80::1]:/backup/www/'"), "{line}");
    assert!(!line.contains("--port") && !line.contains("--contimeout"), "{line}");
}

#[test]
fn abilities_take_options_away() {
    let endpoint = endpoint("host", "m", |_| {});
    let args = endpoint.plan(&BATCH, Abilities::NONE).args;
    assert!(args.iter().any(|word| word == "--ignore-missing-args"));
    assert!(
        !args.iter().any(|word| word == "--modify-window=-1" || word == "--delete-missing-args")
    );
}

#[test]
fn commands_for_operators_need_no_standard_input() {
    let endpoint = endpoint("host", "m", |_| {});
    let excludes = Excludes::default().with([b"/*.log".to_vec()]);
    let by_hand = |path: &str, presence| {
        let path = RelPath::new(path.as_bytes()).unwrap();
        let run = endpoint.plan_by_hand(&path, presence, &excludes, Scope::Tree);
        String::from_utf8(run.shell_line()).unwrap()
    };
    assert_eq!(
        by_hand("", Presence::Directory),
        "cd /srv/www && rsync '--exclude=/*.log' -artuz --delete -r -R -- ./ host::m/"
    );
    assert_eq!(
        by_hand("a/b c", Presence::Other),
        "cd /srv/www && rsync -artuz --no-r -d -R -- './a/b c' host::m/"
    );
    assert_eq!(
        by_hand("a/gone", Presence::Absent),
        "cd /srv/www && rsync '--exclude=/*.log' -artuz --delete -r --force --include=/a/ --include=/a/gone \
         '--include=/a/gone/***' '--exclude=*' -- ./ host::m/"
    );
    let gone = RelPath::new(b"a/gone").unwrap();
    let alone = |presence| {
        let run = endpoint.plan_by_hand(&gone, presence, &excludes, Scope::Entry);
        String::from_utf8(run.shell_line()).unwrap()
    };
    assert_eq!(
        alone(Presence::Absent),
        "cd /srv/www && rsync '--exclude=/*.log' -artuz --delete -r --include=/a/ --include=/a/gone \
         '--exclude=*' -- ./ host::m/"
    );
    assert_eq!(
        alone(Presence::Directory),
        "cd /srv/www && rsync -artuz --no-r -d -R -- ./a/gone host::m/"
    );
}

#[test]
fn a_run_can_be_pasted_with_its_names() {
    let endpoint = endpoint("host", "m", |remote| remote.options.params = vec!["-a".into()]);
    let spec = endpoint.plan(&BATCH, Abilities::NONE);
    let line = spec.shell_line_fed(b"./a b\0./it's\0./x\n\xff\0");
    let line = String::from_utf8(line).unwrap();
    let start = r#"cd /srv/www && printf '%s\0' './a b' "./it's" $'./x\012\377' | rsync -a "#;
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn moved_places_are_relative_to_each_other() {
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    let word = super::way_between("--link-dest", &path("a/old"), &path("b/c/new"));
    assert_eq!(word, "--link-dest=../../.././a/old");
}

#[test]
fn only_short_lists_of_trees_are_made_at_once() {
    for at_once in [false, true] {
        let dirs = vec![RelPath::root()];
        let kind = RunKind::Trees { dirs, checksum: false, deletes: true, at_once };
        let line = line(&endpoint("10.0.0.5", "www", |_| {}), &kind);
        assert_eq!(line.contains(" --no-inc-recursive "), at_once, "{line}");
    }
}

#[test]
fn where_names_cannot_carry_their_directories_only_the_root_is_a_source() {
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    let abilities = Abilities { relative: false, ..Abilities::ALL };
    let endpoint = endpoint("10.0.0.5", "www", |_| {});
    for dirs in [vec![path("")], vec![path("a/b")], vec![path(""), path("a/b")]] {
        let (names, scope, deletes) = (dirs.clone(), Scope::Listing, true);
        for kind in [
            BATCH,
            RunKind::LongBatch { names, ignore_times: false },
            RunKind::Listing { dirs: dirs.clone(), deletes },
            RunKind::Trees { dirs: dirs.clone(), checksum: false, deletes, at_once: true },
            RunKind::Extraneous { dirs: dirs.clone(), scope },
        ] {
            let args = endpoint.plan(&kind, abilities).args;
            let end = args.iter().position(|word| word == "--").unwrap();
            let reads_lists = args.iter().any(|word| word == "--files-from=-");
            let loses_directories = args.iter().any(|word| word == "--no-R");
            let sources = &args[end + 1..args.len() - 1];
            assert!(
                !loses_directories || !reads_lists && sources.iter().all(|word| word == "./"),
                "{args:?}"
            );
        }
    }
}

#[test]
fn a_run_that_carries_no_rules_forces_nothing_where_rules_keep_something() {
    let excludes = |remote: &mut Options| remote.options.params.push("--exclude=*.o".into());
    let forced = |remote: &mut Options| {
        excludes(remote);
        remote.options.params.push("--force".into());
    };
    let kinds = |endpoint: &Endpoint| {
        let dirs = vec![RelPath::root()];
        let additive = RunKind::Trees { dirs, checksum: false, deletes: false, at_once: true };
        [BATCH, RunKind::Confirmation, RunKind::Replacement, additive]
            .map(|kind| line(endpoint, &kind).contains(" --force "))
    };
    assert_eq!(kinds(&endpoint("h", "m", |_| {})), [true; 4]);
    assert_eq!(kinds(&endpoint("h", "m", |_| {}).keeping_names()), [false; 4]);
    assert_eq!(kinds(&endpoint("h", "m", excludes)), [false; 4]);
    assert_eq!(kinds(&endpoint("h", "m", forced)), [false; 4]);
    assert_eq!(kinds(&endpoint("h", "m", |remote| remote.options.deletes = false)), [false; 4]);
}

#[test]
fn a_run_that_reaches_few_names_may_clear_older_backups_out_of_the_way() {
    let kinds = [RunKind::Fallback { ignore_times: false }, RunKind::GuardedDeletion, BATCH];
    let reaching = |words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned());
        let endpoint = endpoint("h", "m", |remote| remote.options.params.extend(words.clone()));
        kinds.clone().map(|kind| {
            let args = endpoint.plan(&kind, Abilities::ALL).args;
            let mut words = args.iter().filter_map(|word| word.to_str());
            words.find_map(|word| word.strip_prefix("--filter=risk ")).map(str::to_owned)
        })
    };
    let few = |pattern: &str| [Some(pattern.to_owned()), Some(pattern.to_owned()), None];
    assert_eq!(reaching(&["-b", "--backup-dir=.bak"]), few("/.bak/**"));
    assert_eq!(reaching(&["-b", "--backup-dir", "./old/b[1]/"]), few("/old/b\\[1]/**"));
    for outside in ["/var/bak", "../bak"] {
        assert_eq!(reaching(&["-b", &format!("--backup-dir={outside}")]), [None, None, None]);
    }
}

#[test]
fn what_equal_size_and_time_do_not_prove_is_compared_in_the_way_that_the_receiver_accepts() {
    let endpoint = endpoint("h", "m", |_| {});
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    let renamed = RunKind::MoveFile { old: path("d/old"), new: path("d/new") };
    let moved = RunKind::MoveFile { old: path("d/f"), new: path("e/f") };
    let words = |ignore_times, checksum| {
        let abilities = Abilities { ignore_times, checksum, ..Abilities::ALL };
        [&RunKind::Replacement, &renamed, &moved, &BATCH].map(|kind| {
            let args = endpoint.plan(kind, abilities).args;
            args.iter()
                .filter_map(|word| word.to_str())
                .find(|word| ["-c", "-I"].contains(word))
                .map(str::to_owned)
        })
    };
    let each = |words: [&str; 2]| {
        let [replacement, renamed] = words.map(|word| Some(word.to_owned()));
        [replacement, renamed, None, None]
    };
    assert_eq!(words(true, true), each(["-c", "-I"]));
    assert_eq!(words(false, true), each(["-c", "-c"]));
    assert_eq!(words(true, false), each(["-I", "-I"]));
    // The refusal that follows says that there is no other way.
    assert_eq!(words(false, false), each(["-I", "-I"]));
}
