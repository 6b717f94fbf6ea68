//! What elements and attributes a file may hold, told by a table, and the walk that finds them.
//! Names unknown here are reported with a suggestion and ignored; values are not looked at.

use std::collections::BTreeMap;

use super::parser::Element;
use super::report::{Problem, Problems};
use super::text::Span;
use crate::ground::words::{near_word, quoted};

/// One element that may stand in a file.
#[derive(Debug)]
pub struct Kind {
    /// In its right letter case.
    pub name: &'static str,
    /// Names of its attributes.
    pub attributes: &'static [&'static str],
    /// What may stand inside.
    pub children: &'static [&'static Kind],
    /// True when it may be repeated.
    pub many: bool,
}

/// The value of one attribute, or the place where it is missing.
#[derive(Debug, Clone)]
pub struct Field {
    /// The element's name, for messages.
    pub element: &'static str,
    /// The attribute's name, for messages.
    pub key: &'static str,
    /// As written, entities decoded; `None` when the attribute is missing.
    pub text: Option<String>,
    /// The value, or the start tag when it is missing.
    pub span: Span,
}

/// An element that the schema knows.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: &'static Kind,
    /// Its start tag.
    pub span: Span,
    fields: Vec<Field>,
    /// In the order of the file, by name.
    children: BTreeMap<&'static str, Vec<Node>>,
}

impl Node {
    /// The attribute `key`, which the schema must know.
    pub fn field(&self, key: &'static str) -> Field {
        debug_assert!(self.kind.attributes.contains(&key));
        let written = self.fields.iter().find(|field| field.key == key);
        written.cloned().unwrap_or(Field {
            element: self.kind.name,
            key,
            text: None,
            span: self.span.clone(),
        })
    }

    /// The attribute `key` if it is in the file.
    pub fn written(&self, key: &'static str) -> Option<Field> {
        Some(self.field(key)).filter(|field| field.text.is_some())
    }

    /// The first child of this name, which the schema must know.
    pub fn child(&self, name: &'static str) -> Option<&Node> {
        self.all(name).next()
    }

    /// The same; when it is not in the file, an empty one at the place of its parent.
    pub fn part(&self, name: &'static str) -> Node {
        let absent =
            || find(self.kind.children, name).map(|kind| Node::absent(kind, self.span.clone()));
        self.child(name).cloned().or_else(absent).unwrap_or_else(|| self.clone())
    }

    /// All children of this name, which the schema must know.
    pub fn all(&self, name: &'static str) -> impl Iterator<Item = &Node> {
        debug_assert!(find(self.kind.children, name).is_some());
        self.children.get(name).into_iter().flatten()
    }

    /// True when it has neither attributes nor children that we know.
    pub fn is_bare(&self) -> bool {
        self.fields.is_empty() && self.children.is_empty()
    }

    /// Adds children that stood elsewhere; of those that may stand once only the first is kept.
    pub fn adopt(&mut self, nodes: Vec<Node>, problems: &mut Problems) {
        for node in nodes {
            self.add(node, problems);
        }
    }

    fn add(&mut self, node: Node, problems: &mut Problems) {
        let name = node.kind.name;
        let same = self.children.entry(name).or_default();
        if same.is_empty() || node.kind.many {
            return same.push(node);
        }
        let sentence = format!("<{name}> stands here a second time; the first one counts");
        problems.push(Problem::warning(node.span, sentence).help("remove one of them"));
    }

    /// Its children, for a place where they belong.
    pub fn into_children(self) -> Vec<Node> {
        self.children.into_values().flatten().collect()
    }

    /// An element that is not in the file.
    pub fn absent(kind: &'static Kind, span: Span) -> Self {
        Self { kind, span, fields: Vec::new(), children: BTreeMap::new() }
    }
}

/// Takes `element` as one of `kind`. Children that belong directly into another one of `containers` go to `strays`.
pub fn walk(
    element: &Element,
    kind: &'static Kind,
    containers: &'static [&'static Kind],
    strays: &mut Vec<Node>,
    problems: &mut Problems,
) -> Node {
    let mut node = Node {
        kind,
        span: element.span.clone(),
        fields: fields(element, kind, problems),
        children: BTreeMap::new(),
    };
    for child in &element.children {
        if let Some(child_kind) = find(kind.children, &child.name) {
            note_case(child, child_kind, problems);
            let taken = walk(child, child_kind, containers, strays, problems);
            node.add(taken, problems);
        } else if let Some((home, child_kind)) = find_home(containers, &child.name) {
            problems.push(misplaced(child, child_kind, home, kind));
            let taken = walk(child, child_kind, containers, strays, problems);
            strays.push(taken);
        } else {
            problems.push(unknown_element(child, kind, containers));
        }
    }
    node
}

