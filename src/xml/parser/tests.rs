//! Tests of the XML reader.

use super::*;

/// The tree as nested names with attributes, and the problems as messages.
fn read(text: &str) -> (String, Vec<String>) {
    let mut problems = Problems::default();
    let roots = parse_elements(text, &mut problems);
    let messages = problems.into_sorted().into_iter().map(|p| p.message);
    (shown(&roots), messages.collect())
}

fn shown(elements: &[Element]) -> String {
    let one = |e: &Element| {
        let attributes = e
            .attributes
            .iter()
            .map(|a| format!(" {}={}", a.name, a.value.as_deref().unwrap_or("-")));
        format!("{}{}({})", e.name, attributes.collect::<String>(), shown(&e.children))
    };
    elements.iter().map(one).collect::<Vec<_>>().join(",")
}

#[test]
fn a_good_file_is_read_without_a_word() {
    let text =
        "<?xml version='1.0'?>\n<a x='1'>\n <b/><!-- -- <c/> -- ---><d y=\"2\"></d >\n</a>\n";
    assert_eq!(read(text), ("a x=1(b(),d y=2())".into(), vec![]));
}

#[test]
fn end_tags_match_in_any_letter_case() {
    assert_eq!(read("<a><B></b></A>").0, "a(B())");
}

#[test]
fn text_with_angle_brackets_is_no_tag() {
    let (tree, problems) = read("<a># x < y & <<b/> <填> </a>");
    assert_eq!(tree, "a(b())");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_comment_that_swallows_an_element_is_told() {
    let (tree, problems) = read("<a><!-- 1 <b/><!-- 2 --><c/></a>");
    assert_eq!(tree, "a(c())");
    assert!(problems[0].contains("`<b/>` is part of it"), "{problems:?}");
}

#[test]
fn an_unclosed_comment_is_an_error() {
    let (_, problems) = read("<a><b/></a><!-- x");
    assert!(problems[0].contains("never closed"), "{problems:?}");
}

#[test]
fn a_forgotten_quotation_mark_costs_one_tag_only() {
    let text = "<a>\n<b x=\"1/>\n<c y=\"2\"/>\n<d z=\"3\"/>\n</a>";
    let (tree, problems) = read(text);
    assert!(tree.ends_with("c y=2(),d z=3())"), "{tree}");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("quotation mark"), "{problems:?}");
    assert_eq!(read("<a><b x=\"1/><c y=\"2\"/></a>").1.len(), 1);
}

#[test]
fn a_forgotten_angle_bracket_costs_one_tag_only() {
    let (tree, problems) = read("<a>\n<b x=\"1\"\n<c y=\"2\"/>\n</a");
    assert!(tree.contains("c y=2()"), "{tree}");
    assert!(problems.iter().any(|p| p.contains("closing >")), "{problems:?}");
}

#[test]
fn a_file_of_broken_tags_is_given_up_and_stray_brackets_are_not() {
    let (_, problems) = read(&format!("<a>{}</a>", "<b\n".repeat(9_999)));
    assert!(problems.len() < 60, "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("the rest of the file")), "{problems:?}");
    let (tree, problems) = read(&format!("<a>{}<b/></a>", "<".repeat(9_999)));
    assert_eq!(tree, "a(b())");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_cut_file_names_what_is_open() {
    let (tree, problems) = read("<a><b><c/>\n");
    assert_eq!(tree, "a(b(c()))");
    assert!(problems[0].contains("<a>, <b> are not closed"), "{problems:?}");
}

#[test]
fn unclosed_and_stray_tags_are_each_told() {
    let (tree, problems) = read("<a><b><c></b></d></a>");
    assert_eq!(tree, "a(b(c()))");
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_misspelt_end_tag_closes_what_it_resembles() {
    let (tree, problems) = read("<a><exclude></exclud><b/></a>");
    assert_eq!(tree, "a(exclude(),b())");
    assert_eq!(problems.len(), 1);
}

#[test]
fn any_bytes_end_in_a_report_and_not_in_a_crash() {
    for text in [
        "<",
        "<!",
        "<!-",
        "<?",
        "</",
        "<a",
        "<a b",
        "<a b=",
        "&",
        "&#;",
        "<![CDATA[",
        "<!DOCTYPE",
        "]]>",
        "<a/><",
    ] {
        read(text);
    }
}
