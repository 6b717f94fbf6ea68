//! One rsync run as arguments and standard input: its destination, its kind, its names.
//! Pure: starts nothing and reads nothing from the disk.

pub mod confine;
pub mod differences;
pub mod excludes;
pub mod exit;
pub mod input;
mod knock;
pub mod local;
pub mod master;
pub mod operator_rules;
pub mod options;
pub mod over_ssh;
pub mod params;
mod plan;
mod preview;
pub mod probe;
pub mod run;
pub mod temporary;

/// What rsync writes before three octal digits that stand for an unprintable byte.
const RSYNC_ESCAPE: &[u8] = b"\\#";

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::change::Scope;
use crate::destination::Destination;
use crate::path::RelPath;
use confine::Confinement;
use exit::Ability;
use local::LocalDirectory;
use master::Master;
use operator_rules::OperatorRules;
use options::RsyncOptions;
use over_ssh::OverSsh;
use params::{Filters, Params};

pub use knock::{Greeting, Knock, read_greeting};
pub use plan::include_words;
pub use preview::{PreviewAnswer, deleted_names};

/// `--timeout` in seconds, unless the operator sets one: long enough for the checksum of a very large file.
pub const TIMEOUT_S_DEFAULT: u32 = 300;

/// Sessions kept ready unless the operator sets a number: one for each batch that may be in flight.
/// `mkdir a a/b a/b/c; touch a/b/c/f` uses all of them.
const READY: usize = 4;

/// How long connecting may take in seconds, unless the operator sets a limit.
pub const CONNECT_TIMEOUT_S: u32 = 10;

/// Most bytes of names in the arguments of one run; the kernel allows 2 MB including the environment.
pub const DIRS_BYTES_MAX: usize = 512 * 1024;

/// From this many bytes of names on, a batch is given as arguments. These are some 300 names; reading them from a list takes rsync 20 ms.
pub const LONG_BATCH_BYTES: usize = 16 * 1024;

/// Which of sersync's own options a receiver accepts. A probe and refusals show it.
///
/// Each option has an alternative, so a refusal costs a run but no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// It deletes listed names that are missing (`--delete-missing-args`). Without: patterns.
    pub delete_missing: bool,
    /// It compares times by the nanosecond (`--modify-window=-1`). Without: contents are compared.
    pub nanoseconds: bool,
    /// It compares contents (`--checksum`). Without: what must be compared is sent (`--ignore-times`).
    pub checksum: bool,
    /// It sends what looks equal (`--ignore-times`). Without: a large file that was renamed is compared by contents.
    pub ignore_times: bool,
    /// It replaces directories that are not empty (`--force`). Without: patterns.
    pub force: bool,
    /// It says what a run would do (`--dry-run`). Without: sersync does not ask.
    pub dry_run: bool,
    /// It makes moved entries from their old copies (`--link-dest`, `--copy-dest`, `--fuzzy`, `--secluded-args`). Without: the data is sent.
    pub moves: bool,
    /// It deletes extraneous names (`--delete`). Without: nothing is deleted, and the deletions stay pending.
    pub delete: bool,
    /// It accepts names with their parent directories (`--relative`). Without: patterns.
    pub relative: bool,
}

impl Abilities {
    /// All abilities, as in rsync 3.5.0.
    pub const ALL: Self = Self {
        delete_missing: true,
        nanoseconds: true,
        checksum: true,
        ignore_times: true,
        force: true,
        dry_run: true,
        moves: true,
        delete: true,
        relative: true,
    };
    /// The abilities of every rsync since 3.0.
    pub const NONE: Self = Self { delete_missing: false, nanoseconds: false, ..Self::ALL };

