//! The life of a session: ready, fed, abandoned, killed, stalled; and the watch root it is bound to.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use super::{BATCH, LIMITS, Rig, daemon_module, path};
use crate::support::sshd::Sshd;
use crate::support::{children_of, is_running, tree, wait_for_content, wait_until};
use sersync::ground::identity::Identity;
use sersync::rsync::exit::{Ending, Outcome, root_changed};
use sersync::rsync::run::{Limits, Session, StartError};
use sersync::rsync::{Abilities, RunSpec, input};

#[test]
fn warm_session_takes_names_written_long_after_its_start() {
    let rig = Rig::new(&["-a"]);
    let session = rig.session(&BATCH);
    wait_until("the session is connected", || {
        std::fs::read_to_string(rig.daemon.log_file()).is_ok_and(|log| log.contains("connect from"))
    });
    rig.source.file("late", "1");
    assert!(session.is_alive());
    let report = session.feed(&input::names(&[path("late")]), LIMITS);
    assert_eq!(report.judge(&rig.endpoint()), Outcome::Delivered);
    assert!(rig.holds("late"));
}

#[test]
fn pipes_of_any_size_do_not_lock_each_other() {
    let rig = Rig::new(&["-a", "-vvv", "--itemize-changes"]);
    let long = "n".repeat(200);
    let paths: Vec<_> = (0..5_000).map(|n| path(&format!("{long}-{n}"))).collect();
    for file in paths.iter().take(1_000) {
        rig.source.file(String::from_utf8_lossy(file.as_bytes()).as_ref(), "");
    }
    let list = input::names(&paths);
    assert!(list.len() > 1_000_000);
    assert_eq!(rig.run(&BATCH, &list), Outcome::Delivered);
    assert_eq!(rig.remote_names("").len(), 1_000);
}

#[test]
fn unused_session_leaves_nothing_behind() {
    let rig = Rig::new(&["-a"]);
    let closed = rig.session(&BATCH);
    let dropped = rig.session(&BATCH);
    let pids = [closed.pid(), dropped.pid()];
    Session::close_all(vec![closed]);
    drop(dropped);
    let children = children_of(std::process::id());
    assert!(pids.iter().all(|pid| !children.contains(pid)), "neither runs nor is a zombie");
}

#[test]
fn sessions_that_do_not_leave_are_waited_for_all_at_once() {
    // This listener never greets, so each session hangs until it is killed.
    let silent = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let dir = crate::support::TestDir::new();
    let daemon = format!("rsync://127.0.0.1:{port}/data/");
    let args = ["-a", "--files-from=-", "./", &daemon].map(Into::into).to_vec();
    let spec = RunSpec {
        args,
        root: dir.path().to_path_buf(),
        local: None,
        owner: None,
        confinement: None,
    };
    let sessions: Vec<_> = (0..40).map(|_| Session::start(&spec, None).unwrap()).collect();
    let pids: Vec<_> = sessions.iter().map(Session::pid).collect();
    // Ended one by one, they would take 20 s.
    let (done, end) = std::sync::mpsc::channel();
    let closing = std::thread::Builder::new().spawn(move || {
        Session::close_all(sessions);
        done.send(()).unwrap();
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(()));
    closing.unwrap().join().unwrap();
    let children = children_of(std::process::id());
    assert!(pids.iter().all(|pid| !children.contains(pid)));
}

#[test]
fn killer_ends_a_run_in_flight_from_another_thread() {
    let rig = Rig::new(&["-a", "--bwlimit=1"]);
    rig.source.file("large", vec![7; 4_000_000]);
    let session = rig.session(&BATCH);
    let (pid, killer) = (session.pid(), session.killer());
    let list = input::names(&[path("large")]);
    let run = std::thread::Builder::new().spawn(move || session.feed(&list, LIMITS)).unwrap();
    wait_until("the transfer has begun", || {
        rig.remote_names("").iter().any(|name| name.starts_with(".large."))
    });
    killer.kill();
    let report = run.join().unwrap();
    assert_eq!(report.ending, Ending::Killed);
    assert_eq!(report.judge(&rig.endpoint()), Outcome::Stopped);
    assert!(!is_running(pid));
    wait_until("the receiver has removed its unfinished file", || rig.remote_names("").is_empty());
}

#[test]
fn session_with_a_silent_server_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(&["-a"]);
    rig.remote.destination = daemon_module(silent.local_addr().unwrap().port(), "data");
    let session = rig.session(&BATCH);
    let pid = session.pid();
    let limits = Limits { stall: Duration::from_millis(300), output_max: 0 };
    let report = session.feed(&input::names(&[path("x")]), limits);
    assert!(matches!(report.ending, Ending::Stalled(_)), "{report:?}");
    assert!(!is_running(pid));
}

