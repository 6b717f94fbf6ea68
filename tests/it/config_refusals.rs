//! Everything wrong is refused at once, each problem with its position, what was found and what was expected.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::path::Path;

use sersync::config::{LoadOptions, Loaded, load_bytes};

pub const STOCK: &str = include_str!("../data/legacy-configs/01.xml");

pub fn read(text: impl AsRef<[u8]>) -> Result<Loaded, String> {
    load_bytes("t.xml", text.as_ref(), &LoadOptions::default()).map_err(|error| error.to_string())
}

pub fn stock_with(from: &str, to: &str) -> String {
    assert!(STOCK.contains(from), "{from}");
    STOCK.replacen(from, to, 1)
}

/// Asserts that the stock file with `from` replaced by `to` is refused in these words, at the replaced text.
pub fn refused(from: &str, to: &str, words: &[&str]) {
    let text = stock_with(from, to);
    let report = read(&text).map(|l| l.config).expect_err(&format!("{to} was accepted"));
    let line = text[..STOCK.find(from).unwrap()].matches('\n').count() + 1;
    assert!(report.contains(&format!("t.xml:{line}:")), "{to}: {report}");
    for word in words {
        assert!(report.contains(word), "{to}: {word}: {report}");
    }
}

#[test]
fn addresses_that_are_none_are_refused_by_name() {
    for (ip, words) in [
        ("{TARGET_HOST}", "`{TARGET_HOST}`, a placeholder"),
        ("${HOST}", "`${HOST}`, a placeholder"),
        ("&lt;your ip&gt;", "a placeholder"),
        ("x.x.x.1", "an x stands where a number belongs"),
        ("192.168.1.xxx", "an x stands where a number belongs"),
        ("服务器地址", "`服`"),
        ("-oProxyCommand=id", "begins with `-`"),
        ("a b", "it holds ` `"),
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("192.168.1", "four numbers, this has 3"),
        ("192.168.1.256", "256 is above 255"),
        ("1.2.3.4:873", "belongs into <userDefinedPort>"),
        ("1.2.3.4::tongbu", "a module into name"),
        ("rsync://h/m", "it is an URL"),
        ("a..b", "empty part"),
        ("h;id", "`;`"),
        ("-x@h", "begins with `-`"),
        ("a\u{1b}[2J", "control character"),
    ] {
        refused("ip=\"127.0.0.1\"", &format!("ip=\"{ip}\""), &["<remote ip>", words]);
    }
}

#[test]
fn addresses_that_are_good_are_taken() {
    for (ip, expected) in [
        ("backup", "backup"),
        ("back-up_1.example.com.", "back-up_1.example.com."),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "[::1]"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]"),
        ("root@10.0.0.7", "root@10.0.0.7"),
        ("4.example", "4.example"),
    ] {
        let text = stock_with("ip=\"127.0.0.1\"", &format!("ip=\"{ip}\""));
        let config = read(text).unwrap().config;
        let word = config.mirrors[0].remotes[0].destination.word().into_string().unwrap();
        assert_eq!(word, format!("{expected}::tongbu1/"));
    }
}

#[test]
fn names_and_users_that_look_like_options_are_refused() {
    refused("name=\"tongbu1\"", "name=\"-e sh\"", &["<remote name>", "begins with `-`"]);
    refused("name=\"tongbu1\"", "name=\"\"", &["it is empty"]);
    refused("name=\"tongbu1\"", "", &["the attribute is missing", "add name="]);
    for user in ["-x", "a b", "a@b", "a:b"] {
        let auth = format!("<auth start=\"true\" users=\"{user}\"");
        refused("<auth start=\"false\" users=\"root\"", &auth, &["<auth users>", "no user name"]);
    }
}

