//! Every lenient rule of reading has a test.

use sersync::config::{Config, LoadOptions, Loaded, load_bytes};

/// The stock file.
pub const STOCK: &str = include_str!("../data/legacy-configs/01.xml");

pub fn read(text: impl AsRef<[u8]>) -> Loaded {
    load_bytes("t.xml", text.as_ref(), &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts that `text` means the stock file, with a warning that holds `words` (none for an empty string).
fn same_as_stock(text: impl AsRef<[u8]>, words: &str) {
    let loaded = read(&text);
    assert_eq!(loaded.config, read(STOCK).config);
    let lines = loaded.warning_lines();
    match words {
        "" => assert!(lines.is_empty(), "{lines:#?}"),
        _ => assert!(
            lines.iter().any(|line| line.contains(words) && line.starts_with("t.xml:")),
            "{words}: {lines:#?}"
        ),
    }
}

fn stock_with(from: &str, to: &str) -> String {
    assert!(STOCK.contains(from), "{from}");
    STOCK.replacen(from, to, 1)
}

#[test]
fn a_byte_order_mark_is_read_over() {
    same_as_stock([b"\xef\xbb\xbf", STOCK.as_bytes()].concat(), "");
}

#[test]
fn line_ends_of_other_systems_are_read() {
    same_as_stock(STOCK.replace('\n', "\r\n"), "");
    same_as_stock(STOCK.replace('\n', " "), "");
}

#[test]
fn utf8_and_gbk_under_a_declaration_that_lies_are_read() {
    same_as_stock(stock_with("port=874 --", "端口 --"), "");
    let gbk = STOCK.replacen("port=874 --", "@@", 1);
    let at = gbk.find("@@").unwrap();
    let gbk = [&gbk.as_bytes()[..at], b"\xb6\xcb\xbf\xda --", &gbk.as_bytes()[at + 2..]].concat();
    same_as_stock(gbk, "read as GBK");
}

#[test]
fn remarks_and_stray_ends_of_comments_are_read_over() {
    same_as_stock(
        stock_with("<inotify>", "<inotify> # 监控 a < b & c"),
        "between elements is ignored",
    );
    same_as_stock(stock_with("<inotify>", "<inotify> -->"), "closes no comment");
    same_as_stock(stock_with("<!-- port=874 -->", "<!-- -- port -- 874 --->"), "");
    same_as_stock(stock_with("<inotify>", "<inotify><![CDATA[x]]>"), "ignored");
}

#[test]
fn comments_in_comments_are_told() {
    same_as_stock(
        stock_with("<!-- port=874 -->", "<!-- a <!-- port=874 -->"),
        "comment begins inside a comment",
    );
    let swallowed = read(stock_with("<!-- port=874 -->", "<!-- port=874"));
    assert_eq!(swallowed.config, read(STOCK).config);
    let lines = swallowed.warning_lines();
    assert!(
        lines[0].contains("`<timeout start=\"false\" time=\"100\"/>` is part of it"),
        "{lines:?}"
    );
}

#[test]
fn values_in_other_quotation_marks_or_none_are_read() {
    same_as_stock(STOCK.replace('"', "'"), "");
    same_as_stock(stock_with("start=\"false\"", "start=false"), "no quotation marks");
    same_as_stock(stock_with("ip=\"127.0.0.1\"", "ip=“127.0.0.1”"), "full-width");
    same_as_stock(stock_with("ip=\"127.0.0.1\"", "ip=\"127.0.0.1”"), "full-width");
    same_as_stock(stock_with("ip=\"127.0.0.1\"", "ip＝＂127.0.0.1＂"), "full-width");
}

#[test]
fn attributes_may_touch_repeat_and_be_unknown() {
    same_as_stock(stock_with("\" name=\"tongbu1\"", "\"name=\"tongbu1\""), "");
    same_as_stock(stock_with("name=\"tongbu1\"", "name=\"tongbu1\" name=\"b\""), "a second time");
    same_as_stock(stock_with("name=\"tongbu1\"", "name=\"tongbu1\" weight=\"3\""), "not known");
    same_as_stock(stock_with("name=\"tongbu1\"", "name=\"tongbu1\" weight"), "not known");
    same_as_stock(stock_with("watch=\"/opt", "Watch=\"/opt"), "is read as watch");
}

#[test]
fn tags_may_stand_in_any_letter_case() {
    same_as_stock(
        STOCK.replace("closeWrite", "closewrite"),
        "<closewrite> is read as <closeWrite>",
    );
    same_as_stock(STOCK.replace("localpath", "LocalPath"), "<LocalPath> is read as <localpath>");
    same_as_stock(STOCK.replacen("</inotify>", "</INOTIFY>", 1), "");
}

#[test]
fn blanks_around_values_are_dropped() {
    same_as_stock(stock_with("\"tongbu1\"", "\" tongbu1 \""), "blanks around");
    same_as_stock(stock_with("\"/opt/tongbu\"", "\"/opt/tongbu/ \""), "blanks around");
    same_as_stock(stock_with("\"127.0.0.1\"", "\"\t127.0.0.1\""), "blanks around");
    same_as_stock(stock_with("\"false\"", "\" false \""), "");
    same_as_stock(stock_with("\"-artuz\"", "\" -artuz \""), "");
}

#[test]
fn true_and_false_may_be_large() {
    same_as_stock(stock_with("<delete start=\"true\"", "<delete start=\"TRUE\""), "read as true");
}

#[test]
fn entities_are_read_and_a_lone_ampersand_is_told() {
    same_as_stock(stock_with("\"/opt/tongbu\"", "\"&#47;opt&#x2f;tongbu\""), "");
    let loaded = read(stock_with("\"tongbu1\"", "\"a&b&amp;c\""));
    assert_eq!(loaded.config.mirrors[0].remotes[0].destination.name(), "a&b&c");
    assert!(loaded.warning_lines()[0].contains("`&` begins no known entity"));
}

#[test]
fn sections_may_be_missing_or_closed_at_once() {
    let short = "<head><sersync><localpath watch='/a'><remote ip='h' name='m'/></localpath>\
                 <rsync><commonParams params='-artuz'/></rsync></sersync></head>";
    let config = read(short).config;
    assert_eq!(read(short).warning_lines(), Vec::<String>::new());
    let stock = read(STOCK).config;
    let same = Config { mirrors: config.mirrors.clone(), plugins: config.plugins.clone(), ..stock };
    assert_eq!(config, same);
    for section in ["host", "debug", "fileSystem", "filter", "inotify"] {
        let text = short.replace("<sersync>", &format!("<{section}/><sersync>"));
        assert_eq!(read(&text).config, config, "{section}");
        assert_eq!(read(&text).warning_lines(), Vec::<String>::new(), "{section}");
    }
    same_as_stock(stock_with("xfs=\"false\"", "xfs=\"true\""), "");
    for section in ["failLog", "crontab"] {
        let text = short.replace("<rsync>", &format!("<{section}/><rsync>"));
        assert_eq!(read(&text).config, config, "{section}");
    }
}

#[test]
fn a_switch_without_start_is_off_and_told() {
    same_as_stock(
        stock_with("<timeout start=\"false\"", "<timeout"),
        "the attribute is missing, so it is off",
    );
    same_as_stock(stock_with("<filter start=\"false\"", "<filter"), "so it is off");
}

#[test]
fn sections_may_stand_in_the_wrong_place() {
    let moved = STOCK.replace("<sersync>", "").replace("</sersync>", "");
    let moved = moved.replace("<plugin start=\"false\" name=\"command\"/>", "");
    same_as_stock(moved, "<localpath> stands in <head>");
    same_as_stock(
        stock_with("<rsync>", "").replacen("</rsync>", "", 1),
        "<commonParams> stands in <sersync>",
    );
    same_as_stock(STOCK.replace("head", "config"), "the root element is `config`");
}

#[test]
fn the_first_of_two_sections_counts() {
    let twice =
        stock_with("<debug start=\"false\"/>", "<debug start=\"false\"/><debug start=\"true\"/>");
    same_as_stock(twice, "a second time");
    let twice = stock_with("<sersync>", "<inotify><delete start='false'/></inotify><sersync>");
    same_as_stock(twice, "a second time");
}

#[test]
fn unknown_elements_are_ignored_with_a_suggestion() {
    same_as_stock(
        stock_with("<inotify>", "<inotify><modfy start=\"true\"/>"),
        "did you mean <modify>?",
    );
    same_as_stock(stock_with("<inotify>", "<compress level=\"3\"/><inotify>"), "not known");
    for (inside, misspelt, words) in [
        ("<sersync>", "<inotfy/>", "did you mean <inotify>? it belongs into <head>"),
        (
            "<head version=\"2.5\">",
            "<comonParams/>",
            "did you mean <commonParams>? it belongs into <rsync>",
        ),
        ("<rsync>", "<closewrit/>", "did you mean <closeWrite>? it belongs into <inotify>"),
        ("<rsync>", "<include/>", "it belongs into <filter>"),
        ("<rsync>", "<compression/>", "known here: <commonParams>, <auth>"),
    ] {
        same_as_stock(stock_with(inside, &format!("{inside}{misspelt}")), words);
    }
    same_as_stock(format!("{STOCK}<extra/>"), "outside of <head>");
}

#[test]
fn a_misspelt_element_is_told_once_and_not_again_for_its_end_tag() {
    let text = stock_with("<inotify>", "<inotfy></inotify><inotify>");
    let lines = read(text).warning_lines();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("inotfy")).collect();
    assert!(told.len() == 1 && told[0].contains("is not known"), "{lines:#?}");
}
