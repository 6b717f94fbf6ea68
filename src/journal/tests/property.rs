//! Random histories of the journal, cut and damaged anywhere, against a plain model of what must come back.
//! Single cases with names: `tests.rs`.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Changed(usize, Vec<(RelPath, Extent)>),
    /// Items that are pending for one remote alone.
    Pending(RemoteId, Vec<(RelPath, Extent)>),
    Begin,
    /// The remote, how many jobs ago its job began, the delivered items.
    Delivered(RemoteId, usize, Vec<(RelPath, Extent)>),
    Commit,
    /// Deliveries are under way for all but the youngest so many numbers.
    Compact(u64),
}

/// What must come back: for each remote, the youngest number of each path and extent.
#[derive(Debug, Clone, Default)]
struct Model([Vec<(RelPath, Extent, Seq)>; 3]);

impl Model {
    fn change(&mut self, root: usize, seq: Seq, items: &[(RelPath, Extent)]) {
        // No event reports an additive listing or tree.
        let reported = |extent: Extent| Extent {
            additive: extent.additive && extent.scope == Scope::Entry,
            ..extent
        };
        let items: Vec<_> =
            items.iter().map(|(p, extent)| (p.clone(), reported(*extent))).collect();
        for remote in if root == 0 { 0..2 } else { 2..3 } {
            self.owe(remote, seq, &items);
        }
    }

    fn owe(&mut self, remote: usize, seq: Seq, items: &[(RelPath, Extent)]) {
        self.0[remote].extend(items.iter().map(|(p, extent)| (p.clone(), *extent, seq)));
    }

    fn deliver(&mut self, remote: RemoteId, upto: Seq, items: &[(RelPath, Extent)]) {
        self.0[remote.0].retain(|(path, extent, seq)| {
            *seq > upto || !items.iter().any(|item| covers_one(item, (path, *extent)))
        });
    }

    fn pending(&self, remote: usize) -> Pending {
        let all = self.0[remote].iter();
        all.map(|(p, s, _)| (p.clone(), *s)).collect()
    }
}

fn items() -> impl Strategy<Value = Vec<(RelPath, Extent)>> {
    let path = prop::collection::vec(0..3u8, 0..4).prop_map(|names| {
        names.iter().fold(RelPath::root(), |path, name| path.join(&[b'a' + name]).unwrap())
    });
    let scope = prop_oneof![
        4 => Just(Scope::Entry), 1 => Just(Scope::Listing), 1 => Just(Scope::Tree)
    ];
    let extent = (scope, any::<bool>()).prop_map(|(scope, additive)| Extent { scope, additive });
    prop::collection::vec((path, extent), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, items()).prop_map(|(root, items)| Step::Changed(root, items)),
        2 => (0..3usize, items())
            .prop_map(|(remote, items)| Step::Pending(RemoteId(remote), items)),
        3 => Just(Step::Begin),
        3 => (0..3usize, 0..4usize, items())
            .prop_map(|(remote, ago, items)| Step::Delivered(RemoteId(remote), ago, items)),
        3 => Just(Step::Commit),
        1 => (0..8u64).prop_map(Step::Compact),
    ]
}

fn covers_one(item: &(RelPath, Extent), (path, extent): (&RelPath, Extent)) -> bool {
    let there = *path == item.0 || item.1.scope == Scope::Tree && path.is_within(&item.0);
    there && item.1.covers(extent)
}

fn covers(found: &Pending, wanted: &(RelPath, Extent)) -> bool {
    found.iter().any(|item| covers_one(item, (&wanted.0, wanted.1)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_never_loses_what_was_committed(
        steps in prop::collection::vec(step(), 1..30),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let dir = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), two_roots()).unwrap();
        let mut model = Model::default();
        // After each commit: the file's length, and what must come back.
        let mut committed = vec![(fs::metadata(file(&dir)).unwrap().len(), Model::default())];
        let mut begun = Vec::new();
        for step in &steps {
            match step {
                Step::Changed(root, items) => {
                    let seq = changed(&mut journal, *root, items);
                    model.change(*root, seq, items);
                }
                Step::Pending(remote, items) => {
                    let seq = journal.append_pending(*remote, items);
                    model.owe(remote.0, seq, items);
                }
                Step::Begin => begun.push(journal.begin_job()),
                Step::Delivered(remote, ago, items) => {
                    let Some(&upto) = begun.iter().rev().nth(*ago) else { continue };
                    journal.append_delivered(*remote, upto, items);
                    model.deliver(*remote, upto, items);
                }
                Step::Commit => {
                    journal.commit();
                    committed.push((journal.live.len, model.clone()));
                }
                Step::Compact(fresh) => {
                    let is_fresh = |seq: Seq| seq.0 + fresh > journal.seq.0;
                    let of = |(remote, all): (usize, &Vec<(RelPath, Extent, Seq)>)| {
                        let owed = |(path, extent, seq): &(RelPath, Extent, Seq)| Owed {
                            remote: RemoteId(remote),
                            upto: (!is_fresh(*seq)).then_some(*seq),
                            path: path.clone(),
                            extent: *extent,
                        };
                        all.iter().map(owed).collect::<Vec<_>>()
                    };
                    let all: Vec<_> = model.0.iter().enumerate().flat_map(of).collect();
                    let old = model.0.iter_mut().flatten();
                    let fresh: Vec<_> = old.filter(|(_, _, seq)| is_fresh(*seq)).collect();
                    journal.compact(all);
                    journal.commit_durably();
                    // What a compaction numbers anew is not cancelled by an older delivery.
                    fresh.into_iter().for_each(|(_, _, seq)| *seq = journal.seq);
                    committed = vec![(journal.live.len, model.clone())];
                }
            }
        }
        journal.commit();
        std::mem::forget(journal);
        let whole = fs::read(file(&dir)).unwrap();

        let read = |bytes: &[u8]| Replay::read(bytes, &two_roots(), 0);
        let all = read(&whole).unwrap();
        for remote in 0..3 {
            prop_assert_eq!(pending(&all, RemoteId(remote)), model.pending(remote));
        }

        // Cut at any byte behind the table: everything of the last complete commit is there, unless it was delivered later.
        let first = committed[0].0 as usize;
        let cut = first + cut.index(whole.len() - first + 1);
        let (_, last) = committed.iter().rfind(|(len, _)| *len as usize <= cut).unwrap();
        let found = read(&whole[..cut]).unwrap();
        prop_assert_eq!(found.doubt, None);
        for remote in 0..3 {
            let found = pending(&found, RemoteId(remote));
            let still = last.0[remote].iter().filter(|change| model.0[remote].contains(change));
            for (path, extent, _) in still {
                let wanted = (path.clone(), *extent);
                prop_assert!(covers(&found, &wanted), "{found:?} lacks {wanted:?}");
            }
        }

        // One damaged byte anywhere: refused, or everything is pending, or nothing is missing.
        let mut damaged = whole.clone();
        let at = flip.index(whole.len());
        damaged[at] ^= 0x55;
        if let Ok(found) = read(&damaged) {
            for remote in 0..3 {
                // When the journal is in doubt, everything is pending without deletions.
                let additive = found.doubt.is_some();
                let mut wanted = model.pending(remote).into_iter().map(|(path, extent)| {
                    (path, Extent { additive: extent.additive || additive, ..extent })
                });
                let found = pending(&found, RemoteId(remote));
                prop_assert!(wanted.all(|w| covers(&found, &w)), "byte {at}");
            }
        }
    }
}
