//! The command plugin with real programs: a recording script, a failing, a missing and an endless one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sersync::config::{CommandPlugin, PluginDefinitions, PluginName};
use sersync::plugin::{PathTest, PluginSpec};
use tempfile::TempDir;

use super::{PATIENCE, event, keep_log, log_lines, now, start, start_impatient, wait_for};

fn everything() -> PathTest {
    Box::new(|_| true)
}

fn spec(prefix: &[&str], suffix: &[&str]) -> CommandPlugin {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    CommandPlugin { prefix: words(prefix), suffix: words(suffix), ..CommandPlugin::default() }
}

fn command(config: CommandPlugin) -> PluginSpec {
    PluginSpec::Command { config, include: everything() }
}

/// A command `/bin/sh SCRIPT`. A new script that is executed directly could fail with "text file busy".
fn script(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("script.sh");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn command_gets_its_words_the_path_as_one_argument_and_the_environment() {
    let dir = TempDir::new().unwrap();
    let record = dir.path().join("record");
    let script = script(
        &dir,
        "record=$1; shift\n\
         printf '%s\\0' \"$@\" \"$SERSYNC_EVENT\" \"$SERSYNC_PATH\" \"$SERSYNC_ISDIR\" \"$SERSYNC_REMOTES\" >> \"$record\"\n",
    );
    let prefix = ["/bin/sh", &script, record.to_str().unwrap(), "two words"];
    let plugin = start(command(spec(&prefix, &["--last", "$HOME"])));
    let name = b"`touch /tmp/x` \"$(id)\" \\ ;&|\n\xff";
    plugin.offer(event(name));
    let mut directory = event(b"d");
    directory.is_dir = true;
    directory.mask = 0;
    directory.remotes = [].into();
    plugin.offer(directory);
    wait_for(&plugin, |s| s.done == 2);
    let path = [&b"/www/"[..], name].concat();
    let recorded = fs::read(record).unwrap();
    let words: Vec<&[u8]> = recorded.split(|&b| b == 0).collect();
    let expected: [&[u8]; 17] = [
        b"two words",
        &path,
        b"--last",
        b"$HOME",
        b"CLOSE_WRITE",
        &path,
        b"0",
        b"10.0.0.1::web 10.0.0.2::web",
        b"two words",
        b"/www/d",
        b"--last",
        b"$HOME",
        b"FOUND",
        b"/www/d",
        b"1",
        b"",
        b"",
    ];
    assert_eq!(words, expected);
}

#[test]
fn only_paths_that_the_filter_wants_are_run() {
    let plugin = start(PluginSpec::Command {
        config: spec(&["/bin/false"], &[]),
        include: Box::new(|path| path == b"/www/a.php"),
    });
    for name in [&b"a.php"[..], b"b.php", b"a.phpx"] {
        plugin.offer(event(name));
    }
    let stats = wait_for(&plugin, |s| s.failed + s.skipped == 3);
    assert_eq!((stats.failed, stats.skipped), (1, 2));
}

#[test]
fn an_include_expression_that_gives_up_runs_nothing() {
    keep_log();
    let mut config = spec(&["/bin/false"], &[]);
    config.includes = vec![r"/www/(?=a)(?:(a|aa)+)+\1b".into()];
    let plugins = PluginDefinitions { command: Some(config), ..PluginDefinitions::default() };
    let plugin = start(PluginSpec::new(PluginName::Command, &plugins, "/dev/null".into()).unwrap());
    plugin.offer(event("a".repeat(200).as_bytes()));
    let stats = wait_for(&plugin, |s| s.failed + s.skipped == 1);
    assert_eq!((stats.failed, stats.skipped), (0, 1));
    assert_eq!(log_lines("takes too many steps").len(), 1);
    assert!(log_lines("takes too many steps")[0].1.contains("count as not included"));
}

#[test]
fn exit_status_counts_unless_errors_are_ignored() {
    let plugin = start(command(spec(&["/bin/false"], &[])));
    plugin.offer(event(b"a"));
    wait_for(&plugin, |s| s.failed == 1);
    let mut config = spec(&["/bin/false"], &[]);
    config.ignore_error = true;
    let plugin = start(command(config));
    plugin.offer(event(b"a"));
    assert_eq!(wait_for(&plugin, |s| s.done == 1).failed, 0);
}

#[test]
fn missing_program_is_said_once_and_its_events_wait_for_it() {
    keep_log();
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("missing-program");
    let program_name = program.to_str().unwrap();
    let plugin = start(command(spec(&[program_name], &[])));
    for _ in 0..5 {
        plugin.offer(event(b"a"));
    }
    wait_for(&plugin, |s| s.down && log_lines(program_name).len() >= 3);
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    wait_for(&plugin, |s| s.done == 5 && !s.down);
    let warnings = log_lines(program_name);
    let warnings = warnings.iter().filter(|(level, _)| *level == log::Level::Warn);
    assert_eq!(warnings.count(), 1);
}

#[test]
fn command_that_runs_too_long_is_ended_with_its_children() {
    let dir = TempDir::new().unwrap();
    let pids = dir.path().join("pids");
    // The child ignores SIGTERM, and would outlive its parent.
    let script = script(
        &dir,
        "/bin/sh -c \"trap '' TERM; while :; do sleep 600; done\" & echo $$ $! > \"$1.new\"; mv \"$1.new\" \"$1\"; wait\n",
    );
    let prefix = ["/bin/sh", &script, pids.to_str().unwrap()];
    let plugin = start_impatient(command(spec(&prefix, &[])));
    plugin.offer(event(b"a"));
    wait_for(&plugin, |s| s.failed == 1);
    wait_until_gone(&pids);
}

#[test]
fn dropping_the_plugin_ends_the_command_soon() {
    let dir = TempDir::new().unwrap();
    let pids = dir.path().join("pids");
    let script = script(&dir, "echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; sleep 600\n");
    let prefix = ["/bin/sh", &script, pids.to_str().unwrap()];
    let plugin = start(command(spec(&prefix, &[])));
    plugin.offer(event(b"a"));
    wait(|| pids.exists());
    let before = now();
    drop(plugin);
    assert!(before.elapsed() < Duration::from_secs(3));
    wait_until_gone(&pids);
}

#[test]
fn background_child_of_a_finished_command_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let done = dir.path().join("done");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo").as_path(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    );
    made.unwrap();
    let script = script(&dir, "(read x < \"$1/fifo\"; echo > \"$1/done\") &\nexit 0\n");
    let plugin = start(command(spec(&["/bin/sh", &script, dir.path().to_str().unwrap()], &[])));
    plugin.offer(event(b"a"));
    wait_for(&plugin, |s| s.done == 1);
    drop(plugin);
    fs::write(dir.path().join("fifo"), "now\n").unwrap();
    wait(|| done.exists());
}

