//! Turns the engine's notices into sentences for an operator: what happened, to what, and what to do.
//! Decides only the wording and the level of a log line.

use std::path::PathBuf;
use std::time::Duration;

use log::Level;

use super::guard::Remains;
use crate::change::{RemoteId, RootId, RootLoss};
use crate::engine::{Extraneous, FullSyncCause, Notice, PathFailure, Refusal};
use crate::failure::{Failure, FailureKind, Subject};
use crate::path::RelPath;

/// The maximum number of mount points that an alarm lists.
const PATHS_TOLD: usize = 5;

/// Why the deletions below a root are held back.
#[derive(Debug)]
pub enum Withheld<'a> {
    /// These mount points lost their file systems.
    Unmounted(&'a [RelPath]),
    /// Much is gone, and nobody saw it go.
    TooMuchGone(Remains),
    /// The tree could not be searched; the clause says why.
    Unsearched(&'a str),
    /// Its record cannot be opened.
    Unrecorded,
}

/// The names behind the engine's ids.
#[derive(Debug, Clone)]
pub struct Names {
    /// Watch paths.
    pub roots: Vec<PathBuf>,
    /// Remotes as an operator writes them: `host::module`.
    pub remotes: Vec<String>,
}

impl Names {
    /// The path of a root.
    pub fn root(&self, id: RootId) -> String {
        self.roots.get(id.0).map_or_else(String::new, |root| root.display().to_string())
    }

    /// A remote as an operator writes it.
    pub fn remote(&self, id: RemoteId) -> &str {
        self.remotes.get(id.0).map_or("", String::as_str)
    }

    fn who(&self, subject: Subject, remote: RemoteId, root: RootId) -> String {
        match subject {
            Subject::Root => self.root(root),
            Subject::Remote | Subject::Program | Subject::Machine => self.remote(remote).to_owned(),
        }
    }

    fn failed(&self, remote: RemoteId, root: RootId, failure: &Failure, pending: usize) -> String {
        let policy = failure.kind.policy();
        let who = self.who(policy.subject, remote, root);
        let said = policy.said.replace("{who}", &who).replace("{kept}", &waiting(pending));
        // Replace the reason last, because it may contain placeholders.
        said.replace("{reason}", &failure.clause())
    }

    fn refused(&self, remote: RemoteId, refusal: &Refusal, next_try: Duration) -> String {
        let Refusal { directory, paths, example, .. } = refusal;
        let PathFailure { path, failure } = example;
        let Failure { code, reason, .. } = failure;
        let (remote, next) = (self.remote(remote), span(next_try));
        if *paths == 1 {
            return format!(
                "{path} could not be sent to {remote} (rsync exit code {code}): {}; it is in the fail log, and is tried \
                 again in {next} and then until it is delivered",
                failure.clause()
            );
        }
        format!(
            "{paths} paths in {directory} could not be sent to {remote}, {path} for one (rsync exit code {code}): {reason}; \
             they are in the fail log, and are tried again in {next} and then until they are delivered; {}",
            failure.what_to_do()
        )
    }

    /// The sentence that says why the deletions below a root are held back. `advice` says how to confirm them.
    pub fn withheld(&self, root: RootId, why: &Withheld<'_>, advice: &str) -> String {
        let path = self.root(root);
        match why {
            Withheld::Unmounted(lost) => {
                let mut told: Vec<String> =
                    lost.iter().take(PATHS_TOLD).map(RelPath::to_string).collect();
                told.extend((lost.len() > PATHS_TOLD).then(|| "…".into()));
                let lost = told.join(", ");
                format!(
                    "{lost} in {path} is not mounted any more: directories are sent, and nothing in them is \
                     deleted on the remotes; mount it and restart; {advice}"
                )
            }
            Withheld::TooMuchGone(Remains { known, gone }) => format!(
                "{gone} of {known} known entries below {path} are gone, and nobody saw them go: \
                 they are not deleted on the remotes; {advice}"
            ),
            Withheld::Unsearched(reason) => format!(
                "{path}: {reason}; directories are sent and nothing in them is deleted: fix that and restart"
            ),
            Withheld::Unrecorded => format!(
                "{path}: its record cannot be opened, the log says why; directories are sent and nothing in them is \
                 deleted: fix that and restart"
            ),
        }
    }

    /// The level and the sentence of a notice.
    pub fn sentence(&self, notice: &Notice) -> (Level, String) {
        match notice {
            Notice::Failed { remote, root, failure, pending } => {
                (failure.kind.policy().level, self.failed(*remote, *root, failure, *pending))
            }
            Notice::Over { remote, root, kind, after, pending } => {
                let policy = kind.policy();
                let who = self.who(policy.subject, *remote, *root);
                let over = policy.over.replace("{who}", &who);
                let over = over.replace("{after}", &after.as_secs().to_string());
                let level = match policy.subject {
                    Subject::Remote | Subject::Machine => Level::Info,
                    Subject::Program | Subject::Root => Level::Warn,
                };
                (level, over.replace("{sent}", &on_their_way(*pending)))
            }
            Notice::MemoryShort => (
                Level::Error,
                "out of memory: what waits is kept as directories, and work waits for more; raise the limit \
                 (MemoryMax= of the service, ulimit -v) or give the machine more"
                    .into(),
            ),
            Notice::StillDown { remote, root, failure, lasts, next_try, pending } => {
                let said = self.failed(*remote, *root, failure, *pending);
                let lasts = span(*lasts);
                let next = match next_try.is_zero() {
                    true => "a try is running".into(),
                    false => format!("the next try is in {}", span(*next_try)),
                };
                (Level::Warn, format!("{said} (this lasts for {lasts} now; {next})"))
            }
            Notice::PathsFailed { remote, refusal, next_try } => {
                // A refusal by the receiver may be intended, so it is only a warning.
                let is_denied = refusal.example.failure.kind == FailureKind::Denied;
                let level = if is_denied { Level::Warn } else { Level::Error };
                (level, self.refused(*remote, refusal, *next_try))
            }
            Notice::MorePathsFailed { remote, paths, directories } => (
                Level::Error,
                format!(
                    "{paths} paths more, in {directories} directories, could not be sent to {}; they are in the fail log \
                     and are tried again",
                    self.remote(*remote)
                ),
            ),
            Notice::RootLost { root, loss: RootLoss::Gone(reason) } => (
                Level::Error,
                format!(
                    "ALARM: watch path {}: {reason}; nothing is sent or deleted until it is back",
                    self.root(*root)
                ),
            ),
            Notice::RootLost { root, loss: RootLoss::Replaced } => (
                Level::Debug,
                format!(
                    "watch path {} is another directory than before: nothing is sent until it is trusted",
                    self.root(*root)
                ),
            ),
            Notice::RootBack { root, replaced: false } => (
                Level::Warn,
                format!("watch path {} is back: everything below it is compared", self.root(*root)),
            ),
            Notice::RootBack { root, replaced: true } => (
                Level::Warn,
                format!(
                    "watch path {} is another directory than before: everything below it is compared",
                    self.root(*root)
                ),
            ),
            Notice::SubtreeLost { root, path, reason } => (
                Level::Error,
                format!(
                    "ALARM: {path} in {}: {reason}; nothing below it is sent or deleted until it is back",
                    self.root(*root)
                ),
            ),
            Notice::SubtreeBack { root, path } => (
                Level::Warn,
                format!("{path} in {} is back: everything below it is compared", self.root(*root)),
            ),
            Notice::Overflow { root } => (
                Level::Warn,
                format!(
                    "the kernel dropped events below {}: everything below it is compared; \
                     raise fs.inotify.max_queued_events if this happens often",
                    self.root(*root)
                ),
            ),
            Notice::FullSyncStarted { cause } => {
                let cause = match cause {
                    FullSyncCause::Start => "at start (-r)",
                    FullSyncCause::Schedule => "by <crontab>",
                    FullSyncCause::Requested => "by sync-now",
                    FullSyncCause::Overflow => "after lost events",
                    FullSyncCause::Unrecorded => "because the recorded state is not usable",
                    FullSyncCause::RootBack => "because the watch path is back",
                };
                (Level::Info, format!("full sync {cause} begins"))
            }
            Notice::FullSyncDone { remote, took, extraneous } => {
                let (remote, took) = (self.remote(*remote), took.as_secs_f64());
                let but = match extraneous {
                    Extraneous::Deleted => "",
                    Extraneous::Withheld => "; nothing was deleted (see the alarm)",
                    Extraneous::Refused => {
                        "; it refuses deletions, so what only it has is still there"
                    }
                    Extraneous::Kept => {
                        "; what only the remote has was left there: nobody can tell whether it was deleted here (a start with -r \
                         deletes it)"
                    }
                };
                (Level::Info, format!("full sync to {remote} is done in {took:.1} s{but}"))
            }
            Notice::FullSyncSkipped { remote } => (
                Level::Warn,
                format!(
                    "the scheduled full sync to {} is skipped: the previous one is still running",
                    self.remote(*remote)
                ),
            ),
            Notice::Collapsed { remote, from, to } => (
                Level::Warn,
                format!(
                    "{from} changes wait for {}: to bound memory they are kept as {to} directories",
                    self.remote(*remote)
                ),
            ),
        }
    }
}

/// The subject of a sentence: `1 change waits and is`, `2 changes wait and are`; with 0, it speaks of later changes.
fn waiting(pending: usize) -> String {
    match pending {
        0 => "what changes is kept and".into(),
        1 => "1 change waits and is".into(),
        many => format!("{many} changes wait and are"),
    }
}

/// Formats a duration as `7 s`, `5 min` or `2 h 5 min`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Formats `1 change is on its way` or `2 changes are on their way`.
fn on_their_way(pending: usize) -> String {
    match pending {
        0 => "it has everything".into(),
        1 => "1 change is on its way".into(),
        many => format!("{many} changes are on their way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_of_no_changes_that_wait() {
        let names = Names { roots: Vec::new(), remotes: vec!["h::m".into()] };
        let sentence = |pending| {
            let (remote, root) = (RemoteId(0), RootId(0));
            let failure = Failure::new(FailureKind::Away, 10, "it is silent");
            names.sentence(&Notice::Failed { remote, root, failure, pending }).1
        };
        let end = |pending| sentence(pending).split_once("; ").unwrap().1.to_owned();
        assert_eq!(end(0), "what changes is kept and sent when it is back");
        assert_eq!(end(1), "1 change waits and is sent when it is back");
        assert_eq!(end(2), "2 changes wait and are sent when it is back");
    }

    #[test]
    fn an_outage_that_lasts_is_said_with_since_when_how_many_and_the_next_try() {
        let names = Names { roots: Vec::new(), remotes: vec!["h::m".into()] };
        let (remote, root) = (RemoteId(0), RootId(0));
        let failure = Failure::new(FailureKind::Away, 10, "it is silent");
        let (lasts, next_try) = (Duration::from_secs(7_500), Duration::from_millis(900));
        let notice = Notice::StillDown { remote, root, failure, lasts, next_try, pending: 45 };
        let said = "remote h::m is down: it is silent; 45 changes wait and are sent when it is back \
                    (this lasts for 2 h 5 min now; the next try is in 1 s)";
        assert_eq!(names.sentence(&notice), (Level::Warn, said.to_owned()));
    }

    #[test]
    fn a_busy_remote_is_a_warning_with_the_remedy() {
        let names = Names { roots: Vec::new(), remotes: vec!["h::m".into()] };
        let reason = "serves as many clients as its `max connections` allows";
        let failure = Failure::new(FailureKind::Busy, 5, reason).advising("raise it");
        let (remote, root) = (RemoteId(0), RootId(0));
        let notice = Notice::Failed { remote, root, failure, pending: 3 };
        let said = format!(
            "remote h::m {reason}: raise it; 3 changes wait and are sent as soon as it has a free connection"
        );
        assert_eq!(names.sentence(&notice), (Level::Warn, said));
    }

    #[test]
    fn a_fault_of_the_program_blames_neither_rsync_nor_the_configuration() {
        let names = Names { roots: Vec::new(), remotes: vec!["h::m".into()] };
        let (remote, root) = (RemoteId(0), RootId(0));
        let failure = Failure::new(FailureKind::Fault, 13, "index out of bounds");
        let fault = Notice::Failed { remote, root, failure, pending: 1 };
        let (level, sentence) = names.sentence(&fault);
        assert_eq!(level, Level::Error);
        for words in
            ["fault in sersync", "h::m", "index out of bounds", "please report", "tried again"]
        {
            assert!(sentence.contains(words), "{sentence}");
        }
        for words in ["option", "commonParams", "correct"] {
            assert!(!sentence.contains(words), "{sentence}");
        }
    }

    /// Which kind it is; a new kind needs an example in [`one_of_each`].
    fn kind(notice: &Notice) -> usize {
        match notice {
            Notice::Failed { .. } => 0,
            Notice::Over { .. } => 1,
            Notice::MemoryShort => 2,
            Notice::StillDown { .. } => 3,
            Notice::PathsFailed { .. } => 4,
            Notice::MorePathsFailed { .. } => 5,
            Notice::RootLost { .. } => 6,
            Notice::RootBack { .. } => 7,
            Notice::SubtreeLost { .. } => 8,
            Notice::SubtreeBack { .. } => 9,
            Notice::Overflow { .. } => 10,
            Notice::FullSyncStarted { .. } => 11,
            Notice::FullSyncDone { .. } => 12,
            Notice::FullSyncSkipped { .. } => 13,
            Notice::Collapsed { .. } => 14,
        }
    }

    fn one_of_each() -> Vec<Notice> {
        let (remote, root) = (RemoteId(0), RootId(0));
        let path = RelPath::new(b"a/b").unwrap();
        let reason = "the file system there was unmounted".to_owned();
        let after = Duration::from_secs(7);
        let refusal = |paths| Refusal {
            directory: path.clone(),
            paths,
            example: PathFailure::new(path.clone(), "Permission denied (13)"),
            due: Duration::ZERO,
        };
        let mut all = vec![
            Notice::MemoryShort,
            Notice::PathsFailed { remote, refusal: refusal(1), next_try: after },
            Notice::PathsFailed { remote, refusal: refusal(2), next_try: after },
            Notice::MorePathsFailed { remote, paths: 5, directories: 2 },
            Notice::RootLost { root, loss: RootLoss::Gone(reason.clone()) },
            Notice::RootBack { root, replaced: false },
            Notice::RootBack { root, replaced: true },
            Notice::SubtreeLost { root, path: path.clone(), reason },
            Notice::SubtreeBack { root, path },
            Notice::Overflow { root },
            Notice::FullSyncStarted { cause: FullSyncCause::Start },
            Notice::FullSyncDone { remote, took: after, extraneous: Extraneous::Kept },
            Notice::FullSyncSkipped { remote },
            Notice::Collapsed { remote, from: 600_000, to: 9 },
        ];
        for kind in FailureKind::all().filter(|kind| *kind != FailureKind::Path) {
            let failure = Failure::new(kind, 10, "it is silent").advising("look at it");
            for (pending, next_try) in [(0, Duration::ZERO), (1, after), (45, after)] {
                let failure = failure.clone();
                all.push(Notice::Failed { remote, root, failure: failure.clone(), pending });
                let lasts = Duration::from_secs(7_500);
                all.push(Notice::StillDown { remote, root, failure, lasts, next_try, pending });
                all.push(Notice::Over { remote, root, kind, after, pending });
            }
        }
        all
    }

    #[test]
    fn the_page_has_every_warning_and_every_alarm_in_chinese() {
        let names = Names { roots: vec!["/data/www".into()], remotes: vec!["h::m".into()] };
        let notices = one_of_each();
        let kinds: std::collections::BTreeSet<usize> = notices.iter().map(kind).collect();
        assert_eq!(kinds, (0..=14).collect(), "a kind has no example");
        let told = notices.iter().map(|notice| names.sentence(notice));
        let mut said: Vec<String> =
            told.filter(|(level, _)| *level <= Level::Warn).map(|(_, sentence)| sentence).collect();
        let lost = [RelPath::new(b"mnt").unwrap()];
        let advice = "if this is meant: sersync2 confirm-deletions -o F (or create C and restart)";
        for why in [
            Withheld::Unmounted(&lost),
            Withheld::TooMuchGone(Remains { known: 9_000, gone: 8_000 }),
            Withheld::Unsearched("nobody can tell what is gone"),
            Withheld::Unrecorded,
        ] {
            said.push(names.withheld(RootId(0), &why, advice));
        }
        let os_error = |code| std::io::Error::from_raw_os_error(code);
        said.extend([2, 20, 13, 5].map(|code| crate::watch::roots::reason_of(&os_error(code))));
        said.extend([advice, waiting(0).as_str(), &waiting(1), &waiting(2)].map(str::to_owned));
        said.extend([on_their_way(0), on_their_way(1), on_their_way(2)]);
        said.extend([7, 300, 7_200, 7_500].map(|s| span(Duration::from_secs(s))));
        for sentence in said {
            assert!(crate::page::words::are_known(&sentence), "not in SAID_ZH: {sentence}");
        }
    }
}
