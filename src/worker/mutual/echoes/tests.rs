//! Tests of the echoes: what rests, for how long, and what the remote's answer means.

use super::*;
use crate::change::Scope;
use crate::change::{RemoteId, RootId};
use crate::engine::Job;
use crate::engine::pending::Mark;
use crate::engine::{JobId, JobKind};
use crate::worker::fresh::Stamp;
use crate::worker::look::Looks;
use crate::worker::moves::is_receivers;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn job(items: &[&str], moves: &[(&str, &str)]) -> Job {
    let item = |p: &&str| Item { path: path(p), mark: Mark::new(Scope::Entry) };
    Job {
        id: JobId(0),
        remote: RemoteId(0),
        root: RootId(0),
        kind: JobKind::Batch,
        items: items.iter().map(item).collect(),
        moves: moves.iter().map(|(new, old)| (path(new), path(old))).collect(),
        deletes_below: true,
    }
}

/// A file written at `written` and renamed or touched at `changed`.
fn file(name: &str, written: u64, changed: u64) -> Present {
    let stamp = Stamp { modified: Duration::from_millis(written), size: 1 };
    let version = Version { stamp, changed: Duration::from_millis(changed), inode: 1 };
    Present { version: Some(version), ..Present::plain(path(name), Presence::Other) }
}

fn names<'a>(paths: impl IntoIterator<Item = &'a RelPath>) -> Vec<String> {
    paths.into_iter().map(|p| String::from_utf8_lossy(p.as_bytes()).into_owned()).collect()
}

fn resting(sorted: &Sorted) -> Vec<String> {
    names(sorted.resting.iter().map(|item| &item.path))
}

/// The notices of a job for which all events were known.
fn notices(job: &Job) -> Notices<'_> {
    Notices { job, known_until: Duration::MAX }
}

/// An answer: the remote has exactly `same`, and `there` of what is to be deleted.
fn answer(same: &[&str], there: &[&str]) -> PreviewAnswer {
    let set = |names: &[&str]| names.iter().map(|name| path(name)).collect();
    PreviewAnswer { same: set(same), extraneous: set(there), is_readable: true }
}

fn sort(echoes: &mut Echoes, look: &mut Look, job: &Job, now: Instant) -> Sorted {
    echoes.sort(look, &notices(job), &(HashSet::new(), true), now)
}

/// Evaluates an answer. Returns whether it shows for the first time that the remote mirrors back, and the items that wait.
fn conclude(
    echoes: &mut Echoes,
    look: &mut Look,
    job: &Job,
    asked: EchoCheck,
) -> (bool, Vec<Item>) {
    let is_news = echoes.learn(look, &notices(job), &asked);
    (is_news, echoes.conclude(look, &notices(job), asked))
}

fn now() -> Instant {
    super::super::now()
}

/// A remote that is known to mirror back.
fn pair() -> Echoes {
    Echoes { pair_seen: Some(now()), ..Echoes::default() }
}

#[test]
fn what_rsync_received_is_known_by_its_names() {
    for (old, new, is) in [
        ("d/.f.aB3xY9", "d/f", true),
        ("d/.f.aB3xY9", "d/.f", true),
        ("..f.aB3xY9", ".f", false),
        (".f.aB3xY9", "d/f", false),
        (".g.aB3xY9", "f", false),
        (".f.aB3xY", "f", false),
        (".f", "f", false),
        ("f.new", "f", false),
        ("...aB3xY9", ".", false),
    ] {
        let new = RelPath::new(new.as_bytes()).unwrap_or_default();
        assert_eq!(is_receivers(&path(old), &new), is, "{old}");
    }
    let long = "x".repeat(250);
    assert!(is_receivers(&path(&format!(".{}.aB3xY9", &long[..230])), &path(&long)));
}

#[test]
fn an_unknown_remote_is_asked_for_what_came_with_its_times_and_nothing_rests() {
    let job = job(&["f", "g", "h", "gone"], &[("f", ".f.aB3xY9"), ("g", "g.new")]);
    let mut look = Look {
        present: vec![file("f", 1, 2), file("g", 1, 2), file("h", 1, 2), file("i", 2, 2)],
        absent: [path("gone")].into(),
        ..Look::default()
    };
    let sorted = sort(&mut Echoes::default(), &mut look, &job, now());
    assert_eq!((resting(&sorted).len(), names(&sorted.asked)), (0, vec!["f".into(), "h".into()]));
    assert_eq!((look.present.len(), look.absent.len()), (4, 1));
}

