//! Reads `<localpath>` into mirrors: what is watched. `remotes.rs` reads where it is sent.
//! Does not touch the disk.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Included, Unbounded};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::check::RsyncSection;
use super::plugins::{find_definition, watch_of};
use super::raw::RawConfig;
use super::remotes::check_remotes;
use super::spans::Spans;
use super::values::{Values, is_within};
use super::{MirrorConfig, PluginDefinitions, PluginName};
use crate::destination::{Destination, DestinationKey};
use crate::ground::words::quoted;
use crate::xml::report::Problem;
use crate::xml::schema::Field;

/// Directories whose content is the kernel's, not files to mirror.
const KERNEL_TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// All mirrors of the file; their positions are stored in `spans`. `alone` is the plugin named by `-m`.
pub fn check_local_paths(
    raw: &RawConfig,
    alone: Option<PluginName>,
    section: Option<&RsyncSection>,
    spans: &mut Spans,
    values: &mut Values<'_>,
) -> Vec<MirrorConfig> {
    if raw.sersync.child("localpath").is_none() && !plugin_has_watch(raw, alone) && !values.damaged
    {
        values.problems.push(
            Problem::error(raw.sersync.span.clone(), "no watch path: <localpath> is missing")
                .label("expected in here")
                .help(
                    "add <localpath watch=\"/dir\"><remote ip=\"...\" name=\"...\"/></localpath>",
                ),
        );
    }
    let mut mirrors: Vec<MirrorConfig> = Vec::new();
    let mut earlier = BTreeMap::new();
    for local in raw.sersync.all("localpath") {
        let written = local.field("watch");
        let watch = check_watch(&written, values);
        let remotes =
            section.map(|section| check_remotes(local, watch.as_deref(), section, values));
        let Some(watch) = watch else {
            continue;
        };
        compare_watch(&watch, &written, &mut earlier, values);
        mirrors.push(MirrorConfig { watch, remotes: remotes.unwrap_or_default() });
        spans.watches.push(written.span);
    }
    mirrors
}

/// True when the plugin that runs alone has its own watch path.
fn plugin_has_watch(raw: &RawConfig, alone: Option<PluginName>) -> bool {
    let definition = alone.and_then(|name| find_definition(raw, name));
    definition.is_some_and(|plugin| watch_of(plugin).text.is_some())
}

fn check_watch(field: &Field, values: &mut Values<'_>) -> Option<PathBuf> {
    let watch = values.absolute_path(field, "the directory to watch")?;
    let shown = watch.to_string_lossy().into_owned();
    if watch.parent().is_none() {
        let found = "/ is the whole machine, with /proc and /sys, which no rsync can mirror";
        values.refuse(field, found, "name the directory that should be mirrored");
        return None;
    }
    let in_memory = is_within(&watch, Path::new("/dev/shm"));
    let kernel_tree = KERNEL_TREES.iter().find(|tree| is_within(&watch, Path::new(tree)));
    if let Some(tree) = kernel_tree.filter(|_| !in_memory) {
        let found = format!("{} lies in {tree}, which holds no files to mirror", quoted(&shown));
        values.refuse(field, &found, "name the directory that should be mirrored");
        return None;
    }
    Some(watch)
}

/// Reports a path that occurs twice, or that shares files with another. `earlier` holds the position of each in the file.
fn compare_watch(
    watch: &Path,
    field: &Field,
    earlier: &mut BTreeMap<PathBuf, usize>,
    values: &mut Values<'_>,
) {
    if earlier.contains_key(watch) {
        let found = format!("{} is watched twice", watch.display());
        return values.refuse(field, &found, "put all its remotes into one <localpath>");
    }
    // Paths are ordered by their components, so all paths below one follow it directly.
    let below = earlier
        .range::<Path, _>((Included(watch), Unbounded))
        .take_while(|(path, _)| is_within(path, watch));
    let above = watch.ancestors().filter_map(|path| earlier.get_key_value(path));
    let sharing: Vec<_> = below.chain(above).collect();
    if let Some((first, _)) = sharing.iter().min_by_key(|(_, place)| *place) {
        let found = match sharing.len() - 1 {
            0 => format!("this path and {} lie within each other", first.display()),
            n => format!(
                "this path and {} others, {} the first of them, lie within each other",
                n + 1,
                first.display()
            ),
        };
        values.warn(field, &found, "changes in the inner one go to the remotes of both");
    }
    earlier.insert(watch.to_owned(), earlier.len());
}

