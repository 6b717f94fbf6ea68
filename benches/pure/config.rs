//! The configuration reader: the example file, and one with a thousand watch roots.
//! Looks at nothing on this machine but the text.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use sersync::config::{LoadOptions, load_bytes};

use super::Size;

const EXAMPLE: &str = include_str!("../../confxml.example.xml");

/// From text to a checked configuration.
pub fn load(criterion: &mut Criterion, size: Size) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(2)));
    for (name, text) in [("the example", EXAMPLE.to_owned()), ("a thousand roots", roots(1_000))] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            let options = LoadOptions::default();
            bencher.iter(|| load_bytes(name, text.as_bytes(), &options).is_ok());
        });
    }
    group.finish();
}

/// A file with so many watch roots.
fn roots(count: usize) -> String {
    let root = |n| {
        format!(
            "<localpath watch=\"/data/{n}\"><remote ip=\"10.0.0.1\" name=\"m{n}\"/></localpath>\n"
        )
    };
    let roots: String = (0..count).map(root).collect();
    format!("<head version=\"2.5\"><sersync>{roots}</sersync></head>")
}