#[test]
fn what_the_remote_has_needs_no_run_and_shows_that_it_mirrors_back() {
    let (now, mut echoes) = (now(), Echoes::default());
    let mut look = Look { present: vec![file("f", 1, 2), file("g", 1, 2)], ..Look::default() };
    let job = job(&["f", "g"], &[("f", ".f.aB3xY9")]);
    let sorted = sort(&mut echoes, &mut look, &job, now);
    assert_eq!(names(&sorted.asked), ["f", "g"]);
    let asked = EchoCheck { answer: answer(&["f"], &[]), sorted, now };
    let (news, items) = conclude(&mut echoes, &mut look, &job, asked);
    assert!(news && look.present.is_empty());
    // The other file has already changed on the remote.
    assert_eq!(names(items.iter().map(|item| &item.path)), ["g"]);
}

/// Whether a job for `f` shows that the remote mirrors back, when the remote has `f`. `sent`: when the version that we sent
/// before was written.
fn proves(sent: u64, job: &Job) -> bool {
    let (now, mut echoes) = (now(), Echoes::new(Duration::ZERO));
    let looks = |written| Looks {
        first: Look { present: vec![file("f", written, 5)], ..Look::default() },
        ..Looks::default()
    };
    let reach = echoes.ours().begin(&looks(sent), Duration::from_millis(4));
    echoes.ours().end(reach, Duration::from_millis(6));
    let mut look = Look { present: vec![file("f", 1, 7)], ..Look::default() };
    let sorted = sort(&mut echoes, &mut look, job, now);
    let asked = EchoCheck { answer: answer(&["f"], &[]), sorted, now };
    let (news, _) = conclude(&mut echoes, &mut look, job, asked);
    assert!(look.present.is_empty(), "what the remote has is not sent");
    news
}

#[test]
fn only_what_an_rsync_put_here_and_was_not_sent_shows_a_pair() {
    let arrived = job(&["f"], &[("f", ".f.aB3xY9")]);
    assert!(proves(3, &arrived));
    assert!(!proves(1, &arrived), "the remote has it from us");
}

#[test]
fn a_copy_with_its_times_and_a_new_mode_show_no_pair() {
    // `cp -p` and `chmod` leave the same traces as rsync: a change time later than the modification time.
    let copied = job(&["f"], &[]);
    assert!(!proves(3, &copied) && !proves(1, &copied));
    let moved = job(&["f"], &[("f", "f.new")]);
    let mut look = Look { present: vec![file("f", 1, 5)], ..Look::default() };
    assert!(sort(&mut Echoes::default(), &mut look, &moved, now()).asked.is_empty());
}

#[test]
fn a_remote_that_does_not_say_what_it_has_gets_everything() {
    let (now, mut echoes) = (now(), pair());
    let job = job(&["f", "gone"], &[("f", ".f.aB3xY9")]);
    let look = || Look {
        present: vec![file("f", 1, 2)],
        absent: [path("gone")].into(),
        ..Look::default()
    };
    assert_eq!(resting(&sort(&mut echoes, &mut look(), &job, now)), ["f", "gone"]);
    let later = now + REST_MAX;
    let mut look = look();
    let sorted = sort(&mut echoes, &mut look, &job, later);
    let asked = EchoCheck { answer: PreviewAnswer::default(), sorted, now: later };
    let (news, items) = conclude(&mut echoes, &mut look, &job, asked);
    assert!(!news && items.is_empty());
    assert_eq!((look.present.len(), look.absent.len()), (1, 1));
}

#[test]
fn a_pair_of_which_nothing_is_seen_is_one_no_more() {
    let (now, mut echoes, job) = (now(), pair(), job(&["gone"], &[]));
    let look = || Look { absent: [path("gone")].into(), ..Look::default() };
    assert_eq!(resting(&sort(&mut echoes, &mut look(), &job, now)), ["gone"]);
    let mut later = look();
    let sorted = sort(&mut echoes, &mut later, &job, now + PAIR_FOR * 2);
    assert!(sorted.resting.is_empty() && sorted.asked.is_empty() && later.absent.len() == 1);
    assert!(echoes.resting.is_empty());
}

