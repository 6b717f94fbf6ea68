//! Describes a rule of the filter for people: its meaning, and its line in the configuration file.
//! Does not evaluate rules.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::config::load::Loaded;
use crate::filter::Rule;
use crate::path::RelPath;
use crate::rsync::quoted;

/// Explains why `rule` excludes `at`, which is the path itself or a directory above it.
pub fn words_for(loaded: &Loaded, at: &RelPath, rule: Rule) -> String {
    let name = quoted(OsStr::from_bytes(at.as_bytes()));
    let name = String::from_utf8_lossy(&name).into_owned();
    match rule {
        Rule::Expression(index) => format!("{name} matches {}", expression(loaded, index)),
        Rule::EditorName => format!(
            "{name} is the name of an editor's temporary file; <filter editorFiles=\"true\"> mirrors those"
        ),
        Rule::Dotfile => {
            format!(
                "{name} holds a name that begins with a dot, and <filter dotfiles=\"false\"> leaves those out"
            )
        }
    }
}

/// The expression, and its position in the file.
fn expression(loaded: &Loaded, index: usize) -> String {
    let text = loaded.config.filter.excludes.get(index).map_or("", String::as_str);
    let place = loaded.spans.excludes.get(index);
    let (line, column) = place.map_or((1, 1), |span| loaded.source.line_column(span.start));
    format!("<exclude expression=\"{text}\"/> at {}:{line}:{column}", loaded.source.name)
}
