//! rsync is confined to the watch path: other files of this machine never reach a remote, whatever links lead to them.
//! On a kernel without Landlock these tests report that and are skipped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use sersync::destination::{Destination, Host};
use sersync::path::RelPath;
use sersync::rsync::exit::Outcome;
use sersync::rsync::options::RsyncOptions;
use sersync::rsync::probe::{Probed, run_probe};
use sersync::rsync::run::{Limits, Session};
use sersync::rsync::{Abilities, Endpoint, RunKind, RunSpec, confine};

use crate::control;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::sshd::Sshd;
use crate::support::tmpfs::Tmpfs;
use crate::support::{TestDir, skipped, wait_for_content, wait_until};

const SECRET: &str = "what nobody may see";

fn works_here() -> bool {
    let outcome = confine::try_out();
    if let Err(reason) = &outcome {
        skipped(reason);
    }
    outcome.is_ok()
}

/// A full sync of `root` whose rsync follows every link, as an old rsync does after such an attack.
fn deceived(root: &Path, daemon: &Rsyncd) -> RunSpec {
    let host = Host { name: "127.0.0.1".into(), port: Some(daemon.port), ..Host::default() };
    let destination = Destination::Daemon { host, module: "data".into() };
    let options = RsyncOptions { params: vec!["-rt".into()], ..RsyncOptions::default() };
    let dirs = vec![RelPath::root()];
    let kind = RunKind::Trees { dirs, checksum: false, deletes: false, at_once: false };
    let mut spec = Endpoint::new(root, &destination, &options).plan(&kind, Abilities::ALL);
    spec.insert(&["-L"]);
    spec
}

fn run(spec: &RunSpec) -> i32 {
    use sersync::rsync::exit::Ending;
    let limits = Limits { stall: Duration::from_secs(30), output_max: 0 };
    match Session::start(spec, None).unwrap().feed(b"", limits).ending {
        Ending::Code(code) => code,
        other => panic!("{other:?}"),
    }
}

/// A watch path with a file and a link to a directory outside, which holds a secret.
fn tree_with_a_way_out() -> TestDir {
    let dir = TestDir::new();
    dir.file("outside/secret", SECRET);
    dir.file("root/file", "content");
    symlink(dir.join("outside"), dir.join("root/way-out")).unwrap();
    dir
}

#[test]
fn what_a_link_leads_to_outside_of_the_watch_path_is_not_sent() {
    if !works_here() {
        return;
    }
    let (dir, daemon) = (tree_with_a_way_out(), Rsyncd::start());
    let mut spec = deceived(&dir.join("root"), &daemon);
    assert!(spec.confinement.is_some());
    assert_eq!(run(&spec), 23);
    assert_eq!(fs::read_to_string(daemon.at("file")).unwrap(), "content");
    assert!(!daemon.at("way-out/secret").exists());
    // The same run unconfined shows that the attack would succeed.
    spec.confinement = None;
    assert_eq!(run(&spec), 0);
    assert_eq!(fs::read_to_string(daemon.at("way-out/secret")).unwrap(), SECRET);
}

/// Ends the ssh connection that stays between the runs.
fn end_connection(state: &Path) -> bool {
    let sockets: Vec<_> = fs::read_dir(state.join("ssh")).unwrap().flatten().collect();
    let end = |socket: std::path::PathBuf| {
        let mut ssh = Command::new("/usr/bin/ssh");
        ssh.args(["-F", "none", "-O", "exit", "-S"]).arg(socket).arg("127.0.0.1");
        ssh.output().unwrap().status.success()
    };
    sockets.into_iter().any(|socket| end(socket.path()))
}

