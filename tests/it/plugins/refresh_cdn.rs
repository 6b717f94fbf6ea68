//! The refreshCDN plugin against servers that answer like the CDN, and faulty ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use sersync::config::{PluginDefinitions, PluginName, RefreshCdnPlugin};
use sersync::plugin::{PathTail, Plugin, PluginSpec};
use tempfile::TempDir;

use super::listener::{Listener, Manner};
use super::{event, keep_log, log_lines, now, start, start_impatient, wait_for};

const OK: Manner = Manner::Answer(b"HTTP/1.1 200 OK\r\nwhatsup: content=\"succeed\"\r\n\r\n");
const LINE: &str = "whatsup: content=\"succeed\" urls=http://pic.xoyo.com/cms/a.png\n";

fn spec(listener: &Listener, dir: &TempDir, tail: Option<PathTail>) -> PluginSpec {
    PluginSpec::RefreshCdn {
        config: RefreshCdnPlugin {
            watch: None,
            domain: "127.0.0.1".into(),
            port: listener.address.port(),
            user: "someone".into(),
            password: "hidden-password".into(),
            base: "http://pic.xoyo.com/cms".into(),
            match_expression: None,
        },
        tail,
        error_log: dir.path().join("errorlog.txt"),
    }
}

fn request(parameter: &str) -> Vec<u8> {
    format!(
        "HEAD /index.jsp?user=someone&pswd=hidden-password&ok=ok&{parameter} HTTP/1.0\r\n\
         Host: 127.0.0.1\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn request_is_what_the_networks_expect() {
    let dir = TempDir::new().unwrap();
    let listener = Listener::start(OK);
    let plugin = start(spec(&listener, &dir, None));
    plugin.offer(event(b"img/a.png"));
    let mut directory = event(b"img");
    directory.is_dir = true;
    plugin.offer(directory);
    plugin.offer(event(b"a b%\r\nX: y&pswd=#\xe4\xbd\xa0"));
    let heard = listener.wait_for(3);
    assert_eq!(heard[0], request("urls=http://pic.xoyo.com/cms/img/a.png"));
    assert_eq!(heard[1], request("dirs=http://pic.xoyo.com/cms/img/"));
    let encoded = "urls=http://pic.xoyo.com/cms/a%20b%25%0D%0AX:%20y%26pswd=%23%E4%BD%A0";
    assert_eq!(heard[2], request(encoded));
    wait_for(&plugin, |s| s.done == 3);
}

#[test]
fn expression_picks_the_part_of_the_path_and_what_it_does_not_find_is_not_sent() {
    let dir = TempDir::new().unwrap();
    let listener = Listener::start(OK);
    let tail: PathTail = Box::new(|path| path.strip_prefix(b"/www/site").map(<[u8]>::to_vec));
    let plugin = start(spec(&listener, &dir, Some(tail)));
    plugin.offer(event(b"other/a"));
    plugin.offer(event(b"site/b"));
    let heard = listener.wait_for(1);
    assert_eq!(heard[0], request("urls=http://pic.xoyo.com/cms/b"));
    assert_eq!(wait_for(&plugin, |s| s.done == 1).skipped, 1);
}

#[test]
fn expression_of_the_definition_is_found_inside_the_path() {
    let dir = TempDir::new().unwrap();
    let listener = Listener::start(OK);
    let PluginSpec::RefreshCdn { mut config, .. } = spec(&listener, &dir, None) else {
        unreachable!()
    };
    config.match_expression = Some("xoyo.com/site([/a-z]*).xoyo.com/images".into());
    let plugins = PluginDefinitions { refresh_cdn: Some(config), ..PluginDefinitions::default() };
    let error_log = dir.path().join("errorlog.txt");
    let plugin = start(PluginSpec::new(PluginName::RefreshCdn, &plugins, error_log).unwrap());
    plugin.offer(event(b"xoyo.com/site/bbs.xoyo.com/images/a.png"));
    let heard = listener.wait_for(1);
    assert_eq!(heard[0], request("urls=http://pic.xoyo.com/cms/bbs/a.png"));
}

#[test]
fn answers_go_to_the_error_log_and_the_password_nowhere() {
    keep_log();
    let dir = TempDir::new().unwrap();
    let listener = Listener::start(OK);
    let plugin = start(spec(&listener, &dir, None));
    plugin.offer(event(b"a.png"));
    wait_for(&plugin, |s| s.done == 1);
    let file = dir.path().join("errorlog.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), LINE);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o137, 0);
    drop(plugin);
    drop(listener);
    assert!(log_lines("hidden-password").is_empty());
}

#[test]
fn link_in_place_of_the_error_log_is_not_followed() {
    keep_log();
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join("errorlog.txt")).unwrap();
    let listener = Listener::start(OK);
    let plugin = start(spec(&listener, &dir, None));
    plugin.offer(event(b"a.png"));
    plugin.offer(event(b"a.png"));
    wait_for(&plugin, |s| s.done == 2);
    assert_eq!(fs::read(&target).unwrap(), b"");
    assert_eq!(log_lines(dir.path().to_str().unwrap()).len(), 1);
}

#[test]
fn plugin_that_waits_for_an_answer_stops_within_the_bound() {
    let dir = TempDir::new().unwrap();
    let listener = Listener::start(Manner::Silent);
    let plugin = start(spec(&listener, &dir, None));
    plugin.offer(event(b"a"));
    listener.wait_for(1);
    let before = now();
    drop(plugin);
    // Its own limit would be ten seconds.
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn refusals_garbage_and_silence_are_counted_and_hold_up_nothing() {
    keep_log();
    let manners = [
        Manner::Answer(b"HTTP/1.0 401 Who?\r\nwhatsup: wrong password\r\n\r\n"),
        Manner::Answer(b"\x00\xffgarbage"),
        Manner::Answer(b""),
        Manner::Silent,
        Manner::Drip,
    ];
    for manner in manners {
        let dir = TempDir::new().unwrap();
        let listener = Listener::start(manner);
        let plugin: Plugin = start_impatient(spec(&listener, &dir, None));
        plugin.offer(event(b"a"));
        plugin.offer(event(b"b"));
        wait_for(&plugin, |s| s.failed == 2);
        assert_eq!(listener.wait_for(2).len(), 2);
    }
    assert!(log_lines("hidden-password").is_empty());
}
