//! `inotifywait` of this program compared with that of inotify-tools: time until all watches are set, memory, printing events.
//! Mirrors nothing.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::report::{Line, Target, Unit};
use super::tool::Tool;
use super::{Bench, median, proc, until};
use crate::support::TestDir;

/// The time limit for everything that a tool does.
const LIMIT: Duration = Duration::from_secs(120);

/// A number of events that fits into every kernel's queue.
const EVENTS: usize = 15_000;

/// A running `inotifywait`; ended when dropped.
struct Watcher {
    child: Child,
    ready_after: Duration,
}

impl Watcher {
    /// Starts it, and waits until all its watches are set.
    fn start(tool: Tool, dir: &TestDir) -> io::Result<Self> {
        let mut command = match tool {
            Tool::Sersync => Command::new(env!("CARGO_BIN_EXE_sersync2")),
            _ => Command::new("inotifywait"),
        };
        let output = fs::File::create(dir.join("events"))?;
        let begun = Instant::now();
        let mut child = command
            .arg0("inotifywait")
            .args(["-mr", "-e", "attrib", "tree"])
            .current_dir(dir.path())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()?;
        let errors = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let is_ready = BufReader::new(errors)
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "Watches established.");
        if !is_ready {
            return Err(io::Error::other("the watches are not established"));
        }
        Ok(Self { child, ready_after: begun.elapsed() })
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Lets events collect, and measures how long they take to be printed.
    fn print_events(&self, dir: &Path) -> io::Result<Option<Duration>> {
        let mut log = fs::File::open(dir.join("events"))?;
        log.seek(SeekFrom::End(0))?;
        let files = ["tree/one", "tree/two"].map(|name| dir.join(name));
        self.signal(Signal::STOP)?;
        for n in 0..EVENTS {
            // Alternate the files, because the kernel merges equal consecutive events.
            rustix::fs::chmod(&files[n % 2], rustix::fs::Mode::RUSR)?;
        }
        let mut lines = 0;
        let begun = Instant::now();
        self.signal(Signal::CONT)?;
        Ok(until(begun, LIMIT, Duration::from_micros(200), || {
            let mut text = Vec::new();
            _ = log.read_to_end(&mut text);
            lines += text.iter().filter(|&&byte| byte == b'\n').count();
            lines >= EVENTS
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Some 100,000 directories, ten in each.
fn make_tree(dir: &TestDir, directories: usize) -> io::Result<()> {
    let mut paths = vec![dir.dir("tree")];
    for n in 0..directories {
        let path = paths[n / 10].join(format!("directory{}", n % 10));
        fs::create_dir(&path)?;
        paths.push(path);
    }
    dir.file("tree/one", "");
    dir.file("tree/two", "");
    Ok(())
}

/// The rows of both tools, measured in turn.
pub fn watchers(bench: &mut Bench) -> io::Result<()> {
    let dir = TestDir::new();
    make_tree(&dir, bench.size(100_000, 300))?;
    let tools: Vec<Tool> = bench
        .mirrors
        .iter()
        .copied()
        .filter(|tool| matches!(tool, Tool::Sersync | Tool::Loop))
        .collect();
    let rounds = bench.size(5, 1);
    for tool in tools {
        let (mut ready, mut printed, mut memory) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            let watcher = Watcher::start(tool, &dir)?;
            ready.push(Some(watcher.ready_after));
            memory = memory.max(proc::count(watcher.child.id()).rss_kb);
            printed.push(watcher.print_events(dir.path())?);
        }
        let line = |what, unit, share| Line {
            figure: "watchers",
            what,
            unit,
            target: Target::ShareOf(Tool::Loop, share),
        };
        let report = &mut bench.report;
        let what = "inotifywait -mr on 100,000 directories, ready after";
        report.add_time(line(what, Unit::Ms, 0.5), tool, median(&ready));
        let what = "... memory then";
        report.add(line(what, Unit::Mebibytes, 1.0), tool, Some(memory as f64 / 1024.0));
        let what = "... 15,000 events printed after";
        report.add_time(line(what, Unit::Ms, 1.0), tool, median(&printed));
    }
    Ok(())
}