#[test]
fn a_pair_stays_one_while_the_other_side_sends() {
    let (start, mut echoes) = (now(), pair());
    let (arrived, plain) = (job(&["f"], &[("f", ".f.aB3xY9")]), job(&["f"], &[]));
    let look = || Look { present: vec![file("f", 1, 2)], ..Look::default() };
    let late = start + PAIR_FOR - DEFERRED_FOR;
    assert_eq!(resting(&sort(&mut echoes, &mut look(), &arrived, late)), ["f"]);
    // The job after the wait no longer knows that the file arrived.
    let (later, mut look) = (late + DEFERRED_FOR, look());
    echoes.pair_seen = echoes.pair_seen.map(|seen| seen + Duration::from_secs(1));
    let sorted = sort(&mut echoes, &mut look, &plain, later);
    let asked = EchoCheck { answer: answer(&["f"], &[]), sorted, now: later };
    let (news, items) = conclude(&mut echoes, &mut look, &plain, asked);
    assert!(!news && items.is_empty() && look.present.is_empty());
    assert!(echoes.is_pair(later + PAIR_FOR - DEFERRED_FOR));
}

#[test]
fn what_was_written_while_the_remote_was_asked_has_a_turn_of_its_own() {
    let job = job(&["f", "g"], &[]);
    let mut look = Look { present: vec![file("f", 1, 2), file("g", 1, 2)], ..Look::default() };
    let again = Look { present: vec![file("f", 3, 3), file("g", 1, 2)], ..Look::default() };
    notices(&job).give_back_changed(&mut look, &again);
    assert_eq!(names(look.present.iter().map(|e| &e.path)), ["g"]);
    assert_eq!(names(look.returned.iter().map(|item| &item.path)), ["f"]);
}

#[test]
fn the_next_in_a_chain_waits_twice_and_is_asked_less_and_less_often() {
    let (mut now, mut echoes) = (now(), Echoes::default());
    let hinted = job(&["f"], &[("f", ".f.aB3xY9")]);
    let plain = job(&["f"], &[]);
    let (mut asked, mut rested) = (Vec::new(), Vec::new());
    for arrival in 1..=20 {
        let look = || Look { present: vec![file("f", arrival, arrival + 1)], ..Look::default() };
        let mut first = look();
        let sorted = sort(&mut echoes, &mut first, &hinted, now);
        if !sorted.asked.is_empty() {
            asked.push(arrival);
        }
        let question = EchoCheck { answer: answer(&[], &[]), sorted, now };
        let (_, items) = conclude(&mut echoes, &mut first, &hinted, question);
        assert_eq!(items.len() + first.present.len(), 1);
        if items.is_empty() {
            continue;
        }
        rested.push(arrival);
        now += DEFERRED_FOR;
        let mut again = look();
        // The later job has no move hint any more.
        let sorted = sort(&mut echoes, &mut again, &plain, now);
        assert_eq!(names(&sorted.asked), ["f"]);
        let question = EchoCheck { answer: answer(&[], &[]), sorted, now };
        let (_, items) = conclude(&mut echoes, &mut again, &plain, question);
        assert!(items.is_empty() && again.present.len() == 1);
    }
    assert_eq!(rested, [1, 2]);
    assert!(asked.len() < 7, "{asked:?}");
    assert!(echoes.resting.is_empty() && !echoes.is_pair(now));
}

#[test]
fn what_was_copied_here_with_its_times_does_not_wait_for_an_unknown_remote() {
    let (now, mut echoes, job) = (now(), Echoes::default(), job(&["f"], &[]));
    let mut look = Look { present: vec![file("f", 1, 2)], ..Look::default() };
    let sorted = sort(&mut echoes, &mut look, &job, now);
    let asked = EchoCheck { answer: answer(&[], &[]), sorted, now };
    let (_, items) = conclude(&mut echoes, &mut look, &job, asked);
    assert!(items.is_empty() && look.present.len() == 1);
}

#[test]
fn in_a_pair_what_is_written_here_does_not_rest() {
    let job = job(&["arrived", "written", "renamed", "gone", "dir"], &[("renamed", "r.new")]);
    let mut look = Look {
        present: vec![
            file("arrived", 1, 2),
            file("written", 2, 2),
            file("renamed", 1, 2),
            Present::plain(path("dir"), Presence::Directory),
        ],
        absent: [path("gone")].into(),
        ..Look::default()
    };
    let sorted = sort(&mut pair(), &mut look, &job, now());
    assert_eq!(resting(&sorted), ["arrived", "dir", "gone"]);
    assert_eq!(names(look.present.iter().map(|e| &e.path)), ["written", "renamed"]);
}

