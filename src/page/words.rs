//! The table of sentences in `page.html`, as the tests of those who write the sentences read it.
//! The page itself reads it in its script.

use regex::Regex;

use super::routes::PAGE;

/// True when the page has this sentence of the program in Chinese.
pub fn are_known(said: &str) -> bool {
    let said = said.strip_prefix("ALARM: ").unwrap_or(said);
    table().iter().any(|(english, _)| matcher(english).is_match(said))
}

fn table() -> Vec<(String, String)> {
    let lines = PAGE.lines().filter(|line| line.starts_with("  [\""));
    lines.map(|line| serde_json::from_str(line.trim().trim_end_matches(',')).unwrap()).collect()
}

fn matcher(english: &str) -> Regex {
    let pieces: Vec<String> = english.split('{').map(after_a_name).collect();
    Regex::new(&format!("(?s)^{}$", pieces.join(".*"))).unwrap()
}

fn after_a_name(piece: &str) -> String {
    regex::escape(piece.split_once('}').map_or(piece, |(_, rest)| rest))
}

#[test]
fn a_translation_names_nothing_that_the_sentence_does_not_have() {
    let names = |text: &str| -> Vec<String> {
        let names = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    assert!(table().len() > 100);
    for (english, chinese) in table() {
        let (mut has, mut uses) = (names(&english), names(&chinese));
        has.sort_unstable();
        uses.sort_unstable();
        assert_eq!(has, uses, "{english}");
    }
}
