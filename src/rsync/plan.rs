//! The arguments of each kind of run, in the order that rsync needs.
//! Pure; `input.rs` makes the standard input.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::confine::Confinement;
use super::excludes::Excludes;
use super::input::{exact_patterns, pattern_below, patterns, whole_directories};
use super::params::{Filters, is_ssh};
use super::{Abilities, Basis, CONNECT_TIMEOUT_S, Endpoint, Presence, RunKind, RunSpec};
use crate::change::Scope;
use crate::destination::Destination;
use crate::path::RelPath;

/// Ends the rules of a run that reaches only some names.
const EVERYTHING_ELSE: &str = "--exclude=*";

impl Endpoint {
    /// The arguments of one run.
    pub fn plan(&self, kind: &RunKind, abilities: Abilities) -> RunSpec {
        let mut args = Vec::new();
        // The first matching rule decides, so sersync's exclusions come before the operator's rules.
        // rsync reads a rule file at the position of its option, and the rules in each directory last.
        // `--from0` applies to our own input only.
        if matches!(
            kind,
            RunKind::Listing { .. }
                | RunKind::Trees { .. }
                | RunKind::Extraneous { .. }
                | RunKind::MoveDirectory { .. }
        ) {
            args.extend(["--from0", "--filter=. -", "--no-from0"].map(OsString::from));
        }
        let params = match kind {
            RunKind::Replacement | RunKind::MoveFile { .. } => &self.params.replacing,
            // Without lists, `Replacement` becomes this run. So files that are compared by content may be replaced.
            RunKind::Fallback { ignore_times: true } if !abilities.relative => {
                &self.params.replacing
            }
            _ => &self.params.kept,
        };
        args.extend(params.iter().cloned());
        let deletes = self.options.deletes && abilities.delete;
        if deletes
            && matches!(kind, RunKind::Trees { deletes: true, .. } | RunKind::Extraneous { .. })
        {
            args.extend(self.params.delete.iter().cloned());
        }
        args.extend(self.kind_words(kind, abilities));
        let (shell, confinement) = self.connection();
        self.push_connection(&mut args, shell);
        self.push_tuning(&mut args, abilities);
        // After `--` nothing is read as an option, even a name or host that begins with a dash.
        args.push("--".into());
        self.push_places(&mut args, kind, abilities);
        RunSpec { confinement, ..self.spec(args) }
    }

    fn spec(&self, args: Vec<OsString>) -> RunSpec {
        let (root, local) = (self.root.clone(), self.local.clone());
        RunSpec {
            args,
            root,
            local,
            owner: self.owner.clone(),
            confinement: self.confinement.clone(),
        }
    }

    /// The remote shell, and what a run may read then.
    fn connection(&self) -> (Option<OsString>, Option<Confinement>) {
        match self.over_ssh.as_ref().and_then(|over_ssh| over_ssh.confined()) {
            Some((shell, confinement)) => (Some(shell), Some(confinement)),
            None => (self.shared_shell(), self.confinement.clone()),
        }
    }

    /// A dry run of `kind` that prints what it would delete ([`deleted_names`](super::deleted_names)).
    pub fn plan_preview(&self, kind: &RunKind, abilities: Abilities) -> RunSpec {
        self.plan_without_effect(kind, abilities, &["--out-format=%o %n"])
    }

    /// A dry run of `kind` that prints everything it would change ([`super::PreviewAnswer`]).
    pub fn plan_question(&self, kind: &RunKind, abilities: Abilities) -> RunSpec {
        // Without %i rsync does not name what differs in mode or owner alone. The second `i` also names what is equal.
        self.plan_without_effect(kind, abilities, &["-ii", "--out-format=%o %i %n"])
    }

    /// Lists the remote's directory itself, not its content: whether it exists, and when it was changed.
    pub fn plan_listing(&self) -> RunSpec {
        let mut args = self.params.kept.clone();
        self.push_connection(&mut args, self.shared_shell());
        self.push_tuning(&mut args, Abilities::NONE);
        args.extend(["--list-only", "--no-r", "-d", EVERYTHING_ELSE, "--"].map(OsString::from));
        args.push(self.destination.word());
        self.spec(args)
    }

