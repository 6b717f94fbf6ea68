//! Builds the workers of all remotes, with the options that they share.
//! Does not know what is pending.

use std::path::Path;
use std::sync::Arc;

use super::fail_log::FailLogWriter;
use super::notice::Names;
use crate::banner;
use crate::change::{RootId, Scope};
use crate::config::{Config, Remote};
use crate::fail_log::FailLog;
use crate::filter::Filter;
use crate::path::RelPath;
use crate::record::Recorder;
use crate::rsync::excludes::Excludes;
use crate::rsync::{Endpoint, Presence, RunSpec};
use crate::source::Source;
use crate::watch::Exclude;
use crate::worker::links::Links;
use crate::worker::load_gate::LoadGate;
use crate::worker::places::Daemons;
use crate::worker::remote_worker::{RemoteWorker, RemoteWorkerSetup};
use crate::worker::rules::{Coverage, Rules};
use crate::worker::shards::Sharding;

/// How each remote is reached, in the order of their ids.
pub struct RemoteWorkers {
    endpoints: Vec<(Endpoint, Arc<Source>, RootId)>,
    rules: Rules,
    /// Filter expressions that rsync's options cannot express.
    inexpressible: Vec<String>,
    sharding: Sharding,
    /// For each root, the names of its files with several names.
    links: Vec<Arc<Links>>,
}

impl RemoteWorkers {
    /// Prepares the remotes of `config`; `state` is the state directory.
    pub fn new(
        config: &Config,
        sources: &[Arc<Source>],
        filter: &Arc<Filter>,
        state: Option<&Path>,
    ) -> Self {
        let mut endpoints = Vec::new();
        for (root, (mirror, source)) in config.mirrors.iter().zip(sources).enumerate() {
            for remote in &mirror.remotes {
                let Remote { destination, options } = remote;
                let endpoint = Endpoint::new(&mirror.watch, destination, options);
                endpoints.push((
                    endpoint.owned_by(state).sharing_a_connection(state),
                    Arc::clone(source),
                    RootId(root),
                ));
            }
        }
        let translation = filter.to_rsync_patterns();
        let crontab = config.crontab.as_ref().map(|crontab| crontab.excludes.clone());
        // These options need the whole tree, so it must not be divided into shards.
        let is_whole = |(endpoint, ..): &(Endpoint, _, _)| {
            endpoint.keeps_hard_links() || endpoint.needs_whole_tree()
        };
        let are_whole = endpoints.iter().any(is_whole);
        Self {
            endpoints,
            rules: Rules {
                exclude: exclude_of(filter),
                coverage: if translation.exact() { Coverage::Whole } else { Coverage::Partial },
                patterns: Excludes {
                    kept: translation.patterns,
                    perishable: translation.perishable,
                },
                crontab: crontab.unwrap_or_default(),
            },
            inexpressible: filter.inexpressible().into_iter().map(str::to_owned).collect(),
            sharding: if are_whole { Sharding::Off } else { Sharding::On },
            links: sources.iter().map(|_| Arc::default()).collect(),
        }
    }

    /// The start-up lines about `-r`.
    pub fn full_sync_lines(&self) -> Vec<u8> {
        if !self.inexpressible.is_empty() {
            return banner::full_sync_in_steps(&self.inexpressible);
        }
        let root = RelPath::root();
        let run = |(endpoint, ..): &(Endpoint, _, _)| {
            endpoint.plan_by_hand(&root, Presence::Directory, &self.rules.patterns, Scope::Tree)
        };
        let runs: Vec<RunSpec> = self.endpoints.iter().map(run).collect();
        banner::full_sync(&runs)
    }

    /// The names for messages.
    pub fn names(&self, sources: &[Arc<Source>]) -> Names {
        Names {
            roots: sources.iter().map(|source| source.path().to_path_buf()).collect(),
            remotes: self
                .endpoints
                .iter()
                .map(|(endpoint, ..)| endpoint.destination().to_string())
                .collect(),
        }
    }

    /// The destinations, without secrets.
    pub fn destinations(&self) -> Vec<String> {
        let whole = |(endpoint, ..): &(Endpoint, _, _)| endpoint.destination().url();
        self.endpoints.iter().map(whole).collect()
    }

    /// The writer of the fail log, for all remotes.
    pub fn fail_log(&self, path: &Path) -> FailLogWriter {
        let remotes = self.endpoints.iter();
        FailLogWriter {
            log: FailLog::open(path),
            rules: self.rules.clone(),
            remotes: remotes.map(|(to, source, _)| (to.clone(), Arc::clone(source))).collect(),
        }
    }

    /// The root of each remote.
    pub fn roots(&self) -> Vec<RootId> {
        self.endpoints.iter().map(|(_, _, root)| *root).collect()
    }

    /// One worker for each remote, with the recorder of its root, if there is one.
    pub fn workers(
        &self,
        recorders: &[Option<Recorder>],
        load_gate: &Arc<LoadGate>,
        daemons: &mut Daemons,
    ) -> Vec<RemoteWorker> {
        let recorder = |root: &RootId| recorders.get(root.0).cloned().flatten();
        let roots = self.endpoints.iter().map(|(_, _, root)| recorder(root)).enumerate();
        let made =
            roots.filter_map(|(index, recorder)| self.make(index, recorder, load_gate, daemons));
        made.map(|(worker, ..)| worker).collect()
    }

    /// The worker of one remote, its endpoint and its root.
    pub fn make(
        &self,
        index: usize,
        recorder: Option<Recorder>,
        load_gate: &Arc<LoadGate>,
        daemons: &mut Daemons,
    ) -> Option<(RemoteWorker, Endpoint, Arc<Source>)> {
        let (endpoint, source, root) = self.endpoints.get(index)?;
        let worker = RemoteWorker::new(RemoteWorkerSetup {
            places: daemons.places_of(endpoint.destination()),
            endpoint: endpoint.clone(),
            source: Arc::clone(source),
            rules: self.rules.clone(),
            sharding: self.sharding,
            links: self.links.get(root.0).cloned().unwrap_or_default(),
            recorder,
            load_gate: Arc::clone(load_gate),
        });
        Some((worker, endpoint.clone(), Arc::clone(source)))
    }
}

/// The filter as a function that says whether a path is excluded.
pub fn exclude_of(filter: &Arc<Filter>) -> Exclude {
    let filter = Arc::clone(filter);
    Arc::new(move |path, is_dir| filter.excludes(path, is_dir))
}
