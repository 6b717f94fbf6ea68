//! The transport against real daemons: every kind of run, ready sessions, refusals, and leftovers.
//! Does not know the engine.

mod deletions;
mod filters;
mod jobs;
mod latency;

mod sessions;
mod troubles;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sersync::config::{Remote, RsyncOptions};
use sersync::destination::{Destination, Host};
use sersync::path::RelPath;
use sersync::rsync::exit::Outcome;
use sersync::rsync::run::{Limits, Session};
use sersync::rsync::{Abilities, Endpoint, Presence, RunKind, input};

use crate::support::TestDir;
use crate::support::rsyncd::{Options, Rsyncd};

/// Far longer than any run of these tests stalls.
const LIMITS: Limits = Limits { stall: Duration::from_secs(20), output_max: 0 };

const BATCH: RunKind = RunKind::Batch { ignore_times: false };

const FALLBACK: RunKind = RunKind::Fallback { ignore_times: false };

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// A module of a test daemon.
fn daemon_module(port: u16, module: &str) -> Destination {
    let host = Host { name: "127.0.0.1".into(), port: Some(port), ..Host::default() };
    Destination::Daemon { host, module: module.into() }
}

/// A source and a daemon.
struct Rig {
    source: TestDir,
    daemon: Rsyncd,
    remote: Remote,
}

impl Rig {
    fn new(params: &[&str]) -> Self {
        Self::with(params, &Options::default())
    }

    fn with(params: &[&str], daemon: &Options) -> Self {
        let daemon = Rsyncd::start_with(daemon);
        let options = RsyncOptions {
            params: params.iter().map(|word| (*word).to_owned()).collect(),
            deletes: true,
            ..RsyncOptions::default()
        };
        let remote = Remote { destination: daemon_module(daemon.port, "data"), options };
        Self { source: TestDir::new(), daemon, remote }
    }

    /// The same rig, sending to another module of its daemon.
    fn send_to(&mut self, module: &str) {
        self.remote.destination = daemon_module(self.daemon.port, module);
    }

    /// The same rig, sending to the daemon's directory over ssh; the remote shell contains the port.
    fn over_ssh(&mut self, user: Option<String>) {
        let host = Host { user, name: "127.0.0.1".into(), port: None };
        let path = self.daemon.data.to_str().unwrap().to_owned();
        self.remote.destination = Destination::Ssh { host, path };
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint_from(self.source.path())
    }

    fn endpoint_from(&self, root: &Path) -> Endpoint {
        Endpoint::new(root, &self.remote.destination, &self.remote.options)
    }

    fn signed_in(mut self, user: &str, password_file: PathBuf) -> Self {
        let host = Host {
            user: Some(user.into()),
            name: "127.0.0.1".into(),
            port: Some(self.daemon.port),
        };
        self.remote.destination = Destination::Daemon { host, module: "auth".into() };
        self.remote.options.password_file = Some(password_file);
        self
    }

    fn session(&self, kind: &RunKind) -> Session {
        Session::start(&self.endpoint().plan(kind, Abilities::ALL), None).unwrap()
    }

    fn run(&self, kind: &RunKind, input: &[u8]) -> Outcome {
        self.session(kind).feed(input, LIMITS).judge(&self.endpoint())
    }

    fn batch(&self, names: &[&str]) -> Outcome {
        let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
        self.run(&BATCH, &input::names(&paths))
    }

    /// A batch with the names as arguments.
    fn long_batch(&self, names: &[&str]) -> Outcome {
        let names = names.iter().map(|name| input::name(&path(name)).into_owned()).collect();
        self.run(&RunKind::LongBatch { names, ignore_times: false }, &[])
    }

    /// A fallback run of these names, as they are on disk.
    fn fallback(&self, names: &[&str]) -> Outcome {
        let items: Vec<_> = names.iter().map(|name| (path(name), self.presence(name))).collect();
        let input = input::patterns(items.iter().map(|(path, at)| (path, *at)));
        self.run(&FALLBACK, &input)
    }

    fn presence(&self, name: impl AsRef<Path>) -> Presence {
        match self.source.join(name).symlink_metadata() {
            Ok(meta) if meta.is_dir() => Presence::Directory,
            Ok(_) => Presence::Other,
            Err(_) => Presence::Absent,
        }
    }

    fn trees(&self, dirs: &[&str], excludes: &[&str]) -> Outcome {
        let dirs = dirs.iter().map(|dir| path(dir)).collect();
        let rules = input::filters(excludes);
        self.run(&RunKind::Trees { dirs, checksum: false, deletes: true, at_once: true }, &rules)
    }

    fn listing(&self, dirs: &[&str], excludes: &[&str]) -> Outcome {
        let dirs = dirs.iter().map(|dir| path(dir)).collect();
        let rules = input::filters(excludes);
        self.run(&RunKind::Listing { dirs, deletes: true }, &rules)
    }

    /// Writes a file on the remote only.
    fn remote_file(&self, name: &str) {
        let path = self.daemon.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "remote").unwrap();
    }

    fn holds(&self, name: &str) -> bool {
        self.daemon.at(name).symlink_metadata().is_ok()
    }

    /// The names below `dir` on the remote, sorted.
    fn remote_names(&self, dir: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.daemon.at(dir)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}
