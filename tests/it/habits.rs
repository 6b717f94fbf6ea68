//! What operators of old installations do, with the real program: how they start it, find it and end it.
//! `background.rs` tests the background mode itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::rsyncd::Rsyncd;
use crate::support::sersync::{Installation, PROGRAM, can_make_namespaces, process_name};
use crate::support::{children_of, is_running, wait_until};

#[test]
fn pgrep_finds_exactly_one_line_for_each_configuration() {
    let remote = Rsyncd::start();
    let setup = Installation::named("nginx.xml", &remote);
    assert!(setup.run_background().status.success());
    let pattern = format!("sersync2 .*{}/nginx.xml", setup.dir.path().display());
    let expected = format!("{}\n", setup.pid());
    let finds_one_line = || {
        let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
        String::from_utf8_lossy(&found.stdout) == expected
    };
    wait_until("pgrep finds the daemon alone", finds_one_line);
    setup.assert_mirrors(&remote, "file");
    wait_until("pgrep finds it alone while sessions are ready", finds_one_line);
    // `ps aux | grep sersync2` must not count the program's children.
    // Before its exec, a child has the command line of its parent.
    wait_until("no child is named after the program", || {
        children_of(setup.pid()).iter().all(|child| {
            let words = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&words).contains("sersync2")
        })
    });
}

#[test]
fn killall_finds_the_daemon_by_its_name() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    let pid = setup.pid();
    assert_eq!(process_name(pid), "sersync2");
    // The signal of `killall`; killall itself would also hit the instances of other tests.
    setup.signal(Signal::TERM);
    wait_until("the daemon ends", || !is_running(pid));
}

#[test]
fn a_renamed_program_and_a_symbolic_link_keep_their_name() {
    let remote = Rsyncd::start();
    for name in ["sersync", "sersync2-www"] {
        let setup = Installation::new(&remote);
        let program = setup.dir.join(name);
        match name {
            // Let another process copy it: a process that another test forks now must not keep the copy open for writing.
            "sersync" => {
                assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
            }
            _ => symlink(PROGRAM, &program).unwrap(),
        }
        let parent = setup
            .command(&program, &["-d", "-o", setup.config.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(parent.status.success());
        assert_eq!(process_name(setup.pid()), name);
        let line = fs::read_to_string(format!("/proc/{}/cmdline", setup.pid())).unwrap();
        assert!(line.starts_with(&format!("{}\0-d\0-o\0", program.display())), "{line:?}");
    }
}

#[test]
fn three_instances_with_the_same_host_run_at_once() {
    let remotes = [Rsyncd::start(), Rsyncd::start(), Rsyncd::start()];
    let names = ["a.xml", "b.xml", "c.xml"];
    let setups: Vec<Installation> = names
        .iter()
        .zip(&remotes)
        .map(|(name, remote)| Installation::named(name, remote))
        .collect();
    for setup in &setups {
        let parent = setup.run_background();
        assert!(parent.status.success(), "{}", String::from_utf8_lossy(&parent.stderr));
    }
    for (setup, remote) in setups.iter().zip(&remotes) {
        setup.assert_mirrors(remote, "file");
        setup.pid();
    }
}

#[test]
fn sighup_does_not_end_a_foreground_instance() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let mut running = setup.start(&[]);
    setup.signal(Signal::HUP);
    setup.assert_mirrors(&remote, "after-sighup");
    setup.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn after_kill_9_nothing_is_left_and_a_new_start_works() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    assert!(setup.run_background().status.success());
    setup.assert_mirrors(&remote, "before");
    let pid = setup.pid();
    let children = children_of(pid);
    setup.signal(Signal::KILL);
    wait_until("the daemon is gone", || !is_running(pid));
    wait_until("its sessions end by themselves", || {
        !children.iter().any(|&child| is_running(child))
    });
    let parent = setup.run_background();
    assert!(parent.status.success(), "{}", String::from_utf8_lossy(&parent.stderr));
    setup.assert_mirrors(&remote, "after");
}

#[test]
fn it_starts_from_rc_local_without_terminal_home_or_path() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(PROGRAM);
    command.args(setup.arguments(&["-d", "-r", "-o", setup.config.to_str().unwrap()]));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "{}", setup.log());
    setup.assert_mirrors(&remote, "file");
}

