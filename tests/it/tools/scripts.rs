//! Published scripts run unchanged with our `inotifywait` and a real rsync daemon or sshd.
//! docs/MIGRATING.md lists what each of them loses; these tests check what they can do.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::ioctl_fionread;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process_group, pidfd_getfd, pidfd_open,
};

use super::pair::bin;
use crate::support::rsyncd::Rsyncd;
use crate::support::sshd::Sshd;
use crate::support::{TestDir, children_of, wait_until};

/// A script that runs, in a directory with `src`.
struct Script {
    dir: TestDir,
    child: Child,
}

impl Script {
    /// Starts it; `fill_in` replaces words of the text, and `path` follows our tools in PATH.
    fn start(text: &str, fill_in: &[(&str, String)], path: &str) -> Self {
        let dir = TestDir::new();
        let bin = bin(&dir);
        dir.dir("src/sub");
        let mut text = text.to_owned();
        for (word, value) in fill_in {
            text = text.replace(word, value);
        }
        let script = dir.file("script.sh", text);
        // This `mail` writes its arguments to a file.
        let mail = dir.file("bin/mail", "#!/bin/sh\necho \"$@\" >> mails\n");
        fs::set_permissions(mail, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = fs::File::create(dir.join("output")).unwrap();
        let child = Command::new("bash")
            .arg(script)
            .current_dir(dir.path())
            .env("PATH", format!("{}:{path}", bin.display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap();
        let script = Self { dir, child };
        wait_until("the script's inotifywait listens", || script.listens());
        script
    }

    /// True when a tool below the script has set up its watches, has read every event, and waits.
    fn listens(&self) -> bool {
        children_of(self.child.id()).into_iter().any(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // A process that is woken still seems to wait until it gets a processor, so look at its events first.
            let has_read = name.starts_with("inotifywait") && unread(pid) == Some(0);
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            has_read && ["7 ", "271 ", "73 "].iter().any(|c| call.starts_with(c))
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join("src").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Ends the tools, so that the rest of the script sees the end of its input.
    fn end_tools(&mut self) {
        for pid in children_of(self.child.id()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.starts_with("inotifywait") {
                crate::support::kill(pid);
            }
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Fails only when the whole group has ended.
        _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.read("output"));
        }
    }
}

/// How many bytes of events a process has not read; `None` if it does not watch.
fn unread(pid: u32) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let is_queue = |link: &PathBuf| link.to_string_lossy().contains("inotify");
    let is_its = |file: &fs::DirEntry| fs::read_link(file.path()).is_ok_and(|link| is_queue(&link));
    let number = files.filter(is_its).find_map(|file| file.file_name().to_str()?.parse().ok())?;
    let process = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
    let queue = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    ioctl_fionread(queue).ok()
}

fn path() -> String {
    std::env::var("PATH").unwrap()
}

fn port(port: u16) -> (&'static str, String) {
    ("PORT", port.to_string())
}

fn wait_for(file: &Path, content: &str) {
    wait_until(&format!("{} holds {content:?}", file.display()), || {
        fs::read_to_string(file).is_ok_and(|found| found == content)
    });
}

#[test]
fn the_loop_that_sends_the_file_of_each_event_works() {
    let daemon = Rsyncd::start();
    let script = Script::start(
        r#"#!/bin/bash
cd src
inotifywait -mrq --format '%Xe %w%f' -e modify,create,delete,attrib,close_write,move ./ | while read file
do
    INO_EVENT=$(echo $file | awk '{print $1}')
    INO_FILE=$(echo $file | awk '{print $2}')
    if [[ $INO_EVENT =~ 'CREATE' ]] || [[ $INO_EVENT =~ 'MODIFY' ]] || [[ $INO_EVENT =~ 'CLOSE_WRITE' ]] || [[ $INO_EVENT =~ 'MOVED_TO' ]]
    then
        rsync -avzcR --port=PORT $(dirname ${INO_FILE}) 127.0.0.1::data
    fi
    if [[ $INO_EVENT =~ 'DELETE' ]] || [[ $INO_EVENT =~ 'MOVED_FROM' ]]
    then
        rsync -avzR --delete --port=PORT $(dirname ${INO_FILE}) 127.0.0.1::data
    fi
    if [[ $INO_EVENT =~ 'ATTRIB' ]]
    then
        if [ ! -d "$INO_FILE" ]
        then
            rsync -avzcR --port=PORT $(dirname ${INO_FILE}) 127.0.0.1::data
        fi
    fi
done
"#,
        &[port(daemon.port)],
        &path(),
    );
    fs::write(script.at("sub/file"), "one").unwrap();
    wait_for(&daemon.at("sub/file"), "one");
    fs::rename(script.at("sub/file"), script.at("sub/new")).unwrap();
    wait_for(&daemon.at("sub/new"), "one");
    fs::remove_file(script.at("sub/new")).unwrap();
    wait_until("the copies are deleted", || {
        !daemon.at("sub/new").exists() && !daemon.at("sub/file").exists()
    });
}

#[test]
fn the_loop_that_sends_the_tree_at_each_event_works() {
    let daemon = Rsyncd::start();
    let script = Script::start(
        r#"#!/bin/sh
inotifywait -mrq --timefmt '%d/%m/%y %H:%M' --format '%T %w%f%e' -e modify,delete,create,attrib src | while read files
do
    rsync -az --delete --port=PORT src/ 127.0.0.1::data
    echo "${files} was rsynced" >> rsync.log 2>&1
done
"#,
        &[port(daemon.port)],
        &path(),
    );
    fs::create_dir(script.at("new")).unwrap();
    fs::write(script.at("new/file"), "one").unwrap();
    wait_for(&daemon.at("new/file"), "one");
    fs::remove_dir_all(script.at("new")).unwrap();
    wait_until("the copy is deleted", || !daemon.at("new").exists());
    wait_until("the log says what", || {
        script.read("rsync.log").contains("src/newCREATE,ISDIR was rsynced")
    });
}

#[test]
fn the_loop_over_two_servers_by_ssh_works() {
    let sshd = Sshd::start();
    let targets = TestDir::new();
    let (one, two) = (targets.dir("one"), targets.dir("two"));
    let script = Script::start(
        r#"#!/bin/bash
inotifywait -mrq -e modify,create,delete,move,attrib src | while read event
do
    for target in ONE TWO
    do
        rsync -avzHXA --delete -e 'ssh -p PORT' src/ 127.0.0.1:$target/
    done
done
"#,
        &[port(sshd.port), ("ONE", one.display().to_string()), ("TWO", two.display().to_string())],
        &sshd.path_variable(),
    );
    fs::write(script.at("file"), "one").unwrap();
    for target in [&one, &two] {
        wait_for(&target.join("file"), "one");
    }
    fs::rename(script.at("file"), script.at("sub/moved")).unwrap();
    for target in [&one, &two] {
        wait_for(&target.join("sub/moved"), "one");
        wait_until("the old name is deleted", || !target.join("file").exists());
    }
}

#[test]
fn the_loop_over_a_file_of_events_sends_and_mails_its_failures() {
    let mut daemon = Rsyncd::start();
    let script = Script::start(
        r#"#!/bin/bash
touch events
inotifywait -mrq -e modify,create,move,delete,attrib --format '%w%f' -o events src &
while true
do
    if [ -s events ]
    then
        cat /dev/null > events
        rsync -az --delete --port=PORT src/ 127.0.0.1::data || echo "rsync failed" | mail -s "rsync failed" root
    fi
    sleep 0.2
done
"#,
        &[port(daemon.port)],
        &path(),
    );
    fs::write(script.at("file"), "one").unwrap();
    wait_for(&daemon.at("file"), "one");
    daemon.stop();
    fs::write(script.at("file"), "two").unwrap();
    wait_until("the failure is mailed", || script.read("mails").contains("rsync failed root"));
    daemon.start_again();
    fs::write(script.at("file"), "three").unwrap();
    wait_for(&daemon.at("file"), "three");
}

#[test]
fn the_loop_around_a_monitor_of_one_file_prints_and_runs_nothing() {
    let script = Script::start(
        r#"#!/bin/bash
touch src/file
while inotifywait -mrq -e modify src/file; do
    echo "body ran" >> body
done
"#,
        &[],
        &path(),
    );
    fs::write(script.at("file"), "one").unwrap();
    // A monitor never ends, so the body of the loop is never reached. This is the same with the original.
    wait_until("the event is printed", || script.read("output").contains("src/file MODIFY"));
    assert_eq!(script.read("body"), "");
}

#[test]
fn the_loop_around_one_event_runs_its_body_for_each() {
    let script = Script::start(
        r#"#!/bin/bash
touch src/file
while inotifywait -q -e modify src/file; do
    echo "body ran" >> body
done
"#,
        &[],
        &path(),
    );
    for round in 1..4 {
        wait_until("it listens again", || script.listens());
        fs::write(script.at("file"), "one").unwrap();
        wait_until("the body has run", || script.read("body").lines().count() >= round);
    }
}

#[test]
fn the_log_of_deletions_holds_them() {
    let mut script = Script::start(
        r#"#!/bin/bash
inotifywait -mrq --timefmt '%F %T' --format '%T %w%f %e' -e delete,moved_from,create src | grep -i delete >> delete.log
"#,
        &[],
        &path(),
    );
    fs::write(script.at("sub/kept"), "").unwrap();
    fs::write(script.at("sub/gone"), "").unwrap();
    fs::remove_file(script.at("sub/gone")).unwrap();
    fs::remove_dir_all(script.at("sub")).unwrap();
    wait_until("everything is read", || script.listens());
    script.end_tools();
    let log = script.read("delete.log");
    let lines: Vec<&str> = log.lines().filter_map(|line| line.splitn(3, ' ').nth(2)).collect();
    assert_eq!(lines, ["src/sub/gone DELETE", "src/sub/kept DELETE", "src/sub DELETE,ISDIR"]);
}
