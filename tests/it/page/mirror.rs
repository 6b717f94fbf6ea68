//! The real program: its page, its status file, its heartbeat, its alerts and its event log.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use sersync::snapshot::{Snapshot, SyncState};

use super::fake::get;
use crate::plugins::listener::{Listener, Manner};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{free_port, wait_for_content, wait_until};

/// A mirror whose page has a port of its own.
fn with_page(daemon: &Rsyncd, host: &str) -> (Setup, SocketAddr) {
    let port = free_port();
    let head = format!("<host hostip=\"{host}\" port=\"{port}\"/>");
    (Setup { head, ..Setup::to(daemon) }, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn status(at: SocketAddr) -> Snapshot {
    serde_json::from_str(&get(at, "/status").body).unwrap()
}

/// The addresses with a listener on this port, as the kernel writes them.
fn listening(port: u16) -> Vec<String> {
    let lines = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap());
    let lines = lines.iter().flat_map(|text| text.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = fields.filter(|f| f[3] == "0A" && f[1].ends_with(&format!(":{port:04X}")));
    ours.map(|f| f[1].split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_of_an_old_file_shows_a_delivery_and_listens_on_this_machine_alone() {
    let daemon = Rsyncd::start();
    let (setup, at) = with_page(&daemon, "0.0.0.0");
    let mirror = Mirror::start(&setup);
    mirror.wait_for_output("the status page is at");
    assert_eq!(listening(at.port()), ["0100007F"]);
    mirror.write("hello.txt", "hello");
    wait_until("the page shows the delivery", || {
        status(at).deliveries.iter().any(|delivery| delivery.path == "hello.txt")
    });
    let snapshot = status(at);
    assert_eq!(snapshot.remotes[0].state, SyncState::Up);
    assert_eq!(snapshot.remotes[0].name, "127.0.0.1::data");
    assert_eq!(get(at, "/healthz").status, 200);
    assert!(get(at, "/metrics").body.contains("sersync_remote_deliveries_total{"));
    let config: Value = serde_json::from_str(&get(at, "/config").body).unwrap();
    assert_eq!(config["watch paths"][0]["watch"], mirror.source.to_str().unwrap());
}

#[test]
fn a_page_that_is_off_opens_no_port() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let head = format!("<host hostip=\"0.0.0.0\" port=\"{port}\" page=\"off\"/>");
    let mirror = Mirror::start(&Setup { head, ..Setup::to(&daemon) });
    mirror.write("a", "a");
    wait_for_content(&daemon.at("a"), "a");
    assert_eq!(listening(port), [""; 0]);
}

#[test]
fn a_page_for_the_network_listens_where_the_file_says() {
    let daemon = Rsyncd::start();
    let port = free_port();
    let head = format!("<host hostip=\"0.0.0.0\" port=\"{port}\" page=\"network\"/>");
    let mirror = Mirror::start(&Setup { head, ..Setup::to(&daemon) });
    mirror.wait_for_output("the status page is at");
    assert_eq!(listening(port), ["00000000"]);
}

#[test]
fn a_taken_port_is_one_line_and_the_mirror_goes_on() {
    let daemon = Rsyncd::start();
    let (setup, at) = with_page(&daemon, "localhost");
    let first = Mirror::start(&setup);
    first.wait_for_output("the status page is at");
    let second_daemon = Rsyncd::start();
    let second = Mirror::start(&Setup { head: setup.head.clone(), ..Setup::to(&second_daemon) });
    second.write("b", "b");
    wait_for_content(&second_daemon.at("b"), "b");
    let output = second.output();
    assert_eq!(output.matches("the status page").count(), 1, "{output}");
    assert!(output.contains("is taken, as a rule by another instance"), "{output}");
    assert!(!output.contains("WARN") && !output.contains("ERROR"), "{output}");
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn a_remote_that_is_down_is_said_with_what_to_do() {
    let mut daemon = Rsyncd::start();
    let (setup, at) = with_page(&daemon, "localhost");
    let mirror = Mirror::start(&setup);
    mirror.write("a", "a");
    wait_for_content(&daemon.at("a"), "a");
    daemon.stop();
    mirror.write("b", "b");
    wait_until("health says so", || get(at, "/healthz").body.contains("is down"));
    let remote = &status(at).remotes[0];
    assert_eq!(remote.state, SyncState::Down);
    assert!(!remote.down.as_ref().unwrap().what_to_do.is_empty(), "{remote:?}");
    daemon.start_again();
    wait_for_content(&daemon.at("b"), "b");
    wait_until("all is well again", || get(at, "/healthz").status == 200);
}

#[test]
fn ten_thousand_connections_do_not_keep_a_change_back() {
    let daemon = Rsyncd::start();
    let (setup, at) = with_page(&daemon, "localhost");
    let mirror = Mirror::start(&setup);
    mirror.wait_for_output("the status page is at");
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) || count.load(Ordering::SeqCst) < 10_000 {
                    get(at, "/status");
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for n in 0..40 {
        mirror.write(format!("f{n}"), n.to_string());
        wait_for_content(&daemon.at(format!("f{n}")), n.to_string());
    }
    let latency = status(at).remotes[0].latency.unwrap();
    eprintln!("under load: median {} us, p99 {} us", latency.p50_us, latency.p99_us);
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(count.load(Ordering::SeqCst) >= 10_000);
    mirror.write("last", "last");
    wait_for_content(&daemon.at("last"), "last");
}

#[test]
fn the_status_file_is_replaced_while_nothing_happens() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let path = mirror.dir.join("status.json");
    let element = format!("<statusFile path=\"{}\" interval=\"1\"/></sersync>", path.display());
    fs::write(&mirror.config, mirror.xml().replace("</sersync>", &element)).unwrap();
    mirror.launch();
    mirror.wait_ready();
    let taken = || -> Option<u64> {
        let text = fs::read(&path).ok()?;
        Some(serde_json::from_slice::<Snapshot>(&text).unwrap().taken_ms)
    };
    wait_until("there is a status file", || taken().is_some());
    let first = taken();
    wait_until("it is replaced", || taken() > first);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_status_file_that_cannot_be_written_is_one_line() {
    let daemon = Rsyncd::start();
    let sersync = "<statusFile path=\"/proc/no/status.json\" interval=\"1\"/>".to_owned();
    let mirror = Mirror::start(&Setup { sersync, ..Setup::to(&daemon) });
    mirror.wait_for_output("status file /proc/no/status.json: cannot be written");
    mirror.write("a", "a");
    wait_for_content(&daemon.at("a"), "a");
    assert_eq!(mirror.output().matches("cannot be written").count(), 1);
}

#[test]
fn a_heartbeat_tells_that_all_is_well_and_what_is_not() {
    let mut daemon = Rsyncd::start();
    let service = Listener::start(Manner::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let url = format!("http://{}/s3cret", service.address);
    let sersync = format!("<heartbeat url=\"{url}\" interval=\"1\"/>");
    let mirror = Mirror::start(&Setup { sersync, ..Setup::to(&daemon) });
    let heard = service.wait_for(2);
    assert!(
        heard[0].starts_with(b"GET /s3cret HTTP/1.1"),
        "{:?}",
        String::from_utf8_lossy(&heard[0])
    );
    mirror.write("a", "a");
    wait_for_content(&daemon.at("a"), "a");
    daemon.stop();
    mirror.write("b", "b");
    let mut count = 3;
    wait_until("the failure is told", || {
        let all = service.wait_for(count);
        count += 1;
        let text = String::from_utf8_lossy(all.last().unwrap()).into_owned();
        text.starts_with("POST /s3cret/fail HTTP/1.1") && text.contains("is down")
    });
    assert!(!mirror.output().contains("s3cret"), "{}", mirror.output());
}

/// A program that saves its standard input and its first argument.
fn script(mirror: &Mirror, name: &str, text: &str) -> PathBuf {
    let path = mirror.dir.file(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_remote_that_goes_down_is_told_by_command_mail_and_webhook_without_showing_secrets() {
    let mut daemon = Rsyncd::start();
    let service = Listener::start(Manner::Answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"errcode\":0,\"errmsg\":\"ok\"}",
    ));
    let setup = Setup::to(&daemon);
    let mut mirror = Mirror::prepare(&setup);
    let dir = mirror.dir.path().display().to_string();
    let command = script(
        &mirror,
        "notify",
        &format!("#!/bin/sh\ncat > \"{dir}/$1.part\"; mv \"{dir}/$1.part\" \"{dir}/$1\"\n"),
    );
    fs::create_dir(mirror.dir.join("bin")).unwrap();
    script(
        &mirror,
        "bin/sendmail",
        &format!("#!/bin/sh\ncat > {dir}/mail.part; mv {dir}/mail.part {dir}/mail\n"),
    );
    mirror.dir.file("url", format!("http://{}/robot?access_token=t0ken\n", service.address));
    mirror.dir.file("sign", "SECs3cret\n");
    let alert = format!(
        "<alert start=\"true\" command=\"{} 'a name'\" mail=\"root\" webhook=\"file:{dir}/url\" template=\"dingtalk\" \
         secret=\"file:{dir}/sign\" downAfter=\"1\"/></sersync>",
        command.display()
    );
    fs::write(&mirror.config, mirror.xml().replace("</sersync>", &alert)).unwrap();
    mirror.set_env("PATH", &format!("{dir}/bin:{}", std::env::var("PATH").unwrap()));
    mirror.launch();
    mirror.wait_ready();
    mirror.write("a", "a");
    wait_for_content(&daemon.at("a"), "a");
    daemon.stop();
    mirror.write("b", "b");
    wait_until("the command has run", || mirror.dir.join("a name").exists());
    let told: Value =
        serde_json::from_slice(&fs::read(mirror.dir.join("a name")).unwrap()).unwrap();
    assert_eq!(told["alerts"][0]["kind"], "remote_down", "{told}");
    assert_eq!(told["alerts"][0]["subject"], "127.0.0.1::data");
    wait_until("the mail is there", || mirror.dir.join("mail").exists());
    let mail = fs::read_to_string(mirror.dir.join("mail")).unwrap();
    assert!(
        mail.starts_with("To: root\n") && mail.contains("[ALERT] remote 127.0.0.1::data is down"),
        "{mail}"
    );
    let posted = String::from_utf8_lossy(&service.wait_for(1)[0]).into_owned();
    assert!(posted.starts_with("POST /robot?access_token=t0ken&timestamp="), "{posted}");
    assert!(posted.contains("&sign=") && posted.contains("\"msgtype\":\"text\""), "{posted}");
    let output = mirror.output();
    assert!(!output.contains("t0ken") && !output.contains("s3cret"), "{output}");
}

#[test]
fn a_test_alert_says_what_came_of_each_way() {
    let daemon = Rsyncd::start();
    let mirror = Mirror::prepare(&Setup::to(&daemon));
    let dead = Listener::dead_address();
    let elements = format!(
        "<alert start=\"true\" command=\"true\"/>\
         <alert start=\"true\" webhook=\"http://{dead}/t0ken\" template=\"slack\"/></sersync>"
    );
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
        let output = command.args(["test-alert", "-o"]).arg(&mirror.config).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = run();
    assert!(code == Some(3) && said.contains("has no <alert start=\"true\">"), "{said}");
    fs::write(&mirror.config, mirror.xml().replace("</sersync>", &elements)).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ok      command true\n"), "{said}");
    assert!(said.contains(&format!("failed  webhook http://{dead}/…: cannot reach")), "{said}");
    assert!(!said.contains("t0ken"), "{said}");
}

#[test]
fn the_event_log_has_a_line_for_each_path_and_no_name_forges_one() {
    let daemon = Rsyncd::start();
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    let path = mirror.dir.join("events.log");
    let element = format!("<eventLog path=\"{}\"/></sersync>", path.display());
    fs::write(&mirror.config, mirror.xml().replace("</sersync>", &element)).unwrap();
    mirror.launch();
    mirror.wait_ready();
    let text = || fs::read_to_string(&path).unwrap_or_default();
    let root = mirror.source.display().to_string();
    mirror.write("one file", "12345");
    wait_until("it is logged", || text().contains(&format!("{root}/one file\n")));
    let line = text().lines().find(|line| line.ends_with("/one file")).unwrap().to_owned();
    assert!(line.contains(" sent 127.0.0.1::data ok bytes=5 took="), "{line}");
    let forger = "x\n2026-01-01T00:00:00.000+00:00 deleted y";
    mirror.write(forger, "x");
    wait_until("the forger is logged", || text().contains(r"/x\n2026"));
    fs::remove_file(mirror.at("one file")).unwrap();
    wait_until("the deletion is logged", || {
        text().lines().any(|line| line.contains(" deleted ") && line.ends_with("/one file"))
    });
    assert!(text().lines().all(|line| line.contains(" 127.0.0.1::data ok ")), "{}", text());
    let old = mirror.dir.join("events.log.1");
    fs::rename(&path, &old).unwrap();
    mirror.signal(Signal::HUP);
    mirror.write("after", "x");
    wait_for_content(&daemon.at("after"), "x");
    mirror.write("after again", "x");
    wait_until("the new file is used", || text().contains("/after again\n"));
}
