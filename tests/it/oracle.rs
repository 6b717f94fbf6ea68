//! The copy equals what plain rsync makes with the same options: random trees, random operations, every option of the table.
//! It knows neither how sersync sends nor what the options mean. `rsync WORDS -r --delete ./ DEST/` is the reference.

mod operations;
mod trial;
mod words;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::storm::Chance;
use trial::Trial;
use words::{SETS, Set};

/// How many trials run in parallel; each is a daemon, a mirror and many small rsync runs.
const BESIDE: usize = 3;

/// The sets that `cargo test` runs with one seed: one of each kind that once failed.
const SHORT: &[&str] = &["plain", "exclude-dir", "include-some"];

#[test]
fn the_copy_is_what_plain_rsync_makes_of_the_same_words() {
    let sets: Vec<Set> = SHORT.iter().map(|name| words::named(name)).collect();
    report(&run(&sets, Chance::seed_or(1), 12));
}

/// `make oracle`: every set of the table, then random pairs; with `ONLY` those of these names.
#[test]
#[ignore = "as long as asked: make oracle SEED=N ROUNDS=N PAIRS=N ONLY=NAME,NAME"]
fn every_option_of_the_table_and_pairs_of_them() {
    let seed = Chance::seed();
    let only = std::env::var("SERSYNC_ORACLE_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let wanted = |set: &&Set| only.is_empty() || only.contains(&set.name.as_str());
    let table: Vec<Set> = SETS.iter().map(words::set).collect();
    let pairs = words::pairs(&table, number("SERSYNC_ORACLE_PAIRS", 0), seed);
    let sets: Vec<Set> = table.iter().chain(&pairs).filter(wanted).cloned().collect();
    report(&run(&sets, seed, number("SERSYNC_ORACLE_ROUNDS", 20)));
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs the sets; returns the differences, a paragraph for each set.
fn run(sets: &[Set], seed: u64, rounds: usize) -> Vec<String> {
    eprintln!("SERSYNC_SEED={seed}, {} sets, {rounds} rounds each", sets.len());
    let (next, failures, count) =
        (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    let work = || {
        while let Some(set) = sets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut trial = Trial::new(set, seed);
            let verdict = trial.run(rounds);
            count.fetch_add(trial.operations(), Ordering::Relaxed);
            match verdict {
                Ok(()) => eprintln!("ok    {set}"),
                Err(words) => {
                    eprintln!("WRONG {set}\n{words}");
                    failures.lock().unwrap().push(format!("{set} (SERSYNC_SEED={seed})\n{words}"));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..BESIDE.min(sets.len())).for_each(|_| _ = scope.spawn(work)));
    let failures = failures.into_inner().unwrap();
    let operations = count.load(Ordering::Relaxed);
    eprintln!(
        "{} sets, {operations} operations, {} wrong, seed {seed}",
        sets.len(),
        failures.len()
    );
    failures
}

fn report(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} sets differ from plain rsync:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
