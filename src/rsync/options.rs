//! Every option of rsync: its names, its letter, whether it takes a value, and what it means for a mirror. Also the options of one remote.
//! Reads no command line; `params.rs` does that with this table.

use std::path::PathBuf;

/// How rsync is run for one remote, as the configuration says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RsyncOptions {
    /// `<commonParams params>`, split into words as a shell would (quotes understood, nothing expanded).
    pub params: Vec<String>,
    /// `<auth passwordfile>`, for a daemon: its first line is the password. Only rsync reads it, never sersync.
    pub password_file: Option<PathBuf>,
    /// `<timeout start="true">`, seconds.
    pub timeout_s: Option<u32>,
    /// `<remote bwlimit>`: a rate as rsync writes it; `0` is no limit.
    pub bwlimit: Option<String>,
    /// `<session>`.
    pub sessions: SessionCounts,
    /// `<delete start>`: what is deleted below the watch root is deleted on the remote too.
    pub deletes: bool,
}

/// How many sessions are connected before they are needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// `<session ready>`: while changes come.
    pub ready: Option<usize>,
    /// `<session idle>`: while nothing changes.
    pub idle: Option<usize>,
}

impl SessionCounts {
    /// These counts; those of `common` where these say nothing.
    #[must_use]
    pub fn or(self, common: Self) -> Self {
        Self { ready: self.ready.or(common.ready), idle: self.idle.or(common.idle) }
    }
}

/// One option of rsync.
#[derive(Debug, PartialEq, Eq)]
pub struct RsyncOption {
    /// Its long names without the dashes, the usual one first; none for an option that has only a letter.
    pub names: &'static [&'static str],
    /// Its letter.
    pub letter: Option<char>,
    /// Whether it takes a value.
    pub arity: Arity,
    /// What it means for a mirror.
    pub meaning: Meaning,
    /// How it differs here from rsync run by hand; a sentence without its subject.
    pub differs: Option<&'static str>,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// No value: the next word is another option.
    Flag,
    /// One value: after `=`, after the letter, or in the next word.
    Value,
}

/// What an option in `<commonParams>` means for a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Every run gets it as written.
    Passes,
    /// It changes how a run is planned.
    Shapes(Role),
    /// No run gets it; the reason is a clause.
    LeftOut(&'static str),
    /// The configuration is refused; the reason is a clause.
    Refused(&'static str),
}

/// How an option changes a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Keeps a newer copy. Omitted where something older has to replace it.
    Update,
    /// Deletes extraneous names; only full syncs get it.
    Delete,
    /// Deletes a directory with everything in it if something else takes its place. sersync decides which runs may do that.
    Force,
    /// The remote shell.
    Shell,
    /// The time limit of a silent remote.
    Timeout,
    /// The time limit of connecting.
    ConnectTimeout,
    /// Options of the socket.
    SocketOptions,
    /// Connects elsewhere than `<remote>` says, so that a knock is impossible.
    Connection,
    /// How coarse times are compared.
    Window,
    /// Writes into the copy itself, so that its other names change as well.
    InPlace,
    /// Like [`Self::InPlace`], and trusts that the copy is the beginning of the file. Runs get `--inplace` instead.
    Append,
    /// Keeps hard links: all names of one file must be in one list, so trees are not divided.
    HardLinks,
    /// The result for a path depends on other paths, so the whole tree has to be compared.
    WholeTree,
    /// Uses directories of the operator as a source of data. rsync then accepts no `--link-dest` of ours.
    OtherCopies,
    /// Where the receiver keeps backups.
    BackupDirectory,
    /// A filter rule.
    Rule(RuleSource),
}

/// Where a filter rule comes from. It decides which kind of run sends paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSource {
    /// `--exclude`, `--exclude-from`.
    Exclude,
    /// `--include`, `--include-from`.
    Include,
    /// `--filter`: the rule itself says what it is.
    Filter,
    /// Files in each directory (`-F`, `-C`).
    PerDirectory,
}

/// An option that passes as it is written.
const fn flag(names: &'static [&'static str], letter: Option<char>) -> RsyncOption {
    RsyncOption { names, letter, arity: Arity::Flag, meaning: Meaning::Passes, differs: None }
}

