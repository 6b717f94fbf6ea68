//! The lenient reader: XML as people write it by hand -> a tree of known elements, each with its place.
//! What is odd becomes a problem for people. It knows no element by name: that is the business of `config`.

pub mod attributes;
pub mod parser;
pub mod report;
pub mod schema;
pub mod text;
pub mod text_between;
