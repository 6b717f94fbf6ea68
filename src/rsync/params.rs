//! The operator's own rsync options (`<commonParams params>`), made safe for every run.
//! Does not add options of ours, and reads no file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{Arity, Meaning, Role, RuleSource, find, find_letter};
use crate::path::RelPath;

/// The remark about a remote shell other than ssh.
const OWN_SHELL: &str = "is not ssh, so it gets neither <userDefinedPort> nor BatchMode and time limits: write them into it, and let it ask nothing, for it has no terminal";

/// The operator's options, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// The arguments of every run, in order.
    pub kept: Vec<OsString>,
    /// [`Self::kept`] without `-u`, for files that were moved over newer ones.
    pub replacing: Vec<OsString>,
    /// `--delete*` words; they belong to full syncs.
    pub delete: Vec<OsString>,
    /// True when the words hold `--force`.
    pub forces: bool,
    /// Remarks for the operator: what is ignored, and what is unknown.
    pub remarks: Vec<Remark>,
    /// What kind of filter rules the words hold.
    pub filters: Filters,
    /// The filter options in order, each a name without dashes and a value.
    pub rules: Vec<(String, OsString)>,
    /// The value of `--timeout` in the words, seconds.
    pub timeout_s: Option<u32>,
    /// True when the words hold `--contimeout`.
    pub has_contimeout: bool,
    /// True when the words hold `--sockopts`.
    pub has_sockopts: bool,
    /// True when the words hold `--port` or `--address`, so that rsync may connect elsewhere than `<remote>` says.
    pub connects_elsewhere: bool,
    /// The remote shell (`-e`, `--rsh`) in the words.
    pub rsh: Option<OsString>,
    /// True when the words hold `--modify-window`.
    pub has_window: bool,
    /// True when copies are written in place. A write then changes all hard links of the copy.
    pub writes_in_place: bool,
    /// The first option that lets the sender read or write outside the watch path, or that is unknown.
    pub sender_leads_out: Option<String>,
    /// The first option that lets the receiver write outside the copy. The receiver is this machine if the copy is local.
    pub receiver_leads_out: Option<String>,
    /// True when hard links are kept (`-H`): then all names of a file must be in one list.
    pub keeps_hard_links: bool,
    /// The directory inside the copy where the receiver keeps backups.
    pub backup_directory: Option<RelPath>,
    /// True when the result for a path depends on other paths, so that the whole tree has to be compared.
    pub needs_whole_tree: bool,
    /// True when rsync uses directories of the operator as a source of data. It then accepts no `--link-dest` of ours.
    pub has_other_copies: bool,
}

/// A remark about one word for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The option as written, without its value; the whole word when it is no option.
    pub word: String,
    /// What happens to it.
    pub kind: RemarkKind,
}