    /// These abilities without `ability`; `None` if it was missing already.
    #[must_use]
    pub fn without(mut self, ability: Ability) -> Option<Self> {
        let known = match ability {
            // A daemon that refuses `delete` refuses `--delete-missing-args` too.
            Ability::Delete if self.delete_missing => &mut self.delete_missing,
            Ability::Delete => &mut self.delete,
            Ability::DeleteMissing => &mut self.delete_missing,
            Ability::Nanoseconds => &mut self.nanoseconds,
            Ability::Checksum => &mut self.checksum,
            Ability::IgnoreTimes => &mut self.ignore_times,
            Ability::Force => &mut self.force,
            Ability::DryRun => &mut self.dry_run,
            Ability::Moves => &mut self.moves,
            Ability::Relative => &mut self.relative,
        };
        std::mem::replace(known, false).then_some(self)
    }
}

/// One watch root and one remote: what all runs between the two have in common.
#[derive(Debug, Clone)]
pub struct Endpoint {
    root: PathBuf,
    destination: Destination,
    options: RsyncOptions,
    params: Params,
    /// sersync's own rules keep names on the remote, even in a directory that is deleted here.
    keeps_names: bool,
    local: Option<LocalDirectory>,
    owner: Option<PathBuf>,
    confinement: Option<Confinement>,
    master: Option<Master>,
    /// How runs over ssh are confined. Clones of this endpoint share it.
    over_ssh: Option<Arc<OverSsh>>,
}

/// The kinds of run. Each names the function of [`input`] that makes its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// Exactly the names in the list ([`input::names`]): present ones are sent, absent ones deleted, nothing recurses.
    Batch {
        /// Compare contents: size and time may be equal although the content is not.
        ignore_times: bool,
    },
    /// A batch of names that a session delivered which had connected before their change. This run connects after the delivery.
    Confirmation,
    /// A batch of many names, passed as arguments. rsync reads a list from standard input with two system calls for each byte
    /// (rsync 3.5.0, io.c, read_line). A long list costs more than a new process.
    LongBatch {
        /// The names; together at least [`LONG_BATCH_BYTES`], at most [`DIRS_BYTES_MAX`].
        names: Vec<RelPath>,
        /// Compare contents: size and time may be equal although the content is not.
        ignore_times: bool,
    },
    /// A batch of names over which something older was moved: contents are compared, and `-u` is omitted.
    Replacement,
    /// A batch for receivers and filters that do not work with a list ([`input::patterns`]). Reads every parent directory on both sides.
    Fallback {
        /// Compare contents: size and time may be equal although the content is not.
        ignore_times: bool,
    },
    /// Directories and their listings, without the content of subdirectories ([`input::filters`]).
    Listing {
        /// The directories; their names together have at most [`DIRS_BYTES_MAX`].
        dirs: Vec<RelPath>,
        /// Extraneous names are deleted.
        deletes: bool,
    },
    /// Directories with everything below; a file among them is sent alone ([`input::filters`]).
    Trees {
        /// The directories; their names together have at most [`DIRS_BYTES_MAX`].
        dirs: Vec<RelPath>,
        /// Compare contents: what was there before may have had the same size and time.
        checksum: bool,
        /// Extraneous names are deleted.
        deletes: bool,
        /// The complete list is made before anything is sent. This saves a fifteenth of the work of an incremental list.
        /// Both sides hold the list in memory, some 100 bytes for each entry.
        at_once: bool,
    },
    /// Only the deletions of a listing or of trees: nothing is sent ([`excludes::Excludes::rules`]).
    Extraneous {
        /// The directories; their names together have at most [`DIRS_BYTES_MAX`].
        dirs: Vec<RelPath>,
        /// How far down.
        scope: Scope,
    },
    /// Directories that are absent, or in whose place something else is, are deleted, except excluded names and the directories that
    /// contain them ([`input::guarded`]). What is in their place is sent.
    GuardedDeletion,
    /// A directory that moved: the remote makes it from its old copy ([`input::filters`], anchored at `new`).
    /// A later run deletes or replaces the old copy. The parent of `new` must exist on the remote.
    MoveDirectory {
        /// The name of its copy.
        old: RelPath,
        /// Its name now.
        new: RelPath,
        /// Compare contents: what was there before may have had the same size and time.
        checksum: bool,
        /// How the files get there.
        basis: Basis,
    },
    /// A file that moved, rebuilt from its old copy ([`input::moved_file`]). It may have changed its name or its directory, not both.
    MoveFile {
        /// The name of its copy.
        old: RelPath,
        /// Its name now.
        new: RelPath,
    },
    /// Finds out what the receiver can do, and changes nothing ([`input::probe`]).
    Probe,
    /// Removes rsync's own leftovers beside these names ([`input::temporary_names`]).
    CleanTemp,
}

