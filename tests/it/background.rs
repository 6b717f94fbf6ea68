//! `-d`: the parent reports the real result, and the child is a proper daemon. Uses the real program and a real remote.
//! `habits.rs` tests what else old installations expect.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::forwarder::Forwarder;
use crate::support::rsyncd::Rsyncd;
use crate::support::sersync::{Installation, PROGRAM, open_file};
use crate::support::{children_of, free_port, is_running, wait_for_content, wait_until};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn when_the_parent_exits_with_0_no_change_is_missed() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let parent = setup.run_background();
    fs::write(setup.source.join("first"), "at once").unwrap();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    assert!(text(&parent.stdout).contains("daemon start，sersync run behind the console\n"));
    wait_for_content(&remote.at("first"), "at once");
}

#[test]
fn a_background_start_says_where_its_log_and_state_are_and_the_log_begins_with_what_runs() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let parent = setup.run_background();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    let output = text(&parent.stdout);
    let named = |what: &str| output.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    assert!(Path::new(named("state directory: ")).is_dir(), "{output}");
    let log = fs::read_to_string(named("log file: ")).unwrap();
    let begin: Vec<&str> = log.lines().take(5).collect();
    for word in [
        &format!("sersync2 {}, process {}", env!("CARGO_PKG_VERSION"), setup.pids()[0]),
        setup.config.to_str().unwrap(),
    ] {
        assert!(begin[0].contains(word), "{word} is not in the first line of\n{log}");
    }
    let watching = format!("watching {} with ", setup.source.display());
    assert!(begin.iter().any(|line| line.contains(&watching)), "{watching} is not in\n{log}");
}

#[test]
fn a_misspelt_command_and_a_check_that_fails_here_end_with_2() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let config = setup.config.to_str().unwrap();
    for words in [&["stauts", "-o", config][..], &["-o", config, "status"]] {
        let end = setup.command(PROGRAM, words).output().unwrap();
        assert_eq!(end.status.code(), Some(2), "{words:?}: {}", text(&end.stderr));
        assert!(text(&end.stderr).contains("status"), "{}", text(&end.stderr));
    }
    fs::remove_dir(&setup.source).unwrap();
    let check = setup.command(PROGRAM, &["--check", config]).output().unwrap();
    assert_eq!(check.status.code(), Some(2), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("here it would not start"), "{}", text(&check.stdout));
}

#[test]
fn relative_paths_mean_the_same_in_the_background() {
    // sersync2 ran rsync in the watch path, so a relative password file is relative to it.
    let remote = Rsyncd::start();
    let auth = r#"<auth start="true" users="bob" passwordfile="rsync.pass"/>"#;
    let setup = Installation::with_remote("confxml.xml", remote.port, r#"name="auth""#, auth);
    fs::copy(remote.password_file("secret"), setup.source.join("rsync.pass")).unwrap();
    let parent = setup.command(PROGRAM, &["-d", "-o", "confxml.xml"]).output().unwrap();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    setup.assert_mirrors(&remote, "file");
}

#[test]
fn a_wrong_configuration_is_the_parents_failure_with_the_reason() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let good = fs::read_to_string(&setup.config).unwrap();
    let bad = good.replace(&format!(r#"port="{}""#, remote.port), r#"port="abc""#);
    fs::write(&setup.config, bad).unwrap();
    let parent = setup.run_background();
    assert_eq!(parent.status.code(), Some(1));
    assert!(text(&parent.stderr).contains("abc"), "{}", text(&parent.stderr));
    assert!(setup.pids().is_empty());
}

#[test]
fn a_missing_watch_path_is_the_parents_failure_with_the_reason() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    fs::remove_dir(&setup.source).unwrap();
    let parent = setup.run_background();
    assert_eq!(parent.status.code(), Some(1));
    let reason = text(&parent.stderr);
    assert!(reason.contains(setup.source.to_str().unwrap()), "{reason}");
    wait_until("nothing runs on", || setup.pids().is_empty());
}

#[test]
fn the_daemon_has_a_session_of_its_own_and_no_terminal() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    let pid = setup.pid();
    let session = session_of(&pid.to_string());
    assert_ne!(session, session_of("self"));
    assert_ne!(session, pid.to_string(), "a session leader could get a terminal again");
    assert_eq!(open_file(pid, 0), Path::new("/dev/null"));
    assert_eq!(open_file(pid, 1), setup.log_file());
    assert_eq!(open_file(pid, 2), setup.log_file());
}

