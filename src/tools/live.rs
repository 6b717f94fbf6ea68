//! `sersync2 events` without a running instance: shows each change below the watch paths, and what sersync would do with it.
//! Sends nothing, and keeps no state.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::unbounded;
use jiff::Zoned;
use serde_json::{Value, json};

use crate::change::{Cause, Change, RootId, WatchEvent};
use crate::config::load::Loaded;
use crate::config::{self, ChangeSwitches, LoadOptions};
use crate::filter::Filter;
use crate::rsync::quoted;
use crate::tools::output::Output;
use crate::tools::rule_words::words_for;
use crate::watch::steps::FreshPaths;
use crate::watch::{WatchOptions, Watcher};

/// The command line or the configuration is wrong, or nothing can be watched.
pub const NOTHING_SHOWN: u8 = 3;

/// How often directories without a watch are listed again.
const RESCAN: std::time::Duration = std::time::Duration::from_secs(60);

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStyle {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What sersync would do with a change.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The path is pending for every remote.
    Pending,
    /// Pending, as a later step of a recent change of the same path.
    Step,
    /// Nothing, for this reason.
    Ignored(String),
}

/// Watches the configuration's watch paths and prints changes until Ctrl-C.
///
/// # Errors
/// When the configuration is wrong, or its watch paths cannot be watched.
pub fn watch(config: &Path, layout: OutputStyle) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = config::load(config, &LoadOptions::default())?;
    let filter = Filter::new(&loaded.config.filter)?;
    let mirrors = loaded.config.mirrors.iter().enumerate();
    let (sender, events) = unbounded();
    // Watch for everything, so that ignored changes can be shown with the reason.
    let everything = ChangeSwitches {
        attrib: true,
        modify: true,
        create_file: true,
        ..ChangeSwitches::default()
    };
    let _watcher = Watcher::start::<WatchEvent>(
        WatchOptions {
            roots: mirrors.map(|(id, mirror)| (RootId(id), mirror.watch.clone())).collect(),
            switches: everything,
            exclude: None,
            debug: false,
            backend: loaded.config.backend,
            rescan_interval: RESCAN,
        },
        sender,
    )?;
    let mut viewer = Viewer { loaded: &loaded, filter, layout, fresh: FreshPaths::default() };
    let mut output = Output::default();
    while let Ok(event) = events.recv() {
        viewer.show(event, output.buffer());
        if events.is_empty() {
            output.flush()?;
        }
    }
    Ok(())
}

/// Formats the events of the watch thread.
struct Viewer<'a> {
    loaded: &'a Loaded,
    filter: Filter,
    layout: OutputStyle,
    fresh: FreshPaths,
}

