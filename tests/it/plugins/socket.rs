//! The socket plugin, and what all plugins share: waiting for a dead listener, and a full queue.

use std::time::Duration;

use sersync::config::SocketPlugin;
use sersync::plugin::{Plugin, PluginLimits, PluginSpec};

use super::listener::{Listener, Manner};
use super::{event, keep_log, limits, log_lines, start, wait_for};

fn spec(address: std::net::SocketAddr) -> PluginSpec {
    PluginSpec::Socket(SocketPlugin {
        watch: None,
        ip: address.ip().to_string(),
        port: address.port(),
    })
}

#[test]
fn each_event_is_one_connection_with_the_absolute_path_and_nothing_else() {
    let listener = Listener::start(Manner::Listen);
    let plugin = start(spec(listener.address));
    plugin.offer(event(b"a/b.txt"));
    plugin.offer(event(b"\xff \n\"x"));
    plugin.offer(event(b""));
    let heard = listener.wait_for(3);
    assert_eq!(heard[0], b"/www/a/b.txt");
    assert_eq!(heard[1], b"/www/\xff \n\"x");
    assert_eq!(heard[2], b"/www");
    assert_eq!(wait_for(&plugin, |s| s.done == 3).failed, 0);
}

#[test]
fn talkative_listener_still_gets_the_paths() {
    let listener = Listener::start(Manner::Greet(b"220 hello, who are you?\r\n"));
    let plugin = start(spec(listener.address));
    for _ in 0..20 {
        plugin.offer(event(b"a"));
    }
    assert!(listener.wait_for(20).iter().all(|path| path == b"/www/a"));
}

#[test]
fn events_wait_for_a_dead_listener_and_arrive_in_order() {
    keep_log();
    let address = Listener::dead_address();
    let plugin = start(spec(address));
    plugin.offer(event(b"first"));
    plugin.offer(event(b"second"));
    let shown = address.to_string();
    wait_for(&plugin, |s| s.down && log_lines(&shown).len() >= 3);
    let listener = Listener::start_at(address, Manner::Listen);
    let heard = listener.wait_for(2);
    assert_eq!(heard, [&b"/www/first"[..], b"/www/second"]);
    assert!(!wait_for(&plugin, |s| s.done == 2).down);
    let warnings = log_lines(&shown);
    let warnings = warnings.iter().filter(|(level, _)| *level == log::Level::Warn);
    assert_eq!(warnings.count(), 1, "one warning for the whole outage");
}

#[test]
fn full_queue_drops_the_oldest_counts_them_and_never_blocks() {
    keep_log();
    let address = Listener::dead_address();
    let limits = PluginLimits {
        queue: 4,
        // Far longer than the test waits, so that it fails if `offer` waits for the actor.
        retry_min: Duration::from_secs(600),
        retry_max: Duration::from_secs(600),
        ..limits()
    };
    let plugin = Plugin::start_within(spec(address), limits).unwrap();
    plugin.offer(event(b"held"));
    wait_for(&plugin, |s| s.down && s.waiting == 0);
    for number in 0..10 {
        plugin.offer(event(format!("{number}").as_bytes()));
    }
    let stats = plugin.stats();
    assert_eq!((stats.waiting, stats.dropped), (4, 6));
    assert!(!log_lines("plugin socket: 4 events wait").is_empty());
    drop(plugin);
    assert_eq!(log_lines("plugin socket: 4 events wait").len(), 1);
}

#[test]
fn what_is_left_after_an_overflow_is_the_newest() {
    let address = Listener::dead_address();
    let plugin =
        Plugin::start_within(spec(address), PluginLimits { queue: 2, ..limits() }).unwrap();
    plugin.offer(event(b"held"));
    wait_for(&plugin, |s| s.down && s.waiting == 0);
    for number in 0..5 {
        plugin.offer(event(format!("{number}").as_bytes()));
    }
    let listener = Listener::start_at(address, Manner::Listen);
    let heard = listener.wait_for(3);
    assert_eq!(heard, [&b"/www/held"[..], b"/www/3", b"/www/4"]);
}