#[test]
fn over_ssh_too_what_a_link_leads_to_is_not_sent() {
    if !works_here() {
        return;
    }
    let (dir, sshd) = (tree_with_a_way_out(), Sshd::start());
    let (root, state) = (dir.join("root"), dir.dir("state/instance"));
    let host = Host { name: "127.0.0.1".into(), port: Some(sshd.port), ..Host::default() };
    let path = dir.dir("copy").display().to_string();
    let options = RsyncOptions {
        params: vec!["-rt".into(), "-e".into(), sshd.client()],
        ..RsyncOptions::default()
    };
    let endpoint = Endpoint::new(&root, &Destination::Ssh { host, path }, &options);
    let endpoint = endpoint.sharing_a_connection(Some(&state));
    let dirs = vec![RelPath::root()];
    let kind = RunKind::Trees { dirs, checksum: false, deletes: false, at_once: false };
    let follow_links = || {
        let mut spec = endpoint.plan(&kind, Abilities::ALL);
        spec.insert(&["-L"]);
        (run(&spec), spec.confinement.is_some(), dir.join("copy/way-out/secret").exists())
    };
    assert!(endpoint.lacks_connection());
    let probed = run_probe(&endpoint, None, 7, |_| {}).unwrap();
    assert!(matches!(probed, Probed::Able(_)), "{probed:?}");
    assert!(endpoint.confine_over_ssh() && !endpoint.lacks_connection());
    assert_eq!(follow_links(), (23, true, false));
    assert_eq!(fs::read_to_string(dir.join("copy/file")).unwrap(), "content");
    // Without a connection a confined run fails; a probe then opens another connection.
    assert!(end_connection(&dir.join("state")));
    wait_until("the connection is closed", || endpoint.lacks_connection());
    assert!([12, 255].contains(&run(&endpoint.plan(&kind, Abilities::ALL))));
    // The same run unconfined shows that the attack would succeed.
    endpoint.leave_unconfined();
    assert_eq!(follow_links(), (0, false, true));
    endpoint.end_shared_connection();
}

#[test]
fn a_mirror_over_ssh_opens_its_connection_again_and_nobody_takes_that_for_an_outage() {
    let (sshd, copy) = (Sshd::start(), TestDir::new());
    let mirror = Mirror::start(&over_ssh(&sshd, &copy));
    mirror.write("first", "1");
    wait_for_content(&copy.join("first"), "1");
    for round in ["2", "3"] {
        wait_until("a connection stands", || end_connection(&mirror.dir.join("state")));
        mirror.write("first", round);
        wait_for_content(&copy.join("first"), round);
    }
    assert!(!mirror.output().contains(" is down"), "{}", mirror.output());
    assert!(!mirror.output().contains("not confined"), "{}", mirror.output());
}

/// A mirror with the machine's own ssh.
fn over_ssh(sshd: &Sshd, copy: &TestDir) -> Setup {
    Setup {
        remotes: vec![("127.0.0.1".into(), copy.path().display().to_string())],
        params: format!("-artuz -e '{}'", sshd.client()),
        port: sshd.port,
        ssh: true,
        ..Setup::plain()
    }
}

#[test]
fn a_watch_path_behind_a_link_with_mounts_below_it_is_read_as_ever() {
    if !works_here() {
        return;
    }
    let (dir, daemon) = (tree_with_a_way_out(), Rsyncd::start());
    fs::remove_file(dir.join("root/way-out")).unwrap();
    dir.file("elsewhere/bound", "bound");
    fs::create_dir(dir.join("root/bind")).unwrap();
    let Some(_disk) = Tmpfs::mount(&dir.join("root/disk"), "size=1m") else { return };
    let Some(_bind) = Tmpfs::bind(&dir.join("elsewhere"), &dir.join("root/bind")) else { return };
    dir.file("root/disk/mounted", "mounted");
    symlink(dir.join("root"), dir.join("link")).unwrap();
    let spec = deceived(&dir.join("link"), &daemon);
    assert_eq!(run(&spec), 0);
    for (name, content) in
        [("file", "content"), ("disk/mounted", "mounted"), ("bind/bound", "bound")]
    {
        assert_eq!(fs::read_to_string(daemon.at(name)).unwrap(), content);
    }
}

