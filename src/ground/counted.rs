//! Numbers with their nouns, for sentences: `1 path`, `2 paths`.
//! English only; the page has its own words.

/// The number, and the noun that fits it.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `1 path`, `2 paths`.
pub fn paths(count: u64) -> String {
    counted(count, "path", "paths")
}
