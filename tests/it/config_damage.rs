//! Valid files with any mix of tolerated damage keep their meaning; any other damage ends in a report.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use proptest::prelude::*;
use sersync::config::{LoadOptions, load_bytes};

use crate::config_lenient::{STOCK, read};

/// A deterministic stream of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// Keys whose values keep their blanks, or must not be next to the end of a tag.
const EXACT_KEYS: [&str; 7] =
    ["expression", "match", "username", "passwd", "prefix", "suffix", "base"];

/// Rewrites a valid file with damage that must not change its meaning.
fn damage(text: &str, choices: &mut Choices) -> Vec<u8> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (end, is_comment) = match rest.starts_with("<!--") {
            true => (rest.find("-->").unwrap() + 3, true),
            false => (rest.find('>').unwrap() + 1, false),
        };
        let tag = &rest[..end];
        rest = &rest[end..];
        match () {
            () if is_comment => out.push_str(&tag.replacen(
                "<!--",
                ["<!--", "<!-- -- "][choices.below(2) as usize],
                1,
            )),
            () if tag.starts_with("<?") => out.push_str(tag),
            () => damage_tag(tag, &mut out, choices),
        }
        if rest.starts_with(['\n', '\r']) && out.contains("<head") && !tag.starts_with("</head") {
            let remarks =
                ["", "", "", " # 备注 remark", " -->", " <!-- x -- -->", "<later a='1'/>"];
            out.push_str(remarks[choices.below(7) as usize]);
        }
    }
    out.push_str(rest);
    if choices.below(2) == 0 {
        out = out.replace('\n', "\r\n");
    }
    match choices.below(3) {
        0 => [b"\xef\xbb\xbf", out.as_bytes()].concat(),
        1 => encoding_rs::GBK.encode(&out).0.into_owned(),
        _ => out.into_bytes(),
    }
}

fn damage_tag(tag: &str, out: &mut String, choices: &mut Choices) {
    let mut parts = tag.split('"');
    let head = parts.next().unwrap();
    let name_len = head[1..].find([' ', '\t', '/', '>']).filter(|&at| at > 0);
    let name_len = name_len.unwrap_or(head.len() - 1 - usize::from(head.ends_with('>')));
    let name = &head[..name_len + 1];
    match choices.below(4) {
        0 => out.push_str(&name.to_uppercase()),
        _ => out.push_str(name),
    }
    let mut before = &head[name_len + 1..];
    let mut wrote = String::new();
    while let Some(value) = parts.next() {
        let key = before.trim().trim_end_matches('=');
        let blank = ["", " ", "\t", "\n  "][choices.below(4) as usize];
        let blank =
            if wrote.is_empty() || wrote.ends_with(char::is_alphanumeric) { " " } else { blank };
        wrote.push_str(blank);
        wrote.push_str(key);
        wrote.push_str(["=", " = "][choices.below(2) as usize]);
        let exact = EXACT_KEYS.contains(&key);
        let bare = !value.is_empty() && !value.contains(' ') && !value.ends_with('/');
        match choices.below(8) {
            0 if bare => wrote.push_str(&format!("{value} ")),
            1 => wrote.push_str(&format!("'{value}'")),
            2 => wrote.push_str(&format!("“{value}”")),
            3 if !exact => wrote.push_str(&format!("\" {value}\t\"")),
            4 => wrote.push_str(&format!("\"{}\"", value.replace('/', "&#47;"))),
            5 => wrote.push_str(&format!("\"{value}\" {key}=\"repeated\"")),
            6 => wrote.push_str(&format!("\"{value}\" later=\"x\"")),
            _ => wrote.push_str(&format!("\"{value}\"")),
        }
        before = parts.next().unwrap();
    }
    out.push_str(&wrote);
    out.push_str(before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_means_what_the_good_one_means(seed in any::<u64>(), which in 0usize..6) {
        let good = [
            STOCK,
            include_str!("../data/legacy-configs/06.xml"),
            include_str!("../data/legacy-configs/10.xml"),
            include_str!("../data/legacy-configs/18.xml"),
            include_str!("../data/legacy-configs/21.xml"),
            include_str!("../data/legacy-configs/11.xml"),
        ][which];
        let expected = read(good).config;
        let damaged = damage(good, &mut Choices(seed));
        match load_bytes("t.xml", &damaged, &LoadOptions::default()) {
            Ok(loaded) => prop_assert_eq!(loaded.config, expected),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_end_in_a_configuration_or_a_report(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = load_bytes("t.xml", &bytes, &LoadOptions::default()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_file_with_a_piece_cut_out_never_crashes_the_reader(start in 0usize..2300, len in 0usize..400, put in "[<>\"'&!/ a-]{0,4}") {
        let start = start.min(STOCK.len());
        let end = (start + len).min(STOCK.len());
        let text = [&STOCK[..start], &put, &STOCK[end..]].concat();
        if let Err(error) = load_bytes("t.xml", text.as_bytes(), &LoadOptions::default()) {
            prop_assert!(error.to_string().contains("t.xml"));
        }
    }
}
