//! The lenient reader: XML as people write it by hand -> a tree of known elements, each with its place.
//! Oddities become problems for people. It knows no element by name; `config` does.

pub mod attributes;
pub mod parser;
pub mod report;
pub mod schema;
pub mod text;
pub mod text_between;