#[test]
fn words_that_are_no_switch_are_refused_with_a_suggestion() {
    let delete = |value: &str| format!("<delete start=\"{value}\"/>");
    for (value, words) in [
        ("flase", "did you mean false?"),
        ("ture", "did you mean true?"),
        ("yes", "did you mean true?"),
        ("0", "did you mean false?"),
        ("", "found nothing"),
        ("maybe", "write true or false"),
    ] {
        refused("<delete start=\"true\"/>", &delete(value), &["expected true or false", words]);
    }
    refused("<delete start=\"true\"/>", "<delete start/>", &["has no value", "write start="]);
}

#[test]
fn numbers_that_are_none_are_refused_when_they_are_used() {
    for (from, to, words) in [
        ("port=\"8008\"", "port=\"abc\"", "expected a port number, found `abc`"),
        ("port=\"8008\"", "port=\"0\"", "from 1 to 65535"),
        ("port=\"8008\"", "port=\"65536\"", "from 1 to 65535"),
        (
            "start=\"false\" port=\"874\"",
            "start=\"true\" port=\"８７４\"",
            "<userDefinedPort port>",
        ),
        ("start=\"false\" port=\"874\"", "start=\"true\"", "the attribute is missing"),
        ("start=\"false\" time=\"100\"", "start=\"true\" time=\"1.5\"", "a number of seconds"),
        ("start=\"false\" time=\"100\"", "start=\"true\" time=\"-1\"", "from 0"),
        ("timeToExecute=\"60\"", "timeToExecute=\"1h\"", "a number of minutes"),
        (
            "<crontab start=\"false\" schedule=\"600\"",
            "<crontab start=\"true\" schedule=\"daily\"",
            "found `daily`",
        ),
    ] {
        refused(from, to, &[words]);
    }
    let unused = stock_with("start=\"false\" port=\"874\"", "start=\"false\" port=\"abc\"");
    assert!(read(unused).is_ok());
}

#[test]
fn everything_wrong_with_the_event_log_is_said_at_once() {
    let log = r#"<eventLog path="rel.log" format="txt" what="delivery"/></sersync>"#;
    let words =
        ["no absolute path", "expected text or json", "is nothing that is logged", "3 errors"];
    refused("</sersync>", log, &words);
}

#[test]
fn a_schedule_of_zero_means_ten_hours_as_it_always_did() {
    for schedule in ["0", "-5"] {
        let on = format!("<crontab start=\"true\" schedule=\"{schedule}\"");
        let text = stock_with("<crontab start=\"false\" schedule=\"600\"", &on);
        assert_eq!(read(text).unwrap().config.crontab.unwrap().minutes, 600, "{schedule}");
    }
}

#[test]
fn watch_paths_that_cannot_be_meant_are_refused() {
    for (path, words) in [
        ("opt/tongbu", "no absolute path"),
        ("~/data", "`~` means nothing here"),
        ("/", "the whole machine"),
        ("//", "the whole machine"),
        ("/proc/self", "holds no files to mirror"),
        ("/a/../b", "holds `..`"),
        ("", "it is empty"),
        ("{{ dir }}", "a placeholder"),
    ] {
        let text = stock_with("watch=\"/opt/tongbu\"", &format!("watch=\"{path}\""));
        let report = read(text).unwrap_err();
        assert!(report.contains("t.xml:24:") && report.contains(words), "{path}: {report}");
    }
}

#[test]
fn watch_paths_are_cleaned_and_keep_their_bytes() {
    let text = stock_with("watch=\"/opt/tongbu\"", "watch=\"//opt/./tongbu//\"");
    assert_eq!(read(text).unwrap().config.mirrors[0].watch, Path::new("/opt/tongbu"));
    let text = STOCK.replacen("/opt/tongbu", "/opt/@@", 1);
    let at = text.find("@@").unwrap();
    let gbk = [&text.as_bytes()[..at], b"\xb1\xb8\xb7\xdd", &text.as_bytes()[at + 2..]].concat();
    let watch = read(gbk).unwrap().config.mirrors[0].watch.clone();
    assert_eq!(std::os::unix::ffi::OsStrExt::as_bytes(watch.as_os_str()), b"/opt/\xb1\xb8\xb7\xdd");
}