#[test]
fn in_a_pair_a_rename_says_nothing_of_what_is_younger_than_its_notice_and_ends_a_rest() {
    let (now, mut echoes) = (now(), pair());
    let look = || Look { present: vec![file("f", 1, 5)], ..Look::default() };
    let at = |echoes: &mut Echoes, known_until, old| {
        let job = job(&["f"], &[("f", old)]);
        let known_until = Duration::from_millis(known_until);
        let notices = Notices { job: &job, known_until };
        echoes.sort(&mut look(), &notices, &(HashSet::new(), true), now)
    };
    let mut rests = |known_until, old| resting(&at(&mut echoes, known_until, old)).len();
    // An earlier version was renamed here; this one may have arrived since.
    assert_eq!(rests(4, "f.new"), 1);
    assert_eq!(rests(4, ".f.aB3xY9"), 1);
    // This one was renamed here, over what had arrived.
    assert_eq!(rests(5, "f.new"), 0);
    assert_eq!(rests(6, ".f.aB3xY9"), 1);
    // If the remote is not known to mirror back, nothing waits for an event.
    let sorted = at(&mut Echoes::default(), 4, "f.new");
    assert_eq!((resting(&sorted).len(), sorted.asked.len()), (0, 0));
}

#[test]
fn in_a_pair_a_deletion_that_both_sides_have_is_over_and_another_one_is_made() {
    let (start, mut echoes) = (now(), pair());
    let job = job(&["both", "here", "d/a", "d/b"], &[]);
    let look = || Look {
        absent: ["both", "here", "d"].map(path).into(),
        absent_dirs: [path("d")].into(),
        ..Look::default()
    };
    let first = sort(&mut echoes, &mut look(), &job, start);
    assert_eq!(resting(&first), ["both", "d/a", "d/b", "d", "here"]);
    let (later, mut again) = (start + DEFERRED_FOR, look());
    let sorted = sort(&mut echoes, &mut again, &job, later);
    assert_eq!((sorted.resting.len(), sorted.asked.len()), (0, 3));
    let there = || answer(&[], &["here", "d"]);
    let asked = EchoCheck { answer: there(), sorted, now: later };
    let (_, items) = conclude(&mut echoes, &mut again, &job, asked);
    assert_eq!(names(items.iter().map(|i| &i.path)).len(), 4, "once may be a passing name");
    assert!(again.absent.is_empty());
    let (last, mut again) = (later + DEFERRED_FOR, look());
    again.absent.remove(&path("both"));
    let sorted = sort(&mut echoes, &mut again, &job, last);
    let asked = EchoCheck { answer: there(), sorted, now: last };
    let (_, items) = conclude(&mut echoes, &mut again, &job, asked);
    assert_eq!((items.len(), names(&again.absent)), (0, vec!["d".into(), "here".into()]));
    assert!(echoes.resting.is_empty());
    // A remote that cannot be asked gets deletions at once.
    let sorted = pair().sort(&mut look(), &notices(&job), &(HashSet::new(), false), start);
    assert!(sorted.resting.is_empty());
}

#[test]
fn what_the_other_side_of_a_pair_lacks_is_sent_in_the_end() {
    let (start, mut echoes, job) = (now(), pair(), job(&["f"], &[]));
    let sent_after = (0..10).find(|round| {
        let now = start + DEFERRED_FOR * *round;
        let mut look = Look { present: vec![file("f", 1, 2)], ..Look::default() };
        let sorted = sort(&mut echoes, &mut look, &job, now);
        let asked = EchoCheck { answer: answer(&[], &[]), sorted, now };
        let (_, items) = conclude(&mut echoes, &mut look, &job, asked);
        assert_eq!(items.is_empty(), !look.present.is_empty());
        items.is_empty()
    });
    assert_eq!(sent_after, Some(3));
}

#[test]
fn what_keeps_arriving_rests_for_a_minute_at_most() {
    let (start, mut echoes, job) = (now(), pair(), job(&["f"], &[]));
    let asked_after = (0..100).find(|second| {
        let mut look = Look { present: vec![file("f", *second, second + 1)], ..Look::default() };
        let now = start + Duration::from_secs(*second);
        !sort(&mut echoes, &mut look, &job, now).asked.is_empty()
    });
    assert_eq!(asked_after, Some(60));
}