/// An option with a value that passes as it is written.
const fn value(names: &'static [&'static str], letter: Option<char>) -> RsyncOption {
    RsyncOption { names, letter, arity: Arity::Value, meaning: Meaning::Passes, differs: None }
}

impl RsyncOption {
    const fn shapes(self, role: Role) -> Self {
        Self { meaning: Meaning::Shapes(role), ..self }
    }

    const fn left_out(self, reason: &'static str) -> Self {
        Self { meaning: Meaning::LeftOut(reason), ..self }
    }

    const fn refused(self, reason: &'static str) -> Self {
        Self { meaning: Meaning::Refused(reason), ..self }
    }

    const fn differs(self, how: &'static str) -> Self {
        Self { differs: Some(how), ..self }
    }
}

const WHAT_IS_SAID: &str = "sersync reads rsync's output, and nobody else sees it";
const WHAT_IS_SENT: &str = "sersync itself decides which names are sent";
const WHAT_IS_DELETED: &str = "sersync itself decides what may be deleted";
const NOTHING_COPIED: &str = "rsync would transfer nothing";
const SINGLE_RUN: &str = "it is made for a single run";
const CUT_OFF: &str = "a run that is cut off counts as a failed one";
const OTHER_SIDE: &str = "it is made for rsync's other side";
const INTERNAL: &str = "it is rsync's own, internal option";
const LISTS: &str = "it does not work with lists of names";
const WHOLE_TREE: &str = "makes the result for one path depend on others, so after each change the whole tree is compared";
const LINKED: &str = "sends all names of a file in one run; sersync searches the watch path for names that it does not know";
const EACH_BACKUP: &str = "keeps a backup of each version that is replaced or deleted, more than a run by hand would keep";
const FIRST_KEPT: &str = "keeps the first version that was delivered; a file that was deleted and created again counts as new";
const EACH_RUN: &str = "limits each run; what a run leaves is in the fail log, and the next tries delete it. <guard maxDelete> protects against a mass deletion";
const AS_INPLACE: &str =
    "works like --inplace: appending alone would leave the copy of a replaced file stale for ever";
const NO_PARENTS: &str = "names would not arrive without the directories above them";
const DELETES_SOURCE: &str = "it would delete what was sent from the watch path";