impl RunKind {
    /// True when the receiver gets every rule, so that it keeps what they protect. It gets none in a run without deletions, and of
    /// sersync's own none in a run by a list or by patterns.
    pub fn has_rules(&self) -> bool {
        match self {
            Self::Listing { deletes, .. } | Self::Trees { deletes, .. } => *deletes,
            Self::Extraneous { .. } | Self::GuardedDeletion | Self::MoveDirectory { .. } => true,
            _ => false,
        }
    }
}

/// The kind of run that sends a path to this remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// In a [`RunKind::Batch`].
    Batch,
    /// In a [`RunKind::Fallback`].
    Fallback,
    /// By a [`RunKind::Listing`] of the parent directory.
    ListingOfParent,
}

/// How a remote makes the files of a moved directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// As hard links to the old copy, which is deleted next.
    Links,
    /// As copies: another directory has taken the old name, and both must not share files.
    Copies,
}

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// A directory.
    Directory,
    /// Anything else that exists.
    Other,
    /// Nothing has this name; list the topmost absent ancestor.
    Absent,
}

impl Presence {
    /// What exists at `path`; links are not followed.
    pub fn of(path: &Path) -> Self {
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => Self::Directory,
            Ok(_) => Self::Other,
            Err(_) => Self::Absent,
        }
    }
}

/// One run: the arguments of `rsync`, and the directory it runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// The arguments.
    pub args: Vec<OsString>,
    /// The watch root; rsync is started inside it and reads `./`.
    pub root: PathBuf,
    /// The remote, when it is a directory of this machine. The run reaches that very directory or is not started.
    pub local: Option<LocalDirectory>,
    /// The state directory of the instance that starts it, for [`run::OWNER`].
    pub owner: Option<PathBuf>,
    /// What it may read, if it can be confined.
    pub confinement: Option<Confinement>,
}

impl RunSpec {
    /// True when rsync starts other programs: a remote shell, a receiver on this machine.
    fn has_helpers(&self) -> bool {
        self.local.is_some()
            || self.args.iter().any(|word| word == "-e")
            || std::env::var_os("RSYNC_CONNECT_PROG").is_some()
    }

    /// Inserts arguments after all options and before source and destination.
    pub fn insert(&mut self, words: &[&str]) {
        // An operator's option may have `--` for a value.
        let places = self.args.iter().rposition(|word| word == "--");
        let end = places.unwrap_or(self.args.len());
        self.args.splice(end..end, words.iter().map(Into::into));
    }

    /// The run as a command that an operator can repeat by hand. It is quoted for a shell; sersync itself uses no shell.
    pub fn shell_line(&self) -> Vec<u8> {
        self.shell_line_fed(b"")
    }

