//! The operator's own rsync words (`<commonParams params>`), made safe to stand in every run.
//! Does not add options of ours, and reads no file.

use std::ffi::OsString;

/// What the operator's words are, once understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// The words that stand in every run, in order.
    pub kept: Vec<OsString>,
    /// The same without `-u`: for what somebody has moved over something newer.
    pub replacing: Vec<OsString>,
    /// `--delete*` words; they belong to full syncs.
    pub delete: Vec<OsString>,
    /// One sentence per word that was left out, for the operator.
    pub notes: Vec<String>,
    /// What kind of filter rules the words hold.
    pub filters: Filters,
    /// The value of `--timeout` in the words, seconds.
    pub timeout_s: Option<u32>,
    /// True when the words hold `--contimeout`.
    pub has_contimeout: bool,
    /// True when the words hold `--sockopts`.
    pub has_sockopts: bool,
    /// The remote shell (`-e`, `--rsh`) in the words.
    pub rsh: Option<OsString>,
    /// True when the words hold `--modify-window`.
    pub has_window: bool,
    /// True when copies are written in place, so that hard links on the remote would share the writing.
    pub writes_in_place: bool,
}

/// Which filter rules the operator's words hold; from harmless to demanding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filters {
    /// None.
    #[default]
    None,
    /// Excludes only: they go well with a list of includes behind them.
    Excludes,
    /// Includes as well: a list of includes behind them would be read too late.
    Includes,
    /// Rules in each directory (`-F`, `-C`, `dir-merge`): rsync reads them only when it recurses.
    PerDirectory,
}

/// Short options that take a value.
const SHORT_WITH_VALUE: &[u8] = b"efBTM@";

/// Long options whose value may be the next word.
const LONG_WITH_VALUE: &str = "info debug stderr backup-dir suffix confine-root chmod checksum-choice cc block-size rsh \
    rsync-path max-delete max-size min-size max-alloc partial-dir usermap groupmap chown \
    timeout contimeout modify-window temp-dir compare-dest copy-dest link-dest compress-choice \
    zc compress-level zl compress-threads zt skip-compress filter exclude exclude-from include \
    include-from files-from copy-as address port sockopts outbuf remote-option out-format log- \
    format log-file log-file-format password-file early-input bwlimit stop-after time-limit \
    stop-at write-batch only-write-batch read-batch protocol iconv checksum-seed config dparam";

/// One option as rsync would read it.
struct Word {
    /// `--name` without the dashes, or the letter of a short option.
    name: String,
    value: Option<OsString>,
    /// How it is written again.
    written: Vec<OsString>,
}

impl Word {
    fn is_update(&self) -> bool {
        self.name == "u" || self.name == "update"
    }
}

impl Params {
    /// Understands `words` as rsync would, and leaves out what would break a run, end it early or harm the source.
    pub fn parse(words: &[String]) -> Self {
        let replacing = Self::parse_with(words, |option| !option.is_update()).kept;
        Self { replacing, ..Self::parse_with(words, |_| true) }
    }

    fn parse_with(words: &[String], wanted: impl Fn(&Word) -> bool) -> Self {
        let mut params = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let first = params.kept.len();
            let mut value = false;
            for option in params.split(word, &mut words).into_iter().filter(&wanted) {
                value = option.value.is_some();
                params.sort_in(option);
            }
            if !word.starts_with("--") {
                params.join_letters(first, value);
            }
        }
        params
    }

    /// Writes the letters of one word as one word again, for those who read our commands; its `value` stays apart.
    fn join_letters(&mut self, first: usize, value: bool) {
        let mut joined = OsString::from("-");
        let letters = self.kept.len().saturating_sub(first + usize::from(value));
        for word in self.kept.drain(first..first + letters) {
            joined.push(word.to_string_lossy().trim_start_matches('-'));
        }
        if letters > 0 {
            self.kept.insert(first, joined);
        }
    }

    /// One word (and the value behind it) as options; a cluster of short ones is several.
    fn split<'a>(&mut self, word: &str, rest: &mut impl Iterator<Item = &'a String>) -> Vec<Word> {
        if let Some(long) = word.strip_prefix("--") {
            if long.is_empty() {
                return Vec::new();
            }
            return vec![split_long(word, long, rest)];
        }
        match word.strip_prefix('-') {
            Some(letters) if !letters.is_empty() => split_short(letters, rest),
            _ => {
                self.notes.push(format!(
                    "commonParams: {word:?} is no option and is ignored; what to copy and where to is said by <localpath> and <remote>"
                ));
                Vec::new()
            }
        }
    }

    /// Decides where one option belongs.
    fn sort_in(&mut self, option: Word) {
        if let Some(why) = reason_to_leave_out(&option) {
            let shown = option.written[0].to_string_lossy().into_owned();
            self.notes.push(format!("commonParams: {shown} is ignored: {why}"));
            return;
        }
        match option.name.as_str() {
            "del" | "delete" | "delete-before" | "delete-during" | "delete-delay"
            | "delete-after" | "delete-excluded" => {
                self.delete.extend(option.written);
                return;
            }
            // Nobody sees what rsync says to standard output but we, and it says there whether it has deleted.
            "q" | "quiet" => return,
            "timeout" => self.timeout_s = Some(number(option.value.as_ref())),
            "contimeout" => self.has_contimeout = true,
            "sockopts" => self.has_sockopts = true,
            "rsh" | "e" => {
                self.rsh = option.value;
                return;
            }
            "modify-window" | "@" => self.has_window = true,
            "inplace" | "append" | "append-verify" | "write-devices" => self.writes_in_place = true,
            _ => self.note_filter(&option),
        }
        self.kept.extend(option.written);
    }

    fn note_filter(&mut self, option: &Word) {
        let value = option.value.as_ref().map(|value| value.to_string_lossy()).unwrap_or_default();
        let kind = match option.name.as_str() {
            "exclude" if value.starts_with("+ ") || value.starts_with('!') => Filters::Includes,
            "exclude" => Filters::Excludes,
            "include" => Filters::Includes,
            "exclude-from" => Filters::Excludes,
            "include-from" => Filters::Includes,
            "f" | "filter" => kind_of_rule(&value),
            "F" | "C" | "cvs-exclude" => Filters::PerDirectory,
            _ => return,
        };
        self.filters = self.filters.max(kind);
    }
}

