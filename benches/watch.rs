//! The cost of watching: time until all watches are set, memory, and wake-ups while idle.
//! `cargo bench --bench watch -- DIRECTORY [SECONDS] [inotify|fanotify|auto]` prints the figures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sersync::change::{RootId, WatchEvent};
use sersync::config::ChangeSwitches;
use sersync::config::WatchBackend;
use sersync::watch::{WatchOptions, Watcher};

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}

fn status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key));
    line.unwrap_or("?").split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let root = PathBuf::from(args.next().ok_or("which directory?")?);
    let seconds: u64 = args.next().unwrap_or("0".into()).parse()?;
    let backend = match args.next().as_deref() {
        Some("fanotify") => WatchBackend::Fanotify,
        Some("auto") => WatchBackend::Auto,
        _ => WatchBackend::Inotify,
    };
    let switches = ChangeSwitches {
        delete: true,
        create_folder: true,
        create_file: false,
        close_write: true,
        move_from: true,
        move_to: true,
        attrib: false,
        modify: false,
    };
    let (sender, events) = crossbeam_channel::unbounded::<WatchEvent>();
    let options = WatchOptions {
        roots: vec![(RootId(0), root)],
        switches,
        exclude: None,
        debug: false,
        backend,
        rescan_interval: Duration::from_secs(60),
    };
    println!("resident before: {}", status("VmRSS"));
    let start = now();
    let watcher = Watcher::start(options, sender)?;
    let ready = events.recv()?;
    println!("{ready:?} after {:?}", start.elapsed());
    let _ = events.recv_timeout(Duration::from_millis(200));
    println!("resident: {}, at most {}", status("VmRSS"), status("VmHWM"));
    let deadline = now() + Duration::from_secs(seconds);
    let mut changes = 0;
    while let Ok(event) = events.recv_deadline(deadline) {
        if let WatchEvent::Changed { changes: some, .. } = event {
            changes += some.len();
        }
    }
    println!("{changes} changes");
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = std::fs::read_to_string(task.join("comm"))?;
        let sched = std::fs::read_to_string(task.join("status"))?;
        let switches: Vec<_> = sched.lines().filter(|l| l.contains("ctxt_switches")).collect();
        println!("{}: {switches:?}", name.trim());
    }
    drop(watcher);
    Ok(())
}
