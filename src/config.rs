//! The configuration as the rest of the program sees it: typed, complete, valid by construction.
//! Does not know XML: `config/raw.rs` names the elements, and `config/check.rs` makes a [`Config`] of them.

pub mod check;
pub mod host;
pub mod lists;
pub mod load;
pub mod mirrors;
pub mod params;
pub mod plugins;
pub mod preflight;
pub mod raw;
pub mod remotes;
pub mod spans;
pub mod telling;
pub mod values;

use std::path::PathBuf;

use crate::destination::Destination;
pub use crate::filter::FilterRules;
pub use crate::rsync::options::RsyncOptions;

use crate::change::{Cause, Change};

pub use check::LoadOptions;
pub use lists::{ListOrigin, ReadList};
pub use load::{CheckReport, CheckVerdict, LoadError, Loaded, check_file, load, load_bytes};
pub use plugins::{
    CommandPlugin, HttpPlugin, PluginDefinitions, PluginName, RefreshCdnPlugin, SocketPlugin,
};
pub use telling::{PageAccess, Telling};

/// Everything one configuration file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `<host>`: printed at start; the address of the status page when that is switched on.
    pub host: HostConfig,
    /// `<debug start>`: print every watch event and every rsync command.
    pub debug: bool,
    /// `<fileSystem backend>`: how changes are watched.
    pub backend: WatchBackend,
    /// `<filter>`: what is neither sent nor deleted.
    pub filter: FilterRules,
    /// `<inotify>`: which kinds of change are mirrored.
    pub changes: ChangeSwitches,
    /// One per `<localpath>`, in file order.
    pub mirrors: Vec<MirrorConfig>,
    /// `<remotes>`: lists of remotes outside the file. `mirrors` already contains the remotes that were read from them.
    pub lists: Vec<ListOrigin>,
    /// `<failLog>`.
    pub fail_log: FailLogConfig,
    /// `<crontab start="true">`.
    pub crontab: Option<Crontab>,
    /// `<guard maxDelete>`.
    pub guard: GuardConfig,
    /// `<statusFile>`, `<heartbeat>`, `<alert>`, `<eventLog>`.
    pub telling: Telling,
    /// `<plugin start="true" name="…"/>` inside `<sersync>`.
    pub plugin: Option<PluginName>,
    /// The `<plugin name="…">` definitions of the file.
    pub plugins: PluginDefinitions,
}

/// `<fileSystem backend>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WatchBackend {
    /// Fanotify for a large tree if possible, otherwise inotify.
    #[default]
    Auto,
    /// A watch for each directory; works everywhere.
    Inotify,
    /// One mark for each file system; needs root, and support by kernel and file system.
    Fanotify,
}

/// `<guard>`: the limit at which a mass deletion is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardConfig {
    /// The percentage of known entries that may vanish at once without delete events; `None` switches the guard off.
    pub max_delete_percent: Option<u8>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self { max_delete_percent: Some(50) }
    }
}

/// `<host hostip port>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// Host name or address, as written.
    pub ip: String,
    /// TCP port.
    pub port: u16,
    /// Who may see the status page there.
    pub page: PageAccess,
}

/// `<inotify>`: the eight switches. The defaults are those of the stock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the XML elements")]
pub struct ChangeSwitches {
    pub delete: bool,
    pub create_folder: bool,
    pub create_file: bool,
    pub close_write: bool,
    pub move_from: bool,
    pub move_to: bool,
    pub attrib: bool,
    pub modify: bool,
}

impl ChangeSwitches {
    /// True when these switches ignore `cause` as a change of its own. It may still be a step of another change: a file is
    /// written first and gets its mode afterwards.
    pub fn is_step(&self, cause: Cause) -> bool {
        match cause {
            Cause::Attrib => !self.attrib,
            Cause::Modify => !self.modify,
            _ => false,
        }
    }

    /// The element of `<inotify>` that decides about such a change, and whether it is on. An entry found by listing counts as created.
    pub fn of(&self, change: &Change) -> (&'static str, bool) {
        match change.cause {
            Cause::Create if !change.is_dir => ("createFile", self.create_file),
            Cause::Create | Cause::Found => ("createFolder", self.create_folder),
            Cause::CloseWrite => ("closeWrite", self.close_write),
            Cause::Delete => ("delete", self.delete),
            Cause::MovedFrom => ("moveFrom", self.move_from),
            Cause::MovedTo => ("moveTo", self.move_to),
            Cause::Attrib => ("attrib", self.attrib),
            Cause::Modify => ("modify", self.modify),
        }
    }
}

impl Default for ChangeSwitches {
    fn default() -> Self {
        Self {
            delete: true,
            create_folder: true,
            create_file: false,
            close_write: true,
            move_from: true,
            move_to: true,
            attrib: false,
            modify: false,
        }
    }
}

/// One `<localpath>`: a directory and the remotes that get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// The watch root: absolute, without trailing slash.
    pub watch: PathBuf,
    /// In file order, remotes from lists last. Each gets everything.
    pub remotes: Vec<Remote>,
}

/// One `<remote>`: where it is, and how rsync is run for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub destination: Destination,
    /// How rsync is run for it.
    pub options: RsyncOptions,
}

/// `<failLog path timeToExecute>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailLogConfig {
    /// The script that lists what failed.
    pub path: PathBuf,
    /// Minutes between two tries of the paths in it.
    pub retry_minutes: u32,
}

/// `<crontab start="true" schedule>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crontab {
    /// Minutes between two full syncs.
    pub minutes: u32,
    /// `<crontabfilter start="true">`: rsync `--exclude` patterns for the full sync.
    pub excludes: Vec<Vec<u8>>,
}