/// Two watch paths with one destination delete each other's files.
pub fn check_destinations(
    mirrors: &[MirrorConfig],
    spans: &Spans,
    delete: bool,
    values: &mut Values<'_>,
) {
    let mut first: HashMap<DestinationKey, usize> = HashMap::new();
    for (i, mirror) in mirrors.iter().enumerate() {
        for remote in &mirror.remotes {
            let other = *first.entry(remote.destination.key()).or_insert(i);
            if other == i {
                continue;
            }
            let sentence = format!(
                "{} and {} go to the same place, {}",
                mirrors[other].watch.display(),
                mirror.watch.display(),
                remote.destination
            );
            let span = spans.watches.get(i).cloned().unwrap_or(0..0);
            let problem = match delete {
                true => Problem::error(span, sentence)
                    .help("a full sync of one would delete the files of the other; give each its own name"),
                false => Problem::warning(span, sentence).help("files of one name overwrite each other"),
            };
            values.problems.push(problem);
        }
    }
}

/// A full sync to a directory deletes what another watch path, or another remote, has sent below it.
pub fn warn_of_nested_destinations(
    mirrors: &[MirrorConfig],
    spans: &Spans,
    values: &mut Values<'_>,
) {
    let all = || {
        let of = |(i, mirror): (usize, &'_ MirrorConfig)| -> Vec<_> {
            mirror.remotes.iter().map(|remote| (i, remote.destination.clone())).collect()
        };
        mirrors.iter().enumerate().flat_map(of)
    };
    let by_key: HashMap<DestinationKey, (usize, Destination)> =
        all().map(|(i, destination)| (destination.key(), (i, destination))).collect();
    for (i, inner) in all() {
        let key = inner.key();
        let found = key.above().find_map(|above| Some((by_key.get(&above)?, above)));
        let Some(((outer_mirror, outer), above)) = found else { continue };
        let below = mirrors[i].watch.strip_prefix(&mirrors[*outer_mirror].watch);
        let rest = &key.as_bytes()[above.as_bytes().len()..];
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        // The inner watch path holds the same files that the outer one sends to that directory.
        if below.is_ok_and(|below| below.as_os_str().as_bytes() == rest) {
            continue;
        }
        let sentence = format!(
            "{inner} lies in {outer}, to which {} goes",
            mirrors[*outer_mirror].watch.display()
        );
        let help = "a full sync to the outer one deletes there what the inner one gets; exclude it with <filter>, or give each a place of its own";
        let span = spans.watches.get(i).cloned().unwrap_or(0..0);
        values.problems.push(Problem::warning(span, sentence).help(help));
    }
}

/// `-m NAME`: the plugin's own watch path replaces all others.
pub fn watch_alone(
    raw: &RawConfig,
    name: PluginName,
    plugins: &PluginDefinitions,
    spans: &mut Spans,
) -> Option<Vec<MirrorConfig>> {
    let watch = plugins.watch(name)?;
    spans.watches =
        find_definition(raw, name).map(|plugin| watch_of(plugin).span).into_iter().collect();
    let remotes = Vec::new();
    Some(vec![MirrorConfig { watch, remotes }])
}

/// A started refreshCDN or socket replaces the watch path by its own, as in sersync2.
pub fn replace_watch(
    raw: &RawConfig,
    name: PluginName,
    mirrors: &mut [MirrorConfig],
    spans: &mut Spans,
    values: &mut Values<'_>,
) {
    let Some(definition) = find_definition(raw, name) else {
        return;
    };
    let field = &watch_of(definition);
    // The path was checked with the definition, which reports its errors.
    let own = Values::new(values.source).absolute_path(field, "the directory to watch");
    let Some(own) = own.filter(|_| matches!(name, PluginName::RefreshCdn | PluginName::Socket))
    else {
        return;
    };
    if check_watch(field, values).is_none() {
        return;
    }
    let [mirror] = mirrors else {
        let found = "it is ignored, because there are several <localpath>";
        return values.warn(field, found, "the plugin runs for all of them");
    };
    if mirror.watch != own {
        let found = format!("it replaces the watch path {}", mirror.watch.display());
        values.warn(field, &found, "write the same path in both places");
        mirror.watch = own;
        spans.watches = vec![field.span.clone()];
    }
}
