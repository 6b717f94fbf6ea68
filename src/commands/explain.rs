//! `sersync2 explain` with a running instance: asks it for the state of the path at each remote.
//! `tools/explain.rs` makes the rest of the explanation, which needs no instance.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::instance::{Which, absolute, ask, parse};
use crate::control::protocol::{Answer, Command, PathStatus};
use crate::ground::counted::counted;
use crate::ground::time::{ago, wall_ms};
pub use crate::tools::explain::ExplainArgs;
use crate::tools::explain::{self, InstanceWords, Stands};

/// Runs the command; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    match parse::<ExplainArgs>(words) {
        Ok(args) => explain::run(&args, &stands),
        Err(code) => code,
    }
}

/// The state of a path at each remote, as a name and a clause; `None` when no instance answers.
fn stands(instance: &InstanceWords, path: &Path) -> Option<Stands> {
    let InstanceWords { config, state_dir } = instance.clone();
    let which = Which { config: Some(config), state_dir };
    let answer = ask(&which, Command::Explain { path: absolute(path) }).ok()?;
    let Answer::Explained { remotes } = answer else { return None };
    let now_ms = wall_ms();
    Some(remotes.into_iter().map(|at| (at.remote.clone(), clause(&at, now_ms))).collect())
}

fn clause(at: &PathStatus, now_ms: u64) -> String {
    let mut clause = match at.state.as_str() {
        "in_flight" => "on its way".to_owned(),
        state => state.to_owned(),
    };
    if let Some(since) = at.since_ms {
        clause += &format!(" for {}", ago(now_ms, since));
    }
    if let Some(reason) = &at.reason {
        clause += &format!(": {reason}");
    }
    if let Some(what_to_do) = &at.what_to_do {
        clause += &format!("; {what_to_do}");
    }
    if at.tries > 0 {
        let next = at.next_try_ms.map(|next| format!("again in {}", ago(next, now_ms)));
        let next = next.unwrap_or_else(|| "being tried".into());
        clause += &format!(" ({}, {next})", counted(at.tries, "try", "tries"));
    }
    clause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fails_is_told_with_why_since_when_and_the_next_try() {
        let at = PathStatus {
            state: "failing".into(),
            since_ms: Some(1_000),
            reason: Some("Permission denied (13)".into()),
            what_to_do: Some("look at its mode".into()),
            tries: 2,
            next_try_ms: Some(9_000),
            ..PathStatus::default()
        };
        let told =
            "failing for 5 s: Permission denied (13); look at its mode (2 tries, again in 3 s)";
        assert_eq!(clause(&at, 6_000), told);
        let waits =
            PathStatus { state: "pending".into(), since_ms: Some(0), ..PathStatus::default() };
        assert_eq!(clause(&waits, 172_800_000), "pending for 2 d 0 h");
        let delivered = PathStatus { state: "delivered".into(), ..PathStatus::default() };
        assert_eq!(clause(&delivered, 6_000), "delivered");
    }
}