#[test]
fn files_that_the_operators_words_name_are_read() {
    if !works_here() {
        return;
    }
    let (dir, daemon) = (tree_with_a_way_out(), Rsyncd::start());
    let rules = dir.file("rules", "merge-nothing\n*.skip\n");
    dir.file("root/a.skip", "");
    let host = Host { name: "127.0.0.1".into(), port: Some(daemon.port), user: Some("bob".into()) };
    let destination = Destination::Daemon { host, module: "auth".into() };
    let options = RsyncOptions {
        params: vec!["-rt".into(), format!("--exclude-from={}", rules.display())],
        password_file: Some(daemon.password_file("secret")),
        ..RsyncOptions::default()
    };
    let endpoint = Endpoint::new(&dir.join("root"), &destination, &options);
    let kind = RunKind::Batch { ignore_times: false };
    let spec = endpoint.plan(&kind, Abilities::ALL);
    assert!(spec.confinement.is_some());
    let limits = Limits { stall: Duration::from_secs(30), output_max: 0 };
    let report = Session::start(&spec, None).unwrap().feed(b"./file\0./a.skip\0", limits);
    assert_eq!(report.judge(&endpoint), Outcome::Delivered, "{report:?}");
    assert!(daemon.at("file").exists() && !daemon.at("a.skip").exists());
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn an_old_rsync_leaks_nothing_to_somebody_who_swaps_a_directory_for_a_link() {
    if works_here() {
        let daemon = Rsyncd::start();
        attack(Setup::to(&daemon), &daemon.data);
    }
}

#[test]
#[ignore = "needs an old rsync: make test sets SERSYNC_OLD_RSYNC"]
fn an_old_rsync_leaks_nothing_over_ssh_either() {
    if works_here() {
        let (sshd, copy) = (Sshd::start(), TestDir::new());
        attack(over_ssh(&sshd, &copy), copy.path());
    }
}

/// Swaps a directory for a link again and again while an old rsync sends it.
fn attack(mut setup: Setup, copy: &Path) {
    let program = std::path::PathBuf::from(std::env::var_os("SERSYNC_OLD_RSYNC").unwrap());
    let path = std::env::var("PATH").unwrap();
    setup.env = vec![("PATH".into(), format!("{}:{path}", program.parent().unwrap().display()))];
    let mirror = Mirror::start(&setup);
    let outside = mirror.dir.dir("outside");
    for i in 0..40 {
        fs::write(outside.join(format!("f{i}")), SECRET).unwrap();
        mirror.write(format!("d/f{i}"), "mine");
    }
    symlink(&outside, mirror.at("link")).unwrap();
    // `d` is the link for half of the time, also between rsync's list and its open. Unconfined, most of these syncs leak.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let (d, link) = (mirror.at("d"), mirror.at("link"));
                renameat_with(CWD, d, CWD, link, RenameFlags::EXCHANGE).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for _ in 0..12 {
            let asked = control::run(&mirror, "sync-now", &[]);
            assert_eq!(asked.status.code(), Some(0), "{}", control::text(&asked));
            control::run(&mirror, "flush", &["--timeout", "1s"]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(!holds_secret(copy));
    // Confinement does not prevent mirroring: after the swaps everything arrives.
    if fs::symlink_metadata(mirror.at("d")).unwrap().is_symlink() {
        renameat_with(CWD, mirror.at("d"), CWD, mirror.at("link"), RenameFlags::EXCHANGE).unwrap();
    }
    (0..40).for_each(|i| wait_for_content(&copy.join(format!("d/f{i}")), "mine"));
    assert!(!holds_secret(copy));
}

fn holds_secret(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => holds_secret(&path),
            Ok(found) if found.is_file() => fs::read_to_string(&path).is_ok_and(|it| it == SECRET),
            _ => false,
        }
    })
}
