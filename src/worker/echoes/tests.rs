//! Tests of the echoes: what rests, for how long, and what the remote's answer means.

use super::*;
use crate::change::{RemoteId, RootId};
use crate::engine::{JobId, JobKind};
use crate::worker::fresh::Stamp;
use crate::worker::sessions;

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
        known_until: Duration::MAX,
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

fn answer(lacking: &[&str], extraneous: &[&str]) -> Answer {
    let set = |names: &[&str]| names.iter().map(|name| path(name)).collect();
    Answer { lacking: set(lacking), extraneous: set(extraneous) }
}

/// One that is known to mirror back.
fn pair() -> Echoes {
    Echoes { mirrors_back: true, ..Echoes::default() }
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
        assert_eq!(is_temporary(&path(old), &new), is, "{old}");
    }
    let long = "x".repeat(250);
    assert!(is_temporary(&path(&format!(".{}.aB3xY9", &long[..230])), &path(&long)));
}

#[test]
fn an_unknown_remote_is_asked_for_what_came_with_its_times_and_nothing_rests() {
    let job = job(&["f", "g", "h", "gone"], &[("f", ".f.aB3xY9"), ("g", "g.new")]);
    let mut look = Look {
        present: vec![file("f", 1, 2), file("g", 1, 2), file("h", 1, 2), file("i", 2, 2)],
        absent: [path("gone")].into(),
        ..Look::default()
    };
    let sorted = Echoes::default().sort(&mut look, &job, &HashSet::new(), true, sessions::now());
    assert_eq!((resting(&sorted).len(), names(&sorted.asked)), (0, vec!["f".into(), "h".into()]));
    assert_eq!((look.present.len(), look.absent.len()), (4, 1));
}

#[test]
fn what_the_remote_has_needs_no_run_and_shows_that_it_mirrors_back() {
    let (now, mut echoes) = (sessions::now(), Echoes::default());
    let mut look = Look { present: vec![file("f", 1, 2), file("g", 1, 2)], ..Look::default() };
    let job = job(&["f", "g"], &[("f", ".f.aB3xY9")]);
    let sorted = echoes.sort(&mut look, &job, &HashSet::new(), true, now);
    assert_eq!(names(&sorted.asked), ["f", "g"]);
    let news = echoes.learn(&look, &job, &answer(&["g"], &[]), &sorted);
    let items = echoes.conclude(&mut look, &job, &answer(&["g"], &[]), sorted, now);
    assert!(news && look.present.is_empty());
    // The other one has changed there already.
    assert_eq!(names(items.iter().map(|item| &item.path)), ["g"]);
}

#[test]
fn what_the_remote_may_have_from_us_shows_nothing() {
    let now = sessions::now();
    let (copied, arrived) = (job(&["f"], &[]), job(&["f"], &[("f", ".f.aB3xY9")]));
    let proves = |sent: u64, job: &Job| {
        let mut echoes = Echoes::new(Duration::ZERO);
        let mut look = Look { present: vec![file("f", sent, 5)], ..Look::default() };
        let reach = echoes.ours().begin(&[&look], Duration::from_millis(4));
        echoes.ours().end(reach, Duration::from_millis(6));
        look.present = vec![file("f", 1, 5)];
        let sorted = echoes.sort(&mut look, job, &HashSet::new(), true, now);
        let news = echoes.learn(&look, job, &answer(&[], &[]), &sorted);
        _ = echoes.conclude(&mut look, job, &answer(&[], &[]), sorted, now);
        assert!(look.present.is_empty(), "what the remote has is not sent");
        news
    };
    // The first job was sending when the file got its times, so it has sent it.
    assert!(!proves(3, &copied));
    // What an rsync put here meanwhile came from elsewhere, unless it is what was sent.
    assert!(proves(3, &arrived));
    assert!(!proves(1, &arrived));
}

#[test]
fn what_was_written_while_the_remote_was_asked_has_a_turn_of_its_own() {
    let job = job(&["f", "g"], &[]);
    let mut look = Look { present: vec![file("f", 1, 2), file("g", 1, 2)], ..Look::default() };
    let again = Look { present: vec![file("f", 3, 3), file("g", 1, 2)], ..Look::default() };
    Echoes::give_back_changed(&mut look, &again, &job);
    assert_eq!(names(look.present.iter().map(|e| &e.path)), ["g"]);
    assert_eq!(names(look.returned.iter().map(|item| &item.path)), ["f"]);
}

#[test]
fn the_next_in_a_chain_waits_twice_and_is_asked_less_and_less_often() {
    let (mut now, mut echoes) = (sessions::now(), Echoes::default());
    let hinted = job(&["f"], &[("f", ".f.aB3xY9")]);
    let plain = job(&["f"], &[]);
    let (mut asked, mut rested) = (Vec::new(), Vec::new());
    for arrival in 1..=20 {
        let look = || Look { present: vec![file("f", arrival, arrival + 1)], ..Look::default() };
        let mut first = look();
        let sorted = echoes.sort(&mut first, &hinted, &HashSet::new(), true, now);
        if !sorted.asked.is_empty() {
            asked.push(arrival);
        }
        let items = echoes.conclude(&mut first, &hinted, &answer(&["f"], &[]), sorted, now);
        assert_eq!(items.len() + first.present.len(), 1);
        if items.is_empty() {
            continue;
        }
        rested.push(arrival);
        now += POSTPONED;
        let mut again = look();
        // The hint is used up by then.
        let sorted = echoes.sort(&mut again, &plain, &HashSet::new(), true, now);
        assert_eq!(names(&sorted.asked), ["f"]);
        let items = echoes.conclude(&mut again, &plain, &answer(&["f"], &[]), sorted, now);
        assert!(items.is_empty() && again.present.len() == 1);
    }
    assert_eq!(rested, [1, 2]);
    assert!(asked.len() < 7, "{asked:?}");
    assert!(echoes.resting.is_empty() && !echoes.mirrors_back);
}