fn wait(condition: impl Fn() -> bool) {
    let until = now() + PATIENCE;
    while !condition() {
        assert!(now() < until, "not reached");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until none of the processes in `file` is running (a zombie is not).
fn wait_until_gone(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    for pid in text.split_whitespace() {
        wait(|| {
            let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(|&b| b == b')').next().unwrap_or_default();
            stat.is_empty() || state.starts_with(b" Z")
        });
    }
}

#[test]
fn include_expressions_of_the_definition_match_the_whole_absolute_path() {
    let mut config = spec(&["/bin/true"], &[]);
    config.includes = vec![r"(.*)\.php".into(), "/www/exact".into()];
    let plugins = PluginDefinitions { command: Some(config), ..PluginDefinitions::default() };
    let unused = Path::new("").into();
    let plugin = start(PluginSpec::new(PluginName::Command, &plugins, unused).unwrap());
    for name in [&b"a.php"[..], b"exact", b"a.php5", b"not/www/exact"] {
        plugin.offer(event(name));
    }
    let stats = wait_for(&plugin, |s| s.done + s.skipped == 4);
    assert_eq!((stats.done, stats.skipped), (2, 2));
}

#[test]
fn plugin_without_definition_is_refused_by_name() {
    for (name, plugin) in PluginName::ALL {
        let unused = Path::new("").into();
        let error = PluginSpec::new(plugin, &PluginDefinitions::default(), unused).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
}