    fn plan_without_effect(&self, kind: &RunKind, abilities: Abilities, words: &[&str]) -> RunSpec {
        let mut spec = self.plan(kind, abilities);
        spec.insert(&["-n"]);
        spec.insert(words);
        spec
    }

    /// The options that make a run one of its kind.
    fn kind_words(&self, kind: &RunKind, abilities: Abilities) -> Vec<OsString> {
        let may_force = self.may_force(abilities)
            && !matches!(kind, RunKind::Extraneous { .. } | RunKind::MoveFile { .. });
        // A run that reads only part of the tree would see other directories as empty, and delete them.
        let keeps_empty = self.params.needs_whole_tree && is_partial(kind);
        let mut words = self.selection(kind, abilities);
        words.extend(may_force.then_some("--force"));
        words.extend(keeps_empty.then_some("--no-prune-empty-dirs"));
        words.extend(compares_content(kind, abilities));
        let words = words.into_iter().map(OsString::from).collect();
        let words = [words, self.words_with_names(kind, abilities)].concat();
        let reaches_few = words.iter().any(|word| word == EVERYTHING_ELSE);
        let backups = self.reach_backups().filter(|_| reaches_few);
        backups.into_iter().chain(words).collect()
    }

    /// The option that lets a run that reaches only some names clear an older backup out of the way of a newer one.
    fn reach_backups(&self) -> Option<OsString> {
        let pattern = pattern_below(self.params.backup_directory.as_ref()?);
        Some(OsString::from_vec([b"--filter=risk ", &*pattern].concat()))
    }

    /// What rsync reads here and on the remote, and whether it deletes what only the remote has.
    fn selection(&self, kind: &RunKind, abilities: Abilities) -> Vec<&'static str> {
        const ENTRIES: &str = "--no-r";
        const LISTING: &[&str] = &["--no-r", "-d"];
        const TREE: &str = "-r";
        // Down from the watch root, so that names need not carry their directories.
        const FROM_ROOT: &[&str] = &["-r", "--no-R"];
        const LIST: &[&str] = &["--from0", "--files-from=-"];
        const PATTERNS: &[&str] = &["--from0", "--include-from=-", "--no-from0", EVERYTHING_ELSE];
        const RULES: &[&str] = &["--from0", "--filter=. -", "--no-from0", EVERYTHING_ELSE];
        const ONLY_DELETIONS: &[&str] = &["--existing", "--ignore-existing"];
        const IGNORE_MISSING: &str = "--ignore-missing-args";