#[test]
fn what_was_copied_here_with_its_times_does_not_wait_for_an_unknown_remote() {
    let (now, mut echoes, job) = (sessions::now(), Echoes::default(), job(&["f"], &[]));
    let mut look = Look { present: vec![file("f", 1, 2)], ..Look::default() };
    let sorted = echoes.sort(&mut look, &job, &HashSet::new(), true, now);
    let items = echoes.conclude(&mut look, &job, &answer(&["f"], &[]), sorted, now);
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
    let sorted = pair().sort(&mut look, &job, &HashSet::new(), true, sessions::now());
    assert_eq!(resting(&sorted), ["arrived", "dir", "gone"]);
    assert_eq!(names(look.present.iter().map(|e| &e.path)), ["written", "renamed"]);
}

#[test]
fn in_a_pair_a_rename_says_nothing_of_what_is_younger_than_its_notice_and_ends_a_rest() {
    let (now, mut echoes) = (sessions::now(), pair());
    let look = || Look { present: vec![file("f", 1, 5)], ..Look::default() };
    let at = |known_until, old| Job {
        known_until: Duration::from_millis(known_until),
        ..job(&["f"], &[("f", old)])
    };
    let mut rests =
        |job| resting(&echoes.sort(&mut look(), &job, &HashSet::new(), true, now)).len();
    // An earlier version was renamed here; this one may have arrived since.
    assert_eq!(rests(at(4, "f.new")), 1);
    assert_eq!(rests(at(4, ".f.aB3xY9")), 1);
    // This one was renamed here, over what had arrived.
    assert_eq!(rests(at(5, "f.new")), 0);
    assert_eq!(rests(at(6, ".f.aB3xY9")), 1);
    // Where nobody is known to mirror back, nothing waits for a notice.
    let sorted = Echoes::default().sort(&mut look(), &at(4, "f.new"), &HashSet::new(), true, now);
    assert_eq!((resting(&sorted).len(), sorted.asked.len()), (0, 0));
}

#[test]
fn in_a_pair_a_deletion_that_both_sides_have_is_over_and_another_one_is_made() {
    let (start, mut echoes) = (sessions::now(), pair());
    let job = job(&["both", "here", "d/a", "d/b"], &[]);
    let look = || Look {
        absent: ["both", "here", "d"].map(path).into(),
        absent_dirs: [path("d")].into(),
        ..Look::default()
    };
    let first = echoes.sort(&mut look(), &job, &HashSet::new(), true, start);
    assert_eq!(resting(&first), ["both", "d/a", "d/b", "d", "here"]);
    let (later, mut again) = (start + POSTPONED, look());
    let sorted = echoes.sort(&mut again, &job, &HashSet::new(), true, later);
    assert_eq!((sorted.resting.len(), sorted.asked.len()), (0, 3));
    let there = answer(&[], &["here", "d"]);
    let items = echoes.conclude(&mut again, &job, &there, sorted, later);
    assert_eq!(names(items.iter().map(|i| &i.path)).len(), 4, "once may be a passing name");
    assert!(again.absent.is_empty());
    let (last, mut again) = (later + POSTPONED, look());
    again.absent.remove(&path("both"));
    let sorted = echoes.sort(&mut again, &job, &HashSet::new(), true, last);
    let items = echoes.conclude(&mut again, &job, &there, sorted, last);
    assert_eq!((items.len(), names(&again.absent)), (0, vec!["d".into(), "here".into()]));
    assert!(echoes.resting.is_empty());
    // Who cannot be asked gets his deletions at once.
    assert!(pair().sort(&mut look(), &job, &HashSet::new(), false, start).resting.is_empty());
}

#[test]
fn what_the_other_side_of_a_pair_lacks_is_sent_in_the_end() {
    let (start, mut echoes, job) = (sessions::now(), pair(), job(&["f"], &[]));
    let sent_after = (0..10).find(|round| {
        let now = start + POSTPONED * *round;
        let mut look = Look { present: vec![file("f", 1, 2)], ..Look::default() };
        let sorted = echoes.sort(&mut look, &job, &HashSet::new(), true, now);
        let items = echoes.conclude(&mut look, &job, &answer(&["f"], &[]), sorted, now);
        assert_eq!(items.is_empty(), !look.present.is_empty());
        items.is_empty()
    });
    assert_eq!(sent_after, Some(3));
}

#[test]
fn what_keeps_arriving_rests_for_a_minute_at_most() {
    let (start, mut echoes, job) = (sessions::now(), pair(), job(&["f"], &[]));
    let asked_after = (0..100).find(|second| {
        let mut look = Look { present: vec![file("f", *second, second + 1)], ..Look::default() };
        let now = start + Duration::from_secs(*second);
        !echoes.sort(&mut look, &job, &HashSet::new(), true, now).asked.is_empty()
    });
    assert_eq!(asked_after, Some(60));
}
