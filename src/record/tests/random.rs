//! Random histories of changes, deliveries, merges and kills: each start must report everything that differs.
//! `tests.rs` holds the single cases.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Write(String),
    MakeDir(String),
    Remove(String),
    Rename(String, String),
    Deliver(Vec<(String, Scope)>),
    Merge,
    /// The program is killed and started again.
    Restart,
}

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("b"), Just("a-")];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let item = (name(), prop_oneof![4 => Just(ENTRY), 1 => Just(Scope::Listing), 1 => Just(TREE)]);
    prop_oneof![
        4 => name().prop_map(Step::Write),
        2 => name().prop_map(Step::MakeDir),
        2 => name().prop_map(Step::Remove),
        2 => (name(), name()).prop_map(|(a, b)| Step::Rename(a, b)),
        4 => prop::collection::vec(item, 1..4).prop_map(Step::Deliver),
        1 => Just(Step::Merge),
        1 => Just(Step::Restart),
    ]
}

/// Path -> content; `None` for a directory.
type Copy = BTreeMap<String, Option<String>>;

fn read_tree(top: &Path) -> Copy {
    let mut copy = Copy::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(top.join(&dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{dir}{name}");
            let content = fs::read_to_string(top.join(&path)).ok();
            if content.is_none() {
                todo.push(format!("{path}/"));
            }
            copy.insert(path, content);
        }
    }
    copy
}

fn is_within(path: &str, top: &str) -> bool {
    top.is_empty() || path == top || path.starts_with(&format!("{top}/"))
}

/// Does what rsync does with a listed path: makes the copy's path equal to the tree's, and its parent directories.
fn send(copy: &mut Copy, disk: &Copy, top: &str, scope: Scope) {
    let is_dir = |tree: &Copy| top.is_empty() || tree.get(top).is_some_and(Option::is_none);
    let keeps_below = scope != TREE && is_dir(disk) && is_dir(copy);
    let has_name = |path: &str| {
        let below = path[top.len()..].trim_start_matches('/');
        let name = below.split('/').next().unwrap_or_default();
        disk.contains_key(&if top.is_empty() { name.into() } else { format!("{top}/{name}") })
    };
    copy.retain(|path, _| {
        let kept = || keeps_below && path != top && (scope == ENTRY || has_name(path));
        !is_within(path, top) || kept()
    });
    for (path, content) in disk {
        let sent = match scope {
            Scope::Entry => path == top,
            Scope::Listing => {
                path == top || path.rsplit_once('/').map_or("", |(dir, _)| dir) == top
            }
            Scope::Tree => is_within(path, top),
        };
        let above = disk.contains_key(top) && is_within(top, path);
        if sent || above {
            if content.is_some() {
                copy.retain(|p, _| !is_within(p, path));
            } else if copy.get(path).is_some_and(Option::is_some) {
                copy.remove(path);
            }
            copy.insert(path.clone(), content.clone());
        }
    }
}

/// Applies one step to the tree; ignores a step that is impossible.
fn change_tree(bed: &Bed, step: &Step, version: usize) {
    let _ = match step {
        Step::Write(name) => {
            let _ = bed.at(name).parent().map(fs::create_dir_all);
            fs::write(bed.at(name), format!("{version:05}"))
        }
        Step::MakeDir(name) => fs::create_dir_all(bed.at(name)),
        Step::Remove(name) => {
            fs::remove_file(bed.at(name)).or_else(|_| fs::remove_dir_all(bed.at(name)))
        }
        Step::Rename(from, to) => fs::rename(bed.at(from), bed.at(to)),
        _ => Ok(()),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_start_names_all_that_differs(steps in prop::collection::vec(step(), 1..40)) {
        let bed = Bed::new(&[]);
        let (_, _, mut record) = bed.start();
        let mut copy = Copy::new();
        for (version, step) in steps.iter().chain([&Step::Restart]).enumerate() {
            change_tree(&bed, step, version);
            match step {
                Step::Deliver(items) => {
                    let items: Vec<_> = items.iter().map(|(p, s)| (p.as_str(), *s)).collect();
                    bed.deliver(&mut record, &items);
                    let disk = read_tree(bed.tree.path());
                    for (path, scope) in items {
                        send(&mut copy, &disk, path, scope);
                    }
                }
                Step::Merge => {
                    record.merge_above = 0;
                    if let Some(merger) = record.start_merge() {
                        record.merged(merger.run());
                    }
                }
                Step::Restart => {
                    drop(record);
                    let (survey, found, again) = bed.start();
                    record = again;
                    prop_assert_eq!(survey.unknown, None);
                    let disk = read_tree(bed.tree.path());
                    for (path, scope) in &found {
                        send(&mut copy, &disk, path, *scope);
                    }
                    prop_assert_eq!(&copy, &disk, "found {:?}", found);
                }
                _ => {}
            }
        }
    }
}
