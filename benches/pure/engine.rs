//! Changes through `handle`: a copy, scattered files, and the same few files repeatedly.
//! Nothing is sent: jobs are answered at once, or never.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use sersync::change::{Cause, Change, RootId, WatchEvent};
use sersync::engine::{Action, Engine, EngineSetup, Event, Extraneous, JobId, JobReport};

use super::{Size, file, measure};

/// The order in which files change.
#[derive(Clone, Copy)]
enum Order {
    /// Directory by directory, as `cp -a` writes.
    Copy,
    /// Each in another directory than the one before: the worst for the processor's caches.
    Scattered,
    /// The same twenty repeatedly.
    Twenty,
}

fn changes(count: usize, per_event: usize, order: Order, size: Size) -> Vec<Event> {
    let index = |i: usize| match order {
        Order::Copy => i,
        Order::Scattered => i.wrapping_mul(7_919) % size.million(),
        Order::Twenty => i % 20,
    };
    let all: Vec<Change> =
        (0..count).map(|i| Change::entry(file(index(i)), Cause::CloseWrite)).collect();
    let event = |changes: &[Change]| Event::Watch(WatchEvent::changed(RootId(0), changes.to_vec()));
    all.chunks(per_event).map(event).collect()
}

fn engine() -> Engine {
    Engine::new(EngineSetup {
        remotes: vec![RootId(0)],
        workers: 10,
        pending_max: usize::MAX,
        unrecorded: Extraneous::Deleted,
    })
}

fn first_job(actions: &[Action]) -> Option<JobId> {
    actions.iter().find_map(|action| match action {
        Action::Run(job) => Some(job.id),
        _ => None,
    })
}

/// Feeds the events, one every 30 µs. If `answers`, every job is done at once; otherwise the remote never answers.
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

/// Throughput of the engine.
pub fn handle(criterion: &mut Criterion, size: Size) {
    let mut group = criterion.benchmark_group("handle");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(4)));
    for (name, per_event, order, answers) in [
        ("a copied tree", 64, Order::Copy, true),
        ("a copied tree, remote dead", 64, Order::Copy, false),
        ("scattered files", 64, Order::Scattered, true),
        ("scattered files, remote dead", 64, Order::Scattered, false),
        ("twenty files, one by one", 1, Order::Twenty, true),
    ] {
        let count = size.million() / 2;
        let events = changes(count, per_event, order, size);
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
