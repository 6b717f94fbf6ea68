//! The example file and the manual name every element and attribute that the reader knows, and stay stock-like.

use std::collections::BTreeSet;

use sersync::config::raw::known_elements;
use sersync::config::{LoadOptions, load_bytes};
use sersync::xml::schema::ElementKind;

const EXAMPLE: &str = include_str!("../../confxml.example.xml");
const STOCK: &str = include_str!("../data/legacy-configs/01.xml");
const MANUAL: &str = include_str!("../../docs/CONFIG.md");
const MANUAL_ZH: &str = include_str!("../../docs/CONFIG.zh-CN.md");

/// Every element and attribute as `element` and `element key`.
fn known(kind: &ElementKind, names: &mut BTreeSet<String>) {
    names.insert(kind.name.to_owned());
    names.extend(kind.attributes.iter().map(|key| format!("{} {key}", kind.name)));
    kind.children.iter().for_each(|child| known(child, names));
}

/// Every element and attribute in `text`, including its comments.
fn written(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for tag in text.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap_or("");
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        if name.is_empty() || tag.starts_with('/') {
            continue;
        }
        let key =
            |part: &str| Some(part.trim().strip_suffix('=')?.split_whitespace().last()?.to_owned());
        let keys = tag.split('"').step_by(2).filter_map(key);
        names.extend(keys.map(|key| format!("{name} {key}")));
        names.insert(name);
    }
    names
}

fn all_known() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    known(known_elements(), &mut names);
    names
}

#[test]
fn the_example_holds_every_element_and_attribute_and_no_other() {
    let (known, written) = (all_known(), written(EXAMPLE));
    let missing: Vec<_> = known.difference(&written).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");
    let unknown: Vec<_> =
        written.difference(&known).filter(|name| !name.starts_with("xml")).collect();
    assert!(unknown.is_empty(), "not known to the reader: {unknown:?}");
}

#[test]
fn the_manuals_show_every_element_and_attribute() {
    for manual in [MANUAL, MANUAL_ZH] {
        let written = written(manual);
        let missing: Vec<_> = all_known().difference(&written).cloned().collect();
        assert!(missing.is_empty(), "not in the manual: {missing:?}");
    }
}

#[test]
fn the_example_means_the_stock_file_and_loads_without_a_warning() {
    let read = |text: &str| load_bytes("t.xml", text.as_bytes(), &LoadOptions::default()).unwrap();
    let example = read(EXAMPLE);
    assert_eq!(example.config, read(STOCK).config);
    assert_eq!(example.warning_lines(), Vec::<String>::new());
}

#[test]
fn the_extensions_can_be_taken_out_of_their_comment() {
    let parts = [
        (
            "<filter start=\"false\">",
            "<filter start=\"false\" dotfiles=\"true\" editorFiles=\"false\">",
        ),
        ("<fileSystem xfs=\"false\"/>", "<fileSystem xfs=\"false\" backend=\"auto\"/>"),
        ("</sersync>", "<guard maxDelete=\"50%\"/></sersync>"),
    ];
    let mut text = STOCK.to_owned();
    for (from, to) in parts {
        assert!(EXAMPLE.contains(to.trim_end_matches("</sersync>")), "{to}");
        text = text.replacen(from, to, 1);
    }
    let read = |text: &str| load_bytes("t.xml", text.as_bytes(), &LoadOptions::default()).unwrap();
    assert_eq!(read(&text).config, read(STOCK).config);
    assert_eq!(read(&text).warning_lines(), Vec::<String>::new());
}

#[test]
fn lines_stand_where_provisioning_scripts_look_for_them() {
    let stock: Vec<&str> = STOCK.lines().collect();
    let example: Vec<&str> = EXAMPLE.lines().collect();
    assert_eq!(example[..stock.len() - 1], stock[..stock.len() - 1]);
}

#[test]
fn the_usual_edits_by_script_work() {
    // The same as `sed 's#from#to#'` on every line.
    let edits = [
        ("watch=\"/opt/tongbu\"", "watch=\"/data\""),
        (
            "<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>",
            "<remote ip=\"172.16.1.41\" name=\"backup\"/>",
        ),
        ("params=\"-artuz\"", "params=\"-az\""),
        (
            "<auth start=\"false\" users=\"root\" passwordfile=\"/etc/rsync.pas\"/>",
            "<auth start=\"true\" users=\"rsync_backup\" passwordfile=\"/etc/rsync.password\"/>",
        ),
        ("<timeout start=\"false\"", "<timeout start=\"true\""),
        ("path=\"/tmp/rsync_fail_log.sh\"", "path=\"/var/log/rsync_fail_log.sh\""),
        ("<crontab start=\"false\" schedule=\"600\">", "<crontab start=\"true\" schedule=\"60\">"),
        ("<createFile start=\"false\"/>", "<createFile start=\"true\"/>"),
    ];
    let mut text = EXAMPLE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let config = load_bytes("t.xml", text.as_bytes(), &LoadOptions::default()).unwrap().config;
    assert_eq!(config.mirrors[0].watch.to_str(), Some("/data"));
    let remote = &config.mirrors[0].remotes[0];
    assert_eq!(remote.destination.name(), "backup");
    assert_eq!(remote.options.params, ["-az"]);
    assert_eq!(remote.destination.user(), Some("rsync_backup"));
    assert_eq!((remote.options.timeout_s, config.crontab.unwrap().minutes), (Some(100), 60));
    assert_eq!(config.fail_log.path.to_str(), Some("/var/log/rsync_fail_log.sh"));
    assert!(config.changes.create_file);
}