/// The session id of a process; 0 if the session's leader is outside this PID namespace, as in a container.
fn session_of(process: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn umask_and_working_directory_are_kept() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 0027 && exec \"$@\"", "sh", PROGRAM]);
    command.args(setup.arguments(&["-d", "-o", setup.config.to_str().unwrap()]));
    let parent = command.current_dir(setup.dir.path()).output().unwrap();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    let status = fs::read_to_string(format!("/proc/{}/status", setup.pid())).unwrap();
    assert!(status.contains("Umask:\t0027\n"), "{status}");
    let cwd = fs::read_link(format!("/proc/{}/cwd", setup.pid())).unwrap();
    assert_eq!(cwd, setup.dir.path());
}

#[test]
fn sighup_reopens_the_log_file() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    fs::rename(setup.log_file(), setup.dir.join("sersync2.log.1")).unwrap();
    setup.signal(Signal::HUP);
    wait_until("the log file is there again", || setup.log_file().exists());
    wait_until("it is said", || {
        fs::read_to_string(setup.log_file()).is_ok_and(|log| log.contains("is reopened"))
    });
    wait_until("standard error follows it", || open_file(setup.pid(), 2) == setup.log_file());
    setup.assert_mirrors(&remote, "after");
}

#[test]
fn sigterm_ends_the_daemon_and_its_children() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    setup.assert_mirrors(&remote, "file");
    let pid = setup.pid();
    let children = children_of(pid);
    setup.signal(Signal::TERM);
    wait_until("the daemon ends", || !is_running(pid));
    wait_until("no child is left", || !children.iter().any(|&child| is_running(child)));
}

#[test]
fn a_start_waits_for_a_predecessor_that_is_stopping() {
    starts_while_the_predecessor_stops(|setup| setup.signal(Signal::TERM));
}

#[test]
fn a_start_waits_for_a_predecessor_that_a_command_stops() {
    starts_while_the_predecessor_stops(|setup| {
        let (config, state) = (&setup.config, setup.dir.join("state"));
        let mut stop = Command::new(PROGRAM);
        stop.arg("stop").arg("-o").arg(config).arg("--state-dir").arg(state);
        let mut stop = stop.spawn().unwrap();
        let log = || fs::read_to_string(setup.log_file()).unwrap_or_default();
        wait_until("the command has arrived", || log().contains("stopping: what is in flight"));
        // Who sends a command may not wait for its end.
        stop.kill().unwrap();
        stop.wait().unwrap();
    });
}

fn starts_while_the_predecessor_stops(stop: impl FnOnce(&Installation)) {
    let remote = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(9, port, remote.port);
    let name = r#"name="data""#;
    let setup = Installation::with_remote("confxml.xml", port, name, "");
    let xml = fs::read_to_string(&setup.config).unwrap();
    fs::write(&setup.config, xml.replace("127.0.0.1", &forwarder.ip())).unwrap();
    assert!(setup.run_background().status.success());
    setup.assert_mirrors(&remote, "first");
    // A file whose transfer takes longer than a start used to wait.
    forwarder.set_rate(Some(200_000));
    // Random content, so that rsync cannot compress it.
    let mut state = 1_u32;
    let noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let large: Vec<u8> = std::iter::repeat_with(noise).take(1_000_000).collect();
    fs::write(setup.source.join("large"), &large).unwrap();
    wait_until("the file is under way", || is_under_way(&remote, "large"));
    let old = setup.pid();
    stop(&setup);
    let config = setup.config.to_str().unwrap();
    let parent = setup.command(PROGRAM, &["-r", "-d", "-o", config]).output().unwrap();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    let waited =
        format!("waiting for process {old}, which serves this configuration and is stopping");
    assert!(text(&parent.stderr).contains(&waited), "{}", text(&parent.stderr));
    assert_ne!(setup.pid(), old, "one runs, and it is the new one");
    forwarder.set_rate(None);
    setup.assert_mirrors(&remote, "last");
    wait_until("the large file is there", || {
        fs::read(remote.at("large")).is_ok_and(|content| content == large)
    });
}

/// True while the remote has a temporary file for `name`.
fn is_under_way(remote: &Rsyncd, name: &str) -> bool {
    let entries = fs::read_dir(&remote.data).into_iter().flatten().flatten();
    let temporary = format!(".{name}.");
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|entry| entry.starts_with(&temporary))
}