        let deletes = self.options.deletes && abilities.delete;
        let delete_if = |wanted: bool| if deletes && wanted { &["--delete"][..] } else { &[] };
        let delete = delete_if(true);
        let relative = self.relative(kind, abilities);
        let missing = self.missing(kind, abilities);
        match kind {
            RunKind::Batch { .. }
            | RunKind::Confirmation
            | RunKind::Replacement
            | RunKind::Probe => [&[ENTRIES, relative], LIST, &[missing]].concat(),
            RunKind::LongBatch { .. } => [LISTING, &[relative, missing]].concat(),
            RunKind::Fallback { .. } => [FROM_ROOT, delete, PATTERNS].concat(),
            RunKind::CleanTemp => [FROM_ROOT, ONLY_DELETIONS, delete, RULES].concat(),
            RunKind::GuardedDeletion => [FROM_ROOT, delete, RULES].concat(),
            // rsync reads the rules of parent directories only on its way down from the root.
            RunKind::Listing { dirs, deletes } | RunKind::Trees { dirs, deletes, .. }
                if self.goes_down_from_root(dirs, abilities) =>
            {
                [FROM_ROOT, delete_if(*deletes)].concat()
            }
            RunKind::Listing { deletes, .. } => {
                [LISTING, &[relative, IGNORE_MISSING], delete_if(*deletes)].concat()
            }
            RunKind::Trees { deletes, at_once, .. } => {
                let list = if *at_once { &["--no-inc-recursive"][..] } else { &[] };
                [&[TREE, relative, IGNORE_MISSING], list, delete_if(*deletes)].concat()
            }
            RunKind::Extraneous { scope, .. } => {
                let depth = if *scope == Scope::Tree { &[TREE] } else { LISTING };
                [depth, &[relative, IGNORE_MISSING], ONLY_DELETIONS, delete].concat()
            }
            // `--delete` removes what was at the new name before.
            RunKind::MoveDirectory { .. } => [FROM_ROOT, &["-s"], delete].concat(),
            RunKind::MoveFile { .. } => {
                [&[ENTRIES, "-s"], LIST, &[IGNORE_MISSING, "--fuzzy"]].concat()
            }
        }
    }

    /// Whether names keep their directories. Without that every name would arrive at the top of the copy.
    fn relative(&self, kind: &RunKind, abilities: Abilities) -> &'static str {
        let needs_none = match kind {
            // It sends nothing.
            RunKind::Probe => true,
            RunKind::Listing { dirs, .. } | RunKind::Trees { dirs, .. } => is_root(dirs),
            _ => false,
        };
        if abilities.relative || !needs_none { "-R" } else { "--no-R" }
    }

    /// What happens to a listed name that is missing here.
    fn missing(&self, kind: &RunKind, abilities: Abilities) -> &'static str {
        // rsync deletes a missing listed name even if a filter excludes it. So with filters only a probe uses this option.
        let unfiltered = self.params.filters == Filters::None || *kind == RunKind::Probe;
        let deletes = self.options.deletes && abilities.delete && abilities.delete_missing;
        if deletes && unfiltered { "--delete-missing-args" } else { "--ignore-missing-args" }
    }

    /// The options of a kind that contain names.
    fn words_with_names(&self, kind: &RunKind, abilities: Abilities) -> Vec<OsString> {
        match kind {
            RunKind::MoveDirectory { old, new, basis: Basis::Links, .. } => {
                vec![way_between("--link-dest", old, new)]
            }
            RunKind::MoveDirectory { old, new, basis: Basis::Copies, .. } => {
                vec![way_between("--copy-dest", old, new)]
            }
            RunKind::MoveFile { old, new } if old.name() == new.name() => {
                let parent = |path: &RelPath| path.parent().unwrap_or_default();
                vec!["--no-R".into(), way_between("--link-dest", &parent(old), &parent(new))]
            }
            RunKind::MoveFile { .. } => vec!["-R".into()],
            RunKind::Listing { dirs, .. } if self.goes_down_from_root(dirs, abilities) => {
                includes(dirs, b"/*")
            }
            RunKind::Trees { dirs, .. } if self.goes_down_from_root(dirs, abilities) => {
                includes(dirs, b"/***")
            }
            _ => Vec::new(),
        }
    }

    /// Appends the options that are needed to reach the remote.
    fn push_connection(&self, args: &mut Vec<OsString>, shell: Option<OsString>) {
        if let Some(seconds) = self.options.timeout_s {
            args.push(format!("--timeout={seconds}").into());
        }
        if let Some(rate) = &self.options.bwlimit {
            args.push(format!("--bwlimit={rate}").into());
        }
        if let Some(shell) = shell {
            args.extend(["-e".into(), shell]);
        }
        let Destination::Daemon { host, .. } = &self.destination else {
            return;
        };
        if let Some(port) = host.port {
            args.push(format!("--port={port}").into());
        }
        if let Some(file) = &self.options.password_file {
            let mut word = OsString::from("--password-file=");
            word.push(file);
            args.push(word);
        }
    }

    /// Appends the options that make a run fast and let it notice a dead remote soon.
    fn push_tuning(&self, args: &mut Vec<OsString>, abilities: Abilities) {
        if self.compares_nanoseconds(abilities) {
            args.push("--modify-window=-1".into());
        }
        // We set no --timeout: a daemon answers it with one more small message, which costs a short run 40 ms.
        // We watch the progress of a run ourselves.
        // rsync allows both only with a connection to a daemon.
        if self.remote_shell().is_some() || self.local.is_some() {
            return;
        }
        if !self.params.has_sockopts {
            args.push("--sockopts=TCP_NODELAY".into());
        }
        if !self.params.has_contimeout {
            args.push(format!("--contimeout={CONNECT_TIMEOUT_S}").into());
        }
    }

    /// The remote shell with the options for the connection that is kept between runs.
    fn shared_shell(&self) -> Option<OsString> {
        let shell = self.remote_shell()?;
        let Some(master) = &self.master else { return Some(shell) };
        // These words come before our other options: if an option is given twice, ssh takes the first.
        let shell = shell.into_string().ok()?;
        let shared = format!(" {} -o BatchMode=yes", master.words());
        Some(shell.replacen(" -o BatchMode=yes", &shared, 1).into())
    }

    /// The operator's own remote shell. For ssh and a plain `-e ssh` (or none), our command line.
    pub(super) fn remote_shell(&self) -> Option<OsString> {
        let own = self.params.rsh.clone();
        let host = match &self.destination {
            Destination::Ssh { host, .. } => host,
            Destination::Daemon { .. } => return own,
            Destination::Local { .. } => return None,
        };
        match own.as_ref().map(|shell| shell.to_string_lossy()) {
            None => Some(ssh_words("ssh", host.port).into()),
            // If an option is given twice, ssh takes the first: the operator's.
            Some(shell) if is_ssh(&shell) => Some(ssh_words(&shell, host.port).into()),
            Some(_) => own,
        }
    }

    /// The same endpoint for runs that only compare: with `-u` a newer copy would count as equal.
    #[must_use]
    pub fn comparing(&self) -> Self {
        let mut endpoint = self.clone();
        endpoint.params.kept.clone_from(&self.params.replacing);
        endpoint
    }

    /// A run for one path that an operator can repeat by hand: it needs no standard input.
    /// With [`Scope::Entry`] it leaves alone what is below the path, here and on the remote.
    pub fn plan_by_hand(
        &self,
        path: &RelPath,
        presence: Presence,
        excludes: &Excludes,
        reach: Scope,
    ) -> RunSpec {
        let reaches_below = reach == Scope::Tree;
        let presence = match presence {
            Presence::Directory if !reaches_below => Presence::Other,
            presence => presence,
        };
        let mut args = Vec::new();
        if presence != Presence::Other {
            args.extend(excludes.words());
        }
        args.extend(self.params.kept.iter().cloned());
        let delete = self.options.deletes && presence != Presence::Other;
        args.extend(delete.then(|| "--delete".into()));
        let mut source = "./".into();
        if presence == Presence::Absent {
            args.push("-r".into());
            args.extend(reaches_below.then(|| "--force".into()));
            args.extend(self.reach_backups());
            args.extend(include_words(&match reaches_below {
                true => patterns([(path, Presence::Absent)]),
                false => exact_patterns([path]),
            }));
            args.push(EVERYTHING_ELSE.into());
        } else {
            let depth: &[&str] =
                if presence == Presence::Directory { &["-r"] } else { &["--no-r", "-d"] };
            args.extend(depth.iter().map(OsString::from));
            args.push("-R".into());
            source = source_word(path, "");
        }
        self.push_connection(&mut args, self.remote_shell());
        args.extend(["--".into(), source, self.destination.word()]);
        self.spec(args)
    }

    /// True when rsync has to descend from the watch root, because parent directories may hold rules.
    fn goes_down_from_root(&self, dirs: &[RelPath], abilities: Abilities) -> bool {
        let by_rules = !self.reads_lists() && !dirs.iter().any(RelPath::is_root);
        by_rules || !abilities.relative && !is_root(dirs)
    }

    /// Appends source and destination.
    fn push_places(&self, args: &mut Vec<OsString>, kind: &RunKind, abilities: Abilities) {
        match kind {
            RunKind::Listing { dirs, .. } | RunKind::Trees { dirs, .. }
                if self.goes_down_from_root(dirs, abilities) =>
            {
                args.push("./".into());
            }
            RunKind::Listing { dirs, .. } | RunKind::Extraneous { dirs, scope: Scope::Listing } => {
                args.extend(dirs.iter().map(|dir| source_word(dir, "/")))
            }
            RunKind::Trees { dirs, .. }
            | RunKind::LongBatch { names: dirs, .. }
            | RunKind::Extraneous { dirs, .. } => {
                args.extend(dirs.iter().map(|dir| source_word(dir, "")))
            }
            RunKind::MoveDirectory { new, .. } => args.push(source_word(new, "/")),
            RunKind::MoveFile { old, new } if old.name() == new.name() => {
                args.push(source_word(&new.parent().unwrap_or_default(), "/"));
            }
            _ => args.push("./".into()),
        }
        let below = match kind {
            RunKind::MoveDirectory { new, .. } => Some(new.clone()),
            RunKind::MoveFile { old, new } if old.name() == new.name() => new.parent(),
            _ => None,
        };
        let mut word = self.destination.word();
        if let Some(dir) = below.filter(|dir| !dir.is_root()) {
            word.push(OsStr::from_bytes(dir.as_bytes()));
            word.push("/");
        }
        args.push(word);
    }
}