#[test]
fn what_nohup_starts_survives_the_terminal() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let mut command = Command::new("nohup");
    command.arg(PROGRAM).args(setup.arguments(&["-o", setup.config.to_str().unwrap()]));
    let mut running =
        setup.start_command(command.current_dir(setup.dir.path()).stdin(Stdio::null()));
    let status = fs::read_to_string(format!("/proc/{}/status", setup.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & 1, 1, "SIGHUP stays ignored, for children too");
    setup.signal(Signal::HUP);
    setup.assert_mirrors(&remote, "after-sighup");
    setup.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn a_supervisor_keeps_its_child_and_sees_exit_code_0() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    for signal in [Signal::TERM, Signal::INT] {
        let config = setup.config.to_str().unwrap();
        // A shell starts a command with `&` with SIGINT ignored, and the program keeps that. A supervisor ignores nothing.
        let supervised = ["--default-signal=INT", PROGRAM, "-r", "-o", config];
        let mut command = setup.command("env", &supervised);
        let mut running = setup.start_command(command.process_group(0));
        assert_eq!(setup.pid(), running.child.id());
        setup.signal(signal);
        assert_eq!(running.wait(), Some(0), "{}", running.output());
        wait_until("nothing is left", || setup.pids().is_empty());
    }
}

#[test]
fn it_survives_a_launcher_that_ignores_sigchld() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' CHLD; exec \"$@\"", "sh", PROGRAM]);
    command.args(setup.arguments(&["-o", setup.config.to_str().unwrap()]));
    let _running = setup.start_command(command.current_dir(setup.dir.path()));
    setup.assert_mirrors(&remote, "file");
    let status = fs::read_to_string(format!("/proc/{}/status", setup.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let sigchld = 1 << (17 - 1);
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & sigchld, 0);
}

/// The program without arguments, run by an ordinary user; `None` when the tests themselves run as an ordinary user.
fn as_nobody(setup: &Installation) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        // Then every other test of this file covers this case.
        return None;
    }
    let program = setup.dir.join("sersync2");
    fs::copy(PROGRAM, &program).unwrap();
    let nobody = Some(65534);
    for path in [setup.dir.path(), &setup.source, &setup.config, &setup.dir.dir("state")] {
        chown(path, nobody, nobody).unwrap();
    }
    fs::set_permissions(setup.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.current_dir(setup.dir.path()).stdin(Stdio::null());
    Some(command)
}

#[test]
fn an_ordinary_user_can_run_it() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let Some(mut command) = as_nobody(&setup) else { return };
    command.args(setup.arguments(&["-o", setup.config.to_str().unwrap()]));
    let _running = setup.start_command(&mut command);
    fs::write(setup.source.join("file"), "file").unwrap();
    wait_until("the file arrives", || remote.at("file").exists());
}

#[test]
fn who_has_no_place_for_the_state_hears_so_and_is_served_all_the_same() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let Some(mut command) = as_nobody(&setup) else { return };
    command.env_remove("HOME").env_remove("XDG_STATE_HOME").arg("-o").arg(&setup.config);
    let running = setup.start_command(&mut command);
    let said = running.output();
    assert!(said.contains("working without a journal") && said.contains("--state-dir"), "{said}");
    fs::write(setup.source.join("file"), "file").unwrap();
    wait_until("the file arrives", || remote.at("file").exists());
}

#[test]
fn a_fail_log_that_this_user_cannot_write_is_told_before_it_is_needed() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let Some(mut command) = as_nobody(&setup) else { return };
    let text = fs::read_to_string(&setup.config).unwrap();
    let own = setup.dir.join("fail.sh");
    fs::write(&setup.config, text.replace(own.to_str().unwrap(), "/etc/none/fail.sh")).unwrap();
    let check = command.arg("--check").arg(&setup.config).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(
        said.contains("the fail log /etc/none/fail.sh cannot be written, for /etc refuses it"),
        "{said}"
    );
}

/// Starts the program in a mount namespace where `max_user_watches` is our own file with `value`.
fn start_with_limit(setup: &Installation, value: &str, options: &str) -> (String, String) {
    let limit = setup.dir.file("max_user_watches", value);
    let script = format!(
        "mount --bind '{0}' /proc/sys/fs/inotify/max_user_watches && \
         mount -o remount,bind,{options} /proc/sys/fs/inotify/max_user_watches && exec \"$@\"",
        limit.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh", PROGRAM]);
    command.args(setup.arguments(&["-o", setup.config.to_str().unwrap()]));
    let running = setup.start_command(command.current_dir(setup.dir.path()).stdin(Stdio::null()));
    // With --log-file the warnings are in the log.
    (format!("{}{}", running.output(), setup.log()), fs::read_to_string(limit).unwrap())
}

#[test]
fn what_a_start_warns_of_stands_in_the_log_file_too() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let text = fs::read_to_string(&setup.config).unwrap();
    let params = "commonParams params=\"";
    assert!(text.contains(params), "{text}");
    fs::write(&setup.config, text.replace(params, &format!("{params}--time-limit=5 "))).unwrap();
    let running = setup.start(&[]);
    let words = "--time-limit is left out";
    assert!(running.output().contains(words), "{}", running.output());
    assert!(setup.log().contains(words), "{}", setup.log());
}

