//! Unreadable files, broken structure, plugins, and what the machine lacks: each is refused in a sentence with its position.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sersync::config::{CheckVerdict, LoadOptions, PluginName, check_file, load, load_bytes};

use crate::config_refusals::{STOCK, read, refused, stock_with};

#[test]
fn all_problems_come_in_one_go_in_the_order_of_the_file() {
    let text = STOCK
        .replacen("<delete start=\"true\"", "<delete start=\"flase\"", 1)
        .replacen("127.0.0.1", "x.x.x.1", 1)
        .replacen("timeToExecute=\"60\"", "timeToExecute=\"x\"", 1);
    let report = read(text).unwrap_err();
    let at = |words: &str| report.find(words).unwrap_or_else(|| panic!("{words}: {report}"));
    assert!(at("flase") < at("x.x.x.1") && at("x.x.x.1") < at("<failLog timeToExecute>"));
    assert!(report.ends_with("3 errors; nothing was started"), "{report}");
}

#[test]
fn a_damaged_structure_is_refused_with_its_place() {
    for (from, to, words) in [
        ("ip=\"127.0.0.1\" name", "ip=\"127.0.0.1 name", "quotation mark"),
        ("<ssh start=\"false\"/>", "<ssh start=\"false\"", "the closing > is missing"),
        ("<ssh start=\"false\"/>", "<ssh start=\"false\">", "<ssh> is not closed before </rsync>"),
        ("<!-- port=874 -->", "</foo>", "closes an element that is not open"),
        ("<sersync>", "<sersync><!--", ""),
    ] {
        let text = stock_with(from, to);
        if words.is_empty() {
            assert!(read(text).is_err());
            continue;
        }
        refused(from, to, &[words]);
    }
    let cut = &STOCK[..STOCK.find("<failLog").unwrap()];
    let report = read(cut).unwrap_err();
    assert!(
        report.contains("the file ends here, but <head>, <sersync> are not closed"),
        "{report}"
    );
}

#[test]
fn files_that_are_no_configuration_are_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let check =
        |name: &str| load(&dir.path().join(name), &LoadOptions::default()).unwrap_err().to_string();
    assert!(check("missing.xml").contains("name the file with -o FILE"));
    assert!(check("").contains("it is a directory"));
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("empty.xml", b"");
    assert!(check("empty.xml").contains("it is empty"));
    write("binary.xml", b"\x7fELF\0\0");
    assert!(check("binary.xml").contains("no text"));
    let utf16: Vec<u8> = STOCK.encode_utf16().flat_map(u16::to_le_bytes).collect();
    write("utf16.xml", &[b"\xff\xfe", utf16.as_slice()].concat());
    assert!(check("utf16.xml").contains("UTF-16"));
    std::fs::File::create(dir.path().join("large.xml")).unwrap().set_len(100 << 20).unwrap();
    assert!(check("large.xml").contains("larger than 1024 KiB"));
}

#[test]
fn a_plugin_alone_needs_its_definition_and_brings_its_watch_path() {
    let with = |name| LoadOptions { plugin_alone: Some(name), ..LoadOptions::default() };
    let socket = load_bytes(
        "t.xml",
        STOCK.replace("/opt/tongbu\">\n\t    <des", "/srv\">\n\t    <des").as_bytes(),
        &with(PluginName::Socket),
    );
    let socket = socket.unwrap().config;
    assert_eq!(socket.mirrors.len(), 1);
    assert_eq!(
        (socket.mirrors[0].watch.to_str(), socket.mirrors[0].remotes.len()),
        (Some("/srv"), 0)
    );
    let report =
        load_bytes("t.xml", STOCK.as_bytes(), &with(PluginName::Http)).unwrap_err().to_string();
    assert!(report.contains("the plugin http has no definition"), "{report}");
    let bad = STOCK.replace("192.168.138.20", "x.x.x.x");
    assert!(load_bytes("t.xml", bad.as_bytes(), &with(PluginName::Socket)).is_err());
    assert!(read(bad).is_ok());
}