    /// The command of [`Self::shell_line`] with its standard input. A very long list is truncated, and the line says so.
    pub fn shell_line_fed(&self, input: &[u8]) -> Vec<u8> {
        const WORDS_MAX: usize = 1_000;
        let words: Vec<&[u8]> = input.split(|&b| b == 0).filter(|word| !word.is_empty()).collect();
        let mut line = b"cd ".to_vec();
        line.extend(quoted(self.root.as_os_str()));
        line.extend_from_slice(b" && ");
        if !words.is_empty() {
            line.extend_from_slice(br"printf '%s\0'");
            for word in words.iter().take(WORDS_MAX) {
                line.push(b' ');
                line.extend(quoted(OsStr::from_bytes(word)));
            }
            line.extend_from_slice(b" | ");
        }
        line.extend_from_slice(b"rsync");
        for word in &self.args {
            line.push(b' ');
            line.extend(quoted(word));
        }
        if words.len() > WORDS_MAX {
            line.extend(format!(" # and {} names more", words.len() - WORDS_MAX).into_bytes());
        }
        line
    }
}

/// Quotes only what a shell would read differently, so that commands look as people write them.
/// Bytes that are not text are written as bash writes them, so that a command stays one line.
pub fn quoted(word: &OsStr) -> Vec<u8> {
    let bytes = word.as_bytes();
    let is_text = std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control));
    if !is_text {
        let escape = |&b: &u8| match b {
            b'\'' | b'\\' => vec![b'\\', b],
            b' '..=b'~' => vec![b],
            _ => format!("\\{b:03o}").into_bytes(),
        };
        let body: Vec<u8> = bytes.iter().flat_map(escape).collect();
        return [b"$'", body.as_slice(), b"'"].concat();
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=./:@%+,".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_vec();
    }
    shlex::bytes::try_quote(bytes).map_or_else(|_| bytes.to_vec(), |quoted| quoted.into_owned())
}

impl Endpoint {
    /// The endpoint for runs from `root` to `destination`.
    pub fn new(root: &Path, destination: &Destination, options: &RsyncOptions) -> Self {
        let mut endpoint = Self {
            root: root.to_path_buf(),
            destination: destination.clone(),
            options: options.clone(),
            params: Params::parse(&options.params),
            keeps_names: false,
            local: match destination {
                Destination::Local { path } => Some(LocalDirectory::new(path)),
                _ => None,
            },
            owner: None,
            master: None,
            confinement: None,
            over_ssh: None,
        };
        endpoint.confinement = endpoint.confinement().ok();
        endpoint
    }

    /// This endpoint for the instance that holds the state directory `state`, if there is one.
    #[must_use]
    pub fn owned_by(self, state: Option<&Path>) -> Self {
        Self { owner: state.map(Path::to_path_buf), ..self }
    }

    /// This endpoint for rules of sersync's own that keep names on the remote, even in a directory that is deleted here.
    #[must_use]
    pub fn keeping_names(self) -> Self {
        Self { keeps_names: true, ..self }
    }

    /// This endpoint with an ssh connection that is kept between runs, if that helps and the operator configured none.
    #[must_use]
    pub fn sharing_a_connection(self, state: Option<&Path>) -> Self {
        let own = self.params.rsh.as_ref().map(|shell| shell.to_string_lossy().into_owned());
        let is_ssh = self.destination.is_ssh() && own.as_deref().is_none_or(params::is_ssh);
        let master = state.filter(|_| is_ssh && self.ready() > 0);
        let master = master.and_then(|it| Master::of(&self.destination, own.as_deref(), it));
        let over_ssh = master.clone().and_then(|master| {
            let confinement = self.own_confinement().ok()?;
            OverSsh::new(master, own.as_deref(), confinement).ok().map(Arc::new)
        });
        Self { master, over_ssh, ..self }
    }

    /// Closes the ssh connection that is kept between runs: it is not needed any more, or it may be dead.
    pub fn end_shared_connection(&self) {
        if let Some(master) = &self.master {
            master.end();
        }
    }

    /// This endpoint with another directory than the watch root, for runs that send nothing from the root.
    #[must_use]
    pub fn started_in(self, directory: &Path) -> Self {
        Self { root: directory.to_path_buf(), ..self }
    }

