//! `-m NAME`: one plugin gets every change below the watch path, and nothing is mirrored.
//! Keeps no state: changes made while it is down are not reported.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, select};

use super::BoxError;
use super::main_event::MainEvent;
use super::plugins::start_plugin;
use super::running::watch_options;
use crate::args::Args;
use crate::banner;
use crate::change::{RootId, RootLoss, WatchEvent};
use crate::config::{ChangeSwitches, Config, PluginName};
use crate::engine::Event;
use crate::filter::Filter;
use crate::logging::Log;
use crate::plugin::{Plugin, PluginEvent};
use crate::process::signals::{Mode, Signal, Signals, start_signals};
use crate::process::{print, tell_stopping};
use crate::watch::{Exclude, Watcher};

/// The capacity of the channel of events.
const EVENTS: usize = 256;

/// A plugin and its sources of events. The order of the fields matters: the receiver is dropped first, so that no
/// thread waits for us while we join it.
pub struct PluginAlone {
    events: Receiver<MainEvent>,
    incoming: Receiver<Signal>,
    _signals: Signals,
    _watcher: Watcher,
    plugin: Plugin,
    roots: Vec<Arc<Path>>,
    switches: ChangeSwitches,
}

impl PluginAlone {
    /// Starts the plugin, and returns when the watches are set.
    pub fn start(args: &Args, config: &Config, name: PluginName) -> Result<Self, BoxError> {
        let (sender, events) = bounded(EVENTS);
        let mode = if args.daemon { Mode::Background } else { Mode::Foreground };
        let (to_us, incoming) = bounded(EVENTS);
        let signals = start_signals(mode, move |signal| _ = to_us.send(signal))?;
        let plugin = start_plugin(config, name)?;
        let filter = Filter::new(&config.filter)?;
        let exclude: Exclude = Arc::new(move |path, is_dir| filter.excludes(path, is_dir));
        let watcher = Watcher::start(watch_options(config, &exclude), sender)?;
        let roots = config.mirrors.iter().map(|mirror| Arc::from(mirror.watch.as_path()));
        let roots: Vec<Arc<Path>> = roots.collect();
        let switches = config.changes;
        let (_signals, _watcher) = (signals, watcher);
        let mut alone = Self { events, incoming, _signals, _watcher, plugin, roots, switches };
        let mut ready = 0;
        while ready < alone.roots.len() {
            select! {
                recv(alone.events) -> event => match event? {
                    MainEvent::Event(Event::Watch(WatchEvent::Ready { .. })) => ready += 1,
                    event => alone.hear(event),
                },
                recv(alone.incoming) -> signal => if signal? == Signal::Stop {
                    return Err("ended by a signal".into());
                },
            }
        }
        print(&banner::watching(alone.roots.iter().map(AsRef::as_ref)));
        Ok(alone)
    }

    /// Runs until a signal ends it.
    pub fn work(&mut self, log: &Log) {
        loop {
            select! {
                recv(self.events) -> event => match event {
                    Ok(event) => self.hear(event),
                    Err(_) => break,
                },
                recv(self.incoming) -> signal => match signal {
                    Ok(Signal::Reopen) => super::running::reopen(log)(),
                    Ok(Signal::Report) => {
                        log::info!("SIGUSR1: the plugin runs alone, nothing is mirrored")
                    }
                    Ok(Signal::Stop) | Err(_) => break,
                },
            }
        }
        tell_stopping();
    }

    fn hear(&mut self, event: MainEvent) {
        match event {
            MainEvent::Event(Event::Watch(WatchEvent::Changed { root, changes, .. })) => {
                let Some(root) = self.roots.get(root.0) else { return };
                for change in changes.into_iter().filter(|c| !self.switches.is_step(c.cause)) {
                    self.plugin.offer(PluginEvent {
                        root: Arc::clone(root),
                        path: change.path,
                        is_dir: change.is_dir,
                        mask: change.cause as u32,
                        remotes: Arc::from([]),
                    });
                }
            }
            MainEvent::Event(Event::Watch(WatchEvent::RootLost {
                root,
                loss: RootLoss::Gone(reason),
            })) => {
                let path = self.name(root);
                log::error!("ALARM: watch path {path}: {reason}; nothing is seen until it is back");
            }
            MainEvent::Event(Event::Watch(WatchEvent::RootBack { root, replaced })) => {
                let is = if replaced { "another directory than before" } else { "back" };
                log::warn!("watch path {} is {is}", self.name(root));
            }
            MainEvent::Event(Event::Watch(WatchEvent::Overflow { root })) => {
                let path = self.name(root);
                log::warn!("the kernel dropped events below {path}: the plugin missed them");
            }
            _ => {}
        }
    }

    fn name(&self, root: RootId) -> String {
        self.roots.get(root.0).map_or_else(String::new, |root| root.display().to_string())
    }
}