/// What happens to a word that does not simply pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemarkKind {
    /// No run gets it; a clause says why.
    LeftOut(&'static str),
    /// It is refused; a clause says why.
    Refused(&'static str),
    /// It passes, but differs from rsync run by hand; a sentence without its subject says how.
    Differs(&'static str),
    /// It is no option; rsync would take it for a file or a remote.
    NoOption,
    /// rsync 3.5.0 has no such option. It passes: another rsync may have it.
    Unknown,
    /// The value that it needs is missing.
    NoValue,
}

/// Which filter rules the operator's words hold. A later variant restricts the kinds of run more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filters {
    /// None.
    #[default]
    None,
    /// Excludes only: a list of includes may follow them.
    Excludes,
    /// Includes too: a list of includes after them would come too late.
    Includes,
    /// Rules in each directory (`-F`, `-C`, `dir-merge`): rsync reads them only when it recurses.
    PerDirectory,
}

/// One option as rsync would read it.
struct Given {
    /// The option with its dashes, without its value.
    shown: String,
    meaning: Meaning,
    differs: Option<&'static str>,
    value: Option<OsString>,
    form: Form,
}

/// How an option is written back.
enum Form {
    /// One letter of a cluster (`-avz`); the value follows the cluster.
    Letter(char),
    /// These words, value included.
    Long(Vec<OsString>),
}

impl Params {
    /// Parses `words` as rsync does, and omits what would break a run, end it early or harm the source.
    pub fn parse(words: &[String]) -> Self {
        let mut params = Self::default();
        let mut has_cvs = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let given = params.read(word, &mut words);
            has_cvs |= given.iter().any(Given::is_cvs);
            params.take(given);
        }
        if has_cvs {
            // Not `-C` itself: rsync would put its rules after ours, and the first match decides.
            let rules = ["--filter=:C", "--filter=-C"].map(OsString::from);
            params.kept.extend(rules.clone());
            params.replacing.extend(rules);
        }
        params
    }

    /// The operator's options that are needed to reach the remote, for runs that do not mirror.
    pub fn connection_words(words: &[String]) -> Vec<String> {
        const ROLES: &[Role] = &[
            Role::Shell,
            Role::Timeout,
            Role::ConnectTimeout,
            Role::SocketOptions,
            Role::Connection,
        ];
        const NAMES: &[&str] =
            &["--rsync-path", "--remote-option", "-M", "--protocol", "--blocking-io"];
        let mut params = Self::default();
        let mut words = words.iter();
        let mut wanted = Vec::new();
        while let Some(word) = words.next() {
            let given = params.read(word, &mut words);
            let is_wanted = |option: &&Given| {
                let role = matches!(option.meaning, Meaning::Shapes(role) if ROLES.contains(&role));
                role || NAMES.contains(&option.shown.as_str())
            };
            for option in given.iter().filter(is_wanted) {
                wanted.extend(write([option].into_iter()));
            }
        }
        wanted.into_iter().filter_map(|word| word.into_string().ok()).collect()
    }

    /// Reads one word, and its value, as options. A cluster of letters is several options.
    fn read<'a>(&mut self, word: &str, rest: &mut impl Iterator<Item = &'a String>) -> Vec<Given> {
        let given = match word.strip_prefix("--") {
            Some(long) if !long.is_empty() => vec![self.read_long(word, long, rest)],
            Some(_) => {
                self.remark(word, RemarkKind::Refused("it ends rsync's options"));
                return Vec::new();
            }
            None => match word.strip_prefix('-') {
                Some(letters) if !letters.is_empty() => self.read_letters(letters, rest),
                _ => {
                    self.remark(word, RemarkKind::NoOption);
                    return Vec::new();
                }
            },
        };
        given.into_iter().filter(|option| !self.is_left_out(option)).collect()
    }

    fn read_long<'a>(
        &mut self,
        word: &str,
        long: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Given {
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (long, None),
        };
        let shown = format!("--{name}");
        let known = find(name);
        if known.is_none() {
            self.remark(&shown, RemarkKind::Unknown);
        }
        let mut written = vec![OsString::from(word)];
        let mut value = attached;
        if value.is_none() && known.is_some_and(|known| known.arity == Arity::Value) {
            value = self.next_value(&shown, rest);
            written.extend(value.clone());
        }
        let meaning = known.map_or(Meaning::Passes, |known| known.meaning);
        let differs = known.and_then(|known| known.differs);
        Given { shown, meaning, differs, value, form: Form::Long(written) }
    }

    fn read_letters<'a>(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Vec<Given> {
        let mut options = Vec::new();
        for (at, letter) in letters.char_indices() {
            let shown = format!("-{letter}");
            let known = find_letter(letter);
            match known {
                Some(_) => {}
                None if letter.is_ascii_alphanumeric() => self.remark(&shown, RemarkKind::Unknown),
                None => self.remark(letter.encode_utf8(&mut [0; 4]), RemarkKind::NoOption),
            }
            let takes_value = known.is_some_and(|known| known.arity == Arity::Value);
            let attached = &letters[at + letter.len_utf8()..];
            let value = match attached {
                _ if !takes_value => None,
                "" => self.next_value(&shown, rest),
                // rsync's option parser (popt) also accepts `-e=ssh`.
                _ => Some(OsString::from(attached.strip_prefix('=').unwrap_or(attached))),
            };
            let meaning = known.map_or(Meaning::Passes, |known| known.meaning);
            let differs = known.and_then(|known| known.differs);
            options.push(Given { shown, meaning, differs, value, form: Form::Letter(letter) });
            if takes_value {
                break;
            }
        }
        options
    }

    fn next_value<'a>(
        &mut self,
        shown: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Option<OsString> {
        let value = rest.next().map(OsString::from);
        if value.is_none() {
            self.remark(shown, RemarkKind::NoValue);
        }
        value
    }

    /// True when no run gets the option. Adds a remark then.
    fn is_left_out(&mut self, option: &Given) -> bool {
        let kind = match option.meaning {
            Meaning::Refused(reason) => RemarkKind::Refused(reason),
            Meaning::LeftOut(reason) => RemarkKind::LeftOut(reason),
            Meaning::Passes | Meaning::Shapes(_) if option.reads_standard_input() => {
                RemarkKind::LeftOut("standard input carries the names of what changed")
            }
            Meaning::Shapes(Role::Shell) if !is_ssh(&option.value_text()) => {
                self.remark(&option.shown, RemarkKind::Differs(OWN_SHELL));
                return false;
            }
            Meaning::Passes | Meaning::Shapes(_) => {
                if let Some(how) = option.differs {
                    self.remark(&option.shown, RemarkKind::Differs(how));
                }
                return false;
            }
        };
        self.remark(&option.shown, kind);
        true
    }

    fn remark(&mut self, word: &str, kind: RemarkKind) {
        self.remarks.push(Remark { word: word.to_owned(), kind });
    }

    /// Stores the options of one word in the lists for the runs.
    fn take(&mut self, given: Vec<Given>) {
        for option in &given {
            self.note(option);
        }
        let is = |option: &Given, role| option.meaning == Meaning::Shapes(role);
        let (delete, given): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|option| is(option, Role::Delete));
        self.delete.extend(write(delete.iter()));
        let is_apart = |option: &&Given| is(option, Role::Shell) || is(option, Role::Force);
        let common = || given.iter().filter(|option| !is_apart(option) && !option.is_cvs());
        self.kept.extend(write(common()));
        self.replacing.extend(write(common().filter(|option| !is(option, Role::Update))));
    }

    /// Remembers what an option means for the plan.
    fn note(&mut self, option: &Given) {
        if option.leads_sender_out() {
            self.sender_leads_out.get_or_insert_with(|| option.shown.clone());
        }
        if option.leads_receiver_out() {
            self.receiver_leads_out.get_or_insert_with(|| option.shown.clone());
        }
        let Meaning::Shapes(role) = option.meaning else { return };
        match role {
            Role::Update | Role::Delete => {}
            Role::Force => self.forces = true,
            Role::Shell => self.rsh.clone_from(&option.value),
            Role::Timeout => self.timeout_s = Some(number(option.value.as_ref())),
            Role::ConnectTimeout => self.has_contimeout = true,
            Role::SocketOptions => self.has_sockopts = true,
            Role::Connection => self.connects_elsewhere = true,
            Role::Window => self.has_window = true,
            Role::InPlace | Role::Append => self.writes_in_place = true,
            Role::HardLinks => self.keeps_hard_links = true,
            Role::WholeTree => self.needs_whole_tree = true,
            Role::OtherCopies => self.has_other_copies = true,
            Role::BackupDirectory => {
                self.backup_directory = option.value.as_ref().and_then(|value| inside_copy(value));
            }
            Role::Rule(rule) => {
                let name = option.shown.trim_start_matches('-');
                self.rules.extend(match (name, &option.value) {
                    ("F", _) => Some(("filter".into(), ": /.rsync-filter".into())),
                    ("C" | "cvs-exclude", _) => Some(("filter".into(), ":C".into())),
                    (name, value) => value.clone().map(|value| (name.to_owned(), value)),
                });
                self.filters = self.filters.max(kind_of(rule, &option.value_text()));
            }
        }
    }
}