/// All options of rsync 3.5.0, of its daemon's command line, and of older versions that files may still hold.
pub const OPTIONS: &[RsyncOption] = &[
    flag(&["verbose"], Some('v')),
    value(&["info"], None),
    value(&["debug"], None),
    value(&["stderr"], None).left_out(WHAT_IS_SAID),
    flag(&["msgs2stderr"], None).left_out(WHAT_IS_SAID),
    flag(&["quiet"], Some('q')).left_out(WHAT_IS_SAID),
    flag(&["no-motd"], None),
    flag(&["checksum"], Some('c')),
    flag(&["archive"], Some('a')),
    flag(&["recursive"], Some('r')),
    flag(&["inc-recursive", "i-r"], None),
    flag(&["relative"], Some('R')),
    flag(&["implied-dirs", "i-d"], None),
    flag(&["no-implied-dirs", "no-i-d"], None).left_out(NO_PARENTS),
    flag(&["backup"], Some('b')).differs(EACH_BACKUP),
    value(&["backup-dir"], None).shapes(Role::BackupDirectory),
    value(&["suffix"], None),
    flag(&["update"], Some('u')).shapes(Role::Update),
    flag(&["inplace"], None).shapes(Role::InPlace),
    flag(&["append"], None).shapes(Role::Append).differs(AS_INPLACE),
    flag(&["append-verify"], None).shapes(Role::Append).differs(AS_INPLACE),
    flag(&["dirs"], Some('d')),
    flag(&["no-dirs", "no-d"], None).left_out(LISTS),
    flag(&["old-dirs", "old-d"], None).left_out(LISTS),
    flag(&["mkpath"], None),
    flag(&["links"], Some('l')),
    flag(&["copy-links"], Some('L')).shapes(Role::WholeTree).differs(WHOLE_TREE),
    flag(&["copy-unsafe-links"], None).shapes(Role::WholeTree).differs(WHOLE_TREE),
    flag(&["safe-links"], None),
    flag(&["insecure-links"], None),
    value(&["confine-root"], None),
    flag(&["munge-links"], None),
    flag(&["copy-dirlinks"], Some('k')).shapes(Role::WholeTree).differs(WHOLE_TREE),
    flag(&["keep-dirlinks"], Some('K')),
    flag(&["hard-links"], Some('H')).shapes(Role::HardLinks).differs(LINKED),
    flag(&["perms"], Some('p')),
    flag(&["executability"], Some('E')),
    value(&["chmod"], None),
    flag(&["acls"], Some('A')),
    flag(&["xattrs"], Some('X')),
    flag(&["owner"], Some('o')),
    flag(&["group"], Some('g')),
    flag(&["devices"], None),
    flag(&["specials"], None),
    flag(&[], Some('D')),
    flag(&["drop-D"], None),
    flag(&["copy-devices"], None),
    flag(&["write-devices"], None).shapes(Role::InPlace),
    flag(&["times"], Some('t')),
    flag(&["atimes"], Some('U')),
    flag(&["open-noatime"], None),
    flag(&["crtimes"], Some('N')),
    flag(&["omit-dir-times"], Some('O')),
    flag(&["omit-link-times"], Some('J')),
    flag(&["super"], None),
    flag(&["fake-super"], None),
    flag(&["sparse"], Some('S')),
    flag(&["preallocate"], None),
    flag(&["dry-run"], Some('n')).refused(NOTHING_COPIED),
    flag(&["whole-file"], Some('W')),
    value(&["checksum-choice", "cc"], None),
    flag(&["one-file-system"], Some('x')),
    value(&["block-size"], Some('B')),
    value(&["rsh"], Some('e')).shapes(Role::Shell),
    value(&["rsync-path"], None),
    flag(&["existing", "ignore-non-existing"], None),
    flag(&["ignore-existing"], None).differs(FIRST_KEPT),
    flag(&["remove-source-files", "remove-sent-files"], None).left_out(DELETES_SOURCE),
    flag(&["delete"], None).shapes(Role::Delete),
    flag(&["delete-before"], None).shapes(Role::Delete),
    flag(&["delete-during", "del"], None).shapes(Role::Delete),
    flag(&["delete-delay"], None).shapes(Role::Delete),
    flag(&["delete-after"], None).shapes(Role::Delete),
    flag(&["delete-excluded"], None).shapes(Role::Delete),
    flag(&["ignore-missing-args"], None).left_out(WHAT_IS_DELETED),
    flag(&["delete-missing-args"], None).left_out(WHAT_IS_DELETED),
    flag(&["ignore-errors"], None).left_out(WHAT_IS_DELETED),
    flag(&["force"], None).shapes(Role::Force),
    value(&["max-delete"], None).differs(EACH_RUN),
    value(&["max-size"], None),
    value(&["min-size"], None),
    value(&["max-alloc"], None),
    flag(&["partial"], None),
    value(&["partial-dir"], None),
    flag(&["delay-updates"], None),
    flag(&["prune-empty-dirs"], Some('m')).shapes(Role::WholeTree).differs(WHOLE_TREE),
    flag(&["numeric-ids"], None),
    value(&["usermap"], None),
    value(&["groupmap"], None),
    value(&["chown"], None),
    value(&["timeout"], None).shapes(Role::Timeout),
    value(&["contimeout"], None).shapes(Role::ConnectTimeout),
    flag(&["ignore-times"], Some('I')),
    flag(&["size-only"], None),
    value(&["modify-window"], Some('@')).shapes(Role::Window),
    value(&["temp-dir"], Some('T')),
    flag(&["fuzzy"], Some('y')),
    value(&["compare-dest"], None).shapes(Role::OtherCopies),
    value(&["copy-dest"], None).shapes(Role::OtherCopies),
    value(&["link-dest"], None).shapes(Role::OtherCopies),
    flag(&["compress"], Some('z')),
    flag(&["old-compress"], None),
    flag(&["new-compress"], None),
    value(&["compress-choice", "zc"], None),
    value(&["compress-level", "zl"], None),
    value(&["compress-threads", "zt"], None),
    value(&["skip-compress"], None),
    flag(&["cvs-exclude"], Some('C')).shapes(Role::Rule(RuleSource::PerDirectory)),
    value(&["filter"], Some('f')).shapes(Role::Rule(RuleSource::Filter)),
    flag(&[], Some('F')).shapes(Role::Rule(RuleSource::PerDirectory)),
    value(&["exclude"], None).shapes(Role::Rule(RuleSource::Exclude)),
    value(&["exclude-from"], None).shapes(Role::Rule(RuleSource::Exclude)),
    value(&["include"], None).shapes(Role::Rule(RuleSource::Include)),
    value(&["include-from"], None).shapes(Role::Rule(RuleSource::Include)),
    value(&["files-from"], None).refused(WHAT_IS_SENT),
    flag(&["from0"], Some('0')).left_out(WHAT_IS_SENT),
    flag(&["no-from0"], None).left_out(WHAT_IS_SENT),
    flag(&["old-args"], None).left_out(LISTS),
    flag(&["no-old-args"], None).left_out(LISTS),
    flag(&["secluded-args", "protect-args"], Some('s')),
    flag(&["trust-sender"], None),
    value(&["copy-as"], None),
    value(&["address"], None).shapes(Role::Connection),
    value(&["port"], None).shapes(Role::Connection),
    value(&["sockopts"], None).shapes(Role::SocketOptions),
    flag(&["blocking-io"], None),
    value(&["outbuf"], None),
    flag(&["stats"], None),
    flag(&["8-bit-output"], Some('8')),
    flag(&["human-readable"], Some('h')),
    flag(&["progress"], None),
    flag(&[], Some('P')),
    flag(&["itemize-changes"], Some('i')),
    value(&["remote-option"], Some('M')),
    value(&["out-format", "log-format"], None),
    value(&["log-file"], None),
    value(&["log-file-format"], None),
    value(&["password-file"], None).refused("it belongs into <auth passwordfile>"),
    value(&["early-input"], None),
    flag(&["list-only"], None).refused(NOTHING_COPIED),
    value(&["bwlimit"], None),
    value(&["stop-after", "time-limit"], None).left_out(CUT_OFF),
    value(&["stop-at"], None).left_out(CUT_OFF),
    flag(&["fsync"], None),
    value(&["write-batch"], None).refused(SINGLE_RUN),
    value(&["only-write-batch"], None).refused(NOTHING_COPIED),
    value(&["read-batch"], None).refused(SINGLE_RUN),
    value(&["protocol"], None),
    value(&["iconv"], None),
    value(&["checksum-seed"], None),
    flag(&["ipv4"], Some('4')),
    flag(&["ipv6"], Some('6')),
    flag(&["version"], Some('V')).refused(NOTHING_COPIED),
    flag(&["help"], None).refused(NOTHING_COPIED),
    flag(&["daemon"], None).refused("rsync would become a server"),
    flag(&["server"], None).refused(INTERNAL),
    flag(&["sender"], None).refused(INTERNAL),
    value(&["config"], None).left_out(OTHER_SIDE),
    value(&["dparam"], None).left_out(OTHER_SIDE),
    flag(&["detach"], None).left_out(OTHER_SIDE),
];