/// True for a run that reads only part of the tree between the watch root and its names.
fn is_partial(kind: &RunKind) -> bool {
    matches!(
        kind,
        RunKind::Fallback { .. }
            | RunKind::CleanTemp
            | RunKind::GuardedDeletion
            | RunKind::Listing { .. }
            | RunKind::Extraneous { .. }
    )
}

/// The option of a run that compares contents, because equal size and time prove nothing.
fn compares_content(kind: &RunKind, abilities: Abilities) -> Option<&'static str> {
    let compares = match kind {
        RunKind::Replacement => true,
        // Another file may have been there before, of the same size and time. A link to the old copy needs rsync's quick check.
        RunKind::MoveFile { old, new } => old.parent() == new.parent(),
        RunKind::Batch { ignore_times: compares }
        | RunKind::LongBatch { ignore_times: compares, .. }
        | RunKind::Fallback { ignore_times: compares }
        | RunKind::Trees { checksum: compares, .. }
        | RunKind::MoveDirectory { checksum: compares, .. } => *compares,
        _ => false,
    };
    // rsync rebuilds a renamed file from its old copy anyway. A checksum would make both sides read it once more.
    let is_rebuilt = matches!(kind, RunKind::MoveFile { .. });
    let word = match is_rebuilt && abilities.ignore_times || !abilities.checksum {
        true => "-I",
        false => "-c",
    };
    compares.then_some(word)
}