    /// Where the remote is.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The watch root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The seconds after which rsync itself gives up on a silent remote. Our own limit on a stalled run has to be longer.
    pub fn timeout_s(&self) -> u32 {
        let said = self.options.timeout_s.or(self.params.timeout_s);
        said.filter(|&seconds| seconds > 0).unwrap_or(TIMEOUT_S_DEFAULT)
    }

    /// False when the operator sets how coarsely times are compared: then a quick rewrite needs `ignore_times`.
    pub fn compares_nanoseconds(&self, abilities: Abilities) -> bool {
        abilities.nanoseconds && !self.params.has_window
    }

    /// True when hard links are kept: then all names of a file must be in one list.
    pub fn keeps_hard_links(&self) -> bool {
        self.params.keeps_hard_links
    }

    /// True when the result for a path depends on other paths, so that the whole tree has to be compared.
    pub fn needs_whole_tree(&self) -> bool {
        self.params.needs_whole_tree
    }

    /// True when `-u` keeps an older file from replacing a newer copy.
    pub fn keeps_newer(&self) -> bool {
        self.params.kept != self.params.replacing
    }

    /// How many sessions are kept ready while changes come.
    pub fn ready(&self) -> usize {
        self.options.sessions.ready.unwrap_or(READY)
    }

    /// How many of them stay connected while nothing changes.
    pub fn idle(&self) -> usize {
        self.options.sessions.idle.unwrap_or(0).min(self.ready())
    }

    /// False when nothing may be deleted on the remote.
    pub fn deletes(&self) -> bool {
        self.options.deletes
    }

    /// True when moves may be made on the remote. The operator's filters are anchored at the watch root, so they would not
    /// apply in a moved directory's own run. With `--inplace`, both names would share what is written.
    pub fn can_move(&self, abilities: Abilities) -> bool {
        let is_able = abilities.moves && abilities.delete && abilities.relative;
        is_able
            && self.options.deletes
            && self.params.filters == Filters::None
            && !self.params.writes_in_place
            && !self.params.has_other_copies
    }

    /// The operator's current filter rules: reads the files that contain some.
    pub fn operator_rules(&self) -> OperatorRules {
        let read = |file: &Path| std::fs::read(self.root.join(file)).ok();
        let rules = OperatorRules::parse(&self.params.rules, read);
        // rsync reads rules in each directory only when it recurses.
        if self.reads_lists() { rules } else { rules.only_rule_files() }
    }

    /// True when a list of names works with the operator's rules. With a list, rsync ignores rules in each directory.
    pub fn reads_lists(&self) -> bool {
        self.params.filters != Filters::PerDirectory
    }

    /// True when a run without rules may delete a directory with everything in it, because something else takes its place.
    /// A receiver gets the operator's rules only in a run that deletes extraneous names, and sersync's own by other input than a list.
    pub fn may_force(&self, abilities: Abilities) -> bool {
        let deletes = self.options.deletes && abilities.delete;
        abilities.force && (deletes || self.params.forces) && !self.has_rules()
    }

    /// True when rules may keep something on the remote.
    fn has_rules(&self) -> bool {
        self.keeps_names || self.params.filters != Filters::None
    }

    /// The kind of run that sends a path.
    pub fn way(&self, presence: Presence, abilities: Abilities) -> Way {
        let filters = self.params.filters;
        if !self.reads_lists() || !abilities.relative {
            return Way::Fallback;
        }
        // Without --force only a run with --delete replaces or deletes a directory that is not empty.
        let lacks_force = !abilities.force && !self.has_rules();
        if lacks_force && self.options.deletes && abilities.delete {
            return Way::Fallback;
        }
        if presence != Presence::Absent || !self.options.deletes || !abilities.delete {
            return Way::Batch;
        }
        match filters {
            Filters::None if abilities.delete_missing => Way::Batch,
            // rsync deletes a missing listed name even if a filter excludes it.
            Filters::None | Filters::Excludes | Filters::PerDirectory => Way::Fallback,
            Filters::Includes => Way::ListingOfParent,
        }
    }
}
