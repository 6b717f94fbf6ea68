//! Exhausted resources: open files, processes, memory. The program reports the shortage, degrades, and recovers afterwards.
//! `watch/faults.rs` tests exhausted watches; the benchmark `remotes.rs` measures the memory of waiting changes.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{free_port, is_running, wait_for_content, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Lowers a limit of the running program; returns what it was.
fn limit(mirror: &Mirror, resource: Resource, to: u64) -> Rlimit {
    let pid = Pid::from_raw(mirror.pid().cast_signed());
    let lower = Rlimit { current: Some(to), maximum: getrlimit(resource).maximum };
    prlimit(pid, resource, lower).unwrap()
}

fn mend(mirror: &Mirror, resource: Resource, before: Rlimit) {
    let pid = Pid::from_raw(mirror.pid().cast_signed());
    prlimit(pid, resource, before).unwrap();
}

/// Sets how many processes the program's user may have. It runs as that user, because root may lack the right.
fn limit_processes(mirror: &Mirror, to: &str) {
    let mut command = std::process::Command::new("prlimit");
    command.arg(format!("--pid={}", mirror.pid())).arg(format!("--nproc={to}:"));
    if let Some(user) = mirror.user() {
        command.uid(user).gid(user);
    }
    assert!(command.status().unwrap().success());
}

/// A resource runs out during changes, and then becomes available again.
fn try_shortage(
    mirror: &Mirror,
    daemon: &Rsyncd,
    words: &str,
    run_out: impl FnOnce(),
    mend: impl FnOnce(),
) {
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    run_out();
    // Sessions that are already running serve the first of these.
    let mut count = 0;
    wait_until("the shortage is said", || {
        count += 1;
        mirror.write(format!("d{}/f{count}", count % 3), "x");
        std::thread::sleep(Duration::from_millis(50));
        mirror.output().contains(words)
    });
    assert!(is_running(mirror.pid()));
    let output = mirror.output();
    assert!(!output.contains("ALARM") && output.matches("ERROR").count() == 1, "{output}");
    mend();
    mirror.write("after", "y");
    wait_for_content(&daemon.at("after"), "y");
    wait_until_same(&mirror.source, &daemon.data, SOON, "when there is enough again");
}

#[test]
fn a_shortage_of_open_files_is_said_and_made_good() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    let words = "cannot start rsync: too many open files: raise their limit (LimitNOFILE=";
    let before = std::cell::Cell::new(None);
    let run_out = || before.set(Some(limit(&mirror, Resource::Nofile, 10)));
    try_shortage(&mirror, &daemon, words, run_out, || {
        mend(&mirror, Resource::Nofile, before.take().unwrap());
    });
}

#[test]
fn with_few_open_files_each_of_twenty_remotes_gets_its_file() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let mut setup = Setup { remotes: Vec::new(), port, ..Setup::to(&daemon) };
    let ways: Vec<_> = (160..180).map(|host| Forwarder::start(host, port, daemon.port)).collect();
    for (number, way) in ways.iter().enumerate() {
        std::fs::create_dir(daemon.at(format!("r{number}"))).unwrap();
        setup.remotes.push((way.ip(), format!("data/r{number}")));
    }
    let mirror = Mirror::start(&setup);
    // Twenty runs at once, with up to four ready sessions for each remote, need several times as many.
    let open = std::fs::read_dir(format!("/proc/{}/fd", mirror.pid())).unwrap().count() as u64;
    limit(&mirror, Resource::Nofile, open + 40);
    for round in 0..3 {
        let name = format!("f{round}");
        mirror.write(&name, "x");
        (0..20).for_each(|number| wait_for_content(&daemon.at(format!("r{number}/{name}")), "x"));
    }
    // On a busy machine a remote may answer late; but a shortage here must not look like a remote that is down.
    let output = mirror.output();
    let is_wrong = |line: &str| line.contains("is down") && line.contains("open files");
    assert!(!output.lines().any(is_wrong), "{output}");
}

#[test]
fn a_shortage_of_processes_is_said_and_made_good() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    // The limit does not hold for root.
    if rustix::process::geteuid().is_root() {
        mirror.run_as_nobody();
    }
    mirror.launch();
    mirror.wait_ready();
    let words =
        "cannot start rsync: no more processes may be started: raise their limit (TasksMax=";
    let most = getrlimit(Resource::Nproc).maximum;
    let most = most.map_or_else(|| "unlimited".into(), |most| most.to_string());
    let run_out = || limit_processes(&mirror, "1");
    try_shortage(&mirror, &daemon, words, run_out, || limit_processes(&mirror, &most));
}

#[test]
fn a_shortage_of_memory_is_said_and_made_good() {
    let mut daemon = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&daemon));
    mirror.write("before", "x");
    wait_for_content(&daemon.at("before"), "x");
    daemon.stop();
    mirror.write("while it is down", "x");
    mirror.wait_for_output("is down");
    // Allow not one page more than it has. (`ulimit -v` counts address space, of which the C library reserves a lot.)
    let before = limit(&mirror, Resource::Data, data_size(mirror.pid()));
    let mut count = 0;
    wait_until("the shortage is said", || {
        for _ in 0..500 {
            count += 1;
            mirror.write(format!("d{}/a-file-with-a-name-{count}", count % 13), "x");
        }
        mirror.output().contains("out of memory: ")
    });
    // It must survive even with so little memory.
    for i in 0..1_000 {
        mirror.write(format!("e{}/a-file-with-a-name-{i}", i % 13), "x");
    }
    assert!(is_running(mirror.pid()), "{}", mirror.output());
    mend(&mirror, Resource::Data, before);
    daemon.start_again();
    mirror.write("after", "y");
    wait_for_content(&daemon.at("after"), "y");
    wait_until_same(&mirror.source, &daemon.data, 4 * SOON, "with enough memory");
    eprintln!("{count} changes until memory was short");
    let output = mirror.output();
    // The program or the start of an rsync may run out first, perhaps both. Each is reported once, and nothing else is.
    let said = |words: &str| output.matches(words).count();
    let ours = said("out of memory: what waits is kept as directories");
    let of_rsync = said("cannot start rsync: out of memory");
    assert_eq!(said("is down: "), 1, "{output}");
    assert!(ours <= 1 && of_rsync <= 1, "{output}");
    assert_eq!(said("ERROR"), 1 + ours + of_rsync, "{output}");
}

/// The writable memory of a process, in bytes.
fn data_size(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmData:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
