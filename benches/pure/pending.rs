//! The pending set alone: marking, taking batches from a large set, memory per path.
//! The memory is measured once and printed.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use sersync::change::Scope;
use sersync::engine::locks::{LockKind, Owner, PathLocks};
use sersync::engine::pending::{Mark, Pending, Want};
use sersync::path::RelPath;

use super::{Size, file, measure};

fn filled(count: usize) -> Pending {
    let mut pending = Pending::default();
    for i in 0..count {
        pending.mark(&file(i), Mark::new(Scope::Entry));
    }
    pending
}

/// Adding marks.
pub fn mark(criterion: &mut Criterion, size: Size) {
    let paths: Vec<RelPath> = (0..size.million()).map(file).collect();
    let mut group = criterion.benchmark_group("pending");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(4)));
    group.throughput(Throughput::Elements(paths.len() as u64));
    group.bench_function("a million paths marked", |bencher| {
        measure(bencher, Pending::default, |pending| {
            for path in &paths {
                pending.mark(path, Mark::new(Scope::Entry));
            }
        });
    });
    group.finish();
}

/// Taking batches.
pub fn take(criterion: &mut Criterion, size: Size) {
    let mut group = criterion.benchmark_group("take");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(2)));
    let free = PathLocks::default();
    let mut blocked = PathLocks::default();
    blocked.lock(Owner::Reservation, &RelPath::root(), LockKind::Short);
    for (name, locks, most) in [
        ("a batch of 4,000 out of a million", &free, 4_000),
        ("nothing out of a million below a held path", &blocked, 0),
    ] {
        let mut pending = filled(size.million());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                if pending.len() < 10_000 {
                    pending = filled(size.million());
                }
                assert_eq!(pending.take(locks, Want::Batch(4_000)).len(), most);
            });
        });
    }
    group.bench_function("everything, in batches of 4,000", |bencher| {
        measure(
            bencher,
            || filled(size.million()),
            |pending| {
                while !pending.take(&free, Want::Batch(4_000)).is_empty() {}
            },
        );
    });
    group.finish();
}

/// Resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0usize) * 4_096
}

/// Prints the memory of a million distinct pending paths; measures no time.
pub fn memory(size: Size) {
    let before = resident();
    let pending = filled(size.million());
    let grown = resident().saturating_sub(before);
    println!(
        "memory: {} pending paths take {} MB, {} bytes each",
        pending.len(),
        grown / 1_000_000,
        grown / pending.len()
    );
}
