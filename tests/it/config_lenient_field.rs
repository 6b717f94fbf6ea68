//! Files as copied from blogs, editors and terminals: each loads with the stock file's meaning, or the refusal tells what to do.

use crate::config_lenient::{STOCK, read};
use crate::config_refusals::refused;

/// Asserts that `text` means the stock file, and that every warning has its position.
fn same_as_stock(text: &[u8]) {
    let loaded = read(text);
    assert_eq!(loaded.config, read(STOCK).config);
    for line in loaded.warning_lines() {
        assert!(line.starts_with("t.xml:"), "{line}");
    }
}

fn with(from: &str, to: &str) -> Vec<u8> {
    assert!(STOCK.contains(from), "{from}");
    STOCK.replacen(from, to, 1).into_bytes()
}

#[test]
fn what_stands_around_the_file_in_a_blog_or_terminal_is_read_over() {
    for (before, after) in [
        ("```xml\n", "\n```\n"),
        ("[root@web01 ~]# cat confxml.xml\n", "[root@web01 ~]#\n"),
        ("-", ""),
        ("\n\n", ""),
        ("", "\u{1a}"),
        ("\u{feff}", "\n\n\n"),
    ] {
        same_as_stock(format!("{before}{STOCK}{after}").as_bytes());
    }
    let numbered: String =
        STOCK.lines().enumerate().map(|(i, line)| format!("{:3} {line}\n", i + 1)).collect();
    same_as_stock(numbered.as_bytes());
}

#[test]
fn heads_of_every_kind_are_read() {
    let body = STOCK.split_once("?>").unwrap().1.trim_start();
    same_as_stock(body.as_bytes());
    for head in [
        "<?xml version='1.1'?>",
        "<?xml version=\"1.0\" encoding=\"gb2312\"?>",
        "<?xml version=\"1.0\"?><!DOCTYPE head>",
    ] {
        same_as_stock(format!("{head}\n{body}").as_bytes());
    }
    same_as_stock(&with("<head version=\"2.5\">", "<head>"));
}

#[test]
fn remarks_in_the_manner_of_other_languages_are_read_over() {
    for remark in
        ["// 事件", "/* 事件 */", "; 事件", "<--- 远程地址", "← here", "<! port=874 >", ";"]
    {
        same_as_stock(&with("<inotify>", &format!("{remark}\n<inotify>")));
        same_as_stock(&with("<ssh start=\"false\"/>", &format!("<ssh start=\"false\"/> {remark}")));
    }
}

#[test]
fn blanks_of_chinese_keyboards_are_blanks() {
    for blank in ["\u{3000}", "\u{a0}", "\t"] {
        same_as_stock(&with("\" name=\"tongbu1\"", &format!("\"{blank}name=\"tongbu1\"")));
        same_as_stock(&with("<inotify>", &format!("{blank}<inotify>")));
    }
    same_as_stock(&with("ip=\"127.0.0.1\"", "ip = \"127.0.0.1\""));
    same_as_stock(STOCK.replace('"', "”").as_bytes());
    same_as_stock(&with("ip=\"127.0.0.1\"", "IP=‘127.0.0.1’"));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_write() {
    for (from, to, words) in [
        ("\"-artuz\"", "\"-artuz --exclude=\"*.log\"\"", "write ' or &quot;"),
        ("\"-artuz\"", "\"-artuz --exclude=\"log\"\"", "write ' or &quot;"),
        ("name=\"tongbu1\"", "name=\"::tongbu1\"", "write name=\"tongbu1\""),
        ("timeToExecute=\"60\"", "timeToExecute=\"60min\"", "write the number alone, such as 60"),
        ("<delete start=\"true\"/>", "<delete start=\"yes\"/>", "did you mean true?"),
        ("<filter start=\"false\">", "<filter start=\"off\">", "did you mean false?"),
        ("watch=\"/opt/tongbu\"", "watch=\"$1\"", "no absolute path"),
        ("watch=\"/opt/tongbu\"", "watch=\"~/www\"", "write the directory's full path"),
        ("watch=\"/opt/tongbu\"", "watch=\"D:\\www\"", "no absolute path"),
        ("ip=\"127.0.0.1\"", "ip=\"{{ backup_ip }}\"", "a placeholder that was never filled in"),
    ] {
        refused(from, to, &[words]);
    }
}

#[test]
fn a_second_directory_and_a_user_in_the_address_are_understood() {
    let second =
        "</localpath>\n<localpath watch=\"/srv\"><remote ip=\"h\" name=\"m\"/></localpath>";
    assert_eq!(read(with("</localpath>", second)).config.mirrors.len(), 2);
    let commented = with(
        "<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>",
        "<!--<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>--><remote ip=\"10.0.0.2\" name=\"b\"/>",
    );
    assert_eq!(read(commented).config.mirrors[0].remotes[0].destination.to_string(), "10.0.0.2::b");
}
