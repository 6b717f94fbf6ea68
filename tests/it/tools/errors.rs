//! Wrong command lines and files that cannot be watched: the same messages and exit codes as the original.

use std::fs;
use std::path::Path;

use super::pair::{Pair, Result, assert_same};

fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("t/a/b")).unwrap();
    fs::create_dir_all(dir.join("out")).unwrap();
    fs::write(dir.join("t/f"), "x").unwrap();
    fs::write(dir.join("list"), "t\n@t/a\nnowhere\n").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("t/dangling")).unwrap();
}

/// A line of words; `\s` is a blank within a word, `''` an empty word.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace("\\s", " ").replace("''", "")).collect()
}

#[test]
fn wrong_command_lines_are_refused_in_the_words_of_the_original() {
    // Many of them take a second.
    const BESIDE_EACH_OTHER: usize = 12;
    std::thread::scope(|scope| {
        for nth in 0..BESIDE_EACH_OTHER {
            scope.spawn(move || {
                let pair = Pair::new(tree);
                let lines = include_str!("wrong_lines.txt").lines();
                for line in lines.skip(nth).step_by(BESIDE_EACH_OTHER) {
                    let words = words(line);
                    let [tool, arguments @ ..] = &words[..] else { continue };
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    assert_same(line, pair.run(tool, &arguments, "nowhere\n"));
                }
            });
        }
    });
}

#[test]
fn the_help_is_the_originals_and_says_whose_program_it_is() {
    let pair = Pair::new(tree);
    for tool in ["inotifywait", "inotifywatch", "fsnotifywait", "fsnotifywatch"] {
        let [theirs, mut ours] = pair.run(tool, &["--help"], "");
        let version = format!(" (sersync {})", env!("CARGO_PKG_VERSION"));
        assert!(ours.stdout.lines().next().unwrap().ends_with(&version), "{ours:?}");
        ours.stdout = ours.stdout.replacen(&version, "", 1);
        assert_same(tool, [theirs, ours]);
    }
}

/// A command prefix that limits the user's watches or instances.
fn limited(what: &str, count: usize) -> Vec<String> {
    let script = format!("echo {count} > /proc/sys/user/max_inotify_{what}; exec \"$@\"");
    ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"].map(String::from).to_vec()
}

fn run_limited(what: &str, count: usize, tool: &str, arguments: &[&str]) -> [Result; 2] {
    let pair = Pair::new(tree);
    let wrapper = limited(what, count);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    // With a wrapper, the programs are not called by their bare names.
    pair.run_wrapped(&wrapper, tool, arguments, "")
}

#[test]
fn watches_that_run_out_are_said_in_the_words_of_the_original() {
    for (tool, arguments) in [
        ("inotifywait", &["-r", "-t", "1", "t"][..]),
        ("inotifywait", &["-t", "1", "t", "t/a", "t/a/b"]),
        ("inotifywatch", &["-r", "-t", "1", "t"]),
    ] {
        let results = run_limited("watches", 2, tool, arguments);
        assert!(
            results[0].stderr.contains("upper limit on inotify watches reached"),
            "{results:?}"
        );
        assert_same(&format!("{tool} {arguments:?}"), results);
    }
}

#[test]
fn instances_that_run_out_are_said_in_the_words_of_the_original() {
    for tool in ["inotifywait", "inotifywatch"] {
        let results = run_limited("instances", 0, tool, &["-t", "1", "t"]);
        assert!(results[0].stderr.contains("max_user_instances"), "{results:?}");
        assert_same(tool, results);
    }
}
