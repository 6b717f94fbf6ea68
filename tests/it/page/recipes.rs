//! Runs the monitoring recipes of docs/monitoring, or loads them into the tools that they are for.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fake::{Fake, get, page, troubled, well};
use sersync::snapshot::Snapshot;

fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name)
}

/// The names of all metrics in `/metrics`.
fn metrics() -> Vec<String> {
    let mut snapshot = troubled();
    snapshot.instance.overflows = 1;
    let page = page(Fake::new(snapshot).reader());
    let text = get(page.address(), "/metrics").body;
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.starts_with('#')).map(name).collect()
}

/// The words of an expression that look like our metrics.
fn named(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("sersync_"))
        .collect()
}

/// True when `word` names the metric; a histogram is named by the common beginning of its series.
fn is_named(metric: &str, word: &str) -> bool {
    metric == word
        || ["_bucket", "_count", "_sum"].iter().any(|end| metric == format!("{word}{end}"))
}

#[test]
fn the_recipes_name_metrics_that_exist() {
    let known = metrics();
    for name in [
        "prometheus-rules.yml",
        "prometheus-rules-test.yml",
        "grafana-dashboard.json",
        "../OPERATING.md",
    ] {
        let text = std::fs::read_to_string(recipe(name)).unwrap();
        let words = named(&text);
        assert!(words.len() > 1, "{name}");
        for word in words {
            assert!(
                known.iter().any(|metric| is_named(metric, word)),
                "{name}: {word} is not in /metrics"
            );
        }
    }
}

#[test]
fn promtool_loads_the_rules_and_they_fire() {
    for (what, name) in [("check", "prometheus-rules.yml"), ("test", "prometheus-rules-test.yml")] {
        let ran = Command::new("promtool").args([what, "rules"]).arg(recipe(name)).output();
        match ran {
            Err(_) => crate::support::not_installed("promtool (Debian's prometheus)"),
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
            }
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let text = std::fs::read_to_string(recipe("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels {
        for key in ["id", "title", "type", "gridPos", "targets", "datasource"] {
            assert!(!panel[key].is_null(), "{panel} has no {key}");
        }
        assert!(!panel["targets"][0]["expr"].as_str().unwrap().is_empty());
    }
}

/// The recipe of this tool in docs/OPERATING.md, with the script and the port as they are here.
fn written_for(tool: &str, port: u16) -> String {
    let text = std::fs::read_to_string(recipe("../OPERATING.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with(&format!("| {tool} |"))).unwrap();
    let line = row.split('`').nth(1).unwrap();
    let script = recipe("check_sersync").display().to_string();
    line.replace("/usr/local/bin/check_sersync", &script).replace("8008", &port.to_string())
}

/// What zabbix_agentd does with a `UserParameter`: it gives the command to a shell, with the parameter for `$1`.
#[test]
fn zabbix_reads_the_code_of_each_state() {
    for (of, code) in [(well(), "0"), (troubled(), "2")] {
        let page = page(Fake::new(of).reader());
        let port = page.address().port();
        let line = written_for("Zabbix", port);
        let command = line.strip_prefix("UserParameter=sersync.health[*],").unwrap();
        let command = command.replace("$1", &port.to_string());
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), code, "{command}");
    }
}

/// What monit does with `check program`: it starts the words of the path.
#[test]
fn monit_sees_the_code_of_each_state() {
    for (of, code) in [(well(), 0), (troubled(), 2)] {
        let page = page(Fake::new(of).reader());
        let line = written_for("monit", page.address().port());
        let mut words = line.split('"').nth(1).unwrap().split(' ');
        let status = Command::new(words.next().unwrap()).args(words).output().unwrap().status;
        assert_eq!(status.code(), Some(code), "{line}");
    }
}

#[test]
fn the_check_of_nagios_ends_with_the_code_of_each_state() {
    let check = |of: Snapshot, age: &str| {
        let page = page(Fake::new(of).reader());
        let port = page.address().port().to_string();
        let output = Command::new(recipe("check_sersync")).args([&port, age]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if Command::new("curl").arg("--version").output().is_err() {
        crate::support::skipped("curl is not installed");
        return;
    }
    let (code, said) = check(well(), "60");
    assert!(code == Some(0) && said.starts_with("SERSYNC OK"), "{said}");
    let (code, said) = check(troubled(), "60");
    assert!(
        code == Some(2) && said.starts_with("SERSYNC CRITICAL - 192.0.2.21::www is down"),
        "{said}"
    );
    let mut failing = troubled();
    failing.remotes.remove(1);
    failing.roots[0].deletions = sersync::snapshot::DeletionState::Allowed;
    let (code, said) = check(failing, "60");
    assert!(code == Some(1) && said.contains("22 paths cannot be delivered"), "{said}");
    let nobody = crate::support::free_port().to_string();
    let output = Command::new(recipe("check_sersync")).arg(nobody).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
