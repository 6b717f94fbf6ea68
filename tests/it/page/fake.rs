//! A main loop that hands out made-up snapshots, the page in front of it, and a plain HTTP client.
//! Holds no tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sersync::config::{HostConfig, PageAccess};
use sersync::page::{Page, PageSetup};
use sersync::snapshot::{
    Alarm, Delivery, DeliveryKind, Down, FailingPath, FullSyncStatus, Instance, Latency, Minute,
    RecentError, RemoteStatus, RootStatus, Snapshot, SnapshotReader, SnapshotRequest, SyncState,
    Totals, VERSION,
};

use crate::support::LIMIT;

/// A main loop that answers at once.
#[derive(Clone)]
pub struct Fake {
    now: Arc<Mutex<Arc<Snapshot>>>,
    followers: Arc<Mutex<Vec<SnapshotRequest>>>,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    /// Everything is as `snapshot` says.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            now: Arc::new(Mutex::new(Arc::new(snapshot))),
            followers: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// The handle for requests.
    pub fn reader(&self) -> SnapshotReader {
        let this = self.clone();
        SnapshotReader::new(move |mut request| {
            this.asked.fetch_add(1, Ordering::SeqCst);
            let snapshot = Arc::clone(&this.now.lock().unwrap());
            if (request.receive)(&snapshot) {
                this.followers.lock().unwrap().push(request);
            }
            Ok(())
        })
    }

    /// How many requests there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many clients follow.
    pub fn followers(&self) -> usize {
        self.followers.lock().unwrap().len()
    }

    /// Sends a new snapshot to those who follow.
    pub fn change(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        *self.now.lock().unwrap() = Arc::clone(&snapshot);
        self.followers.lock().unwrap().retain_mut(|request| (request.receive)(&snapshot));
    }
}

/// A page on a free port of the loopback interface.
pub fn page(reader: SnapshotReader) -> Page {
    let host = HostConfig { ip: "localhost".into(), port: 0, page: PageAccess::Loopback };
    let log = || {
        vec![
            "2026-11-29T14:02:11.120+08:00 WARN  the kernel dropped events below /data/www: everything below it is compared".to_owned(),
            "2026-11-29T14:31:40.031+08:00 ERROR remote 192.0.2.21::www is down: connection refused".to_owned(),
        ]
    };
    let config = r#"{"host":{"ip":"localhost","port":8008,"page":"loopback"},"mirrors":[{"watch":"/data/www"}]}"#;
    let setup = PageSetup { config: Box::new(|| config.into()), log: Box::new(log) };
    Page::start(&host, reader, setup).unwrap()
}

/// A connection that is read with a limit.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// An answer: its status, its head, its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends these bytes and reads to the end.
pub fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // A server that has already answered may have closed its side.
    _ = stream.write_all(request);
    read(stream)
}

/// Reads to the end.
pub fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer does not lose the answer.
    _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.into(), body: body.into() }
}

/// GET, as a browser would.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", address.port());
    send(address, request.as_bytes())
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// Two healthy remotes.
pub fn well() -> Snapshot {
    let now = now_ms();
    let remote = |id: u64, name: &str| RemoteStatus {
        id,
        name: name.into(),
        destination: format!("rsync://{}", name.replace("::", "/")),
        state: SyncState::Up,
        sessions: 2,
        last_delivery_ms: Some(now - 4 * SECOND),
        latency: Some(Latency { p50_us: 11_800 + id * 700, p99_us: 64_000, count: 18_211 }),
        paths_per_second: 21.4,
        bytes_per_second: 1_830_000.0,
        last_full_sync_ms: Some(now - 95 * MINUTE),
        total: Totals { deliveries: 918_221, bytes: 88_120_310_001, ..Totals::default() },
        ..RemoteStatus::default()
    };
    let minute = |ago: u64| {
        let wave = (ago as f64 / 7.0).sin() + (ago as f64 / 2.3).cos() * 0.4 + 1.5;
        Minute {
            start_ms: now / MINUTE * MINUTE - ago * MINUTE,
            paths: (wave * 640.0) as u64,
            bytes: (wave * 4e6) as u64,
            lag_us: Some((wave * 31_000.0) as u64 + if ago == 22 { 410_000 } else { 0 }),
        }
    };
    let names =
        ["index.html", "css/site.css", "img/2026/11/头图.jpg", "api/v2/items.json", "a b.txt"];
    let delivery = |n: u64| Delivery {
        at_ms: now - (200 - n) * 700,
        remote: n % 2,
        path: format!("shop/{}/{}", n / 12, names[n as usize % names.len()]),
        kind: [DeliveryKind::Sent, DeliveryKind::Sent, DeliveryKind::Deleted, DeliveryKind::Moved]
            [n as usize / 2 % 4],
        took_us: Some(9_000 + n * 97),
    };
    Snapshot {
        version: VERSION,
        taken_ms: now,
        instance: Instance {
            version: "3.0.0".into(),
            pid: 4_211,
            config: "/etc/sersync/confxml.xml".into(),
            started_ms: now - 3 * 24 * 60 * MINUTE,
            backend: "inotify".into(),
            directories: 18_422,
            workers: 10,
            fail_log: "/tmp/rsync_fail_log.sh".into(),
            ..Instance::default()
        },
        roots: vec![RootStatus { path: "/data/www".into(), ..RootStatus::default() }],
        remotes: vec![remote(0, "192.0.2.20::www"), remote(1, "192.0.2.21::www")],
        deliveries: (0..200).map(delivery).collect(),
        history: (0..60).rev().map(minute).collect(),
        ..Snapshot::default()
    }
}