#[test]
fn a_limit_of_the_kernel_is_raised_never_lowered_and_a_refusal_is_one_warning() {
    if !can_make_namespaces() {
        crate::support::skipped("namespaces are not allowed here");
        return;
    }
    let remote = Rsyncd::start();
    let line = "execute：echo 50000000 > /proc/sys/fs/inotify/max_user_watches\n";
    let (output, limit) = start_with_limit(&Installation::new(&remote), "8192\n", "rw");
    assert!(output.contains(line), "{output}");
    assert_eq!(limit, "50000000\n");
    let (output, limit) = start_with_limit(&Installation::new(&remote), "99000000\n", "rw");
    assert!(!output.contains(line), "{output}");
    assert_eq!(limit, "99000000\n");
    let (output, limit) = start_with_limit(&Installation::new(&remote), "8192\n", "ro");
    assert!(!output.contains(line), "{output}");
    assert_eq!(output.matches("max_user_watches").count(), 1, "one warning: {output}");
    assert_eq!(limit, "8192\n");
}

#[test]
fn as_pid_1_of_a_container_it_reaps_orphans_and_ends_on_sigterm() {
    if !can_make_namespaces() {
        crate::support::skipped("namespaces are not allowed here");
        return;
    }
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let orphan = setup.dir.join("orphan");
    symlink("/bin/sleep", &orphan).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", PROGRAM]);
    command.args(setup.arguments(&["-o", setup.config.to_str().unwrap()]));
    let mut running =
        setup.start_command(command.current_dir(setup.dir.path()).stdin(Stdio::null()));
    let init = setup.pid();
    let entered = Command::new("nsenter")
        .args(["--target", &init.to_string(), "--pid", "--mount", "sh", "-c"])
        .arg(format!("'{}' 1 & exit 0", orphan.display()))
        .status()
        .unwrap();
    assert!(entered.success());
    let is_orphan = |pid: &u32| process_name(*pid) == "orphan";
    wait_until("the orphan belongs to PID 1", || children_of(init).iter().any(is_orphan));
    wait_until("the dead orphan is reaped", || !children_of(init).iter().any(is_orphan));
    setup.assert_mirrors(&remote, "file");
    setup.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(0), "{}", running.output());
}

#[test]
fn the_execute_command_line_works_when_pasted() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    fs::write(setup.source.join("it's here"), "content").unwrap();
    let mut running = setup.start(&["-r"]);
    let output = running.output();
    let command = output.lines().find_map(|line| line.strip_prefix("execute command: "));
    let command = command.unwrap_or_else(|| panic!("no such line: {output}")).to_owned();
    crate::support::wait_for_content(&remote.at("it's here"), "content");
    setup.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(0));
    fs::remove_file(remote.at("it's here")).unwrap();
    let pasted = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(pasted.success(), "{command}");
    assert!(remote.at("it's here").exists(), "{command}");
}

#[test]
fn debug_shows_events_and_commands_that_work_when_pasted() {
    let remote = Rsyncd::start();
    let setup = Installation::new(&remote);
    let text = fs::read_to_string(&setup.config).unwrap();
    fs::write(&setup.config, text.replace("<sersync>", "<debug start=\"true\"/><sersync>"))
        .unwrap();
    let mut running = setup.start(&[]);
    setup.assert_mirrors(&remote, "first");
    setup.assert_mirrors(&remote, "it's here");
    wait_until("the log shows the event", || {
        setup.log().lines().any(|line| line.contains("CLOSE_WRITE") && line.contains("it's here"))
    });
    let log = setup.log();
    let mut lines = log.lines().filter_map(|line| line.split_once("DEBUG cd "));
    let line = lines.find(|(_, rest)| rest.contains("it's here"));
    let (_, rest) = line.unwrap_or_else(|| panic!("no command: {log}"));
    setup.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(0));
    fs::remove_file(remote.at("it's here")).unwrap();
    fs::write(setup.source.join("it's here"), "pasted").unwrap();
    let pasted = Command::new("sh").args(["-c", &format!("cd {rest}")]).status().unwrap();
    assert!(pasted.success(), "{rest}");
    assert_eq!(fs::read(remote.at("it's here")).unwrap(), b"pasted");
}
