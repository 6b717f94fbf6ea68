//! Words in messages to people: quotes them safely for a terminal, and finds the known word that was meant.
//! Has no word list of its own.

use std::fmt;

use super::printable::write_char;

/// `text` for a message: in back quotes, short, and without control characters.
pub fn quoted(text: &str) -> impl fmt::Display + '_ {
    Quoted(text)
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS: usize = 80;
        f.write_str("`")?;
        for c in self.0.chars().take(SHOWN_CHARS) {
            write_char(f, c)?;
        }
        if self.0.chars().nth(SHOWN_CHARS).is_some() {
            f.write_str("...")?;
        }
        f.write_str("`")
    }
}

/// The known word that `word` most probably stands for: equal except for letter case, or nearly equal.
pub fn near_word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let length = word.chars().count();
    let limit = if length < 5 { 1 } else { 2 };
    known
        .into_iter()
        // Words of very different length are never near, so skip the comparison for most.
        .filter(|k| k.chars().count().abs_diff(length) <= limit)
        .map(|k| (distance(&word, &k.to_ascii_lowercase()), k))
        .filter(|&(distance, k)| distance <= limit && distance < k.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, k)| k)
}

/// Edit distance in which a swap of two neighbouring characters counts once (`flase` to `false` is 1).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(near_word("closewrite", ["closeWrite"]), Some("closeWrite"));
        assert_eq!(near_word("flase", ["true", "false"]), Some("false"));
        assert_eq!(near_word("ture", ["true", "false"]), Some("true"));
        assert_eq!(near_word("banana", ["true", "false"]), None);
        assert_eq!(near_word("x", ["a"]), None);
    }

    #[test]
    fn quoted_text_cannot_play_with_the_terminal() {
        assert_eq!(quoted("a\x1b[2J").to_string(), "`a\\u{1b}[2J`");
    }
}