impl Given {
    fn is_cvs(&self) -> bool {
        matches!(self.shown.as_str(), "-C" | "--cvs-exclude")
    }

    /// True for options that follow links, name files of this machine other than rule files, or are unknown.
    fn leads_sender_out(&self) -> bool {
        const NAMES: &[&str] = &[
            "-L",
            "--copy-links",
            "--copy-unsafe-links",
            "-k",
            "--copy-dirlinks",
            "--insecure-links",
            "--confine-root",
            "--log-file",
            "--early-input",
            "--copy-as",
        ];
        let name = self.shown.trim_start_matches('-');
        let is_known = match self.form {
            Form::Letter(letter) => find_letter(letter).is_some(),
            Form::Long(_) => find(name).is_some(),
        };
        !is_known || NAMES.contains(&self.shown.as_str())
    }

    /// True for options that name a directory of the receiver which may lie outside the copy.
    fn leads_receiver_out(&self) -> bool {
        const NAMES: &[&str] = &[
            "-T",
            "--temp-dir",
            "--partial-dir",
            "--backup-dir",
            "--compare-dest",
            "--copy-dest",
            "--link-dest",
            "-K",
            "--keep-dirlinks",
            "-M",
            "--remote-option",
        ];
        let value = self.value_text();
        let is_inside = !value.is_empty() && !value.starts_with('/') && !value.contains("..");
        NAMES.contains(&self.shown.as_str()) && !is_inside
    }

