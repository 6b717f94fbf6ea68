//! Queries and commands to a running mirror: status, and the guarantees of the control socket.

mod doctor;
mod events;
mod progress;
mod reload;
mod status;
mod steer;
mod verify;

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::mirror::Mirror;

/// Runs a command for one instance.
pub fn run(mirror: &Mirror, name: &str, words: &[&str]) -> Output {
    command(mirror, name, words).output().unwrap()
}

/// A command for one instance, not started yet.
pub fn command(mirror: &Mirror, name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
    command.arg(name).arg("-o").arg(&mirror.config);
    command.arg("--state-dir").arg(mirror.dir.join("state")).args(words).stdin(Stdio::null());
    command
}

/// Its standard output and error.
pub fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// The snapshot of an instance, from `status --json`.
pub fn snapshot(mirror: &Mirror) -> Value {
    let output = run(mirror, "status", &["--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    told["instances"][0]["snapshot"].clone()
}