#[test]
fn a_refused_background_start_leaves_a_trace_in_the_log() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    let refused = setup.run_background();
    assert_eq!(refused.status.code(), Some(1));
    let log = fs::read_to_string(setup.log_file()).unwrap();
    let trace = "sersync2 -d did not start: this configuration is already served by process";
    assert!(log.contains(trace), "{log}");
    setup.assert_mirrors(&remote, "goes on");
}

#[test]
fn sigusr1_logs_what_is_pending_and_sigusr2_does_nothing() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    setup.signal(Signal::USR2);
    setup.signal(Signal::USR1);
    wait_until("the report is in the log", || {
        let log = fs::read_to_string(setup.log_file()).unwrap_or_default();
        log.contains("SIGUSR1: remote 127.0.0.1::data: 0 paths pending")
    });
    setup.assert_mirrors(&remote, "goes on");
}

#[test]
fn the_program_prints_its_lines_in_the_order_of_the_tutorials() {
    const LINES: [&str; 15] = [
        "set the system param",
        "parse the command param",
        "option: -r ",
        "option: -d ",
        "option: -o ",
        "daemon thread num: 10",
        "parse xml config file",
        "host ip : localhost",
        "daemon start，sersync run behind the console",
        "config xml parse success",
        "sersync working thread 12",
        "rsync the directory recursivly to the remote servers once",
        "execute command: cd ",
        "run the sersync:",
        "watch path is: ",
    ];
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let config = setup.config.to_str().unwrap();
    let parent = setup.command(PROGRAM, &["-r", "-d", "-o", config]).output().unwrap();
    assert!(parent.status.success(), "{}", text(&parent.stderr));
    let output = text(&parent.stdout);
    let known = |line: &&str| LINES.iter().any(|begin| line.starts_with(begin));
    let printed: Vec<&str> = output.lines().filter(known).collect();
    assert_eq!(printed.len(), LINES.len(), "{output}");
    // The parent and its child print at the same time, so the position of the parent's only line varies.
    let is_parents = |line: &&str| line.starts_with("daemon start");
    let of_one = |lines: &[&str]| -> Vec<String> {
        lines.iter().filter(|line| !is_parents(line)).map(|line| (*line).to_owned()).collect()
    };
    for (line, begin) in of_one(&printed).iter().zip(of_one(&LINES)) {
        assert!(line.starts_with(&begin), "{line} in place of {begin}:\n{output}");
    }
}

#[test]
fn the_number_of_workers_is_true_where_it_is_printed() {
    let remote = Rsyncd::start();
    for (options, workers) in [(&["-d"][..], 10), (&["-d", "-n", "3"], 3)] {
        let setup = Installation::new(&remote);
        let xml = fs::read_to_string(&setup.config).unwrap();
        let one = xml.lines().find(|line| line.contains("<remote ")).unwrap();
        let many = |i| one.replace("\"data\"", &format!("\"data/{i}\"")) + "\n";
        fs::write(&setup.config, xml.replace(one, &(0..12).map(many).collect::<String>())).unwrap();
        let mut words = options.to_vec();
        words.extend(["-o", setup.config.to_str().unwrap()]);
        let parent = setup.command(PROGRAM, &words).output().unwrap();
        assert!(parent.status.success(), "{}", text(&parent.stderr));
        let output = text(&parent.stdout);
        let line = format!("daemon thread num: {workers}\nparse xml config file\n");
        assert!(output.contains(&line), "{output}");
    }
}

#[test]
fn systemd_hears_that_the_mirror_stands() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let path = setup.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    let mut command = setup.command(PROGRAM, &["-o", setup.config.to_str().unwrap()]);
    // systemd's WatchdogSec=: three signs of life in this time.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let mut running = setup.start_command(&mut command);
    let hear = || {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        text(&message[..length])
    };
    let hear_of = |word: &str| {
        let heard = (0..100).map(|_| hear()).find(|heard| heard.contains(word));
        heard.unwrap_or_else(|| panic!("systemd does not hear of {word}"))
    };
    let ready = hear_of("READY=1\n");
    assert!(ready.contains(&format!("MAINPID={}\n", running.child.id())), "{ready}");
    for _ in 0..3 {
        hear_of("WATCHDOG=1");
    }
    setup.signal(Signal::TERM);
    hear_of("STOPPING=1");
    assert_eq!(running.wait(), Some(0));
}
