//! `sersync2 explain` with a running instance: how the path stands at each remote.
//! The rest of the explanation needs no instance and is `tools/explain.rs`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::instance::{Which, absolute, ask};
use crate::control::protocol::{Answer, Command, Standing};
use crate::ground::counted::counted;
use crate::tools::explain::{self, Stands};

/// Runs the command; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    explain::run(words, &stands)
}

/// How a path stands at each remote, as a name and a clause; `None` when no instance answers.
fn stands(config: &Path, path: &Path) -> Option<Stands> {
    let which = Which { config: Some(config.to_path_buf()), state_dir: None };
    let answer = ask(&which, Command::Explain { path: absolute(path) }).ok()?;
    let Answer::Explained { remotes } = answer else { return None };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Some(remotes.into_iter().map(|at| (at.remote.clone(), clause(&at, now_ms))).collect())
}

fn clause(at: &Standing, now_ms: u64) -> String {
    let seconds = |from: u64, to: u64| to.saturating_sub(from).div_ceil(1000);
    let mut clause = match at.state.as_str() {
        "in_flight" => "on its way".to_owned(),
        state => state.to_owned(),
    };
    if let Some(since) = at.since_ms {
        clause += &format!(" for {} s", seconds(since, now_ms));
    }
    if let Some(reason) = &at.reason {
        clause += &format!(": {reason}");
    }
    if let Some(what_to_do) = &at.what_to_do {
        clause += &format!("; {what_to_do}");
    }
    if at.tries > 0 {
        let next = at.next_try_ms.map(|next| format!("again in {} s", seconds(now_ms, next)));
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
        let at = Standing {
            state: "failing".into(),
            since_ms: Some(1_000),
            reason: Some("Permission denied (13)".into()),
            what_to_do: Some("look at its mode".into()),
            tries: 2,
            next_try_ms: Some(9_000),
            ..Standing::default()
        };
        let told =
            "failing for 5 s: Permission denied (13); look at its mode (2 tries, again in 3 s)";
        assert_eq!(clause(&at, 6_000), told);
        let delivered = Standing { state: "delivered".into(), ..Standing::default() };
        assert_eq!(clause(&delivered, 6_000), "delivered");
    }
}
