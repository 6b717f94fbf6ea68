//! `sersync2 events` with a running instance: what the kernel reported, and what the instance decided.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{command, run};
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{wait_for_content, wait_until};

/// A listener whose output goes to files.
struct Listening {
    child: Child,
    mirror: std::path::PathBuf,
}

impl Listening {
    fn start(mirror: &Mirror, words: &[&str]) -> Self {
        let dir = mirror.dir.path().to_path_buf();
        let file = |name: &str| File::create(dir.join(name)).unwrap();
        let mut command = command(mirror, "events", words);
        let child = command.stdout(file("told")).stderr(file("said")).spawn().unwrap();
        let listening = Self { child, mirror: dir };
        wait_until("it listens", || listening.read("told").contains("listening to process"));
        listening
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.mirror.join(name)).unwrap()
    }

    /// The complete lines so far.
    fn told(&self) -> Vec<Value> {
        let text = self.read("told");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The index of the first event with this decision whose path ends with `name`.
    fn place(&self, decision: &str, name: &str) -> Option<usize> {
        let is_meant = |told: &Value| {
            told["decision"] == decision
                && told["path"].as_str().is_some_and(|path| path.ends_with(name))
        };
        self.told().iter().position(is_meant)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_listener_sees_a_write_from_the_kernel_to_its_delivery_and_why_a_name_is_ignored() {
    let remote = Rsyncd::start();
    let head = "<filter start=\"true\"><exclude expression=\"(.*)\\.tmp\"/></filter>".into();
    let mut mirror = Mirror::start(&Setup { head, ..Setup::to(&remote) });
    let mut listening = Listening::start(&mirror, &["--json"]);
    mirror.write("x.tmp", "x");
    mirror.write("a", "content");
    wait_for_content(&remote.at("a"), "content");
    wait_until("the delivery is told", || listening.place("delivered", "/a").is_some());
    fs::rename(mirror.at("a"), mirror.at("b")).unwrap();
    wait_until("the move is told", || listening.place("delivered", "/b").is_some());
    let told = listening.told();
    let at = |decision, name| listening.place(decision, name).unwrap();
    let (pending, job, delivered) =
        (at("pending", "/a"), at("in_job", "/a"), at("delivered", "/a"));
    assert!(pending < job && job < delivered, "{told:?}");
    assert_eq!(
        (&told[pending]["event"], &told[pending]["remotes"]),
        (&"CLOSE_WRITE".into(), &1.into())
    );
    assert_eq!(told[job]["job"], told[delivered]["job"]);
    assert_eq!(told[delivered]["remote"], "127.0.0.1::data");
    assert!(told[delivered]["took_ms"].is_u64(), "{}", told[delivered]);
    let ignored =
        told.iter().find(|it| it["why"].as_str().is_some_and(|why| why.contains(".tmp\"/>")));
    assert_eq!(ignored.unwrap()["decision"], "ignored");
    let moved = &told[at("pending", "/b")];
    assert!(moved["moved_from"].as_str().unwrap().ends_with("/a"), "{moved}");
    mirror.stop();
    assert_eq!(listening.child.wait().unwrap().code(), Some(3));
    assert!(listening.read("said").contains("no more events follow"), "{}", listening.read("said"));
}

#[test]
fn a_listener_that_does_not_read_delays_no_delivery_and_is_told_what_it_missed() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    let mut command = command(&mirror, "events", &["--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut told = vec![0; 8192];
    let read = stdout.read(&mut told).unwrap();
    told.truncate(read);
    assert!(String::from_utf8_lossy(&told).contains("listening to process"));
    // Each of them causes several lines of a few hundred bytes: more than are queued for a listener.
    let name = |n: usize| format!("{n:0>200}");
    (0..1_200).for_each(|n| mirror.write(name(n), "x"));
    wait_for_content(&remote.at(name(1_199)), "x");
    assert!(run(&mirror, "flush", &[]).status.success());
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while !String::from_utf8_lossy(&told).contains("\"dropped\":") {
            let read = stdout.read(&mut buffer).unwrap();
            assert!(read > 0, "nothing was said of what was left out");
            told.extend_from_slice(&buffer[..read]);
        }
    });
    wait_until("what was left out is said", || reader.is_finished());
    reader.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn more_listeners_than_are_served_are_told_so() {
    let remote = Rsyncd::start();
    let mirror = Mirror::start(&Setup::to(&remote));
    let mut listening: Vec<Listening> = (0..8).map(|_| Listening::start(&mirror, &[])).collect();
    let refused = run(&mirror, "events", &[]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("8 clients listen already"));
    listening.pop();
    // There is room again once the listener is known to have left.
    let mut again = command(&mirror, "events", &[]);
    let mut told = None;
    wait_until("another one may listen", || {
        let mut child = again.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut buffer = [0; 256];
        let read = child.stdout.take().unwrap().read(&mut buffer).unwrap_or(0);
        _ = child.kill();
        child.wait().unwrap();
        told = Some(String::from_utf8_lossy(&buffer[..read]).into_owned());
        read > 0
    });
    assert!(told.unwrap().contains("listening to process"));
}