#[test]
fn a_configuration_without_watch_path_or_remote_is_refused() {
    let report = read("<head><sersync></sersync></head>").unwrap_err();
    assert!(report.contains("no watch path") && report.contains("t.xml:1:7"), "{report}");
    let none = stock_with("<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>", "");
    let report = read(none).unwrap_err();
    assert!(report.contains("t.xml:24:2") && report.contains("-m NAME"), "{report}");
    let report = read("<html><body/></html>").unwrap_err();
    assert!(report.contains("the root element <head> is missing"), "{report}");
}

#[test]
fn destinations_that_would_eat_each_other_are_refused() {
    let second = |watch: &str, name: &str| {
        let more = format!(
            "<localpath watch=\"{watch}\"><remote ip=\"127.0.0.1\" name=\"{name}\"/></localpath><rsync>"
        );
        stock_with("<rsync>", &more)
    };
    assert!(read(second("/opt/tongbu", "b")).unwrap_err().contains("is watched twice"));
    assert!(read(second("/b", "tongbu1")).unwrap_err().contains("go to the same place"));
    let nested = read(second("/opt/tongbu/b", "b")).unwrap();
    assert!(nested.warning_lines()[0].contains("lie within each other"));
    assert_eq!(nested.config.mirrors.len(), 2);
    let beside = read(second("/opt/tongbu-old", "b")).unwrap();
    assert!(beside.warning_lines().is_empty());
    let twice =
        "<remote ip=\"127.0.0.1\" name=\"tongbu1\"/><remote ip=\"127.0.0.1\" name=\"tongbu1\"/>";
    let twice = read(stock_with("<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>", twice)).unwrap();
    assert_eq!(twice.config.mirrors[0].remotes.len(), 1);
    assert!(twice.warning_lines()[0].contains("stands here twice"));
}

