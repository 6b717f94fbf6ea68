//! Receivers that allow less than a plain rsync daemon: refused options, keys restricted to a directory, few connections.
//! The refusal of one of sersync's own options must not cost a delivery.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::control;
use crate::support::crowd::visit;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::sshd::Sshd;
use crate::support::{TestDir, tree, wait_for_content, wait_until};

/// Values of a daemon's `refuse options`.
const REFUSALS: &[&str] = &[
    "checksum dry-run",
    "delete-missing-args",
    "modify-window",
    "link-dest",
    "fuzzy",
    "force",
    "secluded-args",
    "ignore-times",
    "timeout",
    "relative",
    "checksum dry-run link-dest fuzzy force secluded-args modify-window",
];

fn refusing(options: &str) -> Rsyncd {
    let module = format!("refuse options = {options}");
    Rsyncd::start_with(&Options { module, ..Options::default() })
}

/// Creates, rewrites, renames and deletes; waits after each step until the copy is equal.
fn change_everything(mirror: &Mirror, copy: &Path, deletes: bool) {
    let same = |what: &str| {
        let equal = || match deletes {
            true => tree(&mirror.source) == tree(copy),
            false => tree(&mirror.source).iter().all(|line| tree(copy).contains(line)),
        };
        wait_until(&format!("the copy is equal after {what}"), equal);
    };
    same("the full sync");
    mirror.write("a/f", "1");
    mirror.write("a/big", vec![7; 2 << 20]);
    mirror.write("a/d/deep", "deep");
    same("creations");
    for content in ["2", "3", "4"] {
        mirror.write("a/f", content);
        wait_for_content(&copy.join("a/f"), content);
    }
    fs::rename(mirror.at("a/f"), mirror.at("a/g")).unwrap();
    same("a renamed file");
    fs::rename(mirror.at("a/big"), mirror.at("a/large")).unwrap();
    same("a renamed large file");
    fs::rename(mirror.at("a/d"), mirror.at("e")).unwrap();
    same("a renamed directory");
    mirror.write("older", "older");
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(mirror.at("older")).unwrap().set_modified(past).unwrap();
    fs::rename(mirror.at("older"), mirror.at("a/g")).unwrap();
    wait_for_content(&copy.join("a/g"), "older");
    fs::remove_file(mirror.at("a/large")).unwrap();
    fs::remove_dir_all(mirror.at("e")).unwrap();
    same("deletions");
    if deletes {
        // A file where a directory was.
        mirror.write("x/y/z", "below");
        same("a new tree");
        fs::remove_dir_all(mirror.at("x")).unwrap();
        fs::write(mirror.at("x"), "file").unwrap();
        same("a directory that became a file");
    }
}

fn assert_no_error(mirror: &Mirror, whose: &str) {
    let output = mirror.output();
    assert!(!output.contains("ERROR"), "{whose}:\n{output}");
}

#[test]
fn no_refused_option_of_ours_costs_a_delivery() {
    for options in REFUSALS {
        let daemon = refusing(options);
        let mut mirror = Mirror::prepare(&Setup::to(&daemon));
        mirror.write("before/f", "there before");
        mirror.set_args(&["-r"]);
        mirror.launch();
        mirror.wait_ready();
        change_everything(&mirror, &daemon.data, true);
        assert_no_error(&mirror, options);
    }
}

#[test]
fn a_remote_that_refuses_every_way_to_compare_contents_is_told_so_and_catches_up() {
    let daemon = refusing("checksum ignore-times");
    let mirror = Mirror::start(&Setup { params: "-a".into(), ..Setup::to(&daemon) });
    let equal = || tree(&mirror.source) == tree(&daemon.data);
    mirror.write("large", vec![1; 2 << 20]);
    wait_until("the file is there", equal);
    mirror.write("large.tmp", vec![2; 2 << 20]);
    let stamp = fs::metadata(mirror.at("large")).unwrap().modified().unwrap();
    fs::File::open(mirror.at("large.tmp")).unwrap().set_modified(stamp).unwrap();
    fs::rename(mirror.at("large.tmp"), mirror.at("large")).unwrap();
    mirror.wait_for_output("refuses --ignore-times, without which this run cannot be made");
    daemon.reconfigure(&Options::default());
    wait_until("the copy is equal", equal);
}

