//! The configuration reader: the example file, and files so large that quadratic cost becomes visible.
//! Reads only the text, nothing else on this machine.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use sersync::config::{LoadOptions, load_bytes};

use super::Size;

const EXAMPLE: &str = include_str!("../../confxml.example.xml");

/// From text to a checked configuration.
pub fn load(criterion: &mut Criterion, size: Size) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(2)));
    let texts = [
        ("the example", EXAMPLE.to_owned()),
        ("a thousand roots", file(&each(1_000, root))),
        ("ten thousand roots", file(&each(10_000, root))),
        ("ten thousand remotes of one root", file(&remotes(10_000))),
        ("ten thousand warnings", file(&each(10_000, |_| "<localpaht/>\n".to_owned()))),
        ("ten thousand broken tags", file(&each(10_000, |_| "<localpath\n".to_owned()))),
    ];
    for (name, text) in texts {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            let options = LoadOptions::default();
            bencher.iter(|| read(name, &text, &options));
        });
    }
    group.finish();
}

/// Reads the text and makes all lines for the log.
fn read(name: &str, text: &str, options: &LoadOptions) -> usize {
    match load_bytes(name, text.as_bytes(), options) {
        Ok(loaded) => loaded.warning_lines().len(),
        Err(error) => error.to_string().len(),
    }
}

fn file(inner: &str) -> String {
    format!("<head version=\"2.5\"><sersync>{inner}</sersync></head>")
}

fn each(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect()
}

fn root(n: usize) -> String {
    format!("<localpath watch=\"/data/{n}\">{}</localpath>\n", remote(n))
}

fn remotes(count: usize) -> String {
    format!("<localpath watch=\"/data\">{}</localpath>", each(count, remote))
}

fn remote(n: usize) -> String {
    format!("<remote ip=\"10.0.0.1\" name=\"m{n}\"/>")
}