    fn value_text(&self) -> String {
        self.value.as_ref().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// True for `--exclude-from=-`, `--filter='. -'` and the like.
    fn reads_standard_input(&self) -> bool {
        let value = self.value_text();
        match self.shown.as_str() {
            "--exclude-from" | "--include-from" | "--early-input" => value == "-",
            "--filter" | "-f" => value == "-" || value.ends_with(" -"),
            _ => false,
        }
    }
}

/// Options as arguments. The letters of one cluster stay together, so that our commands stay readable.
fn write<'a>(options: impl Iterator<Item = &'a Given>) -> Vec<OsString> {
    let mut letters = String::new();
    let mut words = Vec::new();
    for option in options {
        match &option.form {
            Form::Letter(letter) => {
                letters.push(*letter);
                words.extend(option.value.clone());
            }
            Form::Long(_) if option.meaning == Meaning::Shapes(Role::Append) => {
                words.push("--inplace".into());
            }
            Form::Long(written) => words.extend(written.iter().cloned()),
        }
    }
    if !letters.is_empty() {
        words.insert(0, format!("-{letters}").into());
    }
    words
}

/// The kind of filter rule that an option with `value` adds.
fn kind_of(rule: RuleSource, value: &str) -> Filters {
    match rule {
        RuleSource::Exclude if value.starts_with("+ ") || value.starts_with('!') => {
            Filters::Includes
        }
        RuleSource::Exclude => Filters::Excludes,
        RuleSource::Include => Filters::Includes,
        RuleSource::Filter => kind_of_rule(value),
        RuleSource::PerDirectory => Filters::PerDirectory,
    }
}

/// The kind of one `--filter` rule. A merged file may hold any kind, so it counts as per-directory rules.
fn kind_of_rule(rule: &str) -> Filters {
    if [":", ".", "dir-merge", "merge"].iter().any(|start| rule.starts_with(start)) {
        Filters::PerDirectory
    } else if rule.starts_with("- ") || rule.starts_with("exclude ") {
        Filters::Excludes
    } else {
        Filters::Includes
    }
}