/// ssh's command line: it never asks, and it notices a dead connection by itself.
fn ssh_words(shell: &str, port: Option<u16>) -> String {
    let port = port.map_or_else(String::new, |port| format!(" -p {port}"));
    // With this log level, only errors appear on standard error: no banner, no note about a new host key.
    format!(
        "{shell}{port} -o BatchMode=yes -o LogLevel=ERROR -o ConnectTimeout={CONNECT_TIMEOUT_S} -o ServerAliveInterval=15 -o ServerAliveCountMax=3"
    )
}

/// True for the watch root alone.
fn is_root(dirs: &[RelPath]) -> bool {
    matches!(dirs, [only] if only.is_root())
}

/// `./a/b` as a source word.
fn source_word(path: &RelPath, end: &str) -> OsString {
    let mut word = b"./".to_vec();
    word.extend_from_slice(path.as_bytes());
    if !path.is_root() {
        word.extend_from_slice(end.as_bytes());
    }
    OsString::from_vec(word)
}

/// A list of patterns as `--include` options.
pub fn include_words(list: &[u8]) -> Vec<OsString> {
    let patterns = list.split(|&b| b == 0).filter(|pattern| !pattern.is_empty());
    patterns.map(|pattern| OsString::from_vec([b"--include=", pattern].concat())).collect()
}

/// Options that let rsync reach only `dirs` from the root, and `below` in them.
fn includes(dirs: &[RelPath], below: &[u8]) -> Vec<OsString> {
    let mut words = include_words(&whole_directories(dirs, below));
    words.push(EVERYTHING_ELSE.into());
    words
}

/// An option with the way from the copy of `new` to the copy of `old`. It is relative, so it works for a module and for ssh.
fn way_between(option: &str, old: &RelPath, new: &RelPath) -> OsString {
    let mut word = option.as_bytes().to_vec();
    word.push(b'=');
    for _ in new.components() {
        word.extend_from_slice(b"../");
    }
    word.extend_from_slice(b"./");
    word.extend_from_slice(old.as_bytes());
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests;
