//! Checks the metrics with the tools of operators: promtool, and Python's official parser.
//! Without them, the tests in `src/metrics.rs` still check names, labels and escapes.

use std::io::Write;
use std::process::{Command, Stdio};

use super::fake::{Fake, get, page, troubled};

/// Runs a program with this input; `None` when it is not installed.
fn judge(program: &str, args: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let page = page(Fake::new(troubled()).reader());
    let text = get(page.address(), "/metrics").body;
    match judge("promtool", &["check", "metrics"], &text) {
        None => crate::support::not_installed("promtool (Debian's prometheus)"),
        Some((is_good, said)) => assert!(is_good && said.is_empty(), "{said}\n{text}"),
    }
}

#[test]
fn the_official_parser_reads_both_formats() {
    const SCRIPT: &str = "
import sys
try:
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics
except ImportError:
    sys.exit(77)
text = sys.stdin.read()
read = openmetrics if text.endswith('# EOF\\n') else parser
families = {f.name: f for f in read.text_string_to_metric_families(text)}
down = families['sersync_remote_down'].samples
assert [s.value for s in down] == [0, 1, 0, 0], down
assert families['sersync_remote_deliveries'].type == 'counter'
assert families['sersync_remote_delivery_latency_seconds'].type == 'histogram'
";
    let page = page(Fake::new(troubled()).reader());
    let open =
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n";
    let texts =
        [get(page.address(), "/metrics").body, super::fake::send(page.address(), open).body];
    for text in texts {
        match judge("python3", &["-c", SCRIPT], &text) {
            None => crate::support::not_installed("python3"),
            Some((true, _)) => {}
            Some((false, said)) if said.is_empty() => {
                crate::support::not_installed("Python's prometheus_client");
            }
            Some((false, said)) => panic!("{said}\n{text}"),
        }
    }
}