#[test]
fn a_started_plugin_is_checked_and_socket_replaces_the_watch_path() {
    let start = |name: &str| {
        stock_with(
            "<plugin start=\"false\" name=\"command\"/>",
            &format!("<plugin start=\"true\" name=\"{name}\"/>"),
        )
    };
    let command = read(start("command")).unwrap().config;
    assert_eq!(command.plugin, Some(PluginName::Command));
    let cdn = read(start("refreshCDN")).unwrap();
    assert_eq!(cdn.config.mirrors[0].watch, Path::new("/data0/htdocs/cms.xoyo.com/site"));
    assert!(cdn.warning_lines()[0].contains("it replaces the watch path /opt/tongbu"));
    assert!(read(start("comand")).unwrap_err().contains("did you mean command?"));
    // Braces belong to the language of expressions, and no plugin may watch the whole machine.
    let cdn = start("refreshCDN");
    let counted = cdn.replace("regex=\"false\" match=\"cms", "regex=\"true\" match=\"s([a-z]{2})");
    assert_ne!(counted, cdn);
    read(counted).unwrap();
    let everything = cdn.replace("watch=\"/data0/htdocs/cms.xoyo.com/site", "watch=\"/");
    assert!(read(everything).unwrap_err().contains("/ is the whole machine"));
}

/// The text of a configuration on real directories; `auth` goes into `<rsync>`.
fn configuration(watch: &Path, auth: &str) -> String {
    let text = stock_with(
        "/opt/tongbu\">\n\t    <remote",
        &format!("{}\">\n\t    <remote", watch.display()),
    );
    text.replace("<ssh", &format!("{auth}<ssh")).replacen(
        "<auth start=\"false\" users=\"root\" passwordfile=\"/etc/rsync.pas\"/>",
        "",
        1,
    )
}

/// Loads a configuration for a start on this machine; returns the report, which is empty if nothing is wrong.
fn start_on_this_machine(watch: &Path, auth: &str) -> String {
    let options = LoadOptions { preflight: true, ..LoadOptions::default() };
    match load_bytes("c.xml", configuration(watch, auth).as_bytes(), &options) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_valid_configuration_is_told_with_watch_path_and_remotes() {
    let (dir, watch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("c.xml");
    std::fs::write(&file, configuration(watch.path(), "")).unwrap();
    let report = check_file(&file, &LoadOptions::default());
    assert_eq!(report.verdict, CheckVerdict::Valid, "{}", report.text);
    for words in
        ["the configuration is valid", "to 127.0.0.1::tongbu1", watch.path().to_str().unwrap()]
    {
        assert!(report.text.contains(words), "{}", report.text);
    }
    assert!(!report.text.contains("warning"), "{}", report.text);
}

#[test]
fn a_check_tells_what_this_machine_lacks_and_refuses_only_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.xml");
    std::fs::write(&file, configuration(&dir.path().join("missing"), "")).unwrap();
    let report = check_file(&file, &LoadOptions::default());
    assert_eq!(report.verdict.code(), 2);
    assert!(report.text.contains("c.xml:24:"), "{}", report.text);
    assert!(!report.text.contains("valid"), "{}", report.text);
    assert!(report.text.contains("here it would not start"), "{}", report.text);
    std::fs::write(&file, "<head>").unwrap();
    assert_eq!(check_file(&file, &LoadOptions::default()).verdict.code(), 1);
}

#[test]
fn what_the_machine_lacks_is_refused_at_the_start_with_its_place() {
    let (dir, watch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let password = dir.path().join("pass");
    let auth =
        format!("<auth start=\"true\" users=\"u\" passwordfile=\"{}\"/>", password.display());
    let report = start_on_this_machine(&dir.path().join("missing"), &auth);
    for words in ["c.xml:24:", "create it, or correct the path", "the password file", "2 errors"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).unwrap();
    let report = start_on_this_machine(watch.path(), &auth);
    assert!(report.contains("mode 644") && report.contains("chmod 600"), "{report}");
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(start_on_this_machine(watch.path(), &auth), "");
    std::fs::write(&password, "").unwrap();
    assert!(start_on_this_machine(watch.path(), &auth).contains("is empty"));
    assert!(start_on_this_machine(&password, "").contains("is no directory"));
}
