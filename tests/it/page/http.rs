//! The server alone: routes, refusals, slow clients, many clients.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use sersync::page::{CLIENTS_MAX, STREAMS_MAX};
use sersync::snapshot::reader::NoSnapshot;
use sersync::snapshot::{Snapshot, SnapshotReader};

use super::fake::{Fake, connect, get, page, read, send, troubled, well};
use crate::support::wait_until;

#[test]
fn every_address_answers_with_what_it_promises() {
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let at = page.address();
    assert!(get(at, "/").body.contains("<title>sersync</title>"));
    let status: Snapshot = serde_json::from_str(&get(at, "/status").body).unwrap();
    assert_eq!(status.remotes[1].name, "192.0.2.21::www");
    assert!(get(at, "/metrics").body.contains("# TYPE sersync_remote_deliveries_total counter"));
    let open =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n";
    assert!(send(at, open.as_bytes()).body.ends_with("# EOF\n"));
    assert_eq!(get(at, "/healthz").body, "ok\n");
    assert!(get(at, "/config").body.contains("/data/www"));
    assert!(get(at, "/log").body.contains("kernel dropped"));
    let nothing = get(at, "/../etc/passwd");
    assert_eq!(nothing.status, 404);
    assert!(nothing.body.contains("/metrics"), "{nothing:?}");
}

#[test]
fn head_gets_the_head_alone_and_every_answer_is_shut_against_other_sites() {
    let page = page(Fake::new(well()).reader());
    for path in ["/", "/status", "/metrics", "/healthz", "/events", "/nothing"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = send(page.address(), request.as_bytes());
        let is_refused = path == "/nothing";
        assert_eq!(answer.status, if is_refused { 404 } else { 200 }, "{path}");
        assert!(is_refused || answer.body.is_empty(), "{path}: {answer:?}");
        for header in
            ["default-src 'none'", "frame-ancestors 'none'", "nosniff", "Cache-Control: no-store"]
        {
            assert!(answer.head.contains(header), "{path} lacks {header}: {}", answer.head);
        }
        assert!(!answer.head.contains("unsafe-inline"), "{}", answer.head);
        assert!(!answer.head.contains("Access-Control-Allow"), "{}", answer.head);
    }
}

#[test]
fn health_is_503_with_the_reasons_and_thresholds_are_the_callers() {
    let page = page(Fake::new(troubled()).reader());
    let answer = get(page.address(), "/healthz");
    assert_eq!(answer.status, 503);
    let first = answer.body.lines().next().unwrap();
    assert!(first.starts_with("192.0.2.21::www is down: failed to connect"), "{answer:?}");
    assert_eq!(get(page.address(), "/healthz?max_age=x").status, 400);
    let late = Fake::new(Snapshot {
        remotes: vec![sersync::snapshot::RemoteStatus {
            oldest_pending_ms: Some(super::fake::now_ms() - 90_000),
            ..well().remotes[0].clone()
        }],
        ..well()
    });
    let page = super::fake::page(late.reader());
    assert_eq!(get(page.address(), "/healthz").status, 503);
    assert_eq!(get(page.address(), "/healthz?max_age=600").status, 200);
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_others_are_served() {
    let page = page(Fake::new(well()).reader());
    let at = page.address();
    assert_eq!(send(at, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").status, 400);
    assert_eq!(send(at, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").status, 421);
    assert_eq!(send(at, b"DELETE /status HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
    let mut huge = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    huge.resize(1 << 20, b'a');
    assert_eq!(send(at, &huge).status, 431);
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn a_client_that_says_nothing_or_reads_nothing_holds_up_nobody() {
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let at = page.address();
    let mut half = connect(at);
    half.write_all(b"GET /status HTT").unwrap();
    let _silent = connect(at);
    let mut deaf = connect(at);
    deaf.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    wait_until("somebody follows", || fake.followers() == 1);
    // Far more than the sockets' buffers hold.
    for _ in 0..200 {
        fake.change(super::fake::crowd());
    }
    assert_eq!(get(at, "/config").status, 200);
    half.write_all(b"P/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read(half).status, 200);
}

#[test]
fn a_request_that_never_ends_is_told_so() {
    let page = page(Fake::new(well()).reader());
    let mut stream = connect(page.address());
    stream.write_all(b"GET /").unwrap();
    assert_eq!(read(stream).status, 408);
}

#[test]
fn who_follows_gets_the_state_and_each_change_and_is_bounded() {
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut stream = connect(page.address());
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        streams.push(stream);
    }
    let mut last = streams.pop().unwrap();
    let mut seen = String::new();
    let mut wait_for = |stream: &mut std::net::TcpStream, text: &str| {
        let mut part = [0; 65536];
        // An idle stream goes on with comments, so the number of parts is the limit.
        for _ in 0..100 {
            if seen.contains(text) {
                return;
            }
            let n = stream.read(&mut part).unwrap();
            assert_ne!(n, 0, "the stream ended before {text}");
            seen.push_str(&String::from_utf8_lossy(&part[..n]));
        }
        panic!("{text} is not in the stream");
    };
    wait_for(&mut last, "event: snapshot\ndata: {");
    wait_until("somebody follows", || fake.followers() == 1);
    fake.change(troubled());
    wait_for(&mut last, "Connection refused");
    let refused = get(page.address(), "/events");
    assert_eq!(refused.status, 503, "{refused:?}");
    drop((streams, last));
    wait_until("nobody follows any more", || {
        fake.change(well());
        fake.followers() == 0
    });
}

#[test]
fn a_main_loop_that_does_not_answer_is_said_and_others_are_served() {
    let kept = std::sync::Mutex::new(Vec::new());
    let page = page(SnapshotReader::new(move |request| {
        kept.lock().unwrap().push(request);
        Ok(())
    }));
    let mut waits = connect(page.address());
    waits.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(get(page.address(), "/config").status, 200);
    let answer = read(waits);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("does not answer"), "{answer:?}");
    let ended = super::fake::page(SnapshotReader::new(|_| Err(NoSnapshot::Ended)));
    assert!(get(ended.address(), "/status").body.contains("is ending"));
}

#[test]
fn many_questions_are_few_for_the_main_loop() {
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let start = Instant::now();
    for _ in 0..300 {
        assert_eq!(get(page.address(), "/status").status, 200);
    }
    let allowed = start.elapsed().as_millis() / 250 + 2;
    assert!(fake.asked() as u128 <= allowed, "{} questions", fake.asked());
}

#[test]
fn ten_thousand_connections_meet_a_cap_and_leave_nothing_behind() {
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let at = page.address();
    let idle: Vec<_> = (0..CLIENTS_MAX).map(|_| connect(at)).collect();
    // One client too many gets 503, once all others are connected.
    wait_until("the cap is reached", || get(at, "/healthz").status == 503);
    drop(idle);
    wait_until("places are free again", || get(at, "/healthz").status == 200);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut answered = 0;
                for _ in 0..1_250 {
                    answered += usize::from(matches!(get(at, "/healthz").status, 200 | 503));
                }
                answered
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(answered > 9_900, "{answered} of 10,000 connections were answered");
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn a_page_that_is_dropped_ends_at_once_also_with_clients() {
    let page = page(Fake::new(well()).reader());
    let mut stream = connect(page.address());
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let start = Instant::now();
    drop(page);
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut rest = Vec::new();
    _ = stream.read_to_end(&mut rest);
}
