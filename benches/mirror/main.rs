//! `make bench`: compares sersync2 with rsync by hand and other mirrors, in one run on one machine.
//! A figure that misses its target is marked in the table; the exit code stays 0.

#![allow(clippy::unwrap_used, reason = "what the tests' support cannot do ends the benchmark")]
#![allow(clippy::disallowed_methods, reason = "it starts programs and reads the clock")]

#[path = "bench.rs"]
mod bench;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::process::ExitCode;

use bench::BenchOptions;

const USAGE: &str = "usage: make bench ARGS='[--short] [--alone] [--rest SECONDS] [--json FILE] [--docs DIR] [FIGURE ...]'
  --short         a small run that shows that everything works; its figures mean little
  --alone         only sersync2 and rsync by hand
  --rest SECONDS  how long the rest before a change is that the figure `rest` measures (65)
  --json FILE     writes the figures there too
  --docs DIR      renews the table and the plots of BENCHMARKS.md there
  FIGURE          only these:";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(options) => match bench::run(&options, &mut std::io::stdout()) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the benchmark broke off: {error}");
                ExitCode::FAILURE
            }
        },
        Err(problem) => {
            eprintln!("{problem}\n{USAGE} {}", bench::figure_names().join(" "));
            ExitCode::FAILURE
        }
    }
}

fn parse(words: impl Iterator<Item = String>) -> Result<BenchOptions, String> {
    let mut options = BenchOptions::full();
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = |name: &str| words.next().ok_or(format!("{name} needs a value"));
        match word.as_str() {
            // cargo adds this argument.
            "--bench" => {}
            "--short" => {
                let BenchOptions { json, docs, only, others, .. } = options;
                options = BenchOptions { json, docs, only, others, ..BenchOptions::short() };
            }
            "--alone" => options.others = false,
            "--rest" => {
                let seconds = value("--rest")?.parse();
                options.rest_s = seconds.map_err(|e| format!("--rest: {e}"))?;
            }
            "--json" => options.json = Some(value("--json")?.into()),
            "--docs" => options.docs = Some(value("--docs")?.into()),
            name if bench::figure_names().contains(&name) => options.only.push(name.to_owned()),
            other => return Err(format!("{other} is neither an option nor a figure")),
        }
    }
    Ok(options)
}
