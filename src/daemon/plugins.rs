//! Passes a change to the plugin when it has reached every remote that is up.
//! Knows which remotes still lack a change; the plugin itself runs on its own thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::BoxError;
use crate::change::{Change, RemoteId, RootId, Scope};
use crate::config::{ChangeSwitches, Config, PluginName};
use crate::engine::pending::Item;
use crate::path::{RelPath, within};
use crate::plugin::{Plugin, PluginEvent, PluginSpec};

/// The maximum number of changes that wait for their delivery; further changes are not passed to the plugin.
const WAITING_MAX: usize = 100_000;

/// A change that is not delivered to all remotes yet.
#[derive(Debug)]
struct Waiting {
    mask: u32,
    is_dir: bool,
    /// Remotes that are up and lack it.
    lacking: Vec<RemoteId>,
    reached: bool,
}

/// The changes that the plugin must get.
pub struct Plugins {
    plugin: Plugin,
    roots: Vec<Arc<Path>>,
    /// The remotes of each root, and their names for the plugin.
    remotes: Vec<(Vec<RemoteId>, Arc<[String]>)>,
    switches: ChangeSwitches,
    down: Vec<RemoteId>,
    waiting: BTreeMap<(RootId, RelPath), Waiting>,
    dropped: usize,
}

impl Plugins {
    /// `remotes`: the root and the name of each remote.
    pub fn new(
        plugin: Plugin,
        switches: ChangeSwitches,
        roots: &[&Path],
        remotes: &[(RootId, String)],
    ) -> Self {
        let of_root = |root: usize| {
            let mine = || remotes.iter().enumerate().filter(move |(_, (of, _))| of.0 == root);
            let ids = mine().map(|(id, _)| RemoteId(id)).collect();
            (ids, mine().map(|(_, (_, name))| name.clone()).collect())
        };
        Self {
            plugin,
            remotes: (0..roots.len()).map(of_root).collect(),
            roots: roots.iter().map(|root| Arc::from(*root)).collect(),
            switches,
            down: Vec::new(),
            waiting: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Updates the remotes after a reload: the numbers of each root's remotes, and the names by number.
    pub fn change_remotes(&mut self, numbers: &[Vec<RemoteId>], names: &[String]) {
        let name = |id: &RemoteId| names.get(id.0).cloned().unwrap_or_default();
        let of_root = |ids: &Vec<RemoteId>| (ids.clone(), ids.iter().map(name).collect());
        self.remotes = numbers.iter().map(of_root).collect();
        let is_there = |id: &RemoteId| numbers.iter().any(|ids| ids.contains(id));
        self.down.retain(is_there);
        let keys: Vec<_> = self.waiting.keys().cloned().collect();
        for key in keys {
            if let Some(waiting) = self.waiting.get_mut(&key) {
                waiting.lacking.retain(is_there);
            }
            self.tell_if_complete(&key);
        }
    }

    /// Notes new changes.
    pub fn changed(&mut self, root: RootId, changes: &[Change]) {
        let Some((remotes, _)) = self.remotes.get(root.0) else { return };
        for change in changes {
            let key = (root, change.path.clone());
            let lacking = remotes.iter().filter(|remote| !self.down.contains(remote));
            let waiting = Waiting {
                mask: change.cause as u32,
                is_dir: change.is_dir,
                lacking: lacking.copied().collect(),
                reached: false,
            };
            if self.switches.is_step(change.cause) {
                // A step belongs to an earlier change. The plugin gets that change when the step is delivered, too.
                if let Some(known) = self.waiting.get_mut(&key) {
                    *known = Waiting { mask: known.mask, ..waiting };
                }
                continue;
            }
            if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&key) {
                self.dropped += 1;
                if self.dropped == 1 {
                    log::warn!(
                        "more than {WAITING_MAX} changes wait for their delivery: the plugin does not get \
                        further changes until they are delivered"
                    );
                }
                continue;
            }
            self.waiting.insert(key, waiting);
        }
    }

    /// Notes that a job has delivered these items to `remote`.
    pub fn delivered(&mut self, remote: RemoteId, root: RootId, items: &[Item]) {
        self.down.retain(|down| *down != remote);
        for item in items {
            if item.mark.scope == Scope::Tree {
                let first = (root, item.path.clone());
                let of_root = self.waiting.range(first..).map(|(key, _)| key);
                let of_root = of_root.take_while(|(of, _)| *of == root);
                let below = within(of_root, &item.path, |(_, path)| path);
                let below: Vec<_> = below.cloned().collect();
                below.iter().for_each(|key| self.reached(key, remote));
            } else {
                self.reached(&(root, item.path.clone()), remote);
            }
        }
        if self.waiting.is_empty() && self.dropped > 0 {
            log::warn!("the plugin did not get {} changes", self.dropped);
            self.dropped = 0;
        }
    }

    /// Stops waiting for a remote that is down.
    pub fn went_down(&mut self, remote: RemoteId) {
        self.down.push(remote);
        let keys: Vec<_> = self.waiting.keys().cloned().collect();
        for key in keys {
            if let Some(waiting) = self.waiting.get_mut(&key) {
                waiting.lacking.retain(|lacking| *lacking != remote);
            }
            self.tell_if_complete(&key);
        }
    }

    fn reached(&mut self, key: &(RootId, RelPath), remote: RemoteId) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.reached = true;
            waiting.lacking.retain(|lacking| *lacking != remote);
        }
        self.tell_if_complete(key);
    }

    fn tell_if_complete(&mut self, key: &(RootId, RelPath)) {
        if !self.waiting.get(key).is_some_and(|w| w.reached && w.lacking.is_empty()) {
            return;
        }
        let Some(waiting) = self.waiting.remove(key) else { return };
        let (root, path) = key;
        if let (Some(watch), Some((_, names))) = (self.roots.get(root.0), self.remotes.get(root.0))
        {
            self.plugin.offer(PluginEvent {
                root: Arc::clone(watch),
                path: path.clone(),
                is_dir: waiting.is_dir,
                mask: waiting.mask,
                remotes: Arc::clone(names),
            });
        }
    }
}

/// The plugin `name` as the file defines it.
pub fn start_plugin(config: &Config, name: PluginName) -> Result<Plugin, BoxError> {
    let spec = PluginSpec::new(name, &config.plugins, PathBuf::from("errorlog.txt"))?;
    Ok(Plugin::start(spec)?)
}
