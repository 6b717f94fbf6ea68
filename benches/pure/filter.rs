//! The filter: is a path mirrored?
//! The expressions are those of the stock configuration, and some that need the slower of the two engines.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use sersync::config::FilterRules;
use sersync::filter::Filter;
use sersync::path::RelPath;

use super::{Size, file};

/// Paths through the filter.
pub fn excludes(criterion: &mut Criterion, size: Size) {
    let paths: Vec<RelPath> = (0..size.million() / 100).map(file).collect();
    let mut group = criterion.benchmark_group("filter");
    group.sample_size(10).measurement_time(size.time(Duration::from_secs(2)));
    group.throughput(Throughput::Elements(paths.len() as u64));
    let stock = [r"(.*)\.svn", r"(.*)\.gz", "^info/*", "^static/*"];
    for (name, expressions) in [
        ("no expression", &[][..]),
        ("the stock expressions", &stock[..]),
        ("with look-around", &[stock[0], stock[1], r"(?!area0).*\.tmp"][..]),
    ] {
        let excludes = expressions.iter().map(|text| (*text).to_owned()).collect();
        let rules = FilterRules { excludes, ..FilterRules::default() };
        let Ok(filter) = Filter::new(&rules) else {
            eprintln!("filter/{name}: the expressions are refused");
            continue;
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| paths.iter().filter(|path| filter.excludes(path, false)).count());
        });
        black_box(&filter);
    }
    group.finish();
}
