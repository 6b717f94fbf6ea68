//! Finds the elements and attributes that a table allows in a file.
//! Reports unknown names with a suggestion, and ignores them. Does not check values.

use std::collections::BTreeMap;

use super::attributes::Attribute;
use super::parser::Element;
use super::report::{Problem, Problems};
use super::text::Span;
use crate::ground::words::{near_word, quoted};

/// One element that a file may contain.
#[derive(Debug)]
pub struct ElementKind {
    /// In its right letter case.
    pub name: &'static str,
    /// Names of its attributes.
    pub attributes: &'static [&'static str],
    /// The elements that it may contain.
    pub children: &'static [&'static ElementKind],
    /// True when it may be repeated.
    pub many: bool,
    /// True when it protects files, for example from deletion. If such an element is misspelt or misplaced, the file is refused.
    pub safety: bool,
}

impl ElementKind {
    /// The base for all kinds: no name, nothing allowed.
    pub const PLAIN: Self =
        Self { name: "", attributes: &[], children: &[], many: false, safety: false };
}

/// The value of one attribute, or the position where it is missing.
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
    /// The kind of the element.
    pub kind: &'static ElementKind,
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

    /// The first child of this name; an empty one at the parent's position if it is not in the file.
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

    /// Adds children from another place in the file. If a kind may occur only once, the first is kept.
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
        let sentence = format!("<{name}> occurs a second time; the first one counts");
        problems.push(Problem::warning(node.span, sentence).help("remove one of them"));
    }

    /// Its children, to be moved to the right section.
    pub fn into_children(self) -> Vec<Node> {
        self.children.into_values().flatten().collect()
    }

    /// An element that is not in the file.
    pub fn absent(kind: &'static ElementKind, span: Span) -> Self {
        Self { kind, span, fields: Vec::new(), children: BTreeMap::new() }
    }
}

/// The walk through the elements of a file.
pub struct SchemaWalk<'a> {
    /// The elements that only group others. A child of one is also accepted in another.
    pub containers: &'static [&'static ElementKind],
    /// Safety elements that have no effect in this file, wherever they are.
    pub idle: &'static [&'static ElementKind],
    /// Elements that were found in one container and belong in another.
    pub strays: Vec<Node>,
    /// Collects the problems.
    pub problems: &'a mut Problems,
}

impl SchemaWalk<'_> {
    /// Reads `element` as one of `kind`.
    pub fn walk(&mut self, element: &Element, kind: &'static ElementKind) -> Node {
        let mut node = Node {
            kind,
            span: element.span.clone(),
            fields: fields(element, kind, self.problems),
            children: BTreeMap::new(),
        };
        for child in &element.children {
            if let Some(child_kind) = find(kind.children, &child.name) {
                note_case(child, child_kind, self.problems);
                let taken = self.walk(child, child_kind);
                node.add(taken, self.problems);
            } else if let Some((home, child_kind)) = find_home(self.containers, &child.name) {
                // In an unclosed element, the place of what follows it is a consequence.
                if !element.is_unclosed {
                    self.problems.push(misplaced(child, child_kind, home, kind));
                }
                let taken = self.walk(child, child_kind);
                self.strays.push(taken);
            } else {
                self.unknown(child, kind);
            }
        }
        node
    }

    /// Reports an element that is unknown in `parent`, and suggests what it may have been meant for.
    fn unknown(&mut self, element: &Element, parent: &'static ElementKind) {
        // `<fitler>...</filter>`: the end tag only follows the start tag.
        element.misspelt_end.iter().for_each(|end| self.problems.forget(end));
        let found = quoted(&element.name);
        let places: Vec<_> = self.containers.iter().flat_map(|kind| places_below(kind)).collect();
        let here = parent.children.iter().map(|kind| (parent, *kind));
        if let Some((kind, key)) =
            here.clone().chain(places.iter().copied()).find_map(|(_, kind)| glued(element, kind))
        {
            let sentence = format!(
                "{found} is no element: the blank between {} and {key} is missing",
                kind.name
            );
            let problem = Problem::error(element.span.clone(), sentence);
            return self
                .problems
                .push_broken(problem.help(format!("write <{} {key}=...", kind.name)));
        }
        let is_it = |(_, kind): &&(&ElementKind, &ElementKind)| {
            kind.name.eq_ignore_ascii_case(&element.name)
        };
        let near = |names: &mut dyn Iterator<Item = &'static str>| near_word(&element.name, names);
        let (meant, help) = if let Some((home, kind)) = places.iter().find(is_it) {
            (Some(*kind), Some(format!("it belongs into {}", place_of(home, parent, &places))))
        } else if let Some(name) = near(&mut here.clone().map(|(_, kind)| kind.name)) {
            (find(parent.children, name), Some(format!("did you mean <{name}>?")))
        } else if let Some(name) = near(&mut places.iter().map(|(_, kind)| kind.name)) {
            let place = places.iter().find(|(_, kind)| kind.name == name);
            let home = place.map(|(home, _)| format!(" it belongs into <{}>", home.name));
            let home = home.unwrap_or_default();
            (place.map(|(_, kind)| *kind), Some(format!("did you mean <{name}>?{home}")))
        } else {
            let known: Vec<_> = here.map(|(_, kind)| format!("<{}>", kind.name)).collect();
            (None, (!known.is_empty()).then(|| format!("known here: {}", known.join(", "))))
        };
        let says_nothing = element.attributes.is_empty() && element.children.is_empty();
        let is_idle = |kind: &ElementKind| self.idle.iter().any(|idle| idle.name == kind.name);
        let is_lost = meant.is_some_and(|kind| kind.safety && !is_idle(kind)) && !says_nothing;
        let is_misplaced = meant.is_some_and(|kind| kind.name.eq_ignore_ascii_case(&element.name));
        let fault = if is_misplaced { "has no meaning" } else { "is not known" };
        let (name, parent) = (element.name_span.clone(), parent.name);
        let mut problem = match is_lost {
            true => Problem::error(
                name,
                format!(
                    "the element {found} {fault} in <{parent}>, so its setting would have no effect"
                ),
            ),
            false => Problem::warning(
                name,
                format!("the element {found} {fault} in <{parent}> and is ignored"),
            ),
        };
        problem.help = help;
        self.problems.push(problem);
    }
}