#[test]
fn run_that_stands_still_ends_soon_when_the_program_stops() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(&["-a"]);
    rig.remote.destination = daemon_module(silent.local_addr().unwrap().port(), "data");
    let session = rig.session(&BATCH);
    session.killer().hurry();
    // Without that it would be given up as stalled.
    let limits = Limits { stall: Duration::from_secs(30), output_max: 0 };
    let report = session.feed(&input::names(&[path("x")]), limits);
    assert_eq!(report.judge(&rig.endpoint()), Outcome::Stopped, "{report:?}");
}

#[test]
fn slow_run_that_moves_is_not_given_up() {
    let rig = Rig::new(&["-a", "--bwlimit=200"]);
    rig.source.file("slow", vec![7; 300_000]);
    let limits = Limits { stall: Duration::from_millis(900), output_max: 0 };
    let list = input::names(&[path("slow")]);
    let report = rig.session(&BATCH).feed(&list, limits);
    assert_eq!(report.judge(&rig.endpoint()), Outcome::Delivered);
}

#[test]
fn swapped_watch_root_deletes_nothing() {
    let rig = Rig::new(&["-a"]);
    rig.source.file("root/f", "1");
    let root = rig.source.join("root");
    let endpoint = rig.endpoint_from(&root);
    rig.remote_file("f");
    let identity = Identity::of(&root).unwrap();
    let spec = endpoint.plan(&BATCH, Abilities::ALL);
    let session = Session::start(&spec, Some(identity)).unwrap();
    std::fs::rename(&root, rig.source.join("elsewhere")).unwrap();
    rig.source.dir("root");
    let report = session.feed(&input::names(&[path("f")]), LIMITS);
    assert_eq!(report.judge(&endpoint), Outcome::Failed(root_changed()));
    let again = Session::start(&spec, Some(identity));
    assert!(matches!(again, Err(StartError::RootChanged { .. })), "{again:?}");
    assert!(rig.holds("f"));
}

#[test]
fn missing_watch_root_is_named() {
    let rig = Rig::new(&["-a"]);
    let spec = rig.endpoint().plan(&BATCH, Abilities::ALL);
    std::fs::remove_dir(rig.source.path()).unwrap();
    let error = Session::start(&spec, None).unwrap_err().to_string();
    assert!(error.contains(rig.source.path().to_str().unwrap()), "{error}");
}

#[test]
fn session_that_died_unused_says_why() {
    let mut rig = Rig::new(&["-a"]);
    rig.send_to("nosuch");
    let session = rig.session(&BATCH);
    wait_until("the session has ended", || !session.is_alive());
    let report = session.feed(&vec![b'x'; 1_000_000], LIMITS);
    assert_eq!(report.ending, Ending::Code(5), "{report:?}");
}

#[test]
fn ssh_sessions_are_ready_too_and_leave_no_ssh_behind() {
    let ssh = Sshd::start();
    let mut rig = Rig::new(&["-a", "-e", &format!("{}/ssh -p {}", ssh.bin().display(), ssh.port)]);
    rig.over_ssh(Some(whoami()));
    rig.source.file("a/over ssh", "1");
    rig.remote_file("gone");
    let session = rig.session(&BATCH);
    wait_until("ssh is started", || !children_of(session.pid()).is_empty());
    let below = children_of(session.pid());
    let list = input::names(&[path("a/over ssh"), path("gone")]);
    assert_eq!(session.feed(&list, LIMITS).judge(&rig.endpoint()), Outcome::Delivered);
    wait_for_content(&rig.daemon.at("a/over ssh"), "1");
    assert_eq!(tree(&rig.daemon.data), tree(rig.source.path()));
    assert!(below.into_iter().all(|pid| !is_running(pid)));
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