#[test]
fn a_remote_that_refuses_deletions_gets_everything_else() {
    for options in ["delete", "delete*"] {
        let daemon = refusing(options);
        let mut mirror = Mirror::prepare(&Setup::to(&daemon));
        mirror.write("before/f", "there before");
        mirror.set_args(&["-r"]);
        mirror.launch();
        mirror.wait_ready();
        change_everything(&mirror, &daemon.data, false);
        assert_no_error(&mirror, options);
        mirror.wait_for_output("refuses deletions: what is deleted here stays there");
    }
}

#[test]
fn deletions_that_a_remote_refuses_are_made_when_it_allows_them() {
    let daemon = refusing("delete");
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    fs::write(daemon.data.join("extraneous"), "since before").unwrap();
    mirror.write("f", "1");
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_ready();
    wait_for_content(&daemon.data.join("f"), "1");
    fs::remove_file(mirror.at("f")).unwrap();
    mirror.wait_for_output("f could not be sent to");
    let status = control::run(&mirror, "status", &[]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for said in ["refuses deletions: what is deleted here stays there", "f: the remote refuses"] {
        assert!(status.contains(said), "{status}");
    }
    daemon.reconfigure(&Options::default());
    wait_until("what is gone is deleted", || tree(&mirror.source) == tree(&daemon.data));
    assert_no_error(&mirror, "refuse options = delete");
}

#[test]
fn a_retry_asks_a_remote_that_refused_deletions_although_nothing_changes() {
    let daemon = refusing("delete");
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    fs::create_dir(daemon.data.join("d")).unwrap();
    fs::write(daemon.data.join("d/extraneous"), "since before").unwrap();
    mirror.write("d/f", "1");
    mirror.launch_with(&["-r"]);
    mirror.wait_for_output("it refuses deletions, so what only it has is still there");
    daemon.reconfigure(&Options::default());
    // It is asked at most once a second.
    wait_until("what is extraneous is deleted", || {
        control::run(&mirror, "retry", &[]);
        tree(&mirror.source) == tree(&daemon.data)
    });
}

/// Only the journal knows after a restart that the full sync has left something there.
#[test]
fn what_a_full_sync_may_not_delete_is_said_and_deleted_after_a_restart() {
    let daemon = refusing("delete");
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    fs::write(daemon.data.join("extraneous"), "since before").unwrap();
    mirror.write("f", "1");
    mirror.launch_with(&["-r"]);
    mirror.wait_ready();
    mirror.wait_for_output("it refuses deletions, so what only it has is still there");
    let status = control::run(&mirror, "status", &[]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("refuses deletions: what only it has stays there"), "{said}");
    assert_eq!(status.status.code(), Some(1));
    mirror.wait_for_record();
    mirror.kill();
    daemon.reconfigure(&Options::default());
    mirror.launch_with(&[]);
    mirror.wait_ready();
    wait_until("what is extraneous is deleted", || tree(&mirror.source) == tree(&daemon.data));
}

#[test]
fn what_a_daemon_excludes_fails_alone() {
    let module = "exclude = *.tmp cache/".into();
    let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("a.tmp", "excluded there");
    mirror.write("cache/f", "excluded there");
    mirror.write("d/f", "1");
    wait_for_content(&daemon.data.join("d/f"), "1");
    mirror.wait_for_output("its rsyncd.conf excludes this name");
    mirror.wait_for_output("exclude it here too (<filter>), or take it out of \"exclude\" there");
    // What is neither here nor there is no trouble.
    fs::remove_file(mirror.at("a.tmp")).unwrap();
    fs::remove_dir_all(mirror.at("cache")).unwrap();
    mirror.write("b.tmp", "excluded there");
    fs::remove_file(mirror.at("b.tmp")).unwrap();
    wait_until("nothing fails any longer", || {
        control::run(&mirror, "status", &[]).status.code() == Some(0)
    });
    fs::rename(mirror.at("d/f"), mirror.at("d/g")).unwrap();
    wait_for_content(&daemon.data.join("d/g"), "1");
    wait_until("the old name is gone", || !daemon.data.join("d/f").exists());
}

#[test]
fn a_daemon_with_one_place_gets_everything_and_nobody_is_blamed() {
    let module = "max connections = 1".into();
    let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
    let mirror = Mirror::start(&Setup::to(&daemon));
    change_everything(&mirror, &daemon.data, true);
    assert_no_error(&mirror, "one place");
}

#[test]
fn an_option_of_the_operator_that_is_refused_is_named_as_his() {
    let daemon = refusing("compress");
    let mirror = Mirror::start(&Setup { params: "-az".into(), ..Setup::to(&daemon) });
    mirror.write("f", "1");
    mirror.wait_for_output("refuses --compress (-z), which stands in <commonParams>");
}

#[test]
fn every_form_of_rrsync_takes_creations_changes_moves_and_deletions() {
    const RRSYNC: &str = "/usr/bin/rrsync";
    if !Path::new(RRSYNC).exists() || !runs(RRSYNC) {
        crate::support::not_installed("rrsync, or its python3");
        return;
    }
    for form in ["", "-wo", "-no-del", "-munge", "-no-lock"] {
        let sshd = Sshd::start();
        let locked = TestDir::new();
        let copy = locked.dir("locked");
        sshd.force_command(&format!("{RRSYNC} {form} {}", copy.display()));
        let daemonless = Setup {
            remotes: vec![("127.0.0.1".into(), "/".into())],
            params: "-a".into(),
            port: sshd.port,
            ssh: true,
            env: vec![("PATH".into(), sshd.path_variable())],
            ..Setup::plain()
        };
        let mirror = Mirror::start(&daemonless);
        change_everything(&mirror, &copy, form != "-no-del");
        assert_no_error(&mirror, &format!("rrsync {form}"));
    }
}

/// False if the interpreter of `program` is missing.
fn runs(program: &str) -> bool {
    Command::new(program).arg("--help").output().is_ok_and(|output| output.status.success())
}

/// Three watch paths are sent to three modules of one daemon, which share its few places.
struct FewPlaces {
    daemon: Rsyncd,
    mirror: Mirror,
    sources: [PathBuf; 3],
    copies: [PathBuf; 3],
    _dir: TestDir,
}

impl FewPlaces {
    fn start(places: usize) -> Self {
        let dir = TestDir::new();
        let more: String = ["b", "c"]
            .map(|name| {
                let path = dir.dir(name).display().to_string();
                format!("[{name}]\npath = {path}\nread only = no\nmax connections = {places}\n")
            })
            .concat();
        let module = format!("max connections = {places}\n{more}");
        let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
        let copies = [daemon.data.clone(), dir.join("b"), dir.join("c")];
        let (second, third) = (dir.dir("second"), dir.dir("third"));
        let local = |watch: &Path, name: &str| {
            let watch = watch.display();
            format!(
                "<localpath watch=\"{watch}\"><remote ip=\"127.0.0.1\" name=\"{name}\"/></localpath>"
            )
        };
        let sersync = local(&second, "b") + &local(&third, "c");
        let env = vec![("RUST_LOG".into(), "debug".into())];
        let mirror = Mirror::start(&Setup { sersync, env, ..Setup::to(&daemon) });
        let sources = [mirror.source.clone(), second, third];
        Self { daemon, mirror, sources, copies, _dir: dir }
    }

    /// One change in each watch path, one after the other.
    fn change_in_turn(&self, content: &str) {
        for (source, copy) in self.sources.iter().zip(&self.copies) {
            fs::write(source.join("f"), content).unwrap();
            wait_for_content(&copy.join("f"), content);
        }
    }
}

#[test]
fn three_modules_behind_four_places_get_everything_and_nobody_is_blamed() {
    let few = FewPlaces::start(4);
    (0..6).for_each(|turn| few.change_in_turn(&turn.to_string()));
    assert_no_error(&few.mirror, "four places");
}

/// How other clients have fared.
#[derive(Default)]
struct Visits {
    served: AtomicUsize,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

/// Nobody can know that one more place is free without taking it. So another client may be refused until the limit has shown.
#[test]
fn a_foreign_client_is_always_served_once_the_first_changes_have_shown_the_limit() {
    for (places, turns) in [(2, 4), (3, 8), (4, 20)] {
        let few = FewPlaces::start(places);
        let visits = Arc::new(Visits::default());
        let visitor = {
            let (visits, port) = (Arc::clone(&visits), few.daemon.port);
            std::thread::spawn(move || {
                while !visits.is_over.load(Ordering::Relaxed) {
                    let counter =
                        if visit(port, "data") { &visits.served } else { &visits.refused };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        // A session that takes the place of a used one comes before the daemon's child of that one has left, and is refused.
        wait_until("the limit is known", || {
            few.change_in_turn("first");
            let limit = format!("the daemon serves {places} clients at a time");
            few.mirror.output().contains(&limit)
        });
        let count = |counter: &AtomicUsize| counter.swap(0, Ordering::Relaxed);
        wait_until("what was too much has been given back", || {
            let (refused, before) = (count(&visits.refused), visits.served.load(Ordering::Relaxed));
            wait_until("ten visits more", || visits.served.load(Ordering::Relaxed) >= before + 10);
            eprintln!("{places} places: {refused} visits were refused at the first contact");
            visits.refused.load(Ordering::Relaxed) == 0
        });
        (0..turns).for_each(|turn| few.change_in_turn(&turn.to_string()));
        visits.is_over.store(true, Ordering::Relaxed);
        visitor.join().unwrap();
        let (served, refused) = (count(&visits.served), count(&visits.refused));
        assert!(
            served > turns && refused == 0,
            "{places} places: {refused} of {} visits were refused",
            served + refused
        );
        assert_no_error(&few.mirror, &format!("{places} places"));
    }
}

/// Each connection runs the daemon's hook. So without ready sessions it runs only for deliveries.
#[test]
fn without_ready_sessions_a_hook_runs_only_for_what_is_sent() {
    let dir = TestDir::new();
    let calls = dir.join("calls");
    let module = format!("pre-xfer exec = echo called >> {}", calls.display());
    let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
    let rsync = "<session ready=\"0\"/>".into();
    let mirror = Mirror::start(&Setup { rsync, ..Setup::to(&daemon) });
    let count = || fs::read_to_string(&calls).unwrap_or_default().lines().count();
    mirror.write("f", "1");
    wait_for_content(&daemon.at("f"), "1");
    wait_until("the run has ended", || crate::support::children_of(mirror.pid()).is_empty());
    assert_eq!(count(), 1);
    mirror.write("f", "2");
    wait_for_content(&daemon.at("f"), "2");
    wait_until("the run has ended", || crate::support::children_of(mirror.pid()).is_empty());
    assert_eq!(count(), 2);
}

/// New connections are refused, so only the session that stayed can carry the change.
#[test]
fn an_idle_session_stays_for_the_next_change_and_ends_when_the_watch_path_is_gone() {
    let daemon = Rsyncd::start();
    let rsync = "<session idle=\"1\"/>".into();
    let mirror = Mirror::start(&Setup { rsync, ..Setup::to(&daemon) });
    mirror.write("f", "1");
    wait_for_content(&daemon.at("f"), "1");
    let sessions = || crate::support::children_of(mirror.pid()).len();
    wait_until("several sessions are ready after a change", || sessions() >= 2);
    wait_until("one is left after a rest", || sessions() == 1);
    let module = "hosts deny = *".into();
    daemon.reconfigure(&Options { module, ..Options::default() });
    mirror.write("f", "2");
    wait_for_content(&daemon.at("f"), "2");
    daemon.reconfigure(&Options::default());
    wait_until("a session is ready again", || sessions() > 0);
    fs::rename(&mirror.source, mirror.dir.join("elsewhere")).unwrap();
    wait_until("none keeps the watch path busy", || sessions() == 0);
}

#[test]
fn a_hook_that_refuses_is_shown_with_its_own_words() {
    let module = "pre-xfer exec = echo closed until six; exit 1".into();
    let daemon = Rsyncd::start_with(&Options { module, ..Options::default() });
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("f", "1");
    mirror.wait_for_output("closed until six");
    assert!(mirror.output().contains("<session ready=\"0\"/>"), "{}", mirror.output());
    daemon.reconfigure(&Options::default());
    wait_for_content(&daemon.at("f"), "1");
}

#[test]
fn a_rewrite_right_after_its_directory_came_arrives_where_whole_seconds_are_compared() {
    let daemon = refusing("modify-window");
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("first", "contact");
    wait_for_content(&daemon.at("first"), "contact");
    let outside = mirror.dir.dir("outside");
    for round in 0..8 {
        let (name, content) = (format!("d{round}"), format!("new {round}"));
        fs::create_dir_all(outside.join(&name).join("below")).unwrap();
        fs::write(outside.join(&name).join("below/f"), "old 0").unwrap();
        fs::rename(outside.join(&name), mirror.at(&name)).unwrap();
        let path = format!("{name}/below/f");
        wait_for_content(&daemon.at(&path), "old 0");
        mirror.write(&path, &content);
        wait_for_content(&daemon.at(&path), &content);
    }
}

/// After an idle time a run needs no handshake, and the shared ssh connection ends with the program.
#[test]
fn the_ssh_connection_stays_between_runs_and_ends_with_the_program() {
    let sshd = Sshd::start();
    let copy = TestDir::new();
    let setup = Setup {
        remotes: vec![("127.0.0.1".into(), copy.path().display().to_string())],
        params: "-a".into(),
        port: sshd.port,
        ssh: true,
        env: vec![("PATH".into(), sshd.path_variable())],
        ..Setup::plain()
    };
    let mut mirror = Mirror::start(&setup);
    mirror.write("f", "1");
    wait_for_content(&copy.join("f"), "1");
    let shared = mirror.dir.join("state/ssh");
    let sockets = || fs::read_dir(&shared).unwrap().count();
    wait_until("the connection stands", || sockets() == 1);
    assert_eq!(fs::metadata(&shared).unwrap().permissions().mode() & 0o777, 0o700);
    wait_until("the sessions have ended after a rest", || {
        crate::support::children_of(mirror.pid()).is_empty()
    });
    assert_eq!(sockets(), 1, "the connection outlives the sessions");
    mirror.write("f", "2");
    wait_for_content(&copy.join("f"), "2");
    mirror.stop();
    assert_eq!(sockets(), 0);
    assert_no_error(&mirror, "a shared connection");
}

/// A command that starts the program on a terminal of its own. Its shell checks the terminal and then executes the program.
fn on_a_terminal(mirror: &Mirror) -> Command {
    let words = [
        env!("CARGO_BIN_EXE_sersync2"),
        "-o",
        mirror.config.to_str().unwrap(),
        "--state-dir",
        mirror.dir.join("state").to_str().unwrap(),
    ]
    .join(" ");
    let mut command = Command::new("script");
    command.args(["-qec", &format!(": < /dev/tty && exec {words}"), "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_remote_shell_of_the_operators_own_cannot_reach_for_the_terminal() {
    let dir = TestDir::new();
    let (said, copy) = (dir.join("said"), dir.dir("copy"));
    // This remote shell drops the arguments for the remote machine and runs rsync here.
    let shell = dir.file(
        "shell",
        format!(
            "#!/bin/sh\nif (: < /dev/tty) 2> /dev/null; then echo yes; else echo no; fi >> {}\n\
             until [ \"$1\" = rsync ]; do shift; done\nexec \"$@\"\n",
            said.display()
        ),
    );
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let mirror = Mirror::prepare(&Setup {
        remotes: vec![("127.0.0.1".into(), copy.display().to_string())],
        params: format!("-artuz -e {}", shell.display()),
        ssh: true,
        ..Setup::plain()
    });
    let mut program = on_a_terminal(&mirror).spawn().unwrap();
    mirror.write("f", "1");
    wait_until("it is there, and a change arrives", || {
        mirror.write("f", "2");
        fs::read(copy.join("f")).is_ok_and(|found| found == b"2")
    });
    assert_eq!(crate::control::run(&mirror, "stop", &[]).status.code(), Some(0));
    program.wait().unwrap();
    let said = fs::read_to_string(said).unwrap();
    assert!(said.contains("no") && !said.contains("yes"), "{said}");
}