#[test]
fn a_watch_path_that_shares_files_with_others_is_told_once_with_the_first_of_them() {
    let paths = ["/a/b/c", "/x", "/a/b", "/a/b/d", "/a/bc", "/a"];
    let local = |path: &str| {
        format!(
            "<localpath watch=\"{path}\"><remote ip=\"10.0.0.1\" name=\"{path}\"/></localpath>\n"
        )
    };
    let locals: String = paths.map(local).concat().replace("name=\"/", "name=\"");
    let text = format!(
        "<head><sersync>\n{locals}<rsync><commonParams params=\"-a\"/></rsync></sersync></head>"
    );
    let warnings = read(text).unwrap().warning_lines();
    let expected = [
        (4, "this path and /a/b/c lie within each other"),
        (5, "this path and /a/b lie within each other"),
        (7, "this path and 4 others, /a/b/c the first of them, lie within each other"),
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (line, (number, words)) in warnings.iter().zip(expected) {
        assert!(line.starts_with(&format!("t.xml:{number}:")) && line.contains(words), "{line}");
    }
}

#[test]
fn a_remote_inside_of_another_one_is_told_unless_the_watch_paths_lie_the_same_way() {
    let warnings = |locals: &str| {
        let text = format!(
            "<head><sersync>\n{locals}<rsync><commonParams params=\"-a\"/></rsync></sersync></head>"
        );
        read(text).unwrap().warning_lines()
    };
    let local = |watch: &str, name: &str| {
        format!("<localpath watch=\"{watch}\"><remote ip=\"h\" name=\"{name}\"/></localpath>\n")
    };
    let told = warnings(&[local("/a", "m"), local("/b", "m/sub")].concat());
    assert!(told.len() == 1 && told[0].contains("h::m/sub lies in h::m, to which /a"), "{told:?}");
    assert!(warnings(&[local("/a", "m"), local("/b", "me")].concat()).is_empty());
    let both = "<localpath watch=\"/a\"><remote ip=\"h\" name=\"m\"/><remote ip=\"h\" name=\"m/x\"/></localpath>";
    assert_eq!(warnings(both).len(), 1);
    // The outer watch path sends the same files there, so the only warning is that both share files.
    let same = warnings(&[local("/a", "m"), local("/a/sub", "m/sub")].concat());
    assert!(same.len() == 1 && same[0].contains("lie within each other"), "{same:?}");
}

#[test]
fn params_that_would_not_mirror_are_refused() {
    for (params, words) in [
        ("-avn", "transfer nothing"),
        ("-a --dry-run", "transfer nothing"),
        ("-a --files-from=x", "--files-from"),
        ("-a --daemon", "server"),
        ("-a /etc", "`/etc` is no option"),
        ("artuz", "`artuz` is no option"),
        ("-e ssh -p 22", "`22` is no option"),
        ("-a --", "ends rsync's options"),
        ("-a --exclude", "needs a value"),
        ("-a 'x", "never closed"),
        ("-a –delete", "`–delete` is no option"),
        ("-a；", "`；`"),
    ] {
        refused(
            "params=\"-artuz\"",
            &format!("params=\"{params}\""),
            &["<commonParams params>", words],
        );
    }
}

#[test]
fn params_that_delete_the_source_are_told_as_left_out() {
    for option in ["--remove-source-files", "--remove-sent-files"] {
        let loaded =
            read(stock_with("params=\"-artuz\"", &format!("params=\"-a {option}\""))).unwrap();
        let warnings = loaded.warning_lines();
        let told = format!("{option} is left out: it would delete");
        assert!(warnings.len() == 1 && warnings[0].contains(&told), "{warnings:?}");
    }
}

#[test]
fn every_word_that_no_run_gets_is_told() {
    for (params, words) in [
        ("-aq", "-q is left out: sersync reads rsync's output"),
        ("-a --time-limit 5", "--time-limit is left out: a run that is cut off"),
        ("-a --ignore-errors", "--ignore-errors is left out: sersync itself decides"),
        ("-a --exclude-from=-", "--exclude-from is left out: standard input carries"),
        (
            "-a --detele",
            "rsync 3.5.0 has no option `--detele`; it stands in every run as written; did you mean --delete?",
        ),
    ] {
        let text = stock_with("params=\"-artuz\"", &format!("params=\"{params}\""));
        let warnings = read(text).unwrap().warning_lines();
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{params}: {warnings:?}");
    }
}

#[test]
fn params_are_split_as_a_shell_would_split_them() {
    for (params, expected) in [
        ("-a --stderr all --zt 4", vec!["-a", "--stderr", "all", "--zt", "4"]),
        ("-a -e 'ssh -p 22'", vec!["-a", "-e", "ssh -p 22"]),
        ("-a --bwlimit 100", vec!["-a", "--bwlimit", "100"]),
        ("-a --exclude={a,*.b}", vec!["-a", "--exclude=a", "--exclude=*.b"]),
        ("-aB 700 -f '- *.o'", vec!["-aB", "700", "-f", "- *.o"]),
        ("  -a  ", vec!["-a"]),
    ] {
        let config =
            read(stock_with("params=\"-artuz\"", &format!("params=\"{params}\""))).unwrap().config;
        assert_eq!(config.mirrors[0].remotes[0].options.params, expected, "{params}");
    }
}

#[test]
fn broken_expressions_are_refused_where_they_stand() {
    let on = stock_with("<filter start=\"false\"", "<filter start=\"true\"");
    let text = on.replacen(r"(.*)\.gz", "*.gz", 1);
    let report = read(&text).unwrap_err();
    assert!(report.contains("t.xml:8:23") && report.contains(r"write (.*)\.gz"), "{report}");
    assert!(read(STOCK.replacen(r"(.*)\.gz", "*.gz", 1)).is_ok());
}