/// True for a command line whose program is ssh itself.
pub(super) fn is_ssh(shell: &str) -> bool {
    let program = shell.split_whitespace().next().unwrap_or_default();
    program.rsplit('/').next() == Some("ssh")
}

/// The directory inside the copy that a value names; `None` when it lies elsewhere.
fn inside_copy(value: &OsStr) -> Option<RelPath> {
    let path = value.as_bytes();
    let path = path.strip_prefix(b"./").unwrap_or(path);
    RelPath::new(path.strip_suffix(b"/").unwrap_or(path)).filter(|path| !path.is_root())
}

/// The number in a value; zero (which rsync reads as "never") when there is none.
fn number(value: Option<&OsString>) -> u32 {
    value.and_then(|value| value.to_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Params {
        Params::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn kept(words: &[&str]) -> Vec<String> {
        let kept = parse(words).kept;
        kept.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ordinary_words_stay_as_they_are_written() {
        assert_eq!(kept(&["-artuz"]), ["-artuz"]);
        let words = ["--bwlimit", "100", "--exclude=*.o", "--partial", "-P", "-v"];
        assert_eq!(kept(&words), words);
        assert_eq!(kept(&["-T", "/tmp/parts"]), ["-T", "/tmp/parts"]);
        assert_eq!(parse(&["-avessh -p 1"]).rsh, Some("ssh -p 1".into()));
        assert_eq!(parse(&["--timeout", "30"]).timeout_s, Some(30));
    }

    #[test]
    fn what_harms_the_source_or_ends_a_run_early_is_left_out() {
        for words in [
            &["--remove-source-files"][..],
            &["-n"],
            &["--dry-run"],
            &["--files-from", "list"],
            &["--files-from=list"],
            &["--daemon"],
            &["--version"],
            &["--exclude-from=-"],
            &["--filter", ". -"],
            &["--ignore-errors"],
            &["/other/source"],
        ] {
            let params = parse(words);
            assert!(params.kept.is_empty(), "{words:?} left {:?}", params.kept);
            assert_eq!(params.remarks.len(), 1, "{words:?}");
        }
        assert_eq!(kept(&["-avznT", "/tmp"]), ["-avzT", "/tmp"]);
        assert_eq!(kept(&["-aqz", "--quiet"]), ["-az"]);
    }

    #[test]
    fn a_value_is_never_taken_for_an_option() {
        assert_eq!(kept(&["--exclude", "-n"]), ["--exclude", "-n"]);
        assert_eq!(kept(&["-f", "- *.o", "-u"]), ["-f", "- *.o", "-u"]);
    }

    #[test]
    fn update_is_left_out_where_something_is_replaced_and_nothing_else_is() {
        let replacing = |words: &[&str]| {
            let all = parse(words).replacing;
            all.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(replacing(&["-artuz"]), ["-artz"]);
        assert_eq!(replacing(&["-a", "-u", "--update"]), ["-a"]);
        let words = ["-a", "--exclude", "-u", "-T", "-u", "--usermap=a:b"];
        assert_eq!(replacing(&words), words);
    }

    #[test]
    fn delete_words_are_kept_apart() {
        let params = parse(&["-a", "--delete", "--delete-excluded"]);
        assert_eq!(params.kept, ["-a"]);
        assert_eq!(params.delete, ["--delete", "--delete-excluded"]);
    }

    #[test]
    fn kinds_of_filters_are_told_apart() {
        assert_eq!(parse(&["-a"]).filters, Filters::None);
        assert_eq!(parse(&["--exclude=x"]).filters, Filters::Excludes);
        assert_eq!(parse(&["--exclude=x", "--include=y"]).filters, Filters::Includes);
        assert_eq!(parse(&["-aF"]).filters, Filters::PerDirectory);
        assert_eq!(parse(&["-f", ": .rules"]).filters, Filters::PerDirectory);
        assert_eq!(parse(&["--exclude-from=list"]).filters, Filters::Excludes);
    }
}