impl Viewer<'_> {
    fn show(&mut self, event: WatchEvent, out: &mut Vec<u8>) {
        let (root, news) = match &event {
            WatchEvent::Changed { root, changes, .. } => {
                changes.iter().for_each(|change| self.show_change(*root, change, out));
                return;
            }
            WatchEvent::Ready { root, .. } => (*root, "watched from now on".to_owned()),
            event => match event.news() {
                Some((root, None, clause)) => (root, clause),
                Some((root, Some(path), clause)) => (root, format!("{path}: {clause}")),
                None => return,
            },
        };
        let watch = self.watch(root);
        match self.layout {
            OutputStyle::Text => {
                out.extend_from_slice(format!("{} ", time()).as_bytes());
                out.extend_from_slice(&quoted(watch.as_os_str()));
                out.extend_from_slice(format!(": {news}").as_bytes());
                out.push(b'\n');
            }
            OutputStyle::Json => self.write_json(
                out,
                json!({
                    "time": time(), "watch": watch.to_string_lossy(), "news": news,
                }),
            ),
        }
    }

    fn watch(&self, root: RootId) -> PathBuf {
        self.loaded
            .config
            .mirrors
            .get(root.0)
            .map(|mirror| mirror.watch.clone())
            .unwrap_or_default()
    }

    fn show_change(&mut self, root: RootId, change: &Change, out: &mut Vec<u8>) {
        let decision = self.decide(root, change);
        let watch = self.watch(root);
        let path = change.path.below(&watch);
        let remotes =
            self.loaded.config.mirrors.get(root.0).map_or(0, |mirror| mirror.remotes.len());
        let remotes = if remotes == 1 { "1 remote".into() } else { format!("{remotes} remotes") };
        let (word, why) = match &decision {
            Decision::Pending => ("pending", format!("for {remotes}")),
            Decision::Step => ("pending", format!("for {remotes}, as a step of the change before")),
            Decision::Ignored(why) => ("ignored", why.clone()),
        };
        match self.layout {
            OutputStyle::Text => {
                let mut line = format!("{} {:<12} ", time(), change.cause.name()).into_bytes();
                line.extend_from_slice(&quoted(path.as_os_str()));
                if let Some(from) = &change.moved_from {
                    line.extend_from_slice(b" moved from ");
                    line.extend_from_slice(&quoted(from.below(&watch).as_os_str()));
                }
                line.extend_from_slice(format!(": {word} {why}\n").as_bytes());
                out.extend_from_slice(&line);
            }
            OutputStyle::Json => self.write_json(
                out,
                json!({
                    "time": time(),
                    "watch": watch.to_string_lossy(),
                    "path": name_in_json(path.as_os_str().as_bytes()),
                    "event": change.cause.name(),
                    "directory": change.is_dir,
                    "scope": change.scope.name(),
                    "moved_from": change.moved_from.as_ref()
                        .map(|from| name_in_json(from.below(&watch).as_os_str().as_bytes())),
                    "decision": word,
                    "why": why,
                }),
            ),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>, value: Value) {
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(b'\n');
    }

    /// What a running mirror would do with the change.
    fn decide(&mut self, root: RootId, change: &Change) -> Decision {
        if let Some((at, rule)) = self.filter.deciding_rule(&change.path, change.is_dir) {
            return Decision::Ignored(words_for(self.loaded, &at, rule));
        }
        let (switches, place) = (self.loaded.config.changes, (root, change.path.clone()));
        if switches.is_step(change.cause) {
            let is_fresh = self.fresh.contains(&place, now());
            return match (change.cause, is_fresh) {
                (Cause::Attrib, true) => Decision::Step,
                (Cause::Attrib, false) => Decision::Ignored("<attrib start=\"false\"/>".into()),
                _ => Decision::Ignored(
                    "<modify start=\"false\"/>: it counts when the file is closed".into(),
                ),
            };
        }
        let (switch, is_on) = switches.of(change);
        // Entries found by listing a directory have no switch.
        if !is_on && change.cause != Cause::Found {
            return Decision::Ignored(format!("<{switch} start=\"false\"/>"));
        }
        self.fresh.note(&place, now());
        Decision::Pending
    }
}

/// A name as JSON: a string, or an array of bytes when it is not UTF-8.
pub fn name_in_json(name: &[u8]) -> Value {
    std::str::from_utf8(name).map_or_else(|_| json!(name), |text| json!(text))
}

fn time() -> String {
    Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the viewer tells what is fresh, so it reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::RelPath;

    fn viewer(loaded: &Loaded) -> Viewer<'_> {
        let filter = Filter::new(&loaded.config.filter).unwrap();
        Viewer { loaded, filter, layout: OutputStyle::Text, fresh: FreshPaths::default() }
    }

    #[test]
    fn each_change_has_its_decision() {
        let file =
            br#"<head version="2.5"><filter start="true"><exclude expression="(.*)\.tmp"/></filter>
            <sersync><localpath watch="/srv"><remote ip="a" name="b"/></localpath>
            <rsync><commonParams params="-a"/></rsync></sersync></head>"#;
        let loaded = config::load_bytes("c.xml", file, &LoadOptions::default()).unwrap();
        let mut viewer = viewer(&loaded);
        let mut decide = |name: &str, cause| {
            let path = RelPath::new(name.as_bytes()).unwrap();
            viewer.decide(RootId(0), &Change::entry(path, cause))
        };
        assert!(
            matches!(decide("f", Cause::Attrib), Decision::Ignored(why) if why.contains("attrib"))
        );
        assert_eq!(decide("f", Cause::CloseWrite), Decision::Pending);
        assert_eq!(decide("f", Cause::Attrib), Decision::Step);
        assert!(
            matches!(decide("g", Cause::Create), Decision::Ignored(why) if why.contains("createFile"))
        );
        let Decision::Ignored(why) = decide("d/x.tmp", Cause::CloseWrite) else { panic!() };
        assert!(why.contains("c.xml:1:"), "{why}");
        assert!(
            matches!(decide("x~", Cause::CloseWrite), Decision::Ignored(why) if why.contains("editor"))
        );
    }
}
