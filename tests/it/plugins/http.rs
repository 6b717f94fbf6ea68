//! The http plugin against HTTP servers, well-behaved and faulty.

use sersync::config::HttpPlugin;
use sersync::plugin::{Plugin, PluginSpec};

use super::listener::{Listener, Manner};
use super::{event, keep_log, log_lines, start, start_impatient, wait_for};

const OK: Manner = Manner::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

fn config(listener: &Listener) -> HttpPlugin {
    HttpPlugin {
        watch: None,
        url: "http://127.0.0.1/notify?token=hidden-token".into(),
        port: listener.address.port(),
        json: false,
    }
}

/// Request line, content type and body of a request.
fn parts(request: &[u8]) -> (String, String, String) {
    let text = String::from_utf8(request.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find(|line| line.to_lowercase().starts_with("content-type:"));
    let kind = kind.unwrap().split_once(": ").unwrap().1;
    (head.lines().next().unwrap().into(), kind.into(), body.into())
}

#[test]
fn change_is_posted_as_a_form() {
    let listener = Listener::start(OK);
    let plugin = start(PluginSpec::Http(config(&listener)));
    plugin.offer(event(b"a/b.txt"));
    let mut directory = event(b"x&y=1 +%\n\xff");
    directory.is_dir = true;
    directory.mask = 256;
    plugin.offer(directory);
    let heard = listener.wait_for(2);
    let (line, kind, body) = parts(&heard[0]);
    assert_eq!(line, "POST /notify?token=hidden-token HTTP/1.1");
    assert_eq!(kind, "application/x-www-form-urlencoded");
    assert_eq!(body, "watchroot=/www&isdir=0&inotifyPath=/www/a/b.txt&mask=8");
    assert_eq!(
        parts(&heard[1]).2,
        "watchroot=/www&isdir=1&inotifyPath=/www/x%26y%3D1%20%2B%25%0A%FF&mask=256"
    );
    wait_for(&plugin, |s| s.done == 2);
}

#[test]
fn change_is_posted_as_json_with_the_exact_bytes_beside_a_name_that_is_no_text() {
    let listener = Listener::start(OK);
    let json = HttpPlugin { json: true, ..config(&listener) };
    let plugin = start(PluginSpec::Http(json));
    plugin.offer(event(b"a\"b\n"));
    plugin.offer(event(b"\xff"));
    let heard = listener.wait_for(2);
    let (_, kind, body) = parts(&heard[0]);
    assert_eq!(kind, "application/json");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "watchroot": "/www", "isdir": false, "inotifyPath": "/www/a\"b\n", "mask": 8,
        "remotes": ["10.0.0.1::web", "10.0.0.2::web"],
    });
    assert_eq!(body, expected);
    let body: serde_json::Value = serde_json::from_str(&parts(&heard[1]).2).unwrap();
    assert_eq!(body["inotifyPath"], "/www/\u{fffd}");
    assert_eq!(body["inotifyPathEncoded"], "/www/%FF");
}

#[test]
fn error_answers_and_garbage_are_counted_and_hold_up_nothing() {
    keep_log();
    let answers: [&'static [u8]; 4] = [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"\x00\xff what?\r\n\r\n",
        b"",
    ];
    for answer in answers {
        let listener = Listener::start(Manner::Answer(answer));
        let plugin = start(PluginSpec::Http(config(&listener)));
        plugin.offer(event(b"a"));
        plugin.offer(event(b"b"));
        let stats = wait_for(&plugin, |s| s.failed == 2);
        assert_eq!((stats.done, stats.waiting), (0, 0), "{}", answer.escape_ascii());
    }
    assert!(log_lines("hidden-token").is_empty(), "the address may hold a secret");
}

#[test]
fn server_that_never_answers_is_given_up_after_the_limit() {
    for manner in [Manner::Silent, Manner::Drip] {
        let listener = Listener::start(manner);
        let plugin = start_impatient(PluginSpec::Http(config(&listener)));
        plugin.offer(event(b"a"));
        plugin.offer(event(b"b"));
        wait_for(&plugin, |s| s.failed == 2);
    }
}

#[test]
fn overloaded_or_dead_server_gets_the_event_later() {
    let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let first = Listener::start(Manner::Answer(busy));
    let plugin = start(PluginSpec::Http(config(&first)));
    plugin.offer(event(b"a"));
    first.wait_for(2);
    let address = first.address;
    drop(first);
    let second = Listener::start_at(address, OK);
    assert!(second.wait_for(1)[0].ends_with(b"inotifyPath=/www/a&mask=8"));
    let stats = wait_for(&plugin, |s| s.done == 1);
    assert_eq!((stats.failed, stats.down), (0, false));
}

#[test]
fn host_without_address_is_no_reason_to_lose_events() {
    let http = HttpPlugin {
        watch: None,
        url: "http://no-such-host.invalid/".into(),
        port: 80,
        json: false,
    };
    let plugin = start(PluginSpec::Http(http));
    plugin.offer(event(b"a"));
    assert_eq!(wait_for(&plugin, |s| s.down).failed, 0);
}

#[test]
fn address_that_cannot_work_is_refused_at_the_start() {
    for url in ["https://", "http://", "http:///path", "http://a b/"] {
        let http = HttpPlugin { watch: None, url: url.into(), port: 80, json: false };
        let error = Plugin::start(PluginSpec::Http(http)).err().expect(url);
        assert!(error.to_string().contains("url="), "{error}");
    }
}