/// `<home>`; with its own parent where an element of the same name is the wrong one: `<filter>` in `<head>` and in `<plugin>`.
fn place_of(
    home: &ElementKind,
    here: &ElementKind,
    places: &[(&'static ElementKind, &'static ElementKind)],
) -> String {
    let outer = places.iter().find(|(_, kind)| std::ptr::eq(*kind, home));
    match outer.filter(|_| home.name == here.name) {
        Some((outer, _)) => format!("the <{}> of a <{}>", home.name, outer.name),
        None => format!("<{}>", home.name),
    }
}

/// The kind and the attribute, when the blank between them is missing: `<deletestart="false"/>`.
fn glued(
    element: &Element,
    kind: &'static ElementKind,
) -> Option<(&'static ElementKind, &'static str)> {
    let rest = element.name.get(kind.name.len()..).filter(|rest| !rest.is_empty())?;
    let begins = element.name[..kind.name.len()].eq_ignore_ascii_case(kind.name);
    let key = kind.attributes.iter().find(|key| key.eq_ignore_ascii_case(rest));
    key.filter(|_| begins).map(|key| (kind, *key))
}

/// The kind called `name`, in any letter case.
pub fn find(kinds: &'static [&'static ElementKind], name: &str) -> Option<&'static ElementKind> {
    kinds.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)).copied()
}

/// The container in which `name` belongs, and its kind there.
pub fn find_home(
    containers: &'static [&'static ElementKind],
    name: &str,
) -> Option<(&'static ElementKind, &'static ElementKind)> {
    let home_of = |home: &&'static ElementKind| Some((*home, find(home.children, name)?));
    containers.iter().find_map(home_of)
}

/// Everything that may occur somewhere below `kind`: the parent kind, and the kind.
fn places_below(kind: &'static ElementKind) -> Vec<(&'static ElementKind, &'static ElementKind)> {
    let one = |child: &&'static ElementKind| {
        let mut places = vec![(kind, *child)];
        places.extend(places_below(child));
        places
    };
    kind.children.iter().flat_map(one).collect()
}

fn fields(element: &Element, kind: &'static ElementKind, problems: &mut Problems) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for attribute in &element.attributes {
        let written = attribute.name.as_str();
        let same = |key: &&&str| key.eq_ignore_ascii_case(written);
        let Some(&key) = kind.attributes.iter().find(same) else {
            unknown_attribute(attribute, element, kind, problems);
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

fn note_case(element: &Element, kind: &ElementKind, problems: &mut Problems) {
    if element.name != kind.name {
        let sentence = format!("<{}> is read as <{}>", element.name, kind.name);
        problems.push(Problem::warning(element.name_span.clone(), sentence));
    }
}

fn misplaced(
    element: &Element,
    kind: &ElementKind,
    home: &ElementKind,
    here: &ElementKind,
) -> Problem {
    let (name, here, home) = (kind.name, here.name, home.name);
    Problem::warning(
        element.name_span.clone(),
        format!("<{name}> stands in <{here}>; it is read as if it stood in <{home}>"),
    )
    .help(format!("move it into <{home}>"))
}

/// Reports an unknown attribute. It is an error if an attribute that protects files may have been meant.
fn unknown_attribute(
    attribute: &Attribute,
    element: &Element,
    kind: &ElementKind,
    problems: &mut Problems,
) {
    let found = quoted(&attribute.name);
    let near = near_word(&attribute.name, kind.attributes.iter().copied());
    let lost = near.filter(|_| kind.safety);
    if let Some(near) = lost {
        let sentence = format!(
            "the attribute {found} of <{}> is not known, so its setting would have no effect",
            kind.name
        );
        // A broken tag also hides the report of the missing attribute, which is a consequence.
        let problem = Problem::error(element.span.clone(), sentence);
        return problems.push_broken(problem.help(format!("did you mean {near}?")));
    }
    let sentence = format!("the attribute {found} of <{}> is not known and is ignored", kind.name);
    let problem = Problem::warning(attribute.name_span.clone(), sentence);
    problems.push(match near {
        Some(near) => problem.help(format!("did you mean {near}?")),
        None if kind.attributes.is_empty() => problem,
        None => problem.help(format!("known here: {}", kind.attributes.join(", "))),
    });
}