/// What the table says about one word of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownOption {
    /// Whether it takes a value.
    pub arity: Arity,
    /// What it means for a mirror.
    pub meaning: Meaning,
    /// How it differs here from rsync run by hand; a sentence without its subject.
    pub differs: Option<&'static str>,
}

impl From<&RsyncOption> for KnownOption {
    fn from(option: &RsyncOption) -> Self {
        Self { arity: option.arity, meaning: option.meaning, differs: option.differs }
    }
}

/// What `--name` means. `--no-name` and `--no-X` switch an option off; that never harms a mirror.
pub fn find(name: &str) -> Option<KnownOption> {
    let called = |name: &str| OPTIONS.iter().find(|option| option.names.contains(&name));
    if let Some(option) = called(name) {
        return Some(option.into());
    }
    let positive = name.strip_prefix("no-")?;
    let mut letters = positive.chars();
    let is_known = match (letters.next(), letters.next()) {
        (Some(letter), None) => find_letter(letter).is_some(),
        _ => called(positive).is_some(),
    };
    is_known.then_some(KnownOption { arity: Arity::Flag, meaning: Meaning::Passes, differs: None })
}

/// What `-letter` means.
pub fn find_letter(letter: char) -> Option<KnownOption> {
    OPTIONS.iter().find(|option| option.letter == Some(letter)).map(KnownOption::from)
}
