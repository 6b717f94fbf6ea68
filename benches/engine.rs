//! What the pure core costs: changes through `handle`, batches out of a large pending set, memory per pending path.
//! Measures no rsync and no kernel; where it can, processor time, so that a busy machine does not count. Run: `cargo bench --bench engine`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use sersync::change::{Cause, Change, RootId, Scope, WatchEvent};
use sersync::engine::pending::{Held, Hold, Mark, Pending, Want};
use sersync::engine::{Action, Engine, Event, JobId, JobReport, Setup};
use sersync::path::RelPath;

const MILLION: usize = 1_000_000;

/// The `index`th of a million files: 1,000 directories in two levels, 1,000 files each.
fn file(index: usize) -> RelPath {
    let (directory, name) = (index / 1_000, index % 1_000);
    let text = format!("area{:02}/user{directory:04}/file{name:06}.dat", directory % 25);
    RelPath::new(text.as_bytes()).unwrap_or_default()
}

/// In which order files change.
#[derive(Clone, Copy)]
enum Order {
    /// Directory by directory, as `cp -a` writes.
    Copy,
    /// Each in another directory than the one before: the worst for the processor's caches.
    Scattered,
    /// The same twenty again and again.
    Twenty,
}

fn changes(count: usize, per_event: usize, order: Order) -> Vec<Event> {
    let index = |i: usize| match order {
        Order::Copy => i,
        Order::Scattered => i.wrapping_mul(7_919) % MILLION,
        Order::Twenty => i % 20,
    };
    let all: Vec<Change> =
        (0..count).map(|i| Change::entry(file(index(i)), Cause::CloseWrite)).collect();
    let event = |changes: &[Change]| {
        Event::Watch(WatchEvent::Changed { root: RootId(0), changes: changes.to_vec() })
    };
    all.chunks(per_event).map(event).collect()
}

fn engine() -> Engine {
    Engine::new(Setup {
        roots: 1,
        remotes: vec![RootId(0)],
        workers: 10,
        pending_max: 10 * MILLION,
    })
}

fn first_job(actions: &[Action]) -> Option<JobId> {
    actions.iter().find_map(|action| match action {
        Action::Run(job) => Some(job.id),
        _ => None,
    })
}

/// Feeds everything in, `step` apart; every job is done at once if `answers`, else the remote never answers.
fn feed(engine: &mut Engine, events: Vec<Event>, answers: bool) {
    let mut now = Duration::from_secs(1);
    for event in events {
        now += Duration::from_micros(30);
        let mut actions = engine.handle(now, event);
        while let Some(job) = first_job(&actions).filter(|_| answers) {
            actions = engine.handle(now, Event::JobDone(job, JobReport::done()));
        }
        black_box(&actions);
    }
}

fn handle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handle");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for (name, per_event, order, answers) in [
        ("a copied tree", 64, Order::Copy, true),
        ("a copied tree, remote dead", 64, Order::Copy, false),
        ("scattered files", 64, Order::Scattered, true),
        ("scattered files, remote dead", 64, Order::Scattered, false),
        ("twenty files, one by one", 1, Order::Twenty, true),
    ] {
        let count = MILLION / 2;
        let events = changes(count, per_event, order);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            let set_up = || (engine(), events.clone());
            measure(bencher, set_up, |(engine, events)| {
                feed(engine, std::mem::take(events), answers);
            });
        });
    }
    group.finish();
}

fn million() -> Pending {
    let mut pending = Pending::default();
    for i in 0..MILLION {
        pending.mark(&file(i), Mark::new(Scope::Entry));
    }
    pending
}

fn take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let free = Held::default();
    let mut blocked = Held::default();
    blocked.insert(&RelPath::root(), Hold::Short);
    for (name, held, most) in [
        ("a batch of 4,000 out of a million", &free, 4_000),
        ("nothing out of a million below a held path", &blocked, 0),
    ] {
        let mut pending = million();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                if pending.len() < 10_000 {
                    pending = million();
                }
                assert_eq!(pending.take(held, Want::Batch(4_000)).len(), most);
            });
        });
    }
    group.bench_function("everything, in batches of 4,000", |bencher| {
        measure(
            bencher,
            million,
            |pending| {
                while !pending.take(&free, Want::Batch(4_000)).is_empty() {}
            },
        );
    });
    group.finish();
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Measures `act` on a fresh state each time.
fn measure<T>(bencher: &mut Bencher, set_up: impl Fn() -> T, act: impl Fn(&mut T)) {
    bencher.iter_custom(|times| {
        let mut sum = Duration::ZERO;
        for _ in 0..times {
            let mut state = set_up();
            let begin = processor_time();
            act(&mut state);
            sum += processor_time() - begin;
        }
        sum
    });
}

/// Resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0usize) * 4_096
}

/// No timing: prints what a million distinct pending paths take.
fn memory(_: &mut Criterion) {
    let before = resident();
    let pending = million();
    let grown = resident() - before;
    println!(
        "memory: {} pending paths take {} MB, {} bytes each",
        pending.len(),
        grown / 1_000_000,
        grown / pending.len()
    );
}

criterion_group!(benches, memory, handle, take);
criterion_main!(benches);
