//! Plugins together with the mirror and alone, end to end: the real binary, a real daemon, a recording script.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::plugins::listener::{Listener, Manner};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until};

/// A script that appends the path it is given, and a configuration of the command plugin that runs it.
fn recording(mirror: &Mirror) -> (std::path::PathBuf, String) {
    let record = mirror.dir.join("record");
    let text =
        format!("#!/bin/sh\nprintf '%s %s\\n' \"$SERSYNC_EVENT\" \"$1\" >> {}\n", record.display());
    let script = mirror.dir.file("hook.sh", text);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let plugin = format!(
        "<plugin name=\"command\"><param prefix=\"{}\" suffix=\"\" ignoreError=\"true\"/>\
         <filter start=\"true\"><include expression=\"(.*)\\.php\"/></filter></plugin>",
        script.display()
    );
    (record, plugin)
}

fn add_plugin(mirror: &Mirror, plugin: &str) {
    let xml = fs::read_to_string(&mirror.config).unwrap();
    fs::write(&mirror.config, xml.replace("</head>", &format!("{plugin}</head>"))).unwrap();
}

#[test]
fn the_command_plugin_runs_after_the_delivery() {
    let daemon = Rsyncd::start();
    let mut setup = Setup::to(&daemon);
    setup.sersync = "<plugin start=\"true\" name=\"command\"/>".into();
    let mut mirror = Mirror::prepare(&setup);
    let (record, plugin) = recording(&mirror);
    add_plugin(&mirror, &plugin);
    mirror.launch();
    mirror.wait_ready();
    mirror.write("a.txt", "not included");
    mirror.write("a.php", "included");
    let line = format!("CLOSE_WRITE {}\n", mirror.at("a.php").display());
    wait_for_content(&record, &line);
    assert!(daemon.at("a.php").exists(), "the plugin ran before the file had arrived");
}

#[test]
fn a_plugin_alone_needs_no_remote_and_mirrors_nothing() {
    for has_remote in [false, true] {
        let daemon = Rsyncd::start();
        let mut setup = Setup::to(&daemon);
        if !has_remote {
            setup.remotes.clear();
        }
        setup.args = vec!["-m".into(), "command".into()];
        let mut mirror = Mirror::prepare(&setup);
        let (record, plugin) = recording(&mirror);
        add_plugin(&mirror, &plugin);
        mirror.launch();
        mirror.wait_ready();
        mirror.write("x.php", "content");
        wait_until("the script has run", || {
            fs::read_to_string(&record).is_ok_and(|text| text.contains("x.php"))
        });
        assert!(mirror.stop().success());
        assert_eq!(fs::read_dir(&daemon.data).unwrap().count(), 0, "it mirrored something");
    }
}

/// The definition of a plugin that talks to `address`, watching the mirror's own directory.
fn talking(mirror: &Mirror, name: &str, address: std::net::SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let inner = match name {
        "socket" => format!("<deshost ip=\"{ip}\" port=\"{port}\"/>"),
        "http" => format!("<deshost url=\"http://{ip}/hook\" port=\"{port}\"/>"),
        _ => format!(
            "<cdninfo domainname=\"{ip}\" port=\"{port}\" username=\"someone\" passwd=\"word\"/>\
             <sendurl base=\"http://pic.example.com\"/><regexurl regex=\"false\" match=\"\"/>"
        ),
    };
    let watch = mirror.source.display();
    format!("<plugin name=\"{name}\"><localpath watch=\"{watch}\">{inner}</localpath></plugin>")
}

const TALKING: [&str; 3] = ["socket", "http", "refreshCDN"];

fn manner(name: &str) -> Manner {
    match name {
        "socket" => Manner::Listen,
        _ => Manner::Answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nwhatsup: content=\"succeed\"\r\n\r\n",
        ),
    }
}

/// Checks what the listener of this plugin receives for a written file.
fn assert_heard(name: &str, heard: &[u8], mirror: &Mirror, file: &str) {
    let heard = String::from_utf8_lossy(heard);
    let path = mirror.at(file).display().to_string();
    let root = mirror.source.display().to_string();
    match name {
        "socket" => assert_eq!(heard, path),
        "http" => {
            let encoded = |text: &str| text.replace('/', "%2F");
            let body = heard.rsplit("\r\n\r\n").next().unwrap_or_default();
            let plain = format!("watchroot={root}&isdir=0&inotifyPath={path}&mask=8");
            let form = encoded(&plain);
            assert!(body == plain || body == form, "{heard}");
            assert!(heard.starts_with("POST /hook HTTP/1."), "{heard}");
        }
        _ => {
            let start = "HEAD /index.jsp?user=someone&pswd=word&ok=ok&urls=http://pic.example.com/";
            assert!(heard.starts_with(&format!("{start}{file} HTTP/1.0\r\nHost:")), "{heard}");
        }
    }
}

