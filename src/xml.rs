//! The lenient reader: turns XML that people wrote by hand into a tree of known elements with their positions.
//! Reports oddities as problems. It knows no element by name; `config` does.

pub mod attributes;
pub mod parser;
pub mod report;
pub mod schema;
pub mod text;
pub mod text_between;