/// The kind called `name`, in any letter case.
pub fn find(kinds: &'static [&'static Kind], name: &str) -> Option<&'static Kind> {
    kinds.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)).copied()
}

/// The container in which `name` should stand, and its kind there.
pub fn find_home(
    containers: &'static [&'static Kind],
    name: &str,
) -> Option<(&'static Kind, &'static Kind)> {
    let home_of = |home: &&'static Kind| Some((*home, find(home.children, name)?));
    containers.iter().find_map(home_of)
}

/// Everything that may stand somewhere below `kind`: where, and what.
fn places_below(kind: &'static Kind) -> Vec<(&'static Kind, &'static Kind)> {
    let one = |child: &&'static Kind| {
        let mut places = vec![(kind, *child)];
        places.extend(places_below(child));
        places
    };
    kind.children.iter().flat_map(one).collect()
}

fn fields(element: &Element, kind: &'static Kind, problems: &mut Problems) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for attribute in &element.attributes {
        let written = attribute.name.as_str();
        let same = |key: &&&str| key.eq_ignore_ascii_case(written);
        let Some(&key) = kind.attributes.iter().find(same) else {
            problems.push(unknown_attribute(written, &attribute.name_span, kind));
            continue;
        };
        if key != written {
            let sentence = format!("the attribute {} is read as {key}", quoted(written));
            problems.push(Problem::warning(attribute.name_span.clone(), sentence));
        }
        if fields.iter().any(|field| field.key == key) {
            let sentence =
                format!("{key} is given a second time in <{}>; the first value counts", kind.name);
            problems.push(Problem::warning(attribute.name_span.clone(), sentence));
            continue;
        }
        let Some(value) = &attribute.value else {
            let sentence = format!("the attribute {key} of <{}> has no value", kind.name);
            problems.push(
                Problem::error(attribute.name_span.clone(), sentence)
                    .help(format!("write {key}=\"...\"")),
            );
            continue;
        };
        fields.push(Field {
            element: kind.name,
            key,
            text: Some(value.clone()),
            span: attribute.value_span.clone(),
        });
    }
    fields
}

fn note_case(element: &Element, kind: &Kind, problems: &mut Problems) {
    if element.name != kind.name {
        let sentence = format!("<{}> is read as <{}>", element.name, kind.name);
        problems.push(Problem::warning(element.name_span.clone(), sentence));
    }
}

fn misplaced(element: &Element, kind: &Kind, home: &Kind, here: &Kind) -> Problem {
    let (name, here, home) = (kind.name, here.name, home.name);
    Problem::warning(
        element.name_span.clone(),
        format!("<{name}> stands in <{here}>; it is read as if it stood in <{home}>"),
    )
    .help(format!("move it into <{home}>"))
}

fn unknown_element(element: &Element, parent: &Kind, all: &'static [&'static Kind]) -> Problem {
    let found = quoted(&element.name);
    let sentence = format!("the element {found} in <{}> is not known and is ignored", parent.name);
    let problem = Problem::warning(element.name_span.clone(), sentence);
    let known = || parent.children.iter().map(|kind| kind.name);
    let places: Vec<_> = all.iter().flat_map(|kind| places_below(kind)).collect();
    let home = |name: &str| places.iter().find(|(_, kind)| kind.name.eq_ignore_ascii_case(name));
    if let Some((home, _)) = home(&element.name) {
        return problem.help(format!("it belongs into <{}>", home.name));
    }
    if let Some(near) = near_word(&element.name, known()) {
        return problem.help(format!("did you mean <{near}>?"));
    }
    let elsewhere = near_word(&element.name, places.iter().map(|(_, kind)| kind.name));
    if let Some((home, kind)) = elsewhere.and_then(home) {
        return problem
            .help(format!("did you mean <{}>? it belongs into <{}>", kind.name, home.name));
    }
    if parent.children.is_empty() {
        return problem;
    }
    let known: Vec<_> = known().map(|name| format!("<{name}>")).collect();
    problem.help(format!("known here: {}", known.join(", ")))
}

fn unknown_attribute(name: &str, span: &Span, kind: &Kind) -> Problem {
    let found = quoted(name);
    let sentence = format!("the attribute {found} of <{}> is not known and is ignored", kind.name);
    let problem = Problem::warning(span.clone(), sentence);
    match near_word(name, kind.attributes.iter().copied()) {
        Some(near) => problem.help(format!("did you mean {near}?")),
        None if kind.attributes.is_empty() => problem,
        None => problem.help(format!("known here: {}", kind.attributes.join(", "))),
    }
}