/// One remote down, one in a full sync, one with failing paths of hostile names; deletions held back.
pub fn troubled() -> Snapshot {
    let mut snapshot = well();
    let now = snapshot.taken_ms;
    let like = |of: &RemoteStatus, id: u64, name: &str| RemoteStatus {
        id,
        name: name.into(),
        ..of.clone()
    };
    let template = snapshot.remotes[0].clone();
    snapshot.remotes.push(like(&template, 2, "192.0.2.22::www"));
    snapshot.remotes.push(like(&template, 3, "backup@192.0.2.30:/srv/mirror/www"));
    let down = &mut snapshot.remotes[1];
    down.state = SyncState::Down;
    down.pending = 1_204;
    down.oldest_pending_ms = Some(now - 19 * MINUTE);
    down.last_delivery_ms = Some(now - 19 * MINUTE);
    down.latency = None;
    (down.paths_per_second, down.bytes_per_second, down.sessions) = (0.0, 0.0, 0);
    down.down = Some(Down {
        since_ms: now - 19 * MINUTE,
        kind: "away".into(),
        code: 10,
        reason: "failed to connect to 192.0.2.21:873: Connection refused".into(),
        what_to_do: "nobody listens there: start the rsync daemon (with ssh: sshd), or correct the port (<remote port>, else <userDefinedPort>) or the ip".into(),
        tries: 212,
        next_try_ms: Some(now + 2 * SECOND),
    });
    let syncing = &mut snapshot.remotes[2];
    syncing.state = SyncState::CatchingUp;
    syncing.pending = 88;
    syncing.full_sync = Some(FullSyncStatus {
        since_ms: now - 3 * MINUTE,
        parts_done: 21,
        parts: 34,
        files: 612_034,
        bytes: 18_400_000_000,
        bytes_per_second: 104e6,
        done_at_ms: Some(now + 2 * MINUTE),
    });
    let failing = &mut snapshot.remotes[3];
    failing.failing = 22;
    let path = |path: &str, reason: &str, code| FailingPath {
        path: path.into(),
        code,
        reason: reason.into(),
        what_to_do: sersync::failure::FailureKind::Path.policy().advice.into(),
        tries: 5,
        next_try_ms: None,
        logged: true,
    };
    failing.failing_paths = vec![
        path("upload/<script>document.title='owned'</script>.html", "Permission denied (13)", 23),
        path("upload/<img src=x onerror=alert(1)>.png", "No space left on device (28)", 11),
    ];
    snapshot.roots[0].alarms.push(Alarm {
        since_ms: now - 6 * MINUTE,
        text: "12044 of 18400 known entries below /data/www are gone, and nobody saw them go: they are not deleted on the \
               remotes; if this is meant: sersync2 confirm-deletions -o /etc/sersync/confxml.xml (or create \
               /var/lib/sersync/www/confirm-deletions and restart)"
            .into(),
    });
    snapshot.roots[0].deletions = sersync::snapshot::DeletionState::Withheld;
    let error = |ago: u64, level: &str, text: &str, remote, over| RecentError {
        at_ms: now - ago * MINUTE,
        level: level.into(),
        text: text.into(),
        remote,
        over_ms: over,
    };
    snapshot.errors = vec![
        error(
            48,
            "warning",
            "the kernel dropped events below /data/www: everything below it is compared; raise fs.inotify.max_queued_events if this happens often",
            None,
            None,
        ),
        error(
            40,
            "error",
            "remote 192.0.2.22::www is down: no progress for 60 s; 4 changes wait and are sent when it is back",
            Some(2),
            Some(now - 38 * MINUTE),
        ),
        error(
            19,
            "error",
            "remote 192.0.2.21::www is down: failed to connect to 192.0.2.21:873: Connection refused (nobody listens there: start the rsync daemon (with ssh: sshd), or correct the port (<remote port>, else <userDefinedPort>) or the ip); 3 changes wait and are sent when it is back",
            Some(1),
            None,
        ),
        error(
            2,
            "error",
            "upload/<script>document.title='owned'</script>.html could not be sent to backup@192.0.2.30:/srv/mirror/www (rsync exit code 23): Permission denied (13); it is in the fail log, and is tried again in 5 min and then until it is delivered",
            Some(3),
            None,
        ),
    ];
    let hostile = [
        "<script>document.title='owned'</script>",
        "<b>bold</b>&amp;\\012new line",
        "\\377\\376 bytes",
        "--rsh=touch x",
    ];
    for (delivery, name) in snapshot.deliveries.iter_mut().rev().zip(hostile) {
        delivery.path = format!("upload/{name}");
    }
    for minute in snapshot.history.iter_mut().rev().take(19) {
        minute.lag_us = Some((now - minute.start_ms).min(19 * MINUTE) / 60 * 1_000);
    }
    for (n, minute) in snapshot.history.iter_mut().rev().take(19).enumerate() {
        minute.lag_us = Some((20 - n as u64) * 60_000_000);
    }
    snapshot
}

/// 200 remotes, three of them unhealthy.
pub fn crowd() -> Snapshot {
    let mut snapshot = troubled();
    let template = well().remotes[0].clone();
    for id in 4..200 {
        let name = format!("198.51.100.{id}::static");
        snapshot.remotes.push(RemoteStatus { id, name, ..template.clone() });
    }
    snapshot
}