#[test]
fn socket_http_and_refresh_cdn_hear_of_each_delivery() {
    for name in TALKING {
        let daemon = Rsyncd::start();
        let listener = Listener::start(manner(name));
        let mut setup = Setup::to(&daemon);
        setup.sersync = format!("<plugin start=\"true\" name=\"{name}\"/>");
        let mut mirror = Mirror::prepare(&setup);
        add_plugin(&mirror, &talking(&mirror, name, listener.address));
        mirror.launch();
        mirror.wait_ready();
        mirror.write("a.txt", "content");
        let heard = listener.wait_for(1);
        assert_heard(name, &heard[0], &mirror, "a.txt");
        assert!(daemon.at("a.txt").exists(), "{name} heard of it before it had arrived");
    }
}

#[test]
fn socket_http_and_refresh_cdn_run_alone_without_a_remote() {
    for name in TALKING {
        let daemon = Rsyncd::start();
        let listener = Listener::start(manner(name));
        let mut setup = Setup::to(&daemon);
        if name == TALKING[0] {
            setup.remotes.clear();
        }
        setup.args = vec!["-m".into(), name.into()];
        let mut mirror = Mirror::prepare(&setup);
        add_plugin(&mirror, &talking(&mirror, name, listener.address));
        // Use an existing file: a new one might be reported before its close, as created.
        mirror.write("a.txt", "old");
        mirror.launch();
        mirror.wait_ready();
        mirror.write("a.txt", "content");
        let heard = listener.wait_for(1);
        assert_heard(name, &heard[0], &mirror, "a.txt");
        assert!(mirror.stop().success(), "{name}");
        assert_eq!(fs::read_dir(&daemon.data).unwrap().count(), 0, "{name} mirrored something");
    }
}

#[test]
fn what_a_plugin_sends_is_in_no_log_however_much_is_asked_for() {
    for (name, secret) in [("http", "/hook"), ("refreshCDN", "pswd"), ("refreshCDN", "word")] {
        let daemon = Rsyncd::start();
        let listener = Listener::start(manner(name));
        let mut setup = Setup::to(&daemon);
        setup.sersync = format!("<plugin start=\"true\" name=\"{name}\"/>");
        setup.env = vec![("RUST_LOG".into(), "trace,ureq=trace,ureq::run=trace".into())];
        let mut mirror = Mirror::prepare(&setup);
        add_plugin(&mirror, &talking(&mirror, name, listener.address));
        mirror.launch();
        mirror.wait_ready();
        mirror.write("a.txt", "content");
        let heard = listener.wait_for(1);
        assert!(String::from_utf8_lossy(&heard[0]).contains(secret), "{name}");
        assert!(mirror.stop().success());
        let output = mirror.output();
        assert!(output.contains("DEBUG") && !output.contains(secret), "{secret}: {output}");
    }
}

#[test]
fn a_listener_that_is_slow_or_dead_does_not_delay_the_mirror() {
    for name in TALKING {
        for dead in [false, true] {
            let daemon = Rsyncd::start();
            let listener = Listener::start(Manner::Silent);
            let address = if dead { Listener::dead_address() } else { listener.address };
            let mut setup = Setup::to(&daemon);
            setup.sersync = format!("<plugin start=\"true\" name=\"{name}\"/>");
            let mut mirror = Mirror::prepare(&setup);
            add_plugin(&mirror, &talking(&mirror, name, address));
            mirror.launch();
            mirror.wait_ready();
            let start = std::time::SystemTime::now();
            for i in 0..50 {
                mirror.write(format!("f{i}"), "x");
                wait_for_content(&daemon.at(format!("f{i}")), "x");
            }
            // Each plugin waits for seconds before it gives up on one event, and there were fifty.
            assert!(start.elapsed().unwrap().as_secs() < 15, "{name}, dead: {dead}");
            assert!(mirror.stop().success(), "{name}, dead: {dead}");
        }
    }
}