/// The kind of one `--filter` rule. A merged file may hold any kind, per-directory ones too.
fn kind_of_rule(rule: &str) -> Filters {
    if [":", ".", "dir-merge", "merge"].iter().any(|start| rule.starts_with(start)) {
        Filters::PerDirectory
    } else if rule.starts_with("- ") || rule.starts_with("exclude ") {
        Filters::Excludes
    } else {
        Filters::Includes
    }
}

fn split_long<'a>(word: &str, long: &str, rest: &mut impl Iterator<Item = &'a String>) -> Word {
    let mut written = vec![OsString::from(word)];
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(OsString::from(value))),
        None if LONG_WITH_VALUE.split(' ').any(|name| name == long) => {
            let value = rest.next().map(OsString::from);
            written.extend(value.clone());
            (long, value)
        }
        None => (long, None),
    };
    Word { name: name.to_owned(), value, written }
}

fn split_short<'a>(letters: &str, rest: &mut impl Iterator<Item = &'a String>) -> Vec<Word> {
    let mut options = Vec::new();
    for (at, letter) in letters.char_indices() {
        let mut written = vec![OsString::from(format!("-{letter}"))];
        let mut value = None;
        let takes_value = u8::try_from(letter).is_ok_and(|b| SHORT_WITH_VALUE.contains(&b));
        if takes_value {
            let attached = &letters[at + letter.len_utf8()..];
            value = if attached.is_empty() {
                rest.next().map(OsString::from)
            } else {
                // popt accepts `-e=ssh` too.
                Some(OsString::from(attached.strip_prefix('=').unwrap_or(attached)))
            };
            written.extend(value.clone());
        }
        options.push(Word { name: letter.to_string(), value, written });
        if takes_value {
            break;
        }
    }
    options
}

/// The number in a value; zero (which rsync reads as "never") when there is none.
fn number(value: Option<&OsString>) -> u32 {
    value.and_then(|value| value.to_str()?.parse().ok()).unwrap_or(0)
}

/// Why an option cannot stand in a run of ours; `None` for all that can.
fn reason_to_leave_out(option: &Word) -> Option<&'static str> {
    let name = option.name.as_str();
    let from_stdin = |value: &OsString| {
        let value = value.to_string_lossy();
        value == "-" || value.ends_with(" -")
    };
    let reads_stdin = matches!(
        name,
        "exclude-from"
            | "include-from"
            | "password-file"
            | "filter"
            | "f"
            | "early-input"
            | "read-batch"
    ) && option.value.as_ref().is_some_and(from_stdin);
    if reads_stdin {
        return Some("standard input carries the names of what changed");
    }
    Some(match name {
        "files-from" | "from0" | "0" | "no-from0" => "sersync itself says which names are sent",
        "delete-missing-args" | "ignore-missing-args" | "ignore-errors" => {
            "sersync itself decides what may be deleted"
        }
        "remove-source-files" | "remove-sent-files" => "it would delete the source",
        "n" | "dry-run" | "list-only" | "help" | "version" | "V" | "only-write-batch" => {
            "with it nothing would be copied"
        }
        "write-batch" | "read-batch" => "it is made for a single run",
        "stop-after" | "time-limit" | "stop-at" => "a run that is cut off counts as a failed one",
        "daemon" | "server" | "sender" | "config" | "no-detach" | "dparam" => {
            "it is made for rsync's other side"
        }
        "old-dirs" | "old-d" | "no-dirs" | "no-d" | "old-args" | "no-old-args" => {
            "it goes badly with lists of names"
        }
        _ => return None,
    })
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
            assert_eq!(params.notes.len(), 1, "{words:?}");
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
